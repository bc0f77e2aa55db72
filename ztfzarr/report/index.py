"""The page over all nights of a store."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.reduce.listing import ProductNight, product_nights
from ztfzarr.report.arrived import RefusedFile, refused_unknown
from ztfzarr.report.charts import Chart, Series, chart
from ztfzarr.report.source import Product, Raw, dashed, ranges
from ztfzarr.store.listing import nights
from ztfzarr.store.products import FILTERS
from ztfzarr.store.refused import refused_nights

TICKS: Final = 5  # dates along an axis
POCKETS: Final = (("flat", "after flats"), ("sky", "after the sky"))


@dataclass(frozen=True)
class IndexRow:
    """A night: its page if there is one, what came in, and for each product a word and its counts."""

    night: str
    href: str
    kinds: str
    ccds: str
    files: int
    missing: int
    refused: bool
    products: list[tuple[str, str]]


@dataclass(frozen=True)
class IndexPage:
    """All that the page over nights shows, the newest night first."""

    location: str
    columns: list[str]
    rows: list[IndexRow]
    charts: list[Chart]
    unknown: list[RefusedFile]
    more_unknown: int


def index_page(raw: Raw, products: list[Product], pages: Collection[str], version: str) -> IndexPage:
    """Gather what the page over nights shows; ``pages`` are the nights, as 2020-08-01, that have one."""
    counted: dict[int, dict[str, ProductNight]] = {}
    for one in product_nights(raw.objects):
        counted.setdefault(one.night, {})[one.group] = one
    refused = set(refused_nights(raw.objects))
    rows = []
    for night in reversed(nights(raw.objects)):
        name = dashed(night.night)
        made = counted.get(night.night, {})
        rows.append(
            IndexRow(
                name,
                f"{name}.html" if name in pages else "",
                ", ".join(f"{count} {kind}" for kind, count in night.kinds.items()),
                ranges(night.ccds),
                night.files,
                night.missing,
                night.night in refused,
                [_counts(made.get(product.name)) for product in products],
            )
        )
    unknown, more = refused_unknown(raw)
    chosen = {p.kind: p for p in products if p.version.name == version}
    return IndexPage(raw.objects.location, [p.name for p in products], rows, list(_charts(chosen)), unknown, more)


def _counts(night: ProductNight | None) -> tuple[str, str]:
    """Return a word of ok, close, bad or none, and the counts in words."""
    if night is None or not night.made + night.missing:
        return "none", "none"
    faults = [("flagged", night.flagged), ("missing", night.missing), ("stale", night.stale)]
    named = [f"{count} {what}" for what, count in faults if count]
    word = "bad" if night.flagged else "close" if named else "ok"
    return word, ", ".join([f"{night.made} made", *named])


def _charts(chosen: dict[str, Product]) -> Iterator[Chart]:
    """Draw the trends over all nights of the masters' numbers."""
    if "bias" in chosen:
        for table, title in (("read_noise", "read noise"), ("bias_level", "level of the master bias")):
            yield from trend(f"{title}, DN", [("median of the quadrants", by_night(chosen["bias"], table, ()))])
    if "flat" in chosen:
        yield from trend("gain, e⁻/DN", [("median of the quadrants", by_night(chosen["flat"], "gain", ()))])
        bands = [(band, by_night(chosen["flat"], "scatter", (i,), 100)) for i, band in enumerate(FILTERS)]
        yield from trend("scatter of the master flats, %", bands)
    if "pocket" in chosen:
        ratios = [(name, by_night(chosen["pocket"], f"{table}_ratio", ())) for table, name in POCKETS]
        yield from trend("charge trailing into the overscan, over the table's", ratios)


Numbers = tuple[NDArray[np.float64], NDArray[np.float64]]


def by_night(
    product: Product, table: str, place: tuple[int, ...], factor: float = 1.0, last: int = 99999999
) -> Numbers:
    """Return days and (median, 5 %, 95 %) over the quadrants of each night to ``last`` that has values."""
    column: tuple[Any, ...] = (slice(None), *place)
    values = product.table(table)[column].reshape(len(product.night), -1).astype(np.float64) * factor
    values[product.night > last] = np.nan
    order = [row for row in np.argsort(product.night, kind="stable") if np.isfinite(values[row]).any()]
    days = np.array([_day(int(product.night[row])) for row in order], np.float64)
    rows = [np.nanpercentile(values[row], [50, 5, 95]) for row in order]
    return days, np.array(rows, np.float64).reshape(-1, 3).T


def _day(night: int) -> int:
    return datetime.date.fromisoformat(dashed(night)).toordinal()


def trend(title: str, lines: list[tuple[str, Numbers]]) -> Iterator[Chart]:
    """Draw numbers of :func:`by_night`; the band of one line is drawn, not of several."""
    known = [(label, days, numbers) for label, (days, numbers) in lines if len(days)]
    if not known:
        return
    single = len(known) == 1
    series = [
        Series(label, days, numbers[0], style, *((numbers[1], numbers[2]) if single else ()))
        for style, (label, days, numbers) in enumerate(known, 1)
    ]
    days = np.unique(np.concatenate([days for _, days, _ in known]))
    picked = days[np.unique(np.linspace(0, len(days) - 1, min(TICKS, len(days))).round().astype(int))]
    texts = [(float(d), datetime.date.fromordinal(int(d)).isoformat()) for d in picked]
    found = chart(f"{title}, over the nights", series, y_label=title, x_texts=texts, size=(460, 230))
    if found is not None:
        yield found
