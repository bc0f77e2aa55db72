"""Product versions: each made once from a recipe, with raw's own rows."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import RecipeError, RefusedError, StoreError
from ztfzarr.recipe import Recipe, completed, refuse_other
from ztfzarr.schema import faults
from ztfzarr.store.files import PLAIN, plain_name
from ztfzarr.store.group import array_of, existing_document, open_raw, read_json, read_table
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import (
    PRODUCTS,
    Product,
    fixed_labels,
    kind_label_values,
    new_version,
    pixel_variables,
    row_coordinates,
)
from ztfzarr.store.raw import label_values
from ztfzarr.store.template import FORMAT, Variable, arrays_of, dimension_lengths, dumped, resized
from ztfzarr.store.writing import uninterrupted, writable_arrays

# A name is a folder of the product: "" or ".." would be the product itself, or what is beside it.
SOFTWARE: Final = ("ztfzarr", "numpy", "numba", "xarray", "zarr", "pcodec", "astropy")


@dataclass(frozen=True)
class Version:
    """A version of a product in a store, as its group's ``zarr.json`` was when it was opened."""

    objects: Objects
    kind: str
    name: str
    document: dict[str, Any]

    @property
    def group(self) -> str:
        """Path of the group in the store."""
        return f"{self.kind}/{self.name}"

    @property
    def product(self) -> Product:
        """What the kind holds."""
        return PRODUCTS[self.kind]

    @cached_property
    def recipe(self) -> Recipe:
        """The settings that made its pixels; those that it was made before have their defaults."""
        return completed(self.kind, self.document["attributes"]["recipe"])

    @property
    def pixels(self) -> dict[str, Variable]:
        """Arrays with one shard an entry."""
        return pixel_variables(self.kind, self.recipe)

    def open(self) -> zarr.Group:
        """Open the group to read."""
        store = self.objects.zarr_store(read_only=True)
        return zarr.open_group(store, path=self.group, mode="r", use_consolidated=True, zarr_format=3)


def version_name(name: str) -> str:
    """Return the name of a version if it is one; RecipeError if it could lead out of its kind's folder."""
    try:
        return plain_name(name, "version")
    except RefusedError as error:
        raise RecipeError(str(error)) from None


def find_version(objects: Objects, kind: str, name: str) -> Version | None:
    """Open a version; None if the store has none of that name.

    Raises
    ------
    RecipeError
        If it is no name of a version.
    StoreError
        If it is damaged or of another format.
    """
    key = f"{kind}/{version_name(name)}/zarr.json"
    document = read_json(objects, key)
    if document is None:
        return None
    if document.get("attributes", {}).get("format") != FORMAT:
        raise StoreError(f"{objects.location}/{key} is of another format: this version reads format {FORMAT}")
    return Version(objects, kind, name, document)


def existing_version(objects: Objects, kind: str, name: str) -> Version:
    """Open a version; StoreError if there is none of that name, or no store."""
    version = find_version(objects, kind, name)
    if version is None:
        existing_document(objects)
        command = "pocket fit" if kind == "pocket" else kind
        raise StoreError(
            f"no {kind}/{name} in {objects.location}: make it with ztfzarr {command} --version {name}"
        )
    return version


def versions_of(objects: Objects) -> Iterator[Version]:
    """List the versions of all products in a store."""
    for kind in PRODUCTS:
        for name in sorted(objects.children(kind), key=lambda n: (len(n), n)):
            version = find_version(objects, kind, name) if PLAIN.fullmatch(name) else None
            if version is not None:
                yield version


def prepare_version(
    objects: Objects,
    kind: str,
    name: str,
    recipe: Recipe | None,
    default: Recipe,
    *,
    software: dict[str, str] | None = None,
) -> Version:
    """Make a version, or open it, with a row for each of raw's exposures or nights.

    Parameters
    ----------
    objects : Objects
        The store.
    kind, name : str
        Such as ``bias``, ``v1``.
    recipe : dict or None
        Asked for; with None an existing version's own is used.
    default : dict
        Recipe of a new version if none was asked for.
    software : dict of str, optional
        Versions of the packages that made a version which is copied; default those here.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference.
    """
    raw = existing_document(objects)
    with lock(objects, f"{kind}-{version_name(name)}") as held:
        version = find_version(objects, kind, name)
        if version is not None and recipe is not None:
            refuse_other(kind, name, version.recipe, recipe)
        if version is None:
            document = new_version(kind, raw, recipe or default, software or _software())
            wrong = faults(document, kind)
            if wrong:
                raise StoreError(f"{kind}/{name} would not be what its schema says: {wrong[0]}")
            version = Version(objects, kind, name, document)
        return uninterrupted(lambda: _with_rows(version, held, raw))


def _software() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: installed(name) for name in SOFTWARE}


def _with_rows(version: Version, held: Lock, raw: dict[str, Any]) -> Version:
    """Give the version raw's rows: nights in order of first appearance, or exposures."""
    rows = _row_values(version.objects, version.kind)
    length = len(next(iter(rows.values())))
    new = find_version(version.objects, version.kind, version.name) is None
    if not new and dimension_lengths(version.document)[version.product.rows] == length:
        return version
    document = resized(version.document, **{version.product.rows: length})
    grown = Version(version.objects, version.kind, version.name, document)
    held.check()
    if new:
        _sweep(version)
    for name, array in arrays_of(document).items():
        version.objects.put(f"{version.group}/{name}/zarr.json", dumped(array))
    values = (_label_values(version, raw) if new else {}) | rows
    arrays = writable_arrays(version.objects, version.group, values)
    for name, array_values in values.items():
        held.check()
        arrays[name][...] = array_values
    held.check()
    version.objects.put(f"{version.group}/zarr.json", dumped(document))
    return grown


def _sweep(version: Version) -> None:
    """Remove what a drop that was cut short left under the name: pixels and marks of another recipe."""
    for entry in list(version.objects.entries(version.group)):
        version.objects.delete(entry.key)


def _row_values(objects: Objects, kind: str) -> dict[str, NDArray[Any]]:
    """Return raw's coordinates along time, or its nights in order of first appearance."""
    group = open_raw(objects)
    if PRODUCTS[kind].rows == "night":
        return {"night": nights_of(group)}
    return {name: read_table(group, name) for name in row_coordinates(kind)}


def nights_of(raw: zarr.Group) -> NDArray[np.int32]:
    """Return the nights of the raw group, in order of first appearance: rows of the masters."""
    night = read_table(raw, "night")
    _, first = np.unique(night, return_index=True)
    return np.asarray(night[np.sort(first)], np.int32)


def _label_values(version: Version, raw: dict[str, Any]) -> dict[str, Any]:
    kind, lengths = version.kind, dimension_lengths(raw)
    values = label_values(lengths["y"], lengths["x"], lengths["x_overscan"])
    labels: dict[str, Any] = {name: values[name] for name in fixed_labels(kind) if name in values}
    return labels | kind_label_values(kind, dimension_lengths(version.document))


def made(version: Version) -> NDArray[np.bool_]:
    """Say which entries are made, (*entry dimensions)."""
    return np.asarray(np.asarray(array_of(version.open(), "present")[...]) == 1)
