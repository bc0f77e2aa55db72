"""Judge LED flats and what is made of them; users find these in :mod:`ztfzarr.masters.quality`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels.blocks import block_medians, spread
from ztfzarr.masters.frames import matching_master
from ztfzarr.masters.numbers import centre, flags, of_images, rejected
from ztfzarr.masters.pocket import detrended_frames
from ztfzarr.steps.linearity import linearize
from ztfzarr.steps.overscan import subtract_overscan
from ztfzarr.steps.units import require_units

BIN: Final = 64  # pixels a side, in which two flats are compared


def flat_quality(
    flat: xr.Dataset, *, scatter: float = 0.05, rejection: float = 0.01, rows: int = BIN
) -> xr.Dataset:
    """Judge a master flat.

    Parameters
    ----------
    flat : Dataset of ``flat`` (1) and ``count``, each (..., ccd, quadrant, y, x)
        From ``master_flat``.
    scatter : float
        Largest scatter of pixels about those around them (LSST cp_verify's 5 %).
    rejection : float
        Largest share of the counts rejected.
    rows : int
        Of a bin; fewer than 64 if the flat holds but a sample of its rows.

    Returns
    -------
    Dataset
        Each (..., ccd, quadrant): ``level``, the median, which holds the amplifiers' gains; ``scatter``,
        1.4826 MAD about the medians of 64 x 64 pixels, relative; ``rejected``, share of the counts (1); ``flag``
        (uint8). Lazy if the flat is.
    """
    require_units(flat["flat"], "1")
    level, spread_about = of_images(partial(_flat_numbers, height=rows), flat["flat"], outputs=2)
    lost = rejected(flat["count"])
    flag = flags(scatter=~(spread_about <= scatter), rejected=~(lost <= rejection))
    return xr.Dataset(
        {
            "level": level.assign_attrs(units="1", long_name="median of the master flat"),
            "scatter": spread_about.assign_attrs(units="1", long_name="1.4826 MAD about 64 x 64 pixels, relative"),
            "rejected": lost,
            "flag": flag.assign_attrs(long_name="master flat: what is wrong"),
        }
    )


def _flat_numbers(image: NDArray[np.float32], *, height: int) -> tuple[float, float]:
    local = block_medians(image, height, BIN)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = image / spread(local, image.shape)
    return centre(image)[0], centre(relative)[1]


def flat_frames(
    exposures: xr.Dataset,
    bias: xr.DataArray,
    flat: xr.DataArray,
    *,
    stride: int = 8,
    drift: float = 0.05,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Judge the LED flats of a filter, frame by frame, by the master flat that they made or another.

    Parameters
    ----------
    exposures : Dataset
        Raw flats of the LEDs of one filter.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias.
    flat : (ccd, quadrant, y, x) float32, 1
        Master flat of the filter.
    stride : int
        Each ``stride``-th row and column is looked at.
    drift : float
        Largest change of a frame's level against its LED's.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.pocket.detrended_frames`.

    Returns
    -------
    Dataset
        ``level`` (time, ccd, quadrant), DN: median of the frame over the master; ``drift``, level over the mean of
        the LED's, minus 1; ``colour``, level over the mean of the CCD's quadrants: what the LED lights otherwise
        than the filter's flat (1); ``flag`` (uint8). All float32, lazy if the exposures are.
    """
    frames = detrended_frames(exposures, **(detrending or {}))
    every = {"y": slice(None, None, stride), "x": slice(None, None, stride)}
    counts = subtract_overscan(frames.counts.isel(every), frames.level.isel(y=every["y"]))
    linear = linearize(counts, xr.Dataset({"a": frames.a, "b": frames.b}))
    images = [matching_master(v, frames.counts).isel(every) for v in (bias, flat)]
    (level,) = of_images(_level_over, linear, *images, outputs=1)
    by_led = level.assign_coords(led=("time", exposures["led"].values)).groupby("led")
    change = (by_led / by_led.mean("time")).drop_vars("led") - 1
    colour = level / level.mean("quadrant")
    flag = flags(no_level=level.isnull(), drift=abs(change) > drift)
    return xr.Dataset(
        {
            "level": level.assign_attrs(units="DN", long_name="median of the flat frame over the master flat"),
            "drift": change.assign_attrs(units="1", long_name="level against the mean of the LED's"),
            "colour": colour.assign_attrs(units="1", long_name="level against the mean of the CCD's quadrants"),
            "flag": flag.assign_attrs(long_name="flat frame: what is wrong"),
        }
    )


def _level_over(counts: NDArray[np.float32], bias: NDArray[np.float32], flat: NDArray[np.float32]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return centre((counts - bias) / flat)[0]


def flat_difference(
    flat: xr.DataArray, other: xr.DataArray, *, change: float = 0.005, rows: int = BIN
) -> xr.Dataset:
    """Compare a master flat with another, such as the previous night's, in bins of 64 pixels.

    Parameters
    ----------
    flat, other : (..., ccd, quadrant, y, x) float32, 1
    change : float
        From which a bin counts as changed.
    rows : int
        Of a bin; fewer than 64 if the flat holds but a sample of its rows.

    Returns
    -------
    Dataset
        Each (..., ccd, quadrant): ``difference``, the largest |ratio - 1| of the bins' medians; ``flag`` (uint8).
        Lazy if the flats are.
    """
    for one in (flat, other):
        require_units(one, "1")
    images = (v.reset_coords(drop=True) for v in (flat, other))
    (largest,) = of_images(partial(_largest_difference, height=rows), *images, outputs=1)
    return xr.Dataset(
        {
            "difference": largest.assign_attrs(units="1", long_name="largest change of a flat in 64 x 64 pixels"),
            "flag": flags(changed=~(largest <= change)).assign_attrs(
                long_name="comparison of flats: what is wrong"
            ),
        }
    )


def _largest_difference(flat: NDArray[np.float32], other: NDArray[np.float32], *, height: int) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks = np.abs(block_medians(flat / other, height, BIN) - 1)
    return float(np.nanmax(blocks)) if np.isfinite(blocks).any() else np.nan
