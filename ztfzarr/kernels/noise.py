"""Noise from pairs of frames: the variance of their difference, column by column, without its outliers."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS: Final = 10  # the set of pixels settles after two to five
MEAN_DEVIATION_TO_SIGMA: Final = 1.2533  # of a normal distribution


@numba.njit(nogil=True, cache=True)
def _load(
    frame: NDArray[np.float32],
    level: NDArray[np.float32],
    a: np.float32,
    b: np.float32,
    offset: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Calibrate the rows of a frame."""
    one = np.float32(1)
    for y in range(frame.shape[0]):
        low = level[y]
        for x in range(frame.shape[1]):
            value = frame[y, x] - low
            out[y, x] = value / ((a * value + b) * value + one) - offset[y, x]


@numba.njit(nogil=True, cache=True)
def _means(
    one: NDArray[np.float32], two: NDArray[np.float32], out: NDArray[np.float64], count: NDArray[np.float64]
) -> None:
    """Mean of each column of two frames, over the pixels that are finite in both; ``out`` (2, x)."""
    out[:], count[:] = 0, 0
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            d = one[y, x] - two[y, x]
            fine = d - d == 0
            out[0, x] += one[y, x] if fine else np.float32(0)
            out[1, x] += two[y, x] if fine else np.float32(0)
            count[x] += 1.0 if fine else 0.0
    out /= np.maximum(count, 1.0)


@numba.njit(nogil=True, cache=True)
def _spread(
    difference: NDArray[np.float32],
    limit: NDArray[np.float32],
    mean: NDArray[np.float32],
    total: NDArray[np.float32],
    square: NDArray[np.float32],
    count: NDArray[np.float32],
) -> None:
    """Sum the deviations of each column from ``mean`` that are within the limit, their squares, and count them."""
    total[:], square[:], count[:] = 0, 0, 0
    zero, one = np.float32(0), np.float32(1)
    for y in range(difference.shape[0]):
        for x in range(difference.shape[1]):
            d = difference[y, x] - mean[x]
            kept = abs(d) <= limit[x]  # not for NaN
            d = d if kept else zero
            total[x] += d
            square[x] += d * d
            count[x] += one if kept else zero


@numba.njit(nogil=True, cache=True)
def _deviation(difference: NDArray[np.float32], total: NDArray[np.float32], count: NDArray[np.float32]) -> None:
    """Sum the absolute values of each column, and count the finite ones."""
    total[:], count[:] = 0, 0
    zero, one = np.float32(0), np.float32(1)
    for y in range(difference.shape[0]):
        for x in range(difference.shape[1]):
            d = abs(difference[y, x])
            fine = d < np.float32(np.inf)
            total[x] += d if fine else zero
            count[x] += one if fine else zero


@numba.njit(nogil=True, cache=True)
def _clipped_variance(
    difference: NDArray[np.float32],
    clip: float,
    inflate: float,
    variance: NDArray[np.float64],
    pixels: NDArray[np.float64],
) -> None:
    """Variance of each column, without what is beyond ``clip`` of its own sigma, iterated."""
    width = difference.shape[1]
    work = np.empty((5, width), np.float32)
    mean, limit, total, square, count = work[0], work[1], work[2], work[3], work[4]
    mean[:] = 0
    # The mean deviation, to start from: outliers weigh less in it than in a variance.
    _deviation(difference, total, count)
    for x in range(width):
        limit[x] = clip * MEAN_DEVIATION_TO_SIGMA * total[x] / max(count[x], np.float32(1))
    before = -1.0
    for _ in range(MAX_ITERATIONS):
        _spread(difference, limit, mean, total, square, count)
        kept = 0.0
        for x in range(width):
            n = max(np.float64(count[x]), 1.0)
            shift = total[x] / n
            variance[x] = inflate * max(square[x] / n - shift * shift, 0.0) * n / max(n - 1.0, 1.0)
            limit[x] = clip * np.sqrt(variance[x])
            mean[x] += shift
            kept += count[x]
        if kept == before:
            break
        before = kept
    pixels[:] = count


@numba.njit(nogil=True, cache=True, error_model="numpy")  # a column without pixels has no scale: NaN
def pair_statistics(
    frames: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
    scaled: bool,
    clip: float,
    inflate: float,
    count: NDArray[np.float64],
    levels: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> None:
    """Calibrate frames and take the difference of each two, column by column.

    Columns, because what is poor in a CCD is poor in columns: a hot one is then one clear outlier.

    Parameters
    ----------
    frames : (time, y, x) float32, DN
        Two frames a pair, one pair after the other; a last odd one is not used.
    level : (time, y) float32, DN
        Overscan level of each row.
    a, b : (time,) float32
        Non-linearity, DN^-2 and DN^-1: value = x / (a x^2 + b x + 1).
    offset : (y, x) float32, DN
        Subtracted after that: the master bias, or zeros.
    scaled : bool
        Whether both frames of a pair are first multiplied to their common level, column by column.
    clip : float
        In sigma of the column.
    inflate : float
        What the clip takes from the variance of a normal distribution.
    count, variance : (pair, x) float64
        Results: pixels kept and the variance of their differences, DN2.
    levels : (pair, 2, x) float64
        Result: mean of each frame, DN.
    """
    ny, nx = frames.shape[1:]
    one, two = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    s1, s2 = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for pair in range(count.shape[0]):
        first, second = 2 * pair, 2 * pair + 1
        _load(frames[first], level[first], a[first], b[first], offset, one)
        _load(frames[second], level[second], a[second], b[second], offset, two)
        _means(one, two, levels[pair], count[pair])
        s1[:], s2[:] = 1, 1
        if scaled:
            for x in range(nx):
                common = 0.5 * (levels[pair, 0, x] + levels[pair, 1, x])
                s1[x], s2[x] = common / levels[pair, 0, x], common / levels[pair, 1, x]
        for y in range(ny):
            for x in range(nx):
                one[y, x] = s1[x] * one[y, x] - s2[x] * two[y, x]
        _clipped_variance(one, clip, inflate, variance[pair], count[pair])
