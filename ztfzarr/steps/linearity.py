"""Non-linearity of the amplifiers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ztfzarr import tables
from ztfzarr.geometry import CCDS, LINEARITY_EPOCHS, QUADRANTS, linearity_epoch
from ztfzarr.kernels.pixels import linearize as kernel
from ztfzarr.steps.units import require_labels, require_units


def linearity_coefficients(
    time: xr.DataArray, *, epochs: Mapping[str, np.datetime64] = LINEARITY_EPOCHS
) -> xr.Dataset:
    """Look up the non-linearity that holds at each time.

    Parameters
    ----------
    time : (time) datetime64
        Of the exposures, UTC.
    epochs : mapping
        Tables in use and the first UTC day of each, in their order.

    Returns
    -------
    Dataset
        ``a`` (DN^-2) and ``b`` (DN^-1), each (time, ccd, quadrant) float32, of all 64 quadrants.

    Notes
    -----
    Camera team's tables of 2018-03, 2019-10 (from 2019-10-23) and 2020-04 (from 2020-04-28).
    """
    names = list(epochs)
    known = [tables.linearity(name) for name in names]
    which = np.array([names.index(linearity_epoch(t, epochs)) for t in np.atleast_1d(time.values)], np.int64)
    coords = {"time": np.atleast_1d(time.values), "ccd": list(CCDS), "quadrant": list(QUADRANTS)}
    variables = {}
    for i, (name, units) in enumerate((("a", "DN-2"), ("b", "DN-1"))):
        values = np.stack([pair[i] for pair in known]).astype(np.float32)[which]
        variables[name] = (
            ("time", "ccd", "quadrant"),
            values,
            {"units": units, "long_name": f"non-linearity {name}"},
        )
    return xr.Dataset(variables, coords)


def linearize(counts: xr.DataArray, coefficients: xr.Dataset) -> xr.DataArray:
    """Undo the non-linearity of each amplifier.

    Parameters
    ----------
    counts : (..., ccd, quadrant, y, x) float32, DN
        Overscan-subtracted counts.
    coefficients : Dataset of ``a`` (DN^-2) and ``b`` (DN^-1), each (..., ccd, quadrant)
        Those of the epoch of ``counts``, of at least its CCDs and quadrants.

    Returns
    -------
    (..., ccd, quadrant, y, x) float32, DN. Lazy if ``counts`` is.

    Raises
    ------
    ValueError
        If units are not DN, or a time, CCD or quadrant of ``counts`` has no coefficients.

    Notes
    -----
    true = x / (a x^2 + b x + 1), x overscan-subtracted DN.
    """
    require_units(counts, "DN")
    require_labels(counts, "ccd", "quadrant")
    matched = matching(coefficients, counts)
    result = xr.apply_ufunc(
        kernel,
        counts,
        matched["a"],
        matched["b"],
        join="exact",
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    )
    return result.transpose(*counts.dims).assign_attrs(units="DN", long_name="linear counts")


def matching(
    coefficients: xr.Dataset, counts: xr.DataArray | xr.Dataset, what: str = "non-linearity coefficients"
) -> xr.Dataset:
    """Select the coefficients of the CCDs and quadrants of ``counts``; ValueError if any is missing."""
    labels = {d: counts[d].values for d in ("ccd", "quadrant") if d in counts.coords and d in coefficients.dims}
    try:
        return coefficients.sel(labels).reset_coords(drop=True)
    except KeyError as error:
        raise ValueError(f"no {what} for {error}: expected those of every quadrant") from None
