"""``ztfzarr compare`` and ``ztfzarr drop``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from ztfzarr.cli.options import counted, print_json, store_argument
from ztfzarr.cli.say import cell, say
from ztfzarr.cli.tables import new_table, print_table

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects

KIND: Final = click.Choice(["bias", "flat", "science"])
MADE: Final = click.Choice(["bias", "pocket", "flat", "science", "stars", "starflat"])


@click.command(
    epilog="""\b
Examples:
  ztfzarr compare night.zarr bias v1 v2
  ztfzarr compare night.zarr science v1 v2 --json"""
)
@store_argument
@click.argument("kind", type=KIND)
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(store: Objects, kind: str, one: str, other: str, as_json: bool) -> None:
    """Say in what two versions of a product differ: their recipes, and each quadrant's pixels."""
    from ztfzarr.reduce.versions import compare as run

    settings, differences = run(store, kind, one, other)
    if as_json:
        recipe = [{"setting": name, one: mine, other: yours} for name, mine, yours in settings]
        print_json({"recipe": recipe, "differences": [asdict(d) for d in differences]})
        return
    for name, mine, yours in settings:
        say(f"{name}: {one} {mine}, {other} {yours}")
    table = new_table("entry", "quadrant", "median", "sigma", "largest", "equal", title=cell(f"{other} - {one}"))
    for d in differences:
        numbers = (f"{d.median:.4g}", f"{d.sigma:.4g}", f"{d.largest:.4g}", f"{d.equal:.1%}")
        table.add_row(cell(d.entry), str(d.quadrant), *numbers)
    print_table(table)


@click.command(
    epilog="""\b
Examples:
  ztfzarr drop night.zarr science v2
  ztfzarr drop night.zarr bias v2 --yes --json"""
)
@store_argument
@click.argument("kind", type=MADE)
@click.argument("version")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def drop(store: Objects, kind: str, version: str, yes: bool, as_json: bool) -> int:
    """Delete a version of a product, unless another is made with it."""
    from ztfzarr.reduce.versions import drop as run
    from ztfzarr.store.versions import existing_version

    group = existing_version(store, kind, version).group
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(f"nobody here to ask whether to delete {group}: say --yes")
    if not yes and not click.confirm(f"Delete {group} of {store.location} for good?"):
        click.echo(f"kept {group}", err=True)
        return 1
    deleted = run(store, kind, version)
    if as_json:
        print_json({"deleted": group, "objects": deleted})
    else:
        say(f"deleted {group}: {counted(deleted, 'object')}")
    return 0
