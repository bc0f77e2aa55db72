"""FITS files of products: one a quadrant."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.export.frames import PLANES, Frame
from ztfzarr.export.headers import image_header, plane_header
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.store.entries import rounded

LOSSLESS: Final = {"compression_type": "GZIP_2", "quantize_level": 0}
NO_DITHER: Final = -1


def file_content(
    frame: Frame, quadrant: int, raw: list[fits.Header], images: xr.Dataset, *, compress: bool
) -> bytes:
    """Make the bytes of a FITS file of a quadrant.

    Parameters
    ----------
    frame : Frame
        What it is.
    quadrant : int
        1-4.
    raw : list of Header
        Of the raw file; empty for masters.
    images : Dataset
        Those of ``frame``, read, (y, x).
    compress : bool
        As fpack does: an empty primary HDU, then tiles of one row, without loss.

    Returns
    -------
    bytes
        The image in the primary HDU, or compressed in the first extension; then MASK, VARIANCE, COUNT and BAD
        where the product has them; each with CHECKSUM and DATASUM.
    """
    step = float(frame.recipe[frame.kind]["rounding"])
    header = image_header(frame, quadrant, raw)
    image, *others = (
        rounded(images[name].values, name, frame.kind, step) for name in (frame.kind, *PLANES) if name in images
    )
    planes = [(p, plane_header(frame, n)) for p, n in zip(others, (n for n in PLANES if n in images), strict=True)]
    buffer = io.BytesIO()
    with quiet_astropy():
        if compress:
            hdus = [fits.PrimaryHDU(), _compressed(image, header, step)]
            hdus += [_compressed(pixels, text, 0) for pixels, text in planes]
        else:
            hdus = [fits.PrimaryHDU(image, header)]
            hdus += [fits.ImageHDU(pixels, text) for pixels, text in planes]
        fits.HDUList(hdus).writeto(buffer, checksum=True, output_verify="silentfix+ignore")
    return buffer.getvalue()


def _compressed(pixels: NDArray[np.generic], header: fits.Header, step: float) -> fits.CompImageHDU:
    """Compress without loss: floats that are multiples of ``step`` as integers, other floats by GZIP."""
    name = header.get("EXTNAME", "IMAGE")
    if pixels.dtype.kind == "f" and step == 0:
        return fits.CompImageHDU(pixels, header, name=name, **LOSSLESS)
    options = {"quantize_level": -step, "quantize_method": NO_DITHER} if pixels.dtype.kind == "f" else {}
    return fits.CompImageHDU(pixels, header, name=name, compression_type="RICE_1", **options)
