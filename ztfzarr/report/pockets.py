"""Fitted pockets of a night against the table's, and what trails, night after night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ztfzarr import tables
from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.report.charts import Chart
from ztfzarr.report.index import POCKETS, by_night, trend
from ztfzarr.report.quality import Judged, flagged_lines, judged_masters
from ztfzarr.report.source import Product, dashed
from ztfzarr.steps.pocket import PARAMETERS

FORMS: Final = {"alpha": ".3f", "cmax": ".0f", "beta": ".3f", "nmax": ".3g"}


@dataclass(frozen=True)
class PocketOfQuadrant:
    """A pocket: texts of each parameter and that of the table, of chi2 and of the trails; and a verdict."""

    where: str
    parameters: list[tuple[str, str]]
    chi2: str
    ratios: list[str]
    word: str
    detail: str


@dataclass(frozen=True)
class PocketPart:
    """The pockets of a night: version, note, quadrants, numbers with their trends, flags; the monitor's charts."""

    name: str
    note: str
    quadrants: list[PocketOfQuadrant]
    quality: list[Judged]
    flagged: list[str]
    monitor: list[Chart]


def fitted_pockets(product: Product | None, night: int) -> PocketPart | None:
    """Gather what a page says of the fitted pockets that hold for a night; None if there are none."""
    row = None if product is None else product.row_of(night)
    if product is None or row is None:
        return None
    own = int(product.night[row])
    note = "" if own == night else f"the fit of a longer period, which stands in night {dashed(own)}"
    return PocketPart(
        product.name,
        note,
        list(_quadrants(product, row)),
        judged_masters(product, night, row),
        flagged_lines(product, row),
        list(_monitor(product, night)),
    )


def _quadrants(product: Product, row: int) -> Iterator[PocketOfQuadrant]:
    known = tables.pocket()
    flags = product.version.product.tables["flag"].flags or {}
    values = {name: product.table(name)[row] for name in (*PARAMETERS, "chi2", "flag", "flat_ratio", "sky_ratio")}
    for ccd in np.flatnonzero(product.table("present")[row] == 1).tolist():
        for quadrant in range(len(QUADRANTS)):
            at = ccd, quadrant
            fitted = bool(np.isfinite(values["chi2"][at]))
            named = [name.replace("_", " ") for name, bit in flags.items() if int(values["flag"][at]) & bit]
            yield PocketOfQuadrant(
                f"CCD {CCDS[ccd]} q{QUADRANTS[quadrant]}",
                [
                    (_text(values[name][at], form) if fitted else "", _text(known[name][at], form))
                    for name, form in FORMS.items()
                ],
                _text(values["chi2"][at], ".2f"),
                [_text(values[f"{name}_ratio"][at], ".3f") for name, _ in POCKETS],
                "flagged" if named else "sound",
                ", ".join(named) if fitted else ", ".join(["no fit: the table's", *named]),
            )


def _text(value: float, form: str) -> str:
    return format(float(value), form).replace("-", "−").replace("e+0", "e") if np.isfinite(value) else ""


def _monitor(product: Product, night: int) -> Iterator[Chart]:
    """Draw the charge that trails over the table's, of the nights up to this one."""
    lines = [(label, by_night(product, f"{name}_ratio", (), last=night)) for name, label in POCKETS]
    yield from trend("charge that trails into the overscan, over the table's", lines)
