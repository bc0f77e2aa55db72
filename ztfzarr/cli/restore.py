"""``ztfzarr restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.empty import say_nothing
from ztfzarr.cli.options import counted, print_json, reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr restore night.zarr archive
  ztfzarr restore s3://bucket/ztf archive --night 2020-08-01 --ccds 6"""
)
@store_argument
@click.argument("directory", type=click.Path(file_okay=False))
@selecting
@click.option("--workers", type=click.IntRange(1), help="Files at a time.", show_default="number of cores")
@reporting
def restore(
    store: Objects,
    directory: str,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write the raw FITS files of STORE under DIRECTORY, in the archive's folders.

    Files of row tiles under RICE come back byte for byte, by their SHA-256. Others, which are named, come back
    uncompressed with the same pixels and cards. What is lost or damaged in STORE is named, and not written.
    """
    from ztfzarr.ingest.restore import restore as run
    from ztfzarr.store.check import Selection

    identical, others, errors = 0, [], []
    with progress(quiet) as shown:
        restored = run(
            store, directory, selection=Selection(*nights, ccds), workers=workers,
            total=lambda count: shown.step("restore", count),
        )  # fmt: skip
        for file in restored:
            shown.advance()
            if file.error is not None:
                errors.append(file.error)
            elif file.identical:
                identical += 1
            else:
                others.append(str(file.path))
    if not (identical or others or errors):
        say_nothing(store, nights, ccds)
        return 3
    for error in errors:
        say(f"refused {error}", err=True)
    if as_json:
        print_json({"identical": identical, "same_pixels_and_cards": others, "errors": errors})
    elif not quiet:
        for path in others:
            say(f"not the original's bytes, but its pixels and cards: {path}")
        say(f"restored {counted(identical, 'file')} byte for byte, {len(others)} with the same pixels and cards")
    return 1 if errors else 0
