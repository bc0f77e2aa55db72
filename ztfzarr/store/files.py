"""Local files for people, written whole."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Final

from ztfzarr.errors import RefusedError

PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)
DEVICES: Final = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\..*)?", re.ASCII | re.IGNORECASE)  # of Windows


def plain_name(name: str, what: str) -> str:
    """Return a name that may be part of a file's, whatever store or file it is from.

    Raises
    ------
    RefusedError
        If it could lead elsewhere, or is no name on some system; ``what`` says what it is of.
    """
    if PLAIN.fullmatch(name) is None or DEVICES.fullmatch(name) is not None:
        raise RefusedError(f"{what} {name[:100]!r}: expected up to 100 letters, digits, '.', '_', '+', '-'")
    return name


def check_free(path: Path) -> None:
    """Raise RefusedError if a path is taken by what is no file, which might keep a reader for ever."""
    if path.exists() and not path.is_file():
        raise RefusedError(f"{path} is there and is no file")


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under another name, then rename it: readers see all of it, or none, or the old one."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
