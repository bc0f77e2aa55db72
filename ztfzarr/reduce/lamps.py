"""The flats of one LED, combined, and what they say of the amplifiers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from ztfzarr.masters.flat import ccd_median, frame_medians
from ztfzarr.masters.frames import Frames, matching_master
from ztfzarr.masters.noise import frames_gain
from ztfzarr.masters.pocket import detrended_frames
from ztfzarr.masters.selection import require_frames
from ztfzarr.reduce.parts import Part, combined_part, in_threads, parts_of
from ztfzarr.reduce.settings import detrending_settings, led_settings, pocket_settings
from ztfzarr.steps.units import bare
from ztfzarr.store.quantisation import quantisation_variance
from ztfzarr.store.shard import shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version

HELD: Final = 200_000_000  # pixels of a LED's frames that are kept from one pass to the next: 0.8 GB, 5 frames
STRIDE: Final = 8


@dataclass(frozen=True)
class Lamp:
    """Combined frames of a LED and a CCD.

    ``mean`` (DN), ``variance`` (DN2), ``count``, each (quadrant, y, x); ``level``, CCD-wide median of ``mean``,
    DN; ``medians`` (time), DN, of the frames; ``quadrant_level`` (quadrant), DN; ``gain``, of
    :func:`~ztfzarr.masters.noise.frames_gain`.
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    count: NDArray[np.int16]
    level: float
    medians: NDArray[np.float64]
    quadrant_level: NDArray[np.float32]
    gain: xr.Dataset


def combine_lamp(
    version: Version,
    exposures: xr.Dataset,
    bias: xr.DataArray,
    noise: xr.DataArray,
    pockets: xr.Dataset | None,
    buffers: Buffers,
    threads: int,
) -> Lamp:
    """Combine the flats of a LED and a CCD, scaled to their common level.

    Parameters
    ----------
    version : Version
        Of kind ``flat``, whose recipe is followed.
    exposures : Dataset
        Raw flats of the LED, (time, ccd 1, …), in time, from :func:`with_quantisation`.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias.
    noise : (ccd, quadrant), DN
        Read noise.
    pockets : Dataset, optional
        Fitted pockets; default the table's.
    buffers : Buffers
        For its images, which the next lamp overwrites.
    threads : int
        To work in.

    Raises
    ------
    ValueError
        If there are too few frames.
    """
    led = int(exposures["led"].values[0])
    minimum = version.recipe["flat"]["minimum"]
    require_frames(exposures, np.ones(exposures.sizes["time"], bool), minimum, f"flats of LED {led}")
    frames = _frames(version, exposures, pockets)
    if frames.counts.size <= HELD:
        frames = dataclasses.replace(frames, counts=_held(version, frames.counts, buffers, threads))
    offset = matching_master(bias, frames.counts)
    each = [slice(i, i + 1) for i in range(exposures.sizes["time"])]
    levels = in_threads(threads, lambda one: frame_medians(frames.part(time=one), offset).compute(), each)
    medians = xr.concat(levels, "time")
    scale = medians.mean("time", skipna=True) / medians
    gain = _gain(version, exposures, frames, offset, noise)  # before the combination takes the frames' memory
    mean, variance, count = _combined(version, frames, offset, scale, buffers, threads)
    labels = {"ccd": frames.counts["ccd"], "quadrant": frames.counts["quadrant"]}
    whole = xr.DataArray(mean[np.newaxis], labels, ("ccd", "quadrant", "y", "x"))
    quadrants = np.nanmedian(mean[:, ::STRIDE, ::STRIDE], axis=(1, 2))
    return Lamp(mean, variance, count, ccd_median(whole).item(), medians.values[:, 0], quadrants, gain)


def _held(version: Version, counts: xr.DataArray, buffers: Buffers, threads: int) -> xr.DataArray:
    """Read frames into memory, part by part."""
    held = buffers.get("counts", counts.shape, np.float32)

    def read(part: Part) -> None:
        held[(..., *part.region)] = counts.isel(part.indices).values

    in_threads(threads, read, parts_of(version, counts.sizes["time"]))
    return counts.copy(data=held)


class Buffers:
    """Arrays used again for each LED: fresh memory costs the operating system longer to give than us to fill."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the array of that name, in a shape, with what it holds."""
        size = int(np.prod(shape))
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = np.empty(size, dtype)
        return self._arrays[name][:size].reshape(shape)


def _frames(version: Version, exposures: xr.Dataset, pockets: xr.Dataset | None) -> Frames:
    """Attach what detrends the exposures; where the pocket is corrected, band by band of whole rows."""
    pocket = pocket_settings(version.recipe)
    settings = detrending_settings(version.recipe) | {
        "pocket": pocket["setting"],
        "pocket_from": pocket["first_day"],
        "pocket_known": pockets,
    }
    if settings["pocket"] == "off":
        return detrended_frames(exposures, **settings)
    height = shard_format(arrays_of(version.document)["flat"]).chunk[-2]
    tables = exposures.drop_vars(("raw", "overscan")).load()
    pixels = exposures[["raw", "overscan"]].chunk({"time": 1, "quadrant": 1, "y": height})
    frames = detrended_frames(tables.assign({name: bare(pixels[name]) for name in pixels.data_vars}), **settings)
    small = {name: getattr(frames, name).compute() for name in ("level", "a", "b", "gain", "read_noise")}
    return dataclasses.replace(frames, **small)


def _combined(
    version: Version,
    frames: Frames,
    offset: xr.DataArray,
    scale: xr.DataArray,
    buffers: Buffers,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    shape = tuple(frames.counts.sizes[d] for d in ("quadrant", "y", "x"))
    # Each part is read before its results are written: they may take the memory of the first two frames.
    mean, variance = buffers.get("counts", (2, *shape), np.float32)
    images = {"mean": mean, "variance": variance, "count": buffers.get("count", shape, np.int16)}
    settings: dict[str, Any] = led_settings(version.recipe) | {"offset": offset, "scale": scale}

    def combine(part: Part) -> None:
        for name, found in combined_part(frames, part, **settings).items():
            images[name][part.region] = found

    in_threads(threads, combine, parts_of(version, frames.counts.sizes["time"]))
    return mean, variance, images["count"]


def with_quantisation(version: Version, exposures: xr.Dataset) -> xr.Dataset:
    """Add to flats of a CCD what fpack's steps add to the variance of their pixels (time, ccd, quadrant), DN2."""
    ccd = int(exposures["ccd"].values[0])
    numbers = exposures["exposure"].values
    steps = quantisation_variance(version.objects, numbers, ccd, _rows_of_gain(version))
    return exposures.assign(quantisation=(("time", "ccd", "quadrant"), steps[:, np.newaxis]))


def _rows_of_gain(version: Version) -> slice:
    """Return the rows of one chunk: ten million pairs of pixels give the gain to 0.1 %."""
    return slice(0, shard_format(arrays_of(version.document)["flat"]).chunk[-2])


def _gain(
    version: Version, exposures: xr.Dataset, frames: Frames, offset: xr.DataArray, noise: xr.DataArray
) -> xr.Dataset:
    """Measure the gain on some rows."""
    if frames.counts.sizes["time"] < 2:
        lost = xr.full_like(frames.gain, np.nan)
        return xr.Dataset({"inverse": lost, "error": lost})
    rows = {"y": _rows_of_gain(version)}
    part = frames.part(**rows)
    part = dataclasses.replace(part, counts=part.counts.compute())
    steps = exposures["quantisation"].mean("time")
    return frames_gain(part, offset.isel(rows), noise, quantisation=steps)
