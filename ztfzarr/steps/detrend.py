"""What is done to every raw image as it is opened, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import xarray as xr

from ztfzarr.steps.linearity import linearity_coefficients, linearize
from ztfzarr.steps.overscan import sound_level, subtract_overscan

Step = Callable[[xr.DataArray, xr.Dataset], xr.DataArray]


def without_overscan(counts: xr.DataArray, exposures: xr.Dataset) -> xr.DataArray:
    """Subtract from ``counts`` the level of the overscans of ``exposures``, columns [5, 25), degree 3.

    Where an overscan is not sound, counts are NaN.
    """
    return subtract_overscan(counts, sound_level(exposures))


def linear(counts: xr.DataArray, exposures: xr.Dataset) -> xr.DataArray:
    """Undo the non-linearity that holds at the times of ``exposures``."""
    return linearize(counts, linearity_coefficients(exposures["time"]))


DETREND: Final[tuple[Step, ...]] = (without_overscan, linear)


def detrend(exposures: xr.Dataset, *, steps: tuple[Step, ...] = DETREND) -> xr.DataArray:
    """Detrend raw exposures: overscan, then non-linearity.

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
