"""Fitted pockets of a store to choose from."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from ztfzarr.geometry import QUADRANTS
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.settings import borders
from ztfzarr.reduce.shelf import Shelf, open_shelf
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import Objects
from ztfzarr.store.versions import existing_version

UNITS: Final = {"alpha": "1", "cmax": "DN", "beta": "1", "nmax": "DN"}


class FittedPockets:
    """The pockets that a version holds, to choose from by time and CCD."""

    def __init__(self, objects: Objects, name: str) -> None:
        version = existing_version(objects, "pocket", name)
        group = version.open()
        self._shelf: Shelf = open_shelf(version)
        self._tables = {name: np.asarray(array_of(group, name)[...]) for name in UNITS}

    def choose(self, time: np.datetime64, night: int, ccd: int, recipe: Recipe) -> tuple[xr.Dataset, str]:
        """Choose the pockets of a CCD at a time; (ccd 1, quadrant), and their name, as in ``pocket/v1/20200801``.

        Raises
        ------
        ValueError
            If there are none within ``pocket.validity`` days on the same side of every date in the recipe.
        """
        chosen = self._shelf.choose(time, night, (ccd - 1,), recipe, "pocket")
        if chosen is None:
            days = recipe["pocket"]["validity"]
            since = ", ".join(str(day.astype("datetime64[D]")) for day in borders(recipe, "pocket"))
            raise ValueError(f"no fitted pocket of CCD {ccd} within {days:g} days on the same side of {since}")
        row, _ = chosen
        of_ccd = {
            name: (("ccd", "quadrant"), values[row, [ccd - 1]].astype(np.float64), {"units": UNITS[name]})
            for name, values in self._tables.items()
        }
        return xr.Dataset(of_ccd, {"ccd": [ccd], "quadrant": list(QUADRANTS)}), self._shelf.name(row)
