"""Pictures of images in DN, ratios or counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import xarray as xr

from ztfzarr.plot.axes import draw_pixels, furnish, new_axes
from ztfzarr.plot.mosaic import GAPS, camera_mosaic, check_labels, mosaic
from ztfzarr.plot.rebin import block_mean
from ztfzarr.plot.stretch import Limits, symmetric, zscale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rebin = Callable[[xr.DataArray, int], xr.DataArray]
Stretch = Callable[[Any], Limits]

# Of the longer side of a picture: fewer than the axes have at 200 dpi, or single columns would fall between them.
PIXELS: Final = 1050
UNITS: Final = {"1": "", "DN2": "DN²", "DN": "DN"}


def image(
    array: xr.DataArray,
    *,
    ax: Axes | None = None,
    stretch: Stretch = zscale,
    rebin: Rebin = block_mean,
    cmap: str = "viridis",
    title: str | None = None,
) -> Axes:
    """Draw a quadrant, a CCD or the focal plane north up, east left.

    Parameters
    ----------
    array : ([ccd], [quadrant], y, x)
        Stored orientation, as for :func:`mosaic`; other dimensions of length 1 are dropped. Read and rebinned
        quadrant by quadrant, so that a focal plane needs the memory of a few quadrants.
    ax : Axes, optional
        Of matplotlib; default those of a new figure.
    stretch : callable
        Gives the limits of the colours for the picture's values: ``zscale``, ``percentile``, or your own.
    rebin : callable
        ``block_mean`` or ``block_median``, which hides the stars.
    cmap : str
        Of matplotlib.
    title : str, optional
        Default from the name and coordinates.

    Returns
    -------
    Axes
        Those of a quadrant count stored columns and rows.

    Raises
    ------
    ValueError
        If ``array`` has other dimensions, longer than 1.
    ImportError
        Without matplotlib.
    """
    return _drawn(array, mosaic, ax, stretch, rebin, cmap, title)


def camera_image(
    array: xr.DataArray,
    *,
    ax: Axes | None = None,
    stretch: Stretch = zscale,
    rebin: Rebin = block_mean,
    cmap: str = "viridis",
    title: str | None = None,
) -> Axes:
    """Draw as :func:`image` does, but **east right**, as the camera's drawings: q2 q1 over q3 q4."""
    return _drawn(array, camera_mosaic, ax, stretch, rebin, cmap, title)


def difference(
    array: xr.DataArray, *, ax: Axes | None = None, rebin: Rebin = block_mean, title: str | None = None
) -> Axes:
    """Draw a difference as :func:`image` does, with colours symmetric about 0."""
    return _drawn(array, mosaic, ax, symmetric, rebin, "RdBu_r", title)


def _drawn(
    array: xr.DataArray,
    join: Callable[[xr.DataArray], xr.DataArray],
    ax: Axes | None,
    stretch: Stretch,
    rebin: Rebin,
    cmap: str,
    title: str | None,
) -> Axes:
    one = by_quadrant(array)
    ax = new_axes() if ax is None else ax
    small = rebin(one, block_size(one))
    picture = join(small).compute()
    low, high = stretch(picture.values)
    drawn = draw_pixels(ax, picture, picture.values, vmin=low, vmax=high, cmap=cmap)
    furnish(ax, small, picture, title)
    # Beside the axes and as high: a bar of the figure's layout is as high as the axes were before their aspect.
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1.02, 0, 0.035, 1)), extend="both")
    bar.set_label(label_of(array), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return ax


def by_quadrant(array: xr.DataArray) -> xr.DataArray:
    """Drop dimensions of length 1 that are not the camera's, and chunk by quadrant."""
    camera = ("ccd", "quadrant", "y", "x")
    one = array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in camera])
    others = [f"{d} of {n}" for d, n in one.sizes.items() if d not in camera]
    if others:
        raise ValueError(f"{array.name or 'image'} has {', '.join(others)}: select one of each")
    check_labels(one)
    return one.chunk({d: 1 if d in ("ccd", "quadrant") else -1 for d in one.dims})


def block_size(image: xr.DataArray, pixels: int = PIXELS) -> int:
    """Return the edge of the blocks that make a picture of at most some ``pixels``."""
    quadrants = {d: 8 + 3 * GAPS[d] if "ccd" in image.dims else 2 if "quadrant" in image.dims else 1 for d in GAPS}
    return math.ceil(max(image.sizes[d] * n for d, n in quadrants.items()) / pixels)


def label_of(array: xr.DataArray) -> str:
    """Name the values of an array, with units."""
    name = str(array.attrs.get("long_name", array.name or ""))
    units = str(array.attrs.get("units", ""))
    shown = UNITS.get(units, units)
    return f"{name} ({shown})" if shown else name
