"""Amplifier offset: the level by which a quadrant's sky stands above its neighbours'."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import JOINS, QUADRANTS, indices_at_join
from ztfzarr.kernels.joins import join_step, quadrant_offsets
from ztfzarr.steps.units import bare, require_labels, require_units

WIDTH: Final = 64  # pixels on either side of a join
SHARE: Final = 0.25  # of a quadrant, at the most
ALONG_ACROSS: Final = ["along", "across"]


def strip_width(width: int, rows: int, columns: int) -> int:
    """Return the pixels on either side of joins that are looked at, in quadrants of a size."""
    return max(min(width, int(SHARE * min(rows, columns))), 2)


def amplifier_offset(science: xr.DataArray, mask: xr.DataArray, *, width: int = WIDTH) -> xr.Dataset:
    """Measure the level of each quadrant against its neighbours', from the sky along their joins.

    Parameters
    ----------
    science : (..., ccd, quadrant, y, x) float32, DN
        Calibrated counts, all four quadrants, whole.
    mask : (..., ccd, quadrant, y, x) uint16
        Its mask: pixels with any bit are left out, and those that stand out of the sky.
    width : int
        Pixels on either side of a join; a quarter of a quadrant at the most.

    Returns
    -------
    Dataset
        ``offset`` and ``error`` (..., ccd, quadrant) float64, DN: above the mean of the four, whose sum is 0; NaN
        of a quadrant that no join links to another. Lazy if ``science`` is; only strips along the joins are read.

    Raises
    ------
    ValueError
        If units are not DN, CCDs or quadrants have no labels, or a quadrant is missing.

    Notes
    -----
    Steps at the four joins are :func:`ztfzarr.kernels.joins.join_step`, levels their weighted least squares. It is
    a level alone: counts are not scaled. Where a flat leaves an amplifier wrong by a factor 1 + g, its sky is too
    high by g x sky, which one exposure cannot tell from a level.
    """
    require_units(science, "DN")
    require_labels(science, "ccd", "quadrant")
    if sorted(np.atleast_1d(science["quadrant"].values).tolist()) != list(QUADRANTS):
        raise ValueError(f"quadrants {science['quadrant'].values.tolist()}: expected all four")
    count = strip_width(width, science.sizes["y"], science.sizes["x"])
    good = science.notnull() & (mask == 0)
    parts = [_steps(bare(science), bare(good), axis, count) for axis in ("x", "y")]
    steps = xr.concat(parts, "join").transpose(..., "join")
    steps = steps.chunk(join=-1) if science.chunks else steps
    offset, error = xr.apply_ufunc(
        quadrant_offsets,
        steps["step"],
        steps["error"],
        input_core_dims=[["join"]] * 2,
        output_core_dims=[["quadrant"]] * 2,
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64] * 2,
        dask_gufunc_kwargs={"output_sizes": {"quadrant": len(QUADRANTS)}},
    )
    made = xr.Dataset({"offset": offset, "error": error}).assign_coords(quadrant=list(QUADRANTS))
    made["offset"].attrs = {"units": "DN", "long_name": "sky of the quadrant above the mean of its CCD's"}
    made["error"].attrs = {"units": "DN", "long_name": "standard error of the offset"}
    return made.sel(quadrant=science["quadrant"].values)


def _steps(science: xr.DataArray, good: xr.DataArray, axis: str, count: int) -> xr.Dataset:
    """Measure the steps of the joins along an axis: ``step`` and ``error`` (..., join)."""
    firsts, seconds = zip(*(join[:2] for join in JOINS if join[2] == axis), strict=True)
    sides = [_sides(image, ends, axis, count) for image in (science, good) for ends in (firsts, seconds)]
    step, error = xr.apply_ufunc(
        _join_step,
        *sides,
        input_core_dims=[ALONG_ACROSS] * 4,
        output_core_dims=[[], []],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64] * 2,
        join="exact",
        keep_attrs=False,
    )
    return xr.Dataset({"step": step, "error": error})


def _join_step(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    good_first: NDArray[np.bool_],
    good_second: NDArray[np.bool_],
) -> tuple[float, float]:
    return join_step(first, second, (good_first, good_second))


def _sides(image: xr.DataArray, quadrants: tuple[int, ...], axis: str, count: int) -> xr.DataArray:
    """Take the strips of some quadrants, (..., join, along, across)."""
    strips = [_strip(image, quadrant, axis, count) for quadrant in quadrants]
    return xr.concat(strips, "join").transpose(..., *ALONG_ACROSS)


def _strip(image: xr.DataArray, quadrant: int, axis: str, count: int) -> xr.DataArray:
    """Take the pixels of a quadrant beside a join: ``along`` it, and ``across``, from the join inwards."""
    other = "y" if axis == "x" else "x"
    where = indices_at_join(quadrant, axis, count, image.sizes[axis])
    part = image.sel(quadrant=quadrant).drop_vars(["quadrant", "x", "y"], errors="ignore").isel({axis: where})
    strip = part.rename({axis: "across", other: "along"}).transpose(..., *ALONG_ACROSS)
    return strip.chunk(dict.fromkeys(ALONG_ACROSS, -1)) if strip.chunks else strip


def subtract_amplifier_offset(science: xr.DataArray, offset: xr.DataArray) -> xr.DataArray:
    """Subtract the offset of each quadrant.

    Parameters
    ----------
    science : (..., ccd, quadrant, y, x) float32, DN
    offset : (..., ccd, quadrant), DN
        Of :func:`amplifier_offset`; where it is NaN, nothing is subtracted.

    Returns
    -------
    (..., ccd, quadrant, y, x) float32, DN. Lazy if ``science`` is.

    Raises
    ------
    ValueError
        If units are not DN, or times, CCDs or quadrants differ.
    """
    require_units(science, "DN")
    require_units(offset, "DN")
    require_labels(science, "ccd", "quadrant")
    known = bare(offset).fillna(0).astype(np.float32)
    result = xr.apply_ufunc(np.subtract, science, known, join="exact", dask="allowed", keep_attrs=True)
    return result.transpose(*science.dims)
