"""Versions side by side, and away with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.errors import StoreError
from ztfzarr.masters.numbers import MAD_TO_SIGMA
from ztfzarr.recipe import differences
from ztfzarr.reduce.comparing import (
    pocket_differences,
    star_differences,
    starflat_maps,
    starflat_numbers,
)
from ztfzarr.store.check_products import entry_name, labels_of
from ztfzarr.store.group import existing_document
from ztfzarr.store.lock import lock
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.products import PRODUCTS
from ztfzarr.store.register import array_of
from ztfzarr.store.threads import windowed
from ztfzarr.store.versions import Version, existing_version, made, versions_of

AT_ONCE: Final = 16  # deletions, which wait for a store

# What is compared of products without pixels.
PARTS: Final[dict[str, dict[str, Callable[[Version, Version], Iterator[Any]]]]] = {
    "pocket": {"differences": pocket_differences},
    "stars": {"differences": star_differences},
    "starflat": {"numbers": starflat_numbers, "differences": starflat_maps},
}


@dataclass(frozen=True)
class Difference:
    """What two versions of a product differ by in one quadrant of an entry: the second minus the first.

    ``entry`` names it; ``median``, ``sigma`` (robust) and ``largest`` (absolute) are in the product's units,
    over the pixels that both have; ``equal`` is the fraction of them that are the same.
    """

    entry: str
    quadrant: int
    median: float
    sigma: float
    largest: float
    equal: float


def compare(
    store: StoreLike, kind: str, one: str, other: str
) -> tuple[list[tuple[str, Any, Any]], dict[str, Iterator[Any]]]:
    """Compare two versions of a product.

    Parameters
    ----------
    store : path or URL
        Of the store.
    kind : str
        Of the product.
    one, other : str
        Versions.

    Returns
    -------
    settings : list of (name, value of one, value of other)
        In which their recipes differ.
    parts : dict of iterators
        ``differences``: :class:`Difference` of each quadrant of each entry that both have; of star tables,
        starflats and pockets the differences of ``ztfzarr.reduce.comparing``; of starflats also ``numbers``.

    Raises
    ------
    StoreError
        If the store lacks one of them.
    """
    objects = open_objects(store)
    versions = [existing_version(objects, kind, name) for name in (one, other)]
    parts = PARTS.get(kind, {"differences": _differences})
    found = {name: differing(*versions) for name, differing in parts.items()}
    return differences(versions[0].recipe, versions[1].recipe), found


def _differences(one: Version, other: Version) -> Iterator[Difference]:
    groups = [version.open() for version in (one, other)]
    rows = min(made(one).shape[0], made(other).shape[0])
    both = made(one)[:rows] & made(other)[:rows]
    labels = labels_of(one)
    for place in map(tuple, np.argwhere(both).tolist()):
        images = [np.asarray(array_of(group, one.kind)[place], np.float64) for group in groups]
        for quadrant in range(images[0].shape[0]):
            name = entry_name(one, place, labels)
            yield _difference(name, quadrant + 1, images[1][quadrant] - images[0][quadrant])


def _difference(entry: str, quadrant: int, image: Any) -> Difference:
    values = image[np.isfinite(image)]
    if not values.size:
        return Difference(entry, quadrant, *(float("nan"),) * 4)
    median = float(np.median(values))
    sigma = float(MAD_TO_SIGMA * np.median(np.abs(values - median)))
    return Difference(entry, quadrant, median, sigma, float(np.abs(values).max()), float(np.mean(values == 0)))


def _made_with(version: Version) -> set[tuple[str, str]]:
    """Return the kinds and names of the versions that a version's recipe names."""
    recipe = version.recipe
    named = {(kind, name) for kind, name in recipe.get(version.kind, {}).items() if kind in PRODUCTS}
    if version.kind in ("flat", "science") and recipe["pocket"].get("fit"):
        named.add(("pocket", recipe["pocket"]["fit"]))
    return named


def drop(store: StoreLike, kind: str, name: str) -> int:
    """Delete a version of a product; return the number of objects deleted.

    Raises
    ------
    StoreError
        If there is no such version, or another version is made with it.
    """
    objects = open_objects(store)
    existing_document(objects)  # of another format, or none: not ours to delete from
    version = existing_version(objects, kind, name)
    for other in versions_of(objects):
        if (kind, name) in _made_with(other):
            raise StoreError(f"{other.group} is made with {version.group}: drop {other.group} first")
    with lock(objects, f"{kind}-{name}"):
        # First the document that shows the group: readers find all of it, or no group.
        objects.delete(f"{version.group}/zarr.json")
        keys = [entry.key for entry in objects.entries(version.group)]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ztfzarr-drop") as pool:
            for _ in windowed(pool, objects.delete, keys, 2 * AT_ONCE):
                pass
    return len(keys) + 1
