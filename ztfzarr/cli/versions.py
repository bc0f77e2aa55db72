"""``ztfzarr compare`` and ``ztfzarr drop``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from ztfzarr.cli.options import print_json, store_argument
from ztfzarr.cli.say import cell, say

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects

KIND: Final = click.Choice(["bias", "flat", "science"])
MADE: Final = click.Choice(["bias", "pocket", "flat", "science", "stars", "starflat"])


@click.command()
@store_argument
@click.argument("kind", type=KIND)
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(store: Objects, kind: str, one: str, other: str, as_json: bool) -> None:
    """Say in what two versions of a product differ: their recipes, and each quadrant's pixels.

    Example: ztfzarr compare night.zarr bias v1 v2
    """
    from ztfzarr.reduce.versions import compare as run

    settings, differences = run(store, kind, one, other)
    if as_json:
        recipe = [{"setting": name, one: mine, other: yours} for name, mine, yours in settings]
        print_json({"recipe": recipe, "differences": [asdict(d) for d in differences]})
        return
    for name, mine, yours in settings:
        say(f"{name}: {one} {mine}, {other} {yours}")
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=cell(f"{other} - {one}"), title_justify="left")
    for column in ("entry", "quadrant", "median", "sigma", "largest", "equal"):
        table.add_column(column, justify="left" if column == "entry" else "right")
    for d in differences:
        numbers = (f"{d.median:.4g}", f"{d.sigma:.4g}", f"{d.largest:.4g}", f"{d.equal:.1%}")
        table.add_row(cell(d.entry), str(d.quadrant), *numbers)
    Console(highlight=False).print(table)


@click.command()
@store_argument
@click.argument("kind", type=MADE)
@click.argument("version")
@click.confirmation_option(prompt="Delete this version for good?")
def drop(store: Objects, kind: str, version: str) -> None:
    """Delete a version of a product, unless another is made with it."""
    from ztfzarr.reduce.versions import drop as run

    say(f"deleted {kind}/{version}: {run(store, kind, version)} objects")
