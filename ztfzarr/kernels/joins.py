"""Levels of the four quadrants of a CCD against each other, from the sky beside their joins."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from ztfzarr.geometry import JOINS, QUADRANTS
from ztfzarr.kernels.overscan import MAD_TO_SIGMA

SEGMENTS: Final = 48  # of a join: their scatter is its error, to 10 %
SHORTEST: Final = 24  # pixels of a segment: stars should not fill several
LEAST_SEGMENTS: Final = 8  # of quadrants that are too small for it
SMOOTH: Final = 5  # pixels a side: the wings of stars stand out of their means
CLIP: Final = 3.0  # sigma (1.4826 MAD), of pixels
OUTLIER: Final = 4.0  # sigma, of segments
ROUNDS: Final = 5  # of clipping; stars' wings are gone after three
FILLED: Final = 0.25  # of the pixels of a segment: fewer, and it tells nothing
FEWEST: Final = 4  # segments: fewer, and the join tells nothing

Floats = NDArray[np.float64]


def join_step(
    first: NDArray[np.floating], second: NDArray[np.floating], usable: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[float, float]:
    """Measure by how much the sky is higher on one side of a join than on the other.

    Parameters
    ----------
    first, second : (along, across), DN
        Pixels on either side; across from the join inwards.
    usable : two of (along, across) bool
        Neither masked nor without a value.

    Returns
    -------
    step, error : float, DN
        First minus second, and its standard error; both NaN where too little tells.

    Notes
    -----
    In each of 48 segments of the join, on each side, a straight line is fitted to what is within 3 sigma of it,
    iterated from the median, which gives the level at the join: slopes of the sky cancel, also such as differ,
    for 2 times the error of plain means; and once more to what is within 3 sigma of it after smoothing by 5 x 5
    pixels, without the wings of stars. The step is the mean over the segments within 4 sigma of their median; its
    error is from their scatter.
    """
    levels = [_levels_at_join(side, good) for side, good in zip((first, second), usable, strict=True)]
    steps = levels[0] - levels[1]
    steps = steps[np.isfinite(steps)]
    if steps.size >= FEWEST:
        middle = np.median(steps)
        steps = steps[np.abs(steps - middle) <= OUTLIER * MAD_TO_SIGMA * np.median(np.abs(steps - middle))]
    if steps.size < FEWEST:
        return np.nan, np.nan
    return float(steps.mean()), float(steps.std(ddof=1) / np.sqrt(steps.size))


def _levels_at_join(side: NDArray[np.floating], usable: NDArray[np.bool_]) -> Floats:
    """Return the level of each segment at the join itself, half a pixel before the first, (segment,)."""
    across = side.shape[1]
    length = max(side.shape[0] // SEGMENTS, min(SHORTEST, side.shape[0] // LEAST_SEGMENTS), 1)
    whole = side.shape[0] // length * length
    there = usable[:whole].reshape(-1, length * across)
    values = np.where(there, side[:whole].reshape(there.shape), 0).astype(np.float64)
    place = np.broadcast_to(np.arange(across) + 0.5, (length, across)).reshape(-1)
    line = _medians(values, there)[:, np.newaxis]
    for _ in range(ROUNDS):
        good = _near(values - line, there)
        level, slope = _lines(values, good, place)
        line = level[:, np.newaxis] + slope[:, np.newaxis] * place
    smooth = uniform_filter(np.where(good, values - line, 0).reshape(whole, across), SMOOTH, mode="nearest")
    good = good & _near(smooth.reshape(good.shape), good)
    return np.where(good.sum(axis=1) >= FILLED * place.size, _lines(values, good, place)[0], np.nan)


def _near(residual: Floats, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep what is within 3 sigma of the line."""
    apart = np.abs(residual)
    kept: NDArray[np.bool_] = good & (apart <= CLIP * MAD_TO_SIGMA * _medians(apart, good)[:, np.newaxis])
    return kept


def _lines(values: Floats, good: NDArray[np.bool_], place: Floats) -> tuple[Floats, Floats]:
    """Fit a straight line to the good values of each row; its level at place 0, and its slope."""
    count = np.maximum(good.sum(axis=1), 1)
    middle, mean = (good * place).sum(axis=1) / count, (good * values).sum(axis=1) / count
    off = np.where(good, place - middle[:, np.newaxis], 0)
    slope = (off * values).sum(axis=1) / np.maximum((off**2).sum(axis=1), 1)
    return mean - slope * middle, slope


def _medians(values: Floats, good: NDArray[np.bool_]) -> Floats:
    """Return the median of the good values of each row; NaN of none."""
    ranked = np.sort(np.where(good, values, np.inf), axis=1)
    count = good.sum(axis=1)
    rows = np.arange(len(ranked))
    low, high = (ranked[rows, np.maximum(count - 1 + odd, 0) // 2] for odd in (0, 1))
    return np.where(count > 0, (low + high) / 2, np.nan)


def quadrant_offsets(steps: NDArray[np.floating], errors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Fit levels of quadrants to the steps at their joins.

    Parameters
    ----------
    steps, errors : (join,), DN
        In the order of :data:`ztfzarr.geometry.JOINS`, of :func:`join_step`; NaN where a join tells nothing.

    Returns
    -------
    offsets, errors : (quadrant,), DN
        Levels above the mean of the quadrants that joins link, and their standard errors; NaN of one that none
        links to another.

    Notes
    -----
    Weighted least squares; of all that fit the steps as well, the one of the least norm, whose sum is 0.
    """
    known = np.isfinite(steps) & np.isfinite(errors) & (errors > 0)
    design = np.zeros((len(JOINS), len(QUADRANTS)))
    for row, (first, second, _) in enumerate(JOINS):
        design[row, first - 1], design[row, second - 1] = 1, -1
    scaled = design[known] / errors[known, np.newaxis]
    covariance = np.linalg.pinv(scaled.T @ scaled, rcond=1e-10, hermitian=True)
    offsets = covariance @ (scaled.T @ (steps[known] / errors[known]))
    linked = np.abs(design[known]).sum(axis=0) > 0
    found = offsets, np.sqrt(np.maximum(np.diag(covariance), 0))
    return np.where(linked, found[0], np.nan), np.where(linked, found[1], np.nan)
