"""``ztfzarr stars``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.making import making, readable_files, recipe_of, scheduling
from ztfzarr.cli.memory import few_arenas
from ztfzarr.cli.options import reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.reduce import say_if_nothing, told

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr stars night.zarr --catalogue gaia.fits
  ztfzarr stars night.zarr --wcs sciimg/ --set stars.annulus=15:30"""
)
@store_argument
@selecting
@making("stars.threshold=5")
@click.option("--catalogue", type=click.Path(exists=True, dir_okay=False), help="Stars: ra, dec, mag; FITS, CSV…")
@click.option("--wcs", multiple=True, type=click.Path(exists=True), help="IPAC's science images or headers.")
@scheduling
@reporting
def stars(
    store: Objects,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    version: str,
    file: str | None,
    settings: tuple[str, ...],
    catalogue: str | None,
    wcs: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find and measure the stars of STORE's science: a table an exposure and CCD.

    Positions on the sky are from the WCS of raw headers, else of --wcs files, else of a fit to --catalogue, whose
    stars then also name those of the tables.
    """
    from ztfzarr.reduce.report import Events, Selection
    from ztfzarr.reduce.stars import reduce_stars

    few_arenas()
    recipe = recipe_of(file, settings)
    with progress(quiet) as shown, readable_files():
        report = reduce_stars(
            store, version=version, recipe=recipe, selection=Selection(*nights, ccds), catalogue=catalogue,
            wcs=wcs, workers=workers, scheduler=scheduler, events=Events(step=shown.step, done=shown.advance),
        )  # fmt: skip
    say_if_nothing([report], store, nights, ccds)
    return told([report], as_json, quiet)
