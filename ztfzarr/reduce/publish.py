"""Products computed by hand, written into a version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from ztfzarr.masters.mask import bad_in_flat
from ztfzarr.recipe import Recipe, check_recipe, default_recipe
from ztfzarr.reduce.provenance import published_provenance
from ztfzarr.store.entries import Entry, fill_entry, mark_entries
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.versions import Version, made, prepare_version


def publish(
    product: xr.Dataset,
    store: StoreLike,
    kind: str,
    *,
    version: str = "v1",
    recipe: Recipe | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> int:
    """Write a product into a version of a store, entry by entry.

    Parameters
    ----------
    product : Dataset
        As :func:`ztfzarr.master_bias`, :func:`ztfzarr.master_flat` or :func:`ztfzarr.science` return it, whole
        quadrants of whole CCDs. Science needs the coordinate ``exposure``, masters a coordinate ``night``
        (YYYYMMDD): one, or along a dimension. Computed here, an entry at a time, if it is lazy.
    store : path or URL
        Of the store.
    kind : str
        ``bias``, ``flat`` or ``science``.
    version : str
        Version to make or to complete.
    recipe : dict, optional
        What was done, from :func:`ztfzarr.recipe.read_recipe`; default an existing version's own, else the
        defaults.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    int
        Entries written; those that the version has stay as they are.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference.
    StoreError
        If there is no such store, or shapes are not its own.
    ValueError
        If the store has no such exposure, night or filter, or a variable is missing.
    """
    if recipe is not None:
        check_recipe(recipe)
    target = prepare_version(open_objects(store, storage_options), kind, version, recipe, default_recipe(version))
    done = made(target)
    count = 0
    for place, entry in _entries(target, product):
        if done[place]:
            continue
        images = {name: _image(entry, name, kind) for name in target.pixels}
        fill_entry(target, place, images)
        tables = {"provenance": published_provenance(target)} | _levels(kind, entry) | _nights(kind, entry)
        mark_entries(target, [Entry(place, tables)])
        count += 1
    return count


def _entries(version: Version, product: xr.Dataset) -> Iterator[tuple[tuple[int, ...], xr.Dataset]]:
    """Cut a product into entries, each with its place in the version."""
    kind = version.kind
    row = "exposure" if kind == "science" else "night"
    if row not in product.coords:
        raise ValueError(f"the {kind} has no coordinate {row!r}: assign it, so that its place is known")
    dims = [d for d in (*product[row].dims, *(["filter"] if kind == "flat" else []), "ccd") if d in product.dims]
    rows = {int(n): i for i, n in enumerate(np.asarray(array_of(version.open(), row)[...]))}
    sizes = [product.sizes[d] for d in dims]
    for index in np.ndindex(*sizes):
        entry = product.isel(dict(zip(dims, index, strict=True)))
        label = int(entry[row])
        if label not in rows:
            raise ValueError(f"the store has no {row} {label}")
        band = (_band(str(entry["filter"].values)),) if kind == "flat" else ()
        yield (rows[label], *band, int(entry["ccd"]) - 1), entry


def _band(name: str) -> int:
    if name not in FILTERS:
        raise ValueError(f"no filter {name!r}: expected one of {', '.join(FILTERS)}")
    return FILTERS.index(name)


def _image(entry: xr.Dataset, name: str, kind: str) -> Any:
    """Return an array of an entry, (quadrant, y, x)."""
    if name == "bad" and name not in entry:
        return bad_in_flat(entry).transpose("quadrant", "y", "x").values
    if name not in entry:
        raise ValueError(f"the {kind} has no variable {name!r}, which the version holds")
    return entry[name].transpose("quadrant", "y", "x").values


def _levels(kind: str, entry: xr.Dataset) -> dict[str, Any]:
    return {"level": float(entry["level"])} if kind == "flat" else {}


def _nights(kind: str, entry: xr.Dataset) -> dict[str, Any]:
    if kind == "science":
        return {}
    return {"first_night": int(entry["night"]), "last_night": int(entry["night"])}
