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

from ztfzarr.geometry import CCDS
from ztfzarr.schema import faults
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import COORDINATES, DATA, FILE_OWNED, GROUP, LABELS, arrays_of
from ztfzarr.store.register import existing_document, object_key, open_raw, read_table
from ztfzarr.store.shard import ShardFormat, bad_chunks, shard_format

# Tables that a present file must have an entry in: a lost object would read as the fill value.
MUST_HAVE: Final = ("source_name", "source_size", "source_sha256")


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
    for name, array in arrays_of(document).items():
        try:
            own = json.loads(objects.get(f"{GROUP}/{name}/zarr.json"))
        except (FileNotFoundError, ValueError):
            found.append(f"{GROUP}/{name}/zarr.json: missing or damaged")
            continue
        # An append that was cut short leaves an array's own document longer than what readers see.
        if {k: v for k, v in own.items() if k != "shape"} != {k: v for k, v in array.items() if k != "shape"}:
            found.append(f"{GROUP}/{name}/zarr.json: differs from the group's consolidated metadata")
    if root_is_consolidated(objects):
        found.append("zarr.json: the root holds consolidated metadata, which hides later nights from readers")
    return found


def root_is_consolidated(objects: Objects) -> bool:
    """Say whether somebody consolidated the store's root."""
    try:
        root = json.loads(objects.get("zarr.json"))
    except FileNotFoundError:
        return False
    return root.get("consolidated_metadata") is not None


def table_faults(objects: Objects) -> Iterator[str]:
    """Read every table, each chunk against its checksum, and look for entries that must be there."""
    group = open_raw(objects)
    tables: dict[str, Any] = {}
    for name in (*COORDINATES, *LABELS, *(n for n in DATA if n not in (*FILE_OWNED, "header"))):
        try:
            tables[name] = read_table(group, name)
        except (ValueError, RuntimeError, OSError) as error:
            yield f"{GROUP}/{name}: damaged ({str(error).splitlines()[0]})"
    if "exposure" in tables and (tables["exposure"] == 0).any():
        row = int(np.argmax(tables["exposure"] == 0))
        yield f"{GROUP}/exposure: row {row} is empty: an object of the table is missing"
    if "present" not in tables or "exposure" not in tables:
        return
    for name in MUST_HAVE:
        if name in tables:
            empty = (tables["present"] == 1) & (tables[name] == DATA[name].fill)
            for row, ccd in np.argwhere(empty):
                yield f"{GROUP}/{name}: exposure {tables['exposure'][row]}, CCD {ccd + 1}: no entry"


@dataclass(frozen=True)
class PresentFile:
    """A file in the cube: its row along time, exposure number and CCD."""

    row: int
    exposure: int
    ccd: int


def present_files(group: zarr.Group, selection: Selection) -> list[PresentFile]:
    """List the files in the cube, by row and CCD."""
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
    document = existing_document(objects)
    forms = {name: shard_format(arrays_of(document)[name]) for name in FILE_OWNED}
    header = open_raw(objects)["header"]

    def check(file: PresentFile) -> list[str]:
        found = [*_header_faults(header, file)]
        for name in FILE_OWNED:
            key = object_key(document, name, (file.row, file.ccd))
            found += _object_faults(objects, key, name, forms[name], file)
        return found

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for lines in pool.map(check, files):
            if done is not None:
                done()
            yield from lines


def _object_faults(objects: Objects, key: str, name: str, form: ShardFormat, file: PresentFile) -> Iterator[str]:
    where = f"exposure {file.exposure}, CCD {file.ccd}"
    try:
        data = objects.get(key)
    except FileNotFoundError:
        yield f"{GROUP}/{name}: {where}: object {key} is missing; its pixels read as NaN"
        return
    bad = bad_chunks(form, data)
    if bad is None:
        yield f"{GROUP}/{name}: {where}: index of {key} is damaged"
        return
    for position in bad:
        yield f"{GROUP}/{name}: {where}{_pixels(name, form, position)}: checksum does not hold in {key}"


def _pixels(name: str, form: ShardFormat, position: tuple[int, ...]) -> str:
    """Say which quadrant, rows and columns a chunk holds."""
    if name not in ("raw", "overscan"):
        return ""
    (y, x), (ny, nx) = position[3:], form.chunk[3:]
    columns = f"columns {x * nx}-{(x + 1) * nx - 1}"
    return f", quadrant {position[2] + 1}, rows {y * ny}-{(y + 1) * ny - 1}, {columns}"


def _header_faults(header: Any, file: PresentFile) -> Iterator[str]:
    where = f"{GROUP}/header: exposure {file.exposure}, CCD {file.ccd}"
    try:
        blocks = np.asarray(header[file.row, file.ccd - 1])
    except (ValueError, RuntimeError, OSError) as error:
        yield f"{where}: damaged ({str(error).splitlines()[0]})"
        return
    if not blocks[:, 0].all():
        yield f"{where}: header of HDU {int(np.argmin(blocks[:, 0] != 0))} is missing"
