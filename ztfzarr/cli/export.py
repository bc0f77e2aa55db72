"""``ztfzarr export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import Kind, counted, print_json, reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say
from ztfzarr.errors import RefusedError

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr export night.zarr science fits --night 2020-08-01 --compress
  ztfzarr export night.zarr flat fits --ccds 1-4
  ztfzarr export night.zarr stars fits --version v2
  ztfzarr export night.zarr science fits --name '{night}/{exposure}_c{ccd:02d}_q{quadrant}.fits'"""
)
@store_argument
@click.argument("kind", type=Kind(["science", "bias", "flat", "starflat", "stars", "pocket"]))
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--version", default="v1", show_default=True, help="Version of the product.")
@selecting
@click.option("--name", metavar="TEMPLATE", help="File names, from exposure, field, filter, night, ccd, quadrant, "
              "kind, version.", show_default="ztf_..._sciimg.fits")  # fmt: skip
@click.option("--compress", is_flag=True, help="Compress tiles as fpack does, without loss; adds .fz.")
@click.option("--overwrite", is_flag=True, help="Replace files that hold other pixels.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="CCDs at a time.")
@reporting
def export(
    store: Objects,
    kind: str,
    directory: str,
    version: str,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    name: str | None,
    compress: bool,
    overwrite: bool,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write a product of STORE as FITS files under DIRECTORY, one a quadrant.

    Science has the raw header's cards, then what was done; MASK and VARIANCE where the product has them. What is
    not stored is computed. Starflats have the map at every pixel, in magnitudes, its ERROR, and its NODES as a
    table. Stars are binary tables, one an exposure and CCD; pockets one a night. Files that are there already are
    left, so the command can be run again at any time.
    """
    from ztfzarr.export.run import Events
    from ztfzarr.export.run import export as run
    from ztfzarr.store.check import Selection

    try:
        with progress(quiet, "CCDs") as shown:
            report = run(
                store, kind, directory, version=version, selection=Selection(*nights, ccds), name=name,
                compress=compress, overwrite=overwrite, workers=workers,
                events=Events(step=shown.step, done=shown.advance),
            )  # fmt: skip
    except RefusedError as error:
        raise click.UsageError(str(error)) from None
    for what, reason in report.refused:
        say(f"refused {what}: {reason}", err=True)
    if as_json:
        print_json(report.summary())
    elif not quiet:
        say(
            f"exported {counted(len(report.written), 'file')} to {directory}; {len(report.there)} were there, "
            f"{len(report.refused)} refused"
        )
    return 1 if report.refused else 0
