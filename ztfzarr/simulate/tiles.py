"""Pixels to the HDU that ``fpack -q 4`` would write: quantised, dithered, Rice-coded row by row.

astropy writes such HDUs too, tile by tile in Python: 0.53 s for a file of 616 x 512 quadrants and 4.2 s
for one of full size, where this takes 0.06 and 0.7 s (one core).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.kernels.dither import N_RANDOM, RANDOM
from ztfzarr.kernels.rice import encode_tiles

BLOCK: Final = 2880
LEVELS: Final = 4  # steps of quantisation a standard deviation of the noise
RICE_BLOCK: Final = 32
FINEST: Final = 1e-3  # DN; step of rows without noise

Card = tuple[str, object, str]


def row_noise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Estimate the noise of each row from third-order differences, as CFITSIO does, (y,)."""
    difference = 2 * image[:, 2:-2] - image[:, :-4] - image[:, 4:]
    np.abs(difference, out=difference)
    middle = difference.shape[1] // 2
    difference.partition(middle, axis=1)
    return np.float32(0.6052697) * difference[:, middle]


def quantise(
    image: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Turn DN into integers with FITS's SUBTRACTIVE_DITHER_1.

    Parameters
    ----------
    image : (y, x) float32, DN
        No NaN.
    seed : int
        ZDITHER0, 1-10000.

    Returns
    -------
    integers : (y, x) int32
        DN = (integer - r + 0.5) scale + zero, r FITS's random numbers (FITS 4.0 §10.2.1).
    scale, zero : (y,) float64, DN
        Of each row; zero is a multiple of scale, so that the integers are about positive.
    """
    scale = np.maximum(row_noise(image) / LEVELS, FINEST).astype(np.float64)
    lowest = np.rint(image.min(axis=1) / scale)
    runs = (RANDOM[(np.arange(image.shape[0]) + seed - 1) % N_RANDOM] * np.float32(500)).astype(np.int64)
    steps = image * (1 / scale).astype(np.float32)[:, np.newaxis]
    steps -= (lowest + 0.5).astype(np.float32)[:, np.newaxis]
    steps += np.lib.stride_tricks.sliding_window_view(RANDOM, image.shape[1])[runs]
    return np.rint(steps, out=steps).astype(np.int32), scale, lowest * scale


def compressed_hdu(image: NDArray[np.float32], seed: int, cards: Iterable[Card], stamp: str) -> bytes:
    """Make a compressed image extension.

    Parameters
    ----------
    image : (y, x) float32, DN
        No NaN.
    seed : int
        ZDITHER0, 1-10000.
    cards : iterable of (keyword, value, comment)
        Of the image, EXTNAME first.
    stamp : str
        Time that the comments of the checksums give.
    """
    integers, scale, zero = quantise(image, seed)
    heap, lengths = encode_tiles(integers, block=RICE_BLOCK, bytepix=4)
    rows = np.empty(len(lengths), [("length", ">i4"), ("offset", ">i4"), ("scale", ">f8"), ("zero", ">f8")])
    rows["length"], rows["offset"] = lengths, np.cumsum(lengths) - lengths
    rows["scale"], rows["zero"] = scale, zero
    header = _table_header(image.shape, heap.size, int(lengths.max()))
    header.extend(fits.Card(*card) for card in (*_image_cards(image.shape), *cards, *_coding_cards(seed)))
    return hdu_bytes(fits.BinTableHDU, header, rows.tobytes() + heap.tobytes(), stamp)


def hdu_bytes(
    kind: type[fits.PrimaryHDU | fits.BinTableHDU], header: fits.Header, data: bytes, stamp: str
) -> bytes:
    """Pad an HDU to FITS's blocks and give it CHECKSUM and DATASUM.

    Parameters
    ----------
    kind : type
        Of the HDU, which knows how to sum.
    header : Header
        Complete but for the checksums.
    data : bytes
        Without padding.
    stamp : str
        Time that the comments of the checksums give.
    """
    padded = data + bytes(-len(data) % BLOCK)
    hdu = kind.fromstring(header.tostring().encode() + padded)
    hdu.add_checksum(when=f"updated {stamp}")
    return bytes(hdu.header.tostring().encode()) + padded


def _table_header(shape: tuple[int, ...], heap: int, longest: int) -> fits.Header:
    return fits.Header(
        [
            ("XTENSION", "BINTABLE", "binary table extension"),
            ("BITPIX", 8, "8-bit bytes"),
            ("NAXIS", 2, "2-dimensional binary table"),
            ("NAXIS1", 24, "width of table in bytes"),
            ("NAXIS2", shape[0], "number of rows in table"),
            ("PCOUNT", heap, "size of special data area"),
            ("GCOUNT", 1, "one data group (required keyword)"),
            ("TFIELDS", 3, "number of fields in each row"),
            ("TTYPE1", "COMPRESSED_DATA", "label for field   1"),
            ("TFORM1", f"1PB({longest})", "data format of field: variable length array"),
            ("TTYPE2", "ZSCALE", "label for field   2"),
            ("TFORM2", "1D", "data format of field: 8-byte DOUBLE"),
            ("TTYPE3", "ZZERO", "label for field   3"),
            ("TFORM3", "1D", "data format of field: 8-byte DOUBLE"),
        ]
    )


def _image_cards(shape: tuple[int, ...]) -> list[Card]:
    return [
        ("ZIMAGE", True, "extension contains compressed image"),
        ("ZTILE1", shape[1], "size of tiles to be compressed"),
        ("ZTILE2", 1, "size of tiles to be compressed"),
        ("ZCMPTYPE", "RICE_1", "compression algorithm"),
        ("ZNAME1", "BLOCKSIZE", "compression block size"),
        ("ZVAL1", RICE_BLOCK, "pixels per block"),
        ("ZNAME2", "BYTEPIX", "bytes per pixel (1, 2, 4, or 8)"),
        ("ZVAL2", 4, "bytes per pixel (1, 2, 4, or 8)"),
        ("ZTENSION", "IMAGE", "Image extension"),
        ("ZBITPIX", -32, "array data type"),
        ("ZNAXIS", 2, "number of array dimensions"),
        ("ZNAXIS1", shape[1], "length of data axis 1"),
        ("ZNAXIS2", shape[0], "length of data axis 2"),
        ("ZPCOUNT", 0, "number of parameters"),
        ("ZGCOUNT", 1, "number of groups"),
    ]


def _coding_cards(seed: int) -> list[Card]:
    return [
        ("ZQUANTIZ", "SUBTRACTIVE_DITHER_1", "Pixel Quantization Algorithm"),
        ("ZDITHER0", seed, "dithering offset when quantizing floats"),
    ]
