"""Fit of a quadrant's pocket to what trails into its overscan at many levels of light."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ztfzarr.kernels.pocket import Pocket, deferred
from ztfzarr.masters.pocket import REFERENCE

# alpha, cmax, beta, nmax: the median of the tables, and limits that all their quadrants are well within.
START: Final = (1.5, 750.0, 0.38, 3.5e5)
LOWEST: Final = (1.05, 50.0, 0.1, 1e4)
HIGHEST: Final = (3.0, 1e4, 0.9, 1e8)
SETTLED: Final = 256  # columns of a level after which the pocket no longer changes
RELATIVE: Final = 0.003  # of a trail: what the model may miss, so that flats do not outweigh the sky
FEWEST: Final = 4  # levels

Floats = NDArray[np.float64]


def fit_pocket(trails: xr.Dataset) -> xr.Dataset:
    """Fit the pocket of each quadrant to the trails of many exposures.

    Parameters
    ----------
    trails : Dataset
        ``level`` (time, ccd, quadrant), ``trail`` and ``error`` (time, ccd, quadrant, column) of
        :func:`~ztfzarr.masters.pocket.pocket_trail`: of flats and of sky, levels as different as can be.

    Returns
    -------
    Dataset
        ``alpha``, ``beta`` (1), ``cmax``, ``nmax`` (DN), each (ccd, quadrant) float64, as ``correct_pocket`` takes
        them; ``error`` (parameter, ccd, quadrant) of their logarithms; ``chi2`` (ccd, quadrant), per degree of
        freedom. NaN where fewer than four exposures have a trail. Lazy if ``trails`` are.

    Notes
    -----
    Least squares (soft L1) of trails after a steady level n: the pocket is in balance, f(p) = t(n, p), when the
    overscan begins, and then only releases. How fast the trail falls at each height gives alpha and cmax, its
    first columns at each level beta and nmax.
    """
    results = xr.apply_ufunc(
        _fit,
        trails["level"],
        trails["trail"],
        trails["error"],
        input_core_dims=[["time"], ["time", "column"], ["time", "column"]],
        output_core_dims=[["parameter"], ["parameter"], []],
        vectorize=True,
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"parameter": len(START)}, "allow_rechunk": True},
        output_dtypes=[np.float64] * 3,
        join="exact",
        keep_attrs=False,
    )
    values, error, chi2 = results
    units = dict(zip(Pocket._fields, ("1", "DN", "1", "DN"), strict=True))
    fitted = {
        name: values.isel(parameter=i).assign_attrs(units=unit, long_name=f"pocket {name}")
        for i, (name, unit) in enumerate(units.items())
    }
    error = error.assign_coords(parameter=list(units)).assign_attrs(units="1", long_name="error of the logarithm")
    return xr.Dataset(fitted | {"error": error, "chi2": chi2.assign_attrs(units="1", long_name="reduced chi2")})


def trail_of(levels: Floats, pocket: Pocket, columns: int) -> Floats:
    """Return the trails that levels leave, as they are measured: (level, column), DN.

    Parameters
    ----------
    levels : (level,) float64, DN
        Of the last image columns above the last overscan columns, into which charge still trails.
    pocket : Pocket
    columns : int
        Of the overscan.
    """
    trail = np.zeros((levels.size, columns))
    for _ in range(2):  # what trails into the last columns, 1 DN of 100, changes little by itself
        true = levels + trail[:, -REFERENCE:].mean(axis=1)
        trail = deferred(np.repeat(true[:, np.newaxis], SETTLED, axis=1), columns, pocket)[1]
    return trail - trail[:, -REFERENCE:].mean(axis=1, keepdims=True)


def _fit(level: Floats, trail: Floats, error: Floats) -> tuple[Floats, Floats, float]:
    """Fit one quadrant; parameters, errors of their logarithms, chi2 per degree of freedom."""
    used = np.isfinite(level) & np.isfinite(trail).all(axis=1) & (level > 0)
    if used.sum() < FEWEST:
        return np.full(4, np.nan), np.full(4, np.nan), np.nan
    level, trail, error = level[used], trail[used], error[used]
    scale = np.hypot(np.where(error > 0, error, np.inf), RELATIVE * trail)
    columns = trail.shape[1]

    def residuals(logarithms: Floats) -> Floats:
        return ((trail_of(level, Pocket(*np.exp(logarithms)), columns) - trail) / scale).ravel()

    limits = np.log(LOWEST), np.log(HIGHEST)
    found = least_squares(residuals, np.log(START), bounds=limits, loss="soft_l1", x_scale=(0.1, 0.5, 0.1, 1.0))
    freedom = max(trail.size - 4, 1)
    chi2 = float((found.fun**2).sum() / freedom)
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * max(chi2, 1.0)
    return np.exp(found.x), np.sqrt(np.diag(covariance)), chi2
