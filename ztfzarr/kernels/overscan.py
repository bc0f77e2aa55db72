"""Overscan: one level a row, and a smooth model of it in the row."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA: Final = 1.4826  # of a normal distribution
MAX_ITERATIONS: Final = 20  # rows only ever drop out, so that the set settles; after two to four


@numba.njit(nogil=True, cache=True)
def row_medians(overscan: NDArray[np.float32], first: int, stop: int, out: NDArray[np.float32]) -> None:
    """Median of each row over the stored columns [first, stop); NaN where a pixel is.

    Parameters
    ----------
    overscan : (y, x) float32
    first, stop : int
    out : (y,) float32
    """
    values = np.empty(stop - first, np.float32)
    middle = values.size // 2
    for y in range(overscan.shape[0]):
        values[:] = overscan[y, first:stop]
        values.sort()  # NaN last
        if np.isnan(values[-1]):
            out[y] = np.nan
        elif values.size % 2:
            out[y] = values[middle]
        else:
            out[y] = np.float32(0.5) * (values[middle - 1] + values[middle])


@numba.njit(nogil=True, cache=True)
def _legendre(rows: int, degree: int) -> NDArray[np.float64]:
    """Legendre polynomials in the row, which runs from -1 to 1, (y, degree + 1)."""
    basis = np.ones((rows, degree + 1))
    for y in range(rows):
        t = 2.0 * y / max(rows - 1, 1) - 1.0
        if degree > 0:
            basis[y, 1] = t
        for n in range(1, degree):
            basis[y, n + 1] = ((2 * n + 1) * t * basis[y, n] - n * basis[y, n - 1]) / (n + 1)
    return basis


@numba.njit(nogil=True, cache=True)
def _fit(basis: NDArray[np.float64], profile: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least squares over the used rows, by normal equations: the basis is orthogonal but for the rows dropped."""
    n = basis.shape[1]
    matrix = np.zeros((n, n))
    right = np.zeros(n)
    for y in range(profile.size):
        if used[y]:
            for i in range(n):
                right[i] += basis[y, i] * profile[y]
                for j in range(n):
                    matrix[i, j] += basis[y, i] * basis[y, j]
    return basis @ np.linalg.solve(matrix, right)


@numba.njit(nogil=True, cache=True)
def smooth_level(
    profile: NDArray[np.float32], degree: int, clip: float, out: NDArray[np.float32]
) -> tuple[float, int]:
    """Fit a Legendre polynomial to an overscan profile, dropping rows beyond ``clip`` sigma, iterated.

    Sigma is 1.4826 times the median absolute deviation of the residuals of the rows in use.

    Parameters
    ----------
    profile : (y,) float32
        Level of each row; rows that are NaN are not used.
    degree : int
    clip : float
        In sigma.
    out : (y,) float32
        The model; NaN if too few rows are left to fit.

    Returns
    -------
    rms : float
        Of the residuals of the rows in use.
    used : int
        Rows in use.
    """
    values = profile.astype(np.float64)
    used = np.isfinite(values)
    out[:] = np.nan
    if used.sum() <= degree + 1:
        return np.nan, 0
    basis = _legendre(values.size, degree)
    model = _fit(basis, values, used)
    for _ in range(MAX_ITERATIONS):
        residual = values - model
        sigma = MAD_TO_SIGMA * np.median(np.abs(residual[used]))
        kept = used & (np.abs(residual) <= clip * sigma)
        if np.array_equal(kept, used) or kept.sum() <= degree + 1:
            break
        used = kept
        model = _fit(basis, values, used)
    residual = values - model
    out[:] = model
    return np.sqrt(np.mean(residual[used] ** 2)), int(used.sum())


@numba.njit(nogil=True, cache=True)
def largest_step(profile: NDArray[np.float32], level: NDArray[np.float32], window: int) -> float:
    """Find the largest jump of an overscan profile about its smooth level.

    The drift of the level is in the model; what is left of the profile jumps only if the amplifier did. Medians
    of ``window`` rows on both sides: a few rows, with a star's charge trailing into them, do not count.

    Parameters
    ----------
    profile, level : (y,) float32
    window : int
        Rows, 1 or more.

    Returns
    -------
    float
        The largest difference between the medians of the rows before and from a row on; 0 in fewer than two
        windows of rows, NaN where the level is.
    """
    rest = profile - level
    stride = max(window // 4, 1)
    largest = 0.0
    for y in range(window, rest.size - window + 1, stride):
        step = abs(np.nanmedian(rest[y : y + window]) - np.nanmedian(rest[y - window : y]))
        if step > largest:
            largest = step
    return np.nan if np.isnan(level).any() else largest
