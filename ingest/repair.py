"""What is lost or damaged in the cube, written again from the raw files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zarr

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.fill import read_file
from ztfzarr.ingest.names import parse_name
from ztfzarr.ingest.scan import scan
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.store.check import (
    Fault,
    PresentFile,
    Selection,
    faults_of_files,
    faults_of_tables,
    metadata_faults,
    present_files,
)
from ztfzarr.store.group import existing_document, open_raw, read_table
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import FILE_OWNED, GROUP, VARIABLES
from ztfzarr.store.register import FilledFile, encoded_file
from ztfzarr.store.tables import write_headers
from ztfzarr.store.threads import windowed
from ztfzarr.store.writing import uninterrupted, writable_arrays

# What of a file can be made again from it. Not its hash, by which the file is known to be the right one.
ENTRIES: Final = ("source_name", "source_size", "zdither")


@dataclass
class RepairReport:
    """Lines of what was written again, and of what could not be; files checked."""

    files: int = 0
    rewritten: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Remade:
    """A file with faults, read again: what is marked of it, and its faults."""

    file: PresentFile
    filled: FilledFile
    faults: Sequence[Fault]

    def has(self, array: str) -> bool:
        """Say whether an array has a fault of the file."""
        return any(fault.array == array for fault in self.faults)


def repair(
    objects: Objects,
    paths: Sequence[str],
    *,
    source_options: Mapping[str, str] | None = None,
    selection: Selection | None = None,
    workers: int | None = None,
    step: Callable[[str, int], None] = lambda name, total: None,
    done: Callable[[], None] = lambda: None,
) -> RepairReport:
    """Find what is lost or damaged in the cube, as ``ztfzarr verify`` does, and write it again.

    Parameters
    ----------
    objects : Objects
        The store.
    paths : sequence of str
        Raw files, folders of them, globs or URLs, in which the damaged ones are looked for.
    source_options : mapping of str, optional
        Credentials and settings of the object store that raw files are in; default the environment's.
    selection : Selection, optional
        Nights and CCDs to check; default all.
    workers : int, optional
        Files at a time; default the number of cores.
    step, done : callable
        For progress.

    Returns
    -------
    RepairReport
        Nothing but faults is written, and only from the file with the SHA-256 that was ingested. What raw files
        cannot mend (metadata, coordinates, hashes, tables whose other entries are damaged) is refused.
    """
    workers = workers or len(os.sched_getaffinity(0))
    sources = _by_place(find_sources(paths, source_options)[0])
    files = present_files(open_raw(objects), selection or Selection())
    report = RepairReport(len(files))
    step("verify", len(files))
    faults = [Fault("", line) for line in metadata_faults(objects)]
    faults += [*faults_of_tables(objects), *faults_of_files(objects, files, workers=workers, done=done)]
    broken = _by_file(faults, report)
    step("repair", len(broken))
    mender = Mender(objects, sources, report)
    with ThreadPoolExecutor(workers) as pool:
        remade = [r for r in windowed(pool, mender.mend_objects, broken.items(), 2 * workers) if r is not None]
    mender.mend_tables(remade)
    report.refused += [f"still there: {f.text}" for f in faults_of_files(objects, [r.file for r in remade])]
    return report


def _by_place(sources: Iterable[Source]) -> dict[tuple[int, int], Source]:
    """Return the files by exposure and CCD; other names are none of the cube's."""
    found = {}
    for source in sources:
        try:
            name = parse_name(source.name)
        except RefusedError:
            continue
        found[name.exposure, name.ccd] = source
    return found


def _by_file(faults: Iterable[Fault], report: RepairReport) -> dict[PresentFile, list[Fault]]:
    """Return the faults that a raw file can mend, by file; refuse the others."""
    found: dict[PresentFile, list[Fault]] = {}
    for fault in faults:
        if fault.file is not None and fault.array in (*FILE_OWNED, *ENTRIES, "header"):
            found.setdefault(fault.file, []).append(fault)
        elif not fault.text.endswith("its entries read as absent"):  # those are named one by one
            report.refused.append(f"not to be made from a raw file: {fault.text}")
    return found


class Mender:
    """Writes again what is damaged of files.

    Parameters
    ----------
    objects : Objects
        The store.
    sources : dict
        Raw files by exposure and CCD.
    report : RepairReport
        Told of what is written, and of what cannot be.
    """

    def __init__(self, objects: Objects, sources: Mapping[tuple[int, int], Source], report: RepairReport) -> None:
        self.objects = objects
        self.sources = sources
        self.report = report
        self.document = existing_document(objects)
        self.sha256 = read_table(open_raw(objects), "source_sha256")

    def mend_objects(self, broken: tuple[PresentFile, list[Fault]]) -> Remade | None:
        """Write the damaged objects of a file's own again; None if the file cannot be read."""
        file, faults = broken
        try:
            source = self._source(file)
            values, filled = read_file(scan(source))
            if filled.sha256 != str(self.sha256[file.row, file.ccd - 1]):
                raise RefusedError(f"{source.label} is not the file that was ingested: its SHA-256 differs")
        except RefusedError as error:
            self.report.refused += [f"{fault.text}: {error}" for fault in faults]
            return None
        encoded = encoded_file(self.document, (file.row, file.ccd), values)
        damaged = {fault.array for fault in faults}
        for name, (key, data) in encoded.items():
            if name in damaged:
                self.objects.put(key, data)
                self.report.rewritten.append(f"{GROUP}/{name}: {file}: object {key}")
        return Remade(file, filled, faults)

    def _source(self, file: PresentFile) -> Source:
        if (file.exposure, file.ccd) not in self.sources:
            raise RefusedError("no raw file of it among those given")
        return self.sources[file.exposure, file.ccd]

    def mend_tables(self, remade: Sequence[Remade]) -> None:
        """Write entries of tables and headers again, under the lock; all the objects are in place."""
        entries = [r for r in remade if any(r.has(name) for name in (*ENTRIES, "header"))]
        if entries:
            with lock(self.objects, GROUP) as held:
                uninterrupted(lambda: self._mend_tables(held, entries))

    def _mend_tables(self, held: Lock, entries: Sequence[Remade]) -> None:
        arrays = writable_arrays(self.objects, GROUP, ("header", *ENTRIES))
        for name in ENTRIES:
            mine = [r for r in entries if r.has(name)]
            if mine:
                held.check()
                _write_entries(arrays[name], name, mine)
                self._told(name, mine)
        for row in sorted({r.file.row for r in entries if r.has("header")}):
            self._mend_headers(
                arrays["header"], held, [r for r in entries if r.file.row == row and r.has("header")]
            )

    def _mend_headers(self, array: zarr.Array[Any], held: Lock, mine: Sequence[Remade]) -> None:
        """Write headers of an exposure, which share an object: if that is damaged, all of them."""
        row = mine[0].file.row
        try:
            block = np.asarray(array[row])
        except (ValueError, RuntimeError):  # what zarr's codecs raise
            present = read_table(open_raw(self.objects), "present")[row] == 1
            if {r.file.ccd - 1 for r in mine} != set(np.flatnonzero(present).tolist()):
                lines = [f.text for r in mine for f in r.faults if f.array == "header"]
                self.report.refused += [f"{line}: needs the raw files of all its CCDs" for line in lines]
                return
            block = np.zeros(array.shape[1:], np.uint8)
        held.check()
        write_headers(array, row, [(r.file.ccd - 1, r.filled.headers) for r in mine], block)
        self._told("header", mine)

    def _told(self, name: str, mine: Sequence[Remade]) -> None:
        self.report.rewritten += [f"{GROUP}/{name}: {r.file}: its entry" for r in mine]


def _write_entries(array: zarr.Array[Any], name: str, mine: Sequence[Remade]) -> None:
    """Write a table's entries of files; other entries of the table stay."""
    values = [getattr(r.filled, name.removeprefix("source_")) for r in mine]
    rows, ccds = (np.array([getattr(r.file, n) for r in mine]) for n in ("row", "ccd"))
    if array.ndim == 3:
        last = np.arange(array.shape[2])
        array.vindex[rows[:, None], ccds[:, None] - 1, last[None, :]] = np.array(values, VARIABLES[name].dtype)
    else:
        dtype = object if VARIABLES[name].dtype == "str" else VARIABLES[name].dtype
        array.vindex[rows, ccds - 1] = np.array(values, dtype)
