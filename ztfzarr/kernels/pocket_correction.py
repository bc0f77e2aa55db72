"""Correction of exposures for the pocket effect, driven by denoised charge, in one pass over each row.

The exact inverse of :mod:`ztfzarr.kernels.pocket` amplifies noise, by 1.17 at a sky of 200 DN in the worst CCD,
and ties neighbours together. Here the pocket is driven by denoised charge: the local sky, which is known far
better than a pixel, and the exact root only where pixels stand out of it. Pixels gain what the pocket loses, so
that the mean of a row stays right whatever the denoised charge.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ztfzarr.kernels.pocket import Pocket, released
from ztfzarr.kernels.row_sky import between_middles, pixel_noise, sky_of_blocks

BLOCK: Final = 64  # columns, about: the local sky is the mean of so many pixels of a row, known to 0.14 sigma
SETTLING: Final = 16  # columns in which an empty pocket fills: kept out of the sky
# A star is where three neighbours are together 4 sigma off the local sky: a peak of 3.5 sigma if 2 pixels wide.
# 3 sigma of one pixel find stars as faint, but false ones make a sky of 50 DN 5 % noisier in CCD 6, not 0.8 %.
STAR: Final = 4.0
REACH: Final = 2  # columns on both sides of its middle that are still in the star

CHARGES: Final = 2048  # steps of the look-up in p / c
OCTAVE: Final = 128  # steps an octave of the look-up of the root
LOWEST, HIGHEST = -12, 24  # powers of two between which the root is looked up

Row = NDArray[np.float32]
Floats = NDArray[np.float64]


class Lookup(NamedTuple):
    """Powers and roots of a quadrant's pocket; see :func:`lookup`."""

    pocket: Pocket
    of_charge: Floats  # (CHARGES + 2, 3), at p / c: f, c (1 - p/c)^alpha and n*, DN
    of_rest: Floats  # ((HIGHEST - LOWEST) OCTAVE + 1,), at rest / n*: t / n*


@lru_cache(maxsize=64)
def lookup(pocket: Pocket) -> Lookup:
    """Tabulate the powers of the pocket's charge, and the root of the inverse.

    Parameters
    ----------
    pocket : Pocket
        Of the quadrant.

    Notes
    -----
    With A = c (1 - p/c)^alpha / m^beta, n* = A^(1 / (1 - beta)) and n = n* z, the inverse n - A n^beta = rest is
    z - z^beta = rest / n*, of one variable: t / n* = z^beta is looked up at rest / n*, in equal steps within each
    power of two.
    """
    alpha, c, beta, m = pocket
    full = np.minimum(np.arange(CHARGES + 2) / CHARGES, 1.0)
    pull = c * (1 - full) ** alpha
    of_charge = np.stack([c * full**alpha, pull, (pull / m**beta) ** (1 / (1 - beta))], axis=1)
    steps = np.arange((HIGHEST - LOWEST) * OCTAVE + 1)
    rest = np.ldexp(1 + steps % OCTAVE / OCTAVE, LOWEST + steps // OCTAVE)
    z = rest + 1
    for _ in range(20):  # Newton's method, as in pocket.before_trapping
        z -= (z - z**beta - rest) / (1 - beta * z ** (beta - 1))
    return Lookup(pocket, of_charge, z - rest)


@numba.njit(nogil=True, cache=True, inline="always")
def _taken(rest: float, threshold: float, look: Lookup) -> float:
    """Return the charge taken from a pixel of which ``rest`` is left, n* being ``threshold``."""
    if not (rest > 0 and threshold > 0):
        return 0.0
    ratio, beta = rest / threshold, look.pocket.beta
    mantissa, exponent = math.frexp(ratio)  # mantissa in [0.5, 1)
    octave = exponent - 1 - LOWEST
    if octave < 0:
        return threshold * (1 + ratio * beta / (1 - beta))
    if octave >= HIGHEST - LOWEST:
        return threshold * ratio**beta
    place = (octave + 2 * mantissa - 1) * OCTAVE
    i = int(place)
    return threshold * (look.of_rest[i] + (place - i) * (look.of_rest[i + 1] - look.of_rest[i]))


@numba.njit(nogil=True, cache=True, inline="always")
def _of_star(rest: float, threshold: float, sky: float, held: float, look: Lookup) -> float:
    """Return the charge taken from a pixel of a star: by its own root, but no further from the sky than that says.

    ``held`` of the sky would be taken, and left it sky - held. A pixel that is e above differs from the sky by
    e / (1 - dt/dn), or, where the pocket takes all of the sky, by e: there the root jumps from 0 to n*.
    """
    own = _taken(rest, threshold, look)
    excess = rest - (sky - held)
    most = abs(excess) / (1 - look.pocket.beta * held / sky) if held < sky else abs(excess)
    change = abs(excess + own - held)
    return own if change <= most else held + (own - held) * most / change


@numba.njit(nogil=True, cache=True)
def _correct_row(row: Row, sky: Floats, power: Floats, limit: float, look: Lookup, out: Row) -> float:
    """Correct a row in read order, with sky and (sky/m)^beta of each pixel; return the charge left in the pocket.

    Stars are where three neighbours together are further than ``limit`` from the sky, above or below.
    """
    table, width = look.of_charge, row.size
    scale = CHARGES / look.pocket.cmax
    p, star = 0.0, -1
    for x in range(-REACH, width):
        ahead = min(max(x + REACH, 1), width - 2)
        if abs(row[ahead - 1] + row[ahead] + row[ahead + 1] - 3 * sky[ahead]) > limit:
            star = ahead + REACH
        if x < 0:
            continue
        place = min(p * scale, float(CHARGES))
        i = int(place)
        w = place - i
        f = table[i, 0] + w * (table[i + 1, 0] - table[i, 0])
        pull = table[i, 1] + w * (table[i + 1, 1] - table[i, 1])
        t = max(min(pull * power[x], sky[x]), 0.0)
        if x <= star and np.isfinite(row[x]):
            t = _of_star(row[x] - f, table[i, 2] + w * (table[i + 1, 2] - table[i, 2]), sky[x], t, look)
        out[x] = row[x] - f + t
        p += t - f
    return p


@numba.njit(nogil=True, cache=True)
def correct(image: Row, look: Lookup, backward: bool, out: Row) -> Floats:
    """Correct a quadrant for its pocket.

    Parameters
    ----------
    image : (y, x) float32, DN
        Overscan-subtracted linear counts as stored, whole rows of three columns or more.
    look : Lookup
        Of the quadrant's pocket.
    backward : bool
        Whether the last stored column is read first.
    out : (y, x) float32, DN
        Gets the corrected counts. NaN stay so; rows of fewer than eight pixels are NaN.

    Returns
    -------
    (y,) float64, DN
        Charge in the pocket after the last column; NaN in such rows.
    """
    width = image.shape[1]
    start, step = (width - 1, -1) if backward else (0, 1)
    blocks, sky, power = np.empty(max(width // BLOCK, 1)), np.empty(width), np.empty(width)
    row, corrected = np.empty(width, np.float32), np.empty(width, np.float32)
    charge = np.full(image.shape[0], np.nan)
    settling = min(SETTLING, width // 4)
    for y in range(image.shape[0]):
        for x in range(width):
            row[x] = image[y, start + step * x]
        sigma = pixel_noise(row)
        sky_of_blocks(row, settling, sigma, blocks)
        if np.isnan(blocks[0]):  # hardly any pixels
            out[y] = np.nan
            continue
        between_middles(blocks, sky)
        between_middles((np.maximum(blocks, 0.0) / look.pocket.nmax) ** look.pocket.beta, power)
        charge[y] = _correct_row(row, sky, power, STAR * 3**0.5 * sigma, look, corrected)
        for x in range(width):
            out[y, start + step * x] = corrected[x]
    return charge


@numba.njit(nogil=True, cache=True)
def release(overscan: Row, charge: Floats, look: Lookup, backward: bool, out: Row) -> None:
    """Take from overscans what pockets released into them.

    Parameters
    ----------
    overscan : (y, x) float32, DN
        As stored.
    charge : (y,) float64, DN
        In the pocket after the last column of each row of the image.
    look : Lookup
        Of the quadrant's pocket.
    backward : bool
        Whether the last stored column is read first.
    out : (y, x) float32, DN
        Gets the overscan without it; NaN in rows of which the charge is.
    """
    width = overscan.shape[1]
    start, step = (width - 1, -1) if backward else (0, 1)
    for y in range(overscan.shape[0]):
        p = charge[y]
        for x in range(width):
            f = released(p, look.pocket)
            out[y, start + step * x] = overscan[y, start + step * x] - f
            p -= f
