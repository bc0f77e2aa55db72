"""``ztfzarr show``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ztfzarr.cli.options import ALL_NIGHTS, Kind, Nights, counted, print_json, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects

KINDS: Final = ("raw", "bias", "flat", "science", "mask", "starflat")
FILTERS: Final = ("zg", "zr", "zi", "bi")
FORMATS: Final = (".png", ".pdf", ".svg", ".jpg")
READERS: Final = 2  # quadrants at a time: 0.6 GB for a focal plane, on any number of cores


@click.command(
    epilog="""\b
Examples:
  ztfzarr show night.zarr bias -o bias.png
  ztfzarr show night.zarr raw --exposure 20200801169199 --ccd 2 -o raw.png
  ztfzarr show night.zarr flat --filter zr --ccd 2 --quadrant 3 -o flat.pdf
  ztfzarr show night.zarr bias --version v2 --minus v1 --ccd 2 -o difference.png
  ztfzarr show night.zarr starflat --filter zr -o starflat.png"""
)
@store_argument
@click.argument(
    "kind", type=Kind(KINDS, "has no picture: ztfzarr report draws its numbers, ztfzarr export writes them")
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="PNG, PDF, SVG or JPG to write.")
@click.option("--version", default="v1", show_default=True, help="Version of the product.")
@click.option("--minus", metavar="VERSION", help="Show the difference from this version.")
@click.option(
    "--night", "nights", type=Nights(), default=ALL_NIGHTS, show_default="the last", help="Night 2020-08-01."
)
@click.option("--exposure", type=int, help="Exposure YYYYMMDDFFFFFF.", show_default="the last")
@click.option("--filter", "band", type=click.Choice(FILTERS), help="Filter.")
@click.option("--ccd", type=click.IntRange(1, 16), help="CCD.", show_default="the focal plane")
@click.option("--quadrant", type=click.IntRange(1, 4), help="Quadrant of the CCD.", show_default="all four")
@click.option("--camera", is_flag=True, help="East right, as the camera's drawings, instead of east left.")
@click.option("--median", is_flag=True, help="Medians of blocks of pixels instead of means: stars vanish.")
@click.option("--json", "as_json", is_flag=True, help="Print what is shown as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def show(
    store: Objects, kind: str, output: str | None, minus: str | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Draw an image of STORE, north up: a quadrant, a CCD or the focal plane.

    Of several exposures or nights that fit, the last is shown. Science that is not stored is computed. Of a
    starflat the map, its error, and what stars show before and after. Without -o a PNG goes to standard output,
    unless that is a terminal.
    """
    _check(kind, output, minus, options | {"as_json": as_json})
    if kind == "starflat":
        _show_starflat(store, output, options["version"], options["band"], as_json, quiet)
        return
    from ztfzarr.plot.show import draw, rendered
    from ztfzarr.plot.source import Wanted, chosen, subtracted
    from ztfzarr.store.files import write_file

    wanted = Wanted(
        kind, options["version"], options["nights"], options["exposure"], options["band"], options["ccd"],
        options["quadrant"],
    )  # fmt: skip
    shown = chosen(store, wanted) if minus is None else subtracted(store, wanted, minus)
    with _drawing(quiet or output is None):
        try:
            figure = draw(
                shown, wanted, minus=minus is not None, camera=options["camera"], median=options["median"]
            )
        except ImportError as error:
            raise click.UsageError(str(error)) from None
    suffix = Path(output).suffix[1:].lower() if output else "png"
    content = rendered(figure, suffix)
    if output is None:
        sys.stdout.buffer.write(content)
        return
    write_file(output, content)
    if as_json:
        print_json({"file": output, "title": shown.title.split("\n"), "others": shown.others})
    elif not quiet:
        title = ", ".join(shown.title.split("\n"))
        more = f" ({counted(shown.others, 'other')} would fit)" if shown.others else ""
        say(f"{output}: {title}{more}")


def _show_starflat(
    store: Objects, output: str | None, version: str, band: str | None, as_json: bool, quiet: bool
) -> None:
    from ztfzarr.plot.show import rendered
    from ztfzarr.plot.starflat import draw_starflat, starflat_of, title_of
    from ztfzarr.store.files import write_file

    dataset = starflat_of(store, version=version, band=band)
    title = title_of(dataset, version)
    try:
        figure = draw_starflat(dataset, title)
    except ImportError as error:
        raise click.UsageError(str(error)) from None
    content = rendered(figure, Path(output).suffix[1:].lower() if output else "png")
    if output is None:
        sys.stdout.buffer.write(content)
        return
    write_file(output, content)
    if as_json:
        print_json({"file": output, "title": title.split("\n"), "others": 0})
    elif not quiet:
        click.echo(f"{output}: {', '.join(title.splitlines())}")


@contextmanager
def _drawing(quiet: bool) -> Iterator[None]:
    """Let dask compute in a few threads, and show how far it is."""
    import dask
    from dask.callbacks import Callback

    with progress(quiet, "steps") as shown:

        def begin(_graph: Any, state: dict[str, Any]) -> None:
            shown.step("show", len(state["waiting"]) + len(state["ready"]))

        def done(*_task: Any) -> None:
            shown.advance()

        threads = min(READERS, len(os.sched_getaffinity(0)))
        watched = Callback(start_state=begin, posttask=done)  # type: ignore[no-untyped-call]
        with dask.config.set(scheduler="threads", num_workers=threads), watched:
            yield


def _check(kind: str, output: str | None, minus: str | None, options: dict[str, Any]) -> None:
    """Refuse what makes no picture."""
    if output is None and sys.stdout.isatty():
        raise click.UsageError("a picture cannot be shown on a terminal: name a file, as in -o x.png")
    if output is not None and Path(output).suffix.lower() not in FORMATS:
        raise click.UsageError(f"{output}: expected a name that ends in {', '.join(FORMATS)}")
    if options["quadrant"] is not None and options["ccd"] is None:
        raise click.UsageError("--quadrant without --ccd: expected both")
    if minus is not None and kind == "starflat":
        raise click.UsageError("--minus: starflats are drawn whole; ztfzarr compare says what two differ by")
    if minus is not None and kind in ("raw", "mask"):
        raise click.UsageError(f"--minus: {kind} has no versions to subtract")
    if kind == "starflat" and any(options[name] for name in ("exposure", "ccd", "camera", "median")):
        raise click.UsageError("starflat with --exposure, --ccd, --camera or --median: it is drawn whole")
    if output is None and options["as_json"]:
        raise click.UsageError("--json without -o: the picture itself would go to standard output")
    if minus is not None and options["camera"]:
        raise click.UsageError("--minus with --camera: differences are drawn east left")
