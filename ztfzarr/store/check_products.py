"""Is every byte of the products what was written? Metadata, tables, and the checksum of every chunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ztfzarr.errors import StoreError
from ztfzarr.geometry import CCDS
from ztfzarr.schema import faults
from ztfzarr.store.check import Selection, document_faults, pixels_of
from ztfzarr.store.entries import shard_key
from ztfzarr.store.group import array_of, read_table
from ztfzarr.store.shard import bad_chunks, shard_format
from ztfzarr.store.star_tables import table_fault, unreadable
from ztfzarr.store.template import arrays_of
from ztfzarr.store.threads import windowed
from ztfzarr.store.versions import Version

Place = tuple[int, ...]


@dataclass(frozen=True)
class EntryFault:
    """What is wrong with an array of an entry: ``text`` is a line that names it."""

    place: Place
    array: str
    text: str


def version_faults(version: Version) -> Iterator[str]:
    """Check the metadata and the tables of a version: one line a fault."""
    yield from (f"{version.group}/zarr.json: {line}" for line in faults(version.document, version.kind))
    yield from document_faults(version.objects, version.group, version.document)
    if version.kind == "stars" and (lacking := unreadable()):
        yield f"{version.group}: tables not checked: {lacking}"
    group = version.open()
    for name in arrays_of(version.document):
        if name not in version.pixels:
            try:
                np.asarray(array_of(group, name)[...])
            except (ValueError, RuntimeError) as error:  # what zarr's codecs raise, the checksum's first
                yield f"{version.group}/{name}: damaged ({str(error).splitlines()[0]})"


def made_places(version: Version, selection: Selection) -> list[Place]:
    """List the places of the selected entries that are made; none if a table that says so is damaged."""
    group = version.open()
    if version.product.rows not in version.product.entry:
        return []  # tables alone: version_faults has read them
    if version.kind == "stars" and unreadable():
        return []  # version_faults has said so
    try:
        present, night = (read_table(group, name) for name in ("present", "night"))
    except StoreError:
        return []
    made = present == 1
    chosen = (night >= selection.first_night) & (night <= selection.last_night)
    made &= chosen.reshape([-1] + [1] * (made.ndim - 1))
    made &= np.isin(np.array(CCDS), selection.ccds)
    return [tuple(place) for place in np.argwhere(made).tolist()]


def entry_faults(
    version: Version, places: list[Place], *, workers: int | None = None, done: Callable[[], None] | None = None
) -> Iterator[EntryFault]:
    """Check every chunk of entries: one fault a chunk, naming the pixels it hits."""
    names = labels_of(version)
    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        for found in windowed(pool, lambda place: list(_entry(version, place, names)), places, 4 * workers):
            if done is not None:
                done()
            yield from found


def _entry(version: Version, place: Place, names: dict[str, Any]) -> Iterator[EntryFault]:
    where = entry_name(version, place, names)
    if version.kind == "stars":
        fault = table_fault(version, int(names["time"][place[0]]), place[1] + 1)
        if fault is not None:
            yield EntryFault(place, "table", f"{version.group}: {where}: {fault}")
    for name in version.pixels.keys() & arrays_of(version.document).keys():  # the schema names those it lacks
        for hit, what in _shard_faults(version, name, shard_key(version, name, place)):
            yield EntryFault(place, name, f"{version.group}/{name}: {where}{hit}: {what}")


def _shard_faults(version: Version, name: str, key: str) -> Iterator[tuple[str, str]]:
    """Check a shard: the pixels that a fault hits, and what it is."""
    form = shard_format(arrays_of(version.document)[name])
    try:
        data = version.objects.get(key)
    except FileNotFoundError:
        yield "", f"object {key} is missing; its pixels read as absent"
        return
    bad = bad_chunks(form, data)
    if bad is None:
        yield "", f"index of {key} is damaged"
    for position in bad or []:
        yield pixels_of(form, position[-3:]), f"checksum does not hold in {key}"


def labels_of(version: Version) -> dict[str, Any]:
    """Return the labels of a version's entry dimensions; exposures along time."""
    group = version.open()
    dims = {d: "exposure" if d == "time" else d for d in version.product.entry}
    return {d: np.asarray(array_of(group, name)[...]).tolist() for d, name in dims.items()}


def entry_name(version: Version, place: Place, labels: dict[str, Any]) -> str:
    """Name an entry by its labels, as in ``20200801 zg CCD 3``."""
    parts = []
    for dimension, index in zip(version.product.entry, place, strict=True):
        label = labels[dimension][index]
        parts.append(f"CCD {label}" if dimension == "ccd" else str(label))
    return " ".join(parts)
