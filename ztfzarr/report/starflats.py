"""Starflats of a night: the maps that cover it or that its science used, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.plot.mosaic import mosaic
from ztfzarr.report.charts import Chart, Series, chart
from ztfzarr.report.measures import RADIUS, REPEATABILITY, STARFLAT, Measure
from ztfzarr.report.pictures import Picture, plane_picture
from ztfzarr.report.quality import limit_text, verdict
from ztfzarr.report.source import Product, dashed
from ztfzarr.starflat.nodes import between_nodes
from ztfzarr.store.products import FILTERS

SIDE: Final = 36  # pixels of a quadrant in the pictures: 15 nodes and what is between them
BRIGHT: Final = 3  # bins of magnitude, the brightest, by which repeatability is judged
MAPS: Final = (
    ("delta", "map δ", "RdBu_r"),
    ("error", "error of δ, by jackknife", "viridis"),
    ("residual_before", "m − m̃ without the map", "RdBu_r"),
    ("residual_after", "m − m̃ with the map", "RdBu_r"),
)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Number:
    """A number of a starflat: texts of it and of its threshold; ``word`` is the verdict."""

    title: str
    value: str
    limit: str
    word: str


@dataclass(frozen=True)
class StarflatPart:
    """A starflat of a filter: its name, nights and use, pictures, numbers and charts; ``measured`` is a count."""

    name: str
    band: str
    note: str
    measured: str
    pictures: list[Picture]
    numbers: list[Number]
    charts: list[Chart]


def starflats(products: list[Product], science: Product | None, night: int, version: str) -> list[StarflatPart]:
    """List the starflats of ``version`` that cover a night, and those that its science was made with."""
    named = _used(products, science)
    used_bands = set() if science is None or named == "off" else _bands(science, night)
    found = []
    for product in (p for p in products if p.kind == "starflat" and p.version.name in (version, named)):
        for index in np.flatnonzero(product.table("present") == 1).tolist():
            used = product.version.name == named and FILTERS[index] in used_bands
            first, last = (int(product.table(name)[index]) for name in ("first_night", "last_night"))
            if used or (first <= night <= last and product.version.name == version):
                made = "" if science is None else f"; the night's science is made with{'' if used else 'out'} it"
                found.append(_part(product, index, f"Of {_span(first, last)}{made}."))
    return found


def _span(first: int, last: int) -> str:
    return " to ".join(dict.fromkeys(dashed(night) for night in (first, last)))


def _used(products: list[Product], science: Product | None) -> str:
    """Return the version of the starflat that science was made with, itself or by its flats; ``off`` if none."""
    if science is None:
        return "off"
    settings = science.recipe["science"]
    flats = [p.recipe["flat"] for p in products if p.kind == "flat" and p.version.name == settings["flat"]]
    return next((str(one["starflat"]) for one in (settings, *flats) if one["starflat"] != "off"), "off")


def _bands(science: Product, night: int) -> set[str]:
    """Return the filters of the science of a night that is made."""
    rows = science.rows_of(night)
    made = (science.rows("present", rows) == 1).any(axis=1)
    return {str(band) for band in science.rows("filter", rows)[made].tolist()}


def _part(product: Product, index: int, note: str) -> StarflatPart:
    name = f"{product.name} {FILTERS[index]}"
    pictures, numbers = list(_pictures(product, index, name)), list(_numbers(product, index))
    measured = f"{int(product.table('measurements')[index]):,} measurements"
    return StarflatPart(name, FILTERS[index], note, measured, pictures, numbers, list(_charts(product, index)))


def _pictures(product: Product, index: int, name: str) -> Iterator[Picture]:
    maps = {table: 1000 * product.table(table)[index].astype(np.float64) for table, _, _ in MAPS}
    for table, title, cmap in MAPS:
        values = maps[table]
        known = np.abs(values[np.isfinite(values)])
        if known.size:
            # Residuals with the map are drawn as those without it, to be seen against them.
            like = np.abs(maps["residual_before"] if table.startswith("residual") else values)
            largest = float(np.nanpercentile(like, 98)) or 1.0
            limits = (0.0, float(known.max()) or 1.0) if table == "error" else (-largest, largest)
            alt = f"{title} of {name}, focal plane, north up and east left"
            ccds = (np.flatnonzero(np.isfinite(values).any(axis=(1, 2, 3))) + 1).tolist()
            yield plane_picture(_mosaic(values, table), ccds, title, alt, limits, cmap, "mmag")


def _mosaic(values: Values, table: str) -> xr.DataArray:
    """Lay maps, (ccd, quadrant, cell_y, cell_x), over the focal plane; residuals as blocks about their nodes."""
    pixels: NDArray[np.floating] = between_nodes(values, (SIDE, SIDE))
    if table.startswith("residual"):
        places = [np.rint(np.linspace(0, n - 1, SIDE)).astype(int) for n in values.shape[2:]]
        pixels = values[:, :, places[0][:, np.newaxis], places[1]]
    labels: dict[str, Any] = {"ccd": list(CCDS), "quadrant": list(QUADRANTS)}
    labels |= {"y": np.arange(SIDE), "x": np.arange(SIDE)}
    return mosaic(xr.DataArray(pixels.astype(np.float32), labels, ("ccd", "quadrant", "y", "x")))


def _numbers(product: Product, index: int) -> Iterator[Number]:
    def of(name: str) -> Any:
        return product.table(name)[index]

    yield Number("measurements", f"{int(of('measurements')):,} of {int(of('stars')):,} stars", "", "no threshold")
    for measure in STARFLAT:
        yield _judged(measure, float(of(measure.table)) * measure.factor)
        if measure.table == "half_sample":
            before = _text(float(of("half_sample_before")), ".3f")
            yield Number("the same without a map", before, "", "no threshold")
    yield _repeated(_bright(of("repeatability_after"), of("repeatability_expected")))
    for radius, value in zip(product.table("radius").tolist(), of("radius_difference").tolist(), strict=True):
        one = _judged(RADIUS, 1000 * float(value))
        yield Number(f"map of an aperture of {radius} pixels, rms difference", one.value, one.limit, one.word)
    for axis, where in (("u", "east"), ("v", "north")):
        slope, error = (1000 * float(of(f"slope_{axis}{kind}")) for kind in ("", "_error"))
        value = "undetermined" if np.isnan(slope) else f"{_text(slope, '.2f')} ± {error:.2f} mmag/degree"
        yield Number(f"slope to the {where}", value, "", "no threshold")
    k, error = float(of("extinction")), float(of("extinction_error"))
    given = f"{_text(k, '.4f')}, given" if error == 0 else f"{_text(k, '.4f')} ± {error:.4f}"
    yield Number("extinction k, mag an airmass", given, "", "no threshold")


def _judged(measure: Measure, value: float) -> Number:
    unit = f" {measure.unit}" if measure.unit else ""
    text = f"{_text(value, measure.form)}{unit}" if np.isfinite(value) else "none"
    known = np.array([abs(value - measure.about)] if np.isfinite(value) else [], np.float64)
    word = verdict(known, 1 - known.size, measure.most)[0]
    return Number(measure.title, text, limit_text(measure, measure.most), word)


def _repeated(ratio: float) -> Number:
    """Judge what stars scatter by, over what is expected: less is no fault."""
    measure = replace(REPEATABILITY, about=1.0, most=(REPEATABILITY.most or 1.0) - 1)
    word = _judged(measure, max(ratio, 1.0) if np.isfinite(ratio) else ratio).word
    return replace(_judged(REPEATABILITY, ratio), word=word)


def _text(value: float, form: str) -> str:
    return format(value, form).replace("-", "−") if np.isfinite(value) else "none"


def _bright(after: Values, expected: Values) -> float:
    """Return the ratio of scatter with the map to that expected, of the brightest bins that have any; else NaN."""
    known = np.flatnonzero(np.isfinite(after) & np.isfinite(expected) & (expected > 0))[:BRIGHT]
    return float(np.median(after[known] / expected[known])) if known.size else float("nan")


def _charts(product: Product, index: int) -> Iterator[Chart]:
    made = (_repeatability(product, index), _by_exposure(product, index), _by_ccd(product, index),
            _joins(product, index))  # fmt: skip
    yield from (one for one in made if one is not None)


def _repeatability(product: Product, index: int) -> Chart | None:
    x = product.table("brightness").astype(np.float64)
    lines = (("after", "with the map"), ("before", "without it"), ("expected", "noise model and floor"))
    tables = [1000 * product.table(f"repeatability_{name}")[index].astype(np.float64) for name, _ in lines]
    known = np.isfinite(tables).any(axis=0)
    series = [
        Series(label, x[known], y[known], i)
        for i, ((_, label), y) in enumerate(zip(lines, tables, strict=True), 1)
    ]
    title = "repeatability of stars, mmag"
    return chart(title, series, x_label="instrumental magnitude", y_label=title)


def _by_exposure(product: Product, index: int) -> Chart | None:
    """Draw the residuals of exposures in their order."""
    rows = np.flatnonzero(np.isfinite(product.table("exposure_residual")))
    rows = rows[product.rows("exposure_filter", rows) == FILTERS[index]]
    rows = rows[np.argsort(product.rows("exposure", rows), kind="stable")]
    y = 1000 * product.table("exposure_residual")[rows].astype(np.float64)
    title = "rms of m − model of each exposure, mmag"
    series = [Series("", np.arange(1, len(rows) + 1, dtype=np.float64), y, 1, dots=True)]
    return chart(title, [*series, _floor(len(rows))], x_label="exposure", y_label=title)


def _floor(count: int) -> Series:
    """Return a line at 0, which charts of residuals begin at."""
    return Series("", np.array([1.0, max(count, 1)]), np.zeros(2), 0)


def _by_ccd(product: Product, index: int) -> Chart | None:
    y = 1000 * product.table("ccd_residual")[index].astype(np.float64)
    if not np.isfinite(y).any():
        return None
    title = "rms of m − model of each CCD, mmag"
    texts = [(float(ccd), str(ccd)) for ccd in CCDS]
    series = [Series("", np.array(CCDS, np.float64), y, 1, dots=True), _floor(len(CCDS))]
    return chart(title, series, x_label="CCD", y_label=title, x_texts=texts)


def _joins(product: Product, index: int) -> Chart | None:
    distance = product.table("join").astype(np.float64)
    lines = (("after", "with the map"), ("before", "without it"))
    tables = [1000 * product.table(f"join_{name}")[index].astype(np.float64) for name, _ in lines]
    series = [
        Series(label, np.log10(distance), y, i)
        for i, ((_, label), y) in enumerate(zip(lines, tables, strict=True), 1)
    ]
    title = "mean m − m̃ by distance to a join of quadrants, mmag"
    texts = [(np.log10(v), f"{v:g}") for v in (1, 3, 10, 30, 100, 300, 1000)]
    return chart(title, series, x_label="pixels", y_label=title, x_texts=texts)
