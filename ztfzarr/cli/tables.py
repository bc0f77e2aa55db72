"""Tables on terminals and in logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.table import Table

COUNTS: Final = frozenset({"files", "missing", "made", "there", "refused", "flagged", "stale"})


def new_table(*columns: str) -> Table:
    """Make a table without lines; counts stand right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in COUNTS else "left")
    return table


def print_table(table: Table) -> None:
    """Print a table; elsewhere than on a terminal rich would fold lines at 80 columns."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 10_000).print(table)
