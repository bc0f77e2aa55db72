"""Which files of a call go into the cube: fit for it, agreeing with their exposure, and not there yet."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.scan import RawFile
from ztfzarr.ingest.sources import Source
from ztfzarr.store.objects import Objects
from ztfzarr.store.register import array_of, open_raw, read_document, read_table
from ztfzarr.store.template import dimension_lengths

# What the files of one exposure share.
SHARED: Final = ("imgtype", "filter", "field")


@dataclass
class Report:
    """What an ingest did: ``files`` found, by outcome; pixels and bytes read; refusals as (path, reason)."""

    ingested: int = 0
    skipped: int = 0
    pixels: int = 0
    source_bytes: int = 0
    seconds: float = 0.0
    refused: list[tuple[str, str]] = field(default_factory=list)

    files: int = 0

    def refuse(self, source: Source, why: str) -> None:
        """Note a file that is refused."""
        self.refused.append((source.label, why))

    def summary(self) -> dict[str, Any]:
        """Return the report for JSON."""
        refused = [{"path": path, "reason": reason} for path, reason in self.refused]
        return dataclasses.asdict(self) | {"refused": refused}


def files_to_fill(
    objects: Objects, pool: ThreadPoolExecutor, files: Sequence[RawFile], report: Report, *, check: bool
) -> list[RawFile]:
    """Choose the files to fill: fit for the cube, and not in it yet.

    Parameters
    ----------
    objects : Objects
        The store; it may be empty.
    pool : ThreadPoolExecutor
        For reading the files that claim a place that is taken.
    files : sequence of RawFile
        As scanned, one an exposure and CCD.
    report : Report
        Told of those that are refused or skipped.
    check : bool
        Hash files again that are in the cube with the same name and size.
    """
    document = read_document(objects)
    if document is None:
        shapes = collections.Counter(file.shape for file in files)
        shape = shapes.most_common(1)[0][0] if files else (0, 0, 0)
        known: dict[int, int] = {}
    else:
        lengths = dimension_lengths(document)
        shape = lengths["y"], lengths["x"], lengths["x_overscan"]
        known = exposure_rows(objects)
    files = list(_fitting(files, shape, report))
    files = list(_consistent(objects, files, known, report))
    return list(_absent(objects, pool, files, known, report, check))


def exposure_rows(objects: Objects) -> dict[int, int]:
    """Return the row along time of each registered exposure."""
    return {int(number): row for row, number in enumerate(read_table(open_raw(objects), "exposure"))}


def _fitting(files: Iterable[RawFile], shape: tuple[int, int, int], report: Report) -> Iterator[RawFile]:
    for file in files:
        if file.shape == shape:
            yield file
        else:
            (ny, nx, no), (my, mx, mo) = file.shape, shape
            why = f"quadrants of {ny} x {nx} + {no} pixels, expected {my} x {mx} + {mo} as in the cube"
            report.refuse(file.source, why)


def _consistent(
    objects: Objects, files: Sequence[RawFile], known: dict[int, int], report: Report
) -> Iterator[RawFile]:
    """Refuse files that contradict their exposure: its row in the cube, or its first file here."""
    expected: dict[int, dict[str, Any]] = {}
    if known:
        group = open_raw(objects)
        columns = {name: read_table(group, name) for name in SHARED}
        wanted = {file.name.exposure for file in files} & known.keys()  # not all of a million
        expected = {number: {n: columns[n][known[number]] for n in SHARED} for number in wanted}
    for file in files:
        mine = {name: file.coordinates[name] for name in SHARED}
        theirs = expected.setdefault(file.name.exposure, mine)
        differing = [n for n in SHARED if str(mine[n]) != str(theirs[n])]
        if not differing:
            yield file
        for n in differing[:1]:
            why = f"{n} {mine[n]}, expected {theirs[n]} as in the other files of exposure {file.name.exposure}"
            report.refuse(file.source, why)


def _absent(
    objects: Objects,
    pool: ThreadPoolExecutor,
    files: Sequence[RawFile],
    known: dict[int, int],
    report: Report,
    check: bool,
) -> Iterator[RawFile]:
    """Skip the files that are in the cube; refuse others that claim their places."""
    registered = [file for file in files if file.name.exposure in known]
    yield from (file for file in files if file.name.exposure not in known)
    entries = list(zip(registered, _entries(objects, registered, known), strict=True))
    yield from (file for file, entry in entries if not entry.present)
    taken = [(file, entry) for file, entry in entries if entry.present]
    for (file, _), why in zip(
        taken, pool.map(lambda claim: _refusal(claim[0], claim[1], check), taken), strict=True
    ):
        if why is None:
            report.skipped += 1
        else:
            report.refuse(file.source, why)


class Entry(NamedTuple):
    """What the cube holds of an exposure and CCD."""

    present: bool
    name: str
    size: int
    sha256: str


def _refusal(file: RawFile, entry: Entry, check: bool) -> str | None:
    """Say why a file whose place is taken is refused; None if it is the one that is there."""
    if (entry.name, entry.size) == (file.source.name, file.size) and not check:
        return None
    try:
        if hashlib.sha256(file.source.read()).hexdigest() == entry.sha256:
            return None
    except RefusedError as error:
        return str(error)
    place = f"exposure {file.name.exposure}, CCD {file.name.ccd}"
    return f"differs from {entry.name}, which the cube holds for {place}"


def _entries(objects: Objects, files: Sequence[RawFile], known: dict[int, int]) -> list[Entry]:
    """Return what the cube holds in each file's place."""
    if not files:
        return []
    group = open_raw(objects)
    row = np.array([known[file.name.exposure] for file in files])
    ccd = np.array([file.name.ccd - 1 for file in files])
    names = ("present", "source_name", "source_size", "source_sha256")
    columns = [np.asarray(array_of(group, name).vindex[row, ccd]).tolist() for name in names]
    return [Entry(*values) for values in zip(*columns, strict=True)]
