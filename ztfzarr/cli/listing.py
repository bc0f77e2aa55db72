"""``ztfzarr ls`` and ``ztfzarr info``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from ztfzarr.cli.empty import say_nothing
from ztfzarr.cli.options import ALL_NIGHTS, Nights, counted, date, print_json, ranges, size, store_argument
from ztfzarr.cli.say import cell, say
from ztfzarr.cli.tables import new_table, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ztfzarr.reduce.listing import ProductNight
    from ztfzarr.store.listing import Night, ProductSummary, Summary
    from ztfzarr.store.objects import Objects


NAMED: Final = 5  # nights with refused files


@click.command(
    epilog="""\b
Examples:
  ztfzarr ls night.zarr
  ztfzarr ls s3://bucket/ztf --night 2020-08-01:2020-08-31 --json"""
)
@store_argument
@click.option(
    "--night",
    "selected",
    type=Nights(),
    default=ALL_NIGHTS,
    help="Night 2020-08-01 or FROM:TO.",
    show_default="all",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def ls(store: Objects, selected: tuple[int, int], as_json: bool) -> None:
    """List the nights of STORE: exposures of each kind, CCDs, files, and gaps; then what is made of them.

    Of each version of a product: entries made, missing, flagged by their quality, and stale: for which more
    frames, or a master of the same night, came later. Last, the nights of files that ingest refused.
    """
    from ztfzarr.reduce.listing import product_nights
    from ztfzarr.reduce.report import Selection
    from ztfzarr.store.listing import nights
    from ztfzarr.store.refused import UNKNOWN, refused_nights

    found = [night for night in nights(store) if selected[0] <= night.night <= selected[1]]
    products = product_nights(store, Selection(*selected))
    refused = [n for n in refused_nights(store) if n == UNKNOWN or selected[0] <= n <= selected[1]]
    if as_json:
        print_json(
            {"nights": [asdict(n) for n in found], "products": [asdict(p) for p in products], "refused": refused}
        )
        return
    if not found:
        say_nothing(store, selected)
        return
    _print_nights(found)
    if products:
        click.echo()
        _print_products(products)
    if refused:
        named = ", ".join(date(night) if night else "no known night" for night in refused[-NAMED:])
        others = f" and {counted(len(refused) - NAMED, 'night')} before" if len(refused) > NAMED else ""
        click.echo(f"\nfiles were refused of {named}{others}: ztfzarr report says which and why")


def _print_products(found: list[ProductNight]) -> None:
    table = new_table("product", "night", "made", "missing", "flagged", "stale", "quality")
    for night in found:
        counts = (f"[yellow]{n}[/]" if n else "0" for n in (night.missing, night.flagged, night.stale))
        table.add_row(cell(night.group), date(night.night), str(night.made), *counts, cell(night.quality))
    print_table(table)


def _print_nights(found: list[Night]) -> None:
    table = new_table("night", "exposures", "CCDs", "files", "missing")
    for night in found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in night.kinds.items())
        missing = f"[yellow]{night.missing}[/]" if night.missing else "0"
        table.add_row(date(night.night), cell(kinds), ranges(night.ccds), str(night.files), missing)
    print_table(table)


@click.command(
    epilog="""\b
Examples:
  ztfzarr info night.zarr
  ztfzarr info s3://bucket/ztf --json"""
)
@store_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def info(store: Objects, as_json: bool) -> None:
    """Say what STORE holds, its size against the raw files, and how to open it."""
    from ztfzarr.store.listing import summary

    found = summary(store)
    if as_json:
        print_json(asdict(found))
    else:
        for line in _described(found).split("\n"):
            say(line)


def _described(found: Summary) -> str:
    ny, nx, overscan = found.shape
    span = f"{date(found.first_night)} to {date(found.last_night)}" if found.exposures else "none yet"
    counts = [counted(found.exposures, "exposure"), counted(found.nights, "night"), counted(found.files, "file")]
    stored = f"{size(found.stored_bytes)} in {counted(found.objects, 'object')}"
    per_file = f"{found.objects / max(found.files, 1):.1f} a file"
    ratio = f"{found.stored_bytes / max(found.source_bytes, 1):.3f} of the raw files' {size(found.source_bytes)}"
    products = "".join(f"\n  {line}" for line in _product_lines(found.products))
    pandas = "\n  import pandas as pd" * any(product.group.startswith("stars/") for product in found.products)
    opening = "".join(f"\n  {_opened(found.location, product.group)}" for product in found.products)
    return f"""\
{found.location}
  raw  {counts[0]} of {counts[1]} ({span}), {counts[2]}
       quadrants of {ny} x {nx} pixels, overscans of {overscan} columns
       {stored} ({per_file}), {ratio}{products}

In DN, sorted in time, lazily:
  import ztfzarr
  cube = ztfzarr.open_cube({found.location!r})

As stored, with nothing of ours (pip install "zarr>=3.1.5" "xarray>=2026.1" "pcodec>=1.0"):
  import xarray as xr{pandas}
  raw = xr.open_zarr({found.location + "/raw"!r}, chunks=None, zarr_format=3).sortby("time"){opening}"""


def _opened(location: str, group: str) -> str:
    """Return the line that opens a product with nothing of ours."""
    kind = group.split("/")[0]
    if kind == "stars":
        return f"stars = pd.read_parquet({f'{location}/{group}/table'!r})"
    return f"{kind} = xr.open_zarr({f'{location}/{group}'!r}, chunks=None, zarr_format=3)"


def _product_lines(products: list[ProductSummary]) -> Iterator[str]:
    """Say of each version how much is made, and which settings are not the defaults."""
    from ztfzarr.recipe import default_recipe, differences, recipe_for

    for product in products:
        kind, name = product.group.split("/")
        changed = differences(recipe_for(kind, default_recipe(name)), product.recipe)
        settings = ", ".join(f"{setting} = {value}" for setting, _, value in changed) or "default recipe"
        yield f"{product.group}  {product.entries} made, {size(product.stored_bytes)}; {settings}"
