"""JSON Schemas (2020-12) of the groups of a store."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load(kind: str) -> dict[str, Any]:
    """Load the schema of a group kind, such as ``raw``."""
    schema: dict[str, Any] = json.loads((files(__package__) / f"{kind}.json").read_text())
    return schema
