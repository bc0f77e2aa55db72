"""``ztfzarr copy``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ztfzarr.cli.empty import say_nothing
from ztfzarr.cli.options import (
    counted,
    dest_argument,
    print_json,
    reporting,
    selecting,
    size,
    store_argument,
)
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.store.copy import CopyReport
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr copy s3://bucket/ztf august.zarr --night 2020-08-01:2020-08-31 --products
  ztfzarr copy night.zarr s3://bucket/ztf --dest-option endpoint=https://s3.example.org"""
)
@store_argument
@dest_argument
@selecting
@click.option("--products", is_flag=True, help="Also the products, all their versions.")
@click.option("--workers", type=click.IntRange(1), help="Files at a time.", show_default="number of cores")
@reporting
def copy(
    store: Objects,
    dest: Objects,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    products: bool,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Copy part of STORE to DEST, another store, which is made if need be.

    Files that DEST holds are passed over, so the command can be run again at any time. Their objects are copied
    as they are, and every checksum is checked where they arrive.
    """
    from ztfzarr.store.check import Selection
    from ztfzarr.store.copy import copy_raw
    from ztfzarr.store.copy_products import copy_products

    selection = Selection(*nights, ccds)
    with progress(quiet) as shown:
        told = {"selection": selection, "workers": workers, "step": shown.step, "done": shown.advance}
        reports = [copy_raw(store, dest, **told)]  # type: ignore[arg-type]
        reports += copy_products(store, dest, **told) if products else []  # type: ignore[arg-type]
    if not any(report.copied or report.there or report.refused for report in reports):
        say_nothing(store, nights, ccds)
        return 3
    return _told(reports, as_json, quiet)


def _told(reports: list[CopyReport], as_json: bool, quiet: bool) -> int:
    for report in reports:
        for name, reason in report.refused:
            say(f"refused {report.what} {name}: {reason}", err=True)
    if as_json:
        print_json([asdict(report) for report in reports])
    elif not quiet:
        for report in reports:
            done = f"copied {counted(report.copied, 'file')} ({size(report.stored_bytes)})"
            if report.copied and not report.stored_bytes:  # of starflats and pockets, which have no files
                done = f"copied {report.copied} of its tables"
            say(f"{report.what}: {done}; {report.there} were there already, {len(report.refused)} refused")
    return 1 if any(report.refused for report in reports) else 0
