"""Where directions stand over Palomar, and through how much air: arrays or numbers.

Formulae: Astronomical Almanac, mean sidereal time; precession left out, which moves a zenith distance by less
than 0.3 degrees in 25 years, and the airmass of a field as a whole with it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# As in the headers of the camera.
LONGITUDE: Final = -116.8598
LATITUDE: Final = 33.3573

J2000: Final = np.datetime64("2000-01-01T12:00", "us")
SIDEREAL: Final = 360.98564736629  # degrees a day


def days_since_j2000(time: np.datetime64) -> float:
    """Return days since 2000-01-01 12:00 UTC."""
    return float((time - J2000) / np.timedelta64(1, "D"))


def sidereal_time(time: np.datetime64) -> float:
    """Return the local mean sidereal time of Palomar, degrees."""
    return (280.46061837 + SIDEREAL * days_since_j2000(time) + LONGITUDE) % 360


def hour_angles(ra: ArrayLike, time: np.datetime64) -> Floats:
    """Return the hour angles of right ascensions, degrees within -180 to 180."""
    return np.asarray((sidereal_time(time) - np.asarray(ra, np.float64) + 180) % 360 - 180)


def horizontal(ra: ArrayLike, dec: ArrayLike, time: np.datetime64) -> tuple[Floats, Floats]:
    """Return azimuth (from north through east) and altitude of directions, degrees."""
    h, d, latitude = np.radians(hour_angles(ra, time)), np.radians(dec), np.radians(LATITUDE)
    north = np.cos(latitude) * np.sin(d) - np.sin(latitude) * np.cos(d) * np.cos(h)
    up = np.sin(latitude) * np.sin(d) + np.cos(latitude) * np.cos(d) * np.cos(h)
    return np.degrees(np.arctan2(-np.cos(d) * np.sin(h), north)) % 360, np.degrees(np.arcsin(up))


def airmass(altitude: ArrayLike) -> Floats:
    """Return the airmass at altitudes in degrees (Hardie 1962)."""
    excess = 1 / np.sin(np.radians(altitude)) - 1
    return np.asarray(1 + excess * (1 - 0.0018167 - 0.002875 * excess - 0.0008083 * excess**2))
