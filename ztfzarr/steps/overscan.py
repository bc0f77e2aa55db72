"""Overscan: the level of each row, smoothed along the rows, subtracted row for row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import stored_columns
from ztfzarr.kernels.overscan import largest_step, row_medians, smooth_level
from ztfzarr.steps.units import bare, require_labels, require_units

COLUMNS: Final = (5, 25)
DEGREE: Final = 3
CLIP: Final = 3.0

# Beyond these an overscan is not used. Amplifiers stand at 30-250 DN; by noise alone the largest step of a whole
# strip of 5 columns is 0.7 DN.
HIGHEST: Final = 5000.0  # DN
STEP: Final = 1.5  # DN
STEP_ROWS: Final = 64
STEP_SIGMA: Final = 6.0


def overscan_profile(
    overscan: xr.DataArray,
    *,
    columns: tuple[int, int] = COLUMNS,
    columns_of_ccd: Mapping[int, tuple[int, int]] | None = None,
) -> xr.DataArray:
    """Take the median of each row of the overscan.

    Parameters
    ----------
    overscan : (..., ccd, quadrant, y, x_overscan) float32, DN
        All its rows and columns, as stored.
    columns : (int, int)
        First column and the one after the last, counted from the first read.
    columns_of_ccd : mapping, optional
        Other columns for some CCDs, by label.

    Returns
    -------
    (..., ccd, quadrant, y) float32, DN. Lazy if ``overscan`` is.

    Raises
    ------
    ValueError
        If units are not DN, CCDs or quadrants have no labels, or the columns lie outside the overscan.
    """
    require_units(overscan, "DN")
    require_labels(overscan, "ccd", "quadrant")
    first, stop = _stored_ranges(overscan, columns, columns_of_ccd or {})
    return xr.apply_ufunc(
        _profiles,
        overscan,
        first,
        stop,
        input_core_dims=[["y", "x_overscan"], [], []],
        output_core_dims=[["y"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        join="exact",
        keep_attrs=False,
    ).assign_attrs(units="DN", long_name="median of the overscan's row")


def _stored_ranges(
    overscan: xr.DataArray, columns: tuple[int, int], columns_of_ccd: Mapping[int, tuple[int, int]]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return first and stop column as stored, each (ccd, quadrant): the read side differs by quadrant."""
    width = overscan.sizes["x_overscan"]
    ccds, quadrants = np.atleast_1d(overscan["ccd"].values), np.atleast_1d(overscan["quadrant"].values)
    ranges = np.empty((2, len(ccds), len(quadrants)), np.int64)
    for i, j in np.ndindex(ranges.shape[1:]):
        stored = stored_columns(int(quadrants[j]), *columns_of_ccd.get(int(ccds[i]), columns), width)
        ranges[:, i, j] = stored.start, stored.stop
    labelled = xr.DataArray(ranges, dims=("end", "ccd", "quadrant"), coords={"ccd": ccds, "quadrant": quadrants})
    for name in ("ccd", "quadrant"):
        if name not in overscan.dims:
            labelled = labelled.isel({name: 0}, drop=True)
    return labelled[0], labelled[1]


def _profiles(
    overscan: NDArray[np.float32], first: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.float32]:
    out = np.empty(overscan.shape[:-1], np.float32)
    lead = overscan.shape[:-2]
    first, stop = np.broadcast_to(first, lead), np.broadcast_to(stop, lead)
    for image in np.ndindex(lead):
        row_medians(overscan[image], int(first[image]), int(stop[image]), out[image])
    return out


def overscan_level(profile: xr.DataArray, *, degree: int = DEGREE, clip: float = CLIP) -> xr.Dataset:
    """Smooth an overscan profile along its rows.

    Parameters
    ----------
    profile : (..., y) float32, DN
        From :func:`overscan_profile`, with all the rows of the quadrant.
    degree : int
        Of the Legendre polynomial in the row.
    clip : float
        Rows further from the fit than ``clip`` sigma (1.4826 MAD) are dropped from it, iterated.

    Returns
    -------
    Dataset
        ``level`` (..., y) float32, DN, NaN where the fit failed; ``rms`` (...) float32, DN, of the rows in use
        about it; ``used`` (...) int32, rows in use; ``step`` (...) float32, DN, the largest jump between the
        medians of 64 rows (at most an eighth of all) and as many next to them, of the profile about its level.
        Lazy if ``profile`` is.
    """
    require_units(profile, "DN")
    level, rms, used, step = xr.apply_ufunc(
        _levels,
        profile,
        kwargs={"degree": degree, "clip": clip},
        input_core_dims=[["y"]],
        output_core_dims=[["y"], [], [], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int32, np.float32],
        keep_attrs=False,
    )
    return xr.Dataset(
        {
            "level": level.assign_attrs(units="DN", long_name="overscan level"),
            "rms": rms.assign_attrs(units="DN", long_name="rms of the overscan profile about its level"),
            "used": used.assign_attrs(units="1", long_name="rows in use of the overscan profile"),
            "step": step.assign_attrs(units="DN", long_name="largest jump of the overscan profile"),
        }
    )


def _levels(
    profile: NDArray[np.float32], *, degree: int, clip: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    lead = profile.shape[:-1]
    level = np.empty(profile.shape, np.float32)
    rms, used, step = np.empty(lead, np.float32), np.empty(lead, np.int32), np.empty(lead, np.float32)
    window = _step_window(profile.shape[-1])
    for image in np.ndindex(lead):
        rms[image], used[image] = smooth_level(profile[image], degree, clip, level[image])
        step[image] = largest_step(profile[image], level[image], window)
    return level, rms, used, step


def _step_window(rows: int) -> int:
    return max(min(STEP_ROWS, rows // 8), 1)


def overscan_flag(fit: xr.Dataset, *, highest: float = HIGHEST, step: float = STEP) -> xr.DataArray:
    """Say which overscans failed: their frames have no level.

    Parameters
    ----------
    fit : Dataset
        Of :func:`overscan_level`.
    highest : float
        DN: a level that reaches it is saturated.
    step : float
        DN: a profile that jumps by more, and by more than 6 sigma of its noise, has two levels, and the smooth
        one is neither.

    Returns
    -------
    (...) uint8
        0 where the overscan is sound, else bits 1 failed, 2 saturated, 4 step: see its ``flag_meanings``. Lazy if
        ``fit`` is.
    """
    level = fit["level"]
    failed = level.isnull().any("y")
    saturated = (level >= highest).any("y")
    # The difference of two medians of n rows has 1.25 sqrt(2 / n) times the noise of a row.
    noise = fit["rms"] * (1.25 * (2 / _step_window(level.sizes["y"])) ** 0.5)
    jumped = (fit["step"] > step) & (fit["step"] > STEP_SIGMA * noise)
    flag = (failed + 2 * saturated + 4 * jumped).astype(np.uint8)
    return flag.assign_attrs(
        long_name="overscan: what is wrong",
        flag_masks=[1, 2, 4],
        flag_meanings="failed saturated step",
    )


def sound_level(exposures: xr.Dataset, **overscan: Any) -> xr.DataArray:
    """Return the overscan level of raw exposures, NaN where it is not sound.

    Parameters
    ----------
    exposures : Dataset
        ``overscan``, with all the rows.
    **overscan
        ``columns``, ``columns_of_ccd`` of :func:`overscan_profile`, ``degree``, ``clip`` of
        :func:`overscan_level`, ``highest``, ``step`` of :func:`overscan_flag`.

    Returns
    -------
    (time, ccd, quadrant, y) float32, DN. Lazy if the exposures are.
    """
    strips = bare(exposures["overscan"])
    strips = strips.chunk(y=-1, x_overscan=-1) if strips.chunks else strips
    fit = {name: overscan.pop(name) for name in ("degree", "clip") if name in overscan}
    limits = {name: overscan.pop(name) for name in ("highest", "step") if name in overscan}
    smooth = overscan_level(overscan_profile(strips, **overscan), **fit)
    return smooth["level"].where(overscan_flag(smooth, **limits) == 0).assign_attrs(smooth["level"].attrs)


def subtract_overscan(counts: xr.DataArray, level: xr.DataArray) -> xr.DataArray:
    """Subtract the overscan level, row for row.

    Parameters
    ----------
    counts : (..., y, x) float32, DN
    level : (..., y) float32, DN
        ``level`` of :func:`overscan_level`.

    Returns
    -------
    (..., y, x) float32, DN. Lazy if ``counts`` is.

    Raises
    ------
    ValueError
        If units are not DN, or times, CCDs, quadrants or rows differ.
    """
    require_units(counts, "DN")
    require_units(level, "DN")
    require_labels(counts, "ccd", "quadrant")
    result = xr.apply_ufunc(np.subtract, counts, level, join="exact", dask="allowed", keep_attrs=False)
    return result.transpose(*counts.dims).assign_attrs(units="DN", long_name="overscan-subtracted counts")
