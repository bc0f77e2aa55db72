"""``ztfzarr ingest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import counted, print_json, reporting, size, source_options, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.ingest.run import Report
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr ingest night.zarr raw/2020/0801
  ztfzarr ingest s3://bucket/ztf 'raw/2020/08*/**/*_c0[1-4]_*.fits.fz'"""
)
@store_argument
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@source_options
@click.option("--workers", type=click.IntRange(1), help="Files at a time.", show_default="number of cores")
@click.option("--check", is_flag=True, help="Hash files that are in the cube again.")
@reporting
def ingest(
    store: Objects,
    paths: tuple[str, ...],
    source_options: dict[str, str],
    workers: int | None,
    check: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Put raw FITS files into the cube of STORE, which is made if need be.

    PATHs are files, folders (searched through), globs or URLs. Files that are in the cube are skipped, so the
    command can be run again at any time: after a crash, for late CCDs, for a new night.
    """
    from ztfzarr.ingest.run import Events
    from ztfzarr.ingest.run import ingest as run

    with progress(quiet) as shown:
        events = Events(
            step=shown.step,
            scanned=shown.advance,
            done=lambda file: shown.advance(4 * file.shape[0] * (file.shape[1] + file.shape[2]) / 1e6),
            waiting=lambda holder: say(f"waiting for {holder}, which is writing to the store", err=True),
        )
        report = run(store, paths, source_options=source_options, workers=workers, check=check, events=events)
    for path, reason in report.refused:
        say(f"refused {path}: {reason}", err=True)
    if not report.files:
        say("ztfzarr: nothing to ingest: expected raw files in .fits or .fits.fz", err=True)
        return 2
    if as_json:
        print_json(report.summary())
    elif not quiet:
        say(_summary(report))
    return 1 if report.refused else 0


def _summary(report: Report) -> str:
    rate = report.pixels / 1e6 / max(report.seconds, 1e-6)
    volume = f"{size(report.source_bytes)}, {report.pixels / 1e6:.0f} Mpix"
    done = f"ingested {counted(report.ingested, 'file')} ({volume})"
    pace = f" in {report.seconds:.1f} s, {rate:.0f} Mpix/s" if report.ingested else ""
    return f"{done}{pace}; {report.skipped} were there already, {len(report.refused)} refused"
