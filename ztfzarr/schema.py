"""Is a group what its schema says? JSON Schema for each array, and the rules that span arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from ztfzarr.schemas import load


def faults(document: dict[str, Any], kind: str) -> list[str]:
    """Check the consolidated ``zarr.json`` of a group.

    Parameters
    ----------
    document : dict
        The parsed document.
    kind : str
        Group kind: ``raw``, ``bias``, ``flat`` or ``science``.

    Returns
    -------
    list of str
        One line a fault, with its place; empty if the document is valid.
    """
    return _schema_faults(document, kind, "group") or list(_unequal_lengths(document))


def record_faults(record: Any, kind: str) -> list[str]:
    """Check an object of JSON that is no group: kind ``refused``. As :func:`faults`."""
    return _schema_faults(record, kind, "record")


def _schema_faults(document: Any, kind: str, whole: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(load(kind), registry=_registry())
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    return [f"{'/'.join(map(str, e.absolute_path)) or whole}: {_shortened(e.message)}" for e in errors]


@cache
def _registry() -> Registry[Any]:
    """Return the schema that the others refer to."""
    common: Resource[Any] = DRAFT202012.create_resource(load("common"))
    registry: Registry[Any] = Registry().with_resource("common.json", common)
    return registry


def _shortened(message: str) -> str:
    return message if len(message) < 200 else f"{message[:120]} … {message[-70:]}"


def _unequal_lengths(document: dict[str, Any]) -> Iterator[str]:
    """Say where a dimension has more than one length; arrays of others may have no names for theirs."""
    first: dict[str, tuple[str, int]] = {}
    for name, array in document["consolidated_metadata"]["metadata"].items():
        for dimension, length in zip(array.get("dimension_names") or (), array.get("shape", ()), strict=False):
            if dimension is None:
                continue
            other, expected = first.setdefault(dimension, (name, length))
            if length != expected:
                yield f"{name}: {dimension} has length {length}, expected {expected} as in {other}"
