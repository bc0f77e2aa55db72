"""Many small images on one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.plot.axes import INK, PALE, draw_pixels
from ztfzarr.plot.mosaic import mosaic
from ztfzarr.plot.stretch import zscale

COLUMNS: Final = 10
CELL: Final = (1.25, 1.55)  # inches
HEAD: Final = 0.5  # inches
DPI: Final = 120
MARK: Final = "#D55E00"


def contact_sheet(
    images: Sequence[xr.DataArray], labels: Sequence[str], title: str, places: NDArray[np.float64]
) -> bytes:
    """Draw stamps side by side, north up, east left, each with its own stretch.

    Parameters
    ----------
    images : sequence of (y, x)
        Stored orientation.
    labels : sequence of str
        One an image.
    title : str
        Of the page.
    places : (image, 3)
        Stored column and row of the position looked for, and its uncertainty, drawn as a cross and a circle.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height = rows * CELL[1] + HEAD
    figure = Figure(figsize=(max(columns * CELL[0], 5), height))
    figure.text(0.01, 1 - 0.25 / height, title, va="center", fontsize=10, fontweight="bold")
    note = f"north up, east left; circle: position ± {places[:, 2].max():.0f} pixels"
    figure.text(0.01, 1 - 0.42 / height, note, va="center", fontsize=7, color=INK)
    width = CELL[0] / float(figure.get_figwidth())
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, bottom = column * width, 1 - (HEAD + (row + 1) * CELL[1] - 0.02) / height
        ax = figure.add_axes((left + 0.03 * width, bottom, 0.94 * width, 0.94 * CELL[0] / height))
        _draw(ax, image, labels[i], places[i])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _draw(ax: Any, image: xr.DataArray, label: str, place: NDArray[np.float64]) -> None:
    from matplotlib.patches import Circle

    picture = mosaic(image)
    low, high = zscale(picture.values)
    ax.set_facecolor(PALE)
    draw_pixels(ax, picture, picture.values, vmin=low, vmax=high, cmap="gray_r")
    ax.add_patch(Circle((place[0], place[1]), place[2], fill=False, edgecolor=MARK, lw=0.8, zorder=3))
    ax.plot(place[0], place[1], "+", color=MARK, ms=5, mew=0.8, zorder=3)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(label, fontsize=5.5, color=INK, pad=2, linespacing=1.1)
