"""``ztfzarr verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import (
    ALL_NIGHTS,
    counted,
    print_json,
    reporting,
    selecting,
    source_options,
    store_argument,
)
from ztfzarr.cli.progress import progress

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command()
@store_argument
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@source_options
@selecting
@click.option("--workers", type=click.IntRange(1), help="Files at a time.", show_default="number of cores")
@reporting
def verify(
    store: Objects,
    paths: tuple[str, ...],
    source_options: dict[str, str],
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check the metadata of STORE and the checksum of every chunk; name exposure, CCD and quadrant of a fault.

    With PATHs of raw files, compare the cube with them instead: pixel for pixel with what astropy reads, card
    for card, and by their SHA-256.
    """
    from ztfzarr.errors import StoreError
    from ztfzarr.geometry import CCDS
    from ztfzarr.ingest.compare import compare_files
    from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
    from ztfzarr.store.check_products import entry_faults, made_places, version_faults
    from ztfzarr.store.register import open_raw
    from ztfzarr.store.versions import versions_of

    if paths and (nights, ccds) != (ALL_NIGHTS, CCDS):
        raise click.UsageError("--night and --ccds choose what is checked of STORE alone: give no PATH with them")
    entries = 0
    faults = metadata_faults(store)
    with progress(quiet) as shown:
        if paths:
            checked, found = compare_files(
                store, paths, source_options=source_options, workers=workers, step=shown.step, done=shown.advance
            )
            if not checked and not found:
                raise click.UsageError("nothing to compare: expected raw files in .fits or .fits.fz")
            faults += found
        else:
            faults += table_faults(store)
            try:
                files = present_files(open_raw(store), Selection(*nights, ccds))
            except StoreError:  # the tables that name the files are damaged, and among the faults
                files = []
            checked = len(files)
            shown.step("verify", checked)
            faults += shard_faults(store, files, workers=workers, done=shown.advance)
            for version in versions_of(store):
                faults += version_faults(version)
                places = made_places(version)
                shown.step(version.group, len(places))
                faults += entry_faults(version, places, workers=workers, done=shown.advance)
                entries += len(places)
    for fault in faults:
        click.echo(fault, err=True)
    if as_json:
        print_json({"files": checked, "entries": entries, "faults": faults})
    elif not quiet:
        products = f", {entries} entries of products" if entries else ""
        click.echo(f"checked {counted(checked, 'file')}{products}: {counted(len(faults), 'fault')}")
    return 1 if faults else 0
