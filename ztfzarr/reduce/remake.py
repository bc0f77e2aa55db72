"""Damaged entries of products, made again by their version's recipe from what they were made of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.reduce.bias import make_bias
from ztfzarr.reduce.flat import make_flat
from ztfzarr.reduce.inputs import Inputs
from ztfzarr.reduce.report import Selection as Nights
from ztfzarr.reduce.science import Shot, make_science, new_task, shots
from ztfzarr.store.check import Selection
from ztfzarr.store.check_products import EntryFault, entry_faults, made_places, version_faults
from ztfzarr.store.entries import Entry, check_same, shard_key
from ztfzarr.store.group import array_of, open_raw, read_table
from ztfzarr.store.lock import lock
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.shard import differing_chunks, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version, existing_version, made, versions_of

Place = tuple[int, ...]


@dataclass
class RemakeReport:
    """Lines of what was written again, and of what could not be; entries checked."""

    entries: int = 0
    rewritten: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Staged:
    """A store whose new objects are held back, to be compared with what is there."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.location = objects.location
        self.created: dict[str, bytes] = {}

    def create(self, key: str, data: bytes) -> bool:
        """Hold an object back."""
        self.created[key] = data
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


def remake(
    objects: Objects,
    *,
    selection: Selection | None = None,
    workers: int | None = None,
    step: Callable[[str, int], None] = lambda name, total: None,
    done: Callable[[], None] = lambda: None,
) -> RemakeReport:
    """Find the objects of products that are lost or damaged, as ``ztfzarr verify`` does, and make them again.

    Parameters
    ----------
    objects : Objects
        The store.
    selection : Selection, optional
        Nights and CCDs to check; default all.
    workers : int, optional
        Threads; default the number of cores.
    step, done : callable
        For progress.

    Returns
    -------
    RemakeReport
        Nothing but damaged objects is written, and only where an entry's inputs are those it was made of and every
        chunk that is whole comes out as it is. All else is refused: damaged metadata and tables too.
    """
    threads = workers or len(os.sched_getaffinity(0))
    report = RemakeReport()
    for version in versions_of(objects):  # masters first
        report.refused += [f"not to be made again: {line}" for line in version_faults(version)]
        places = made_places(version, selection or Selection())
        report.entries += len(places)
        step(version.group, len(places))
        faults = list(entry_faults(version, places, workers=workers, done=done))
        for group in _together(faults):
            _mend(version, group, threads, report)
    return report


def _together(faults: Iterable[EntryFault]) -> Iterator[list[EntryFault]]:
    """Group faults by what is made at once: a row and CCD."""
    found: dict[Place, list[EntryFault]] = {}
    for fault in faults:
        found.setdefault((fault.place[0], fault.place[-1]), []).append(fault)
    yield from found.values()


def _mend(version: Version, faults: Sequence[EntryFault], threads: int, report: RemakeReport) -> None:
    """Make a row and CCD again, and write its damaged objects."""
    row, ccd = faults[0].place[0], faults[0].place[-1] + 1
    try:
        staged, entries = _made_again(version, row, ccd, threads)
    except (ValueError, RuntimeError) as error:  # what zarr's codecs raise, of inputs that are damaged too
        why = (str(error).splitlines() or [type(error).__name__])[0]
        report.refused += [f"{fault.text}: {why}" for fault in faults]
        return
    for entry in entries:
        mine = [fault for fault in faults if fault.place == entry.place]
        try:
            written = _written(version, staged, entry, {fault.array for fault in mine})
        except (RefusedError, StoreError) as error:
            report.refused += [f"{fault.text}: {error}" for fault in mine]
            continue
        report.rewritten += [f"{version.group}/{name}: object {key}" for name, key in written.items()]


def _made_again(version: Version, row: int, ccd: int, threads: int) -> tuple[Staged, list[Entry]]:
    """Make the entries of a row and CCD from the inputs that they name, without writing them."""
    if version.kind not in ("bias", "flat", "science"):
        raise RefusedError(f"{version.kind} is not made again: make another version of it")
    places = [(row, *p[1:]) for p in np.argwhere(made(version)[[row]]).tolist() if p[-1] == ccd - 1]
    records = [_record(version, place) for place in places]
    staged = Staged(version.objects)
    stage = cast(Objects, staged)  # what it lacks it has of the store
    target = replace(version, objects=stage)
    if version.kind == "science":
        shot = _shot(version, row, ccd)
        for record in records:
            _check_masters(version, record, ccd, shot)
        return staged, make_science(new_task(target), shot)
    inputs = _inputs(version, row, ccd, records)
    if version.kind == "bias":
        return staged, make_bias(target, inputs, threads)
    for record in records:
        _check_masters(version, record, ccd, None)
    bias = existing_version(version.objects, "bias", version.recipe["flat"]["bias"])
    entries = make_flat(target, bias, inputs, threads)
    return staged, [entry for entry in entries if entry.place in places]


def _record(version: Version, place: Place) -> dict[str, Any]:
    """Return what an entry says that it was made of."""
    text = str(np.asarray(array_of(version.open(), "provenance")[place])[()])
    record: dict[str, Any] = json.loads(text)
    if record.get("published"):
        raise RefusedError("it was published, not made by its recipe: publish it again under another version")
    return record


def _inputs(version: Version, row: int, ccd: int, records: Sequence[dict[str, Any]]) -> Inputs:
    """Return the exposures of a master as it names them; refuse if one is gone or another."""
    raw = open_raw(version.objects)
    exposure = read_table(raw, "exposure").tolist()
    sha256 = read_table(raw, "source_sha256")[:, ccd - 1]
    present = read_table(raw, "present")[:, ccd - 1] == 1
    now = {str(number): str(sha256[i]) for i, number in enumerate(exposure) if present[i]}
    numbers: set[int] = set()
    for record in records:
        for number in (*record["exposures"], *record["dropped"]):
            if number not in now:
                raise RefusedError(f"exposure {number}, of which it was made, is not in the cube")
            if record["exposures"].get(number, now[number]) != now[number]:
                raise RefusedError(f"exposure {number} has another SHA-256 than that of which it was made")
            numbers.add(int(number))
    night = int(np.asarray(array_of(version.open(), "night")[row]))
    return Inputs(row, night, ccd, tuple(sorted(numbers)), len(exposure))


def _shot(version: Version, row: int, ccd: int) -> Shot:
    selected = shots(version.objects, Nights(ccds=(ccd,)))
    shot = next((shot for shot in selected if shot.row == row), None)
    if shot is None:
        raise RefusedError("its exposure is not in the cube")
    return shot


def _check_masters(version: Version, record: dict[str, Any], ccd: int, shot: Shot | None) -> None:
    """Refuse masters that were made since the entry was."""
    for kind, name in record["masters"].items():
        _, master, which = name.split("/")
        found = existing_version(version.objects, kind, master)
        place = _place_of(found, which, ccd, None if shot is None else _band(version, shot))
        if place is None or not made(found)[place]:
            raise RefusedError(f"{name}, of which it was made, is gone")
        text = str(np.asarray(array_of(found.open(), "provenance")[place])[()])
        if json.loads(text)["made"] > record["made"]:
            raise RefusedError(f"{name}, of which it was made, was made anew since")


def _place_of(master: Version, which: str, ccd: int, band: int | None) -> Place | None:
    """Return the place of a master that is named by its night, or a starflat by its filter; None if it is gone."""
    if master.kind == "starflat":
        return (FILTERS.index(which),)
    rows = np.flatnonzero(np.asarray(array_of(master.open(), "night")[...]) == int(which))
    if not rows.size:
        return None
    return (int(rows[0]), band, ccd - 1) if master.kind == "flat" and band is not None else (int(rows[0]), ccd - 1)


def _band(version: Version, shot: Shot) -> int:
    return FILTERS.index(str(read_table(open_raw(version.objects), "filter")[shot.row]))


def _written(version: Version, staged: Staged, entry: Entry, damaged: set[str]) -> dict[str, str]:
    """Write damaged objects of an entry, once all that is whole came out as it is; return their keys by array."""
    check_same(version)
    _check_same_inputs(_record(version, entry.place), json.loads(entry.tables["provenance"]))
    for name in version.pixels if damaged else ():
        key = shard_key(version, name, entry.place)
        form = shard_format(arrays_of(version.document)[name])
        try:
            there = version.objects.get(key)
        except FileNotFoundError:
            continue
        if differing_chunks(form, staged.created[key], there):
            raise RefusedError(f"made again, {name} differs where it is whole: its software or its inputs changed")
    keys = {name: shard_key(version, name, entry.place) for name in version.pixels if name in damaged}
    with lock(version.objects, f"{version.kind}-{version.name}") as held:
        check_same(version)
        held.check()
        for key in keys.values():
            version.objects.put(key, staged.created[key])
    return keys


def _check_same_inputs(then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse an entry that would be made of something else than it was."""
    for key in ("masters", "exposures", "dropped", "k"):
        if then.get(key) != now.get(key):
            shown = f"{then.get(key)}, now it would be {now.get(key)}" if key in ("masters", "k") else "others"
            raise RefusedError(f"it was made of {key} {shown}")
