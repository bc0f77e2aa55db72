"""Exact median of a calibrated CCD in two passes over its pixels, without a copy of them."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

HALF_BITS: Final = 16


@numba.njit(nogil=True, cache=True, inline="always")
def _key(value: np.float32, cell: NDArray[np.float32], bits: NDArray[np.uint32]) -> np.uint32:
    """Map a float32 to an unsigned integer that sorts alike."""
    cell[0] = value
    word = bits[0]
    return ~word if word >> np.uint32(31) else word | np.uint32(0x80000000)


@numba.njit(nogil=True, cache=True)
def _count(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: float,
    b: float,
    offset: NDArray[np.float32],
    top: int,
    histogram: NDArray[np.int64],
) -> None:
    """Count the upper half of the keys of a quadrant; or, of those with upper half ``top``, the lower half."""
    cell = np.zeros(1, np.float32)
    bits = cell.view(np.uint32)
    af, bf, one = np.float32(a), np.float32(b), np.float32(1)
    for y in range(counts.shape[0]):
        for x in range(counts.shape[1]):
            value = counts[y, x] - level[y]
            value = value / ((af * value + bf) * value + one) - offset[y, x]
            if np.isfinite(value):
                key = _key(value, cell, bits)
                upper = np.int64(key >> np.uint32(HALF_BITS))
                if top < 0:
                    histogram[upper] += 1
                elif upper == top:
                    histogram[np.int64(key & np.uint32(0xFFFF))] += 1


@numba.njit(nogil=True, cache=True)
def _count_ccd(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
    top: int,
) -> NDArray[np.int64]:
    histogram = np.zeros(1 << HALF_BITS, np.int64)
    for q in range(counts.shape[0]):
        _count(counts[q], level[q], a[q], b[q], offset[q], top, histogram)
    return histogram


@numba.njit(nogil=True, cache=True)
def _value(key: np.uint32) -> np.float32:
    word = np.empty(1, np.uint32)
    word[0] = key & np.uint32(0x7FFFFFFF) if key >> np.uint32(31) else ~key
    return word.view(np.float32)[0]


@numba.njit(nogil=True, cache=True)
def _bin_of(rank: int, histogram: NDArray[np.int64]) -> tuple[int, int]:
    """Find the bin that holds a rank, and the rank inside it."""
    for i in range(histogram.size):
        if rank < histogram[i]:
            return i, rank
        rank -= histogram[i]
    return -1, rank


@numba.njit(nogil=True, cache=True)
def calibrated_median(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> float:
    """Median over the quadrants of a CCD of the calibrated counts, finite ones only; NaN if there are none.

    Parameters
    ----------
    counts : (quadrant, y, x) float32, DN
    level : (quadrant, y) float32, DN
        Overscan level.
    a, b : (quadrant,) float32
        Non-linearity: value = x / (a x^2 + b x + 1).
    offset : (quadrant, y, x) float32, DN
        Subtracted after that.
    """
    upper = _count_ccd(counts, level, a, b, offset, -1)
    total = upper.sum()
    if total == 0:
        return np.nan
    result, top, lower = 0.0, -1, upper
    for rank in ((total - 1) // 2, total // 2):
        found, inside = _bin_of(rank, upper)
        if found != top:
            top, lower = found, _count_ccd(counts, level, a, b, offset, found)
        low, _ = _bin_of(inside, lower)
        result += 0.5 * np.float64(_value(np.uint32((found << HALF_BITS) | low)))
    return result
