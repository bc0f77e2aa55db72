"""FITS files of products: one a quadrant."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.export.frames import NODES, PLANES, Frame
from ztfzarr.export.headers import UNITS, image_header, plane_header, sheet_header
from ztfzarr.export.sheets import Sheet, SheetColumn
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.store.entries import rounded

LOSSLESS: Final = {"compression_type": "GZIP_2", "quantize_level": 0}
NO_DITHER: Final = -1
SIGNED: Final = {
    "int8": "int16", "uint8": "int16", "int16": "int16", "uint16": "int32", "int32": "int32", "int64": "int64",
}  # fmt: skip
FORMATS: Final = {"int16": "I", "int32": "J", "int64": "K", "float32": "E", "float64": "D"}
LONGEST: Final = 67  # characters of a card's text


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
        where the product has them; of starflats ERROR, and NODES: the table of the map as it was fitted. Each
        with CHECKSUM and DATASUM.
    """
    step = float(frame.recipe[frame.kind].get("rounding", 0))
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
        if "node_delta" in images:
            hdus.append(_table(_nodes(images), "NODES"))
        fits.HDUList(hdus).writeto(buffer, checksum=True, output_verify="silentfix+ignore")
    return buffer.getvalue()


def table_content(sheet: Sheet) -> bytes:
    """Make the bytes of a FITS file of a table.

    Returns
    -------
    bytes
        An empty primary HDU whose header says what was done, and a binary table with the unit (TUNITn) and the
        description (TCOMMn) of each column and what the bits of flags mean (BITnn); with CHECKSUM and DATASUM.
    """
    table = _table(sheet.columns(), sheet.kind.upper())
    for name, flag in sheet.flags.items():
        bit = flag.bit_length() - 1
        table.header.set(f"BIT{bit:02d}", bit, name)
    buffer = io.BytesIO()
    with quiet_astropy():
        hdus = [fits.PrimaryHDU(header=sheet_header(sheet)), table]
        fits.HDUList(hdus).writeto(buffer, checksum=True, output_verify="silentfix+ignore")
    return buffer.getvalue()


def _table(columns: dict[str, SheetColumn], name: str) -> fits.BinTableHDU:
    """Make a binary table; integers that FITS lacks become the next larger that it has."""
    made = []
    for key, column in columns.items():
        values = column.values
        if values.dtype.kind in "OU":
            values = np.asarray(values.tolist(), f"S{max([1, *map(len, values.tolist())])}")
        elif values.dtype.kind in "iu":
            values = values.astype(SIGNED[values.dtype.name])
        form = FORMATS.get(values.dtype.name) or f"{values.dtype.itemsize}A"
        made.append(fits.Column(key, form, unit=UNITS.get(column.units), array=values))
    table = fits.BinTableHDU.from_columns(made, name=name)
    for number, column in enumerate(columns.values(), 1):
        table.header.set(f"TCOMM{number}", column.long_name[:LONGEST], after=f"TFORM{number}")
    return table


def _nodes(images: xr.Dataset) -> dict[str, SheetColumn]:
    """Make the columns of the nodes of a quadrant's map."""
    y, x = np.meshgrid(images["cell_y"].values, images["cell_x"].values, indexing="ij")
    found = {
        "y": SheetColumn(y.ravel(), "pixel", "stored row of the node, 0-based"),
        "x": SheetColumn(x.ravel(), "pixel", "stored column of the node, 0-based"),
    }
    for name in NODES:
        array = images[f"node_{name}"].transpose("cell_y", "cell_x")
        about = str(array.attrs.get("units", "")), str(array.attrs.get("long_name", ""))
        found[name] = SheetColumn(array.values.ravel(), *about)
    return found


def _compressed(pixels: NDArray[np.generic], header: fits.Header, step: float) -> fits.CompImageHDU:
    """Compress without loss: floats that are multiples of ``step`` as integers, other floats by GZIP."""
    name = header.get("EXTNAME", "IMAGE")
    if pixels.dtype.kind == "f" and step == 0:
        return fits.CompImageHDU(pixels, header, name=name, **LOSSLESS)
    options = {"quantize_level": -step, "quantize_method": NO_DITHER} if pixels.dtype.kind == "f" else {}
    return fits.CompImageHDU(pixels, header, name=name, compression_type="RICE_1", **options)
