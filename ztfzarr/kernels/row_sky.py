"""The sky along a row, from the row alone: its noise, its level in equal parts, and that between their middles."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

PAIRS: Final = 256  # of pixels whose differences give the noise, to 7 %
LAG: Final = 8  # columns between them: a full pocket ties neighbours together, at a sky of 50 DN by 0.3
CLIP: Final = 2.0  # sigma
PASSES: Final = 2
FEWEST: Final = 8  # pixels that have a median
MAD_TO_SIGMA: Final = 1.4826  # of a normal distribution

Row = NDArray[np.float32]
Floats = NDArray[np.float64]


@numba.njit(nogil=True, cache=True)
def _median(values: Row) -> float:
    """Return the median of the finite values; NaN of few."""
    found = np.sort(values[np.isfinite(values)])
    n = found.size
    return 0.5 * (found[(n - 1) // 2] + found[n // 2]) if n >= FEWEST else np.nan


@numba.njit(nogil=True, cache=True)
def pixel_noise(row: Row) -> float:
    """Return the noise of the pixels of a row, DN, from differences of pixels; NaN of too few finite ones.

    Parameters
    ----------
    row : (x,) float32, DN
        Whatever varies over hundreds of columns does not count, nor do stars on less than a third of the row.
    """
    step = max(row.size // PAIRS, 1)
    differences = np.empty(max((row.size - LAG) // step, 0), np.float32)
    for i in range(differences.size):
        differences[i] = abs(row[i * step + LAG] - row[i * step])
    return MAD_TO_SIGMA / 2**0.5 * _median(differences)


# Sums in any order, so that they are vectorised: 1 ns a pixel, where sorting for a median takes 30.
@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _mean_near(values: Row, middle: np.float32, most: np.float32) -> tuple[float, int]:
    """Return the mean of the values within ``most`` of ``middle``, and their number."""
    total, n = np.float32(0), np.float32(0)
    for value in values:
        deviation = value - middle
        near = abs(deviation) <= most
        total += deviation if near else np.float32(0)
        n += np.float32(1) if near else np.float32(0)
    return float(middle + total / max(n, np.float32(1))), int(n)


@numba.njit(nogil=True, cache=True)
def sky_of_blocks(row: Row, settling: int, sigma: float, sky: Floats) -> None:
    """Find the level of equal parts of a row: the mean of what is within 2 sigma of it.

    Parameters
    ----------
    row : (x,) float32, DN
        In read order.
    settling : int
        Pixels at the start of the row that do not count.
    sigma : float
        Noise of a pixel, DN.
    sky : (block,) float64, DN
        Gets the levels. Each is looked for at that of the block before; where less than half of the pixels lie
        there it is their median. Blocks without pixels have that of the nearest before, else after.
    """
    middle = np.nan
    for b in range(sky.size):
        start, stop = b * row.size // sky.size, (b + 1) * row.size // sky.size
        values = row[max(start, settling) : max(stop, min(2 * settling, row.size))]
        n = 0
        for _ in range(PASSES):
            middle, n = _mean_near(values, np.float32(middle), np.float32(CLIP * sigma))
        if 2 * n < values.size:
            middle = _median(values)
        sky[b] = middle
    for b in range(1, sky.size):
        if np.isnan(sky[b]):
            sky[b] = sky[b - 1]
    for b in range(sky.size - 2, -1, -1):
        if np.isnan(sky[b]):
            sky[b] = sky[b + 1]


@numba.njit(nogil=True, cache=True)
def between_middles(blocks: Floats, out: Floats) -> None:
    """Interpolate values of equal parts of a row between their middles; flat beyond the outer ones."""
    last = blocks.size - 1
    for x in range(out.size):
        place = min(max((x + 0.5) * blocks.size / out.size - 0.5, 0.0), float(last))
        i = int(place)
        out[x] = blocks[i] + (place - i) * (blocks[min(i + 1, last)] - blocks[i])
