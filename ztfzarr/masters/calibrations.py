"""Which master calibrates an exposure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DAY = np.timedelta64(86_400_000_000, "us")


def night_noon(night: int) -> np.datetime64:
    """Return the middle of a night (YYYYMMDD): 07:47 UTC of its date, halfway between two local noons."""
    text = str(night)
    return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "us") + np.timedelta64(7 * 60 + 47, "m")


def nearest_night(
    time: np.datetime64,
    night: int,
    available: Sequence[int],
    *,
    validity: float,
    borders: Sequence[np.datetime64] = (),
) -> int | None:
    """Choose the night whose master calibrates an exposure.

    Parameters
    ----------
    time : datetime64
        Of the exposure, UTC.
    night : int
        Of the exposure, YYYYMMDD.
    available : sequence of int
        Nights that have the master for the exposure's CCD (and filter).
    validity : float
        Days: masters further off are not used.
    borders : sequence of datetime64
        UTC days on which the camera changed: a master from the other side of one is not used.

    Returns
    -------
    int or None
        The exposure's own night if it has a master, else the nearest in time, the earlier of two as near; None
        if there is none.
    """
    if not len(available):
        return None
    nights = np.array(sorted(available))
    middles = np.array([night_noon(int(n)) for n in nights])
    usable = np.abs(middles - time) <= validity * DAY
    usable |= nights == night
    side = _side(np.array([time]), borders)[0]
    usable &= _side(middles, borders) == side
    if night in nights[usable]:
        return night
    if not usable.any():
        return None
    candidates = np.flatnonzero(usable)
    return int(nights[candidates[np.argmin(np.abs(middles[candidates] - time))]])


def _side(times: NDArray[np.datetime64], borders: Sequence[np.datetime64]) -> NDArray[np.int64]:
    """Count the borders that lie before each time."""
    return np.sum([times >= border for border in borders], axis=0) if len(borders) else np.zeros(len(times), int)
