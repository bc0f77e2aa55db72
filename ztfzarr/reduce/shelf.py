"""Masters of a version to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.masters.calibrations import nearest_master
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.settings import borders
from ztfzarr.store.group import array_of
from ztfzarr.store.threads import together
from ztfzarr.store.versions import Version

TABLES: Final = ("night", "present", "flag", "first_night", "last_night")


@dataclass(frozen=True)
class Shelf:
    """What there is of a version: ``night`` (night), YYYYMMDD; the rest each (night, [filter,] ccd).

    ``made`` and ``flagged``, and the ``first`` and ``last`` night of the exposures used. Of flats only those count
    as made whose CCD has a ``level``; that of biases is 1.
    """

    group: str
    night: NDArray[np.int32]
    made: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    level: NDArray[np.float64]

    def choose(
        self, time: np.datetime64, night: int, place: tuple[int, ...], recipe: Recipe, kind: str
    ) -> tuple[int, bool] | None:
        """Choose the master for an exposure, as the section ``kind`` of a recipe says.

        Parameters
        ----------
        time, night
            Of the exposure.
        place : tuple of int
            Indices after ``night``: CCD, or filter and CCD.

        Returns
        -------
        (row, whether it is flagged), or None if there is none.
        """
        column: tuple[Any, ...] = (slice(None), *place)
        made, flagged = self.made[column], self.flagged[column]
        allowed = recipe[kind].get("flagged", "last") == "last"
        for rows, bad in ((made & ~flagged, False), (made & flagged & allowed, True)):
            index = np.flatnonzero(rows)
            spans = [(int(self.first[i, *place]), int(self.last[i, *place])) for i in index]
            limits: dict[str, Any] = {"validity": recipe[kind]["validity"], "borders": borders(recipe, kind)}
            chosen = nearest_master(time, night, spans, **limits)
            if chosen is not None:
                return int(index[chosen]), bad
        return None

    def name(self, row: int) -> str:
        """Name a master, as in ``bias/v1/20200801``."""
        return f"{self.group}/{self.night[row]}"


def open_shelf(version: Version) -> Shelf:
    """Read what a version of masters has."""
    group, names = version.open(), TABLES + ("level",) * (version.kind == "flat")
    found = together(lambda name: np.asarray(array_of(group, name)[...]), names)
    night, present, flag, first, last = found[: len(TABLES)]
    level = np.asarray(found[-1] if version.kind == "flat" else np.ones(present.shape), np.float64)
    made = (present == 1) & np.isfinite(level)
    return Shelf(version.group, night, made, (flag != 0).any(axis=-1), first, last, level)
