"""Images made small, quadrant by quadrant: each block of pixels becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels import blocks


def block_mean(image: xr.DataArray, size: int) -> xr.DataArray:
    """Take the mean of the finite pixels of each block.

    Parameters
    ----------
    image : (..., y, x)
        Quadrants, stored orientation.
    size : int
        Rows and columns of a block, about: blocks are as equal as can be, and no pixel is left over.

    Returns
    -------
    (..., y, x) float32
        NaN where a block has no finite pixel; labels are the centres of the blocks. Lazy if ``image`` is.
    """
    return _blocked(image, size, blocks.block_means, np.float32)


def block_median(image: xr.DataArray, size: int) -> xr.DataArray:
    """Take the median of the finite pixels of each block: stars vanish. Otherwise as :func:`block_mean`."""
    return _blocked(image, size, blocks.block_medians, np.float32)


def block_flags(mask: xr.DataArray, size: int) -> xr.DataArray:
    """Take the bits that any pixel of each block has, uint16. Otherwise as :func:`block_mean`."""
    return _blocked(mask, size, blocks.block_flags, np.uint16)


def _blocked(image: xr.DataArray, size: int, kernel: Callable[..., NDArray[Any]], dtype: type) -> xr.DataArray:
    if size < 1:
        raise ValueError(f"blocks of {size} pixels: expected 1 or more")
    if size == 1:
        return image.astype(dtype)
    lengths = {d: max(round(image.sizes[d] / size), 1) for d in ("y", "x")}
    whole = image.chunk(y=-1, x=-1) if image.chunks else image
    made: xr.DataArray = xr.apply_ufunc(
        kernel,
        whole.astype(dtype),
        input_core_dims=[["y", "x"]],
        output_core_dims=[["y", "x"]],
        exclude_dims={"y", "x"},
        kwargs={"height": size, "width": size},
        vectorize=True,
        dask="parallelized",
        output_dtypes=[dtype],
        dask_gufunc_kwargs={"output_sizes": lengths},
        keep_attrs=True,
    )
    return made.assign_coords({d: _centres(image, d, n) for d, n in lengths.items()})


def _centres(image: xr.DataArray, dim: str, count: int) -> NDArray[np.float64]:
    length = image.sizes[dim]
    first = float(image[dim].values[0]) if dim in image.coords else 0.0
    return np.asarray(first + (np.arange(count) + 0.5) * length / count - 0.5)
