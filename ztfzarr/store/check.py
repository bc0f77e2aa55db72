"""Is every byte of a store what was written? Metadata, tables, and the checksum of every chunk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr

from ztfzarr.errors import StoreError
from ztfzarr.geometry import CCDS
from ztfzarr.schema import faults
from ztfzarr.store.group import existing_document, object_key, open_raw, read_table
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import COORDINATES, DATA, FILE_OWNED, GROUP, LABELS, TABLES
from ztfzarr.store.shard import ShardFormat, bad_chunks, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.threads import windowed

# Tables that a present file must have an entry in; ``present`` is read first, for it is written last.
MUST_HAVE: Final = ("source_name", "source_size", "source_sha256", "zdither")


@dataclass(frozen=True)
class Selection:
    """Which files: those whose night lies in [first, last] and whose CCD is among ``ccds``."""

    first_night: int = 0
    last_night: int = 99999999
    ccds: tuple[int, ...] = CCDS


def metadata_faults(objects: Objects) -> list[str]:
    """Check the metadata of the raw group, and that the store's root has no consolidated metadata."""
    document = existing_document(objects)
    found = [f"{GROUP}/zarr.json: {line}" for line in faults(document, GROUP)]
    found += document_faults(objects, GROUP, document)
    root = _parsed(objects, "zarr.json")
    if root is None:
        found.append("zarr.json: missing or damaged")
    elif root.get("consolidated_metadata") is not None:
        found.append("zarr.json: the root holds consolidated metadata, which hides later nights from readers")
    return found


def document_faults(objects: Objects, group: str, document: dict[str, Any]) -> Iterator[str]:
    """Compare the ``zarr.json`` of each array of a group with the group's consolidated metadata."""
    for name, array in arrays_of(document).items():
        own = _parsed(objects, f"{group}/{name}/zarr.json")
        if own is None:
            yield f"{group}/{name}/zarr.json: missing or damaged"
        elif not _same_array(own, array):
            yield f"{group}/{name}/zarr.json: differs from the group's consolidated metadata"


def _parsed(objects: Objects, key: str) -> dict[str, Any] | None:
    try:
        document = json.loads(objects.get(key))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _same_array(own: dict[str, Any], seen: dict[str, Any]) -> bool:
    """Compare an array's own document with what readers see of it.

    An append that was cut short, or is under way, leaves the own document longer, never shorter.
    """
    longer = len(own.get("shape", ())) == len(seen["shape"]) and all(
        n >= m for n, m in zip(own["shape"], seen["shape"], strict=True)
    )
    return longer and {**own, "shape": None} == {**seen, "shape": None}


@dataclass(frozen=True)
class PresentFile:
    """A file in the cube: its row along time, exposure number and CCD."""

    row: int
    exposure: int
    ccd: int

    def __str__(self) -> str:
        return f"exposure {self.exposure}, CCD {self.ccd}"


@dataclass(frozen=True)
class Fault:
    """What is wrong in an array, in one line; ``file`` is the one that is hit, if it is a single one."""

    array: str
    text: str
    file: PresentFile | None = None


def table_faults(objects: Objects) -> Iterator[str]:
    """Read every table, each chunk against its checksum, and look for objects and entries that must be there."""
    return (fault.text for fault in faults_of_tables(objects))


def faults_of_tables(objects: Objects) -> Iterator[Fault]:
    """Find what :func:`table_faults` describes."""
    arrays, group = arrays_of(existing_document(objects)), open_raw(objects)
    tables: dict[str, Any] = {}
    for name in ("present", *COORDINATES, *LABELS, *(n for n in TABLES if n != "present")):
        for line in _missing_objects(objects, name, arrays[name]):
            yield Fault(name, line)
        try:
            tables[name] = read_table(group, name)
        except StoreError as error:
            yield Fault(name, str(error))
    if "present" not in tables or "exposure" not in tables:
        return
    for name in (n for n in MUST_HAVE if n in tables):
        empty = tables[name] == DATA[name].fill
        lost = (tables["present"] == 1) & (empty.any(axis=2) if empty.ndim == 3 else empty)
        for row, ccd in np.argwhere(lost):
            file = PresentFile(int(row), int(tables["exposure"][row]), int(ccd) + 1)
            yield Fault(name, f"{GROUP}/{name}: {file}: no entry", file)


def _missing_objects(objects: Objects, name: str, array: dict[str, Any]) -> Iterator[str]:
    """Name the objects of a table that are not there; writers make them all, also those of fill values only."""
    chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [-(-n // c) for n, c in zip(array["shape"], chunk, strict=True)]
    there = {entry.key for entry in objects.entries(f"{GROUP}/{name}")}
    for position in np.ndindex(*grid):
        key = "/".join([f"{GROUP}/{name}/c", *map(str, position)])
        if key not in there:
            yield f"{GROUP}/{name}: object {key} is missing; its entries read as absent"


def present_files(group: zarr.Group, selection: Selection) -> list[PresentFile]:
    """List the files in the cube, by row and CCD; StoreError if the tables that say so are damaged."""
    night, exposure = read_table(group, "night"), read_table(group, "exposure")
    present = read_table(group, "present") == 1
    present &= ((night >= selection.first_night) & (night <= selection.last_night))[:, None]
    present &= np.isin(np.array(CCDS), selection.ccds)
    return [PresentFile(int(r), int(exposure[r]), int(c) + 1) for r, c in np.argwhere(present)]


def shard_faults(
    objects: Objects,
    files: list[PresentFile],
    *,
    workers: int | None = None,
    done: Callable[[], None] | None = None,
) -> Iterator[str]:
    """Check every chunk of the files' shards, and their headers: one line a fault, naming the pixels it hits."""
    return (fault.text for fault in faults_of_files(objects, files, workers=workers, done=done))


def faults_of_files(
    objects: Objects,
    files: list[PresentFile],
    *,
    workers: int | None = None,
    done: Callable[[], None] | None = None,
) -> Iterator[Fault]:
    """Find what :func:`shard_faults` describes."""
    document = existing_document(objects)
    forms = {name: shard_format(arrays_of(document)[name]) for name in FILE_OWNED}
    header = open_raw(objects)["header"]

    def check(file: PresentFile) -> list[Fault]:
        found = [Fault("header", line, file) for line in _header_faults(header, file)]
        for name in FILE_OWNED:
            key = object_key(document, name, (file.row, file.ccd))
            lines = _object_faults(objects, key, name, forms[name], file)
            found += [Fault(name, line, file) for line in lines]
        return found

    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        for faults_of_file in windowed(pool, check, files, 4 * workers):
            if done is not None:
                done()
            yield from faults_of_file


def _object_faults(objects: Objects, key: str, name: str, form: ShardFormat, file: PresentFile) -> Iterator[str]:
    try:
        data = objects.get(key)
    except FileNotFoundError:
        yield f"{GROUP}/{name}: {file}: object {key} is missing; its pixels read as NaN"
        return
    bad = bad_chunks(form, data)
    if bad is None:
        yield f"{GROUP}/{name}: {file}: index of {key} is damaged"
        return
    for position in bad:
        hit = pixels_of(form, position[-3:]) if name in ("raw", "overscan") else ""
        yield f"{GROUP}/{name}: {file}{hit}: checksum does not hold in {key}"


def pixels_of(form: ShardFormat, position: tuple[int, ...]) -> str:
    """Say which quadrant, rows and columns a chunk holds, by its position along these."""
    (quadrant, y, x), (ny, nx) = position, form.chunk[-2:]
    columns = f"columns {x * nx}-{(x + 1) * nx - 1}"
    return f", quadrant {quadrant + 1}, rows {y * ny}-{(y + 1) * ny - 1}, {columns}"


def _header_faults(header: Any, file: PresentFile) -> Iterator[str]:
    where = f"{GROUP}/header: {file}"
    try:
        blocks = np.asarray(header[file.row, file.ccd - 1])
    except (ValueError, RuntimeError, OSError) as error:
        yield f"{where}: damaged ({str(error).splitlines()[0]})"
        return
    if not blocks[:, 0].all():
        yield f"{where}: header of HDU {int(np.argmin(blocks[:, 0] != 0))} is missing"
