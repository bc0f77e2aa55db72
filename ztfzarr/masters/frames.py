"""Raw frames with what calibrates them, and their combination."""

from __future__ import annotations

from collections.abc import Sequence
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

RESULTS: Final = {"mean": np.float32, "variance": np.float32, "count": np.int16}
METHODS: Final = {"noise": kernel.NOISE, "sigma": kernel.SPREAD, "median": kernel.MEDIAN}
CLIP: Final = 4.0
BLOCK: Final = {"y": 616, "x": 512}  # the chunks of the cube
STACK: Final = 20_000_000  # pixels of all frames that a task holds: of smaller ones dask's overhead shows


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
        block = {"y": BLOCK["y"], "x": columns_of(counts.sizes["time"])}
        counts = counts.chunk({"time": -1, **{d: min(n, counts.sizes[d]) for d, n in block.items()}})
        counts = counts.chunk(quadrant=1) if "quadrant" in counts.dims else counts
        level = level.chunk({"time": -1})
    coefficients = matching(linearity_coefficients(exposures["time"], epochs=epochs), counts)
    gain, noise = (_of_quadrants(exposures[name]) for name in ("gain", "read_noise"))
    return Frames(counts, level, coefficients["a"], coefficients["b"], gain, noise)


def columns_of(frames: int) -> int:
    """Return how many columns of 616 rows of a stack of frames a task takes: chunks of the cube, 80 MB or one."""
    return BLOCK["x"] * max(STACK // (frames * BLOCK["y"] * BLOCK["x"]), 1)


def matching_master(master: xr.DataArray, counts: xr.DataArray) -> xr.DataArray:
    """Select the CCDs and quadrants of ``counts`` from a master, chunked alike; ValueError if one lacks."""
    matched = master
    for d in ("ccd", "quadrant"):
        if d in master.dims and d in counts.coords:
            matched = _with_labels(matched, d, counts[d].values)
    matched = matched.reset_coords(drop=True)
    if counts.chunks:
        matched = matched.chunk({d: n for d, n in counts.chunksizes.items() if d in matched.dims})
    return matched


def _with_labels(master: xr.DataArray, dim: str, labels: NDArray[Any]) -> xr.DataArray:
    """Select labels of a master, by a slice where they follow each other: it copies nothing, and zarr is quick."""
    known = {label: place for place, label in enumerate(master[dim].values.tolist())}
    places = np.array([known.get(label, -1) for label in np.atleast_1d(labels).tolist()])
    if (places < 0).any():
        lost = ", ".join(str(label) for label in np.atleast_1d(labels)[places < 0])
        raise ValueError(f"the master {master.name} lacks {dim} {lost}: expected every {dim} of the exposures")
    if labels.ndim == 0:
        return master.isel({dim: int(places[0])})
    if (np.diff(places) == 1).all():
        return master.isel({dim: slice(int(places[0]), int(places[-1]) + 1)})
    return master.isel({dim: places})


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
    stack = _stack(frames, offset, scale)
    settings = {"relative": relative, "method": method, "clip": clip}
    # Not apply_ufunc: dask copies the blocks of core dimensions, transposed, and the kernel's order needs another
    # copy back: half of the time of the whole (2.6 s instead of 1.5 s for ten frames of a CCD).
    combined = xr.map_blocks(_combined, stack, kwargs=settings, template=_template(stack))
    for name, units in (("mean", "DN"), ("variance", "DN2"), ("count", "1")):
        combined[name].attrs = {"units": units}
    return combined


def _stack(frames: Frames, offset: xr.DataArray | None, scale: xr.DataArray | None) -> xr.Dataset:
    """Put together what is combined, aligned exactly, in chunks that hold all the frames."""
    counts = frames.counts
    parts = {
        "counts": counts,
        "level": frames.level,
        "a": frames.a,
        "b": frames.b,
        "scale": xr.ones_like(frames.a) if scale is None else scale.astype(np.float32),
        "gain": frames.gain,
        "read_noise": frames.read_noise,
    }
    if offset is not None:
        parts["offset"] = offset
    plain = (
        bare(v).reset_coords(drop=True).transpose("time", ..., "y", "x", missing_dims="ignore")
        for v in parts.values()
    )
    aligned = xr.align(*plain, join="exact")
    stack = xr.Dataset(dict(zip(parts, aligned, strict=True)))
    return stack.chunk(counts.chunksizes) if counts.chunks else stack


def _template(stack: xr.Dataset) -> xr.Dataset | None:
    """Return lazy results of a lazy stack."""
    image = stack["counts"].isel(time=0, drop=True)
    return xr.Dataset({n: xr.zeros_like(image, dtype=d) for n, d in RESULTS.items()}) if image.chunks else None


def _combined(stack: xr.Dataset, *, relative: float, method: str, clip: float) -> xr.Dataset:
    """Combine a block of :func:`_stack`, quadrant by quadrant."""
    image = stack["counts"].isel(time=0, drop=True)
    arrays = [np.empty(image.shape, dtype) for dtype in RESULTS.values()]
    lead = [d for d in image.dims if d not in ("y", "x")]
    for place in np.ndindex(*(image.sizes[d] for d in lead)):
        one = stack.isel(dict(zip(lead, place, strict=True)))
        combined_stack(
            *(one[name].values for name in ("counts", "level", "a", "b", "scale")),
            offset=one["offset"].values if "offset" in one else None,
            gain=float(one["gain"]),
            read_noise=float(one["read_noise"]),
            relative=relative,
            method=method,
            clip=clip,
            out=[array[place] for array in arrays],
        )
    return xr.Dataset({name: (image.dims, v) for name, v in zip(RESULTS, arrays, strict=True)}, image.coords)


def combined_stack(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    scale: NDArray[np.float32],
    *,
    offset: NDArray[np.float32] | None = None,
    gain: float,
    read_noise: float,
    relative: float = 0.0,
    method: str = "noise",
    clip: float = CLIP,
    out: Sequence[NDArray[Any]] | None = None,
) -> Sequence[NDArray[Any]]:
    """Combine rows of one quadrant: :func:`combine_frames` without labels.

    ``counts`` (time, y, x), ``level`` (time, y), ``a``, ``b``, ``scale`` (time), ``offset`` (y, x). Frames whose
    level or scale is not finite are left out. Mean, variance and count, each (y, x), go into ``out``, if given.
    """
    shape = counts.shape[1:]
    mean, variance, count = out or [np.empty(shape, dtype) for dtype in RESULTS.values()]
    good = np.isfinite(level).all(axis=1) & np.isfinite(scale)
    if not good.any():
        mean[...], variance[...], count[...] = np.nan, np.nan, 0
        return mean, variance, count
    kept = (v if good.all() else v[good] for v in (counts, level, a, b, scale))
    stack, low, a_used, b_used, factor = (np.ascontiguousarray(v, np.float32) for v in kept)
    dark = np.broadcast_to(np.float32(0), shape) if offset is None else offset
    kernel.combine(
        stack,
        low,
        a_used,
        b_used,
        np.ascontiguousarray(dark),
        factor,
        (gain, read_noise, relative),
        METHODS[method],
        clip,
        kernel.sorting_network(len(stack)),
        mean,
        variance,
        count,
    )
    return mean, variance, count
