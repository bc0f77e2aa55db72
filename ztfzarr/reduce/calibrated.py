"""Science without storing it: each selection computed from raw and masters when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from ztfzarr.recipe import Recipe, default_recipe, recipe_for
from ztfzarr.reduce.calibrator import KINDS, NEEDS, Calibrator, Choice, Images
from ztfzarr.reduce.starflat_map import starflat_of
from ztfzarr.reduce.where import Where
from ztfzarr.store.cube import open_cube
from ztfzarr.store.lazy import Indices, LazyArray
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.products import PRODUCTS
from ztfzarr.store.threads import together
from ztfzarr.store.versions import existing_version, find_version

FIRST: Final = "v1"  # what is made when nothing is said
ABSENT: Final = {name: variable.fill for name, variable in PRODUCTS["science"].pixels.items()}

# A cutout's exposures are calibrated together, whole CCDs one by one, for what they take in memory.
EXPOSURES_AT_ONCE: Final = 64
PIXELS_AT_ONCE: Final = 2**25


@dataclass(frozen=True)
class Picked:
    """A file to calibrate: its place in the selection, index of its exposure, label of its CCD."""

    place: tuple[int, int]
    time: int
    ccd: int


class ScienceArray(LazyArray):
    """Science, mask or variance of the cube's exposures, computed when indexed; absent where there is no file."""

    def __init__(self, calibrator: Calibrator, name: str) -> None:
        super().__init__(calibrator.cube["raw"].shape, PRODUCTS["science"].pixels[name].dtype)
        self.calibrator = calibrator
        self.name = name

    def read_into(self, values: NDArray[Any], picked: list[Indices]) -> None:
        """Calibrate what a selection picks, some exposures and CCDs at once."""
        values[...] = ABSENT[self.name]
        time, ccd, where = picked[0], picked[1], Where(*picked[2:])
        present = np.argwhere(self.calibrator.present[np.ix_(time, ccd)])
        shots = [Picked((i, j), int(time[i]), int(ccd[j]) + 1) for i, j in present.tolist()]
        # The pocket's share of an overscan is found from all of the image.
        pocket = self.calibrator.recipe["pocket"]["correct"] != "off"
        needed = self.calibrator.needed(where, (self.name,))
        taken = self.shape[2:] if pocket else tuple(len(i) for i in (needed.quadrant, needed.y, needed.x))
        size = max(1, min(EXPOSURES_AT_ONCE, PIXELS_AT_ONCE // int(np.prod(taken))))
        for first in range(0, len(shots), size):
            self._fill(values, shots[first : first + size], where)

    def _fill(self, values: NDArray[Any], shots: list[Picked], where: Where) -> None:
        """Calibrate exposures at once, each of their masters read once: most of the time they wait for a store."""
        choices = [self.calibrator.choose(shot.time, shot.ccd) for shot in shots]
        needed = {(image, c.place(image[0])): c for c in choices for image in NEEDS[self.name]}
        box = self.calibrator.needed(where, (self.name,))
        # A thread for each read of a master and each exposure: with fewer, the last exposures wait for the first.
        with ThreadPoolExecutor(len(needed) + len(shots), thread_name_prefix="ztfzarr-science") as pool:
            asked = {key: pool.submit(self.calibrator.image, key[0], c, box) for key, c in needed.items()}

            def fill(shot: Picked, choice: Choice) -> None:
                def images() -> Images:
                    return {i: asked[i, choice.place(i[0])].result() for i in NEEDS[self.name]}

                values[shot.place] = self.calibrator.pixels(shot.time, choice, where, self.name, images)

            for _ in pool.map(fill, shots, choices):
                pass


def open_science(
    store: StoreLike, *, version: str = "v1", storage_options: Mapping[str, str] | None = None
) -> xr.Dataset:
    """Open science computed from raw and masters as it is asked for, whether or not the version is stored.

    Parameters
    ----------
    store : path or URL
        Of the store.
    version : str
        Whose recipe to follow; where the store has no ``v1``, the defaults.
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
        If the store lacks the version, or those of its masters.
    ValueError
        When pixels are asked for that no master calibrates.
    """
    objects = open_objects(store, storage_options)
    asked: list[Callable[[], Any]] = [
        partial(recipe_of_science, objects, version),
        partial(open_cube, objects),
    ]
    recipe, cube = together(lambda ask: ask(), asked)
    cube = cube.isel(time=np.flatnonzero(cube["imgtype"].values == "object"))
    return calibrated(cube, recipe, objects)


def recipe_of_science(objects: Objects, name: str) -> Recipe:
    """Return the recipe of a version of science; of ``v1``, before it is made, the defaults.

    Raises
    ------
    StoreError
        If there is no other version of that name: what it would be, nobody has said.
    """
    if name == FIRST and find_version(objects, "science", name) is None:
        return recipe_for("science", default_recipe())
    return existing_version(objects, "science", name).recipe


def calibrated(cube: xr.Dataset, recipe: Recipe, objects: Objects) -> xr.Dataset:
    """Replace raw and overscan of exposures by science, lazily."""
    bias, flat = together(lambda kind: existing_version(objects, kind, recipe["science"][kind]), KINDS)
    calibrator = Calibrator(cube, bias, flat, recipe, starflat_of(objects, recipe, "science"))
    variables = {}
    for name, variable in PRODUCTS["science"].pixels.items():
        data = indexing.LazilyIndexedArray(ScienceArray(calibrator, name))
        variables[name] = xr.Variable(cube["raw"].dims, data, variable.attributes)
    return cube.drop_vars(("raw", "overscan", "x_overscan")).assign(variables)
