"""``ztfzarr report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ztfzarr.cli.memory import few_arenas
from ztfzarr.cli.options import ALL_NIGHTS, Nights, counted, print_json, reporting, size, store_argument
from ztfzarr.cli.progress import Progress, progress

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


@click.command(
    epilog="""\b
Examples:
  ztfzarr report night.zarr --night 2020-08-01 -o report.html
  ztfzarr report night.zarr --all reports
  ztfzarr report night.zarr --all reports --night 2020-08-01   # this page anew, and the index"""
)
@store_argument
@click.option(
    "--night", "nights", type=Nights(), default=ALL_NIGHTS, show_default="the last", help="Night 2020-08-01."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="HTML file to write.")
@click.option(
    "--all", "folder", metavar="DIR", type=click.Path(file_okay=False), help="Write a page a night and an index."
)
@click.option("--version", default="v1", show_default=True, help="Version whose pictures and numbers are shown.")
@click.option(
    "--thumbnails",
    type=click.IntRange(0, 200),
    default=12,
    show_default=True,
    help="Exposures of the sky to show.",
)
@reporting
def report(
    store: Objects,
    nights: tuple[int, int],
    output: str | None,
    folder: str | None,
    version: str,
    thumbnails: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make a report of a night of STORE: one HTML page that needs no network.

    With --all, pages of all nights, or of those of --night, and an index of all pages in DIR. Without -o the page
    of the last night that fits goes to standard output, unless that is a terminal.
    """
    if output is not None and folder is not None:
        raise click.UsageError("-o with --all: expected one of them, a page or a folder of pages")
    if output is None and folder is None and (as_json or sys.stdout.isatty()):
        raise click.UsageError("expected -o report.html, or --all DIR")
    from ztfzarr.report.run import chosen_nights

    few_arenas()
    found = chosen_nights(store, *nights)
    settings = {"version": version, "thumbnails": thumbnails}
    try:
        if folder is not None:
            with progress(quiet, "pages") as shown:
                told = _write_all(store, Path(folder), found, settings, shown)
        else:
            told = _write_one(store, output, found[-1], settings, quiet)
    except ImportError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(told)
    elif output is not None and not quiet:
        click.echo(f"{output}: night {told['nights'][0]}, {size(told['bytes'])}")
    elif folder is not None and not quiet:
        click.echo(
            f"{folder}: {counted(len(told['nights']), 'page')}, {size(told['bytes'])}; open {told['index']}"
        )
    return 0


def _write_one(
    store: Objects, output: str | None, night: int, settings: dict[str, Any], quiet: bool
) -> dict[str, Any]:
    """Write the page of a night to a file, or to standard output."""
    from ztfzarr.report.run import night_report
    from ztfzarr.report.source import dashed
    from ztfzarr.store.files import write_file

    with progress(quiet or output is None, "pictures") as shown:
        content = night_report(store, night, step=shown.step, done=shown.advance, **settings)
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        write_file(output, content)
    return {"file": output, "nights": [dashed(night)], "bytes": len(content)}


def _write_all(
    store: Objects, folder: Path, nights: list[int], settings: dict[str, Any], shown: Progress
) -> dict[str, Any]:
    """Write pages of nights, and the index of all pages that are in the folder."""
    from ztfzarr.report.run import around_of, chosen_nights, index_report, night_report
    from ztfzarr.report.source import dashed
    from ztfzarr.store.files import write_file

    shown.step("report", len(nights))
    there = [n for n in chosen_nights(store) if n in nights or (folder / f"{dashed(n)}.html").exists()]
    total = 0
    for night in nights:
        content = night_report(store, night, around=around_of(there, night), **settings)
        write_file(folder / f"{dashed(night)}.html", content)
        total += len(content)
        shown.advance()
    index = folder / "index.html"
    write_file(index, index_report(store, {dashed(n) for n in there}, version=settings["version"]))
    return {"index": str(index), "nights": [dashed(n) for n in nights], "bytes": total}
