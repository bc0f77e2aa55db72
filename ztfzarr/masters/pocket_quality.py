"""What the trails of a night say of the pockets: how much is deferred, and whether the table still holds."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ztfzarr import tables
from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.kernels.pocket import Pocket
from ztfzarr.masters.pocket_fit import HIGHEST, LOWEST, trail_of
from ztfzarr.steps.pocket import PARAMETERS, pocket_parameters

KINDS = {"flat": "flat", "object": "sky"}  # image types, and what their trails are called


def trail_medians(trails: xr.Dataset, imgtype: xr.DataArray) -> xr.Dataset:
    """Average the trails of flats and of sky, and compare them with the table's.

    Parameters
    ----------
    trails : Dataset
        ``level``, ``charge`` (time, ccd, quadrant), DN, and ``trail`` (…, column), of
        :func:`~ztfzarr.masters.pocket.pocket_trail`.
    imgtype : (time) str
        Kinds of exposures.

    Returns
    -------
    Dataset
        For ``flat`` and ``sky`` each, (ccd, quadrant) float64: ``…_trail``, the median charge in the overscan, DN;
        ``…_level``, the median level of the last columns, DN; ``…_ratio``, charge over what the table says there.
        NaN where there are no such exposures.
    """
    found: dict[str, xr.DataArray] = {}
    for kind, name in KINDS.items():
        some = trails[["charge", "level"]].isel(time=np.flatnonzero(imgtype.values == kind))
        charge, level = (some[v].median("time") for v in ("charge", "level"))
        expected = xr.full_like(level, np.nan)
        for place in np.ndindex(level.shape):
            channel = int(level["ccd"][place[0]]), int(level["quadrant"][place[1]])
            if level.values[place] > 0:
                expected[place] = _table_charge(float(level.values[place]), *channel, trails.sizes["column"])
        found |= {
            f"{name}_trail": charge.assign_attrs(units="DN"),
            f"{name}_level": level.assign_attrs(units="DN"),
            f"{name}_ratio": (charge / expected).assign_attrs(units="1"),
        }
    return xr.Dataset(found)


def with_table(fit: xr.Dataset) -> xr.Dataset:
    """Give quadrants without a fit, such as those with a dead column among their last, the table's pockets.

    Parameters
    ----------
    fit : Dataset
        Of :func:`~ztfzarr.masters.pocket_fit.fit_pocket`.

    Returns
    -------
    Dataset
        ``alpha``, ``cmax``, ``beta``, ``nmax`` without NaN; ``error`` and ``chi2``, NaN there, say which.
    """
    known = pocket_parameters(xr.DataArray([True], {"time": [0]}, ("time",))).isel(time=0, drop=True)
    return fit.assign({name: fit[name].fillna(known[name]).assign_attrs(fit[name].attrs) for name in PARAMETERS})


def _table_charge(level: float, ccd: int, quadrant: int, columns: int) -> float:
    known = tables.pocket()
    place = CCDS.index(ccd), QUADRANTS.index(quadrant)
    pocket = Pocket(*(float(known[name][place]) for name in PARAMETERS))
    return float(trail_of(np.array([level]), pocket, columns).sum())


def fit_flags(fit: xr.Dataset, medians: xr.Dataset, *, chi2: float, change: float) -> xr.Dataset:
    """Say what is wrong with fitted pockets.

    Parameters
    ----------
    fit : Dataset
        Of :func:`~ztfzarr.masters.pocket_fit.fit_pocket`.
    medians : Dataset
        Of :func:`trail_medians`.
    chi2 : float
        Per degree of freedom, above which the model does not describe the trails.
    change : float
        Relative change of charge against the table's, above which the pocket is another one.

    Returns
    -------
    Dataset of bool, (ccd, quadrant)
        ``poor_fit``, or none; ``limit``: a parameter is at the end of what was tried; ``changed``.
    """
    at_limit = [
        (fit[name] < 1.001 * low) | (fit[name] > 0.999 * high)
        for name, low, high in zip(PARAMETERS, LOWEST, HIGHEST, strict=True)
    ]
    off = [abs(medians[f"{name}_ratio"] - 1) > change for name in KINDS.values()]
    return xr.Dataset({"poor_fit": ~(fit["chi2"] <= chi2), "limit": sum(at_limit) > 0, "changed": off[0] | off[1]})
