"""What a reduction did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """Entries of a product made, found made, and refused as (entry, reason)."""

    product: str
    made: int = 0
    there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self) | {"refused": [{"entry": entry, "reason": reason} for entry, reason in self.refused]}


@dataclass(frozen=True)
class Selection:
    """Nights from ``first`` to ``last``, YYYYMMDD, and CCDs."""

    first: int = 0
    last: int = 99999999
    ccds: tuple[int, ...] = tuple(range(1, 17))

    def has(self, night: int) -> bool:
        """Say whether a night is selected."""
        return self.first <= night <= self.last


@dataclass(frozen=True)
class Events:
    """Whom to tell: a step's name and number of entries; each entry done."""

    step: Callable[[str, int], None] = lambda name, total: None
    done: Callable[[], None] = lambda: None
