"""The field of a starflat: one catalogue for all its dithers, and light that dome flats do not show."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ztfzarr import horizon
from ztfzarr.geometry import CCDS, FILTER_IDS, PIXEL_SCALE, QUADRANTS, rcid
from ztfzarr.simulate.conditions import Conditions
from ztfzarr.simulate.quantities import stream
from ztfzarr.simulate.scene import STAMP
from ztfzarr.simulate.schedule import Exposure, field_position
from ztfzarr.sky import from_tangent_plane, plane_of_pixels, stored_pixels, tangent_plane

Floats = NDArray[np.float64]

STARS_PER_PIXEL: Final = 3e-4
FAINTEST, BRIGHTEST, SLOPE = 1500.0, 1e6, 0.6  # DN in 30 s of zr; N(> f) falls as f^-SLOPE
HALF_SIZE: Final = 5.9  # degrees: half the focal plane, and the largest dither
QUADRANT_SIDE: Final = 0.864  # degrees

# Magnitude of a star of 1 DN/s above the air (zr: MAGZP of a real header), and magnitudes an airmass.
ZERO_POINT: Final = {"zg": 26.3, "zr": 26.3, "zi": 25.6}
EXTINCTION: Final = {"zg": 0.17, "zr": 0.09, "zi": 0.05}

RANGE: Final = 0.03  # of the illumination error, peak to peak over the focal plane
SCALE: Final = 3.75  # degrees from the axis to the edge
NODES: Final = 17  # a side, where the truth gives it
MEAN_COLOUR: Final = 0.5  # g - r, at which the camera's response is the same everywhere


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """The stars of a field: degrees, magnitudes (filter, star) in the order of zg, zr, zi; g - r."""

    ra: Floats
    dec: Floats
    magnitude: Floats
    colour: Floats


class DitherStars(NamedTuple):
    """Stars on a quadrant: indices in the catalogue, stored pixels, DN through the air, before illumination."""

    id: NDArray[np.int64]
    x: Floats
    y: Floats
    flux: Floats


@lru_cache(maxsize=2)
def catalogue(seed: int, field: int, shape: tuple[int, int]) -> Catalogue:
    """Draw the stars of a field, as many a pixel whatever the shape.

    Parameters
    ----------
    seed, field : int
        Of the sky.
    shape : (int, int)
        Rows, columns of a quadrant.
    """
    rng = stream(seed, "catalogue", field)
    count = round(STARS_PER_PIXEL * shape[0] * shape[1] * (2 * HALF_SIZE / QUADRANT_SIDE) ** 2)
    xi, eta = rng.uniform(-HALF_SIZE, HALF_SIZE, (2, count))
    ra, dec = from_tangent_plane(xi, eta, *field_position(field))
    flux = np.minimum(FAINTEST * rng.uniform(0, 1, count) ** (-1 / SLOPE), BRIGHTEST)
    colour = rng.normal(MEAN_COLOUR, 0.3, count)
    red = ZERO_POINT["zr"] - 2.5 * np.log10(flux / 30)
    return Catalogue(ra, dec, np.array([red + colour, red, red - colour / 3]), colour)


def pointing(exposure: Exposure, now: Conditions) -> tuple[float, float]:
    """Return where the telescope points, degrees: it misses where it was sent by the shifts of the conditions."""
    error = np.array([now.shift_x, now.shift_y]) * PIXEL_SCALE / 3600
    return float(exposure.ra + error[0] / np.cos(np.radians(exposure.dec))) % 360, exposure.dec + float(error[1])


def airmass(exposure: Exposure, ra: Floats, dec: Floats) -> Floats:
    """Return the airmass of directions in the middle of an exposure."""
    middle = exposure.shutter_open + np.timedelta64(round(exposure.exptime * 500), "ms")
    return horizon.airmass(horizon.horizontal(ra, dec, middle)[1])


def dither_stars(
    seed: int,
    exposure: Exposure,
    now: Conditions,
    ccd: int,
    quadrant: int,
    shape: tuple[int, int],
    *,
    colour_term: float = 0.0,
) -> DitherStars:
    """Find the stars that a dither of a starflat puts on a quadrant.

    Parameters
    ----------
    seed : int
        Of the sky.
    exposure : Exposure
        A dither.
    now : Conditions
        Of the exposure.
    ccd, quadrant : int
        1-16 and 1-4.
    shape : (int, int)
        Rows, columns of a quadrant.
    colour_term : float
        By how many magnitudes a star that is redder by one appears fainter, a degree to the east of the axis.

    Returns
    -------
    DitherStars
        Those whose light reaches the quadrant, a few beyond its edges.
    """
    sky = catalogue(seed, exposure.field, shape)
    xi, eta = tangent_plane(sky.ra, sky.dec, *pointing(exposure, now))
    turn = np.exp(1j * np.radians(now.rotation)) * (xi + 1j * eta)
    x, y = stored_pixels(rcid(ccd, quadrant), turn.real, turn.imag, shape)
    near = (x > -STAMP) & (y > -STAMP) & (x < shape[1] + STAMP) & (y < shape[0] + STAMP)
    ids = np.flatnonzero(near)
    name = exposure.filter
    magnitude = sky.magnitude[list(FILTER_IDS.values()).index(name), ids] - ZERO_POINT[name]
    magnitude += EXTINCTION[name] * airmass(exposure, sky.ra[ids], sky.dec[ids])
    magnitude += colour_term * turn.real[ids] * (sky.colour[ids] - MEAN_COLOUR)
    flux = exposure.exptime * now.transparency * 10 ** (-0.4 * magnitude)
    return DitherStars(ids, x[ids], y[ids], flux)


def illumination_error(seed: int, filter_name: str, ccd: int, quadrant: int, x: Floats, y: Floats) -> Floats:
    """Evaluate by how much more of the sky's light arrives than dome flats tell.

    Parameters
    ----------
    seed : int
        Of the camera.
    filter_name : str
        zg, zr, zi.
    ccd, quadrant : int
        1-16 and 1-4.
    x, y : arrays that broadcast together
        Parts of the quadrant's width and height, 0 to 1, from its stored edges.

    Returns
    -------
    array
        About 1, with a range of :data:`RANGE` over the focal plane: a tilt, a bowl and waves, and of each
        quadrant a level and slopes of its own.
    """
    low, high = _extremes(seed, filter_name)
    pattern = _pattern(seed, filter_name, ccd, quadrant, x, y)
    return np.asarray(1 + RANGE * ((pattern - low) / (high - low) - 0.5))


@lru_cache(maxsize=8)
def _extremes(seed: int, filter_name: str) -> tuple[float, float]:
    part = np.linspace(0, 1, 9)
    found = [_pattern(seed, filter_name, c, q, part, part[:, np.newaxis]) for c in CCDS for q in QUADRANTS]
    return float(np.min(found)), float(np.max(found))


def _pattern(seed: int, filter_name: str, ccd: int, quadrant: int, x: Floats, y: Floats) -> Floats:
    band = list(FILTER_IDS.values()).index(filter_name)
    rng, own = stream(seed, "starflat", band), stream(seed, "starflat", band, ccd, quadrant)
    u, v = (c / SCALE for c in plane_of_pixels(rcid(ccd, quadrant), x - 0.5, y - 0.5, (1, 1)))
    angle, phase = rng.uniform(0, 2 * np.pi, (2, 3))
    tilt = np.cos(angle[0]) * u + np.sin(angle[0]) * v
    bowl = rng.uniform(0.5, 1.0) * (u**2 + v**2)
    waves = sum(np.cos(4 * (np.cos(a) * u + np.sin(a) * v) + p) for a, p in zip(angle[1:], phase[1:], strict=True))
    level, of_x, of_y = own.normal(0, (0.15, 0.1, 0.1))
    return np.asarray(tilt + bowl + 0.3 * waves + level + of_x * (x - 0.5) + of_y * (y - 0.5))
