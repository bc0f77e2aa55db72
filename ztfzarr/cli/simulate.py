"""``ztfzarr simulate``."""

from __future__ import annotations

import click

from ztfzarr.cli.options import Ccds, Nights, Shape, counted, print_json, reporting
from ztfzarr.cli.progress import progress
from ztfzarr.cli.say import say


@click.command(
    epilog="""\b
Examples:
  ztfzarr simulate sim
  ztfzarr simulate sim --shape 3080x3072 --ccds 6 --bias 12 --flats 0 --science 2
  ztfzarr simulate sim --ccds 1-16 --science 0 --starflat 30"""
)
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--night", type=Nights(), default="2020-08-01", show_default=True, help="Night to make.")
@click.option("--ccds", type=Ccds(), default="1,2", show_default=True, help="CCDs, as in 1,2 or 1-4,9.")
@click.option("--shape", type=Shape(), default="616x512", show_default=True, help="Rows x columns of a quadrant.")
@click.option("--bias", type=click.IntRange(0), default=20, show_default=True, help="Bias exposures.")
@click.option("--flats", type=click.IntRange(0), default=5, show_default=True, help="Flats a LED, of 11 LEDs.")
@click.option("--science", type=click.IntRange(0), default=6, show_default=True, help="Exposures of the sky.")
@click.option(
    "--starflat", type=click.IntRange(0), default=0, show_default=True, help="Dithers of one dense field."
)
@click.option("--starflat-filter", default="zr", show_default=True, help="Their filter: zg, zr, zi.")
@click.option(
    "--colour-term",
    type=float,
    default=0.0,
    show_default=True,
    help="Their stars, if redder by 1 mag, are fainter by so many a degree to the east.",
)
@click.option("--sky", type=click.Path(exists=True, dir_okay=False), help="FITS image to use as the sky.")
@click.option("--pocket", is_flag=True, help="Defer charge in the serial register, from 2019-10-22 on.")
@click.option(
    "--amplifier-step", type=float, default=0.0, show_default=True,
    help="Level of a quadrant above its overscan in exposures of the sky, DN: its standard deviation.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--workers", type=click.IntRange(1), help="Processes.", show_default="number of cores")
@reporting
def simulate(
    directory: str,
    night: tuple[int, int],
    ccds: tuple[int, ...],
    shape: tuple[int, int],
    bias: int,
    flats: int,
    science: int,
    starflat: int,
    starflat_filter: str,
    colour_term: float,
    sky: str | None,
    pocket: bool,
    amplifier_step: float,
    seed: int,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make a night of raw files under DIRECTORY, in the archive's folders, with the truth beside it."""
    import os

    from ztfzarr.simulate import simulate_night

    if night[0] != night[1]:
        raise click.UsageError("--night: expected one night, such as 2020-08-01")
    with progress(quiet) as shown:
        begun: list[bool] = []

        def advance(done: int, total: int) -> None:
            if not begun:
                shown.step("simulate", total)
                begun.append(True)
            shown.advance()

        try:
            paths = simulate_night(
                directory, night=night[0], ccds=ccds, shape=shape, bias=bias, flats=flats, science=science,
                starflat=starflat, starflat_filter=starflat_filter, colour_term=colour_term, sky=sky,
                pocket=pocket, amplifier_step=amplifier_step, seed=seed,
                workers=workers or len(os.sched_getaffinity(0)), progress=advance,
            )  # fmt: skip
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if as_json:
        print_json([str(path) for path in paths])
    elif not quiet:
        say(f"made {counted(len(paths), 'raw file')} under {directory}/raw, the truth in {directory}/truth")
    return 0
