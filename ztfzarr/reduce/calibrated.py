"""Science without storing it: each selection computed from raw and masters when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from ztfzarr.recipe import Recipe, default_recipe, recipe_for
from ztfzarr.reduce.calibrator import Calibrator, Where
from ztfzarr.reduce.starflat_map import starflat_of
from ztfzarr.store.cube import open_cube
from ztfzarr.store.lazy import Indices, LazyArray
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.products import PRODUCTS
from ztfzarr.store.versions import existing_version, find_version

ABSENT: Final = {name: variable.fill for name, variable in PRODUCTS["science"].pixels.items()}


class ScienceArray(LazyArray):
    """Science, mask or variance of the cube's exposures, computed when indexed; absent where there is no file."""

    def __init__(self, calibrator: Calibrator, name: str) -> None:
        super().__init__(calibrator.cube["raw"].shape, PRODUCTS["science"].pixels[name].dtype)
        self.calibrator = calibrator
        self.name = name

    def read_into(self, values: NDArray[Any], picked: list[Indices]) -> None:
        """Calibrate what a selection picks, exposure by exposure and CCD by CCD."""
        values[...] = ABSENT[self.name]
        time, ccd, *image = picked
        for place in np.ndindex(values.shape[:2]):
            t, c = int(time[place[0]]), int(ccd[place[1]])
            if self.calibrator.present[t, c]:
                values[place] = self.calibrator.pixels(t, c + 1, Where(*image), self.name)


def open_science(
    store: StoreLike, *, version: str = "v1", storage_options: Mapping[str, str] | None = None
) -> xr.Dataset:
    """Open science computed from raw and masters as it is asked for, whether or not the version is stored.

    Parameters
    ----------
    store : path or URL
        Of the store.
    version : str
        Whose recipe to follow; the defaults' if the store has no such version of science.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    Dataset
        ``science`` (time, ccd, quadrant, y, x) float32, DN, ``mask`` uint16 and ``variance`` float32, DN2, of the
        exposures of the sky, sorted by time; where a file is absent NaN, and the mask's bit ``no_data``. Equal to
        the stored version before its rounding. Lazily indexed, without dask.

    Raises
    ------
    StoreError
        If the store lacks the versions of the masters.
    ValueError
        When pixels are asked for that no master calibrates.
    """
    objects = open_objects(store, storage_options)
    stored = find_version(objects, "science", version)
    recipe = recipe_for("science", default_recipe()) if stored is None else stored.recipe
    cube = open_cube(objects)
    cube = cube.isel(time=np.flatnonzero(cube["imgtype"].values == "object"))
    return calibrated(cube, recipe, objects)


def calibrated(cube: xr.Dataset, recipe: Recipe, objects: Objects) -> xr.Dataset:
    """Replace raw and overscan of exposures by science, lazily."""
    bias = existing_version(objects, "bias", recipe["science"]["bias"])
    flat = existing_version(objects, "flat", recipe["science"]["flat"])
    calibrator = Calibrator(cube, bias, flat, recipe, starflat_of(objects, recipe))
    variables = {}
    for name, variable in PRODUCTS["science"].pixels.items():
        data = indexing.LazilyIndexedArray(ScienceArray(calibrator, name))
        variables[name] = xr.Variable(cube["raw"].dims, data, variable.attributes)
    return cube.drop_vars(("raw", "overscan", "x_overscan")).assign(variables)
