"""Differences of pairs of frames, as lazy xarray, and what is averaged from them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels.noise import pair_statistics
from ztfzarr.masters.frames import BLOCK, Frames

SEGMENT: Final = 308  # rows of a column that give one variance: half the chunks of the cube
MAD_TO_SIGMA: Final = 1.4826


def pair_differences(
    frames: Frames, *, offset: xr.DataArray | None = None, scaled: bool, clip: float
) -> xr.Dataset:
    """Return the statistics of pairs of frames, by column and segment of rows: see the kernel.

    ``count`` and ``variance`` (…, segment, x, pair), ``levels`` (…, segment, x, pair, frame).
    """
    zero = xr.zeros_like(frames.counts.isel(time=0, drop=True)) if offset is None else offset
    counts, level, zero = xr.align(frames.counts, frames.level, zero, join="exact")
    rows = counts.sizes["y"]
    height = rows // max(round(rows / SEGMENT), 1)
    count, levels, variance = xr.apply_ufunc(
        _pair_statistics,
        *(_segments(v, height) for v in (counts, level)),
        frames.a,
        frames.b,
        _segments(zero, height),
        kwargs={"scaled": scaled, "clip": clip},
        input_core_dims=[["time", "row"], ["time", "row"], ["time"], ["time"], ["row"]],
        output_core_dims=[["pair"], ["pair", "frame"], ["pair"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"pair": counts.sizes["time"] // 2, "frame": 2}},
        output_dtypes=[np.float64] * 3,
        join="exact",
        keep_attrs=False,
    )
    return xr.Dataset({"count": count, "levels": levels, "variance": variance})


def _segments(array: xr.DataArray, height: int) -> xr.DataArray:
    """Cut the rows into segments, (y) to (segment, row); the rows left over at the end are dropped."""
    plain = array.drop_vars(["y", "x"], errors="ignore")
    if plain.chunks:
        plain = plain.chunk(y=height * max(BLOCK["y"] // height, 1))
    return plain.coarsen(y=height, boundary="trim").construct(y=("segment", "row"))


def _pair_statistics(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
    *,
    scaled: bool,
    clip: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pair the good frames of blocks (…, segment, x, time, row); what varies less has dimensions of length 1."""
    lead, (width, times) = counts.shape[:-3], counts.shape[-3:-1]
    level = _padded(level, counts.ndim)
    a, b, offset = (_padded(v, counts.ndim - 1) for v in (a, b, offset))
    count = np.zeros((*lead, times // 2, width))
    variance, levels = np.full_like(count, np.nan), np.full((*lead, times // 2, 2, width), np.nan)
    for image in np.ndindex(lead):
        low = _shared(level, image)[0]  # (time, row)
        good = np.isfinite(low).all(axis=1)
        n = int(good.sum()) // 2
        if n == 0:
            continue
        stack = counts[image].transpose(1, 2, 0)  # (time, row, x), as in memory
        pair_statistics(
            np.ascontiguousarray(stack if good.all() else stack[good]),
            np.ascontiguousarray(low[good]),
            *(np.ascontiguousarray(_shared(v, image)[0][good]) for v in (a, b)),
            np.ascontiguousarray(np.broadcast_to(_shared(offset, image).T, stack.shape[1:])),
            scaled,
            clip,
            1.0 / _kept_variance(clip),
            count[image][:n],
            levels[image][:n],
            variance[image][:n],
        )
    return np.moveaxis(count, -1, -2), np.moveaxis(levels, -1, -3), np.moveaxis(variance, -1, -2)


def _padded(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Give an array the leading dimensions of length 1 that ``apply_ufunc`` leaves out."""
    return values.reshape((1,) * (ndim - values.ndim) + values.shape)


def _shared(values: NDArray[Any], image: tuple[int, ...]) -> NDArray[Any]:
    """Index the leading dimensions; those of length 1 are shared by all images."""
    lead = values.shape[: len(image)]
    return np.asarray(values[tuple(0 if n == 1 else i for n, i in zip(lead, image, strict=True))])


def _kept_variance(clip: float) -> float:
    """Return the variance of a unit normal distribution within ``clip`` of its mean."""
    density = math.exp(-0.5 * clip * clip) / math.sqrt(2 * math.pi)
    return 1.0 - 2.0 * clip * density / math.erf(clip / math.sqrt(2))


def clipped_mean(values: xr.DataArray, weights: xr.DataArray, clip: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the weighted mean over the columns of each quadrant, and its standard error."""
    dims = ["segment", "x", "pair"]
    arrays = (v.chunk(dict.fromkeys(dims, -1)) if v.chunks else v for v in (values, weights))
    mean, error = xr.apply_ufunc(
        _mean_within,
        *arrays,
        kwargs={"clip": clip},
        input_core_dims=[dims, dims],
        output_core_dims=[[], []],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64, np.float64],
        keep_attrs=False,
    )
    return mean, error


def _mean_within(values: NDArray[np.float64], weights: NDArray[np.float64], clip: float) -> tuple[float, float]:
    """Weighted mean of what is within ``clip`` sigma (1.4826 MAD) of the median, and its standard error."""
    fine = np.isfinite(values) & (weights > 1)
    if not fine.any():
        return np.nan, np.nan
    kept, share = values[fine], weights[fine]
    distance = np.abs(kept - np.median(kept))
    within = distance <= clip * MAD_TO_SIGMA * np.median(distance)
    kept, share = kept[within], share[within] / share[within].sum()
    mean = float((share * kept).sum())
    return mean, float(np.sqrt((share**2 * (kept - mean) ** 2).sum()))
