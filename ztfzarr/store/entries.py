"""Entries of a product version: encoded part by part, created without a lock, marked under one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec

from ztfzarr.errors import StoreError
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.shard import Position, encode_chunk, join_chunks, same_content, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version, find_version
from ztfzarr.store.writing import uninterrupted, writable_arrays

LEVEL: Final = 8  # of pcodec; docs/benchmarks.md has level against size and speed
VARIANCE_BITS: Final = 16  # dropped of a float32's 23: variances keep 7, which is 0.4 %

Parts = Mapping[str, Mapping[Position, bytes]]


@dataclass(frozen=True)
class Entry:
    """What is marked: the place along the entry dimensions, and the values of the tables there."""

    place: tuple[int, ...]
    tables: Mapping[str, Any]


def encode_part(
    version: Version, name: str, values: NDArray[Any], *, quadrant: int = 0, y: int = 0, x: int = 0
) -> dict[Position, bytes]:
    """Round and encode part of an entry's image.

    Parameters
    ----------
    version : Version
        From ``prepare_version``.
    name : str
        Of the array.
    values : (quadrant, y, x)
        From ``quadrant``, ``y`` and ``x`` on, which lie on the grid of the array's chunks.

    Returns
    -------
    dict
        Encoded chunks by their positions in the shard. The image itself is rounded as the recipe says, a variance
        to 7 bits if the image is.
    """
    variable, metadata = version.pixels[name], arrays_of(version.document)[name]
    form = shard_format(metadata)
    lead = len(version.product.entry)
    height, width = form.chunk[-2:]
    step = float(version.recipe[version.kind]["rounding"])
    rounded_values = rounded(np.asarray(values, variable.dtype), name, version.kind, step)
    config = _coding(name, version.kind, variable.dtype, step)
    chunks = {}
    for q in range(values.shape[0]):
        for i in range(-(-values.shape[1] // height)):
            for j in range(-(-values.shape[2] // width)):
                block = rounded_values[q, i * height : (i + 1) * height, j * width : (j + 1) * width]
                position = (*(0,) * lead, quadrant + q, y // height + i, x // width + j)
                chunks[position] = encode_chunk(form, block[(np.newaxis,) * (lead + 1)], variable.fill, config)
    return chunks


def _coding(name: str, kind: str, dtype: str, step: float) -> ChunkConfig:
    """Choose how pcodec codes: told, rather than searched for, which takes twice the time.

    Multiples of a step, and noise has no deltas; but flats slope: with their deltas they are 8 % smaller.
    """
    if not dtype.startswith("float"):
        return ChunkConfig(LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op())
    if step == 0:
        return ChunkConfig(LEVEL)
    if name == "variance":
        return ChunkConfig(LEVEL, mode_spec=ModeSpec.try_float_quant(VARIANCE_BITS), delta_spec=DeltaSpec.no_op())
    delta = DeltaSpec.auto() if kind == "flat" else DeltaSpec.no_op()
    return ChunkConfig(LEVEL, mode_spec=ModeSpec.try_float_mult(step), delta_spec=delta)


def rounded(values: NDArray[Any], name: str, kind: str, step: float) -> NDArray[Any]:
    """Round below the noise, for then it takes less room."""
    if step == 0 or name not in (kind, "variance"):
        return values
    if name == "variance":
        return few_bits(values)
    return np.rint(values * np.float32(1 / step)) * np.float32(step)


def few_bits(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round positive float32 to 7 bits of mantissa; what is not finite stays."""
    bits = values.view(np.uint32) + np.uint32(1 << (VARIANCE_BITS - 1))
    short = (bits & ~np.uint32((1 << VARIANCE_BITS) - 1)).view(np.float32)
    return np.where(np.isfinite(values), short, values)


def shard_key(version: Version, name: str, place: tuple[int, ...]) -> str:
    """Return the key of the object that holds an array of an entry."""
    return f"{version.group}/{name}/c/{'/'.join(map(str, place))}/0/0/0"


def fill_entry(version: Version, place: tuple[int, ...], pixels: Mapping[str, NDArray[Any]]) -> None:
    """Create the objects of an entry from whole images.

    Parameters
    ----------
    version : Version
        From ``prepare_version``.
    place : tuple of int
        Indices along the entry dimensions.
    pixels : mapping of (quadrant, y, x)
        Each array of the product.

    Raises
    ------
    StoreError
        If a shape is not the version's, or an object is there already with other content.
    """
    for name in version.pixels:
        found, expected = pixels[name].shape, tuple(arrays_of(version.document)[name]["shape"][len(place) :])
        if found != expected:
            raise StoreError(f"{version.group}/{name}: pixels of shape {found}, expected {expected}")
    create_entry(version, place, {name: encode_part(version, name, pixels[name]) for name in version.pixels})


def create_entry(version: Version, place: tuple[int, ...], parts: Parts) -> None:
    """Create the objects of an entry from the encoded chunks of each of its arrays.

    Raises
    ------
    StoreError
        If an object is there already with other content.
    """
    for name in version.pixels:
        form = shard_format(arrays_of(version.document)[name])
        shard = join_chunks(form, parts[name])
        key = shard_key(version, name, place)
        if not version.objects.create(key, shard) and not same_content(form, shard, version.objects.get(key)):
            raise StoreError(f"{key} is there with other content: an unfinished run with other input left it")


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
        check_same(version)
        uninterrupted(lambda: _mark(version, held, entries))


def check_same(version: Version) -> None:
    """Raise StoreError if a version was dropped, or made anew by another recipe."""
    now = find_version(version.objects, version.kind, version.name)
    if now is None or now.recipe != version.recipe:
        raise StoreError(f"{version.group} was dropped while its entries were made: run the command again")


def _mark(version: Version, held: Lock, entries: Sequence[Entry]) -> None:
    names = sorted(set().union(*(entry.tables for entry in entries)))
    arrays = writable_arrays(version.objects, version.group, [*names, "present"])
    for name in names:
        having = [entry for entry in entries if name in entry.tables]
        held.check()
        _write_table(version, name, arrays[name], having)
    held.check()
    places = tuple(np.array(axis) for axis in zip(*(entry.place for entry in entries), strict=True))
    arrays["present"].vindex[places] = np.ones(len(entries), np.int8)


def _write_table(version: Version, name: str, array: Any, entries: Sequence[Entry]) -> None:
    """Write a table's values of some entries at once; its other dimensions, such as LEDs, whole."""
    metadata = arrays_of(version.document)[name]
    dims: list[str] = metadata["dimension_names"]
    free = [d for d in dims if d not in version.product.entry]
    index = []
    for d, length in zip(dims, metadata["shape"], strict=True):
        if d in free:
            index.append(np.arange(length).reshape([-1 if d == f else 1 for f in ("", *free)]))
        else:
            axis = version.product.entry.index(d)
            index.append(np.array([e.place[axis] for e in entries]).reshape([-1] + [1] * len(free)))
    dtype = object if metadata["data_type"] == "string" else array.dtype
    values = np.array([entry.tables[name] for entry in entries], dtype)
    array.vindex[tuple(np.broadcast_arrays(*index))] = values


def update_row(
    version: Version, row: int, names: Sequence[str], update: Callable[[dict[str, NDArray[Any]]], dict[str, Any]]
) -> None:
    """Change tables of a row under the lock, by what they hold.

    Parameters
    ----------
    version : Version
        Opened.
    row : int
        Along the dimension that grows.
    names : sequence of str
        Tables that ``update`` is given, and may return changed.
    update : callable
        Gets the row of each table; returns those to write, in their order.
    """
    with lock(version.objects, f"{version.kind}-{version.name}") as held:
        check_same(version)
        uninterrupted(lambda: _update_row(version, held, row, names, update))


def _update_row(
    version: Version,
    held: Lock,
    row: int,
    names: Sequence[str],
    update: Callable[[dict[str, NDArray[Any]]], dict[str, Any]],
) -> None:
    arrays = writable_arrays(version.objects, version.group, names)
    for name, values in update({name: np.asarray(arrays[name][row]) for name in names}).items():
        held.check()
        arrays[name][row] = values
