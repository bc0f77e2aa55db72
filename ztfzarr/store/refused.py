"""Raw files that ingest refused, kept beside the cube: JSON, one object a run and night, created once."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ztfzarr.schema import record_faults
from ztfzarr.store.objects import Objects
from ztfzarr.store.template import FORMAT

GROUP: Final = "refused"
UNKNOWN: Final = 0  # night of files whose names tell none; the folder is "unknown"

# What bounds the folder: a night of all exposures has some 13,000 files; who ingests in ever new ways has seen it.
FILES: Final = 2000  # files an object names, the rest are counted
RUNS: Final = 100  # objects a night
CHARACTERS: Final = 500  # of a path and of a reason


@dataclass(frozen=True)
class Refused:
    """A file that was refused: its night YYYYMMDD, 0 if its name tells none; path or URL; reason."""

    night: int
    path: str
    reason: str


@dataclass(frozen=True)
class Kept:
    """What is kept of the refusals of a night: ``when`` each was first refused, UTC; ``more`` have no names."""

    files: dict[Refused, str]
    more: int = 0


def keep_refused(objects: Objects, files: Iterable[Refused]) -> int:
    """Keep the refusals of a run, those that are not kept yet.

    Parameters
    ----------
    objects : Objects
        The store.
    files : iterable of Refused
        Of any nights. Long paths and reasons are cut; queries of URLs, which may hold signatures, are left out.

    Returns
    -------
    int
        Objects created, one a night with something new. No lock is needed: each has a name of its own.
    """
    by_night: dict[int, dict[Refused, None]] = {}
    for file in map(_short, files):
        by_night.setdefault(file.night, {})[file] = None
    return sum(_keep_night(objects, night, list(found)) for night, found in by_night.items())


def _short(file: Refused) -> Refused:
    path = file.path.partition("?")[0] if "://" in file.path else file.path
    return Refused(file.night, path[-CHARACTERS:], file.reason[:CHARACTERS])


def _keep_night(objects: Objects, night: int, files: list[Refused]) -> bool:
    if len(_keys(objects, night)) >= RUNS:
        return False
    known = refused_files(objects, night).files
    new = [file for file in files if file not in known]
    if not new:
        return False
    now = time.gmtime()
    record = {
        "format": FORMAT,
        "kind": GROUP,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "files": [{"path": file.path, "reason": file.reason} for file in new[:FILES]],
        "more": max(len(new) - FILES, 0),
    }
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', now)}-{uuid.uuid4().hex[:12]}.json"
    return objects.create(f"{_folder(night)}/{name}", json.dumps(record, indent=1).encode())


def _folder(night: int) -> str:
    return f"{GROUP}/{night or 'unknown'}"


def _keys(objects: Objects, night: int) -> list[str]:
    return sorted(entry.key for entry in objects.entries(_folder(night)))


def refused_nights(objects: Objects) -> list[int]:
    """List the nights with refusals, by one listing; UNKNOWN first, if there are files of no known night."""
    names = objects.children(GROUP)
    nights = [int(name) for name in names if name.isascii() and name.isdecimal()]
    return sorted(nights + [UNKNOWN] * ("unknown" in names))


def refused_files(objects: Objects, night: int) -> Kept:
    """Read what is kept of a night; objects that are damaged are passed over, ``verify`` names them."""
    files: dict[Refused, str] = {}
    more = 0
    for key in _keys(objects, night)[:RUNS]:
        record = _record(objects, key)
        if record is None or record_faults(record, GROUP):
            continue
        more += record["more"]
        for file in record["files"]:
            files.setdefault(Refused(night, file["path"], file["reason"]), record["when"])
    return Kept(files, more)


def _record(objects: Objects, key: str) -> Any:
    try:
        return json.loads(objects.get(key))
    except (FileNotFoundError, ValueError):
        return None


def refused_faults(objects: Objects) -> Iterator[str]:
    """Check every object of refusals against its schema: one line a fault."""
    for entry in sorted(objects.entries(GROUP), key=lambda e: e.key):
        record = _record(objects, entry.key)
        if record is None:
            yield f"{entry.key}: no JSON"
        else:
            yield from (f"{entry.key}: {line}" for line in record_faults(record, GROUP))
