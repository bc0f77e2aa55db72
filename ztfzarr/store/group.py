"""Reading the raw group: its document, its tables, and where a file's objects are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import DOCUMENT, GROUP, file_key
from ztfzarr.store.shard import decode_shard, shard_format
from ztfzarr.store.template import FORMAT, arrays_of


def read_document(objects: Objects) -> dict[str, Any] | None:
    """Read the consolidated ``zarr.json`` of the raw group; None if the store has none yet.

    Raises
    ------
    StoreError
        If it is damaged, or of another format than this version reads.
    """
    document = read_json(objects, DOCUMENT)
    if document is None:
        return None
    found = document.get("attributes", {}).get("format")
    if found != FORMAT or "metadata" not in (document.get("consolidated_metadata") or {}):
        raise StoreError(f"{objects.location}/{GROUP} has format {found!r}: this version reads format {FORMAT}")
    return document


def read_json(objects: Objects, key: str) -> dict[str, Any] | None:
    """Read a ``zarr.json``; None if there is none."""
    try:
        document = json.loads(objects.get(key))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise StoreError(f"{objects.location} is not a folder: expected that of a store") from None
    except ValueError as error:
        raise StoreError(f"{objects.location}/{key} is damaged ({error})") from None
    if not isinstance(document, dict):
        raise StoreError(f"{objects.location}/{key} is damaged: expected an object of JSON")
    return document


def existing_document(objects: Objects) -> dict[str, Any]:
    """Read the raw group's ``zarr.json``; StoreError if there is none."""
    document = read_document(objects)
    if document is None:
        raise StoreError(f"no store with raw exposures at {objects.location}: make one with ztfzarr ingest")
    return document


def open_raw(objects: Objects, *, read_only: bool = True) -> zarr.Group:
    """Open the raw group with zarr: consolidated to read, array by array to write."""
    store = objects.zarr_store(read_only=read_only)
    mode = "r" if read_only else "r+"
    return zarr.open_group(store, path=GROUP, mode=mode, use_consolidated=read_only, zarr_format=3)  # type: ignore[arg-type]


def read_table(group: zarr.Group, name: str, place: Any = ...) -> NDArray[Any]:
    """Read a table, whole or at a place in it; StoreError if it is damaged."""
    try:
        return np.asarray(array_of(group, name)[place])
    except (ValueError, RuntimeError) as error:  # what zarr's codecs raise, the checksum's first
        raise StoreError(f"{GROUP}/{name} is damaged ({str(error).splitlines()[0]})") from None


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group; StoreError if it lacks one, as groups of an older version of ztfzarr may."""
    array = group.get(name)
    if array is None:
        raise StoreError(f"{group.path} lacks {name}: it was made by another version of ztfzarr")
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{group.name}/{name} is no array")
    return array


def object_key(document: dict[str, Any], name: str, key: tuple[int, int]) -> str:
    """Return the key of the object that a file owns in an array; ``key`` is its row and CCD label."""
    return file_key(name, len(arrays_of(document)[name]["shape"]), (key[0], key[1] - 1))


def read_owned(objects: Objects, document: dict[str, Any], name: str, key: tuple[int, int]) -> NDArray[Any]:
    """Read what a file owns in an array; ``key`` is its row and CCD label.

    Not through zarr, to which a missing object is so many fill values.

    Raises
    ------
    StoreError
        If the object is missing or damaged.
    """
    array, path = arrays_of(document)[name], object_key(document, name, key)
    try:
        data = objects.get(path)
    except FileNotFoundError:
        raise StoreError(f"object {path} is missing") from None
    values = decode_shard(shard_format(array), data, path)
    return np.asarray(values[0, 0][tuple(slice(n) for n in array["shape"][2:])])
