"""Detrended counts, minus master bias, over master flat, levelled across CCDs; and their variance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ztfzarr.kernels.pixels import calibrate as pixel_science
from ztfzarr.kernels.pixels import calibrated_variance as pixel_variance
from ztfzarr.kernels.pixels import own_variance
from ztfzarr.steps.units import require_labels, require_units


def calibrate(
    detrended: xr.DataArray, bias: xr.DataArray, flat: xr.DataArray, levels: xr.DataArray
) -> xr.DataArray:
    """Calibrate detrended exposures of one filter.

    Parameters
    ----------
    detrended : (time, ccd, quadrant, y, x) float32, DN
        From ``detrend``.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias of the same CCDs.
    flat : (ccd, quadrant, y, x) float32, 1
        Master flat of the filter and the same CCDs.
    levels : (ccd)
        Of the filter, from ``relative_levels``.

    Returns
    -------
    (time, ccd, quadrant, y, x) float32, DN. Lazy if ``detrended`` is.

    Raises
    ------
    ValueError
        If units are wrong, or CCDs, quadrants or pixels differ.

    Notes
    -----
    S = k (D - B) / F, k = 1 / r of the CCD.
    """
    require_units(detrended, "DN")
    require_units(bias, "DN")
    require_units(flat, "1")
    require_labels(detrended, "ccd", "quadrant")
    k = (1.0 / levels.reset_coords(drop=True)).astype(np.float32)
    images = (_alike(v, detrended) for v in (bias, flat))
    result = xr.apply_ufunc(
        pixel_science,
        detrended,
        *images,
        k,
        join="exact",
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    )
    return result.rename("science").assign_attrs(units="DN", long_name="calibrated counts")


def calibrated_variance(
    detrended: xr.DataArray,
    bias: xr.Dataset,
    flat: xr.Dataset,
    levels: xr.DataArray,
    gain: xr.DataArray,
    read_noise: xr.DataArray,
) -> xr.DataArray:
    """Predict the variance of :func:`calibrate`.

    Parameters
    ----------
    detrended : (time, ccd, quadrant, y, x) float32, DN
    bias : Dataset of ``bias``, ``variance``, each (ccd, quadrant, y, x)
    flat : Dataset of ``flat``, ``variance``, each (ccd, quadrant, y, x)
        Of the filter.
    levels : (ccd)
    gain, read_noise : (ccd, quadrant), e-/DN and e-

    Returns
    -------
    (time, ccd, quadrant, y, x) float32, DN2. Lazy if ``detrended`` is.

    Notes
    -----
    var(S) = k^2 [var(D) + (D/F)^2 var(F)] / F^2, var(D) = max(D, 0)/gain + (read noise/gain)^2 + var(bias), D
    minus bias, before the flat. The terms of bias and flat are common to all exposures that share the masters:
    they do not average down.
    """
    require_units(detrended, "DN")
    require_labels(detrended, "ccd", "quadrant")
    masters = bias["bias"], bias["variance"], flat["flat"], flat["variance"]
    result = _variance(pixel_variance, detrended, masters, levels, gain, read_noise)
    return result.assign_attrs(units="DN2", long_name="variance of the calibrated counts")


def photon_variance(
    detrended: xr.DataArray,
    bias: xr.DataArray,
    flat: xr.DataArray,
    levels: xr.DataArray,
    gain: xr.DataArray,
    read_noise: xr.DataArray,
) -> xr.DataArray:
    """Predict the variance of :func:`calibrate` of a pixel's own photons and reading, without the masters'.

    Parameters
    ----------
    detrended, bias, flat, levels
        As of :func:`calibrate`.
    gain, read_noise : (ccd, quadrant), e-/DN and e-

    Returns
    -------
    (time, ccd, quadrant, y, x) float32, DN2. Lazy if ``detrended`` is.
    """
    result = _variance(own_variance, detrended, (bias, flat), levels, gain, read_noise)
    return result.assign_attrs(units="DN2", long_name="variance of photons and reading")


def _variance(
    predict: Callable[..., Any],
    detrended: xr.DataArray,
    masters: Sequence[xr.DataArray],
    levels: xr.DataArray,
    gain: xr.DataArray,
    read_noise: xr.DataArray,
) -> xr.DataArray:
    """Predict a variance pixel by pixel."""
    k = (1.0 / levels.reset_coords(drop=True)).astype(np.float32)
    result: xr.DataArray = xr.apply_ufunc(
        predict,
        detrended,
        *(_alike(master, detrended) for master in masters),
        k,
        gain.reset_coords(drop=True).astype(np.float32),
        read_noise.reset_coords(drop=True).astype(np.float32),
        join="exact",
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=False,
    )
    return result.rename("variance")


def _alike(master: xr.DataArray, counts: xr.DataArray) -> xr.DataArray:
    """Drop scalar coordinates of a master, such as its night and filter, and chunk it as the counts."""
    plain = master.reset_coords(drop=True)
    if not counts.chunks:
        return plain
    return plain.chunk({d: n for d, n in counts.chunksizes.items() if d in plain.dims})
