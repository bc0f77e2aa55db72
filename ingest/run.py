"""``ztfzarr ingest``: scan, plan, register, fill, mark."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.ingest.fill import fill_file
from ztfzarr.ingest.names import night_in_name
from ztfzarr.ingest.plan import Report, exposure_rows, files_to_fill
from ztfzarr.ingest.scan import RawFile, scan
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.refused import UNKNOWN, Refused, keep_refused
from ztfzarr.store.register import (
    Exposure,
    FilledFile,
    create_raw,
    existing_document,
    mark,
    read_document,
    register,
    sweep_partial,
)

__all__ = ["Events", "Report", "ingest"]

MARK_FILES: Final = 64  # files a mark: the lock and the tables are then 1 % of the work
MARK_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Events:
    """Whom to tell: a step's name and size, each file done, a wait for the lock. Each may do nothing."""

    step: Callable[[str, int], None] = lambda name, total: None
    done: Callable[[RawFile], None] = lambda file: None
    scanned: Callable[[], None] = lambda: None
    waiting: Callable[[str], None] = lambda holder: None


def ingest(
    store: StoreLike,
    paths: Sequence[str | os.PathLike[str]],
    *,
    source_options: Mapping[str, str] | None = None,
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
    source_options : mapping of str, optional
        Credentials and settings of the object store that raw files are in; default the environment's.
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

    Notes
    -----
    The store, once there is one, keeps which files were refused and why (``ztfzarr.store.refused``).
    """
    started = time.monotonic()
    events = events or Events()
    workers = workers or len(os.sched_getaffinity(0))
    objects = open_objects(store)
    report = Report()
    sources, report.refused = find_sources([os.fspath(p) for p in paths], source_options)
    report.files, named = len(sources), len(report.refused)
    with ThreadPoolExecutor(workers) as pool:
        files = list(_scanned(pool, sources, report, events))
        plan = files_to_fill(objects, pool, files, report, check=check)
        if plan:
            _run(objects, pool, plan, report, events, workers)
    if report.refused[named:] and read_document(objects) is not None:
        keep_refused(objects, [_refused(path, why) for path, why in report.refused[named:]])
    report.seconds = time.monotonic() - started
    return report


def _refused(path: str, reason: str) -> Refused:
    return Refused(night_in_name(Source(path).name) or UNKNOWN, path, reason)


def _scanned(
    pool: ThreadPoolExecutor, sources: Sequence[Source], report: Report, events: Events
) -> Iterator[RawFile]:
    """Scan the headers of all files; of two files of one exposure and CCD the first by name is kept."""
    events.step("scan", len(sources))
    first: dict[tuple[int, int], RawFile] = {}
    for source, outcome in zip(sources, pool.map(_scan, sources), strict=True):
        events.scanned()
        if isinstance(outcome, RefusedError):
            report.refuse(source, str(outcome))
        elif outcome.key in first:
            twin = first[outcome.key].source.label
            report.refuse(source, f"same exposure and CCD as {twin}: expected one file of each")
        else:
            first[outcome.key] = outcome
            yield outcome


def _scan(source: Source) -> RawFile | RefusedError:
    try:
        return scan(source)
    except RefusedError as error:
        return error


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
    exposures: dict[int, Exposure] = {}
    for file in plan:  # where its files differ, an exposure has the coordinates of the first, as in open_fits
        exposures.setdefault(file.name.exposure, Exposure(file.name.exposure, file.coordinates))
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
                report.refuse(file.source, str(error))
