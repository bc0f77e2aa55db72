"""What is said when nothing is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ztfzarr.cli.options import ALL_NIGHTS, date, ranges
from ztfzarr.geometry import CCDS

if TYPE_CHECKING:
    from ztfzarr.store.objects import Objects


def say_nothing(store: Objects, nights: tuple[int, int], ccds: tuple[int, ...] = CCDS) -> None:
    """Say on standard error that a selection has nothing, and which nights and CCDs there are."""
    from ztfzarr.store.listing import nights as nights_of

    there = list(nights_of(store))
    asked = [_span(nights)] if nights != ALL_NIGHTS else []
    asked += [f"CCD {ranges(ccds)}"] if ccds != CCDS else []
    of = f" of {', '.join(asked)}" if asked else ""
    held = sorted({ccd for night in there for ccd in night.ccds})
    has = f"{date(there[0].night)} to {date(there[-1].night)}, CCD {ranges(held)}" if there else "no exposures yet"
    click.echo(f"ztfzarr: nothing{of}: {store.location} has {has}", err=True)


def _span(nights: tuple[int, int]) -> str:
    """Write a range of nights as it was asked for."""
    first, last = (date(night) if night not in ALL_NIGHTS else "" for night in nights)
    return first if first == last else f"{first}:{last}"
