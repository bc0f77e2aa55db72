"""What is done to every raw image as it is opened, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import xarray as xr

from ztfzarr.geometry import POCKET_START
from ztfzarr.steps.linearity import linearity_coefficients, linearize
from ztfzarr.steps.overscan import sound_level, subtract_overscan
from ztfzarr.steps.pocket import correct_pocket, overscan_level_with_pocket, pocket_applies, pocket_parameters
from ztfzarr.steps.units import bare

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
    raw, strips = (bare(exposures[name]) for name in ("raw", "overscan"))
    strips = strips.chunk(y=-1, x_overscan=-1) if strips.chunks else strips
    coefficients = linearity_coefficients(exposures["time"])
    parameters = pocket_of(exposures, setting, first_day)
    fit = overscan_level_with_pocket(raw, strips, coefficients, parameters)
    return subtract_overscan(counts, fit["level"])


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


def pocket_of(exposures: xr.Dataset, setting: str, first_day: np.datetime64 = POCKET_START) -> xr.Dataset:
    """Return the pocket parameters of exposures, with ``cmax`` 0 where ``setting`` or their kind says not to."""
    applies = pocket_applies(exposures["time"], setting, first_day, imgtype=exposures["imgtype"])
    return pocket_parameters(applies)


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
