"""Is a group what its schema says? JSON Schema for each array, and the rules that span arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

from ztfzarr.schemas import load


def faults(document: dict[str, Any], kind: str) -> list[str]:
    """Check the consolidated ``zarr.json`` of a group.

    Parameters
    ----------
    document : dict
        The parsed document.
    kind : str
        Group kind: ``raw``.

    Returns
    -------
    list of str
        One line a fault, with its place; empty if the document is valid.
    """
    validator = jsonschema.Draft202012Validator(load(kind))
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    lines = [f"{'/'.join(map(str, e.absolute_path)) or 'group'}: {_shortened(e.message)}" for e in errors]
    return lines or list(_unequal_lengths(document))


def _shortened(message: str) -> str:
    return message if len(message) < 200 else f"{message[:120]} … {message[-70:]}"


def _unequal_lengths(document: dict[str, Any]) -> Iterator[str]:
    """Say where a dimension has more than one length."""
    first: dict[str, tuple[str, int]] = {}
    for name, array in document["consolidated_metadata"]["metadata"].items():
        for dimension, length in zip(array["dimension_names"], array["shape"], strict=True):
            other, expected = first.setdefault(dimension, (name, length))
            if length != expected:
                yield f"{name}: {dimension} has length {length}, expected {expected} as in {other}"
