"""``ztfzarr compare`` and ``ztfzarr drop``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from ztfzarr.cli.options import PRODUCT_KINDS, Kind, counted, print_json, store_argument
from ztfzarr.cli.say import cell, say
from ztfzarr.cli.tables import new_table, print_table

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects

KIND: Final = Kind(PRODUCT_KINDS)

# Columns of the tables of what is compared: field of the differences, format.
PIXELS: Final = {"entry": "", "quadrant": "", "median": ".4g", "sigma": ".4g", "largest": ".4g", "equal": ".1%"}
COLUMNS: Final = {
    "pocket": {
        "entry": "", "quadrant": "", "alpha": "+.2f", "cmax": "+.2f", "beta": "+.2f", "nmax": "+.2f",
        "chi2_one": ".3g", "chi2_other": ".3g",
    },
    "stars": {
        "filter": "", "bright": "g", "faint": "g", "both": ",", "median": "+.4f", "sigma": ".4f",
        "only_one": ",", "only_other": ",",
    },
    "starflat": {"filter": "", "ccd": "", "quadrant": "", "nodes": ",", "rms": ".5f", "largest": ".5f"},
}  # fmt: skip
NUMBERS: Final = {"filter": "", "name": "", "one": ".6g", "other": ".6g", "sigma": "+.2f"}
NOTES: Final = {
    "pocket": "logarithms of the parameters, in their joint errors; chi2 of each fit",
    "stars": "magnitudes of the stars that both have; numbers of those that one has",
    "starflat": "maps in mag, without a constant and a plane",
}


@click.command(
    epilog="""\b
Examples:
  ztfzarr compare night.zarr bias v1 v2
  ztfzarr compare night.zarr science v1 v2 --json
  ztfzarr compare night.zarr starflat v1 v2"""
)
@store_argument
@click.argument("kind", type=KIND)
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(store: Objects, kind: str, one: str, other: str, as_json: bool) -> None:
    """Say in what two versions of a product differ: their recipes, and what they hold.

    Of bias, flat and science each quadrant's pixels; of star tables the magnitudes of the stars that both have,
    by brightness; of starflats the maps, without what dithers cannot see, and the numbers of the fits; of pockets
    the parameters, in their errors.
    """
    from ztfzarr.reduce.versions import compare as run

    settings, parts = run(store, kind, one, other)
    if as_json:
        recipe = [{"setting": name, one: mine, other: yours} for name, mine, yours in settings]
        print_json(
            {"recipe": recipe} | {part: [_finite(asdict(d)) for d in found] for part, found in parts.items()}
        )
        return
    for name, mine, yours in settings:
        say(f"{name}: {one} {mine}, {other} {yours}")
    for part, found in parts.items():
        if part != "numbers":
            say(f"{other} - {one}" + (f": {NOTES[kind]}" if kind in NOTES else ""))
        columns = NUMBERS if part == "numbers" else COLUMNS.get(kind, PIXELS)
        _print_differences(found, columns, {"one": one, "other": other})


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON has no word for, by null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _print_differences(found: Iterable[Any], columns: dict[str, str], names: dict[str, str]) -> None:
    """Print a table; heads that are ``one`` and ``other``, or end so, get the versions' names."""
    heads = [" ".join(names.get(word, word) for word in column.split("_")) for column in columns]
    table = new_table(*map(cell, heads))
    for column, form in zip(table.columns, columns.values(), strict=True):
        column.justify = "right" if form or column.header == "quadrant" else "left"
    for difference in found:
        values = ((getattr(difference, column), form) for column, form in columns.items())
        table.add_row(*(cell(_text(value, form)) for value, form in values))
    print_table(table)


def _text(value: Any, form: str) -> str:
    """Write a number of a difference; what is over all of them, or undetermined, is said so."""
    if value is None:
        return "all"
    return format(value, form) if not isinstance(value, float) or math.isfinite(value) else "-"


@click.command(
    epilog="""\b
Examples:
  ztfzarr drop night.zarr science v2
  ztfzarr drop night.zarr bias v2 --yes --json"""
)
@store_argument
@click.argument("kind", type=KIND)
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
