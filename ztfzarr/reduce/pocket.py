"""Pockets of a store, fitted to what trails into the overscans: one entry a period and CCD."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.pocket import pocket_trail
from ztfzarr.masters.pocket_fit import FEWEST, fit_pocket
from ztfzarr.masters.pocket_quality import fit_flags, trail_medians, with_table
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.inputs import Inputs
from ztfzarr.reduce.provenance import master_provenance
from ztfzarr.reduce.settings import epochs
from ztfzarr.steps.pocket import PARAMETERS
from ztfzarr.store.entries import Entry
from ztfzarr.store.products import PRODUCTS
from ztfzarr.store.versions import Version

BATCH: Final = 16  # exposures of which the last columns are held: 16 MB each as chunks are read


def make_pocket(version: Version, inputs: Inputs) -> list[Entry]:
    """Fit the pockets of a CCD to the flats and sky of a period.

    Parameters
    ----------
    version : Version
        Of kind ``pocket``, from ``prepare_version``.
    inputs : Inputs
        The flats and the exposures of the sky of a period and CCD.

    Returns
    -------
    list of Entry
        To be marked.

    Raises
    ------
    ValueError
        If too few of them are of the read-out that defers charge, or bright enough.
    """
    section = version.recipe["pocket_fit"]
    exposures = inputs.open(version.objects)
    trails, why = measured_trails(version.recipe, exposures)
    used = ~np.array([str(e) in why for e in exposures["exposure"].values.tolist()])
    if used.sum() < max(FEWEST, section["minimum"]):
        raise ValueError(
            f"{used.sum()} exposures of {section['lowest']:g} DN since {version.recipe['pocket']['from']}: "
            f"expected {max(FEWEST, section['minimum'])}, flats and sky"
        )
    nights = exposures["night"].values[used]
    tables = _fitted(version, trails.isel(time=used), exposures["imgtype"].isel(time=used)) | {
        "inputs": exposures.sizes["time"],
        "first_night": int(nights.min()),
        "last_night": int(nights.max()),
        "provenance": master_provenance(version, exposures.isel(time=used), why, {}),
    }
    return [Entry((inputs.row, inputs.ccd - 1), tables)]


def measured_trails(recipe: Recipe, exposures: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """Measure the trails of exposures, a few at a time; say which are of no use, and why, by their numbers."""
    count = exposures.sizes["time"]
    parts = [
        pocket_trail(exposures.isel(time=slice(i, i + BATCH)), epochs=epochs(recipe)).compute()
        for i in range(0, count, BATCH)
    ]
    trails = xr.concat(parts, "time")
    before = exposures["time"].values < np.datetime64(recipe["pocket"]["from"], "us")
    bright = trails["level"] >= recipe["pocket_fit"]["lowest"]
    trails = trails.assign(level=trails["level"].where(bright))
    dark = ~bright.any(("ccd", "quadrant")).values
    numbers = exposures["exposure"].values.tolist()
    why = {str(e): "too dark, or stars in the last columns" for e, no in zip(numbers, dark, strict=True) if no}
    return trails, why | {str(e): "before the pockets" for e, no in zip(numbers, before, strict=True) if no}


def _fitted(version: Version, trails: xr.Dataset, imgtype: xr.DataArray) -> dict[str, Any]:
    section = version.recipe["pocket_fit"]
    fit, medians = fit_pocket(trails), trail_medians(trails, imgtype)
    fit = with_table(fit)
    flags = fit_flags(fit, medians, chi2=section["chi2"], change=section["change"])
    bits = PRODUCTS["pocket"].tables["flag"].flags or {}
    flag = np.zeros(fit["chi2"].isel(ccd=0).shape, np.uint8)
    for name, bit in bits.items():
        flag |= np.where(flags[name].isel(ccd=0).values, bit, 0).astype(np.uint8)
    errors = {f"{name}_error": fit["error"].sel(parameter=name) for name in PARAMETERS}
    named = {name: fit[name] for name in (*PARAMETERS, "chi2")} | errors | dict(medians.data_vars)
    values: dict[str, NDArray[Any]] = {str(n): v.isel(ccd=0).values for n, v in named.items()}
    return values | {"flag": flag}
