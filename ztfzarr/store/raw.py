"""The raw group: its variables, its ``zarr.json``, and how it grows along time.

The consolidated ``zarr.json`` of the group is what readers see: it is replaced by one put, last.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.codecs.numcodecs import PCodec
from zarr.storage import MemoryStore

from ztfzarr import geometry
from ztfzarr.kernels.dither import ABSENT

FORMAT: Final = 1
GROUP: Final = "raw"
FILE_OWNED: Final = ("raw", "overscan", "zscale", "zzero")

# Chunks of pixels, at most: squarish for cutouts, and narrow enough that a row's own slope stays out of the
# statistics of a chunk. Against whole rows (308 x 3072): bias 0.9 % smaller, flats 0.3 %, as fast.
CHUNK: Final = {"y": 616, "x": 512}
TIME_CHUNK: Final = 65536  # coordinates: 16 objects at 10^6 exposures, half a megabyte rewritten a batch
HEADER_BYTES: Final = 14400  # five FITS blocks hold a raw file's longest header; longer ones add a chunk

# Level 8: 4 is 5 % larger and hardly faster. Delta "auto": none for bias and sky, whose integers are noise about
# each row's own zero; consecutive for flats, whose illumination slopes along a row (none is 26 % larger there).
PIXEL_CODEC: Final[dict[str, Any]] = {"level": 8, "mode_spec": "classic", "delta_spec": "auto"}
SCALE_CODEC: Final[dict[str, Any]] = {"level": 8, "mode_spec": "auto", "delta_spec": "auto"}


@dataclass(frozen=True)
class Variable:
    """A variable of the group: dimensions, type, fill value, description, and chunk lengths along time."""

    dims: tuple[str, ...]
    dtype: str
    fill: Any
    long_name: str
    units: str | None = None
    time_chunk: int = TIME_CHUNK

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes in the store."""
        units = {} if self.units is None else {"units": self.units}
        calendar = {"calendar": "proleptic_gregorian"} if "since" in (self.units or "") else {}
        return {"long_name": self.long_name} | units | calendar


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

PIXELS: Final = "FITS integers; DN = (integer - r + 0.5) zscale + zzero, see the data model"
DATA: Final[dict[str, Variable]] = {
    "raw": Variable((*CHANNEL, "y", "x"), "int32", ABSENT, f"quadrant pixels as {PIXELS}", time_chunk=1),
    "overscan": Variable(
        (*CHANNEL, "y", "x_overscan"), "int32", ABSENT, f"serial overscan as {PIXELS}", time_chunk=1
    ),
    "zscale": Variable(
        (*FILE, "image", "y"), "float64", np.nan, "scale of a row's integers; 0: they are float32 bits", "DN",
        time_chunk=1,
    ),
    "zzero": Variable((*FILE, "image", "y"), "float64", np.nan, "zero of a row's integers", "DN", time_chunk=1),
    "zdither": Variable(
        (*FILE, "image"), "int16", 0, "0 no dither; +n SUBTRACTIVE_DITHER_1, -n _2 with ZDITHER0 = n",
        time_chunk=4096,
    ),
    "present": Variable(FILE, "int8", 0, "1 where the file is in the cube; else its pixels mean nothing"),
    "gain": Variable(CHANNEL, "float32", np.nan, "nominal gain, header GAIN", "electron DN-1", time_chunk=4096),
    "read_noise": Variable(
        CHANNEL, "float32", np.nan, "nominal read noise, header READNOI", "electron", time_chunk=4096
    ),
    "source_name": Variable(FILE, "str", "", "name of the raw file", time_chunk=256),
    "source_size": Variable(FILE, "int64", 0, "size of the raw file", "byte", time_chunk=4096),
    "source_sha256": Variable(FILE, "str", "", "SHA-256 of the raw file", time_chunk=256),
    "header": Variable(
        (*FILE, "hdu", "byte"), "uint8", 0, "header blocks of each HDU, byte for byte, padded with 0",
        time_chunk=1,
    ),
}  # fmt: skip

VARIABLES: Final = COORDINATES | LABELS | DATA


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
    written: dict[str, Any] = {}
    memory = MemoryStore(written)
    for name, variable in VARIABLES.items():
        _create(memory, name, variable, lengths)
    arrays = {
        key.removesuffix("/zarr.json"): json.loads(value.to_bytes())
        for key, value in written.items()
        if key.endswith("/zarr.json")
    }
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "format": FORMAT,
            "kind": GROUP,
            "Conventions": "CF-1.11",
            "title": "ZTF raw exposures",
            "coordinates": " ".join([*(n for n in COORDINATES if n != "time"), "rcid"]),
        },
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
    }


def _create(memory: MemoryStore, name: str, variable: Variable, lengths: dict[str, int]) -> None:
    shape = tuple(lengths[d] for d in variable.dims)
    chunks = tuple(variable.time_chunk if d == "time" else lengths[d] for d in variable.dims)
    codecs: dict[str, Any] = {"compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    if name in FILE_OWNED:
        inner, chunks = _file_chunks(variable.dims, lengths)
        pcodec = PCodec(**(PIXEL_CODEC if variable.dtype == "int32" else SCALE_CODEC))
        codecs = {
            "serializer": ShardingCodec(chunk_shape=inner, codecs=[pcodec, Crc32cCodec()]),
            "compressors": None,
            "filters": None,
        }
    zarr.create_array(
        memory,
        name=name,
        shape=shape,
        chunks=chunks,
        dtype=str if variable.dtype == "str" else variable.dtype,
        fill_value=variable.fill,
        dimension_names=variable.dims,
        attributes=variable.attributes,
        **codecs,
    )


def _file_chunks(dims: tuple[str, ...], lengths: dict[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return chunk and shard of an array with one shard a file: equal chunks within a quadrant's rows."""
    inner = {d: 1 if d in CHANNEL else lengths[d] for d in dims}
    shard = {d: 1 if d in FILE else lengths[d] for d in dims}
    for d in CHUNK if "quadrant" in dims else ():
        if d in dims:
            count = -(-lengths[d] // CHUNK[d])
            inner[d] = -(-lengths[d] // count)
            shard[d] = count * inner[d]
    return tuple(inner.values()), tuple(shard.values())


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


def arrays_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of each array of a consolidated group, by name."""
    arrays: dict[str, dict[str, Any]] = document["consolidated_metadata"]["metadata"]
    return arrays


def dimension_lengths(document: dict[str, Any]) -> dict[str, int]:
    """Return the length of each dimension of a group."""
    lengths: dict[str, int] = {}
    for array in arrays_of(document).values():
        lengths.update(zip(array["dimension_names"], array["shape"], strict=True))
    return lengths


def resized(document: dict[str, Any], **lengths: int) -> dict[str, Any]:
    """Return the document with some dimensions of all its arrays at new lengths."""
    result = copy.deepcopy(document)
    for array in arrays_of(result).values():
        names = array["dimension_names"]
        array["shape"] = [lengths.get(d, n) for d, n in zip(names, array["shape"], strict=True)]
    return result


def file_key(name: str, dimensions: int, place: tuple[int, int]) -> str:
    """Return the key of the object that a file owns in an array; ``place`` indexes time and CCD, from 0."""
    return f"{GROUP}/{name}/c/{place[0]}/{place[1]}" + "/0" * (dimensions - 2)
