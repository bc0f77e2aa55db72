"""Which master calibrates an exposure, and which nights a master is made of."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DAY = np.timedelta64(86_400_000_000, "us")


def night_noon(night: int) -> np.datetime64:
    """Return the middle of a night (YYYYMMDD): 07:47 UTC of its date, halfway between two local noons."""
    text = str(night)
    return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "us") + np.timedelta64(7 * 60 + 47, "m")


def period_of(night: int, period: str | Sequence[str]) -> str | None:
    """Name the period of a night, all of whose frames go into one master.

    Parameters
    ----------
    night : int
        YYYYMMDD.
    period : str or sequence of str
        ``night``, ``week`` (ISO), ``month``, or ranges of nights ``2020-08-01:2020-08-15``, both ends within.

    Returns
    -------
    str or None
        Such as ``20200801``, ``2020-W31``, ``2020-08``; None for a night in none of the ranges.
    """
    day = datetime.datetime.strptime(str(night), "%Y%m%d").replace(tzinfo=datetime.UTC).date()
    if period == "night":
        return str(night)
    if period == "week":
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02d}"
    if period == "month":
        return f"{day:%Y-%m}"
    for span in [period] if isinstance(period, str) else period:
        first, last = (datetime.date.fromisoformat(text) for text in span.split(":"))
        if first <= day <= last:
            return span
    return None


def nearest_master(
    time: np.datetime64,
    night: int,
    spans: Sequence[tuple[int, int]],
    *,
    validity: float,
    borders: Sequence[np.datetime64] = (),
) -> int | None:
    """Choose the master that calibrates an exposure.

    Parameters
    ----------
    time : datetime64
        Of the exposure, UTC.
    night : int
        Of the exposure, YYYYMMDD.
    spans : sequence of (int, int)
        First and last night of each master that there is for the exposure's CCD (and filter).
    validity : float
        Days: masters further off are not used.
    borders : sequence of datetime64
        UTC days on which the camera changed: a master from the other side of one, or from both, is not used.

    Returns
    -------
    int or None
        Index of the master whose nights hold the exposure's own, else of the nearest in time, the earlier of two
        as near; None if there is none.
    """
    if not len(spans):
        return None
    ends = np.array([[night_noon(first), night_noon(last)] for first, last in spans])
    within = np.array([first <= night <= last for first, last in spans])
    zero = np.timedelta64(0, "us")
    distance = np.where(within, zero, np.maximum(np.maximum(ends[:, 0] - time, time - ends[:, 1]), zero))
    side = _side(np.array([time]), borders)[0]
    usable = within | (distance <= validity * DAY)
    usable &= (_side(ends[:, 0], borders) == side) & (_side(ends[:, 1], borders) == side)
    if not usable.any():
        return None
    candidates = np.flatnonzero(usable)
    order = np.lexsort((ends[candidates, 0], distance[candidates], ~within[candidates]))
    return int(candidates[order[0]])


def _side(times: NDArray[np.datetime64], borders: Sequence[np.datetime64]) -> NDArray[np.int64]:
    """Count the borders that lie before each time."""
    return np.sum([times >= border for border in borders], axis=0) if len(borders) else np.zeros(len(times), int)
