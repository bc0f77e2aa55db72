"""Part of a store to another: object by object, without encoding anew, by the same register, fill, mark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zarr

from ztfzarr.errors import StoreError
from ztfzarr.store.check import PresentFile, Selection, present_files, shard_faults
from ztfzarr.store.group import existing_document, object_key, open_raw, read_table
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import COORDINATES, FILE_OWNED, GROUP
from ztfzarr.store.register import Exposure, FilledFile, create_raw, mark, register
from ztfzarr.store.shard import ShardFormat, bad_chunks, decode_shard, encode_shard, same_content, shard_format
from ztfzarr.store.tables import file_headers
from ztfzarr.store.template import arrays_of, dimension_lengths
from ztfzarr.store.threads import windowed

MARK_FILES: Final = 64

Step = Callable[[str, int], None]
Done = Callable[[], None]


@dataclass
class CopyReport:
    """Files or entries copied, found there, and refused as (name, reason); bytes of the objects copied."""

    what: str
    copied: int = 0
    there: int = 0
    stored_bytes: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def copy_raw(
    source: Objects,
    dest: Objects,
    *,
    selection: Selection | None = None,
    workers: int | None = None,
    step: Step = lambda name, total: None,
    done: Done = lambda: None,
) -> CopyReport:
    """Copy raw files of a store to another, which is made if need be.

    Parameters
    ----------
    source, dest : Objects
        The stores, open.
    selection : Selection, optional
        Nights and CCDs; default all.
    workers : int, optional
        Files at a time; default the number of cores.
    step, done : callable
        For progress.

    Returns
    -------
    CopyReport
        Files that ``dest`` holds already, by their SHA-256, are passed over. What was copied has been read back
        from ``dest``, every checksum; what does not hold is among the refused.

    Raises
    ------
    StoreError
        If there is no source, or ``dest`` holds quadrants of another size.
    """
    document = existing_document(source)
    files = present_files(open_raw(source), selection or Selection())
    report = CopyReport(GROUP)
    lengths = dimension_lengths(document)
    create_raw(dest, (lengths["y"], lengths["x"]), lengths["x_overscan"])
    tables = FileTables(open_raw(source))
    rows, files = _registered(dest, tables, files, report)
    todo = list(_absent(dest, tables, files, rows, report))
    copier = Copier(source, dest, document, existing_document(dest), tables)
    step("copy", len(todo))
    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        outcomes = windowed(pool, lambda file: copier.copy(file, rows[file.exposure]), todo, 2 * workers)
        _mark_all(dest, outcomes, report, done)
    copied = [PresentFile(rows[f.exposure], f.exposure, f.ccd) for f in todo]
    step("verify", len(copied))
    report.refused += [
        ("copy", line) for line in shard_faults(dest, _marked(dest, copied), workers=workers, done=done)
    ]
    return report


class FileTables:
    """What the tables of a raw group say of its files."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        names = ("source_name", "source_size", "source_sha256", "zdither", "gain", "read_noise")
        self.columns = {name: read_table(group, name) for name in (*COORDINATES, *names)}

    def exposure(self, file: PresentFile) -> Exposure:
        """Return the exposure of a file, as it is registered."""
        values = {name: self.columns[name][file.row] for name in COORDINATES}
        return Exposure(file.exposure, values)

    def sha256(self, file: PresentFile) -> str:
        """Return the hash of a file."""
        return str(self.columns["source_sha256"][file.row, file.ccd - 1])

    def filled(self, file: PresentFile) -> FilledFile:
        """Return what is marked of a file."""
        place = file.row, file.ccd - 1
        return FilledFile(
            exposure=file.exposure,
            ccd=file.ccd,
            name=str(self.columns["source_name"][place]),
            size=int(self.columns["source_size"][place]),
            sha256=self.sha256(file),
            headers=file_headers(self.group, file.row, file.ccd),
            **{name: self.columns[name][place].tolist() for name in ("zdither", "gain", "read_noise")},
        )


def _registered(
    dest: Objects, tables: FileTables, files: Sequence[PresentFile], report: CopyReport
) -> tuple[dict[int, int], list[PresentFile]]:
    """Give each exposure a row; refuse the files of those that are another exposure there."""
    exposures = {file.exposure: tables.exposure(file) for file in files}
    register(dest, list(exposures.values()))
    theirs = {name: read_table(open_raw(dest), name) for name in COORDINATES}
    rows = {int(number): row for row, number in enumerate(theirs["exposure"].tolist())}
    other = {}
    for number, exposure in exposures.items():
        here = {name: theirs[name][rows[number]] for name in COORDINATES}
        differing = [n for n, value in exposure.coordinates.items() if not _same(value, here[n])]
        if differing:
            name = differing[0]
            other[number] = (
                f"{name} is {here[name]} in the destination, {exposure.coordinates[name]} in the source"
            )
    report.refused += [(str(file), other[file.exposure]) for file in files if file.exposure in other]
    return rows, [file for file in files if file.exposure not in other]


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN


def _absent(
    dest: Objects, tables: FileTables, files: Sequence[PresentFile], rows: dict[int, int], report: CopyReport
) -> Iterator[PresentFile]:
    """Pass over the files that the destination holds; refuse those whose place another file has."""
    group = open_raw(dest)
    present, sha256 = read_table(group, "present"), read_table(group, "source_sha256")
    for file in files:
        place = rows[file.exposure], file.ccd - 1
        if not present[place]:
            yield file
        elif str(sha256[place]) == tables.sha256(file):
            report.there += 1
        else:
            report.refused.append((str(file), "the destination holds another file of this exposure and CCD"))


@dataclass(frozen=True)
class Copier:
    """Copies the objects of files, one file at a time."""

    source: Objects
    dest: Objects
    document: dict[str, Any]
    dest_document: dict[str, Any]
    tables: FileTables

    def copy(self, file: PresentFile, row: int) -> tuple[FilledFile, int] | tuple[str, str]:
        """Copy the objects of a file to a row of the destination: what to mark and bytes, or name and reason."""
        size = 0
        try:
            for name in FILE_OWNED:
                ours, theirs = (arrays_of(d)[name] for d in (self.document, self.dest_document))
                size += copy_object(
                    (self.source, object_key(self.document, name, (file.row, file.ccd)), ours),
                    (self.dest, object_key(self.dest_document, name, (row, file.ccd)), theirs),
                )
            return self.tables.filled(file), size
        except StoreError as error:
            return str(file), str(error)


def copy_object(source: tuple[Objects, str, dict[str, Any]], dest: tuple[Objects, str, dict[str, Any]]) -> int:
    """Copy a shard; each side is a store, a key, and the ``zarr.json`` of the array. Return its bytes.

    As bytes where both arrays are laid out alike, else encoded anew.

    Raises
    ------
    StoreError
        If the shard is missing or damaged, or another is in its place.
    """
    objects, key, metadata = source
    try:
        data = objects.get(key)
    except FileNotFoundError:
        raise StoreError(f"object {key} is missing in the source: repair it first") from None
    form, target = shard_format(metadata), shard_format(dest[2])
    if bad_chunks(form, data) != []:
        raise StoreError(f"{key} is damaged in the source: repair it first")
    if form != target:
        data = _encoded_anew(form, target, data, metadata, key)
    if not dest[0].create(dest[1], data) and not same_content(target, data, dest[0].get(dest[1])):
        raise StoreError(f"{dest[1]} is in the destination with other content: delete it, or finish what left it")
    return len(data)


def _encoded_anew(
    form: ShardFormat, target: ShardFormat, data: bytes, metadata: dict[str, Any], key: str
) -> bytes:
    """Encode the values of a shard as another array of the same shape wants them."""
    lengths = [min(n, s, t) for n, s, t in zip(metadata["shape"], form.shard, target.shard, strict=True)]
    values = decode_shard(form, data, key)[tuple(slice(n) for n in lengths)]
    return encode_shard(target, values, np.array(metadata["fill_value"], values.dtype).item())


def _mark_all(
    dest: Objects,
    outcomes: Iterator[tuple[FilledFile, int] | tuple[str, str]],
    report: CopyReport,
    done: Done,
) -> None:
    batch: list[FilledFile] = []
    for outcome in outcomes:
        done()
        if isinstance(outcome[0], str):
            report.refused.append((outcome[0], str(outcome[1])))
            continue
        batch.append(outcome[0])
        report.stored_bytes += int(outcome[1])
        if len(batch) >= MARK_FILES:
            _mark(dest, batch, report)
    _mark(dest, batch, report)


def _mark(dest: Objects, batch: list[FilledFile], report: CopyReport) -> None:
    lost = mark(dest, batch)
    report.copied += len(batch) - len(lost)
    report.refused += [(f.name, "another file was written to its place meanwhile") for f in lost]
    batch.clear()


def _marked(dest: Objects, files: Sequence[PresentFile]) -> list[PresentFile]:
    present = read_table(open_raw(dest), "present")
    return [file for file in files if present[file.row, file.ccd - 1]]
