"""Where Sun, Moon and fields stand over Palomar: low precision, enough for headers and the order of a night.

Formulae: Astronomical Almanac, low-precision Sun and Moon (0.01 and about 1 degree); precession left out.
"""

from __future__ import annotations

from math import asin, atan2, cos, degrees, radians, sin
from typing import Final

import numpy as np

from ztfzarr import horizon
from ztfzarr.geometry import NOON_TO_MIDNIGHT
from ztfzarr.horizon import LATITUDE, SIDEREAL, days_since_j2000, sidereal_time

__all__ = [
    "airmass", "days_since_j2000", "horizontal", "hour_angle", "moon", "moon_phase_angle", "sidereal_time", "sun",
    "sunset",
]  # fmt: skip

SUNSET_ALTITUDE: Final = -0.833


def hour_angle(ra: float, time: np.datetime64) -> float:
    """Return the hour angle of a right ascension, degrees within -180 to 180."""
    return float(horizon.hour_angles(ra, time))


def horizontal(ra: float, dec: float, time: np.datetime64) -> tuple[float, float]:
    """Return azimuth (from north through east) and altitude of a direction, degrees."""
    azimuth, altitude = horizon.horizontal(ra, dec, time)
    return float(azimuth), float(altitude)


def airmass(altitude: float) -> float:
    """Return the airmass at an altitude in degrees."""
    return float(horizon.airmass(altitude))


def _equatorial(longitude: float, latitude: float) -> tuple[float, float]:
    """Turn ecliptic into equatorial degrees."""
    lon, lat, tilt = radians(longitude), radians(latitude), radians(23.439)
    x, y = cos(lon) * cos(lat), cos(tilt) * sin(lon) * cos(lat) - sin(tilt) * sin(lat)
    z = sin(tilt) * sin(lon) * cos(lat) + cos(tilt) * sin(lat)
    return degrees(atan2(y, x)) % 360, degrees(asin(z))


def _sun_longitude(time: np.datetime64) -> float:
    days = days_since_j2000(time)
    anomaly = radians(357.528 + 0.9856003 * days)
    return 280.460 + 0.9856474 * days + 1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly)


def sun(time: np.datetime64) -> tuple[float, float]:
    """Return right ascension and declination of the Sun, degrees."""
    return _equatorial(_sun_longitude(time), 0)


def _moon_ecliptic(time: np.datetime64) -> tuple[float, float]:
    days = days_since_j2000(time)
    anomaly, node = radians(134.9 + 13.064993 * days), radians(93.3 + 13.229350 * days)
    elongation = radians(297.8 + 12.190749 * days)
    evection, variation = 1.27 * sin(2 * elongation - anomaly), 0.66 * sin(2 * elongation)
    return 218.32 + 13.176396 * days + 6.29 * sin(anomaly) + evection + variation, 5.13 * sin(node)


def moon(time: np.datetime64) -> tuple[float, float]:
    """Return right ascension and declination of the Moon, degrees."""
    return _equatorial(*_moon_ecliptic(time))


def moon_phase_angle(time: np.datetime64) -> float:
    """Return the angle Sun-Moon-observer, degrees: 0 is full, 180 new."""
    longitude, latitude = _moon_ecliptic(time)
    separation = cos(radians(longitude - _sun_longitude(time))) * cos(radians(latitude))
    return 180 - degrees(np.arccos(separation))


def sunset(night: int) -> np.datetime64:
    """Return the UTC time of the sunset with which a night (YYYYMMDD) begins."""
    text = f"{night:08d}"
    midnight = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "us")
    time = midnight - NOON_TO_MIDNIGHT + np.timedelta64(6, "h")  # about six hours after local noon
    for _ in range(3):
        ra, dec = sun(time)
        height = sin(radians(SUNSET_ALTITUDE)) - sin(radians(LATITUDE)) * sin(radians(dec))
        setting = degrees(np.arccos(height / (cos(radians(LATITUDE)) * cos(radians(dec)))))
        time += np.timedelta64(round((setting - hour_angle(ra, time)) / SIDEREAL * 86_400e6), "us")
    return time
