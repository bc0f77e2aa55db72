"""The pixels of one image extension, as the integers that the FITS file holds.

Row tiles under RICE or GZIP and integer images keep their integers, with a scale and zero a row. Every
other form is decoded by astropy and kept as float32 bits: exact, larger, rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.hdus import Hdu
from ztfzarr.ingest.rare import astropy_images
from ztfzarr.ingest.tiles import RICE, Tiles, algorithm, read_tiles, row_tiles
from ztfzarr.kernels.dither import ABSENT, N_RANDOM, NULL_ASTROPY, NULL_CFITSIO

EXACT_FLOAT32: Final = 2**24  # integers up to here are exact in float32
LARGEST_FILE: Final = 2**26  # pixels; a ZTF file has 2^25.2, and twice as many would need 1 GB
SPECIAL: Final = frozenset({NULL_ASTROPY, NULL_CFITSIO, ABSENT})  # what our decoding takes for NaN


@dataclass(frozen=True)
class StoredImage:
    """An image as stored in the cube.

    ``integers`` (y, x) int32; ``zscale``, ``zzero`` (y,) float64, scale 0 where the integers are float32
    bits; ``zdither`` 0 none, +n SUBTRACTIVE_DITHER_1, -n SUBTRACTIVE_DITHER_2 with ZDITHER0 = n.
    """

    integers: NDArray[np.int32]
    zscale: NDArray[np.float64]
    zzero: NDArray[np.float64]
    zdither: int


def is_compressed(hdu: Hdu) -> bool:
    """Say whether an extension is a tile-compressed image."""
    return hdu.value("XTENSION") == "BINTABLE" and hdu.value("ZIMAGE") is True


def image_shape(hdu: Hdu) -> tuple[int, int]:
    """Return the rows and columns of an image extension, from its header.

    Raises
    ------
    RefusedError
        If the extension is no image of two dimensions, or of a size that no CCD has.
    """
    prefix = "Z" if is_compressed(hdu) else ""
    if not prefix and hdu.value("XTENSION") != "IMAGE":
        raise RefusedError(f"HDU {hdu.index}: XTENSION = {hdu.value('XTENSION')!r}, expected an image")
    naxis = hdu.integer(f"{prefix}NAXIS")
    if naxis != 2:
        raise RefusedError(f"HDU {hdu.index}: an image of {naxis} dimensions, expected 2")
    ny, nx = hdu.integer(f"{prefix}NAXIS2"), hdu.integer(f"{prefix}NAXIS1")
    if ny < 1 or nx < 1 or ny * nx > LARGEST_FILE:
        raise RefusedError(f"HDU {hdu.index}: an image of {ny} x {nx} pixels, expected at most 2^26")
    return ny, nx


def read_images(hdus: Sequence[Hdu], content: memoryview) -> list[StoredImage]:
    """Read the images of extensions as the integers they hold.

    Parameters
    ----------
    hdus : sequence of Hdu
        Image extensions of the file.
    content : memoryview
        The whole file.

    Raises
    ------
    RefusedError
        If a tile does not decode, or the pixels are not exact in float32.
    """
    images = {h.index: _tiled(h, content) if is_compressed(h) else _plain(h, content) for h in hdus}
    rare = [hdu for hdu in hdus if images[hdu.index] is None]
    values = astropy_images(rare, content) if rare else []
    for hdu, pixels in zip(rare, values, strict=True):
        images[hdu.index] = _float_bits(hdu, pixels)
    return [image for image in images.values() if image is not None]


def _tiled(hdu: Hdu, content: memoryview) -> StoredImage | None:
    """Read row tiles; None for the forms left to astropy."""
    bitpix = hdu.integer("ZBITPIX")
    shape = image_shape(hdu)
    tiles = row_tiles(hdu, content, shape)
    if tiles is None or bitpix not in (8, 16, 32, -32) or (bitpix > 0 and tiles.zscale is not None):
        return None
    if bitpix < 0 and tiles.zscale is None and algorithm(hdu) in RICE:
        return None  # integers that call themselves floats
    integers, lossless = read_tiles(hdu, tiles, content, shape, bitpix)
    if bitpix > 0:
        lowest = 0 if bitpix == 8 else -(2 ** (bitpix - 1))
        if integers.min() < lowest or integers.max() >= lowest + 2**bitpix:
            raise RefusedError(f"HDU {hdu.index}: pixels beyond the range of ZBITPIX {bitpix}")
        return _scaled_integers(hdu, integers, bitpix)
    if _scaling(hdu) != (1, 0) or (tiles.zscale is None and _holds_blank(hdu, integers.view(np.float32))):
        return None
    zscale, zzero = tiles.scale_and_zero()
    zscale[lossless], zzero[lossless] = 0.0, 0.0
    zdither = _zdither(hdu)
    quantised = ~lossless if lossless.any() else slice(None)
    if zdither is None or not _decodes_alike(hdu, tiles, integers[quantised], zscale[quantised]):
        return None
    return StoredImage(integers, zscale, zzero, zdither)


def _zdither(hdu: Hdu) -> int | None:
    """Return the dither of an image as the cube stores it; None if it is none that the standard knows."""
    sign = {"SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": -1, "NO_DITHER": 0}
    method = sign.get(hdu.text_value("ZQUANTIZ") if "ZQUANTIZ" in hdu.cards else "NO_DITHER")
    if method == 0 or method is None:
        return method
    seed = hdu.integer("ZDITHER0", 0)
    return method * seed if 1 <= seed <= N_RANDOM else None


def _decodes_alike(hdu: Hdu, tiles: Tiles, integers: NDArray[np.int32], zscale: NDArray[np.float64]) -> bool:
    """Say whether our decoding gives quantised rows the values that the file's own keywords give them.

    Our special values are fixed. They are the file's in all that CFITSIO and astropy write; a file where
    one of them is an ordinary pixel, or with another ZBLANK, goes through astropy.
    """
    if not integers.size:
        return True
    blank = hdu.value("ZBLANK", hdu.value("BLANK"))
    if tiles.has_zblank_column or not np.all(np.isfinite(zscale) & (zscale != 0)):
        return False
    special = set(SPECIAL - {blank})
    if blank not in (None, NULL_CFITSIO, NULL_ASTROPY):
        special.add(hdu.integer("ZBLANK" if "ZBLANK" in hdu.cards else "BLANK"))
    return not _holds(integers, special)


def _holds_blank(hdu: Hdu, floats: NDArray[np.float32]) -> bool:
    """Say whether lossless floats hold the value that astropy takes for none; CFITSIO writes one, beyond use."""
    blank = hdu.value("ZBLANK", hdu.value("BLANK"))
    return blank is not None and bool(np.any(floats == np.float64(hdu.number("ZBLANK", hdu.number("BLANK", 0)))))


def _holds(integers: NDArray[np.int32], values: Iterable[int]) -> bool:
    """Say whether any of some values is among the integers."""
    lowest, highest = int(integers.min()), int(integers.max())
    return any(lowest <= value <= highest and bool(np.any(integers == value)) for value in values)


def _plain(hdu: Hdu, content: memoryview) -> StoredImage | None:
    """Read an uncompressed image; None for the forms left to astropy."""
    bitpix = hdu.integer("BITPIX")
    shape = image_shape(hdu)
    if bitpix not in (8, 16, 32, -32):
        return None
    stored = {8: "u1", 16: ">i2", 32: ">i4", -32: ">i4"}[bitpix]
    pixels = np.frombuffer(content, stored, shape[0] * shape[1], hdu.data_offset).reshape(shape)
    integers = pixels.astype(np.int32)
    if bitpix > 0:
        return _scaled_integers(hdu, integers, bitpix)
    if _scaling(hdu) != (1, 0):
        return None
    rows = shape[0]
    return StoredImage(integers, np.zeros(rows), np.zeros(rows), 0)


def _scaling(hdu: Hdu) -> tuple[float, float]:
    """Return BSCALE and BZERO."""
    scale, zero = hdu.number("BSCALE", 1), hdu.number("BZERO", 0)
    if scale == 0:
        raise RefusedError(f"HDU {hdu.index}: BSCALE = 0, expected another number")
    return scale, zero


def _scaled_integers(hdu: Hdu, integers: NDArray[np.int32], bitpix: int) -> StoredImage | None:
    """Keep integers with BSCALE and BZERO if that decodes to astropy's values; None if it does not."""
    scale, zero = _scaling(hdu)
    blank = hdu.value("BLANK", hdu.value("ZBLANK"))
    if blank is not None and (not isinstance(blank, int) or _holds(integers, [blank])):
        return None
    if bitpix == 32 and _holds(integers, SPECIAL):
        return None
    if scale == 1 and zero.is_integer():
        _check_exact(hdu, max(abs(int(integers.min()) + int(zero)), abs(int(integers.max()) + int(zero))))
    elif bitpix <= 16 and not _scales_alike(integers, scale, zero):
        return None
    rows = integers.shape[0]
    return StoredImage(integers, np.full(rows, scale), np.full(rows, zero), 0)


def _check_exact(hdu: Hdu, largest: int) -> None:
    if largest > EXACT_FLOAT32:
        raise RefusedError(
            f"HDU {hdu.index}: integers up to {float(largest):.10g}, expected at most 2^24 = {EXACT_FLOAT32}: "
            "larger ones are not exact in float32"
        )


def _scales_alike(integers: NDArray[np.int32], scale: float, zero: float) -> bool:
    """Say whether scaling in float32, as astropy does with short integers, gives what float64 gives us."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = integers.astype(np.float32)
        single *= np.float32(scale)
        single += np.float32(zero)
        return np.array_equal(single, (integers * scale + zero).astype(np.float32), equal_nan=True)


def _float_bits(hdu: Hdu, values: NDArray[np.generic]) -> StoredImage:
    """Keep what astropy read as float32 bits."""
    bitpix = hdu.integer("ZBITPIX" if is_compressed(hdu) else "BITPIX")
    if values.shape != image_shape(hdu):
        raise RefusedError(f"HDU {hdu.index}: pixels of shape {values.shape}, expected {image_shape(hdu)}")
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
    # Integers with a BSCALE are rounded to float32 here as in the other forms; real float64 pixels are not.
    rounded = bitpix > 0 and values.dtype.kind == "f"
    if not rounded and not np.array_equal(single, values, equal_nan=values.dtype.kind == "f"):
        raise RefusedError(f"HDU {hdu.index}: {values.dtype} pixels that are not exact in float32")
    rows = values.shape[0]
    return StoredImage(single.view(np.int32), np.zeros(rows), np.zeros(rows), 0)
