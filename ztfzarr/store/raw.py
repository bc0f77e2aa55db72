"""The raw group: its variables, its ``zarr.json``, and how it grows along time.

The consolidated ``zarr.json`` of the group is what readers see: it is replaced by one put, last.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr import geometry
from ztfzarr.kernels.reserved import ABSENT
from ztfzarr.store.template import Variable as Variable
from ztfzarr.store.template import arrays_of as arrays_of
from ztfzarr.store.template import dimension_lengths as dimension_lengths
from ztfzarr.store.template import dumped as dumped
from ztfzarr.store.template import group_document
from ztfzarr.store.template import resized as resized

GROUP: Final = "raw"
DOCUMENT: Final = f"{GROUP}/zarr.json"
FILE_OWNED: Final = ("raw", "overscan", "zscale", "zzero")

HEADER_BYTES: Final = 14400  # five FITS blocks hold a raw file's longest header; longer ones add a chunk

TIME: Final = ("time",)
FILE: Final = ("time", "ccd")
CHANNEL: Final = ("time", "ccd", "quadrant")

COORDINATES: Final[dict[str, Variable]] = {
    "exposure": Variable(TIME, "int64", 0, "exposure number YYYYMMDDFFFFFF (filefracday): UTC day and fraction"),
    "time": Variable(TIME, "int64", -(2**63), "opening of the shutter, UTC", "microseconds since 1970-01-01"),
    "night": Variable(TIME, "int32", 0, "night YYYYMMDD: UTC date of time + 4 h 13 min"),
    "imgtype": Variable(TIME, "str", "", "image type: bias, flat or object"),
    "filter": Variable(TIME, "str", "", "filter: zg, zr, zi; bi for bias"),
    "led": Variable(TIME, "int16", -1, "LED that lights the dome flat; -1 none"),
    "led_wavelength": Variable(TIME, "float64", np.nan, "wavelength of the LED, as in ILUMWAVE", "nm"),
    "led_power": Variable(TIME, "float64", np.nan, "power of the LED, as in ILUMPOWR"),
    "field": Variable(TIME, "int32", -1, "ZTF field; 0 for calibrations"),
    "program": Variable(TIME, "int16", -1, "programme that asked for the exposure"),
    "exptime": Variable(TIME, "float64", np.nan, "requested exposure time", "s"),
    "open_time": Variable(TIME, "float64", np.nan, "time from opening to closing of the shutter", "s"),
    "ra": Variable(TIME, "float64", np.nan, "right ascension of the pointing", "degree"),
    "dec": Variable(TIME, "float64", np.nan, "declination of the pointing", "degree"),
    "airmass": Variable(TIME, "float64", np.nan, "airmass", "1"),
    "azimuth": Variable(TIME, "float64", np.nan, "azimuth of the telescope", "degree"),
    "elevation": Variable(TIME, "float64", np.nan, "elevation of the telescope", "degree"),
    "moon_illumination": Variable(TIME, "float64", np.nan, "illuminated fraction of the moon", "1"),
}

LABELS: Final[dict[str, Variable]] = {
    "ccd": Variable(("ccd",), "int16", 0, "CCD 1-16"),
    "quadrant": Variable(("quadrant",), "int16", 0, "quadrant (read-out channel of a CCD) 1-4"),
    "rcid": Variable(("ccd", "quadrant"), "int16", -1, "read-out channel 0-63: 4 (ccd - 1) + quadrant - 1"),
    "image": Variable(("image",), "int16", 0, "FITS extension: 1-4 quadrants, 5-8 their overscans"),
    "hdu": Variable(("hdu",), "int16", -1, "HDU of the raw file: 0 primary, 1-8 images"),
    "y": Variable(("y",), "int32", -1, "row as stored, 0-based (FITS pixel - 1)"),
    "x": Variable(("x",), "int32", -1, "column as stored, 0-based (FITS pixel - 1)"),
    "x_overscan": Variable(("x_overscan",), "int32", -1, "overscan column as stored, 0-based"),
}

# Fill value of zdither: were it 0, pixels whose table is lost would decode, to wrong values.
UNKNOWN_DITHER: Final = -32768

PIXELS: Final = "FITS integers; DN = (integer - r + 0.5) zscale + zzero, see the data model"
DATA: Final[dict[str, Variable]] = {
    "raw": Variable((*CHANNEL, "y", "x"), "int32", ABSENT, f"quadrant pixels as {PIXELS}", row_chunk=1),
    "overscan": Variable(
        (*CHANNEL, "y", "x_overscan"), "int32", ABSENT, f"serial overscan as {PIXELS}", row_chunk=1
    ),
    "zscale": Variable(
        (*FILE, "image", "y"), "float64", np.nan, "scale of a row's integers; 0: they are float32 bits", "DN",
        row_chunk=1,
    ),
    "zzero": Variable((*FILE, "image", "y"), "float64", np.nan, "zero of a row's integers", "DN", row_chunk=1),
    "zdither": Variable(
        (*FILE, "image"), "int16", UNKNOWN_DITHER,
        "0 no dither; +n SUBTRACTIVE_DITHER_1, -n _2 with ZDITHER0 = n; -32768 unknown: pixels mean nothing",
        row_chunk=4096,
    ),
    "present": Variable(FILE, "int8", 0, "1 where the file is in the cube; else its pixels mean nothing"),
    "gain": Variable(CHANNEL, "float32", np.nan, "nominal gain, header GAIN", "electron DN-1", row_chunk=4096),
    "read_noise": Variable(
        CHANNEL, "float32", np.nan, "nominal read noise, header READNOI", "electron", row_chunk=4096
    ),
    "source_name": Variable(FILE, "str", "", "name of the raw file", row_chunk=256),
    "source_size": Variable(FILE, "int64", 0, "size of the raw file", "byte", row_chunk=4096),
    "source_sha256": Variable(FILE, "str", "", "SHA-256 of the raw file", row_chunk=256),
    "header": Variable(
        (*FILE, "hdu", "byte"), "uint8", 0, "header blocks of each HDU, byte for byte, padded with 0",
        row_chunk=1,
    ),
}  # fmt: skip

VARIABLES: Final = COORDINATES | LABELS | DATA

# Tables that an exposure has a row in from the start, though filled when its files are marked. The header has
# an object of its own an exposure, made with its files.
TABLES: Final = tuple(name for name in DATA if name not in (*FILE_OWNED, "header"))


def new_document(shape: tuple[int, int], overscan_columns: int) -> dict[str, Any]:
    """Make the consolidated ``zarr.json`` of a raw group without exposures.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of a quadrant.
    overscan_columns : int
        Columns of an overscan.

    Returns
    -------
    dict
        The document, as zarr itself writes it.
    """
    lengths = {
        "time": 0, "ccd": 16, "quadrant": 4, "image": 8, "hdu": geometry.N_HDU, "byte": HEADER_BYTES,
        "y": shape[0], "x": shape[1], "x_overscan": overscan_columns,
    }  # fmt: skip
    attributes = {
        "kind": GROUP,
        "title": "ZTF raw exposures",
        "coordinates": " ".join([*(n for n in COORDINATES if n != "time"), "rcid"]),
    }
    return group_document(VARIABLES, lengths, attributes, owned=dict.fromkeys(FILE_OWNED, FILE))


def label_values(rows: int, columns: int, overscan_columns: int) -> dict[str, NDArray[Any]]:
    """Return the values of the coordinates that no exposure changes, by name."""
    return {
        "ccd": np.array(geometry.CCDS),
        "quadrant": np.array(geometry.QUADRANTS),
        "rcid": np.array([[geometry.rcid(c, q) for q in geometry.QUADRANTS] for c in geometry.CCDS]),
        "image": np.array(geometry.IMAGES),
        "hdu": np.arange(geometry.N_HDU),
        "y": np.arange(rows),
        "x": np.arange(columns),
        "x_overscan": np.arange(overscan_columns),
    }


def file_key(name: str, dimensions: int, place: tuple[int, int]) -> str:
    """Return the key of the object that a file owns in an array; ``place`` indexes time and CCD, from 0."""
    return f"{GROUP}/{name}/c/{place[0]}/{place[1]}" + "/0" * (dimensions - 2)
