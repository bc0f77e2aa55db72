"""What is wrong with a recipe, in words for those who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from jsonschema import ValidationError

TYPES: Final = {
    "array": "a list, as [5, 25]",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a section of settings",
    "string": "a word",
}


def said(error: ValidationError) -> Iterator[str]:
    """Say what a schema finds wrong: where, what, and what was expected; a line for each unknown setting."""
    path = [str(part) for part in error.absolute_path]
    where = ".".join(path)
    if error.validator == "additionalProperties":
        known = [*error.schema["properties"]]  # type: ignore[index]
        for name in sorted(error.instance.keys() - set(known)):  # type: ignore[union-attr]
            yield f"{'.'.join([*path, name])}: no such setting, expected {_likely(name, known)}"
    elif error.validator == "type":
        yield f"{where}: {error.instance!r}, expected {TYPES[str(error.validator_value)]}"
    elif error.validator == "enum":
        choices = ", ".join(map(repr, error.validator_value))  # type: ignore[arg-type]
        yield f"{where}: {error.instance!r}, expected one of {choices}"
    else:
        yield f"{where or 'recipe'}: {error.message}"


def _likely(name: str, known: list[str]) -> str:
    """Name the setting that was probably meant, or all there are."""
    close = difflib.get_close_matches(name, known, 1)
    return close[0] if close else "one of " + ", ".join(known)
