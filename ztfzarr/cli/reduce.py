"""``ztfzarr bias``, ``flat``, ``science`` and ``run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ztfzarr.cli.empty import say_nothing
from ztfzarr.cli.making import making, recipe_of, scheduling
from ztfzarr.cli.memory import few_arenas
from ztfzarr.cli.options import print_json, reporting, selecting, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import cell, say
from ztfzarr.cli.tables import new_table, print_table

if TYPE_CHECKING:
    from ztfzarr.reduce.report import Report
    from ztfzarr.store.objects import Objects

HELP = {
    "bias": "Make the master biases that STORE lacks, one a night and CCD.",
    "flat": "Make the master flats that STORE lacks, one a night, filter and CCD.",
    "science": "Make the science that STORE lacks, one an exposure and CCD.",
    "run": "Make whatever STORE lacks: bias, then flat, then science.",
}

EXAMPLES = """\
  ztfzarr COMMAND night.zarr
  ztfzarr COMMAND night.zarr --night 2020-08-01:2020-08-31 --ccds 1-4
  ztfzarr COMMAND night.zarr --version v2 --set overscan.columns=25:30"""


def _command(name: str, kinds: tuple[str, ...]) -> click.Command:
    @click.command(name, help=HELP[name], epilog="\b\nExamples:\n" + EXAMPLES.replace("COMMAND", name))
    @store_argument
    @selecting
    @making("bias.skip=5")
    @click.option(
        "--with-variance",
        is_flag=True,
        hidden="science" not in kinds,
        help="Store science's variance too, as science.variance=true.",
    )
    @scheduling
    @reporting
    def command(
        store: Objects,
        nights: tuple[int, int],
        ccds: tuple[int, ...],
        version: str,
        file: str | None,
        settings: tuple[str, ...],
        with_variance: bool,
        workers: int | None,
        scheduler: str | None,
        as_json: bool,
        quiet: bool,
    ) -> int:
        from ztfzarr.reduce.report import Events, Selection
        from ztfzarr.reduce.run import reduce

        few_arenas()
        settings += ("science.variance=true",) * with_variance
        masters = version if len(kinds) > 1 else "v1"  # a run of all makes the masters that it uses
        recipe = recipe_of(file, settings, masters=masters)
        with progress(quiet) as shown:
            reports = reduce(
                store, kinds, version=version, recipe=recipe, selection=Selection(*nights, ccds), workers=workers,
                scheduler=scheduler, events=Events(step=shown.step, done=shown.advance),
            )  # fmt: skip
        say_if_nothing(reports, store, nights, ccds)
        return told(reports, as_json, quiet)

    return command


def say_if_nothing(reports: list[Report], store: Objects, nights: tuple[int, int], ccds: tuple[int, ...]) -> None:
    """Say it if reductions found nothing to do, and what there is."""
    if not any(report.made or report.there or report.refused for report in reports):
        say_nothing(store, nights, ccds)


def told(reports: list[Report], as_json: bool, quiet: bool) -> int:
    """Print what reductions did and refused; return the exit status."""
    for report in reports:
        for entry, reason in report.refused:
            say(f"refused {entry}: {reason}", err=True)
    if as_json:
        print_json([report.summary() for report in reports])
    elif not quiet:
        table = new_table("product", "made", "there", "refused")
        for report in reports:
            counts = (report.made, report.there, len(report.refused))
            table.add_row(cell(report.product), *map(str, counts))
        print_table(table)
    return 1 if any(report.refused for report in reports) else 0


bias: Callable[..., Any] = _command("bias", ("bias",))
flat: Callable[..., Any] = _command("flat", ("flat",))
science: Callable[..., Any] = _command("science", ("science",))
run: Callable[..., Any] = _command("run", ("bias", "flat", "science"))
