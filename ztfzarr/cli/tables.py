"""Tables on terminals and in logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.table import Table

COUNTS: Final = frozenset({"files", "missing", "made", "there", "refused", "flagged", "stale"})
NUMBERS: Final = COUNTS | {"quadrant", "median", "sigma", "largest", "equal"}


def new_table(*columns: str, title: str | None = None) -> Table:
    """Make a table without lines; numbers stand right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    return table


def print_table(table: Table) -> None:
    """Print a table; elsewhere than on a terminal rich would fold lines at 80 columns.

    Through click, which leaves a closed pipe to ``main``; rich would end the process with status 1.
    """
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().split("\n")), nl=False)
