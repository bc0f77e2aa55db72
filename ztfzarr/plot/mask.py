"""Pictures of masks: what is wrong where, with its share of the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.plot.axes import INK, PALE, draw_pixels, furnish, new_axes
from ztfzarr.plot.image import block_size, by_quadrant
from ztfzarr.plot.mosaic import mosaic
from ztfzarr.plot.rebin import block_flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BITS: Final = 16
# Okabe and Ito's colours, which all eyes tell apart, and darker ones of the same hues.
COLOURS: Final = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3800", "#00406B",
    "#F0E442", "#005C43", "#7A3D61", "#8A5F00", "#2C6C8F", "#808080", "#8F8A1E",
)  # fmt: skip


def mask(array: xr.DataArray, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw a mask north up, east left: one colour a flag, named with its share of the pixels.

    Parameters
    ----------
    array : ([ccd], [quadrant], y, x) uint16
        With ``flag_masks`` and ``flag_meanings`` of the CF conventions.
    ax : Axes, optional
        Of matplotlib; default those of a new figure.
    title : str, optional
        Default from the name and coordinates.

    Returns
    -------
    Axes
        A block of pixels has a colour if any of its pixels has the flag; where several have one, the rarest shows.

    Raises
    ------
    ValueError
        If ``array`` does not say what its bits mean, or has other dimensions, longer than 1.
    """
    meanings = flag_meanings(array)
    one = by_quadrant(array)
    ax = new_axes() if ax is None else ax
    small = block_flags(one, block_size(one))
    picture, shares = xr.Dataset({"picture": mosaic(small), "share": bit_shares(one)}).compute().data_vars.values()
    of_flag = {name: float(shares[_bit(flag)]) for name, flag in meanings.items()}
    found = sorted((name for name in meanings if of_flag[name] > 0), key=lambda name: -of_flag[name])
    index = np.full(picture.shape, np.nan)
    for i, name in enumerate(found):
        index[(picture.values & meanings[name]) != 0] = i
    ax.set_facecolor("white" if "quadrant" in one.dims else PALE)
    draw_pixels(ax, picture, index, **_colours())
    furnish(ax, small, picture, title)
    _legend(ax, [f"{name.replace('_', ' ')}  {_percent(of_flag[name])}" for name in found])
    return ax


def flag_meanings(array: xr.DataArray) -> dict[str, int]:
    """Return the bit mask of each flag, by its name."""
    names = str(array.attrs.get("flag_meanings", "")).split()
    masks = np.atleast_1d(array.attrs.get("flag_masks", []))
    if not names or len(names) != len(masks):
        raise ValueError(
            f"{array.name or 'mask'} does not say what its bits mean: expected flag_masks, flag_meanings"
        )
    return dict(zip(names, (int(m) for m in masks), strict=True))


def bit_shares(array: xr.DataArray) -> xr.DataArray:
    """Return the share of the pixels that have each bit, (bit,) float64. Lazy if ``array`` is."""
    counts = xr.apply_ufunc(
        _bit_counts,
        array,
        input_core_dims=[["y", "x"]],
        output_core_dims=[["bit"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.int64],
        dask_gufunc_kwargs={"output_sizes": {"bit": BITS}},
    )
    shares: xr.DataArray = counts.sum([d for d in counts.dims if d != "bit"]) / array.size
    return shares


def _bit_counts(pixels: NDArray[np.uint16]) -> NDArray[np.int64]:
    histogram = np.bincount(pixels.ravel(), minlength=1 << BITS)
    values = np.arange(1 << BITS)
    return np.array([histogram[(values >> bit) & 1 == 1].sum() for bit in range(BITS)], np.int64)


def _bit(flag: int) -> int:
    return flag.bit_length() - 1


def _colours() -> dict[str, Any]:
    from matplotlib.colors import ListedColormap

    return {"cmap": ListedColormap(COLOURS), "vmin": -0.5, "vmax": len(COLOURS) - 0.5}


def _legend(ax: Axes, names: list[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, names, strict=False)]
    handles = handles or [Patch(color=PALE, label="no pixel is flagged")]
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9, labelcolor=INK,
        title="share of pixels", title_fontsize=9, alignment="left",
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 5e-5 else "< 0.01%"
