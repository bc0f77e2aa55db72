"""The flats of one LED, combined, and what they say of the amplifiers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.flat import ccd_median, frame_medians
from ztfzarr.masters.frames import Frames, matching_master
from ztfzarr.masters.noise import frames_gain
from ztfzarr.masters.pocket import detrended_frames
from ztfzarr.masters.selection import require_frames
from ztfzarr.reduce.parts import Part, combined_part, in_threads, parts_of
from ztfzarr.reduce.settings import detrending_settings, led_settings, pocket_settings
from ztfzarr.steps.units import bare
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
    quadrant_level: NDArray[np.float64]
    gain: xr.Dataset


def combine_lamp(
    version: Version, exposures: xr.Dataset, bias: xr.DataArray, noise: xr.DataArray, threads: int
) -> Lamp:
    """Combine the flats of a LED and a CCD, scaled to their common level.

    Parameters
    ----------
    version : Version
        Of kind ``flat``, whose recipe is followed.
    exposures : Dataset
        Raw flats of the LED, (time, ccd 1, …), in time.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias.
    noise : (ccd, quadrant), DN
        Read noise.
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
    frames = _frames(version, exposures)
    if frames.counts.size <= HELD:
        frames = dataclasses.replace(frames, counts=frames.counts.compute())
    offset = matching_master(bias, frames.counts)
    each = range(exposures.sizes["time"])
    levels = in_threads(threads, lambda i: frame_medians(frames.part(time=[i]), offset).compute(), each)
    medians = xr.concat(levels, "time")
    scale = medians.mean("time", skipna=True) / medians
    mean, variance, count = _combined(version, frames, offset, scale, threads)
    labels = {"ccd": frames.counts["ccd"], "quadrant": frames.counts["quadrant"]}
    whole = xr.DataArray(mean[np.newaxis], labels, ("ccd", "quadrant", "y", "x"))
    return Lamp(
        mean,
        variance,
        count,
        ccd_median(whole).item(),
        medians.values[:, 0],
        np.nanmedian(mean[:, ::STRIDE, ::STRIDE], axis=(1, 2)),
        _gain(version, frames, offset, noise, threads),
    )


def _frames(version: Version, exposures: xr.Dataset) -> Frames:
    """Attach what detrends the exposures; where the pocket is corrected, band by band of whole rows."""
    settings = detrending_settings(version.recipe) | pocket_settings(version.recipe)
    if settings["pocket"] == "off":
        return detrended_frames(exposures, **settings)
    height = shard_format(arrays_of(version.document)["flat"]).chunk[-2]
    tables = exposures.drop_vars(("raw", "overscan")).load()
    pixels = exposures[["raw", "overscan"]].chunk({"time": 1, "quadrant": 1, "y": height})
    frames = detrended_frames(tables.assign({name: bare(pixels[name]) for name in pixels.data_vars}), **settings)
    small = {name: getattr(frames, name).compute() for name in ("level", "a", "b", "gain", "read_noise")}
    return dataclasses.replace(frames, **small)


def _combined(
    version: Version, frames: Frames, offset: xr.DataArray, scale: xr.DataArray, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int16]]:
    shape = tuple(frames.counts.sizes[d] for d in ("quadrant", "y", "x"))
    mean, variance, count = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int16)
    settings: dict[str, Any] = led_settings(version.recipe) | {"offset": offset, "scale": scale}

    def combine(part: Part) -> None:
        found = combined_part(frames, part, **settings)
        for name, image in (("mean", mean), ("variance", variance), ("count", count)):
            image[part.region] = found[name]

    in_threads(threads, combine, parts_of(version, frames.counts.sizes["time"]))
    return mean, variance, count


def _gain(version: Version, frames: Frames, offset: xr.DataArray, noise: xr.DataArray, threads: int) -> xr.Dataset:
    """Measure the gain on the rows of one chunk: ten million pairs of pixels give it to 0.1 %."""
    height = shard_format(arrays_of(version.document)["flat"]).chunk[-2]

    def of_quadrant(quadrant: int) -> xr.Dataset:
        rows = {"quadrant": [quadrant], "y": slice(0, height)}
        part = frames.part(**rows)
        part = dataclasses.replace(part, counts=part.counts.compute())
        return frames_gain(part, offset.isel(rows), noise.isel(quadrant=[quadrant]))

    quadrants = range(frames.counts.sizes["quadrant"])
    if frames.counts.sizes["time"] < 2:
        lost = xr.full_like(frames.gain, np.nan)
        return xr.Dataset({"inverse": lost, "error": lost})
    gains: xr.Dataset = xr.concat(in_threads(threads, of_quadrant, quadrants), "quadrant")
    return gains
