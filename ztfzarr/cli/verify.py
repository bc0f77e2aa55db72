"""``ztfzarr verify``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import click

from ztfzarr.cli.empty import say_nothing
from ztfzarr.cli.options import (
    ALL_NIGHTS,
    counted,
    print_json,
    reporting,
    selecting,
    source_options,
    store_argument,
)
from ztfzarr.cli.progress import Progress, progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.store.check import Selection
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr verify night.zarr
  ztfzarr verify night.zarr --night 2020-08-01 --ccds 1-4
  ztfzarr verify night.zarr archive/2020/0801"""
)
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
    from ztfzarr.geometry import CCDS
    from ztfzarr.store.check import Selection, metadata_faults

    if paths and (nights, ccds) != (ALL_NIGHTS, CCDS):
        raise click.UsageError("--night and --ccds choose what is checked of STORE alone: give no PATH with them")
    checked = Checked(faults=metadata_faults(store))
    with progress(quiet) as shown:
        if paths:
            _compare(store, paths, source_options, workers, shown, checked)
        else:
            _check_raw(store, Selection(*nights, ccds), workers, shown, checked)
            _check_products(store, Selection(*nights, ccds), workers, shown, checked)
    if (nights, ccds) != (ALL_NIGHTS, CCDS) and not (checked.files or checked.entries or checked.faults):
        say_nothing(store, nights, ccds)
    for fault in checked.faults:
        say(fault, err=True)
    if as_json:
        print_json(asdict(checked))
    elif not quiet:
        products = (
            ", " + counted(checked.entries, "entry of products", "entries of products") if checked.entries else ""
        )
        say(f"checked {counted(checked.files, 'file')}{products}: {counted(len(checked.faults), 'fault')}")
    return 1 if checked.faults else 0


@dataclass
class Checked:
    """Raw files and entries of products that were checked, and the faults found, a line each."""

    files: int = 0
    entries: int = 0
    faults: list[str] = field(default_factory=list)


def _compare(
    store: Objects,
    paths: tuple[str, ...],
    source_options: dict[str, str],
    workers: int | None,
    shown: Progress,
    checked: Checked,
) -> None:
    from ztfzarr.ingest.compare import compare_files

    checked.files, found = compare_files(
        store, paths, source_options=source_options, workers=workers, step=shown.step, done=shown.advance
    )
    if not checked.files and not found:
        raise click.UsageError("nothing to compare: expected raw files in .fits or .fits.fz")
    checked.faults += found


def _check_raw(
    store: Objects, selection: Selection, workers: int | None, shown: Progress, checked: Checked
) -> None:
    from ztfzarr.errors import StoreError
    from ztfzarr.store.check import present_files, shard_faults, table_faults
    from ztfzarr.store.refused import refused_faults
    from ztfzarr.store.register import open_raw

    checked.faults += table_faults(store)
    checked.faults += refused_faults(store)
    try:
        files = present_files(open_raw(store), selection)
    except StoreError:  # the tables that name the files are damaged, and among the faults
        files = []
    checked.files = len(files)
    shown.step("verify", checked.files)
    checked.faults += shard_faults(store, files, workers=workers, done=shown.advance)


def _check_products(
    store: Objects, selection: Selection, workers: int | None, shown: Progress, checked: Checked
) -> None:
    from ztfzarr.store.check_products import entry_faults, made_places, version_faults
    from ztfzarr.store.versions import versions_of

    for version in versions_of(store):
        checked.faults += version_faults(version)
        places = made_places(version, selection)
        shown.step(version.group, len(places))
        found = entry_faults(version, places, workers=workers, done=shown.advance)
        checked.faults += [fault.text for fault in found]
        checked.entries += len(places)
