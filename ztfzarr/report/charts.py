"""Charts as numbers for SVG: lines, bands, trends, and maps of the focal plane; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TICKS: Final = 4
SPARK: Final = (132, 30)  # width and height of a trend in a table

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A line of a chart: ``style`` is the number of its colour and dash, ``low`` and ``high`` its band."""

    label: str
    x: Values
    y: Values
    style: int = 0
    low: Values | None = None
    high: Values | None = None
    dots: bool = False


@dataclass(frozen=True)
class Drawn:
    """A series in the chart's pixels: points of its line, of its band, and of single dots."""

    label: str
    style: int
    path: str
    band: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart: its box in pixels, ticks as (pixel, text), series; ``mark`` is a vertical line with its text."""

    title: str
    width: int
    height: int
    box: tuple[float, float, float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_label: str
    y_label: str
    series: list[Drawn]
    mark: tuple[float, str] | None = None
    zero: float | None = None


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "",
    y_label: str = "",
    x_texts: Sequence[tuple[float, str]] | None = None,
    mark: tuple[float, str] | None = None,
    size: tuple[int, int] = (420, 220),
) -> Chart | None:
    """Lay out a chart.

    Parameters
    ----------
    title : str
        What it shows, for those who do not see it too.
    series : sequence of Series
        NaN breaks a line.
    x_label, y_label : str
        With units.
    x_texts : sequence of (value, text), optional
        Ticks of the axis; default round numbers.
    mark : (value, text), optional
        A vertical line.
    size : (int, int)
        Width and height, px.

    Returns
    -------
    Chart or None
        None if there is nothing to draw.
    """
    xs = _finite([s.x for s in series])
    ys = _finite([v for s in series for v in (s.y, s.low, s.high) if v is not None])
    if not len(xs) or not len(ys):
        return None
    box = _box(size, bool(x_label), x_texts is not None)
    x_low, x_high = _apart(float(xs.min()), float(xs.max()), 0.02)
    y_low, y_high = _apart(float(ys.min()), float(ys.max()), 0.08)
    across = _scale(x_low, x_high, box[0], box[0] + box[2])
    up = _scale(y_low, y_high, box[1] + box[3], box[1])
    return Chart(
        title,
        *size,
        box,
        [(across(v), text) for v, text in (_ticks(x_low, x_high) if x_texts is None else x_texts)],
        [(up(v), text) for v, text in _ticks(y_low, y_high)],
        x_label,
        y_label,
        [_drawn(s, across, up) for s in series],
        None if mark is None else (across(mark[0]), mark[1]),
        up(0.0) if y_low < 0 < y_high else None,
    )


def _box(size: tuple[int, int], labelled: bool, dated: bool) -> tuple[float, float, float, float]:
    """Return left, top, width and height of the axes: room for their texts is left, for dates on the right too."""
    left, right, top, bottom = 52.0, 36.0 if dated else 10.0, 10.0, 36.0 if labelled else 22.0
    return left, top, size[0] - left - right, size[1] - top - bottom


def _finite(values: Sequence[Any]) -> Values:
    joined: Values = np.concatenate([np.empty(0), *(np.asarray(v, np.float64).ravel() for v in values)])
    return joined[np.isfinite(joined)]


def _apart(low: float, high: float, margin: float) -> tuple[float, float]:
    pad = (high - low) * margin or max(abs(low) * 0.02, 0.5)
    return low - pad, high + pad


def _scale(low: float, high: float, start: float, stop: float) -> Any:
    return lambda value: round(start + (value - low) / (high - low) * (stop - start), 1)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return some round numbers between two."""
    step = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= TICKS + 1)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    values = [i * step for i in range(first, math.floor(high / step) + 1)]
    return [(v, f"{v:,.{digits}f}".replace("-", "−")) for v in values]


def _drawn(series: Series, across: Any, up: Any) -> Drawn:
    points = list(zip(series.x.tolist(), series.y.tolist(), strict=True))
    band = ""
    if series.low is not None and series.high is not None:
        good = np.isfinite(series.low) & np.isfinite(series.high)
        there = [
            f"{across(x)},{up(y)}"
            for x, y in zip(series.x[good].tolist(), series.high[good].tolist(), strict=True)
        ]
        back = [
            f"{across(x)},{up(y)}" for x, y in zip(series.x[good].tolist(), series.low[good].tolist(), strict=True)
        ]
        band = " ".join(there + back[::-1])
    finite = [(across(x), up(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    lonely = series.dots or len(finite) == 1
    return Drawn(
        series.label,
        series.style,
        "" if series.dots else _path(points, across, up),
        band,
        finite if lonely else [],
    )


def _path(points: list[tuple[float, float]], across: Any, up: Any) -> str:
    """Write an SVG path; NaN lifts the pen."""
    parts, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        parts.append(f"{pen}{across(x)} {up(y)}")
        pen = "L"
    return "".join(parts)


@dataclass(frozen=True)
class Spark:
    """A trend in a table: line, band and last dot in pixels; ``text`` says it in words."""

    width: int
    height: int
    path: str
    band: str
    dot: tuple[float, float]
    text: str


def spark(median: Values, low: Values, high: Values, text: str) -> Spark | None:
    """Lay out a trend over nights, the last of which is the report's; None of fewer than two."""
    width, height = SPARK
    if int(np.isfinite(median).sum()) < 2 or not np.isfinite(median[-1]):
        return None
    x = np.arange(len(median), dtype=np.float64)
    values = _finite([low, high, median])
    across = _scale(0.0, float(x[-1]), 4.0, width - 5.0)
    up = _scale(*_apart(float(values.min()), float(values.max()), 0.0), height - 4.0, 4.0)
    drawn = _drawn(Series("", x, median, low=low, high=high), across, up)
    return Spark(width, height, drawn.path, drawn.band, (across(float(x[-1])), up(float(median[-1]))), text)
