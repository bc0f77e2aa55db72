"""``ztfzarr repair``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import counted, print_json, reporting, selecting, source_options, store_argument
from ztfzarr.cli.progress import progress

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Example:
  ztfzarr repair night.zarr archive/2020/0801"""
)
@store_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@source_options
@selecting
@click.option("--workers", type=click.IntRange(1), help="Files at a time.", show_default="number of cores")
@reporting
def repair(
    store: Objects,
    paths: tuple[str, ...],
    source_options: dict[str, str],
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write what verify finds missing or damaged in the cube of STORE again, from the raw files at PATHs.

    Only from the files that were ingested, by their SHA-256, and nothing else is written. What cannot be
    repaired is named.
    """
    from ztfzarr.ingest.repair import repair as run
    from ztfzarr.store.check import Selection
    from ztfzarr.store.group import existing_document

    existing_document(store)

    with progress(quiet) as shown:
        report = run(
            store, paths, source_options=source_options, selection=Selection(*nights, ccds), workers=workers,
            step=shown.step, done=shown.advance,
        )  # fmt: skip
    for line in report.refused:
        click.echo(f"refused {line}", err=True)
    if as_json:
        print_json(asdict(report))
    elif not quiet:
        for line in report.rewritten:
            click.echo(f"rewrote {line}")
        checked = f"checked {counted(report.files, 'file')}"
        click.echo(f"{checked}: {len(report.rewritten)} rewritten, {len(report.refused)} refused")
    return 1 if report.refused else 0
