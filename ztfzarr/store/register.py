"""Register, fill, mark: how exposures enter the cube (docs/data-model.md).

Register gives an exposure a row, for ever, and shows it by one put. Fill creates file-owned objects, by
anyone, in any order, without a lock. Mark writes the tables, ``present`` last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.store.group import array_of as array_of
from ztfzarr.store.group import existing_document as existing_document
from ztfzarr.store.group import object_key as object_key
from ztfzarr.store.group import open_raw as open_raw
from ztfzarr.store.group import read_document as read_document
from ztfzarr.store.group import read_json
from ztfzarr.store.group import read_table as read_table
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.objects import PARTIAL, LocalObjects, Objects
from ztfzarr.store.raw import (
    COORDINATES,
    DATA,
    DOCUMENT,
    FILE_OWNED,
    GROUP,
    TABLES,
    VARIABLES,
    label_values,
    new_document,
)
from ztfzarr.store.shard import encode_shard, same_content, shard_format
from ztfzarr.store.tables import with_room_for_headers, write_tables
from ztfzarr.store.template import FORMAT, arrays_of, dimension_lengths, dumped, resized
from ztfzarr.store.writing import uninterrupted, writable_arrays

ROOT: Final = {
    "zarr_format": 3,
    "node_type": "group",
    "attributes": {"format": FORMAT, "title": "ztfzarr store"},
}
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


def create_raw(
    objects: Objects, shape: tuple[int, int], overscan_columns: int, *, waiting: Waiting | None = None
) -> dict[str, Any]:
    """Make the raw group for quadrants of ``shape`` (rows, columns), unless it is there; return its document.

    Raises
    ------
    StoreError
        If it is there with quadrants of another shape, or the location holds something else.
    """
    with lock(objects, GROUP, waiting=waiting) as held:
        document = read_document(objects)
        if document is None:
            return uninterrupted(lambda: _create(objects, held, (*shape, overscan_columns)))
        _check_shape(document, (*shape, overscan_columns))
        return document


def _create(objects: Objects, held: Lock, shape: tuple[int, int, int]) -> dict[str, Any]:
    document = new_document(shape[:2], shape[2])
    _put_root(objects, held)
    _put_arrays(objects, held, document)
    labels = label_values(*shape)
    arrays = writable_arrays(objects, GROUP, labels)
    for name, values in labels.items():
        arrays[name][...] = values
    held.check()
    objects.put(DOCUMENT, dumped(document))
    return document


def _check_shape(document: dict[str, Any], shape: tuple[int, int, int]) -> None:
    lengths = dimension_lengths(document)
    found = lengths["y"], lengths["x"], lengths["x_overscan"]
    if found != shape:
        wanted, here = (f"{ny} x {nx} + {no}" for ny, nx, no in (shape, found))
        raise StoreError(f"the cube has quadrants of {here} pixels, expected {wanted}: another ingest made it")


def _put_root(objects: Objects, held: Lock) -> None:
    """Make the root group; take consolidated metadata out, which would freeze what readers of the root see."""
    root = read_json(objects, "zarr.json")
    if root is None:
        objects.create("zarr.json", dumped(ROOT))
        return
    attributes = root.get("attributes", {})
    if root.get("node_type") != "group" or attributes.get("format", FORMAT) != FORMAT:
        raise StoreError(f"{objects.location} holds another Zarr array or group: expected a ztfzarr store")
    if root.pop("consolidated_metadata", None) is not None:
        held.check()
        objects.put("zarr.json", dumped(root))


def _put_arrays(objects: Objects, held: Lock, document: dict[str, Any]) -> None:
    held.check()
    for name, array in arrays_of(document).items():
        objects.put(f"{GROUP}/{name}/zarr.json", dumped(array))


def register(objects: Objects, exposures: Sequence[Exposure], *, waiting: Waiting | None = None) -> int:
    """Give a row to each exposure that has none; return how many were new.

    The rows show NaN until their files are marked. Coordinates are written first and seen last: readers hold
    the old length until the one put of the group's ``zarr.json``.
    """
    with lock(objects, GROUP, waiting=waiting) as held:
        return uninterrupted(lambda: _register(objects, held, exposures))


def _register(objects: Objects, held: Lock, exposures: Sequence[Exposure]) -> int:
    _put_root(objects, held)
    document = existing_document(objects)
    known = set(read_table(open_raw(objects), "exposure").tolist())
    new = list({e.number: e for e in exposures if e.number not in known}.values())
    if not new:
        return 0
    first = dimension_lengths(document)["time"]
    rows = _new_rows(new)
    grown = resized(document, time=first + len(new))
    _put_arrays(objects, held, grown)
    arrays = writable_arrays(objects, GROUP, rows)
    for name, values in rows.items():
        held.check()
        arrays[name][first:] = values
    held.check()
    objects.put(DOCUMENT, dumped(grown))
    return len(new)


def _new_rows(exposures: Sequence[Exposure]) -> dict[str, Any]:
    """Return what each table along time holds for new exposures: coordinates, and fill values until the mark."""
    rows: dict[str, Any] = {name: DATA[name].fill for name in TABLES}
    for name, variable in COORDINATES.items():
        values = [e.number if name == "exposure" else e.coordinates[name] for e in exposures]
        rows[name] = np.array(values, object if variable.dtype == "str" else variable.dtype)
    return rows


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
    # Nothing is put before all is encoded: a file that fails half-way leaves nothing behind.
    for name, (path, shard) in encoded_file(document, key, values).items():
        form = shard_format(arrays_of(document)[name])
        if not objects.create(path, shard) and not same_content(form, shard, objects.get(path)):
            raise StoreError(
                f"{path} was left by an unfinished ingest of another file: finish that one, or delete the object"
            )


def encoded_file(
    document: dict[str, Any], key: tuple[int, int], values: dict[str, NDArray[Any]]
) -> dict[str, tuple[str, bytes]]:
    """Encode the file-owned objects of a file, as :func:`fill` takes it: key and bytes of each, by array."""
    encoded = {}
    for name in FILE_OWNED:
        expected = tuple(arrays_of(document)[name]["shape"][2:])
        if values[name].shape != expected:
            raise StoreError(f"{name} of shape {values[name].shape}, expected {expected} as in the cube")
        form = shard_format(arrays_of(document)[name])
        shard = encode_shard(form, values[name][None, None], VARIABLES[name].fill)
        encoded[name] = (object_key(document, name, key), shard)
    return encoded


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
        return uninterrupted(lambda: _mark(objects, held, files))


def _mark(objects: Objects, held: Lock, files: Sequence[FilledFile]) -> list[FilledFile]:
    with_room_for_headers(objects, held, existing_document(objects), files)
    arrays = writable_arrays(objects, GROUP, ("exposure", "header", *TABLES))
    numbers = np.asarray(arrays["exposure"][...]).tolist()
    rows = {number: row for row, number in enumerate(numbers)}
    time = np.array([rows[f.exposure] for f in files])
    ccd = np.array([f.ccd - 1 for f in files])
    taken = np.asarray(arrays["present"].vindex[time, ccd]) == 1
    held_sha = np.asarray(arrays["source_sha256"].vindex[time, ccd])
    lost = [f for f, t, sha in zip(files, taken, held_sha, strict=True) if t and sha != f.sha256]
    free = np.flatnonzero(~taken)
    if free.size:
        write_tables(arrays, held, [files[i] for i in free.tolist()], time[free], ccd[free])
        held.check()
        arrays["present"].vindex[time[free], ccd[free]] = np.ones(free.size, np.int8)
    return lost


def sweep_partial(objects: Objects) -> None:
    """Remove the unfinished writes that dead processes left in a local store, after an hour."""
    if isinstance(objects, LocalObjects):
        for entry in list(objects.entries(PARTIAL)):
            if time.time() - entry.modified > PARTIAL_SECONDS:
                objects.delete(entry.key)
