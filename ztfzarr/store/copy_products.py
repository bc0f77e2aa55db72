"""Versions of products to another store: entry by entry, as their objects are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import RecipeError, StoreError
from ztfzarr.store.check import Selection
from ztfzarr.store.copy import MARK_FILES, CopyReport, Done, Step, copy_object
from ztfzarr.store.entries import Entry, mark_entries, update_row
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import FILTERS, row_coordinates
from ztfzarr.store.shard import bad_chunks, shard_format
from ztfzarr.store.star_tables import table_fault, table_key, unreadable
from ztfzarr.store.starflat_tables import mark_starflat, read_starflat
from ztfzarr.store.template import arrays_of
from ztfzarr.store.threads import windowed
from ztfzarr.store.versions import Version, made, prepare_version, versions_of

Place = tuple[int, ...]

# What a night's levels are against, of all its CCDs together: no entry's own.
REFERENCE: Final = ("led_reference", "reference")


def copy_products(
    source: Objects,
    dest: Objects,
    *,
    selection: Selection | None = None,
    workers: int | None = None,
    step: Step = lambda name, total: None,
    done: Done = lambda: None,
) -> list[CopyReport]:
    """Copy the versions of all products to a store that holds the raw files of their rows.

    Parameters and results as :func:`ztfzarr.store.copy.copy_raw`, one report a version. A version that is in
    ``dest`` with another recipe is refused whole; entries whose night or exposure ``dest`` lacks are left out.
    Flats bring what their night's levels are against, and are refused where ``dest`` has frozen another reference.
    """
    reports = []
    for version in versions_of(source):
        report = CopyReport(version.group)
        reports.append(report)
        if version.kind == "stars" and (lacking := unreadable()):
            report.refused.append((version.group, lacking))
            continue
        try:
            theirs = prepare_version(
                dest, version.kind, version.name, version.recipe, version.recipe,
                software=version.document["attributes"]["software"],
            )  # fmt: skip
        except RecipeError as error:
            report.refused.append((version.group, str(error)))
            continue
        if version.kind == "starflat":
            _copy_starflat(version, theirs, report)
            continue
        todo = list(_absent(version, theirs, selection or Selection(), report))
        todo = _of_one_reference(version, theirs, todo, report)
        step(f"copy {version.group}", len(todo))
        _copy_entries(EntryCopier(version, theirs), todo, report, workers or len(os.sched_getaffinity(0)), done)
    return reports


def _copy_starflat(version: Version, theirs: Version, report: CopyReport) -> None:
    """Copy the maps of a version, each with its exposures; refused if one of them is not in the cube."""
    for band in np.array(FILTERS)[made(version)].tolist():
        if made(theirs)[FILTERS.index(band)]:
            report.there += 1
            continue
        try:
            mark_starflat(theirs, band, *read_starflat(version, band))
            report.copied += 1
        except StoreError as error:
            report.refused.append((f"{version.group} {band}", str(error)))


def _absent(
    version: Version, theirs: Version, selection: Selection, report: CopyReport
) -> Iterator[tuple[Place, Place]]:
    """Find the entries to copy: their place in the source and in the destination."""
    rows, nights = _keys(version)
    dest_rows = {key: row for row, key in enumerate(_keys(theirs)[0].tolist())}
    ours, there = made(version), made(theirs)
    chosen = (nights >= selection.first_night) & (nights <= selection.last_night)
    for place in map(tuple, np.argwhere(ours).tolist()):
        row = dest_rows.get(int(rows[place[0]]))
        if row is None or not chosen[place[0]] or place[-1] + 1 not in selection.ccds:
            continue
        if there[(row, *place[1:])]:
            report.there += 1
        else:
            yield place, (row, *place[1:])


def _of_one_reference(
    version: Version, theirs: Version, todo: list[tuple[Place, Place]], report: CopyReport
) -> list[tuple[Place, Place]]:
    """Give the destination's nights the reference of their levels; without the entries where it has another."""
    if not todo or REFERENCE[0] not in arrays_of(version.document):
        return todo
    group, nights, refused = version.open(), _keys(version)[0], set()
    for row, dest_row in sorted({(place[0], dest_place[0]) for place, dest_place in todo}):
        ours = {name: np.asarray(array_of(group, name)[row]) for name in REFERENCE}
        try:
            update_row(theirs, dest_row, REFERENCE, partial(_adopted, ours))
        except StoreError as error:
            refused.add(row)
            report.refused.append((f"night {nights[row]}", str(error)))
    return [places for places in todo if places[0][0] not in refused]


def _adopted(ours: dict[str, NDArray[Any]], there: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what to write of a night's reference: nothing if it is there, or there is none to bring."""
    levels, theirs = ours[REFERENCE[0]], there[REFERENCE[0]]
    if np.isnan(levels).all() or np.array_equal(levels, theirs, equal_nan=True):
        return {}
    if np.isnan(theirs).all():
        return ours
    named = [", ".join(map(str, np.flatnonzero(t["reference"] == 1) + 1)) for t in (ours, there)]
    raise StoreError(
        f"levels against CCDs {named[0]}, in the destination against CCDs {named[1]} or other flats of them: "
        "expected the same reference, which is frozen; copy to another store, or make these flats there"
    )


def _keys(version: Version) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what names the rows of a version, night or exposure number, and their nights."""
    group = version.open()
    nights = np.asarray(array_of(group, "night")[...])
    if version.product.rows == "night":
        return nights, nights
    return np.asarray(array_of(group, "exposure")[...]), nights


@dataclass(frozen=True)
class EntryCopier:
    """Copies entries of a version to the same version of another store."""

    version: Version
    theirs: Version

    def copy(self, place: Place, dest_place: Place) -> tuple[Entry, int]:
        """Copy the objects of an entry, and check them where they are; what to mark, and bytes."""
        size = 0
        for name, metadata in arrays_of(self.version.document).items():
            if not _is_sharded(metadata):
                continue
            theirs = arrays_of(self.theirs.document)[name]
            key = _key(self.theirs, name, dest_place)
            size += copy_object(
                (self.version.objects, _key(self.version, name, place), metadata),
                (self.theirs.objects, key, theirs),
            )
            if bad_chunks(shard_format(theirs), self.theirs.objects.get(key)) != []:
                raise StoreError(f"{key} is damaged in the destination")
        if self.version.kind == "stars":
            size += self._copy_table(place)
        return Entry(dest_place, self._tables(place)), size

    def _copy_table(self, place: Place) -> int:
        """Copy the table of an entry, which has one name in all stores; bytes."""
        exposure = int(np.asarray(array_of(self.version.open(), "exposure")[place[0]]))
        fault = table_fault(self.version, exposure, place[1] + 1)
        if fault is not None:
            raise StoreError(fault)
        key = table_key(self.version, exposure, place[1] + 1)
        data = self.version.objects.get(key)
        if not self.theirs.objects.create(key, data) and self.theirs.objects.get(key) != data:
            raise StoreError(f"{key} is in the destination with other content")
        return len(data)

    def _tables(self, place: Place) -> dict[str, Any]:
        """Return what the tables hold of an entry: along its dimensions, and all along others such as LEDs."""
        at = dict(zip(self.version.product.entry, place, strict=True))
        group, tables = self.version.open(), {}
        for name, metadata in arrays_of(self.version.document).items():
            dims = metadata["dimension_names"]
            coordinate = name in row_coordinates(self.version.kind) or self.version.product.rows not in dims
            if name not in ("present", *REFERENCE) and not coordinate and not _is_sharded(metadata):
                index = tuple(at.get(d, slice(None)) for d in dims)
                tables[name] = np.asarray(array_of(group, name)[index])[()]
        return tables


def _is_sharded(metadata: dict[str, Any]) -> bool:
    return bool(metadata["codecs"][0]["name"] == "sharding_indexed")


def _key(version: Version, name: str, place: Place) -> str:
    rest = len(arrays_of(version.document)[name]["shape"]) - len(place)
    return f"{version.group}/{name}/c/{'/'.join(map(str, place))}" + "/0" * rest


def _copy_entries(
    copier: EntryCopier, todo: list[tuple[Place, Place]], report: CopyReport, workers: int, done: Done
) -> None:
    def copy(places: tuple[Place, Place]) -> tuple[Entry, int] | str:
        try:
            return copier.copy(*places)
        except StoreError as error:
            return str(error)

    batch: list[Entry] = []
    with ThreadPoolExecutor(workers) as pool:
        for outcome in windowed(pool, copy, todo, 2 * workers):
            done()
            if isinstance(outcome, str):
                report.refused.append((copier.version.group, outcome))
                continue
            batch.append(outcome[0])
            report.copied += 1
            report.stored_bytes += outcome[1]
            if len(batch) >= MARK_FILES:
                mark_entries(copier.theirs, batch)
                batch = []
    mark_entries(copier.theirs, batch)
