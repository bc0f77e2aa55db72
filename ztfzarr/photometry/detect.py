"""Where the stars of a quadrant are: the sky taken away, then what stands out of its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.masters.mask import MASKS

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

# Without any value; others of MASKS have a poor one, which is measured and flagged.
LOST: Final = sum(MASKS[name] for name in ("dead", "hot", "nan", "no_data", "no_calibration", "spike"))
PIXEL_STACK: Final = 3_000_000  # of sep: a quadrant's third above the threshold


@dataclass(frozen=True, eq=False)
class Detections:
    """What :func:`detect` finds: arrays of one length, brightest first; and which pixels are stars, (y, x)."""

    x: Floats
    y: Floats
    flux: Floats  # DN of the pixels above the threshold
    peak: Floats  # DN above the sky
    merged: NDArray[np.bool_]  # parted from another star
    stars: NDArray[np.bool_]
    sky: Image  # DN, (y, x)


def sep_module() -> Any:
    """Import sep, or say how to install it."""
    try:
        import sep
    except ImportError:
        raise StoreError("photometry needs sep: pip install 'ztfzarr[stars]'") from None
    return sep


def detect(
    science: Image,
    mask: NDArray[np.uint16],
    variance: Image,
    *,
    threshold: float = 3.0,
    pixels: int = 4,
    mesh: int = 64,
) -> Detections:
    """Find the stars of a quadrant.

    Parameters
    ----------
    science, mask, variance : (y, x)
        Of a quadrant: DN, bits of ``ztfzarr.masters.mask.MASKS``, DN2.
    threshold : float
        Sigma of a smoothed pixel.
    pixels : int
        Fewest that stand above it together.
    mesh : int
        Pixels across which the sky is level.

    Returns
    -------
    Detections

    Notes
    -----
    SExtractor's background, filter and deblending (Bertin & Arnouts 1996), as sep has them.
    """
    sep = sep_module()
    sep.set_extract_pixstack(PIXEL_STACK)
    data, lost = without_lost(science, mask)
    lost |= ~np.isfinite(variance)
    if lost.all():
        return _none(data)
    sky = np.asarray(sep.Background(data, mask=lost, bw=mesh, bh=mesh, fw=3, fh=3).back(), np.float32)
    error = np.sqrt(np.where(lost, np.nanmedian(variance[~lost]), variance)).astype(np.float32)
    found, segments = sep.extract(
        data - sky, threshold, err=error, mask=lost, minarea=pixels, segmentation_map=True, clean=True
    )
    order = np.argsort(-found["flux"], kind="stable")
    found = found[order]
    merged = (found["flag"] & sep.OBJ_MERGED) != 0
    x, y, flux, peak = (np.asarray(found[name], np.float64) for name in ("x", "y", "flux", "peak"))
    return Detections(x, y, flux, peak, merged, segments > 0, sky)


def _none(data: Image) -> Detections:
    empty = np.empty(0)
    nowhere = np.zeros(data.shape, bool)
    return Detections(empty, empty, empty, empty, np.empty(0, bool), nowhere, np.zeros_like(data))


def without_lost(science: Image, mask: NDArray[np.uint16]) -> tuple[Image, NDArray[np.bool_]]:
    """Bridge pixels without a value along their row; also return which they are.

    A bad column within an aperture then costs a few per mille of a star's light, not all of the column.
    """
    lost = ((mask & LOST) != 0) | ~np.isfinite(science)
    data = np.array(science, np.float32)
    if lost.any() and not lost.all():
        good = np.flatnonzero(~lost)
        gone = np.flatnonzero(lost)
        data.reshape(-1)[gone] = np.interp(gone, good, data.reshape(-1)[good])
    return data, lost
