"""Raw files back from the cube: byte for byte where its form allows, else the same pixels and cards."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError, StoreError, naming
from ztfzarr.geometry import archive_folder
from ztfzarr.ingest.hdus import BLOCK, Hdu, header_hdus
from ztfzarr.ingest.headers import file_headers
from ztfzarr.ingest.images import StoredImage, is_compressed
from ztfzarr.ingest.names import parse_name
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.ingest.tiles import GZIP, RICE, algorithm, columns_of, rice_parameters
from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.kernels.rice import encode_tiles
from ztfzarr.store.check import PresentFile, Selection, present_files
from ztfzarr.store.files import check_free
from ztfzarr.store.group import read_owned
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.raw import DATA, FILE_OWNED
from ztfzarr.store.register import existing_document, open_raw, read_table

# Level of CFITSIO's gzip of tiles, found by comparing bytes with files of fpack 1.7.0 (CFITSIO 4.2).
GZIP_LEVEL: Final = 1
COMPRESSION_CARDS: Final = (
    "ZIMAGE", "ZTENSION", "ZCMPTYPE", "ZQUANTIZ", "ZDITHER0", "ZBITPIX", "ZNAXIS*", "ZTILE*", "ZNAME?",
    "ZVAL?", "ZPCOUNT", "ZGCOUNT", "ZSCALE", "ZZERO", "ZBLANK", "ZHECKSUM", "ZDATASUM", "TFIELDS", "TTYPE*",
    "TFORM*", "THEAP", "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM",
)  # fmt: skip


UNNAMED: Final = "COMPRESSED_IMAGE"  # EXTNAME that CFITSIO and astropy give to a compressed image without one


class NotIdenticalError(Exception):
    """The bytes of a file cannot be made again from what the cube holds."""


@dataclass(frozen=True)
class Restored:
    """A restored file: where it is, whether it has the original's bytes, and what went wrong if anything."""

    path: Path
    identical: bool
    error: str | None = None


def restore(
    store: StoreLike,
    directory: str | os.PathLike[str],
    *,
    selection: Selection | None = None,
    workers: int | None = None,
    total: Callable[[int], None] | None = None,
) -> Iterator[Restored]:
    """Write raw files of a cube back, in the archive's folders.

    Parameters
    ----------
    store : path or URL
        Of the store.
    directory : path
        Under which ``raw/YYYY/MMDD/FFFFFF/`` is made.
    selection : Selection, optional
        Nights and CCDs; default all.
    workers : int, optional
        Files at a time; default the number of cores.
    total : callable, optional
        Told how many files there are.

    Yields
    ------
    Restored
        One a file, as they are done. Files of row tiles under RICE, and uncompressed ones, have the bytes of
        the original, by its SHA-256; others have its pixels and cards, uncompressed. Of what is lost or damaged
        in the cube nothing is written: ``error`` says what, and ``path`` is the folder.
    """
    objects = open_objects(store)
    existing_document(objects)
    files = present_files(open_raw(objects), selection or Selection())
    if total is not None:
        total(len(files))
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(lambda file: _restore_file(objects, Path(directory), file), files)


def _restore_file(objects: Objects, directory: Path, file: PresentFile) -> Restored:
    group = open_raw(objects)
    folder = directory / archive_folder(file.exposure)
    try:
        name, sha256 = (str(_entry(group, n, file)) for n in ("source_name", "source_sha256"))
        headers = file_headers(group, file.row, file.ccd)
        images = stored_images(objects, file)
    except StoreError as error:
        return Restored(folder, False, f"exposure {file.exposure}, CCD {file.ccd}: {error}")
    try:
        path = folder / _own_name(name, file)
        check_free(path)
    except RefusedError as error:
        return Restored(folder, False, f"exposure {file.exposure}, CCD {file.ccd}: {error}")
    try:
        content = rebuild(headers, images)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise NotIdenticalError
        identical = True
    except (NotIdenticalError, RefusedError):
        content, identical = uncompressed(headers, images), False
        path = path.with_name(path.name.removesuffix(".fz"))
    return _written(path, content, identical)


def _own_name(name: str, file: PresentFile) -> str:
    """Return the name of a raw file; RefusedError if it is none, or that of another: it names what is written."""
    try:
        parsed = parse_name(name)
    except RefusedError as error:
        raise RefusedError(f"source_name {name[:100]!r} in the store: {error}") from None
    if (parsed.exposure, parsed.ccd) != (file.exposure, file.ccd):
        raise RefusedError(f"source_name {name!r} in the store is that of another file")
    return name


def _written(path: Path, content: bytes, identical: bool) -> Restored:
    if path.exists() and path.read_bytes() != content:
        return Restored(path, identical, f"{path} exists with other content: not overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with naming(partial):
            partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Restored(path, identical)


def stored_images(objects: Objects, file: PresentFile) -> list[StoredImage]:
    """Read the eight images of a file from the cube, as integers; StoreError if any of it is lost or damaged."""
    document, place = existing_document(objects), (file.row, file.ccd)
    raw, overscan, zscale, zzero = (read_owned(objects, document, name, place) for name in FILE_OWNED)
    zdither = _entry(open_raw(objects), "zdither", file)
    return [
        StoredImage(np.ascontiguousarray(pixels), zscale[i], zzero[i], int(zdither[i]))
        for i, pixels in enumerate([*raw, *overscan])
    ]


def _entry(group: zarr.Group, name: str, file: PresentFile) -> NDArray[Any]:
    """Read what a table says of a file; StoreError if it says nothing."""
    value = read_table(group, name, (file.row, file.ccd - 1))
    if np.any(value == DATA[name].fill):
        raise StoreError(f"raw/{name}: no entry")
    return value


def rebuild(headers: Sequence[bytes], images: Sequence[StoredImage]) -> bytes:
    """Make the bytes of a raw file again from its header blocks and images.

    Raises
    ------
    NotIdenticalError
        If an image has a form whose bytes the cube does not determine.
    """
    hdus = header_hdus(headers)
    parts = [headers[0]]
    for hdu, image in zip(hdus[1:], images, strict=True):
        data = _table_and_heap(hdu, image) if is_compressed(hdu) else _plain_pixels(hdu, image)
        if len(data) != hdu.data_size:
            raise NotIdenticalError
        parts += [headers[hdu.index], data, bytes(-len(data) % BLOCK)]
    return b"".join(parts)


def _plain_pixels(hdu: Hdu, image: StoredImage) -> bytes:
    bitpix = hdu.integer("BITPIX")
    stored = {8: "u1", 16: ">i2", 32: ">i4", -32: ">i4"}.get(bitpix)
    if stored is None or (bitpix > 0 and not image.zscale.all()):
        raise NotIdenticalError
    return image.integers.astype(stored).tobytes()


def _table_and_heap(hdu: Hdu, image: StoredImage) -> bytes:
    """Make the table and heap of row tiles again, in the order in which CFITSIO and astropy write them."""
    tiles, gzipped = _tiles(hdu, image)
    width = hdu.integer("NAXIS1")
    table = np.zeros((len(tiles), width), np.uint8)
    lengths = np.array([len(tile) for tile in tiles])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for name, column in columns_of(hdu, width).items():
        if name in ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA"):
            mine = gzipped if name.startswith("GZIP") else ~gzipped
            places = np.where(mine, [lengths, offsets], 0).T
            field = np.ascontiguousarray(places.astype({"P": ">i4", "Q": ">i8"}[column.code]))
        elif name in ("ZSCALE", "ZZERO") and column.code == "D":
            values = image.zscale if name == "ZSCALE" else image.zzero
            field = np.ascontiguousarray(values[:, None].astype(">f8"))
        else:
            raise NotIdenticalError
        table[:, column.offset : column.offset + field.dtype.itemsize * field.shape[1]] = field.view(np.uint8)
    return table.tobytes() + b"".join(tiles)


def _tiles(hdu: Hdu, image: StoredImage) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Encode each row again; say which rows are in the column of lossless GZIP tiles."""
    bitpix = hdu.integer("ZBITPIX")
    lossless = image.zscale == 0
    method = algorithm(hdu)
    if (hdu.integer("ZTILE1", 0), hdu.integer("ZTILE2", 1)) != (image.integers.shape[1], 1):
        raise NotIdenticalError
    if (bitpix > 0 and lossless.any()) or method not in RICE | GZIP:
        raise NotIdenticalError
    columns = columns_of(hdu, hdu.integer("NAXIS1"))
    fallback = lossless & ("GZIP_COMPRESSED_DATA" in columns)
    if method in RICE:
        if (lossless & ~fallback).any():
            raise NotIdenticalError
        block, bytepix = rice_parameters(hdu)
        heap, lengths = encode_tiles(image.integers, block=block, bytepix=bytepix)
        tiles = [tile.tobytes() for tile in np.split(heap, np.cumsum(lengths)[:-1])]
    else:
        size = 4 if bitpix < 0 else bitpix // 8
        tiles = [_gzip(row, size, shuffle=method == "GZIP_2") for row in image.integers]
    return [
        _gzip(image.integers[row], 4, shuffle=False) if fallback[row] else tile for row, tile in enumerate(tiles)
    ], fallback


def _gzip(row: NDArray[np.int32], size: int, *, shuffle: bool) -> bytes:
    plain = row.astype({1: "u1", 2: ">i2", 4: ">i4"}[size]).view(np.uint8)
    if shuffle:
        plain = plain.reshape(-1, size).T
    stream = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    return stream.compress(plain.tobytes()) + stream.flush()


def uncompressed(headers: Sequence[bytes], images: Sequence[StoredImage]) -> bytes:
    """Make an uncompressed FITS file with a raw file's pixels, as float32 DN, and its cards."""
    buffer = io.BytesIO()
    with quiet_astropy():
        made = [fits.PrimaryHDU(header=own_cards(headers[0]))]
        for text, image in zip(headers[1:], images, strict=True):
            pixels = image.integers.copy()
            decode_rows(pixels, image.zscale, image.zzero, image.zdither, 0, 0, RANDOM)
            made.append(fits.ImageHDU(pixels.view(np.float32), header=own_cards(text)))
        fits.HDUList(made).writeto(buffer, checksum=True, output_verify="silentfix+ignore")
    return buffer.getvalue()


def own_cards(blocks: bytes) -> fits.Header:
    """Return the cards that do not describe how the file stores its pixels."""
    header = fits.Header.fromstring(blocks).copy(strip=True)
    for pattern in COMPRESSION_CARDS:
        for key in set(header[pattern]) if "*" in pattern or "?" in pattern else {pattern} & set(header):
            header.remove(key, remove_all=True)
    if header.get("EXTNAME") == UNNAMED:
        header.remove("EXTNAME")
    return header
