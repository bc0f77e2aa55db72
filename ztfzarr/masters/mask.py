"""Bit planes: what is wrong with a pixel of a science exposure, in IPAC's bits where they mean the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels.blocks import block_medians, spread
from ztfzarr.kernels.pixels import exposure_flags
from ztfzarr.masters.bits import BITS as BITS
from ztfzarr.masters.bits import IPAC as IPAC
from ztfzarr.masters.bits import MASKS as MASKS
from ztfzarr.masters.bits import TO_IPAC as TO_IPAC
from ztfzarr.steps.units import require_labels, require_units

SATURATION: Final = 55_000.0  # DN above the overscan; IPAC's headers say 58,600 after the flat
SUSPECT: Final = 50_000.0  # DN: beyond the levels for which the non-linearity was measured

BLOCK: Final = (64, 64)  # rows, columns whose median is the local response
BIAS_BLOCK: Final = (64, 8)  # narrow: the bias of the first-read columns falls within tens of columns
MAD_TO_SIGMA: Final = 1.4826
SAMPLE: Final = 4  # each fourth row measures the scatter of a quadrant


def flags(array: xr.DataArray) -> xr.DataArray:
    """Give a mask its attributes: ``flag_masks`` and ``flag_meanings`` of the CF conventions."""
    meanings = " ".join(MASKS)
    return array.assign_attrs(long_name="what is wrong with the pixel", flag_masks=[*MASKS.values()]).assign_attrs(
        flag_meanings=meanings
    )


def bad_pixels(
    bias: xr.Dataset,
    flat: xr.Dataset,
    *,
    dead: float = 0.2,
    low: float = 0.8,
    high: float = 1.2,
    hot: float = 4.8,
    noisy: float = 0.75,
) -> xr.DataArray:
    """Find the bad pixels of the camera, from its masters.

    Parameters
    ----------
    bias : Dataset of ``bias`` (DN) and ``count``, each (ccd, quadrant, y, x)
        From ``master_bias``.
    flat : Dataset of ``flat`` (1) and ``count``, each (..., ccd, quadrant, y, x)
        From ``master_flat``, of all its filters or one.
    dead, low, high : float
        Response, relative to the median of the 64 x 64 pixels about it: below ``dead`` unresponsive (BANZAI's
        0.2), below ``low`` and above ``high`` (LSST cp_pipe's 0.8) low and high.
    hot : float
        Sigma (1.4826 MAD over the quadrant, noise and structure together) of the bias above the median of the
        64 x 8 pixels about it (LSST cp_pipe's 4.8).
    noisy : float
        Share of the frames: noisy is a pixel of which less went into either master, two frames at the least.

    Returns
    -------
    (..., ccd, quadrant, y, x) uint16
        Bits of :data:`BITS`: dead, low_response, high_response, hot, noisy, and no_calibration where a master is
        not finite. Lazy if the masters are. It takes a second or two a CCD: make it with the masters, once.

    Raises
    ------
    ValueError
        If units are wrong, or CCDs, quadrants or pixels differ.
    """
    require_units(bias["bias"], "DN")
    require_units(flat["flat"], "1")
    require_labels(bias["bias"], "ccd", "quadrant")
    of_bias = bad_in_bias(bias, hot=hot, noisy=noisy)
    of_flat = bad_in_flat(flat, dead=dead, low=low, high=high, noisy=noisy)
    found = _composed(np.bitwise_or, of_flat, _chunked(of_bias, of_flat))
    return flags(found.transpose(*flat["flat"].dims).rename("bad"))


def bad_in_bias(bias: xr.Dataset, *, hot: float = 4.8, noisy: float = 0.75) -> xr.DataArray:
    """Find the bad pixels of a master bias: those of :func:`bad_pixels` that it alone shows."""
    return _found(_bad_in_bias, bias["bias"], bias["count"], hot=hot, noisy=noisy)


def bad_in_flat(
    flat: xr.Dataset, *, dead: float = 0.2, low: float = 0.8, high: float = 1.2, noisy: float = 0.75
) -> xr.DataArray:
    """Find the bad pixels of a master flat: those of :func:`bad_pixels` that it alone shows."""
    return _found(_bad_in_flat, flat["flat"], flat["count"], dead=dead, low=low, high=high, noisy=noisy)


def _found(function: Callable[..., NDArray[np.uint16]], *images: xr.DataArray, **limits: float) -> xr.DataArray:
    """Give a function the image and the count of each quadrant, whole."""
    plain = [v.reset_coords(drop=True) for v in images]
    return xr.apply_ufunc(
        function,
        *(v.chunk(y=-1, x=-1) if v.chunks else v for v in plain),
        kwargs=limits,
        input_core_dims=[["y", "x"]] * 2,
        output_core_dims=[["y", "x"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.uint16],
        join="exact",
        keep_attrs=False,
    )


def _bad_in_bias(
    bias: NDArray[np.float32], count: NDArray[np.int16], *, hot: float, noisy: float
) -> NDArray[np.uint16]:
    excess = bias - spread(_local(bias, *BIAS_BLOCK), bias.shape)
    some = excess[::SAMPLE]
    some = some[np.isfinite(some)]
    sigma = MAD_TO_SIGMA * np.median(np.abs(some)) if some.size else np.nan
    return _planes(hot=excess > hot * sigma, noisy=_rejected(count, noisy), no_calibration=~np.isfinite(bias))


def _bad_in_flat(
    flat: NDArray[np.float32], count: NDArray[np.int16], *, dead: float, low: float, high: float, noisy: float
) -> NDArray[np.uint16]:
    response = _response(flat)
    return _planes(
        dead=response < dead,
        low_response=(response >= dead) & (response < low),
        high_response=response > high,
        noisy=_rejected(count, noisy),
        no_calibration=~np.isfinite(flat),
    )


def _planes(**planes: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Join planes into one mask, each with the bit of its name."""
    mask = np.zeros(next(iter(planes.values())).shape, np.uint16)
    for name, plane in planes.items():
        mask |= plane * np.uint16(MASKS[name])
    return mask


def _response(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a flat relative to its blocks; where half a block is dead, relative to the quadrant."""
    local = _local(flat, *BLOCK)
    if not np.isfinite(local).any():
        return np.full_like(flat, np.nan)
    typical = np.float32(np.nanmedian(local))
    return flat / spread(np.where(local > 0.5 * typical, local, typical), flat.shape)


def _local(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the medians of blocks, of each fourth of their rows."""
    return block_medians(image[::SAMPLE], height // SAMPLE, width)


def _rejected(count: NDArray[np.int16], share: float) -> NDArray[np.bool_]:
    frames = count.max()
    return (count < share * frames) & (count <= frames - 2)


def saturated(raw: xr.DataArray, level: xr.DataArray, *, limit: float | xr.DataArray = SATURATION) -> xr.DataArray:
    """Say which pixels are saturated: judged on overscan-subtracted counts, before the non-linearity.

    Parameters
    ----------
    raw : (..., y, x) float32, DN
    level : (..., y) float32, DN
        ``level`` of ``overscan_level``.
    limit : float or (ccd, quadrant), DN

    Returns
    -------
    (..., y, x) bool; false where there are no counts. Lazy if ``raw`` is.
    """
    require_units(raw, "DN")
    require_units(level, "DN")
    require_labels(raw, "ccd", "quadrant")
    result = xr.apply_ufunc(_above, raw, level, limit, join="exact", dask="allowed", keep_attrs=False)
    return result.transpose(*raw.dims).rename("saturated")


def _above(raw: Any, level: Any, limit: Any) -> Any:
    return raw - level >= limit


def science_mask(
    raw: xr.DataArray,
    level: xr.DataArray,
    science: xr.DataArray,
    bad: xr.DataArray,
    *,
    saturation: float | xr.DataArray = SATURATION,
    suspect: float | xr.DataArray = SUSPECT,
    overscan_flag: xr.DataArray | None = None,
    cosmic_rays: xr.DataArray | None = None,
) -> xr.DataArray:
    """Compose the mask of science exposures.

    Parameters
    ----------
    raw : (time, ccd, quadrant, y, x) float32, DN
        As read.
    level : (time, ccd, quadrant, y) float32, DN
        ``level`` of ``overscan_level``.
    science : (time, ccd, quadrant, y, x) float32
        From ``science``.
    bad : (ccd, quadrant, y, x) uint16
        Of the filter, from :func:`bad_pixels`.
    saturation, suspect : float or (ccd, quadrant), DN
        Above the overscan, before the non-linearity: saturated, and suspect below that.
    overscan_flag : (time, ccd, quadrant), optional
        Of the overscan; quadrants where it is not 0 are suspect all over.
    cosmic_rays : (time, ccd, quadrant, y, x) bool, optional
        Candidates.

    Returns
    -------
    (time, ccd, quadrant, y, x) uint16
        Bits of :data:`BITS`: those of ``bad``; saturated, suspect, spike (a cosmic-ray candidate); no_data where
        the exposure has no pixel, no_calibration where it has no level, nan where ``science`` is not finite. Lazy
        if ``raw`` is.

    Raises
    ------
    ValueError
        If units are not DN, or times, CCDs, quadrants or pixels differ.
    """
    require_units(raw, "DN")
    require_units(level, "DN")
    require_labels(raw, "ccd", "quadrant")
    limits = (xr.DataArray(v).astype(np.float32) for v in (saturation, suspect))
    mask = _composed(exposure_flags, _bare(raw), _bare(level), _bare(science), *limits)
    mask = _composed(np.bitwise_or, mask, _chunked(bad.reset_coords(drop=True), raw))
    if overscan_flag is not None:
        mask = _composed(np.bitwise_or, mask, _plane(_bare(overscan_flag) != 0, "suspect"))
    mask = flags(mask.transpose(*raw.dims).rename("mask"))
    return mask if cosmic_rays is None else with_cosmic_rays(mask, cosmic_rays)


def with_cosmic_rays(mask: xr.DataArray, cosmic_rays: xr.DataArray) -> xr.DataArray:
    """Add candidates of cosmic rays to a mask: its bit spike.

    Parameters
    ----------
    mask : (time, ccd, quadrant, y, x) uint16
        Of :func:`science_mask`.
    cosmic_rays : (time, ccd, quadrant, y, x) bool
        Of :func:`~ztfzarr.masters.cosmic_rays.find_cosmic_rays`, which needs the mask without them.

    Returns
    -------
    (time, ccd, quadrant, y, x) uint16. Lazy if the mask is.
    """
    spikes = _chunked(_plane(_bare(cosmic_rays), "spike"), mask)
    joined = _composed(np.bitwise_or, _bare(mask), spikes)
    return mask.copy(data=joined.transpose(*mask.dims).data)


def _composed(function: Any, *arrays: Any) -> xr.DataArray:
    return xr.apply_ufunc(
        function, *arrays, join="exact", dask="parallelized", output_dtypes=[np.uint16], keep_attrs=False
    )


def _plane(where: xr.DataArray, name: str) -> xr.DataArray:
    return where.astype(np.uint16) * np.uint16(MASKS[name])


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Drop coordinates but the labels of dimensions: those of exposures would be compared at each step."""
    return array.drop_vars([name for name in array.coords if name not in array.dims])


def _chunked(image: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    return image.chunk({d: n for d, n in like.chunksizes.items() if d in image.dims}) if like.chunks else image


def ipac_mask(mask: xr.DataArray) -> xr.DataArray:
    """Translate a mask into IPAC's bits alone, for those who read IPAC's mask images.

    Parameters
    ----------
    mask : (...) uint16
        Of :func:`science_mask`.

    Returns
    -------
    (...) uint16
        hot as noisy; no_data and no_calibration as nan; suspect left out. Lazy if ``mask`` is.
    """
    shared = sum(1 << bit for name, bit in BITS.items() if name in IPAC)
    result = mask & np.uint16(shared)
    for name, ipac in TO_IPAC.items():
        if ipac is not None:
            result = result | ((mask & np.uint16(MASKS[name])) != 0) * np.uint16(1 << IPAC[ipac])
    return result.assign_attrs(
        long_name="what is wrong with the pixel, as in IPAC's mask images",
        flag_masks=[1 << bit for bit in IPAC.values()],
        flag_meanings=" ".join(IPAC),
    )
