"""Star tables of a night, by the numbers of their entries: the stars themselves are not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.report.quality import Judged, judged_stars
from ztfzarr.report.render import counted
from ztfzarr.report.source import Product
from ztfzarr.store.products import WCS

SOURCES: Final = {**{bit: name for name, bit in WCS.items()}, 0: "none"}


@dataclass(frozen=True)
class StarsOfCcd:
    """The tables of a CCD: texts; ``lost`` are the quadrants without a WCS, ``few`` those with few stars."""

    ccd: int
    exposures: int
    stars: str
    fewest: str
    fwhm: str
    sources: str
    rms: str
    lost: int
    few: int


@dataclass(frozen=True)
class StarsPart:
    """The star tables of a night: their version, how many, CCD by CCD, and numbers with their trends."""

    name: str
    made: int
    lost: int
    few: int
    ccds: list[StarsOfCcd]
    quality: list[Judged]


def star_tables(product: Product | None, night: int) -> StarsPart | None:
    """Gather what a page says of the star tables of a night; None if there are none."""
    if product is None:
        return None
    rows = product.rows_of(night)
    made = product.rows("present", rows) == 1
    if not made.any():
        return None
    tables = {name: product.rows(name, rows) for name in ("stars", "fwhm", "wcs", "wcs_rms", "flag")}
    flags = product.version.product.tables["flag"].flags or {}
    ccds = list(_ccds(tables, made, flags))
    lost, few = sum(one.lost for one in ccds), sum(one.few for one in ccds)
    return StarsPart(product.name, int(made.sum()), lost, few, ccds, list(judged_stars(product, night)))


def _ccds(
    tables: dict[str, NDArray[np.generic]], made: NDArray[np.bool_], flags: Mapping[str, int]
) -> Iterator[StarsOfCcd]:
    for index in np.flatnonzero(made.any(axis=0)).tolist():
        mine = {name: values[made[:, index], index] for name, values in tables.items()}
        flag = mine["flag"].astype(np.int64)
        sources = mine["wcs"].astype(np.int64)
        yield StarsOfCcd(
            index + 1,
            int(made[:, index].sum()),
            _median(mine["stars"], ",.0f"),
            f"{int(mine['stars'].astype(np.int64).min()):,}",
            _median(mine["fwhm"], ".2f"),
            ", ".join(
                f"{name} {int((sources == bit).sum())}" for bit, name in SOURCES.items() if (sources == bit).any()
            ),
            _median(mine["wcs_rms"], ".3f"),
            int(((flag & flags.get("no_wcs", 0)) != 0).sum()),
            int(((flag & flags.get("few_stars", 0)) != 0).sum()),
        )


def _median(values: NDArray[np.generic], form: str) -> str:
    numbers = values.astype(np.float64)
    known = numbers[np.isfinite(numbers)]
    return format(float(np.median(known)), form) if known.size else ""


def stars_verdict(part: StarsPart) -> tuple[str, str]:
    """Return a word of ok or bad, and the counts in words."""
    faults = [f"{part.lost} without a WCS"] * bool(part.lost) + [f"{part.few} with few stars"] * bool(part.few)
    text = ", ".join([counted(part.made, "table"), *(f"quadrants: {fault}" for fault in faults)])
    return ("bad" if faults else "ok"), text
