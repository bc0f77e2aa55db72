"""The numbers of masters and science against the thresholds of their recipe, and over the nights before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.recipe import Recipe
from ztfzarr.report.charts import Spark, spark
from ztfzarr.report.measures import MEASURES, Measure
from ztfzarr.report.render import counted
from ztfzarr.report.source import Product
from ztfzarr.store.products import FILTERS

NIGHTS: Final = 30  # that a trend goes back
CLOSE: Final = 0.8  # share of a threshold from which a value counts as close to it

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A measure of a night: texts of its median, range, worst place and threshold; ``word`` is the verdict."""

    title: str
    group: str
    unit: str
    median: str
    low: str
    high: str
    worst: str
    limit: str
    setting: str
    word: str
    detail: str
    trend: Spark | None


def judged_masters(product: Product, night: int, row: int) -> list[Judged]:
    """Judge the masters of a night: those in ``row`` of a version of bias, flat or pocket."""
    if product.kind in ("bias", "pocket"):
        made = product.table("present")[row] == 1
        return [_of_master(product, m, night, row, made, ()) for m in MEASURES[product.kind]]
    found = []
    for index, band in enumerate(FILTERS):
        made = product.table("present")[row, index] == 1
        if made.any():
            found += [_of_master(product, m, night, row, made, (index,), band) for m in MEASURES["flat"]]
    made = (product.table("present")[row] == 1).any(axis=0)
    return found + [_of_master(product, m, night, row, made, ()) for m in MEASURES["gain"]]


def _of_master(
    product: Product, measure: Measure, night: int, row: int, made: Any, place: tuple[int, ...], group: str = ""
) -> Judged:
    column: tuple[Any, ...] = (slice(None), *place)
    values = _scaled(product.table(measure.table)[column], measure)
    present = (product.table("present") == 1).reshape(len(product.night), -1).any(axis=1)
    rows = [
        r for r in np.argsort(product.night, kind="stable").tolist() if present[r] and product.night[r] <= night
    ]
    history = [values[r] for r in rows[-NIGHTS:] if r != row] + [values[row]]
    return judge(measure, values[row], made, product.recipe, history, group)


def judged_science(product: Product, night: int) -> Iterator[Judged]:
    """Judge the exposures of the sky of a night: sky and noise filter by filter, the rest together."""
    offsets = MEASURES["offset"] if product.recipe["science"]["amplifier_offset"] else ()
    yield from _judged_exposures(product, night, MEASURES["sky"], (*MEASURES["science"], *offsets))


def judged_stars(product: Product, night: int) -> Iterator[Judged]:
    """Judge the star tables of a night by the numbers of their entries; stars are not read."""
    yield from _judged_exposures(product, night, MEASURES["stars"], ())
    rows = product.rows_of(night)
    if np.isfinite(product.rows("wcs_rms", rows)).any():  # of fits to a catalogue alone
        yield from _judged_exposures(product, night, (), MEASURES["wcs"])


def _judged_exposures(
    product: Product, night: int, split: Sequence[Measure], whole: Sequence[Measure]
) -> Iterator[Judged]:
    """Judge entries of exposures, by numbers of each filter and by numbers of all."""
    nights = np.unique(product.night[product.night <= night])[-NIGHTS:]
    rows = np.flatnonzero(np.isin(product.night, nights))
    made = product.rows("present", rows) == 1
    bands, mine = product.rows("filter", rows), product.night[rows]
    for band, measure in [*((b, m) for b in FILTERS for m in split), *(("", m) for m in whole)]:
        fits = (bands == band) | (band == "")
        here = fits & (mine == night) & made.any(axis=1)
        if here.any():
            values = _scaled(product.rows(measure.table, rows), measure)
            history = [values[fits & (mine == n)] for n in nights.tolist()]
            yield judge(measure, values[here], made[here], product.recipe, history, band)


def _scaled(values: NDArray[Any], measure: Measure) -> Values:
    return np.asarray(values, np.float64) * measure.factor


def judge(
    measure: Measure, values: Values, made: NDArray[np.bool_], recipe: Recipe, history: list[Values], group: str
) -> Judged:
    """Compare numbers with a threshold, in words.

    Parameters
    ----------
    measure : Measure
        What they are.
    values : (..., ccd, [quadrant])
        Of the entries that are ``made`` (..., ccd) only.
    recipe : dict
        Says the threshold.
    history : list of arrays
        Values of the nights before and of this, for the trend.
    group : str
        Such as the filter.
    """
    whole = np.broadcast_to(made[..., np.newaxis] if values.ndim > made.ndim else made, values.shape)
    finite = whole & np.isfinite(values)
    limit = measure.limit(recipe)
    word, detail = verdict(np.abs(values - measure.about)[finite], int(whole.sum()) - int(finite.sum()), limit)
    numbers = values[finite]
    texts = [
        _text(v, measure.form)
        for v in ((np.median(numbers), numbers.min(), numbers.max()) if numbers.size else ())
    ]
    median, low, high = texts or ["", "", ""]
    return Judged(
        measure.title,
        group,
        measure.unit,
        median,
        low,
        high,
        _worst(values, finite, measure.about),
        limit_text(measure, limit),
        measure.setting,
        word,
        detail,
        _trend(history, measure),
    )


def _text(value: float, form: str) -> str:
    return format(float(value), form).replace("-", "−")


def verdict(distances: Values, lost: int, limit: float | None) -> tuple[str, str]:
    """Return a word for the worst and how many are so; what has no value is not known to be good."""
    if limit is None:
        return "no threshold", f"{lost} without a value" if lost else ""
    beyond = int((distances > limit).sum())
    if beyond:
        return "beyond", f"{beyond} of {distances.size + lost}"
    if lost:
        return "no value", f"{lost} of {distances.size + lost}"
    if limit and distances.size and distances.max() > CLOSE * limit:
        return "close", f"within {1 - CLOSE:.0%} of it"
    return "within", ""


def limit_text(measure: Measure, limit: float | None) -> str:
    """Write a threshold."""
    if limit is None:
        return ""
    digits = f"{limit:g}" + (f" {measure.unit}" if measure.unit else "")
    return f"{measure.about:g} ± {digits}" if measure.about else f"≤ {digits}"


def _worst(values: Values, finite: NDArray[np.bool_], about: float) -> str:
    """Name the quadrant that is furthest from the median, or from what the value should be."""
    if not finite.any():
        return ""
    centre = about or float(np.median(values[finite]))
    place = np.unravel_index(int(np.argmax(np.where(finite, np.abs(values - centre), -1.0))), values.shape)
    if values.shape[-1] == 4 and values.ndim > 1:
        return f"CCD {int(place[-2]) + 1} q{int(place[-1]) + 1}"
    return f"CCD {int(place[-1]) + 1}"


def _trend(history: list[Values], measure: Measure) -> Spark | None:
    rows = [v[np.isfinite(v)] for v in history]
    numbers = np.array([[np.median(v), v.min(), v.max()] if v.size else [np.nan] * 3 for v in rows]).T
    if numbers.size == 0:
        return None
    median = numbers[0]
    known = median[np.isfinite(median)]
    if not known.size:
        return None
    ends = " to ".join(_text(value, measure.form) for value in (known[0], known[-1]))
    text = f"medians of the last {counted(known.size, 'night')}, from {ends}"
    return spark(median, numbers[1], numbers[2], text)


def flagged_lines(product: Product, row: int) -> list[str]:
    """Name the quadrants of masters that are flagged, flag by flag."""
    flag, present = product.table("flag")[row], product.table("present")[row] == 1
    flag = np.where(present[..., np.newaxis], flag, 0).reshape(-1, len(CCDS), len(QUADRANTS))
    lines = []
    for i, band in enumerate(FILTERS if product.kind == "flat" else ("",)):
        for name, bit in (product.version.product.tables["flag"].flags or {}).items():
            found: dict[int, list[str]] = {}
            for ccd, quadrant in np.argwhere(flag[i] & bit).tolist():
                found.setdefault(ccd + 1, []).append(f"q{quadrant + 1}")
            named = ", ".join(f"CCD {ccd} {' '.join(quadrants)}" for ccd, quadrants in found.items())
            lines += [f"{band} {name.replace('_', ' ')}: {named}".strip()] if found else []
    return lines
