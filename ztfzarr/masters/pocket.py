"""Pocket effect in frames: corrected before they are combined, and measured by what trails into the overscan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import LINEARITY_EPOCHS, POCKET_START
from ztfzarr.masters.frames import BLOCK, Frames, calibrated_frames
from ztfzarr.steps.linearity import linearity_coefficients, linearize, matching
from ztfzarr.steps.overscan import subtract_overscan
from ztfzarr.steps.pocket import (
    correct_pocket,
    in_read_order_columns,
    last_read,
    pocket_of,
    sound_level_with_pocket,
)
from ztfzarr.steps.units import bare, require_labels, require_units

LAST: Final = 8  # image columns that decide the trail: a pocket at a sky of 100 DN forgets those before
REFERENCE: Final = 5  # last-read overscan columns, against which the trail is measured
CLIP: Final = 4.0  # sigma of the last columns: rows further off, with stars, do not count


def detrended_frames(
    exposures: xr.Dataset,
    *,
    pocket: str = "off",
    pocket_from: np.datetime64 = POCKET_START,
    pocket_known: xr.Dataset | None = None,
    **detrending: Any,
) -> Frames:
    """Attach to raw exposures what detrends them, as the settings of the detrending say.

    Parameters
    ----------
    exposures : Dataset
        See :func:`~ztfzarr.masters.frames.calibrated_frames`.
    pocket : str
        ``off``, ``on``, or ``auto``: from ``pocket_from`` on. Bias frames are never corrected.
    pocket_from : datetime64
        First UTC day.
    pocket_known : Dataset, optional
        Fitted pockets, see :func:`~ztfzarr.steps.pocket.pocket_parameters`; default the table's.
    **detrending
        See :func:`~ztfzarr.masters.frames.calibrated_frames`.

    Returns
    -------
    Frames
        Raw, or of :func:`frames_without_pocket`.
    """
    parameters = pocket_of(exposures, pocket, pocket_from, pocket_known)
    if not (parameters["cmax"] > 0).any():
        return calibrated_frames(exposures, **detrending)
    return frames_without_pocket(exposures, parameters, **detrending)


def frames_without_pocket(exposures: xr.Dataset, parameters: xr.Dataset, **detrending: Any) -> Frames:
    """Correct raw exposures for overscan, non-linearity and pocket, to be combined like any frames.

    Parameters
    ----------
    exposures : Dataset
        See :func:`~ztfzarr.masters.frames.calibrated_frames`.
    parameters : Dataset
        Of the pockets at the times of ``exposures``: :func:`~ztfzarr.steps.pocket.pocket_parameters`.
    **detrending
        See :func:`~ztfzarr.masters.frames.calibrated_frames`.

    Returns
    -------
    Frames
        Of corrected counts: their level is 0, NaN where the overscan failed, and so are ``a`` and ``b``.

    Notes
    -----
    The pocket needs whole rows: it is corrected in bands of 616 rows, frame by frame, and the bands are then cut
    into the blocks in which frames are combined. A task that combines thus waits for a band of all the frames,
    which is held until its blocks are done: 7.6 MB a frame.
    """
    plain = calibrated_frames(exposures, **detrending)
    epochs = detrending.pop("epochs", LINEARITY_EPOCHS)
    raw, strips = (bare(exposures[name]) for name in ("raw", "overscan"))
    if raw.chunks:
        raw = raw.chunk({"time": 1, "quadrant": 1, "x": -1, "y": min(BLOCK["y"], raw.sizes["y"])})
        strips = strips.chunk({"time": 1, "quadrant": 1, "y": -1, "x_overscan": -1})
    coefficients = matching(linearity_coefficients(exposures["time"], epochs=epochs), raw)
    chunked = xr.Dataset({"raw": raw, "overscan": strips})
    level = sound_level_with_pocket(chunked, coefficients, parameters, **detrending)
    counts = correct_pocket(linearize(subtract_overscan(raw, level), coefficients), parameters)
    nothing = xr.zeros_like(level).where(level.notnull()).assign_attrs(units="DN")
    if counts.chunks:
        counts, nothing = counts.chunk(plain.counts.chunksizes), nothing.chunk({"time": -1})
    return Frames(counts, nothing, plain.a * 0, plain.b * 0, plain.gain, plain.read_noise)


def pocket_trail(exposures: xr.Dataset, *, epochs: Mapping[str, np.datetime64] = LINEARITY_EPOCHS) -> xr.Dataset:
    """Measure what trails into the overscan of each quadrant.

    Parameters
    ----------
    exposures : Dataset
        ``raw``, ``overscan`` (time, ccd, quadrant, y, x), DN, from ``open_cube`` or ``open_fits``: flats, or sky.
    epochs : mapping
        See :func:`~ztfzarr.steps.linearity.linearity_coefficients`.

    Returns
    -------
    Dataset
        ``trail`` (time, ccd, quadrant, column), DN: mean of each overscan column, in read order, above that of the
        last five, over the rows whose last image columns are level; ``error`` of it; ``charge`` (time, ccd,
        quadrant), DN, its sum; ``level`` (time, ccd, quadrant), DN: of the last eight image columns above the last
        overscan columns, linear. float64, lazy if ``exposures`` are.

    Notes
    -----
    ``charge`` against ``level`` night by night shows whether the pockets still are those of the recipe's table.
    """
    raw, strips = (bare(exposures[name]) for name in ("raw", "overscan"))
    for array in (raw, strips):
        require_units(array, "DN")
        require_labels(array, "ccd", "quadrant")
    last, strips = last_read(raw, LAST), in_read_order_columns(strips)
    if last.chunks:
        last, strips = last.chunk(y=-1, x=-1), strips.chunk(y=-1, x_overscan=-1)
    level, trail, error = xr.apply_ufunc(
        _trails,
        last,
        strips,
        input_core_dims=[["y", "x"], ["y", "x_overscan"]],
        output_core_dims=[[], ["column"], ["column"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"column": strips.sizes["x_overscan"]}},
        output_dtypes=[np.float64] * 3,
        join="exact",
        keep_attrs=False,
    )
    linear = linearize(
        level.astype(np.float32).assign_attrs(units="DN"), linearity_coefficients(exposures["time"], epochs=epochs)
    )
    return _described(xr.Dataset({"trail": trail, "error": error, "charge": trail.sum("column"), "level": linear}))


def _trails(
    last: NDArray[np.float32], strips: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Measure images (…, y, x) and overscans (…, y, column) in read order."""
    lead = last.shape[:-2]
    level = np.full(lead, np.nan)
    trail, error = np.full((2, *lead, strips.shape[-1]), np.nan)
    for image in np.ndindex(lead):
        rows = np.isfinite(last[image]).all(axis=1) & np.isfinite(strips[image]).all(axis=1)
        if rows.sum() > 1:
            level[image], trail[image], error[image] = _trail(last[image][rows], strips[image][rows])
    return level, trail, error


def _trail(
    last: NDArray[np.float32], strips: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    middle = np.median(last)
    spread = 1.4826 * np.median(np.abs(last - middle))
    plain = (np.abs(last - middle) <= CLIP * spread).all(axis=1)
    if plain.sum() < 2:
        return np.nan, np.full(strips.shape[1], np.nan), np.full(strips.shape[1], np.nan)
    used = strips[plain].astype(np.float64)
    above = used - used[:, -REFERENCE:].mean(axis=1, keepdims=True)
    level = last[plain].mean(dtype=np.float64) - used[:, -REFERENCE:].mean()
    return level, above.mean(axis=0), above.std(axis=0, ddof=1) / len(used) ** 0.5


def _described(result: xr.Dataset) -> xr.Dataset:
    names = {
        "trail": "overscan columns in read order, above the last five",
        "error": "standard error of the trail",
        "charge": "charge in the overscan, above the last five columns",
        "level": "level of the last image columns, linear",
    }
    for name, long_name in names.items():
        result[name].attrs = {"units": "DN", "long_name": long_name}
    return result
