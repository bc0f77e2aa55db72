"""Frames combined part by part, so that memory depends on the parts and not on the number of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.frames import Frames, combined_stack
from ztfzarr.store.entries import encode_part
from ztfzarr.store.shard import Position, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version

STACK: Final = 8_000_000  # pixels of all frames that one thread holds: 32 MB


@dataclass(frozen=True)
class Part:
    """A rectangle of a quadrant, on the grid of the product's chunks: indices from 0."""

    quadrant: int
    y: slice
    x: slice

    @property
    def indices(self) -> dict[str, Any]:
        """Selection for ``isel``, with the quadrant as a dimension of length 1: slices, which copy nothing."""
        return {"quadrant": slice(self.quadrant, self.quadrant + 1), "y": self.y, "x": self.x}

    @property
    def region(self) -> tuple[slice, slice, slice]:
        """Selection of an array (quadrant, y, x)."""
        return slice(self.quadrant, self.quadrant + 1), self.y, self.x


def parts_of(version: Version, frames: int) -> Iterator[Part]:
    """Cut the quadrants of a CCD into parts of which a stack of frames fits: whole chunks of the product."""
    metadata = arrays_of(version.document)[version.kind]
    quadrants, ny, nx = metadata["shape"][-3:]
    height, width = shard_format(metadata).chunk[-2:]
    columns = min(width * max(STACK // (frames * height * width), 1), nx)
    rows = height * max(STACK // (frames * height * columns), 1)
    for quadrant in range(quadrants):
        for y in range(0, ny, rows):
            for x in range(0, nx, columns):
                yield Part(quadrant, slice(y, min(y + rows, ny)), slice(x, min(x + columns, nx)))


def combined_part(
    frames: Frames,
    part: Part,
    *,
    offset: xr.DataArray | None = None,
    scale: xr.DataArray | None = None,
    **settings: Any,
) -> dict[str, NDArray[Any]]:
    """Combine a part of the frames of one CCD; ``mean``, ``variance`` and ``count``, each (1, y, x).

    Of more frames than a stack holds, a few rows at a time: their chunks are then read more than once.

    Parameters
    ----------
    frames : Frames
        Of one CCD.
    part : Part
        Of it.
    offset, scale, **settings
        Of :func:`~ztfzarr.masters.frames.combine_frames`; ``offset`` is of the whole CCD.
    """
    some = frames.part(**part.indices)
    dark = None if offset is None else offset.isel(part.indices).values
    factor = (
        np.ones(some.a.sizes["time"], np.float32)
        if scale is None
        else scale.transpose("time", "ccd").values[:, 0].astype(np.float32)
    )
    times, height, width = (some.counts.sizes[d] for d in ("time", "y", "x"))
    rows = max(2 * STACK // (times * width), 1)
    strips = []
    for y in range(0, height, rows):
        strip = slice(y, min(y + rows, height))
        own = None if dark is None else dark[..., strip, :]
        strips.append(_combined_strip(some.part(y=strip), own, factor, settings))
    images = (np.concatenate(v) if len(v) > 1 else v[0] for v in zip(*strips, strict=True))
    return {name: image[np.newaxis] for name, image in zip(("mean", "variance", "count"), images, strict=True)}


def _combined_strip(
    frames: Frames, dark: NDArray[np.float32] | None, scale: NDArray[np.float32], settings: dict[str, Any]
) -> Sequence[NDArray[Any]]:
    """Combine rows of one quadrant; each (y, x)."""
    return combined_stack(
        frames.counts.values[:, 0, 0],
        frames.level.values[:, 0, 0],
        frames.a.values.ravel(),
        frames.b.values.ravel(),
        scale,
        offset=None if dark is None else dark[0, 0],
        gain=frames.gain.item(),
        read_noise=frames.read_noise.item(),
        **settings,
    )


def in_threads(threads: int, act: Callable[[Any], Any], items: Any) -> list[Any]:
    """Map in threads; results in order. With one thread, in this one."""
    if threads == 1:
        return [act(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="ztfzarr-reduce") as pool:
        return list(pool.map(act, items))


def encoded_image(
    version: Version, images: Mapping[str, NDArray[Any]], threads: int
) -> dict[str, dict[Position, bytes]]:
    """Encode the whole images of an entry, each (quadrant, y, x), in threads."""
    items = [(name, part) for name in version.pixels for part in parts_of(version, 1)]

    def encode(item: tuple[str, Part]) -> dict[Position, bytes]:
        name, part = item
        block = images[name][part.region]
        return encode_part(version, name, block, quadrant=part.quadrant, y=part.y.start, x=part.x.start)

    chunks: dict[str, dict[Position, bytes]] = {name: {} for name in version.pixels}
    for (name, _), found in zip(items, in_threads(threads, encode, items), strict=True):
        chunks[name] |= found
    return chunks


def sampled(images: NDArray[Any], stride: int) -> NDArray[Any]:
    """Return each ``stride``-th row of (…, y, x), a copy: the rest need not be held."""
    return np.ascontiguousarray(images[..., ::stride, :])
