"""The errors that users meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RefusedError(ValueError):
    """An input is refused: its text is one line that says what is wrong, where, and what was expected."""


class StoreError(RuntimeError):
    """A store is not what it should be, or an operation on it cannot be done now."""


class RecipeError(ValueError):
    """A recipe is not valid, or not that of the version it is asked for."""


class AccessError(OSError):
    """A store cannot be reached, or does not let us in: its text is one line that says which, where and why."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of writing it: of a full disk the operating system says no more than that."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
