"""Which exposures go into a master."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import night_of

RUN_GAP: Final = np.timedelta64(600, "s")
SKIP: Final = 10
MINIMUM: Final = 3


def number_in_run(time: xr.DataArray) -> xr.DataArray:
    """Return the number of each exposure within its uninterrupted run, from 0, in time.

    Parameters
    ----------
    time : (time) datetime64
        In any order. A gap of more than ten minutes starts a new run.

    Returns
    -------
    (time) int64
    """
    values = np.asarray(time.values, "datetime64[us]")
    order = np.argsort(values, kind="stable")
    starts = np.concatenate([[True], np.diff(values[order]) > RUN_GAP])
    position = np.arange(len(values))
    first = np.maximum.accumulate(np.where(starts, position, 0))
    numbers = np.empty(len(values), np.int64)
    numbers[order] = position - first
    return xr.DataArray(numbers, dims=("time",), coords={"time": time.values})


def settled(time: xr.DataArray, *, skip: int = SKIP) -> NDArray[np.bool_]:
    """Say which biases come after the first ``skip`` of their run, while the level still settles."""
    return np.asarray(number_in_run(time).values >= skip)


def night_of_frames(exposures: xr.Dataset) -> dict[str, int]:
    """Return the first night of some exposures, YYYYMMDD, as a coordinate of what is made of them."""
    return {"night": int(night_of(exposures["time"].values).min())}


def require_frames(exposures: xr.Dataset, used: NDArray[np.bool_], minimum: int, what: str) -> None:
    """Raise ValueError, naming the CCDs, where fewer than ``minimum`` of the used exposures have a file."""
    ccds = np.atleast_1d(exposures["ccd"].values)
    present = (
        exposures["present"].isel(time=used).transpose("time", ...).values.reshape(int(used.sum()), ccds.size)
    )
    short = [(int(c), int(n)) for c, n in zip(ccds, present.sum(axis=0), strict=True) if n < minimum]
    if short:
        named = ", ".join(f"CCD {c} has {n}" for c, n in short)
        raise ValueError(f"{what}: expected at least {minimum} frames, but {named}")
