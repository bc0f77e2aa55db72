"""The level of each CCD against the focal plane's, frozen when all the CCDs that it is against have flats."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.flat import level_against
from ztfzarr.reduce.inputs import master_inputs
from ztfzarr.reduce.report import Selection
from ztfzarr.reduce.settings import leds_of
from ztfzarr.store.entries import update_row
from ztfzarr.store.group import array_of
from ztfzarr.store.products import FILTERS, LEDS
from ztfzarr.store.versions import Version

TABLES = ("led_level", "led_reference", "reference", "level")


def freeze_levels(version: Version, selection: Selection) -> list[tuple[str, str]]:
    """Give the CCDs of the selected nights their levels.

    The reference of a period is made once: of ``flat.ccds`` of the recipe, or of the CCDs with flats in the cube.
    A CCD whose flats come later is compared with that.

    Parameters
    ----------
    version : Version
        Of kind ``flat``.
    selection : Selection
        Nights.

    Returns
    -------
    list of (night, reason)
        Nights without levels yet: flats of some CCDs are missing.
    """
    waiting = []
    ccds: dict[tuple[int, int], list[int]] = {}
    for inputs in master_inputs(version.objects, version, Selection(selection.first, selection.last)):
        ccds.setdefault((inputs.row, inputs.night), []).append(inputs.ccd)
    for (row, night), found in ccds.items():
        needed = version.recipe["flat"]["ccds"] or found
        update_row(version, row, TABLES, partial(_frozen, needed=needed, leds=leds_of(version.recipe)))
        group = version.open()
        level, lamps = (np.asarray(array_of(group, name)[row]) for name in ("level", "led_level"))
        missing = [ccd for ccd in needed if np.isnan(lamps[:, ccd - 1]).all()]
        if missing and np.isnan(level).all() and set(needed) <= set(selection.ccds):
            named = ", ".join(map(str, missing))
            waiting.append((f"{version.group} {night}", f"no levels: flats of CCD {named} are missing"))
    return waiting


def _frozen(tables: dict[str, NDArray[Any]], *, needed: list[int], leds: dict[int, str]) -> dict[str, Any]:
    """Return the tables of a night that change: none while CCDs of its reference are missing."""
    use = np.array([LEDS.index(led) for led in leds])
    have = np.isfinite(tables["led_level"][use]).all(axis=0)
    changed: dict[str, Any] = {}
    reference = tables["led_reference"]
    if not np.isfinite(reference[use]).all():
        chosen = np.array(needed) - 1
        if not have[chosen].all():
            return {}
        reference = np.full(len(LEDS), np.nan)
        reference[use] = np.median(tables["led_level"][np.ix_(use, chosen)], axis=1)
        changed["led_reference"] = reference
        changed["reference"] = np.isin(np.arange(16), chosen).astype(np.int8)
    level = tables["level"].copy()
    new = have & np.isnan(level).all(axis=0)
    if new.any():
        labels = {"led": list(LEDS)}
        lamps = xr.DataArray(tables["led_level"][:, new], labels, ("led", "ccd"))
        against = level_against(lamps, xr.DataArray(reference, labels, ("led",)), leds=leds)
        for name in against["filter"].values.tolist():
            level[FILTERS.index(name), new] = against.sel(filter=name).values
        changed["level"] = level
    return changed
