"""``ztfzarr starflat``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.making import making, readable_files, recipe_of, scheduling
from ztfzarr.cli.memory import few_arenas
from ztfzarr.cli.options import reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.reduce import say_if_nothing, told
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr starflat night.zarr --night 2020-08-01 --catalogue stars.fits
  ztfzarr starflat night.zarr --version v2 --set starflat.nodes=[8,8] --set starflat.extinction=0.19
  ztfzarr starflat night.zarr --catalogue stars.fits --apply v2
  ztfzarr starflat night.zarr --catalogue stars.fits --apply-flats v2"""
)
@store_argument
@selecting
@click.option(
    "--filter", "bands", multiple=True, type=click.Choice(["zg", "zr", "zi"]), help="Filter; default all."
)
@click.option("--catalogue", type=click.Path(exists=True, dir_okay=False), help="Stars: ra, dec, mag; FITS, CSV…")
@click.option("--stars-version", metavar="VERSION", help="Version of the star tables, as starflat.stars=v2.")
@making("starflat.floor=0.01")
@click.option("--apply", "applied", metavar="VERSION", help="Then make this version of science with it.")
@click.option(
    "--apply-flats", "flats", metavar="VERSION", help="Then make this version of flats, with it in them."
)
@scheduling
@reporting
def starflat(
    store: Objects,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    bands: tuple[str, ...],
    catalogue: str | None,
    stars_version: str | None,
    version: str,
    file: str | None,
    settings: tuple[str, ...],
    applied: str | None,
    flats: str | None,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Fit the starflats that STORE lacks, one a filter, from stars in dithered exposures.

    Star tables are made first where they are missing, with --scheduler on the workers of a cluster. The map is
    what stars appear fainter by, from place to place; its plane comes from --catalogue alone, and is undetermined
    without. Science uses it where its recipe says science.starflat=VERSION, or its flats' flat.starflat=VERSION:
    not both. --apply and --apply-flats make versions with the settings of the science and the flats that the stars
    were measured with, and those of --recipe and --set over them.
    """
    from ztfzarr.reduce.report import Events, Selection
    from ztfzarr.reduce.run import reduce
    from ztfzarr.reduce.starflat import reduce_starflat
    from ztfzarr.reduce.starflat_recipe import recipe_with_starflat

    few_arenas()
    settings += (f"starflat.stars={stars_version}",) if stars_version else ()
    recipe = recipe_of(file, settings)
    selection = Selection(*nights, ccds)
    with progress(quiet) as shown, readable_files():
        events = Events(step=shown.step, done=shown.advance)
        reports = [
            reduce_starflat(
                store, version=version, recipe=recipe, filters=bands, selection=selection, catalogue=catalogue,
                workers=workers, scheduler=scheduler, events=events,
            )
        ]  # fmt: skip
        for kind, name in (("flat", flats), ("science", applied)):
            if name is not None and not reports[0].refused:
                base = recipe_with_starflat(store, kind, version)
                reports += reduce(
                    store, (kind,), version=name, recipe=recipe_of(file, settings, base=base) or base,
                    selection=selection, workers=workers, scheduler=scheduler, events=events,
                )  # fmt: skip
    say_if_nothing(reports, store, nights, ccds)
    for kind, name in (("flat", flats), ("science", applied)):
        if name is not None and reports[0].refused:
            say(f"{kind}/{name} is not made, for what was refused: make it with ztfzarr {kind}", err=True)
    return told(reports, as_json, quiet)
