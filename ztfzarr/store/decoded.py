"""FITS's integers, indexed as the DN they stand for: chunk by chunk, each fetched and decoded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import GROUP, file_key
from ztfzarr.store.shard import Position, ShardFormat, decode_chunk, read_chunks, shard_format

FETCHERS: Final = 32  # requests under way at once; an object store answers them together


@dataclass(frozen=True)
class Block:
    """A selection of the cube: indices along time, CCD and quadrant; a rectangle of rows and columns."""

    time: NDArray[np.int64]
    ccd: NDArray[np.int64]
    quadrant: NDArray[np.int64]
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the five dimensions."""
        rectangle = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
        return (len(self.time), len(self.ccd), len(self.quadrant), *rectangle)


@dataclass(frozen=True)
class Tile:
    """An encoded chunk and where its pixels go.

    ``out`` (y, x) float32 is the rectangle of its quadrant that begins at ``row``, ``column``; ``zscale`` and
    ``zzero`` are of all the rows of its image.
    """

    data: bytes
    position: Position
    out: NDArray[np.float32]
    zscale: NDArray[np.float64]
    zzero: NDArray[np.float64]
    zdither: int
    row: int
    column: int
    key: str


class DecodedArray(BackendArray):
    """``raw`` or ``overscan`` of the raw group in float32 DN, NaN where a file is absent.

    Parameters
    ----------
    location : str
        Of the store.
    arrays : dict
        ``zarr.json`` of the group's arrays.
    name : str
        ``raw`` or ``overscan``.
    first_image : int
        Index along ``image`` of quadrant 1.
    """

    def __init__(self, location: str, arrays: dict[str, dict[str, Any]], name: str, first_image: int) -> None:
        self.location = location
        self.name = name
        self.first_image = first_image
        self.forms = {n: shard_format(arrays[n]) for n in (name, "zscale", "zzero")}
        self.shape = tuple(arrays[name]["shape"])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._picked)  # type: ignore[no-any-return]

    def _picked(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        """Decode an outer selection: a slice, an integer or integers in any order for each dimension."""
        picked = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        kept = [len(p) for p, k in zip(picked, key, strict=True) if not isinstance(k, int | np.integer)]
        if not all(p.size for p in picked):
            return np.empty(kept, np.float32)
        time, ccd, quadrant, y, x = picked
        block = Block(time, ccd, quadrant, _hull(y), _hull(x))
        values = self._block(block)
        if values.shape[3:] != (y.size, x.size) or not (_ascends(y) and _ascends(x)):
            values = values[..., (y - block.rows.start)[:, None], x - block.columns.start]
        return values.reshape(kept)

    def _block(self, block: Block) -> NDArray[np.float32]:
        objects = open_objects(self.location)
        present, zdither = _tables(objects, block)
        values = np.empty(block.shape, np.float32)
        values[present != 1] = np.nan
        files = [(int(t), int(c)) for t, c in np.argwhere(present == 1)]
        fetched = _fetchers().map(lambda f: self._tiles(objects, block, f, zdither[f], values[f]), files)
        tiles = (tile for tiles in fetched for tile in tiles)
        for _ in _decoders().map(self._decode, tiles):
            pass
        return values

    def _tiles(
        self,
        objects: Objects,
        block: Block,
        file: tuple[int, int],
        zdither: NDArray[np.int16],
        out: NDArray[np.float32],
    ) -> list[Tile]:
        """Fetch the chunks of a file that a block touches."""
        place = int(block.time[file[0]]), int(block.ccd[file[1]])
        touched = list(product(block.quadrant.tolist(), *_touched(self.forms[self.name], block)))
        chunks = self._read(objects, self.name, place, [(0, 0, *position) for position in touched])
        zscale, zzero = (self._scales(objects, name, place) for name in ("zscale", "zzero"))
        if chunks is None or zscale is None or zzero is None:
            out[...] = np.nan  # a lost object; ztfzarr verify names it
            return []
        if len(chunks) < len(touched):
            out[...] = np.nan
        tiles = []
        for i, quadrant in enumerate(block.quadrant.tolist()):
            image = self.first_image + quadrant
            shared = zscale[image], zzero[image], int(zdither[image]), block.rows.start, block.columns.start
            mine = {p: data for p, data in chunks.items() if p[2] == quadrant}
            tiles += [Tile(data, p, out[i], *shared, self._key(self.name, place)) for p, data in mine.items()]
        return tiles

    def _scales(self, objects: Objects, name: str, place: tuple[int, int]) -> NDArray[np.float64] | None:
        """Read ``zscale`` or ``zzero`` of a file, (image, y)."""
        chunks = self._read(objects, name, place, [(0, 0, 0, 0)])
        if not chunks:
            return None
        scales = decode_chunk(self.forms[name], chunks[0, 0, 0, 0], lambda: self._key(name, place))
        return np.asarray(scales[0, 0], np.float64)

    def _read(
        self, objects: Objects, name: str, place: tuple[int, int], positions: Sequence[Position]
    ) -> dict[Position, bytes] | None:
        return read_chunks(objects, self._key(name, place), self.forms[name], positions)

    def _key(self, name: str, place: tuple[int, int]) -> str:
        return file_key(name, len(self.forms[name].grid), place)

    def _decode(self, tile: Tile) -> None:
        """Decode a chunk into its place."""
        integers = decode_chunk(self.forms[self.name], tile.data, lambda: tile.key)[0, 0, 0]
        first = [i * n for i, n in zip(tile.position[3:], integers.shape, strict=True)]
        # Rows and columns of the chunk inside the rectangle, then the same ones counted from its corner.
        inside = [
            slice(max(corner - f, 0), min(corner + n - f, c))
            for corner, n, f, c in zip((tile.row, tile.column), tile.out.shape, first, integers.shape, strict=True)
        ]
        row, column = (f + s.start for f, s in zip(first, inside, strict=True))
        pixels = np.ascontiguousarray(integers[tuple(inside)])
        rows = slice(row, row + pixels.shape[0])
        decode_rows(pixels, tile.zscale[rows], tile.zzero[rows], tile.zdither, row, column, RANDOM)
        y, x = row - tile.row, column - tile.column
        tile.out[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels.view(np.float32)


def _touched(form: ShardFormat, block: Block) -> tuple[range, range]:
    """Return the positions of the chunks along y and x that a rectangle touches."""
    ny, nx = form.chunk[3:]
    return (
        range(block.rows.start // ny, (block.rows.stop - 1) // ny + 1),
        range(block.columns.start // nx, (block.columns.stop - 1) // nx + 1),
    )


def _tables(objects: Objects, block: Block) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
    """Read ``present`` (time, ccd) and ``zdither`` (time, ccd, image) of a block."""
    store = objects.zarr_store(read_only=True)

    def read(name: str) -> NDArray[Any]:
        array = zarr.open_array(store, path=f"{GROUP}/{name}", mode="r")
        return np.asarray(array.oindex[_selection(block.time), _selection(block.ccd)])

    present, zdither = _fetchers().map(read, ("present", "zdither"))
    return present, zdither


def _hull(picked: NDArray[np.int64]) -> slice:
    """Return the smallest slice of step 1 that holds the picked indices."""
    return slice(int(picked.min()), int(picked.max()) + 1)


def _ascends(picked: NDArray[np.int64]) -> bool:
    return bool(np.all(np.diff(picked) == 1))


def _selection(picked: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return a slice where the indices are consecutive: zarr reads those without fancy indexing."""
    return _hull(picked) if _ascends(picked) else picked


@cache
def _fetchers() -> ThreadPoolExecutor:
    """Threads that wait for the store."""
    return ThreadPoolExecutor(FETCHERS, thread_name_prefix="ztfzarr-fetch")


@cache
def _decoders() -> ThreadPoolExecutor:
    """Threads that decode, without the GIL."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="ztfzarr-decode")
