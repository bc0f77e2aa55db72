"""``ztfzarr find``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from ztfzarr.cli.options import ALL_NIGHTS, Nights, counted, print_json, store_argument
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say
from ztfzarr.errors import RefusedError

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects

MINUS = "\N{MINUS SIGN}"


class Signed(click.Command):
    """A command whose arguments may be negative numbers, which click would take for options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hide the sign of numbers from click."""
        hidden = [MINUS + arg[1:] if re.match(r"-[\d.]", arg) else arg for arg in args]
        return super().parse_args(ctx, hidden)


class Angle(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Degrees, or sexagesimal: hours of right ascension or degrees of declination."""

    def __init__(self, name: str, hours: bool) -> None:
        self.name = name
        self.scale = 15.0 if hours else 1.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return degrees."""
        text = str(value).replace(MINUS, "-").strip()
        match = re.fullmatch(r"([+-]?)(\d+)[: ](\d+)(?:[: ](\d+(?:\.\d*)?))?", text)
        if match is not None:
            size = int(match[2]) + int(match[3]) / 60 + float(match[4] or 0) / 3600
            return self.scale * (-size if match[1] == "-" else size)
        try:
            return float(text)
        except ValueError:
            example = "149.52 or 09:58:04.8" if self.scale > 1 else "+2.21 or -00:12:30"
            self.fail(f"{text!r} is no angle: expected {example}", param, ctx)


@click.command(
    cls=Signed,
    epilog="""\b
Examples:
  ztfzarr find night.zarr 149.52 +2.21
  ztfzarr find night.zarr 09:58:04.8 -00:12:30 --filter zr --json
  ztfzarr find night.zarr 149.52 +2.21 --cutout 256 -o stamps""",
)
@store_argument
@click.argument("ra", type=Angle("ra", hours=True))
@click.argument("dec", type=Angle("dec", hours=False))
@click.option(
    "--radius", type=click.FloatRange(0), default=0, help="Arcsec beyond a quadrant's edge that still count."
)
@click.option("--night", "nights", type=Nights(), default=ALL_NIGHTS, help="Night or FROM:TO.", show_default="all")
@click.option("--filter", "band", type=click.Choice(["zg", "zr", "zi"]), help="Filter.", show_default="all")
@click.option(
    "--cutout", type=click.IntRange(1, 4096), metavar="PIXELS", help="Cut stamps of so many pixels a side."
)
@click.option("-o", "--output", type=click.Path(file_okay=False), help="Folder of the stamps and contact sheets.")
@click.option("--version", default="v1", show_default=True, help="Version of science to cut.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def find(
    store: Objects,
    ra: float,
    dec: float,
    radius: float,
    nights: tuple[int, int],
    band: str | None,
    cutout: int | None,
    output: str | None,
    version: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find the exposures of STORE that saw a position: RA and DEC in degrees, or as hh:mm:ss and dd:mm:ss.

    CCD, quadrant and stored, 0-based pixel come from the telescope's pointing and a table of the camera, good to
    125 pixels, 2 arcmin, unless the raw header has a WCS. Science that is not stored is computed for the stamps.
    """
    if (cutout is None) != (output is None):
        raise click.UsageError("--cutout without -o, or -o without --cutout: expected both or none")
    from ztfzarr.export.find import find as run

    try:
        found = run(store, ra, dec, radius=radius, nights=nights, band=band)
    except RefusedError as error:
        raise click.UsageError(str(error)) from None
    files: list[str] = []
    refused: list[tuple[str, str]] = []
    if cutout is not None and output is not None:
        files, refused = _cut(store, found, (ra, dec), cutout, output, version, quiet)
    for what, reason in refused:
        say(f"refused {what}: {reason}", err=True)
    if as_json:
        print_json({"ra": ra, "dec": dec, "matches": _rows(found), "files": files})
    else:
        _print(found, ra, dec, files)
    return 1 if refused else 0


def _cut(
    store: Objects, found: Any, position: tuple[float, float], size: int, output: str, version: str, quiet: bool
) -> tuple[list[str], list[tuple[str, str]]]:
    from ztfzarr.export.stamps import write_stamps

    if found.sizes["match"] and float(found["uncertainty"].max()) > size / 2:
        pixels = float(found["uncertainty"].max())
        say(
            f"the position is known to {pixels:.0f} pixels: it may lie outside stamps of {size}; try --cutout "
            f"{2 * -(-int(pixels) // 64) * 64}",
            err=True,
        )
    files, refused = [], []
    with progress(quiet, "stamps") as shown:
        shown.step("stamps", found.sizes["match"])
        for outcome in write_stamps(store, found, output, position, size, version=version):
            if isinstance(outcome, tuple):
                refused.append(outcome)
            else:
                files.append(outcome)
            shown.advance()
    return files, refused


def _rows(found: Any) -> list[dict[str, Any]]:
    columns = {
        str(name): (column.astype("datetime64[ms]").astype(str) if name == "time" else column).values.tolist()
        for name, column in found.data_vars.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _print(found: Any, ra: float, dec: float, files: list[str]) -> None:
    count = found.sizes["match"]
    if not count:
        say(f"no exposure saw {ra:.5f} {dec:+.5f}")
        return
    say("exposure        time (UTC)           filter  field  CCD  q       x       y    edge")
    for row in _rows(found):
        time = row["time"][:19].replace("T", " ")
        places = "".join(f"{row[name]:8.0f}" for name in ("x", "y", "edge"))
        camera = f"{row['field']:5}  {row['ccd']:3}  {row['quadrant']}"
        say(f"{row['exposure']}  {time}  {row['filter']:6}  {camera}{places}")
    error = float(found["uncertainty"].max())
    why = "from the pointing, without a WCS" if error > 1 else "by the WCS of the raw headers"
    say(f"{counted(count, 'quadrant')}; x and y, stored and 0-based, are good to {error:.0f} pixels, {why}")
    if files:
        say(f"wrote {counted(len(files), 'file')}, {files[-1]} the last")
