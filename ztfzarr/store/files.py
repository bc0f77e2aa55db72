"""Local files for people, written whole."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


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
