"""The exposures of the sky of a night, and which of them to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.report.render import counted
from ztfzarr.report.source import Product, Raw, dashed

LISTED: Final = 1000  # exposures of a page: a long winter night has some 900


@dataclass(frozen=True)
class Exposure:
    """An exposure of the sky: texts for a table; ``word`` and ``detail`` say what is flagged."""

    number: int
    time: str
    filter: str
    field: str
    exptime: str
    airmass: str
    files: int
    made: int
    sky: str
    noise: str
    word: str
    detail: str


def exposures(raw: Raw, night: int, science: Product | None) -> list[Exposure]:
    """List the exposures of the sky of a night, by time; :data:`LISTED` at most."""
    rows = sky_rows(raw, night)[:LISTED]
    found = _Found(science, rows)
    return [_exposure(raw, int(row), i, found) for i, row in enumerate(rows)]


def sky_rows(raw: Raw, night: int) -> NDArray[np.intp]:
    """Return the rows of raw of the exposures of the sky of a night that have any file, by time."""
    rows = raw.rows_of(night)
    chosen = (raw["imgtype"][rows] == "object") & raw["present"][rows].any(axis=1)
    return np.asarray(rows[chosen])


class _Found:
    """What a version of science says of some rows of raw, which are its own; rows that came since are not made."""

    def __init__(self, science: Product | None, rows: NDArray[np.intp]) -> None:
        self.made = np.zeros((len(rows), 16), bool)
        self.sky, self.noise = (np.full((len(rows), 16, 4), np.nan) for _ in range(2))
        self.flag = np.zeros((len(rows), 16, 4), np.uint8)
        self.meanings: dict[str, int] = {}
        if science is None:
            return
        self.meanings = dict(science.version.product.tables["flag"].flags or {})
        known = rows < len(science.night)
        self.made[known] = science.rows("present", rows[known]) == 1
        for name in ("sky", "noise", "flag"):
            getattr(self, name)[known] = science.rows(name, rows[known])


def _exposure(raw: Raw, row: int, place: int, found: _Found) -> Exposure:
    made = found.made[place]
    flag = np.where(made[:, np.newaxis], found.flag[place], 0)
    names = [
        f"{name.replace('_', ' ')}: {counted(int(((flag & bit) != 0).sum()), 'quadrant')}"
        for name, bit in found.meanings.items()
        if ((flag & bit) != 0).any()
    ]
    word = "not made" if not made.any() else "flagged" if names else "sound"
    return Exposure(
        int(raw["exposure"][row]),
        str(np.datetime_as_string(np.datetime64(int(raw["time"][row]), "us"), "s"))[11:],
        str(raw["filter"][row]),
        f"{int(raw['field'][row]):06d}",
        f"{float(raw['exptime'][row]):g}",
        f"{float(raw['airmass'][row]):.2f}",
        int(raw["present"][row].sum()),
        int(made.sum()),
        _median(found.sky[place][made], ".1f"),
        _median(found.noise[place][made], ".2f"),
        word,
        ", ".join(names),
    )


def _median(values: NDArray[np.float64], form: str) -> str:
    known = values[np.isfinite(values)]
    return format(float(np.median(known)), form).replace("-", "−") if known.size else ""


def spread_out(listed: list[Exposure], count: int) -> Iterator[Exposure]:
    """Choose exposures to show: all, or ``count`` spread evenly over the night."""
    places = np.unique(np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int))
    return (listed[place] for place in places.tolist())


def seconds_of_day(raw: Raw, rows: NDArray[np.intp], night: int) -> NDArray[np.float64]:
    """Return the time of exposures in seconds from 0 h UTC of their night's date."""
    start = np.datetime64(dashed(night), "us").astype(np.int64)
    return np.asarray((raw["time"][rows] - start) / 1e6, np.float64)
