"""Candidates of cosmic rays in science exposures, by their sharp edges."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels import cosmic_rays as kernel
from ztfzarr.masters.bits import MASKS
from ztfzarr.steps.units import require_labels, require_units

SIGCLIP: Final = 6.0  # LSST's minSigma; at 4.5, astroscrappy's, a quarter of what is found is noise
SIGFRAC: Final = 0.3  # astroscrappy's
OBJLIM: Final = 12.0  # van Dokkum: 2, undersampled 5; of the stars of a real quadrant, 5 flags a third, this 0.1 %

# Pixels whose counts are what they should be, but for their noise: a hit on them is one.
SOUND: Final = MASKS["suspect"] | MASKS["low_response"] | MASKS["high_response"]


def find_cosmic_rays(
    science: xr.DataArray,
    variance: xr.DataArray,
    mask: xr.DataArray,
    *,
    sigclip: float = SIGCLIP,
    sigfrac: float = SIGFRAC,
    objlim: float = OBJLIM,
) -> xr.DataArray:
    """Find the pixels of science exposures that cosmic rays may have hit.

    Parameters
    ----------
    science : (time, ccd, quadrant, y, x) float32, DN
        With the sky, from ``science``.
    variance : (time, ccd, quadrant, y, x) float32, DN2
        Of each pixel by itself: of its photons and its reading.
    mask : (time, ccd, quadrant, y, x) uint16
        Bits of :data:`~ztfzarr.masters.mask.BITS`. Bad pixels are no candidates, nor those that touch them, nor
        those within four pixels of a saturated one; suspect, low and high response are no faults here.
    sigclip : float
        Sigma of the Laplacian above that of the 5 x 5 pixels about it.
    sigfrac : float
        Part of ``sigclip`` that neighbours need.
    objlim : float
        Least Laplacian over fine structure, both in sigma: a star's core has less.

    Returns
    -------
    (time, ccd, quadrant, y, x) bool. Lazy if ``science`` is, whole quadrants at once.

    Raises
    ------
    ValueError
        If units are wrong, or times, CCDs, quadrants or pixels differ.

    Notes
    -----
    L.A.Cosmic, four iterations: van Dokkum 2001, PASP 113, 1420; the noise is the square root of the median
    variance of 5 x 5 pixels, so that a hit does not hide in the photon noise of its own charge.
    """
    require_units(science, "DN")
    require_units(variance, "DN2")
    require_labels(science, "ccd", "quadrant")
    images = (v.drop_vars([name for name in v.coords if name not in v.dims]) for v in (science, variance, mask))
    found = xr.apply_ufunc(
        candidates,
        *(v.chunk(y=-1, x=-1) if v.chunks else v for v in images),
        kwargs={"sigclip": sigclip, "sigfrac": sigfrac, "objlim": objlim},
        input_core_dims=[["y", "x"]] * 3,
        output_core_dims=[["y", "x"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.bool_],
        join="exact",
        keep_attrs=False,
    )
    return found.transpose(*science.dims).rename("cosmic_rays")


def candidates(
    science: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.uint16], **settings: float
) -> NDArray[np.bool_]:
    """Find the candidates of one image, each (y, x); see :func:`find_cosmic_rays`."""
    saturated = (mask & np.uint16(MASKS["saturated"])) != 0
    bad = ((mask & ~np.uint16(SOUND)) != 0) & ~saturated
    return kernel.cosmic_rays(science, variance, bad, saturated, **settings)
