"""Overscan: the level of each row, smoothed along the rows, subtracted row for row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import stored_columns
from ztfzarr.kernels.overscan import row_medians, smooth_level
from ztfzarr.steps.units import require_labels, require_units

COLUMNS: Final = (5, 25)
DEGREE: Final = 3
CLIP: Final = 3.0


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
        about it; ``used`` (...) int32, rows in use. Lazy if ``profile`` is.
    """
    require_units(profile, "DN")
    level, rms, used = xr.apply_ufunc(
        _levels,
        profile,
        kwargs={"degree": degree, "clip": clip},
        input_core_dims=[["y"]],
        output_core_dims=[["y"], [], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int32],
        keep_attrs=False,
    )
    return xr.Dataset(
        {
            "level": level.assign_attrs(units="DN", long_name="overscan level"),
            "rms": rms.assign_attrs(units="DN", long_name="rms of the overscan profile about its level"),
            "used": used.assign_attrs(units="1", long_name="rows in use of the overscan profile"),
        }
    )


def _levels(
    profile: NDArray[np.float32], *, degree: int, clip: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    lead = profile.shape[:-1]
    level = np.empty(profile.shape, np.float32)
    rms, used = np.empty(lead, np.float32), np.empty(lead, np.int32)
    for image in np.ndindex(lead):
        rms[image], used[image] = smooth_level(profile[image], degree, clip, level[image])
    return level, rms, used


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
