"""Pictures of a store written to files."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Final

from ztfzarr.plot.axes import SIZE
from ztfzarr.plot.image import camera_image, difference, image
from ztfzarr.plot.mask import mask
from ztfzarr.plot.rebin import block_mean, block_median
from ztfzarr.plot.source import Shown, Wanted
from ztfzarr.plot.stretch import percentile, zscale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 200
CMAPS: Final = {"science": "gray_r", "raw": "viridis", "bias": "viridis", "flat": "viridis"}
FLAT_SHARE: Final = 96.0  # per cent of the pixels of a flat: its dead columns are some per cent


def draw(
    shown: Shown, wanted: Wanted, *, minus: bool = False, camera: bool = False, median: bool = False
) -> Figure:
    """Draw what was chosen of a store, without pyplot and its windows.

    Parameters
    ----------
    shown : Shown
        From ``chosen`` or, with ``minus``, ``subtracted``.
    wanted : Wanted
        What was asked for: its kind decides the colours.
    minus : bool
        It is a difference of versions.
    camera : bool
        East right, as the camera's drawings.
    median : bool
        Blocks of pixels become their median, not their mean: stars vanish.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'ztfzarr[plot]'") from None
    figure = Figure(figsize=SIZE, layout="compressed")
    ax = figure.add_subplot()
    rebin = block_median if median else block_mean
    if wanted.kind == "mask":
        mask(shown.array, ax=ax, title=shown.title)
    elif minus:
        difference(shown.array, ax=ax, rebin=rebin, title=shown.title)
    else:
        draw_as = camera_image if camera else image
        stretch = partial(percentile, share=FLAT_SHARE) if wanted.kind == "flat" else zscale
        draw_as(shown.array, ax=ax, stretch=stretch, rebin=rebin, cmap=CMAPS[wanted.kind], title=shown.title)
    return figure


def rendered(figure: Figure, suffix: str, *, dpi: float | None = None) -> bytes:
    """Return a figure as the bytes of a file: png, pdf, svg or jpg; ``dpi`` defaults to :data:`DPI`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=dpi or DPI, bbox_inches="tight")
    return buffer.getvalue()
