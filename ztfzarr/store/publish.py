"""Product versions: made once from a recipe, filled entry by entry without a lock, marked under one."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.recipe import Recipe, refuse_other
from ztfzarr.schema import faults
from ztfzarr.store.group import array_of, existing_document, open_raw, read_json, read_table
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import (
    FILTERS,
    LEDS,
    PRODUCTS,
    Product,
    fixed_labels,
    new_version,
    row_coordinates,
)
from ztfzarr.store.raw import label_values
from ztfzarr.store.shard import encode_shard, same_content, shard_format
from ztfzarr.store.template import FORMAT, arrays_of, dimension_lengths, dumped, resized
from ztfzarr.store.writing import uninterrupted, writable_arrays

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

    @property
    def recipe(self) -> Recipe:
        """The settings that made its pixels."""
        recipe: Recipe = self.document["attributes"]["recipe"]
        return recipe

    def open(self) -> zarr.Group:
        """Open the group to read."""
        store = self.objects.zarr_store(read_only=True)
        return zarr.open_group(store, path=self.group, mode="r", use_consolidated=True, zarr_format=3)


@dataclass(frozen=True)
class Entry:
    """What is marked: the place along the entry dimensions, and the values of the tables there."""

    place: tuple[int, ...]
    tables: Mapping[str, Any]


def find_version(objects: Objects, kind: str, name: str) -> Version | None:
    """Open a version; None if the store has none of that name.

    Raises
    ------
    StoreError
        If it is damaged or of another format.
    """
    key = f"{kind}/{name}/zarr.json"
    document = read_json(objects, key)
    if document is None:
        return None
    if document.get("attributes", {}).get("format") != FORMAT:
        raise StoreError(f"{objects.location}/{key} is of another format: this version reads format {FORMAT}")
    return Version(objects, kind, name, document)


def existing_version(objects: Objects, kind: str, name: str) -> Version:
    """Open a version; StoreError if there is none of that name."""
    version = find_version(objects, kind, name)
    if version is None:
        raise StoreError(f"no {kind}/{name} in {objects.location}: make it with ztfzarr {kind} --version {name}")
    return version


def versions_of(objects: Objects) -> Iterator[Version]:
    """List the versions of all products in a store."""
    for kind in PRODUCTS:
        for name in sorted(objects.children(kind), key=lambda n: (len(n), n)):
            version = find_version(objects, kind, name)
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
    with lock(objects, f"{kind}-{name}") as held:
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
    values = (_label_values(version.kind, raw) if new else {}) | rows
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


def _label_values(kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    lengths = dimension_lengths(raw)
    values = label_values(lengths["y"], lengths["x"], lengths["x_overscan"])
    labels: dict[str, Any] = {name: values[name] for name in fixed_labels(kind) if name in values}
    return labels | ({"filter": np.array(FILTERS, object), "led": np.array(LEDS)} if kind == "flat" else {})


def fill_entry(version: Version, place: tuple[int, ...], pixels: Mapping[str, NDArray[Any]]) -> None:
    """Create the objects of an entry.

    Parameters
    ----------
    version : Version
        From :func:`prepare_version`.
    place : tuple of int
        Indices along the entry dimensions.
    pixels : mapping of (quadrant, y, x)
        Each array of the product; the image itself is rounded as the recipe says.

    Raises
    ------
    StoreError
        If an object is there already with other content.
    """
    step = float(version.recipe[version.kind]["rounding"])
    encoded = []
    for name, variable in version.product.pixels.items():
        metadata = arrays_of(version.document)[name]
        values = np.asarray(pixels[name], variable.dtype)
        expected = tuple(metadata["shape"][len(place) :])
        if values.shape != expected:
            raise StoreError(f"{version.group}/{name}: pixels of shape {values.shape}, expected {expected}")
        values = rounded(values, step) if name == version.kind else values
        form = shard_format(metadata)
        lead = (1,) * len(place)
        key = f"{version.group}/{name}/c/{'/'.join(map(str, place))}" + "/0" * values.ndim
        encoded.append((key, form, encode_shard(form, values.reshape(lead + values.shape), variable.fill)))
    for key, form, shard in encoded:
        if not version.objects.create(key, shard) and not same_content(form, shard, version.objects.get(key)):
            raise StoreError(f"{key} is there with other content: an unfinished run with other input left it")


def rounded(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Round to multiples of ``step``, below the noise, which then takes less room; 0 leaves all bits."""
    return values if step == 0 else np.rint(values * np.float32(1 / step)) * np.float32(step)


def made(version: Version) -> NDArray[np.bool_]:
    """Say which entries are made, (*entry dimensions)."""
    return np.asarray(np.asarray(array_of(version.open(), "present")[...]) == 1)


def mark_entries(version: Version, entries: Sequence[Entry]) -> None:
    """Write the tables of filled entries, ``present`` last.

    Raises
    ------
    StoreError
        If the version was dropped meanwhile, or made anew by another recipe.
    """
    if not entries:
        return
    with lock(version.objects, f"{version.kind}-{version.name}") as held:
        _check_same(version)
        uninterrupted(lambda: _mark(version, held, entries))


def _check_same(version: Version) -> None:
    now = find_version(version.objects, version.kind, version.name)
    if now is None or now.recipe != version.recipe:
        raise StoreError(f"{version.group} was dropped while its entries were made: run the command again")


def _mark(version: Version, held: Lock, entries: Sequence[Entry]) -> None:
    names = {"present"}.union(*(entry.tables for entry in entries))
    arrays = writable_arrays(version.objects, version.group, names)
    for entry in entries:
        for name, value in entry.tables.items():
            held.check()
            arrays[name][_selection(version, name, entry.place)] = value
    held.check()
    places = tuple(np.array(axis) for axis in zip(*(entry.place for entry in entries), strict=True))
    arrays["present"].vindex[places] = np.ones(len(entries), np.int8)


def _selection(version: Version, name: str, place: tuple[int, ...]) -> tuple[Any, ...]:
    """Index a table at an entry's place; other dimensions of the table, such as LEDs, whole."""
    at = dict(zip(version.product.entry, place, strict=True))
    dims = arrays_of(version.document)[name]["dimension_names"]
    return tuple(at.get(d, slice(None)) for d in dims)


def write_levels(version: Version, night: int, levels: Mapping[tuple[int, int], float]) -> None:
    """Freeze the relative levels of a night's CCDs: ``levels`` by indices of filter and CCD; those there stay."""
    with lock(version.objects, f"{version.kind}-{version.name}") as held:
        _check_same(version)
        uninterrupted(lambda: _write_levels(version, held, night, levels))


def _write_levels(version: Version, held: Lock, night: int, levels: Mapping[tuple[int, int], float]) -> None:
    table = writable_arrays(version.objects, version.group, ("level",))["level"]
    block = np.asarray(table[night])
    for place, value in levels.items():
        if np.isnan(block[place]):
            block[place] = value
    held.check()
    table[night] = block
