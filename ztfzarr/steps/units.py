"""Refuse what is in other units or has no labels."""

from __future__ import annotations

import xarray as xr


def require_units(array: xr.DataArray, expected: str) -> None:
    """Raise ValueError, naming both units, if ``array`` is not in ``expected`` units."""
    found = array.attrs.get("units")
    if found != expected:
        raise ValueError(f"{array.name or 'array'} is in {found!r}, expected {expected!r}")


def require_labels(array: xr.DataArray, *dims: str) -> None:
    """Raise ValueError if a dimension of ``array`` has no labels: unlabelled CCDs pair wrongly without a word."""
    missing = [d for d in dims if d in array.dims and d not in array.coords]
    if missing:
        raise ValueError(f"{array.name or 'array'} has no labels along {', '.join(missing)}: expected coordinates")


def bare(array: xr.DataArray) -> xr.DataArray:
    """Drop coordinates but the labels of CCD and quadrant, and of the dimensions.

    Coordinates of exposures would be compared at each step, and computed for that where they are chunked.
    """
    keep = {*array.dims, "ccd", "quadrant"}
    return array.drop_vars([name for name in array.coords if name not in keep])
