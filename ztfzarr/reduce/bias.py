"""Master biases of a store: one a period and CCD, with the numbers that judge it."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.frames import Frames, calibrated_frames
from ztfzarr.masters.noise import frames_read_noise
from ztfzarr.masters.quality import BAND, bias_quality, frames_settling, overscan_quality
from ztfzarr.masters.selection import require_frames, settled
from ztfzarr.reduce.inputs import Inputs
from ztfzarr.reduce.parts import Part, combined_part, in_threads, parts_of, sampled
from ztfzarr.reduce.provenance import master_provenance
from ztfzarr.reduce.settings import detrending_settings, overscan_settings
from ztfzarr.store.entries import Entry, create_entry, encode_part
from ztfzarr.store.products import NUMBERS
from ztfzarr.store.shard import Position, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version

# Which rows judge a master: medians of a million pixels are good to 0.002 DN.
STRIDE: Final = 8
SETTLING_STRIDE: Final = 4

Tables = dict[str, Any]


def make_bias(version: Version, inputs: Inputs, threads: int) -> list[Entry]:
    """Make a master bias and create its objects.

    Parameters
    ----------
    version : Version
        Of kind ``bias``, from ``prepare_version``.
    inputs : Inputs
        The biases of a period and CCD.
    threads : int
        To work in.

    Returns
    -------
    list of Entry
        To be marked.

    Raises
    ------
    ValueError
        If there are too few biases after the settling.
    """
    recipe = version.recipe["bias"]
    exposures = inputs.open(version.objects)
    used = settled(exposures["time"], skip=recipe["skip"])
    what = f"master bias after the first {recipe['skip']} of each run"
    require_frames(exposures, used, recipe["minimum"], what)
    frames = calibrated_frames(exposures, **detrending_settings(version.recipe))
    chunks, sample = _combined(version, frames.at(used), threads)
    create_entry(version, (inputs.row, inputs.ccd - 1), chunks)
    tables = _quality(version, exposures, frames, used, sample, threads)
    nights = exposures["night"].values[used]
    tables |= {
        "inputs": exposures.sizes["time"],
        "first_night": int(nights.min()),
        "last_night": int(nights.max()),
        "provenance": master_provenance(version, exposures.isel(time=used), _dropped(exposures, used), {}),
    }
    return [Entry((inputs.row, inputs.ccd - 1), tables)]


def _dropped(exposures: xr.Dataset, used: NDArray[np.bool_]) -> dict[str, str]:
    return {str(e): "settling" for e in exposures["exposure"].values[~used].tolist()}


def _combined(
    version: Version, frames: Frames, threads: int
) -> tuple[dict[str, dict[Position, bytes]], xr.Dataset]:
    """Combine and encode part by part; return the encoded chunks, and a sample of the rows to judge by."""
    recipe = version.recipe["bias"]
    settings = {"method": recipe["method"], "clip": recipe["clip"]}
    chunks: dict[str, dict[Position, bytes]] = {name: {} for name in version.pixels}

    def combine(part: Part) -> tuple[Part, dict[str, dict[Position, bytes]], dict[str, NDArray[Any]]]:
        found = combined_part(frames, part, **settings)
        images = {"bias": found["mean"], "variance": found["variance"], "count": found["count"]}
        place = {"quadrant": part.quadrant, "y": part.y.start, "x": part.x.start}
        encoded = {name: encode_part(version, name, image, **place) for name, image in images.items()}
        return part, encoded, {name: sampled(images[name], STRIDE) for name in ("bias", "count")}

    done = in_threads(threads, combine, parts_of(version, frames.counts.sizes["time"]))
    for _, encoded, _ in done:
        for name, found in encoded.items():
            chunks[name] |= found
    return chunks, _joined([(part, images) for part, _, images in done], frames)


def _joined(parts: list[tuple[Part, dict[str, NDArray[Any]]]], frames: Frames) -> xr.Dataset:
    """Put the sampled rows of parts together: ``bias`` and ``count``, each (ccd 1, quadrant, y, x)."""
    columns = frames.counts.sizes["x"]
    starts = sorted({part.y.start for part, _ in parts})
    heights = {part.y.start: images["bias"].shape[1] for part, images in parts}
    first = dict(zip(starts, np.cumsum([0, *(heights[y] for y in starts)]).tolist(), strict=False))
    shape = (1, frames.counts.sizes["quadrant"], sum(heights.values()), columns)
    labels = {"ccd": frames.counts["ccd"].values, "quadrant": frames.counts["quadrant"].values}
    whole = {"bias": np.empty(shape, np.float32), "count": np.empty(shape, np.int16)}
    for part, images in parts:
        rows = slice(first[part.y.start], first[part.y.start] + heights[part.y.start])
        for name, image in images.items():
            whole[name][0, part.quadrant, rows, part.x] = image[0]
    dims = ("ccd", "quadrant", "y", "x")
    sample = xr.Dataset({name: (dims, values) for name, values in whole.items()}, labels)
    sample["bias"].attrs["units"] = "DN"
    return sample


def _quality(
    version: Version,
    exposures: xr.Dataset,
    frames: Frames,
    used: NDArray[np.bool_],
    sample: xr.Dataset,
    threads: int,
) -> Tables:
    """Judge a master bias and its frames: the tables of its entry."""
    recipe = version.recipe["bias"]
    first = exposures["night"].values == exposures["night"].values.min()
    followed = _followed(version, frames, exposures["time"], first, threads)
    noise = followed["read_noise"]
    nominal = (frames.read_noise / frames.gain).assign_attrs(units="DN")
    judged = bias_quality(
        sample,
        noise,
        nominal,
        tolerance=recipe["read_noise"],
        structure=recipe["structure"],
        rows=-(-BAND // STRIDE),
    ).isel(ccd=0)
    names = {"level": "bias_level", "structure": "structure", "row_range": "row_range"}
    names |= {"column_range": "column_range", "rejected": "rejected", "flag": "flag"}
    tables = {table: judged[name].values for name, table in names.items()}
    tables["read_noise_ratio"] = judged["read_noise_ratio"].values
    tables |= {str(name): followed[name].isel(ccd=0).values for name in followed.data_vars}
    return tables | _overscans(version, exposures.isel(time=used))


def _overscans(version: Version, exposures: xr.Dataset) -> Tables:
    found = overscan_quality(exposures["overscan"], **overscan_settings(version.recipe)).isel(ccd=0)
    return {
        "overscan_mean": found["mean"].mean("time").values,
        "overscan_rms": found["rms"].mean("time").values,
        "overscan_step": found["step"].max("time").values,
        "overscan_failed": (found["flag"] != 0).sum("time").values,
    }


def _followed(
    version: Version, frames: Frames, time: xr.DataArray, first: NDArray[np.bool_], threads: int
) -> xr.Dataset:
    """Measure the read noise of the first night's biases and how they settle, on their first and last rows."""
    skip = version.recipe["bias"]["skip"]
    ny = frames.counts.sizes["y"]
    height = shard_format(arrays_of(version.document)["bias"]).chunk[-2]
    rows = np.unique(np.r_[0 : min(height, ny), max(ny - height, 0) : ny])
    one, when = frames.at(first), time.isel(time=first)
    late = settled(when, skip=skip)

    def of_quadrant(quadrant: int) -> xr.Dataset:
        band = one.at(late).part(quadrant=[quadrant], y=slice(0, height))
        every = slice(None, None, SETTLING_STRIDE)
        sample = one.part(quadrant=[quadrant], y=rows[every], x=every)
        return _read_noise(_loaded(band)).merge(_settling(_loaded(sample), when, late, skip))

    quadrants = range(frames.counts.sizes["quadrant"])
    followed: xr.Dataset = xr.concat(in_threads(threads, of_quadrant, quadrants), "quadrant")
    return followed


def _loaded(frames: Frames) -> Frames:
    return dataclasses.replace(frames, counts=frames.counts.compute())


def _read_noise(frames: Frames) -> xr.Dataset:
    if frames.counts.sizes["time"] < 2:
        lost = xr.full_like(frames.gain, np.nan).assign_attrs(units="DN")
        return xr.Dataset({"read_noise": lost, "read_noise_error": lost})
    return frames_read_noise(frames).rename(error="read_noise_error")


def _settling(frames: Frames, time: xr.DataArray, late: NDArray[np.bool_], skip: int) -> xr.Dataset:
    """Follow frames against the median of the settled ones: tables along ``number``, the mean of the runs."""
    plain = frames.counts - frames.level
    bias = plain.isel(time=late if late.any() else slice(None)).mean("time").astype(np.float32)
    found = frames_settling(frames, time, bias, skip=skip)
    number = found["number"].values
    tables = {}
    for name in ("level", "offset", "shape"):
        values = found[name].transpose("ccd", "quadrant", "time").values
        out = np.full((*values.shape[:2], NUMBERS), np.nan, np.float32)
        for n in np.unique(number[number < NUMBERS]):
            out[..., n] = np.mean(values[..., number == n], axis=-1)
        tables[f"settling_{name}"] = (("ccd", "quadrant", "number"), out)
    return xr.Dataset(tables, {"ccd": found["ccd"], "quadrant": found["quadrant"]})
