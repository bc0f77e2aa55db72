"""The axes of a picture: place, outlines, labels of CCDs and quadrants, title."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.plot.mosaic import quadrant_boxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE: Final = (7.2, 7.2)  # inches
PALE, LINE, INK = "#eeeeee", "#9a9a9a", "#444444"

Extent = tuple[float, float, float, float]


def new_axes() -> Axes:
    """Return the axes of a new figure of pyplot's; ImportError, saying what to install, without matplotlib."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'ztfzarr[plot]'") from None
    axes: Axes = pyplot.subplots(figsize=SIZE, layout="compressed")[1]
    return axes


def draw_pixels(ax: Axes, picture: xr.DataArray, pixels: NDArray[Any], **style: Any) -> Any:
    """Draw the pixels of a mosaic where its coordinates say: stored pixels if it is one quadrant."""
    extent = extent_of(picture)
    drawn = ax.imshow(pixels, origin="lower", extent=extent, interpolation="nearest", zorder=1, **style)
    ax.set_xlim(*extent[:2])
    ax.set_ylim(*extent[2:])
    return drawn


def extent_of(picture: xr.DataArray) -> Extent:
    """Return left, right, bottom and top edge: of stored columns and rows for a quadrant, else of the mosaic."""
    north, across = picture.dims[-2:]
    one = bool(np.isfinite(picture["x"]).all()) and len(np.unique(picture["x"])) == picture.sizes[across]
    left, right = _edges(picture["x" if one else across].values)
    bottom, top = _edges(picture["y" if one else north].values)
    return left, right, bottom, top


def _edges(centres: NDArray[Any]) -> tuple[float, float]:
    half = float(centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2 or 0.5
    return float(centres[0]) - half, float(centres[-1]) + half


def furnish(ax: Axes, image: xr.DataArray, picture: xr.DataArray, title: str | None) -> None:
    """Add outlines, labels, names of the axes and the title; ``image`` is what was joined into ``picture``."""
    across = str(picture.dims[-1])
    if "quadrant" in image.dims:
        _outline(ax, image, across)
    _name_axes(ax, image, across)
    head, _, rest = (described(image) if title is None else title).partition("\n")
    ax.set_title(head, loc="left", fontsize=12, fontweight="bold", pad=22 if rest else 8)
    ax.text(0, 1, rest, transform=ax.transAxes, va="bottom", fontsize=9, color=INK, linespacing=1.8)


def _name_axes(ax: Axes, image: xr.DataArray, across: str) -> None:
    """Name the directions, and what the ticks count: stored pixels of a quadrant, the mosaic's of a CCD."""
    arrows = "← east      west →" if across == "west" else "← west      east →"
    ax.tick_params(labelsize=8, colors=INK)
    ax.spines[:].set_visible("quadrant" not in image.dims)
    if "ccd" in image.dims:
        ax.set(xticks=[], yticks=[], xlabel=arrows, ylabel="north →")
    elif "quadrant" in image.dims:
        ax.set(xlabel=f"{arrows}   (pixels)", ylabel="north →   (pixels)")
    else:
        ax.set(xlabel=f"stored column   ({arrows})", ylabel="stored row   (north up)")
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)


def _outline(ax: Axes, image: xr.DataArray, across: str) -> None:
    """Draw the quadrants' borders and names; those that the image lacks are empty frames."""
    from matplotlib.patches import Rectangle

    here = {d: set(image[d].values.tolist()) for d in ("ccd", "quadrant") if d in image.dims}
    for key, (x, y, width, height) in quadrant_boxes(image, across).items():
        present = all(label in labels for label, labels in zip(key, here.values(), strict=True))
        ax.add_patch(
            Rectangle((x, y), width, height, fill=False, edgecolor=LINE if present else PALE, lw=0.4, zorder=2)
        )
        if present:
            ax.add_patch(Rectangle((x, y), width, height, facecolor=PALE, edgecolor="none", zorder=0))
            _name_quadrant(ax, key, (x, y, width, height), across)
    if "ccd" in image.dims:
        _name_ccds(ax, image, across)


def _name_quadrant(ax: Axes, key: tuple[int, ...], box: Extent, across: str) -> None:
    """Write q1-q4 into the corner of the CCD that the quadrant has."""
    from matplotlib.patheffects import withStroke

    x, y, width, height = box
    q = key[-1]
    right = (q in (1, 4)) == (across == "east")
    place = x + width * (0.94 if right else 0.06), y + height * (0.94 if q in (1, 2) else 0.06)
    small = len(key) > 1
    ax.text(
        *place, f"q{q}", ha="right" if right else "left", va="top" if q in (1, 2) else "bottom", color="black",
        fontsize=5 if small else 10, path_effects=[withStroke(linewidth=1.5, foreground="white")], zorder=3,
    )  # fmt: skip


def _name_ccds(ax: Axes, image: xr.DataArray, across: str) -> None:
    """Write the CCDs' names into the gaps above them."""
    boxes = quadrant_boxes(image, across)
    for ccd in sorted({key[0] for key in boxes}):
        mine = np.array([box for key, box in boxes.items() if key[0] == ccd])
        left, width = mine[:, 0].min(), 2 * mine[0, 2]
        top = (mine[:, 1] + mine[:, 3]).max()
        ax.text(left + width / 2, top, f"CCD {ccd}", ha="center", va="bottom", fontsize=6.5, color=INK, zorder=3)
    ax.set_ylim(ax.get_ylim()[0], ax.get_ylim()[1] * 1.02)


def described(image: xr.DataArray) -> str:
    """Say what an image is, from its name and scalar coordinates: a line of what, and a line of when and where."""
    scalar = {str(n): c.values[()] for n, c in image.coords.items() if not c.ndim}
    parts = []
    if "exposure" in scalar:
        time = f"{np.datetime_as_string(scalar['time'], 's').replace('T', ' ')} UTC" if "time" in scalar else ""
        parts += [f"exposure {scalar['exposure']}", time]
    elif "night" in scalar:
        parts.append(f"night {dashed(int(scalar['night']))}")
    if scalar.get("filter") is not None:
        parts.append(str(scalar["filter"]))
    if int(scalar.get("led", -1)) > 0:
        parts.append(f"LED {scalar['led']}")
    if "ccd" in scalar:
        parts.append(f"CCD {scalar['ccd']}")
    if "quadrant" in scalar:
        parts.append(f"q{scalar['quadrant']}")
    return f"{image.name or 'image'}\n{' · '.join(p for p in parts if p)}"


def dashed(night: int) -> str:
    """Write a night as 2020-08-01."""
    text = f"{night:08d}"
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
