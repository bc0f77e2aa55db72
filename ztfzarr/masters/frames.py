"""Raw frames with what calibrates them, and their combination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import LINEARITY_EPOCHS
from ztfzarr.kernels import combine as kernel
from ztfzarr.steps.linearity import linearity_coefficients, matching
from ztfzarr.steps.overscan import sound_level
from ztfzarr.steps.units import bare, require_labels, require_units

METHODS: Final = {"noise": kernel.NOISE, "sigma": kernel.SPREAD, "median": kernel.MEDIAN}
CLIP: Final = 4.0
BLOCK: Final = {"y": 616, "x": 512}  # the chunks of the cube


@dataclass(frozen=True)
class Frames:
    """Raw counts of some exposures, with their overscan levels and non-linearity.

    ``counts`` (time, ccd, quadrant, y, x) and ``level`` (time, ccd, quadrant, y) in DN; ``a``, ``b`` (time, ccd,
    quadrant); ``gain`` (e-/DN) and ``read_noise`` (e-), each (ccd, quadrant).
    """

    counts: xr.DataArray
    level: xr.DataArray
    a: xr.DataArray
    b: xr.DataArray
    gain: xr.DataArray
    read_noise: xr.DataArray

    def at(self, times: NDArray[np.bool_]) -> Frames:
        """Select exposures."""
        counts, level, a, b = (v.isel(time=times) for v in (self.counts, self.level, self.a, self.b))
        return Frames(counts, level, a, b, self.gain, self.read_noise)

    def part(self, **indices: Any) -> Frames:
        """Select rows, columns or quadrants by index, as ``isel`` does."""
        parts = (v.isel({d: i for d, i in indices.items() if d in v.dims}) for v in self._fields)
        return Frames(*parts)

    @property
    def _fields(self) -> tuple[xr.DataArray, ...]:
        return self.counts, self.level, self.a, self.b, self.gain, self.read_noise


def calibrated_frames(exposures: xr.Dataset, **detrending: Any) -> Frames:
    """Attach to raw exposures their overscan levels and non-linearity.

    Parameters
    ----------
    exposures : Dataset
        ``raw``, ``overscan``, ``gain``, ``read_noise``, from ``open_cube`` or ``open_fits``, with all the rows.
    **detrending
        ``columns``, ``columns_of_ccd``, ``degree``, ``clip``, ``highest``, ``step`` of the overscan steps, see
        :func:`~ztfzarr.steps.overscan.sound_level`; ``epochs`` of the non-linearity, see
        :func:`~ztfzarr.steps.linearity.linearity_coefficients`.
    """
    counts = bare(exposures["raw"])
    require_units(counts, "DN")
    require_labels(counts, "ccd", "quadrant")
    epochs = detrending.pop("epochs", LINEARITY_EPOCHS)
    level = sound_level(exposures, **detrending)
    if counts.chunks:
        counts = counts.chunk({"time": -1, **{d: n for d, n in BLOCK.items() if counts.sizes[d] > n}})
        counts = counts.chunk(quadrant=1) if "quadrant" in counts.dims else counts
        level = level.chunk({"time": -1})
    coefficients = matching(linearity_coefficients(exposures["time"], epochs=epochs), counts)
    gain, noise = (_of_quadrants(exposures[name]) for name in ("gain", "read_noise"))
    return Frames(counts, level, coefficients["a"], coefficients["b"], gain, noise)


def matching_master(master: xr.DataArray, counts: xr.DataArray) -> xr.DataArray:
    """Select the CCDs and quadrants of ``counts`` from a master, chunked alike; ValueError if one lacks."""
    labels = {d: counts[d].values for d in ("ccd", "quadrant") if d in master.dims and d in counts.coords}
    others = {d: v for d, v in labels.items() if not np.array_equal(master[d].values, v)}  # a selection is a copy
    try:
        matched = master.sel(others).reset_coords(drop=True)
    except KeyError as error:
        raise ValueError(f"the master {master.name} lacks {error}: expected every CCD of the exposures") from None
    if counts.chunks:
        matched = matched.chunk({d: n for d, n in counts.chunksizes.items() if d in matched.dims})
    return matched


def _of_quadrants(table: xr.DataArray) -> xr.DataArray:
    """Return the mean over time of a header value, which exposures without a file do not have."""
    return bare(table).astype(np.float64).mean("time", skipna=True).astype(np.float32)


def combine_frames(
    frames: Frames,
    *,
    offset: xr.DataArray | None = None,
    scale: xr.DataArray | None = None,
    relative: float = 0.0,
    method: str = "noise",
    clip: float = CLIP,
) -> xr.Dataset:
    """Calibrate frames and combine them along time.

    Parameters
    ----------
    frames : Frames
        Of one kind. Frames without pixels, or whose overscan failed, are left out, CCD by CCD.
    offset : (ccd, quadrant, y, x) float32, DN, optional
        Subtracted from the linear counts of each frame: the master bias.
    scale : (time, ccd), optional
        Factor of each frame, after that. Frames whose factor is NaN are left out.
    relative : float
        Relative noise of the model, for flats: what they may differ by and not be rejected.
    method : str
        ``noise``: mean of what is within ``clip`` sigma of the noise model about the median. For comparison,
        ``sigma``: sigma is the stack's own standard deviation; ``median``: the median.
    clip : float

    Returns
    -------
    Dataset
        ``mean`` and ``variance`` (of the mean, by the noise model) float32, ``count`` (frames kept) int16, each
        (ccd, quadrant, y, x). Lazy if the frames are.

    Raises
    ------
    ValueError
        If the method is unknown, or the offset lacks a CCD or quadrant of the frames.

    Notes
    -----
    Rejected: |x - m| > clip sigma, m the median, sigma^2 = max(m, 0)/gain + (read noise/gain)^2 + (relative m)^2.
    variance = (sigma^2 without the relative part)/count: with it the variance of flats of 36 kDN was 5.4 times
    that found in simulated ones. The structure of a bias counts as light in it: some per cent too much. A stack's
    own standard deviation cannot reject an outlier from a small stack: |x - m|/sigma is at most N/sqrt(N - 1).
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    counts = frames.counts
    zero = xr.zeros_like(counts.isel(time=0, drop=True)) if offset is None else offset
    factor = xr.ones_like(frames.a) if scale is None else scale
    factor = factor.chunk(time=-1) if factor.chunks else factor
    mean, variance, count = xr.apply_ufunc(
        _combine,
        counts,
        frames.level,
        frames.a,
        frames.b,
        factor.astype(np.float32),
        zero,
        frames.gain,
        frames.read_noise,
        kwargs={"relative": relative, "method": METHODS[method], "clip": clip},
        input_core_dims=[["time"], ["time"], ["time"], ["time"], ["time"], [], [], []],
        output_core_dims=[[], [], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.int16],
        join="exact",
        keep_attrs=False,
    )
    return xr.Dataset(
        {
            "mean": mean.assign_attrs(units="DN"),
            "variance": variance.assign_attrs(units="DN2"),
            "count": count.assign_attrs(units="1"),
        }
    ).reset_coords(drop=True)


def _combine(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    gain: NDArray[np.float32],
    read_noise: NDArray[np.float32],
    *,
    relative: float,
    method: int,
    clip: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    """Combine blocks (…, y, x, time); what varies less has dimensions of length 1."""
    lead, shape = counts.shape[:-3], counts.shape[:-1]
    level, a, b, scale = (padded(v, counts.ndim) for v in (level, a, b, scale))
    offset, gain, read_noise = (padded(v, counts.ndim - 1) for v in (offset, gain, read_noise))
    mean, variance = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    count = np.zeros(shape, np.int16)
    for image in np.ndindex(lead):
        levels = shared(level, image)[:, 0, :].T  # (time, y)
        good = np.isfinite(levels).all(axis=1) & np.isfinite(shared(scale, image)[0, 0])
        if not good.any():
            continue
        stack = np.moveaxis(counts[image], -1, 0)
        a_used, b_used, factor = (np.ascontiguousarray(shared(v, image)[0, 0][good]) for v in (a, b, scale))
        kernel.combine(
            np.ascontiguousarray(stack if good.all() else stack[good]),
            np.ascontiguousarray(levels[good]),
            a_used,
            b_used,
            np.ascontiguousarray(np.broadcast_to(shared(offset, image), shape[-2:])),
            factor,
            (float(shared(gain, image).item()), float(shared(read_noise, image).item()), relative),
            method,
            clip,
            kernel.sorting_network(int(good.sum())),
            mean[image],
            variance[image],
            count[image],
        )
    return mean, variance, count


def padded(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Give an array the leading dimensions of length 1 that ``apply_ufunc`` leaves out."""
    return values.reshape((1,) * (ndim - values.ndim) + values.shape)


def shared(values: NDArray[Any], image: tuple[int, ...]) -> NDArray[Any]:
    """Index the leading dimensions; those of length 1 are shared by all images."""
    lead = values.shape[: len(image)]
    return np.asarray(values[tuple(0 if n == 1 else i for n, i in zip(lead, image, strict=True))])
