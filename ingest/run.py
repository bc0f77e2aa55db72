"""``ztfzarr ingest``: scan, plan, register, fill, mark."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.ingest.fill import fill_file
from ztfzarr.ingest.scan import RawFile, scan
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import dimension_lengths
from ztfzarr.store.register import (
    Exposure,
    FilledFile,
    array_of,
    create_raw,
    existing_document,
    mark,
    open_raw,
    read_document,
    read_table,
    register,
    sweep_partial,
)

MARK_FILES: Final = 64  # files a mark: the lock and the tables are then 1 % of the work
MARK_SECONDS: Final = 20.0

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

    def summary(self) -> dict[str, Any]:
        """Return the report for JSON."""
        refused = [{"path": path, "reason": reason} for path, reason in self.refused]
        return dataclasses.asdict(self) | {"refused": refused}


@dataclass(frozen=True)
class Events:
    """Whom to tell: a step's name and size, each file done, a wait for the lock. Each may do nothing."""

    step: Callable[[str, int], None] = lambda name, total: None
    done: Callable[[RawFile], None] = lambda file: None
    scanned: Callable[[], None] = lambda: None
    waiting: Callable[[str], None] = lambda holder: None


def ingest(
    store: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    *,
    workers: int | None = None,
    check: bool = False,
    events: Events | None = None,
) -> Report:
    """Put raw files into the cube of a store.

    Parameters
    ----------
    store : path or URL
        Of the store; made if it does not exist.
    paths : sequence of path, glob or URL
        Raw files and folders of them.
    workers : int, optional
        Files at a time; default the number of cores.
    check : bool
        Hash files again that are in the cube with the same name and size.
    events : Events, optional
        For progress.

    Returns
    -------
    Report
        Files that were refused are in it, each with its reason; the others are in the cube.

    Raises
    ------
    StoreError
        If the location is no store, or the store is locked for too long.
    """
    started = time.monotonic()
    events = events or Events()
    workers = workers or len(os.sched_getaffinity(0))
    objects = open_objects(store)
    report = Report()
    sources, report.refused = find_sources([os.fspath(p) for p in paths])
    report.files = len(sources)
    with ThreadPoolExecutor(workers) as pool:
        files = list(_scanned(pool, sources, report, events))
        plan = _plan(objects, files, report, check)
        if plan:
            _run(objects, pool, plan, report, events, workers)
    report.seconds = time.monotonic() - started
    return report


def _scanned(
    pool: ThreadPoolExecutor, sources: Sequence[Source], report: Report, events: Events
) -> Iterator[RawFile]:
    """Scan the headers of all files; of two files of one exposure and CCD the first by name is kept."""
    events.step("scan", len(sources))
    first: dict[tuple[int, int], RawFile] = {}
    for source, outcome in zip(sources, pool.map(_scan, sources), strict=True):
        events.scanned()
        if isinstance(outcome, RefusedError):
            report.refused.append((source.label, str(outcome)))
        elif outcome.key in first:
            twin = first[outcome.key].source.label
            report.refused.append((source.label, f"same exposure and CCD as {twin}: expected one file of each"))
        else:
            first[outcome.key] = outcome
            yield outcome


def _scan(source: Source) -> RawFile | RefusedError:
    try:
        return scan(source)
    except RefusedError as error:
        return error


def _plan(objects: Objects, files: Sequence[RawFile], report: Report, check: bool) -> list[RawFile]:
    """Return the files to fill: not in the cube yet, and fit for it."""
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
    return list(_absent(objects, files, known, report, check))


def exposure_rows(objects: Objects) -> dict[int, int]:
    """Return the row along time of each registered exposure."""
    return {int(number): row for row, number in enumerate(read_table(open_raw(objects), "exposure"))}


def _fitting(files: Iterable[RawFile], shape: tuple[int, int, int], report: Report) -> Iterator[RawFile]:
    for file in files:
        if file.shape == shape:
            yield file
        else:
            (ny, nx, no), (my, mx, mo) = file.shape, shape
            report.refused.append(
                (
                    file.source.label,
                    f"quadrants of {ny} x {nx} + {no} pixels, expected {my} x {mx} + {mo} as in the cube",
                )
            )


def _consistent(
    objects: Objects, files: Sequence[RawFile], known: dict[int, int], report: Report
) -> Iterator[RawFile]:
    """Refuse files that contradict their exposure: its row in the cube, or its first file here."""
    expected: dict[int, dict[str, Any]] = {}
    if known:
        group = open_raw(objects)
        columns = {name: read_table(group, name) for name in SHARED}
        expected = {number: {n: columns[n][row] for n in SHARED} for number, row in known.items()}
    for file in files:
        mine = {name: file.coordinates[name] for name in SHARED}
        theirs = expected.setdefault(file.name.exposure, mine)
        differing = [n for n in SHARED if str(mine[n]) != str(theirs[n])]
        if not differing:
            yield file
        for n in differing[:1]:
            why = f"{n} {mine[n]!r}, but exposure {file.name.exposure} has {str(theirs[n])!r} in the cube"
            report.refused.append((file.source.label, why))


def _absent(
    objects: Objects, files: Sequence[RawFile], known: dict[int, int], report: Report, check: bool
) -> Iterator[RawFile]:
    """Skip the files that are in the cube; refuse others that claim their places."""
    registered = [file for file in files if file.name.exposure in known]
    yield from (file for file in files if file.name.exposure not in known)
    for file, (present, name, size, sha256) in zip(registered, _entries(objects, registered, known), strict=True):
        if not present:
            yield file
        elif ((name, size) == (file.source.name, file.size) and not check) or _sha256(file) == sha256:
            report.skipped += 1
        else:
            why = (
                f"differs from {name}, which the cube holds for exposure {file.name.exposure}, CCD {file.name.ccd}"
            )
            report.refused.append((file.source.label, why))


def _entries(
    objects: Objects, files: Sequence[RawFile], known: dict[int, int]
) -> Iterator[tuple[bool, str, int, str]]:
    """Return whether each file's place is taken, and the name, size and SHA-256 of what is there."""
    if not files:
        return iter(())
    group = open_raw(objects)
    row = np.array([known[file.name.exposure] for file in files])
    ccd = np.array([file.name.ccd - 1 for file in files])
    columns = [
        np.asarray(array_of(group, name).vindex[row, ccd]).tolist()
        for name in ("present", "source_name", "source_size", "source_sha256")
    ]
    return zip(*columns, strict=True)


def _sha256(file: RawFile) -> str:
    return hashlib.sha256(file.source.read()).hexdigest()


def _run(
    objects: Objects,
    pool: ThreadPoolExecutor,
    plan: Sequence[RawFile],
    report: Report,
    events: Events,
    workers: int,
) -> None:
    ny, nx, overscan = plan[0].shape
    create_raw(objects, (ny, nx), overscan, waiting=events.waiting)
    sweep_partial(objects)
    exposures = {f.name.exposure: Exposure(f.name.exposure, f.coordinates) for f in plan}
    register(objects, list(exposures.values()), waiting=events.waiting)
    events.step("ingest", len(plan))
    batch: list[FilledFile] = []
    last_mark = time.monotonic()
    try:
        for file, filled in _filled(objects, pool, plan, report, workers):
            batch.append(filled)
            report.ingested += 1
            report.source_bytes += filled.size
            report.pixels += 4 * ny * (nx + overscan)
            events.done(file)
            if len(batch) >= MARK_FILES or time.monotonic() - last_mark > MARK_SECONDS:
                _mark(objects, batch, report, events)
                last_mark = time.monotonic()
    finally:
        _mark(objects, batch, report, events)


def _mark(objects: Objects, batch: list[FilledFile], report: Report, events: Events) -> None:
    files, batch[:] = list(batch), []
    for lost in mark(objects, files, waiting=events.waiting):
        report.ingested -= 1
        why = f"another file was ingested meanwhile for exposure {lost.exposure}, CCD {lost.ccd}"
        report.refused.append((lost.name, why))


def _filled(
    objects: Objects, pool: ThreadPoolExecutor, plan: Sequence[RawFile], report: Report, workers: int
) -> Iterator[tuple[RawFile, FilledFile]]:
    """Fill files as they come, never more than one waiting for each worker: memory stays bounded."""
    document, rows = existing_document(objects), exposure_rows(objects)
    todo = iter(plan)
    running: dict[Future[FilledFile], RawFile] = {}
    while True:
        for file in todo:
            row = rows[file.name.exposure]
            running[pool.submit(fill_file, objects, document, row, file)] = file
            if len(running) > workers:
                break
        if not running:
            return
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            file = running.pop(future)
            try:
                yield file, future.result()
            except (RefusedError, StoreError) as error:
                report.refused.append((file.source.label, str(error)))
