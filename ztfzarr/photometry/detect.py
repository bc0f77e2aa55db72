"""Where the stars of a quadrant are: the sky taken away, then what stands out of its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.photometry.pixels import Floats, Image, Pixels

PEAKS: Final = 8192  # of one piece above the threshold
PIXEL_STACK: Final = 3_000_000  # of sep: a quadrant's third above the threshold
OF_PIXELS: Final = 4  # and a quarter of a CCD's


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


def detect(pixels: Pixels, *, threshold: float = 3.0, least: int = 4, mesh: int = 64) -> Detections:
    """Find the stars of a quadrant.

    Parameters
    ----------
    pixels : Pixels
        From ``prepare``.
    threshold : float
        Sigma of a smoothed pixel.
    least : int
        Fewest that stand above it together.
    mesh : int
        Pixels across which the sky is level.

    Returns
    -------
    Detections

    Raises
    ------
    ValueError
        If more stands out than sep can hold: a third of a quadrant's pixels, a quarter of a CCD's, or 8,192 peaks
        in one piece.

    Notes
    -----
    SExtractor's background, filter and deblending (Bertin & Arnouts 1996), as sep has them.
    """
    sep = sep_module()
    sep.set_extract_pixstack(max(PIXEL_STACK, pixels.data.size // OF_PIXELS))
    sep.set_sub_object_limit(PEAKS)
    if pixels.lost.all():
        return _none(pixels.data)
    sky = np.asarray(
        sep.Background(pixels.data, mask=pixels.lost, bw=mesh, bh=mesh, fw=3, fh=3).back(), np.float32
    )
    try:
        found, segments = sep.extract(
            pixels.data - sky, threshold, var=pixels.noise, mask=pixels.lost, minarea=least, segmentation_map=True
        )
    except Exception as error:  # sep has no class of its own
        raise ValueError(f"stars cannot be told apart ({str(error).splitlines()[0]})") from None
    order = np.argsort(-found["flux"], kind="stable")
    found = found[order]
    merged = (found["flag"] & sep.OBJ_MERGED) != 0
    x, y, flux, peak = (np.asarray(found[name], np.float64) for name in ("x", "y", "flux", "peak"))
    return Detections(x, y, flux, peak, merged, segments > 0, sky)


def _none(data: Image) -> Detections:
    empty = np.empty(0)
    nowhere = np.zeros(data.shape, bool)
    return Detections(empty, empty, empty, empty, np.empty(0, bool), nowhere, np.zeros_like(data))
