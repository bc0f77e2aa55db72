"""Starflat nights at the level of measurements: stars, dithers, airmasses and noise, without images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.sky import stored_pixels, tangent_plane

Floats = NDArray[np.float64]
Map = Callable[[NDArray[np.int16], Floats, Floats, Floats, Floats], Floats]

LATITUDE: Final = 33.356  # degrees, Palomar
ZERO: Final = 26.3  # instrumental magnitude of 1 DN in 30 s is 0
APERTURE: Final = np.pi * 10**2  # pixels
SLOPE: Final = 0.3  # d log10 N / d magnitude of the stars


def illumination(rcid: NDArray[np.int16], x: Floats, y: Floats, u: Floats, v: Floats) -> Floats:
    """Return an error of illumination, mag: 3 % from end to end with its tilt, and steps between quadrants."""
    r = (u**2 + v**2) / 25
    smooth = 0.022 * r - 0.015 * r**2 + 0.005 * np.sin(0.9 * u + 0.3) * np.cos(0.7 * v)
    return np.asarray(smooth + 0.0018 * u - 0.0012 * v + 0.002 * np.sin(2.3 * rcid))


@dataclass(frozen=True)
class StarfieldNight:
    """What is made: a field seen in dithers, and how.

    ``stars`` are those about ``centre`` (RA, Dec); ``dithers`` exposures, of which every fourth is moved by
    ``far`` degrees and the others by 0.1 to 0.5; ``hours`` the hour angle at the first and last; ``zero_scatter``
    the largest zero point, mag; ``floor`` a scatter beyond the photons', mag; ``outliers`` a share, off by up to
    1 mag.
    """

    stars: int = 12_000
    dithers: int = 32
    centre: tuple[float, float] = (150.0, 45.0)
    far: float = 1.7
    hours: tuple[float, float] = (-3.0, 0.5)
    extinction: float = 0.2
    zero_scatter: float = 0.05
    floor: float = 0.005
    outliers: float = 0.01
    sky: float = 150.0
    faintest: float = 17.5
    colour_term: float = 0.0
    shape: tuple[int, int] = FULL_SHAPE
    rcids: tuple[int, ...] = tuple(range(64))
    seed: int = 1
    illumination: Map = illumination


@dataclass(frozen=True)
class Starfield:
    """Columns of the star table, and the truth: arrays of one length, but those of stars and exposures."""

    columns: dict[str, NDArray[Any]]
    star_magnitude: Floats
    star_colour: Floats
    zero: Floats
    delta: Floats
    is_outlier: NDArray[np.bool_]


def simulate_starfield(night: StarfieldNight) -> Starfield:
    """Measure a field of stars in dithered exposures.

    Parameters
    ----------
    night : StarfieldNight
        What is made.

    Returns
    -------
    Starfield
        ``columns``: exposure, rcid, x, y, u, v, slope (airmass at the star less that of the exposure), magnitude,
        magnitude_error, star, colour.

    Notes
    -----
    m = m_star + zp_exp + k (X - X_exp) + delta + dk (colour - 0.8) + noise. Airmass is 1 / sin(altitude).
    """
    rng = np.random.default_rng(night.seed)
    ra, dec, magnitude, colour = _stars(rng, night)
    zero = rng.uniform(-night.zero_scatter, night.zero_scatter, night.dithers)
    parts = []
    for e, (ra0, dec0) in enumerate(_pointings(rng, night)):
        hour = np.interp(e, [0, night.dithers - 1], night.hours)
        lst = night.centre[0] + 15 * hour
        seen = _seen(night, ra, dec, ra0, dec0)
        star = seen["star"].astype(np.int64)
        slope = airmass(lst - ra[star], dec[star]) - airmass(lst - ra0, dec0)
        parts.append(
            {
                **seen,
                "exposure": np.full(star.size, 20200801000000 + e),
                "slope": slope,
                "index": np.full(star.size, e),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    index = columns.pop("index")
    star = columns["star"]
    delta = night.illumination(*(columns[name] for name in ("rcid", "x", "y", "u", "v")))
    true = magnitude[star] + zero[index] + night.extinction * columns["slope"] + delta
    true += night.colour_term * columns["u"] * (colour[star] - 0.8)
    error = photon_error(true, night.sky)
    wild = rng.random(star.size) < night.outliers
    noise = np.hypot(error, night.floor) * rng.standard_normal(star.size) + wild * rng.uniform(-1, 1, star.size)
    columns |= {"magnitude": true - ZERO + noise, "magnitude_error": error, "colour": colour[star]}
    return Starfield(columns, magnitude, colour, zero, delta, wild)


def _stars(rng: np.random.Generator, night: StarfieldNight) -> tuple[Floats, Floats, Floats, Floats]:
    """Draw right ascension, declination, magnitude and colour of the stars of a field."""
    reach = 3.9 + night.far
    ra0, dec0 = night.centre
    dec = rng.uniform(dec0 - reach, dec0 + reach, night.stars)
    ra = ra0 + rng.uniform(-reach, reach, night.stars) / np.cos(np.radians(dec))
    bright = night.faintest + np.log10(rng.uniform(10 ** (-SLOPE * 4.5), 1, night.stars)) / SLOPE
    return ra, dec, bright, rng.normal(0.8, 0.4, night.stars)


def _pointings(rng: np.random.Generator, night: StarfieldNight) -> list[tuple[float, float]]:
    """Return where each exposure points; the first at the centre of the field."""
    angle = rng.uniform(0, 2 * np.pi, night.dithers)
    reach = np.where(np.arange(night.dithers) % 4 == 3, night.far, rng.uniform(0.1, 0.5, night.dithers))
    reach[0] = 0.0
    ra0, dec0 = night.centre
    dec = dec0 + reach * np.sin(angle)
    ra = ra0 + reach * np.cos(angle) / np.cos(np.radians(dec))
    return list(zip(ra.tolist(), dec.tolist(), strict=True))


def _seen(night: StarfieldNight, ra: Floats, dec: Floats, ra0: float, dec0: float) -> dict[str, NDArray[Any]]:
    """Find the stars on each quadrant."""
    u, v = tangent_plane(ra, dec, ra0, dec0)
    parts = []
    for rcid in night.rcids:
        x, y = stored_pixels(rcid, u, v, night.shape)
        inside = np.flatnonzero((x > -0.5) & (x < night.shape[1] - 0.5) & (y > -0.5) & (y < night.shape[0] - 0.5))
        values = {"x": x[inside], "y": y[inside], "u": u[inside], "v": v[inside], "star": inside}
        parts.append({**values, "rcid": np.full(inside.size, rcid, np.int16)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def airmass(hour_angle: Floats | float, dec: Floats | float) -> Floats:
    """Return 1 / sin(altitude) at Palomar; ``hour_angle`` and ``dec`` in degrees."""
    h, d, phi = np.radians(hour_angle), np.radians(dec), np.radians(LATITUDE)
    return np.asarray(1 / (np.sin(phi) * np.sin(d) + np.cos(phi) * np.cos(d) * np.cos(h)))


def photon_error(magnitude: Floats, sky: float, *, gain: float = 6.2, read_noise: float = 1.6) -> Floats:
    """Return the error of aperture magnitudes, mag: photons of star and sky (DN a pixel), and read noise (DN)."""
    flux = 10 ** (-0.4 * (magnitude - ZERO))
    variance = flux / gain + APERTURE * (sky / gain + read_noise**2)
    return np.asarray(2.5 / np.log(10) * np.sqrt(variance) / flux)
