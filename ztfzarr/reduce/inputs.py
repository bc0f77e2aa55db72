"""What goes into a product: which exposures of the cube, by period and CCD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from ztfzarr.masters.calibrations import period_of
from ztfzarr.reduce.report import Selection
from ztfzarr.store.group import open_raw, read_table
from ztfzarr.store.objects import Objects
from ztfzarr.store.versions import Version, nights_of

if TYPE_CHECKING:
    import xarray as xr

MADE_OF: Final = {"bias": ("bias",), "flat": ("flat",), "pocket": ("flat", "object")}
SECTION: Final = {"pocket": "pocket_fit"}  # of the recipe, where it is not named as the kind


@dataclass(frozen=True)
class Inputs:
    """The exposures that a master is made of.

    ``row`` and ``night`` are its place along ``night``: the first of the period's nights that the cube saw.
    ``exposures`` are the numbers of those of its type that are in the cube; ``length`` is the cube's when seen.
    """

    row: int
    night: int
    ccd: int
    exposures: tuple[int, ...]
    length: int

    def open(self, objects: Objects) -> xr.Dataset:
        """Open the exposures, (time, ccd 1, …), sorted by time, lazily indexed."""
        cube = _cube(objects, self.length)
        chosen = np.flatnonzero(np.isin(cube["exposure"].values, self.exposures))
        return cube.isel(time=chosen).sel(ccd=[self.ccd])


@lru_cache(maxsize=1)
def _cube(objects: Objects, length: int) -> xr.Dataset:
    """Open a cube once a process for all the tasks of a run; ``length`` tells one that has grown."""
    from ztfzarr.store.cube import open_cube  # its kernels are not needed to list inputs

    return open_cube(objects)


def master_inputs(objects: Objects, version: Version, selection: Selection) -> Iterator[Inputs]:
    """List what the masters of a version can be made of: by period, then CCD.

    Parameters
    ----------
    objects : Objects
        The store.
    version : Version
        Of masters: its recipe says the period.
    selection : Selection
        Periods with a selected night, in whole; CCDs.
    """
    group = open_raw(objects)
    present, night = read_table(group, "present") == 1, read_table(group, "night")
    exposure, imgtype = read_table(group, "exposure"), read_table(group, "imgtype")
    places = _periods(nights_of(group).tolist(), version.recipe[SECTION.get(version.kind, version.kind)]["period"])
    wanted = {period for period, (_, nights) in places.items() if any(selection.has(n) for n in nights)}
    of_type = np.isin(imgtype.astype("U8"), MADE_OF[version.kind])
    for period in sorted(wanted, key=lambda name: min(places[name][1])):
        row, nights = places[period]
        mine = of_type & np.isin(night, nights)
        for ccd in selection.ccds:
            numbers = exposure[mine & present[:, ccd - 1]]
            if numbers.size:
                yield Inputs(row, nights[0], ccd, tuple(sorted(numbers.tolist())), len(exposure))


def _periods(nights: list[int], period: str | list[str]) -> dict[str, tuple[int, list[int]]]:
    """Return the row of each period, that of its first night in raw's order, and all its nights in that order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for night in nights:
        name = period_of(night, period)
        if name is not None:
            found[name].append(night)
    return {name: (nights.index(members[0]), members) for name, members in found.items()}
