"""Science, mask and variance of quadrants: as stored where they are, else computed."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.reduce.calibrated import recipe_of_science
from ztfzarr.reduce.calibrator import Calibrator, Choice
from ztfzarr.reduce.science import Shot
from ztfzarr.reduce.starflat_map import starflat_of
from ztfzarr.reduce.where import Where
from ztfzarr.store.cube import open_cube
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import Objects
from ztfzarr.store.versions import existing_version, find_version, made

NAMES = ("science", "mask", "variance")
HELD: Final = 16  # exposures and CCDs whose levels are kept: more than threads work on


class ScienceImages:
    """Reads or computes the images of quadrants.

    Parameters
    ----------
    objects : Objects
        The store.
    version : str
        Of science; where the store has no ``v1``, it is computed by the default recipe.
    """

    def __init__(self, objects: Objects, version: str) -> None:
        self.cube = open_cube(objects)
        self._stored = find_version(objects, "science", version)
        recipe = recipe_of_science(objects, version)
        masters = [existing_version(objects, kind, recipe["science"][kind]) for kind in ("bias", "flat")]
        self.calibrator = Calibrator(
            self.cube, masters[0], masters[1], recipe, starflat_of(objects, recipe, "science")
        )
        # What is subtracted is found of all quadrants at once, and asked for by one after the other.
        self._subtracted = lru_cache(maxsize=HELD)(self._levels)

    @cached_property
    def _made(self) -> NDArray[np.bool_]:
        return np.empty((0, 16), bool) if self._stored is None else made(self._stored)

    @cached_property
    def _group(self) -> Any:
        return None if self._stored is None else self._stored.open()

    def is_stored(self, shot: Shot) -> bool:
        """Say whether the science of an exposure and CCD is stored."""
        return bool(shot.row < len(self._made) and self._made[shot.row, shot.ccd - 1])

    def read(self, shot: Shot, quadrant: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return science, mask and variance of a quadrant (1-4), each (y, x); ValueError without masters."""
        stored = self._pixels if self._stored is not None and self.is_stored(shot) else ()
        place = (shot.row, shot.ccd - 1, quadrant - 1)
        images = {name: np.asarray(array_of(self._group, name)[place]) for name in stored}
        if len(images) < len(NAMES):
            images = self._computed(shot, quadrant) | images
        return images["science"], images["mask"], images["variance"]

    @property
    def _pixels(self) -> tuple[str, ...]:
        return tuple(name for name in NAMES if self._stored is not None and name in self._stored.pixels)

    def _computed(self, shot: Shot, quadrant: int) -> dict[str, NDArray[Any]]:
        choice = self.calibrator.choose(shot.index, shot.ccd)
        shape = self.cube["raw"].shape[3:]
        where = Where(np.array([quadrant - 1]), *(np.arange(n) for n in shape))
        level, offset = self._subtracted(shot.index, choice)
        images = self.calibrator.images(choice, NAMES, where)
        mine = level[quadrant - 1 : quadrant]
        found = self.calibrator.apply(shot.index, choice, where, mine, images, NAMES, offset)
        return {name: image[0] for name, image in found.items()}

    def _levels(self, time: int, choice: Choice) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Fit the overscans of an exposure and CCD, and measure its amplifiers' offsets if the recipe says."""
        level = self.calibrator.overscan(time, choice.ccd)["level"].values
        offsets = self.calibrator.offset(time, choice, level)
        return level, None if offsets is None else offsets[0]
