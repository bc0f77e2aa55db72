"""FITS's integers, indexed as the DN they stand for: chunk by chunk, each fetched and decoded once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath

from ztfzarr.errors import StoreError
from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.store.lazy import Indices, LazyArray
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import GROUP, UNKNOWN_DITHER, file_key
from ztfzarr.store.scales import FILES_HELD, Dither, Scales, held_scales, row_of
from ztfzarr.store.shard import Position, decode_chunk, read_chunks, shard_format
from ztfzarr.store.threads import in_flight, windowed

FILES_AHEAD: Final = 64
# Requests under way at once, which an object store answers together: with the dithers, three for each file.
FETCHERS: Final = 1 + 3 * FILES_AHEAD
PIXELS_AHEAD: Final = 2**28  # fetched and not yet decoded: 0.2 GB as stored
DECODES_AHEAD: Final = 64


@dataclass(frozen=True)
class Span:
    """What a selection takes of the chunks at one position along y or x.

    ``hull`` is the smallest slice of the axis that holds its indices in the chunk, ``picked`` are these within
    the hull, ``out`` where they go in the result.
    """

    chunk: int
    hull: slice
    picked: slice | Indices
    out: slice | Indices


@dataclass(frozen=True)
class Block:
    """A selection of the cube: indices along time, CCD and quadrant; spans along y and x."""

    time: Indices
    ccd: Indices
    quadrant: Indices
    y: list[Span]
    x: list[Span]

    @property
    def positions(self) -> list[Position]:
        """Positions, in the shard of a file, of the chunks that the selection touches."""
        quadrants = np.unique(self.quadrant).tolist()
        return [(0, 0, q, y.chunk, x.chunk) for q, y, x in product(quadrants, self.y, self.x)]


@dataclass(frozen=True)
class Tile:
    """An encoded chunk and where its pixels go.

    ``out`` (y, x) float32 is the result's part of its quadrant; ``zscale`` and ``zzero`` are of all the rows of
    its image.
    """

    data: bytes
    y: Span
    x: Span
    out: NDArray[np.float32]
    zscale: NDArray[np.float64]
    zzero: NDArray[np.float64]
    zdither: int
    key: str


class DecodedArray(LazyArray):
    """``raw`` or ``overscan`` of the raw group in float32 DN, NaN where a file is absent.

    Parameters
    ----------
    objects : Objects
        The store.
    arrays : dict
        ``zarr.json`` of the group's arrays.
    name : str
        ``raw`` or ``overscan``.
    first_image : int
        Index along ``image`` of quadrant 1.
    exposures : int
        Length along time: that which the reader has seen, for the cube may grow meanwhile.
    opening : str
        Of this store, see :class:`LazyArray`.
    """

    def __init__(
        self,
        objects: Objects,
        arrays: dict[str, dict[str, Any]],
        name: str,
        first_image: int,
        exposures: int,
        opening: str,
    ) -> None:
        super().__init__((exposures, *arrays[name]["shape"][1:]), np.float32, opening)
        self.objects = objects
        self.name = name
        self.first_image = first_image
        self.forms = {n: shard_format(arrays[n]) for n in (name, "zscale", "zzero")}
        self.tables = {n: arrays[n] for n in ("present", "zdither")}

    def read_into(self, values: NDArray[np.float32], picked: list[Indices]) -> None:
        """Fetch and decode the chunks that a selection touches."""
        time, ccd, quadrant, y, x = picked
        rows, columns = self.forms[self.name].chunk[3:]
        block = Block(time, ccd, quadrant, _spans(y, rows), _spans(x, columns))
        files = self._files(block)
        absent = np.ones(values.shape[:2], bool)
        for place in files:
            absent[place] = False
        values[absent] = np.nan
        begin = partial(self._begin, block, values)
        chunk = int(np.prod(self.forms[self.name].chunk))
        ahead = min(FILES_AHEAD, max(2, PIXELS_AHEAD // (chunk * len(block.positions))))
        tiles = (tile for found in in_flight(begin, files.items(), ahead) for tile in found.result())
        for _ in windowed(_decoders(), self._decode, tiles, DECODES_AHEAD):
            pass

    def _files(self, block: Block) -> dict[tuple[int, int], Dither]:
        """Return what gives ``zdither`` (image) of each file that is present, by its indices in the block.

        Present is read first, the reverse of the writers' order: what is marked has its other entries. These are
        asked for here, and with the files.
        """
        if block.time.size * block.ccd.size <= FILES_HELD:
            held = {
                (i, j): held_scales().get((self.opening, t, c))
                for i, t in enumerate(block.time.tolist())
                for j, c in enumerate(block.ccd.tolist())
            }
            known: dict[tuple[int, int], Dither] = {
                place: partial(np.asarray, scales.zdither) for place, scales in held.items() if scales is not None
            }
            if len(known) == len(held):
                return known
        present = np.argwhere(self._table("present", block) == 1)
        asked = _fetchers().submit(self._table, "zdither", block)
        return {(int(t), int(c)): partial(row_of, asked, int(t), int(c)) for t, c in present}

    def _begin(
        self, block: Block, values: NDArray[np.float32], item: tuple[tuple[int, int], Dither]
    ) -> Future[list[Tile]]:
        """Ask for all of a file that a block touches, at once.

        What waits for others is submitted after them, and threads take work in order: none waits for ever.
        """
        (i, j), dither = item
        place = int(block.time[i]), int(block.ccd[j])
        return _fetchers().submit(self._tiles, block, values[i, j], place, dither, self._scales(place, dither))

    def _tiles(
        self,
        block: Block,
        out: NDArray[np.float32],
        place: tuple[int, int],
        dither_of: Dither,
        waiting: Callable[[], Scales | None],
    ) -> list[Tile]:
        """Fetch the chunks of a file that a block touches."""
        chunks = self._read(self.name, place, block.positions)
        scales = waiting()
        if chunks is None or scales is None:
            out[...] = np.nan  # a lost object; ztfzarr verify names it
            return []
        if len(chunks) < len(block.positions):
            out[...] = np.nan
        key, tiles, zdither = self._key(self.name, place), [], dither_of()
        for k, quadrant in enumerate(block.quadrant.tolist()):
            image = self.first_image + quadrant
            dither = int(zdither[image])
            if dither == UNKNOWN_DITHER:
                out[k] = np.nan
                continue
            for y, x in product(block.y, block.x):
                data = chunks.get((0, 0, quadrant, y.chunk, x.chunk))
                if data is not None:
                    tiles.append(Tile(data, y, x, out[k], scales.zscale[image], scales.zzero[image], dither, key))
        return tiles

    def _scales(self, place: tuple[int, int], dither: Dither) -> Callable[[], Scales | None]:
        """Ask for the scales of a present file, unless they are held; when called, None if an object is lost."""
        held = held_scales().get((self.opening, *place))
        if held is not None:
            return lambda: held
        asked = [_fetchers().submit(self._table_of, name, place) for name in ("zscale", "zzero")]

        def scales() -> Scales | None:
            zscale, zzero = (table.result() for table in asked)
            if zscale is None or zzero is None:
                return None
            found = Scales(dither(), zscale, zzero)
            held_scales().hold((self.opening, *place), found)
            return found

        return scales

    def _table_of(self, name: str, place: tuple[int, int]) -> NDArray[np.float64] | None:
        """Read ``zscale`` or ``zzero`` of a file, (image, y)."""
        chunks = self._read(name, place, [(0, 0, 0, 0)])
        if not chunks:
            return None
        values = decode_chunk(self.forms[name], chunks[0, 0, 0, 0], lambda: self._key(name, place))
        return np.asarray(values[0, 0], np.float64)

    def _read(
        self, name: str, place: tuple[int, int], positions: Sequence[Position]
    ) -> dict[Position, bytes] | None:
        return read_chunks(self.objects, self._key(name, place), self.forms[name], positions)

    def _table(self, name: str, block: Block) -> NDArray[Any]:
        """Read a table's entries of a block, (time, ccd, …), by the metadata as opened: without asking for it."""
        try:
            path = StorePath(self.objects.zarr_store(read_only=True), f"{GROUP}/{name}")
            array = zarr.Array.from_dict(path, self.tables[name])
            return np.asarray(array.oindex[_sliced(block.time), _sliced(block.ccd)])
        except (ValueError, RuntimeError, IndexError, FileNotFoundError) as error:
            raise StoreError(f"{GROUP}/{name} is damaged ({str(error).splitlines()[0]})") from None

    def _key(self, name: str, place: tuple[int, int]) -> str:
        return file_key(name, len(self.forms[name].grid), place)

    def _decode(self, tile: Tile) -> None:
        """Decode a chunk into its place."""
        integers = decode_chunk(self.forms[self.name], tile.data, lambda: tile.key)[0, 0, 0]
        first = [span.chunk * n for span, n in zip((tile.y, tile.x), integers.shape, strict=True)]
        inside = tuple(
            slice(span.hull.start - f, span.hull.stop - f) for span, f in zip((tile.y, tile.x), first, strict=True)
        )
        pixels = np.ascontiguousarray(integers[inside])
        rows = tile.y.hull
        decode_rows(
            pixels, tile.zscale[rows], tile.zzero[rows], tile.zdither, rows.start, tile.x.hull.start, RANDOM
        )
        tile.out[_outer(tile.y.out, tile.x.out)] = pixels.view(np.float32)[_outer(tile.y.picked, tile.x.picked)]


def _spans(indices: Indices, length: int) -> list[Span]:
    """Split a selection along y or x by the chunks, ``length`` long, that hold its indices."""
    chunks = indices // length
    spans = []
    for chunk in np.unique(chunks).tolist():
        out = np.flatnonzero(chunks == chunk)
        own = indices[out]
        first, last = int(own.min()), int(own.max())
        spans.append(Span(chunk, slice(first, last + 1), _sliced(own - first), _sliced(out)))
    return spans


def _sliced(indices: Indices) -> slice | Indices:
    """Return a slice where indices are consecutive: arrays are read and written without fancy indexing then."""
    if np.all(np.diff(indices) == 1):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _outer(y: slice | Indices, x: slice | Indices) -> tuple[Any, Any]:
    """Return the outer index of a selection along y and one along x."""
    if isinstance(y, slice) and isinstance(x, slice):
        return y, x
    rows, columns = (np.arange(i.start, i.stop) if isinstance(i, slice) else i for i in (y, x))
    return rows[:, None], columns[None, :]


@cache
def _fetchers() -> ThreadPoolExecutor:
    """Threads that wait for the store."""
    return ThreadPoolExecutor(FETCHERS, thread_name_prefix="ztfzarr-fetch")


@cache
def _decoders() -> ThreadPoolExecutor:
    """Threads that decode, without the GIL."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="ztfzarr-decode")


# A forked process has its parent's pools but not their threads: work given to those would wait for ever.
for _shared in (held_scales, _fetchers, _decoders):
    os.register_at_fork(after_in_child=_shared.cache_clear)
