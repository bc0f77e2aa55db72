"""Quadrants to numbers, and flags of them: what the judges of frames and masters share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

MAD_TO_SIGMA: Final = 1.4826


def of_images(function: Callable[..., Any], *arrays: xr.DataArray, outputs: int) -> list[xr.DataArray]:
    """Reduce quadrants to numbers: ``function`` gets images (y, x), or a level (y), and returns floats."""
    whole = [v.chunk({d: -1 for d in ("y", "x") if d in v.dims}) if v.chunks else v for v in arrays]
    found = xr.apply_ufunc(
        function,
        *whole,
        input_core_dims=[[d for d in ("y", "x") if d in v.dims] for v in whole],
        output_core_dims=[[]] * outputs,
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float32] * outputs,
        join="exact",
        keep_attrs=False,
    )
    return [found] if outputs == 1 else list(found)


def flags(**faults: xr.DataArray) -> xr.DataArray:
    """Compose a flag variable, with the CF conventions' attributes, of named faults.

    Faults are best written ``~(value <= limit)``: what is NaN is not known to be good.
    """
    masks = [1 << bit for bit in range(len(faults))]
    flag = sum(fault * mask for fault, mask in zip(faults.values(), masks, strict=True))
    return xr.DataArray(flag).astype(np.uint8).assign_attrs(flag_masks=masks, flag_meanings=" ".join(faults))


def centre(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median and 1.4826 MAD of the finite values; NaN of none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.nan, np.nan
    median = np.median(finite)
    return float(median), float(MAD_TO_SIGMA * np.median(np.abs(finite - median)))


def span(values: NDArray[np.float32]) -> float:
    """Largest minus smallest of the finite values; NaN of none."""
    finite = values[np.isfinite(values)]
    return float(finite.max() - finite.min()) if finite.size else np.nan


def rejected(count: xr.DataArray) -> xr.DataArray:
    """Return the share of the counts of each quadrant that did not go into a master.

    Parameters
    ----------
    count : (..., y, x) int
        Frames kept.

    Returns
    -------
    (...) float32: against as many as the best pixel has; NaN without any. Lazy if ``count`` is.
    """
    most = count.max(("y", "x"))
    share = 1 - count.mean(("y", "x")) / most.where(most > 0)
    return share.astype(np.float32).assign_attrs(units="1", long_name="share of the counts rejected")
