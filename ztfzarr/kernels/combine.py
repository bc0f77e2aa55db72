"""Frames to one: calibrate, sort, reject and average in one pass over memory."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

# Columns worked on at a time: their frames stay in the first-level cache, and comparisons are SIMD.
COLUMNS: Final = 64

NOISE: Final = 0  # reject by the noise model
SPREAD: Final = 1  # reject by the standard deviation of the stack, as others do; for comparison
MEDIAN: Final = 2  # no mean


def sorting_network(n: int) -> NDArray[np.int64]:
    """Return the comparators (k, 2) of Batcher's merge exchange sort of ``n`` values (Knuth 5.2.2 M)."""
    pairs = []
    if n > 1:
        t = (n - 1).bit_length()
        p = 1 << (t - 1)
        while p > 0:
            q, r, d = 1 << (t - 1), 0, p
            while d > 0:
                pairs += [(i, i + d) for i in range(n - d) if i & p == r]
                d, q, r = q - p, q >> 1, p
            p >>= 1
    return np.array(pairs, np.int64).reshape(-1, 2)


@numba.njit(nogil=True, cache=True, inline="always")
def _load(
    frames: NDArray[np.float32],
    y: int,
    x: int,
    n: int,
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
    scale: NDArray[np.float32],
    block: NDArray[np.float32],
) -> bool:
    """Calibrate ``n`` columns of each frame into ``block`` (frame, column); say whether any is NaN."""
    sick = False
    one = np.float32(1)
    for f in range(frames.shape[0]):
        row = frames[f, y, x : x + n]
        low, af, bf, s = level[f, y], a[f], b[f], scale[f]
        total = np.float32(0)
        for i in range(n):
            value = row[i] - low
            value = (value / ((af * value + bf) * value + one) - offset[y, x + i]) * s
            block[f, i] = value
            total += value - value  # 0, or NaN for NaN and infinities
        sick |= total != 0
    return sick


@numba.njit(nogil=True, cache=True, inline="always")
def _sort_columns(block: NDArray[np.float32], n: int, network: NDArray[np.int64]) -> None:
    """Sort each column of (frame, column), by a network: no branches."""
    for k in range(network.shape[0]):
        low, high = block[network[k, 0]], block[network[k, 1]]
        for i in range(n):
            smaller, larger = min(low[i], high[i]), max(low[i], high[i])
            low[i], high[i] = smaller, larger


@numba.njit(nogil=True, cache=True, inline="always")
def _middle(block: NDArray[np.float32], n: int, frames: int, median: NDArray[np.float32]) -> None:
    """Median of each sorted column."""
    high = frames // 2
    low = high if frames % 2 else high - 1
    half = np.float32(0.5)
    for i in range(n):
        median[i] = half * (block[low, i] + block[high, i])


@numba.njit(nogil=True, cache=True, inline="always")
def _spread(
    block: NDArray[np.float32], n: int, frames: int, median: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Variance of each column about its own mean."""
    for i in range(n):
        total, square = np.float32(0), np.float32(0)
        for f in range(frames):
            d = block[f, i] - median[i]
            total += d
            square += d * d
        mean = total / np.float32(frames)
        out[i] = max(square / np.float32(frames) - mean * mean, np.float32(0))


@numba.njit(nogil=True, cache=True, inline="always")
def _average(
    block: NDArray[np.float32],
    n: int,
    frames: int,
    median: NDArray[np.float32],
    limit: NDArray[np.float32],
    total: NDArray[np.float32],
    count: NDArray[np.float32],
) -> None:
    """Sum the deviations from the median that are within the limit (squared), and count them."""
    total[:n] = 0
    count[:n] = 0
    zero, one = np.float32(0), np.float32(1)
    for f in range(frames):
        row = block[f]
        for i in range(n):
            d = row[i] - median[i]
            kept = d * d <= limit[i]
            total[i] += d if kept else zero
            count[i] += one if kept else zero


@numba.njit(nogil=True, cache=True)
def _sink_nan(block: NDArray[np.float32], column: int, frames: int) -> int:
    """Move the finite values of a column to the front, sorted; return how many there are."""
    finite = 0
    for f in range(frames):
        value = block[f, column]
        if np.isfinite(value):
            i = finite
            while i > 0 and block[i - 1, column] > value:
                block[i, column] = block[i - 1, column]
                i -= 1
            block[i, column] = value
            finite += 1
    return finite


@numba.njit(nogil=True, cache=True)
def combine(
    frames: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
    scale: NDArray[np.float32],
    noise: tuple[float, float, float],
    method: int,
    clip: float,
    network: NDArray[np.int64],
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    count: NDArray[np.int16],
) -> None:
    """Calibrate the frames of a quadrant and combine them.

    Parameters
    ----------
    frames : (time, y, x) float32, DN
        Rows of a quadrant.
    level : (time, y) float32, DN
        Overscan level of each row.
    a, b : (time,) float32
        Non-linearity, DN^-2 and DN^-1: value = x / (a x^2 + b x + 1).
    offset : (y, x) float32, DN
        Subtracted after that: the master bias, or zeros.
    scale : (time,) float32
        Factor of each frame, last.
    noise : (gain e-/DN, read noise e-, relative)
        Of the model: sigma^2 = max(m, 0)/gain + (read noise/gain)^2 + (relative m)^2, m the median. The relative
        part is what frames may differ by and not be rejected; it is no noise of the mean, and not in its variance.
    method : int
        :data:`NOISE`, :data:`SPREAD` or :data:`MEDIAN`.
    clip : float
        In sigma of the noise model or of the stack.
    network : (k, 2) int64
        :func:`sorting_network` of the number of frames.
    mean, variance, count : (y, x)
        Results: mean of the frames kept (or the median), variance of the mean by the noise model, frames kept.
        Without any finite frame NaN, NaN and 0.
    """
    total_frames, ny, nx = frames.shape
    block = np.empty((total_frames, COLUMNS), np.float32)
    one = np.empty((total_frames, 1), np.float32)
    work = np.empty((5, COLUMNS), np.float32)
    median, model, limit, total, kept = work[0], work[1], work[2], work[3], work[4]
    gain, floor = np.float32(noise[0]), np.float32((noise[1] / noise[0]) ** 2)
    relative, clip2 = np.float32(noise[2] ** 2), np.float32(clip * clip)
    for y in range(ny):
        for x in range(0, nx, COLUMNS):
            n = min(COLUMNS, nx - x)
            sick = _load(frames, y, x, n, level, a, b, offset, scale, block)
            if sick:
                for i in range(n):
                    _combine_finite(block, i, one, noise, method, clip, y, x + i, mean, variance, count)
                continue
            _sort_columns(block, n, network)
            _middle(block, n, total_frames, median)
            for i in range(n):
                signal = median[i]
                model[i] = max(signal, np.float32(0)) / gain + floor
                limit[i] = clip2 * (model[i] + relative * signal * signal)
            if method == SPREAD:
                _spread(block, n, total_frames, median, limit)
                for i in range(n):
                    limit[i] *= clip2
            if method == MEDIAN:
                total[:n] = 0
                kept[:n] = total_frames
            else:
                _average(block, n, total_frames, median, limit, total, kept)
            for i in range(n):
                # A stack of two far apart rejects both: their median stands, from none of them.
                mean[y, x + i] = median[i] + (total[i] / kept[i] if kept[i] > 0 else np.float32(0))
                variance[y, x + i] = model[i] / max(kept[i], np.float32(1))
                count[y, x + i] = np.int16(kept[i])


@numba.njit(nogil=True, cache=True)
def _combine_finite(
    block: NDArray[np.float32],
    column: int,
    one: NDArray[np.float32],
    noise: tuple[float, float, float],
    method: int,
    clip: float,
    y: int,
    x: int,
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    count: NDArray[np.int16],
) -> None:
    """Combine one pixel whose frames are not all finite."""
    n = _sink_nan(block, column, block.shape[0])
    if n == 0:
        mean[y, x], variance[y, x], count[y, x] = np.nan, np.nan, 0
        return
    values = block[:n, column]
    median = np.float32(0.5) * (values[(n - 1) // 2] + values[n // 2])
    model = max(median, 0.0) / noise[0] + (noise[1] / noise[0]) ** 2
    sigma2 = model + (noise[2] * median) ** 2 if method == NOISE else np.float64(np.var(values))
    total, kept = 0.0, 0
    for value in values:
        d = np.float64(value) - median
        if method == MEDIAN or d * d <= clip * clip * sigma2:
            total += d
            kept += 1
    shift = total / kept if kept > 0 and method != MEDIAN else 0.0
    mean[y, x], variance[y, x], count[y, x] = median + shift, model / max(kept, 1), kept
