"""What is done to every raw image as it is opened, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import xarray as xr

from ztfzarr.geometry import POCKET_START
from ztfzarr.steps.linearity import linearity_coefficients, linearize
from ztfzarr.steps.overscan import sound_level, subtract_overscan
from ztfzarr.steps.pocket import correct_pocket, pocket_of, sound_level_with_pocket

Step = Callable[[xr.DataArray, xr.Dataset], xr.DataArray]


def without_overscan(counts: xr.DataArray, exposures: xr.Dataset) -> xr.DataArray:
    """Subtract from ``counts`` the level of the overscans of ``exposures``, columns [5, 25), degree 3.

    Where an overscan is not sound, counts are NaN.
    """
    return subtract_overscan(counts, sound_level(exposures))


def linear(counts: xr.DataArray, exposures: xr.Dataset) -> xr.DataArray:
    """Undo the non-linearity that holds at the times of ``exposures``."""
    return linearize(counts, linearity_coefficients(exposures["time"]))


def without_overscan_and_trail(
    counts: xr.DataArray,
    exposures: xr.Dataset,
    *,
    setting: str = "auto",
    first_day: np.datetime64 = POCKET_START,
) -> xr.DataArray:
    """Subtract from ``counts``, as read, the level of overscans freed of the charge that trails into them."""
    coefficients = linearity_coefficients(exposures["time"])
    level = sound_level_with_pocket(exposures, coefficients, pocket_of(exposures, setting, first_day))
    return subtract_overscan(counts, level)


def without_pocket(
    counts: xr.DataArray,
    exposures: xr.Dataset,
    *,
    setting: str = "auto",
    first_day: np.datetime64 = POCKET_START,
) -> xr.DataArray:
    """Give deferred charge back, where ``setting`` says and never in bias frames."""
    rows = counts.copy(data=counts.variable.chunk(x=-1).data) if counts.chunks else counts
    return correct_pocket(rows, pocket_of(exposures, setting, first_day))


DETREND: Final[tuple[Step, ...]] = (without_overscan, linear)
POCKET_DETREND: Final[tuple[Step, ...]] = (without_overscan_and_trail, linear, without_pocket)


def detrend(exposures: xr.Dataset, *, steps: tuple[Step, ...] = DETREND) -> xr.DataArray:
    """Detrend raw exposures: overscan, then non-linearity; with ``steps=POCKET_DETREND`` then the pocket effect.

    Parameters
    ----------
    exposures : Dataset
        ``raw`` (time, ccd, quadrant, y, x) and ``overscan``, float32 DN, from ``open_cube`` or ``open_fits``:
        any selection of exposures, CCDs and quadrants, with all the rows.
    steps : tuple of callables
        Each takes the counts so far and the exposures. The order is theirs.

    Returns
    -------
    (time, ccd, quadrant, y, x) float32, DN. Lazy if ``exposures`` is chunked.
    """
    counts = exposures["raw"]
    for step in steps:
        counts = step(counts, exposures)
    return counts.rename("detrended")
