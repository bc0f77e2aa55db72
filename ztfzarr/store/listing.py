"""What a store holds, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ztfzarr.geometry import CCDS
from ztfzarr.store.group import existing_document, open_raw, read_table
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.raw import GROUP
from ztfzarr.store.template import dimension_lengths
from ztfzarr.store.threads import together
from ztfzarr.store.versions import Version, made, versions_of


@dataclass(frozen=True)
class Night:
    """The raw exposures of a night.

    ``kinds`` counts exposures by image type, and by filter where there is more than bias; ``ccds`` are those with
    any file; ``files`` are in the cube and ``missing`` are not, though the night has their CCD.
    """

    night: int
    kinds: dict[str, int]
    ccds: list[int]
    files: int
    missing: int


def nights(store: StoreLike) -> list[Night]:
    """List the nights of a store, in order of date."""
    objects = open_objects(store)
    existing_document(objects)
    group = open_raw(objects)
    night, present = read_table(group, "night"), read_table(group, "present") == 1
    imgtype, filters = (read_table(group, name).astype(object) for name in ("imgtype", "filter"))
    kind = np.where(imgtype == "bias", imgtype, imgtype + " " + filters)
    # Sorted once: a mask of all the exposures for each night is minutes for ten years of them.
    order = np.argsort(night, kind="stable")
    found, starts = np.unique(night[order], return_index=True)
    rows = np.split(order, starts[1:])
    return [_night(int(n), kind[mine], present[mine]) for n, mine in zip(found, rows, strict=False)]


def _night(night: int, kind: Any, present: Any) -> Night:
    names, counts = np.unique(kind.astype(str), return_counts=True)
    seen = present.any(axis=0)
    return Night(
        night=night,
        kinds={str(name): int(count) for name, count in zip(names, counts, strict=True)},
        ccds=[ccd for ccd, here in zip(CCDS, seen, strict=True) if here],
        files=int(present.sum()),
        missing=int((~present[:, seen]).sum()) if seen.any() else int(present.shape[0]),
    )


@dataclass(frozen=True)
class ProductSummary:
    """A version of a product: its group, entries made, size in bytes, and its recipe."""

    group: str
    entries: int
    stored_bytes: int
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """A store at a glance; sizes in bytes, ``shape`` rows, columns and overscan columns of a quadrant."""

    location: str
    exposures: int
    nights: int
    files: int
    first_night: int
    last_night: int
    shape: tuple[int, int, int]
    source_bytes: int
    stored_bytes: int
    objects: int
    products: list[ProductSummary]


def summary(store: StoreLike) -> Summary:
    """Summarise a store; lists all its objects for the sizes."""
    objects = open_objects(store)
    lengths = dimension_lengths(existing_document(objects))
    group = open_raw(objects)
    night = read_table(group, "night")
    asked: list[Callable[[], Any]] = [lambda: [entry.size for entry in objects.entries(GROUP)]]
    asked += [partial(_product, version) for version in versions_of(objects)]
    sizes, *products = together(lambda ask: ask(), asked)
    return Summary(
        location=objects.location,
        exposures=lengths["time"],
        nights=len(np.unique(night)),
        files=int(read_table(group, "present").sum(dtype=np.int64)),
        first_night=int(night.min(initial=99999999)),
        last_night=int(night.max(initial=0)),
        shape=(lengths["y"], lengths["x"], lengths["x_overscan"]),
        source_bytes=int(read_table(group, "source_size").sum()),
        stored_bytes=sum(sizes),
        objects=len(sizes),
        products=products,
    )


def _product(version: Version) -> ProductSummary:
    stored = sum(entry.size for entry in version.objects.entries(version.group))
    return ProductSummary(version.group, int(made(version).sum()), stored, version.recipe)
