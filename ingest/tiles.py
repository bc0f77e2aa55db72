"""Row tiles of a compressed image: table and heap as plain bytes, RICE and GZIP to integers."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.hdus import Hdu
from ztfzarr.kernels.rice import decode_tiles

FORMAT: Final = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(.*)", re.ASCII)
WIDTH: Final = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
SCALED_COLUMN: Final = re.compile(r"(TSCAL|TZERO)\d+")
NUMBER: Final = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}

RICE: Final = frozenset({"RICE_1", "RICE_ONE"})
GZIP: Final = frozenset({"GZIP_1", "GZIP_2"})


class Column(NamedTuple):
    """A column of a table: its offset in a row, repeat count, type code, and what a P or Q points to."""

    offset: int
    repeat: int
    code: str
    element: str


@dataclass(frozen=True)
class Tiles:
    """Table of an image compressed in one tile a row.

    ``data`` and ``gzip`` are (y, 2) int64, length and offset of each row's tile; offsets count from the
    start of the file. ``zscale``, ``zzero`` (y,) float64 or None where the table has no such column.
    """

    data: NDArray[np.int64]
    gzip: NDArray[np.int64]
    zscale: NDArray[np.float64] | None
    zzero: NDArray[np.float64] | None
    has_zblank_column: bool

    def scale_and_zero(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and zero of each row; 0 for lossless images."""
        none = np.zeros(len(self.data))
        return tuple((none if c is None else c).copy() for c in (self.zscale, self.zzero))  # type: ignore[return-value]


def row_tiles(hdu: Hdu, content: memoryview, shape: tuple[int, int]) -> Tiles | None:
    """Read the table of a compressed image; None if its tiles are not rows under RICE or GZIP.

    Raises
    ------
    RefusedError
        If the table does not fit the image, or a tile lies outside the heap.
    """
    ny, nx = shape
    if (hdu.integer("ZTILE1", nx), hdu.integer("ZTILE2", 1)) != (nx, 1):
        return None
    if algorithm(hdu) not in RICE | GZIP:
        return None
    table = _table(hdu, content)
    if len(table) != ny:
        raise RefusedError(f"HDU {hdu.index}: {len(table)} tiles, expected {ny}, one a row")
    columns = columns_of(hdu, table.shape[1])
    if "UNCOMPRESSED_DATA" in columns or any(SCALED_COLUMN.fullmatch(key) for key in hdu.cards):
        return None  # the old column of plain pixels; columns scaled as in tables of physical quantities
    if "COMPRESSED_DATA" not in columns:
        raise RefusedError(f"HDU {hdu.index}: no column COMPRESSED_DATA in a compressed image")
    _check_scales(hdu, columns)
    places = [_tile_places(hdu, table, columns.get(name)) for name in ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA")]
    return Tiles(
        data=places[0],
        gzip=places[1],
        zscale=_numbers(hdu, table, columns.get("ZSCALE")),
        zzero=_numbers(hdu, table, columns.get("ZZERO")),
        has_zblank_column="ZBLANK" in columns,
    )


def _check_scales(hdu: Hdu, columns: dict[str, Column]) -> None:
    """Refuse scales that astropy and CFITSIO understand differently: as cards, or without the other."""
    found = [name for name in ("ZSCALE", "ZZERO") if name in columns]
    if len(found) == 1:
        raise RefusedError(f"HDU {hdu.index}: a column {found[0]} alone, expected both ZSCALE and ZZERO")
    if not found and hdu.integer("ZBITPIX") < 0 and "ZSCALE" in hdu.cards:
        raise RefusedError(f"HDU {hdu.index}: ZSCALE in the header only, expected a column: readers differ")


def algorithm(hdu: Hdu) -> str:
    """Return the compression algorithm of an image, ``ZCMPTYPE``."""
    return hdu.text_value("ZCMPTYPE")


def check_tiles(hdu: Hdu, content: memoryview) -> None:
    """Refuse a table whose tiles do not fill the heap one after the other, as all writers have them.

    Raises
    ------
    RefusedError
        So too if the table is damaged elsewhere.
    """
    table = _table(hdu, content)
    columns = [column for column in columns_of(hdu, table.shape[1]).values() if column.code in "PQ"]
    if not columns:
        raise RefusedError(f"HDU {hdu.index}: no column of tiles in a compressed image")
    places = np.concatenate([_tile_places(hdu, table, column) for column in columns])
    places = places[places[:, 0] > 0]
    if algorithm(hdu) == "PLIO_1":
        _check_lists(hdu, content, places)
    lengths, starts = places[np.argsort(places[:, 1])].T
    heap = hdu.data_offset + hdu.integer("THEAP", table.size)
    ends = np.concatenate([[heap], starts + lengths])
    if not np.array_equal(ends, np.append(starts, hdu.data_offset + hdu.data_size)):
        raise RefusedError(f"HDU {hdu.index}: tiles do not fill the heap one after the other: damaged")


def _check_lists(hdu: Hdu, content: memoryview, places: NDArray[np.int64]) -> None:
    """Refuse line lists of PLIO that say they are longer than their tiles: CFITSIO's decoder reads on."""
    for length, offset in places.tolist():
        words = np.frombuffer(content, ">i2", min(length // 2, 7), offset).tolist()
        # The header of a list: old ones have its length third, new ones their own length second, then two words.
        stated = -1
        if len(words) == 7 and words[1] >= 0:
            stated = words[2] if words[2] > 0 else (words[4] << 15) + words[3]
        if not 0 <= stated <= length // 2:
            raise RefusedError(f"HDU {hdu.index}: a list of {stated} words in a tile of {length // 2}: damaged")


def _table(hdu: Hdu, content: memoryview) -> NDArray[np.uint8]:
    """Return the bytes of the table of a compressed image, (row, byte)."""
    if (hdu.integer("NAXIS"), hdu.integer("BITPIX")) != (2, 8):
        raise RefusedError(f"HDU {hdu.index}: a compressed image in no table of bytes")
    width, rows = hdu.integer("NAXIS1"), hdu.integer("NAXIS2")
    return np.frombuffer(content, np.uint8, rows * width, hdu.data_offset).reshape(rows, width)


def rice_parameters(hdu: Hdu) -> tuple[int, int]:
    """Return the Rice block size and bytes a pixel: 32 and 4 unless ZNAMEn, ZVALn say otherwise."""
    values = {"BLOCKSIZE": 32, "BYTEPIX": 4}
    for i in range(1, 10):
        name = hdu.text_value(f"ZNAME{i}")
        if name in values:
            values[name] = hdu.integer(f"ZVAL{i}")
    block, bytepix = values["BLOCKSIZE"], values["BYTEPIX"]
    if block not in (16, 32) or bytepix not in (1, 2, 4):
        raise RefusedError(f"HDU {hdu.index}: Rice blocks of {block} pixels of {bytepix} bytes")
    return block, bytepix


def columns_of(hdu: Hdu, width: int) -> dict[str, Column]:
    """Return the columns of a table by name; rows have ``width`` bytes."""
    columns: dict[str, Column] = {}
    offset = 0
    for i in range(min(hdu.integer("TFIELDS"), 999)):
        form = hdu.text_value(f"TFORM{i + 1}")
        match = FORMAT.fullmatch(form)
        if match is None or match[2] not in WIDTH:
            raise RefusedError(f"HDU {hdu.index}: TFORM{i + 1} = {form!r} is no column format of an image")
        column = Column(offset, int(match[1] or 1), match[2], match[3][:1])
        name = hdu.text_value(f"TTYPE{i + 1}")
        if not name or name in columns:
            raise RefusedError(f"HDU {hdu.index}: TTYPE{i + 1} = {name!r}, expected a name of its own")
        columns[name] = column
        offset += column.repeat * WIDTH[column.code]
    if offset != width:
        raise RefusedError(f"HDU {hdu.index}: columns of {offset} bytes in rows of {width}")
    return columns


def _field(table: NDArray[np.uint8], offset: int, dtype: str, count: int = 1) -> NDArray[np.generic]:
    """Read ``count`` numbers of each row."""
    width = np.dtype(dtype).itemsize * count
    return np.ascontiguousarray(table[:, offset : offset + width]).view(dtype)


def _numbers(hdu: Hdu, table: NDArray[np.uint8], column: Column | None) -> NDArray[np.float64] | None:
    if column is None:
        return None
    if column.code not in NUMBER or column.repeat != 1:
        raise RefusedError(f"HDU {hdu.index}: {column.repeat}{column.code} as scale or zero, expected a number")
    return _field(table, column.offset, NUMBER[column.code])[:, 0].astype(np.float64)


def _tile_places(hdu: Hdu, table: NDArray[np.uint8], column: Column | None) -> NDArray[np.int64]:
    """Return length and offset in the file of each row's tile."""
    if column is None:
        return np.zeros((len(table), 2), np.int64)
    if column.code not in "PQ" or column.repeat != 1 or column.element not in WIDTH:
        form = f"{column.repeat}{column.code}{column.element}"
        raise RefusedError(f"HDU {hdu.index}: tiles in a column of format {form}, expected 1PB or 1QB")
    places = _field(table, column.offset, ">i4" if column.code == "P" else ">i8", 2).astype(np.int64)
    places[:, 0] = np.minimum(places[:, 0], hdu.data_size + 1) * WIDTH[column.element]
    heap = hdu.integer("THEAP", table.size)
    if not table.size <= heap <= hdu.data_size:
        raise RefusedError(f"HDU {hdu.index}: heap at byte {heap} of {hdu.data_size}: damaged")
    outside = ((places < 0) | (places > hdu.data_size)).any(axis=1) | (places.sum(axis=1) + heap > hdu.data_size)
    if outside.any():
        row = int(np.argmax(outside))
        raise RefusedError(f"HDU {hdu.index}: tile of row {row} lies outside the heap: damaged")
    places[:, 1] += hdu.data_offset + heap
    return places


def read_tiles(
    hdu: Hdu, tiles: Tiles, content: memoryview, shape: tuple[int, int], bitpix: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Decode row tiles to integers.

    Returns
    -------
    integers : (y, x) int32
        Of lossless float rows, their bits.
    lossless : (y,) bool
        Rows of a float image that are not quantised.

    Raises
    ------
    RefusedError
        Naming the first row whose tile does not decode.
    """
    out = np.empty(shape, np.int32)
    empty = tiles.data[:, 0] == 0
    quantised = bitpix < 0 and tiles.zscale is not None
    if algorithm(hdu) in RICE:
        block, bytepix = rice_parameters(hdu)
        heap = np.frombuffer(content, np.uint8)
        places = np.ascontiguousarray(tiles.data.T)
        bad = decode_tiles(heap, places[1], places[0], out, block=block, bytepix=bytepix)
        if bad >= 0:
            raise RefusedError(f"HDU {hdu.index}: tile of row {bad} does not decode: damaged")
    else:
        shuffled = algorithm(hdu) == "GZIP_2"
        for row in np.flatnonzero(~empty):
            pixels = _gunzip(hdu, content, int(row), tiles.data[row], shape[1], shuffled)
            out[row] = _as_integers(hdu, int(row), pixels, 32 if quantised else bitpix)
    for row in np.flatnonzero(empty):
        pixels = _gunzip(hdu, content, int(row), tiles.gzip[row], shape[1], shuffled=False)
        out[row] = _as_integers(hdu, int(row), pixels, bitpix)
    lossless = empty if quantised else np.full(shape[0], bitpix < 0)
    return out, lossless


def _gunzip(
    hdu: Hdu, content: memoryview, row: int, place: NDArray[np.int64], nx: int, shuffled: bool
) -> NDArray[np.uint8]:
    """Decompress a tile to (x, bytes a pixel) uint8, big-endian; never to more than 8 bytes a pixel."""
    length, offset = int(place[0]), int(place[1])
    try:
        stream = zlib.decompressobj(wbits=47)  # zlib's or gzip's header, as found
        plain = stream.decompress(content[offset : offset + length], 8 * nx + 1)
    except zlib.error as error:
        raise RefusedError(f"HDU {hdu.index}: tile of row {row} does not decode ({error})") from None
    whole = stream.eof and not stream.unused_data.strip(b"\0")
    if not whole or not plain or len(plain) % nx:
        raise RefusedError(f"HDU {hdu.index}: tile of row {row} does not decode: {len(plain)} bytes")
    pixels = np.frombuffer(plain, np.uint8)
    return pixels.reshape(-1, nx).T if shuffled else pixels.reshape(nx, -1)


def _as_integers(hdu: Hdu, row: int, pixels: NDArray[np.uint8], bitpix: int) -> NDArray[np.int32]:
    """Read big-endian pixels of a lossless tile; those of quantised ones may be 1, 2 or 4 bytes long."""
    size = pixels.shape[1]
    expected = (1, 2, 4) if bitpix == 32 else (abs(bitpix) // 8,)
    if size not in expected:
        raise RefusedError(f"HDU {hdu.index}: tile of row {row} has {size} bytes a pixel, expected {expected}")
    stored = {1: "u1", 2: ">i2", 4: ">i4"}[size]
    return np.ascontiguousarray(pixels).view(stored)[:, 0].astype(np.int32)
