"""Numbers of the quadrants as a map of the focal plane, north up and east left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.plot.mosaic import quadrant_boxes

WIDTH: Final = 640.0
HEAD: Final = 18.0  # for the names above the top row

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scale:
    """The colours between ``low`` and ``high``, both as texts; some of the colours; what they mean."""

    low: str
    high: str
    colours: list[str]
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """A quadrant of a map: label, box in pixels, colour, number and its colour, and its place in a list."""

    where: str
    box: Box
    fill: str
    text: str
    ink: str
    order: int


@dataclass(frozen=True)
class FocalMap:
    """A number of each quadrant over the focal plane, north up, east left; ``names`` of CCDs as (x, y, text)."""

    title: str
    width: float
    height: float
    cells: list[Cell]
    names: list[tuple[float, float, str]]
    scale: Scale

    def number(self, where: str) -> str:
        """Return the number of a quadrant, by its label."""
        return next(cell.text for cell in self.cells if cell.where == where)


def focal_map(
    title: str, values: NDArray[np.float64], form: str, unit: str, *, cmap: str = "viridis"
) -> FocalMap | None:
    """Lay out a map of ``values`` (ccd, quadrant); None if there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    boxes, width, height = sky_boxes()
    cells = []
    for (ccd, quadrant), box in boxes.items():
        value, order = float(values[ccd - 1, quadrant - 1]), 4 * ccd + quadrant
        known = math.isfinite(value)
        fill, ink = colour((value - low) / ((high - low) or 1.0), cmap) if known else ("", "#000")
        cells.append(Cell(f"CCD {ccd} q{quadrant}", box, fill, format(value, form) if known else "", ink, order))
    scale = Scale(f"{low:{form}}{unit}", f"{high:{form}}{unit}", colours_of(cmap))
    return FocalMap(title, width, height, cells, ccd_names(boxes), scale)


def sky_boxes(width: float = WIDTH) -> tuple[dict[tuple[int, ...], Box], float, float]:
    """Return the boxes (x, y from the top, width, height) of all quadrants, and the width and height of all."""
    labels = {"ccd": list(CCDS), "quadrant": list(QUADRANTS)}
    shape = (len(CCDS), len(QUADRANTS), 100, 100)
    blank = xr.DataArray(np.broadcast_to(np.float32(0), shape), labels, ("ccd", "quadrant", "y", "x"))
    found = quadrant_boxes(blank, "west")
    right = max(x + w for x, _, w, _ in found.values()) + 0.5
    top = max(y + h for _, y, _, h in found.values()) + 0.5
    unit = width / right
    boxes = {
        key: tuple(round(v, 1) for v in ((x + 0.5) * unit, HEAD + (top - y - h - 0.5) * unit, w * unit, h * unit))
        for key, (x, y, w, h) in found.items()
    }
    return boxes, width, round(HEAD + top * unit, 1)  # type: ignore[return-value]


def ccd_names(boxes: dict[tuple[int, ...], Box]) -> list[tuple[float, float, str]]:
    """Place the CCDs' names above them."""
    names = []
    for ccd in CCDS:
        mine = [boxes[ccd, q] for q in QUADRANTS]
        left, top = min(b[0] for b in mine), min(b[1] for b in mine)
        names.append((round(left + mine[0][2], 1), round(top - 3.5, 1), f"CCD {ccd}"))
    return names


def colour(fraction: float, cmap: str) -> tuple[str, str]:
    """Return a colour of a map of matplotlib's, and black or white, whichever reads better on it."""
    from matplotlib import colormaps

    red, green, blue = (float(v) for v in colormaps[cmap](fraction)[:3])
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    light = float(np.dot([0.2126, 0.7152, 0.0722], linear))  # WCAG 2 relative luminance
    rgb = "".join(f"{round(v * 255):02x}" for v in (red, green, blue))
    return f"#{rgb}", "#000" if light > 0.179 else "#fff"


def colours_of(cmap: str) -> list[str]:
    """Return nine colours of a map, for its scale."""
    return [colour(i / 8, cmap)[0] for i in range(9)]
