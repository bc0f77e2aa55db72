"""Masters and science as small pictures of the focal plane, north up and east left."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.plot.image import block_size, by_quadrant, label_of
from ztfzarr.plot.mosaic import mosaic
from ztfzarr.plot.rebin import block_mean, block_median
from ztfzarr.plot.show import CMAPS, FLAT_SHARE
from ztfzarr.plot.source import Wanted, chosen
from ztfzarr.plot.stretch import Limits, percentile, zscale
from ztfzarr.report.focal import Box, Scale, ccd_names, colours_of, sky_boxes
from ztfzarr.store.objects import Objects

LARGE, SMALL = 620, 240  # pixels of the longer side: some 100 and 15 kB
QUALITY: Final = 78  # of WebP


@dataclass(frozen=True)
class Picture:
    """A picture: a data URL, its size in pixels, what it shows, the outlines of CCDs and their names, its scale.

    ``fault`` says why there is none.
    """

    title: str
    alt: str
    href: str = ""
    size: tuple[int, int] = (0, 0)
    place: Box = (0.0, 0.0, 0.0, 0.0)
    view: tuple[float, float] = (0.0, 0.0)
    outlines: tuple[Box, ...] = ()
    names: tuple[tuple[float, float, str], ...] = ()
    scale: Scale | None = None
    fault: str = ""


def picture(objects: Objects, wanted: Wanted, title: str, pixels: int) -> Picture:
    """Draw one entry over the focal plane; where it cannot be read, say why.

    Parameters
    ----------
    objects : Objects
        The store.
    wanted : Wanted
        The last entry that fits is drawn.
    title : str
        Under the picture.
    pixels : int
        Of the longer side, at most. Quadrants are read and made small one by one.
    """
    alt = f"{wanted.kind}, focal plane, north up and east left: {title}"
    try:
        shown = chosen(objects, wanted)
        return _drawn(shown.array, wanted.kind, title, alt, pixels)
    except (StoreError, ValueError, RuntimeError) as error:
        return Picture(title, alt, fault=str(error).partition("\n")[0])


def _drawn(array: xr.DataArray, kind: str, title: str, alt: str, pixels: int) -> Picture:
    one = by_quadrant(array)
    small = (block_median if kind == "science" else block_mean)(one, block_size(one, pixels))
    joined = mosaic(small).compute()
    stretch: Callable[[Any], Limits] = partial(percentile, share=FLAT_SHARE) if kind == "flat" else zscale
    ccds = array["ccd"].values.tolist()
    return plane_picture(joined, ccds, title, alt, stretch(joined.values), CMAPS[kind], label_of(array))


def plane_picture(
    joined: xr.DataArray,
    ccds: Collection[int],
    title: str,
    alt: str,
    limits: tuple[float, float],
    cmap: str,
    unit: str,
) -> Picture:
    """Draw a mosaic of the focal plane; CCDs that have nothing in it get an outline.

    Parameters
    ----------
    joined : (north, west)
        From :func:`~ztfzarr.plot.mosaic.mosaic`.
    ccds : collection of int
        Those that it has.
    title, alt : str
        Under the picture, and in its place.
    limits : (float, float)
        Ends of the colours.
    cmap, unit : str
        Of matplotlib; of the scale.
    """
    low, high = limits
    encoded = _webp(joined.values[::-1], low, high, cmap)
    boxes, width, height = sky_boxes()
    top = min(box[1] for box in boxes.values())
    least, most = (f"{value:,.4g}".replace("-", "−") for value in (low, high))
    return Picture(
        title,
        alt,
        f"data:image/webp;base64,{base64.b64encode(encoded).decode()}",
        (joined.shape[1], joined.shape[0]),
        (0.0, top, width, round(height - top, 1)),
        (width, height),
        tuple(box for key, box in boxes.items() if key[0] not in ccds),
        tuple(ccd_names(boxes)),
        Scale(least, most, colours_of(cmap), unit),
    )


def _webp(values: NDArray[np.float32], low: float, high: float, cmap: str) -> bytes:
    """Encode values from the top down; what is NaN is transparent."""
    from matplotlib import colormaps
    from PIL import Image

    colours = colormaps[cmap]((values - low) / (high - low), bytes=True)
    colours[..., 3] = np.where(np.isfinite(values), 255, 0)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "webp", quality=QUALITY)
    return buffer.getvalue()
