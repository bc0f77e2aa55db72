"""Register, fill, mark: how exposures enter the cube (docs/data-model.md).

Register gives an exposure a row, for ever, and shows it by one put. Fill creates file-owned objects, by
anyone, in any order, without a lock. Mark writes the tables, ``present`` last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.objects import PARTIAL, LocalObjects, Objects
from ztfzarr.store.raw import (
    COORDINATES,
    FILE_OWNED,
    FORMAT,
    GROUP,
    HEADER_BYTES,
    VARIABLES,
    arrays_of,
    dimension_lengths,
    file_key,
    label_values,
    new_document,
    resized,
)
from ztfzarr.store.shard import encode_shard, same_content, shard_format

ROOT: Final = {
    "zarr_format": 3,
    "node_type": "group",
    "attributes": {"format": FORMAT, "title": "ztfzarr store"},
}
DOCUMENT: Final = f"{GROUP}/zarr.json"

PARTIAL_SECONDS: Final = 3600.0

Waiting = Callable[[str], None]


@dataclass(frozen=True)
class Exposure:
    """An exposure to register: its number and the values of the coordinates along time."""

    number: int
    coordinates: dict[str, Any]


@dataclass(frozen=True)
class FilledFile:
    """A raw file whose pixels are in place: what :func:`mark` writes to the tables.

    ``zdither`` (8 image), ``gain`` and ``read_noise`` (4 quadrant), ``headers`` the blocks of the 9 HDUs.
    """

    exposure: int
    ccd: int
    zdither: Sequence[int]
    gain: Sequence[float]
    read_noise: Sequence[float]
    name: str
    size: int
    sha256: str
    headers: Sequence[bytes]


def read_document(objects: Objects) -> dict[str, Any] | None:
    """Read the consolidated ``zarr.json`` of the raw group; None if the store has none yet.

    Raises
    ------
    StoreError
        If it is of another format than this version reads.
    """
    try:
        document: dict[str, Any] = json.loads(objects.get(DOCUMENT))
    except FileNotFoundError:
        return None
    found = document["attributes"].get("format")
    if found != FORMAT or "consolidated_metadata" not in document:
        raise StoreError(f"{objects.location}/{GROUP} has format {found!r}: this version reads format {FORMAT}")
    return document


def existing_document(objects: Objects) -> dict[str, Any]:
    """Read the raw group's ``zarr.json``; StoreError if there is none."""
    document = read_document(objects)
    if document is None:
        raise StoreError(f"no store with raw exposures at {objects.location}: make one with ztfzarr ingest")
    return document


def open_raw(objects: Objects, *, read_only: bool = True) -> zarr.Group:
    """Open the raw group with zarr: consolidated to read, array by array to write."""
    store = objects.zarr_store(read_only=read_only)
    mode = "r" if read_only else "r+"
    return zarr.open_group(store, path=GROUP, mode=mode, use_consolidated=read_only)  # type: ignore[arg-type]


def read_table(group: zarr.Group, name: str) -> NDArray[Any]:
    """Read a table whole."""
    return np.asarray(array_of(group, name)[...])


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.name}/{name} is no array")
    return array


def create_raw(
    objects: Objects, shape: tuple[int, int], overscan_columns: int, *, waiting: Waiting | None = None
) -> dict[str, Any]:
    """Make the raw group for quadrants of ``shape`` (rows, columns), unless it is there; return its document."""
    with lock(objects, GROUP, waiting=waiting) as held:
        document = read_document(objects)
        if document is not None:
            return document
        document = new_document(shape, overscan_columns)
        objects.create("zarr.json", _dumped(ROOT))
        _put_arrays(objects, document)
        group = open_raw_arrays(objects, document)
        for name, values in label_values(*shape, overscan_columns).items():
            group[name][...] = values
        held.check()
        objects.put(DOCUMENT, _dumped(document))
        return document


def open_raw_arrays(objects: Objects, document: dict[str, Any]) -> dict[str, zarr.Array[Any]]:
    """Open the arrays for writing, each by its own ``zarr.json``."""
    store = objects.zarr_store(read_only=False)
    return {name: zarr.open_array(store, path=f"{GROUP}/{name}", mode="r+") for name in arrays_of(document)}


def _put_arrays(objects: Objects, document: dict[str, Any]) -> None:
    for name, array in arrays_of(document).items():
        objects.put(f"{GROUP}/{name}/zarr.json", _dumped(array))


def _dumped(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


def register(objects: Objects, exposures: Sequence[Exposure], *, waiting: Waiting | None = None) -> int:
    """Give a row to each exposure that has none; return how many were new.

    The rows show NaN until their files are marked. Coordinates are written first and seen last: readers hold
    the old length until the one put of the group's ``zarr.json``.
    """
    with lock(objects, GROUP, waiting=waiting) as held:
        document = existing_document(objects)
        known = set(read_table(open_raw(objects), "exposure").tolist())
        new = [e for e in exposures if e.number not in known]
        if not new:
            return 0
        first = dimension_lengths(document)["time"]
        grown = resized(document, time=first + len(new))
        _put_arrays(objects, grown)
        arrays = open_raw_arrays(objects, grown)
        for name, variable in COORDINATES.items():
            values = [e.number if name == "exposure" else e.coordinates[name] for e in new]
            dtype = object if variable.dtype == "str" else variable.dtype
            arrays[name][first:] = np.array(values, dtype)
        held.check()
        objects.put(DOCUMENT, _dumped(grown))
        return len(new)


def fill(
    objects: Objects, document: dict[str, Any], key: tuple[int, int], values: dict[str, NDArray[Any]]
) -> None:
    """Create the file-owned objects of one file.

    Parameters
    ----------
    objects : Objects
        The store.
    document : dict
        Of the raw group.
    key : (int, int)
        Row along time and CCD label.
    values : dict of ndarray
        ``raw`` (quadrant, y, x), ``overscan`` (quadrant, y, x_overscan), ``zscale``, ``zzero`` (image, y).

    Raises
    ------
    StoreError
        If an object is there already with other content: an unfinished ingest of another file left it.
    """
    encoded = {}
    for name in FILE_OWNED:
        form = shard_format(arrays_of(document)[name])
        shard = encode_shard(form, values[name][None, None], VARIABLES[name].fill)
        encoded[name] = (object_key(document, name, key), form, shard)
    # Nothing is put before all is encoded: a file that fails half-way leaves nothing behind.
    for path, form, shard in encoded.values():
        if not objects.create(path, shard) and not same_content(form, shard, objects.get(path)):
            raise StoreError(
                f"{path} was left by an unfinished ingest of another file: finish that one, or delete the object"
            )


def object_key(document: dict[str, Any], name: str, key: tuple[int, int]) -> str:
    """Return the key of the object that a file owns in an array; ``key`` is its row and CCD label."""
    return file_key(name, len(arrays_of(document)[name]["shape"]), (key[0], key[1] - 1))


def mark(objects: Objects, files: Sequence[FilledFile], *, waiting: Waiting | None = None) -> list[FilledFile]:
    """Write the tables of filled files and mark them present.

    Returns
    -------
    list of FilledFile
        Those not marked, because another file with other content was marked for their slot meanwhile.
    """
    if not files:
        return []
    with lock(objects, GROUP, waiting=waiting) as held:
        document = _with_room_for_headers(objects, held, files)
        arrays = open_raw_arrays(objects, document)
        numbers = np.asarray(arrays["exposure"][...]).tolist()
        rows = {number: row for row, number in enumerate(numbers)}
        time = np.array([rows[f.exposure] for f in files])
        ccd = np.array([f.ccd - 1 for f in files])
        taken = np.asarray(arrays["present"].vindex[time, ccd]) == 1
        held_sha = np.asarray(arrays["source_sha256"].vindex[time, ccd])
        lost = [f for f, t, sha in zip(files, taken, held_sha, strict=True) if t and sha != f.sha256]
        free = np.flatnonzero(~taken)
        if free.size:
            _write_tables(arrays, [files[i] for i in free.tolist()], time[free], ccd[free])
            held.check()
            arrays["present"].vindex[time[free], ccd[free]] = np.ones(free.size, np.int8)
        return lost


def _with_room_for_headers(objects: Objects, held: Lock, files: Sequence[FilledFile]) -> dict[str, Any]:
    """Lengthen the byte dimension where a header is longer than any before."""
    document = existing_document(objects)
    longest = max(len(h) for f in files for h in f.headers)
    if longest <= dimension_lengths(document)["byte"]:
        return document
    document = resized(document, byte=-(-longest // HEADER_BYTES) * HEADER_BYTES)
    objects.put(f"{GROUP}/header/zarr.json", _dumped(arrays_of(document)["header"]))
    held.check()
    objects.put(DOCUMENT, _dumped(document))
    return document


def _write_tables(
    arrays: dict[str, zarr.Array[Any]],
    files: Sequence[FilledFile],
    time: NDArray[np.int64],
    ccd: NDArray[np.int64],
) -> None:
    for name in ("source_name", "source_size", "source_sha256"):
        field = name.removeprefix("source_")
        values = [getattr(f, field) for f in files]
        dtype = object if VARIABLES[name].dtype == "str" else VARIABLES[name].dtype
        arrays[name].vindex[time, ccd] = np.array(values, dtype)
    for name in ("zdither", "gain", "read_noise"):
        table = np.array([getattr(f, name) for f in files], VARIABLES[name].dtype)
        last = np.arange(table.shape[1])
        arrays[name].vindex[time[:, None], ccd[:, None], last[None, :]] = table
    for row in np.unique(time):
        block = np.asarray(arrays["header"][row])
        for i in np.flatnonzero(time == row).tolist():
            for hdu, text in enumerate(files[i].headers):
                block[ccd[i], hdu] = 0
                block[ccd[i], hdu, : len(text)] = np.frombuffer(text, np.uint8)
        arrays["header"][int(row)] = block


def sweep_partial(objects: Objects) -> None:
    """Remove the unfinished writes that dead processes left in a local store, after an hour."""
    if isinstance(objects, LocalObjects):
        for entry in list(objects.entries(PARTIAL)):
            if time.time() - entry.modified > PARTIAL_SECONDS:
                objects.delete(entry.key)
