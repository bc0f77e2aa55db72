"""``ztfzarr repair``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import counted, print_json, reporting, selecting, source_options, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.ingest.repair import RepairReport
    from ztfzarr.reduce.remake import RemakeReport
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr repair night.zarr archive/2020/0801
  ztfzarr repair night.zarr"""
)
@store_argument
@click.argument("paths", metavar="[PATH...]", nargs=-1)
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
    """Write what verify finds missing or damaged in STORE again.

    The cube, if PATHs of raw files are given: only from the files that were ingested, by their SHA-256. Then
    products: by their version's recipe, from what they were made of. Nothing else is written. What cannot be
    repaired is named.
    """
    from ztfzarr.reduce.remake import remake
    from ztfzarr.store.check import Selection
    from ztfzarr.store.group import existing_document

    existing_document(store)

    done: list[RepairReport | RemakeReport] = []
    chosen = Selection(*nights, ccds)
    with progress(quiet) as shown:
        if paths:
            from ztfzarr.ingest.repair import repair as run

            mended = run(
                store, paths, source_options=source_options, selection=chosen, workers=workers,
                step=shown.step, done=shown.advance,
            )  # fmt: skip
            done.append(mended)
        done.append(remake(store, selection=chosen, workers=workers, step=shown.step, done=shown.advance))
    return _told(done, as_json, quiet)


def _told(done: list[RepairReport | RemakeReport], as_json: bool, quiet: bool) -> int:
    rewritten = [line for report in done for line in report.rewritten]
    refused = [line for report in done for line in report.refused]
    counts = {"files": 0, "entries": 0}
    for report in done:
        counts |= {name: value for name, value in asdict(report).items() if name in counts}
    for line in refused:
        say(f"refused {line}", err=True)
    if as_json:
        print_json(counts | {"rewritten": rewritten, "refused": refused})
    elif not quiet:
        for line in rewritten:
            say(f"rewrote {line}")
        parts = [counted(counts["files"], "file")] if len(done) > 1 else []
        parts += (
            [counted(counts["entries"], "entry of products", "entries of products")]
            if counts["entries"] or not parts
            else []
        )
        say(f"checked {', '.join(parts)}: {len(rewritten)} rewritten, {len(refused)} refused")
    return 1 if refused else 0
