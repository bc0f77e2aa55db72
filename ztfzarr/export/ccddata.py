"""Images as astropy's CCDData."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS

from ztfzarr.ingest.rare import quiet_astropy

UNITS: Final = {"DN": u.adu, "1": u.dimensionless_unscaled, "e-": u.electron}


def to_ccddata(
    image: xr.DataArray,
    *,
    mask: xr.DataArray | None = None,
    variance: xr.DataArray | None = None,
    header: fits.Header | None = None,
) -> CCDData:
    """Turn an image of one quadrant into astropy's CCDData.

    Parameters
    ----------
    image : (y, x)
        With units DN, 1 or e-; other dimensions of length 1 are dropped. Read if it is lazy.
    mask : (y, x) uint16, optional
        Flags: masked is what has any; the flags themselves become ``flags``.
    variance : (y, x), optional
        In the units of ``image``, squared.
    header : Header, optional
        As of :func:`ztfzarr.header`; default the scalar coordinates of ``image``. A WCS in it becomes ``wcs``.

    Returns
    -------
    CCDData
        In adu for DN; pixels that are not finite are masked.

    Raises
    ------
    ValueError
        If ``image`` is not of one quadrant, or its units are others; if the planes have other pixels.
    """
    data = _plane(image)
    pixels = np.asarray(data.values)
    flags = None if mask is None else _like(data, mask)
    wrong = ~np.isfinite(pixels) if flags is None else ~np.isfinite(pixels) | (flags != 0)
    cards = _cards(image) if header is None else header
    made = CCDData(
        pixels,
        unit=_unit(image),
        mask=wrong,
        uncertainty=None if variance is None else VarianceUncertainty(_like(data, variance)),
        header=cards,
        wcs=_wcs(cards),
    )
    made.flags = flags
    return made


def _plane(array: xr.DataArray) -> xr.DataArray:
    one = array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in ("y", "x")])
    if one.dims != ("y", "x"):
        raise ValueError(
            f"{array.name or 'image'} has dimensions {dict(array.sizes)}: expected one quadrant, (y, x)"
        )
    return one


def _like(image: xr.DataArray, plane: xr.DataArray) -> Any:
    """Return the pixels of a plane, if they are those of the image."""
    bare = [a.reset_coords(drop=True) for a in (image, _plane(plane))]
    return xr.align(*bare, join="exact")[1].values


def _unit(image: xr.DataArray) -> u.UnitBase:
    units = image.attrs.get("units")
    if units not in UNITS:
        raise ValueError(f"{image.name or 'image'} is in {units!r}: expected one of {', '.join(UNITS)}")
    return UNITS[units]


def _cards(image: xr.DataArray) -> fits.Header:
    """Make cards of the scalar coordinates of an image."""
    header = fits.Header()
    for name, coordinate in image.coords.items():
        if not coordinate.ndim:
            header[str(name)[:8].upper()] = _card_value(coordinate.values[()])
    return header


def _card_value(value: Any) -> str | int | float | None:
    """Return what a card can hold: text and times as text, NaN as no value."""
    if not isinstance(value, np.number):
        return str(value)
    number: int | float = value.item()
    return number if np.isfinite(number) else None


def _wcs(header: fits.Header) -> WCS | None:
    if "CTYPE1" not in header:
        return None
    with quiet_astropy():
        return WCS(header)
