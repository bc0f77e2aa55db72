"""``ztfzarr ls`` and ``ztfzarr info``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import counted, print_json, ranges, size, store_argument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ztfzarr.store.listing import Night, ProductSummary, Summary
    from ztfzarr.store.objects import Objects


@click.command()
@store_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def ls(store: Objects, as_json: bool) -> None:
    """List the nights of STORE: exposures of each kind, CCDs, files, and gaps."""
    from ztfzarr.store.listing import nights

    found = nights(store)
    if as_json:
        print_json([asdict(night) for night in found])
    else:
        _print_nights(found)


def _print_nights(found: list[Night]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("night", "exposures", "CCDs", "files", "missing"):
        table.add_column(name, justify="right" if name in ("files", "missing") else "left")
    for night in found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in night.kinds.items())
        missing = f"[yellow]{night.missing}[/]" if night.missing else "0"
        table.add_row(_date(night.night), kinds, ranges(night.ccds), str(night.files), missing)
    # Elsewhere than on a terminal rich would fold lines at 80 columns.
    Console(highlight=False, width=None if sys.stdout.isatty() else 10_000).print(table)


def _date(night: int) -> str:
    text = str(night)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


@click.command()
@store_argument
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def info(store: Objects, as_json: bool) -> None:
    """Say what STORE holds, its size against the raw files, and how to open it."""
    from ztfzarr.store.listing import summary

    found = summary(store)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(_described(found))


def _described(found: Summary) -> str:
    ny, nx, overscan = found.shape
    span = f"{_date(found.first_night)} to {_date(found.last_night)}" if found.exposures else "none yet"
    counts = [counted(found.exposures, "exposure"), counted(found.nights, "night"), counted(found.files, "file")]
    stored = f"{size(found.stored_bytes)} in {counted(found.objects, 'object')}"
    per_file = f"{found.objects / max(found.files, 1):.1f} a file"
    ratio = f"{found.stored_bytes / max(found.source_bytes, 1):.3f} of the raw files' {size(found.source_bytes)}"
    products = "".join(f"\n  {line}" for line in _product_lines(found.products))
    return f"""\
{found.location}
  raw  {counts[0]} of {counts[1]} ({span}), {counts[2]}
       quadrants of {ny} x {nx} pixels, overscans of {overscan} columns
       {stored} ({per_file}), {ratio}{products}

In DN, sorted in time, lazily:
  import ztfzarr
  cube = ztfzarr.open_cube({found.location!r})

As stored, with nothing of ours (pip install "zarr>=3.1.5" "xarray>=2026.1" "pcodec>=1.0"):
  import xarray as xr
  raw = xr.open_zarr({found.location + "/raw"!r}, chunks=None, zarr_format=3).sortby("time")"""


def _product_lines(products: list[ProductSummary]) -> Iterator[str]:
    """Say of each version how much is made, and which settings are not the defaults."""
    from ztfzarr.recipe import default_recipe, differences, recipe_for

    for product in products:
        kind, name = product.group.split("/")
        changed = differences(recipe_for(kind, default_recipe(name)), product.recipe)
        settings = ", ".join(f"{setting} = {value}" for setting, _, value in changed) or "default recipe"
        yield f"{product.group}  {product.entries} made, {size(product.stored_bytes)}; {settings}"
