"""``ztfzarr pocket fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.making import making, recipe_of, scheduling
from ztfzarr.cli.memory import few_arenas
from ztfzarr.cli.options import reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.reduce import say_if_nothing, told

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.group()
def pocket() -> None:
    """Fit the pocket effect, and follow it from night to night."""


@pocket.command(
    epilog="""\b
Examples:
  ztfzarr pocket fit night.zarr
  ztfzarr pocket fit night.zarr --version v2 --set pocket_fit.period=month
  ztfzarr run night.zarr --version v2 --set pocket.correct=auto --set pocket.fit=v1"""
)
@store_argument
@selecting
@making("pocket_fit.period=month")
@scheduling
@reporting
def fit(
    store: Objects,
    nights: tuple[int, int],
    ccds: tuple[int, ...],
    version: str,
    file: str | None,
    settings: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Fit the pockets of STORE's quadrants to what trails into their overscans, one entry a night and CCD.

    Flats and exposures of the sky are read, their last columns and overscans only. Beside the parameters, the
    charge that trails after flats and after the sky is kept, and its ratio to what the table says.
    """
    from ztfzarr.reduce.report import Events, Selection
    from ztfzarr.reduce.run import reduce

    few_arenas()
    recipe = recipe_of(file, settings)
    with progress(quiet) as shown:
        reports = reduce(
            store, ["pocket"], version=version, recipe=recipe, selection=Selection(*nights, ccds),
            workers=workers, scheduler=scheduler, events=Events(step=shown.step, done=shown.advance),
        )  # fmt: skip
    say_if_nothing(reports, store, nights, ccds)
    return told(reports, as_json, quiet)
