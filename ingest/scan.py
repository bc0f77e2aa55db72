"""The header scan: what a raw file is, from its name and headers, before any pixel is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.errors import RefusedError
from ztfzarr.geometry import FILTER_IDS, QUADRANTS, filefracday_time, night_of
from ztfzarr.ingest.hdus import Hdu, check_sums, read_hdus
from ztfzarr.ingest.images import LARGEST_FILE, image_shape
from ztfzarr.ingest.names import RawName, parse_name
from ztfzarr.ingest.sources import Source

# The file name carries a time 1.7 s before the shutter opens in a real file; hours apart is another file.
NAME_TO_SHUTTER: Final = np.timedelta64(600, "s")
MJD_EPOCH: Final = np.datetime64("1858-11-17T00:00:00", "us")
US_PER_DAY: Final = 86_400_000_000
ISO_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*", re.ASCII)  # FITS 4.0 §9.1.1

# Coordinates read straight from cards of the primary header; of several, the first that is a number.
NUMBERS: Final = {
    "led": ("ILUM_LED",),
    "led_wavelength": ("ILUMWAVE",),
    "led_power": ("ILUMPOWR",),
    "program": ("PROGRMID",),
    "exptime": ("EXPTIME", "EXPOSURE"),
    "ra": ("RAD", "TELRAD"),
    "dec": ("DECD", "TELDECD"),
    "airmass": ("AIRMASS",),
    "azimuth": ("AZIMUTH",),
    "elevation": ("ELVATION",),
    "moon_illumination": ("MOONILLF",),
}
INTEGERS: Final = {"led": -1, "program": -1}  # and their value where there is none


@dataclass(frozen=True)
class RawFile:
    """A raw file that may be ingested.

    ``coordinates`` are those along time; ``shape`` is (rows, columns, overscan columns); ``gain`` (e-/DN) and
    ``read_noise`` (e-) are the header's, of the four quadrants, NaN where it has none.
    """

    source: Source
    size: int
    name: RawName
    coordinates: dict[str, Any]
    shape: tuple[int, int, int]
    gain: tuple[float, ...]
    read_noise: tuple[float, ...]

    @property
    def key(self) -> tuple[int, int]:
        """Exposure number and CCD: what a file is the only one of."""
        return self.name.exposure, self.name.ccd


def scan(source: Source) -> RawFile:
    """Read the headers of a raw file and check them against its name.

    Raises
    ------
    RefusedError
        With what is wrong, where, and what was expected.
    """
    name = parse_name(source.name)
    with source.opened() as (read_at, size):
        hdus = read_hdus(read_at, size)
    return describe(source, size, name, hdus)


def describe(source: Source, size: int, name: RawName, hdus: Sequence[Hdu]) -> RawFile:
    """Describe a raw file from its headers; RefusedError as :func:`scan`."""
    # Before the exposure is registered with what its primary header says, for ever.
    check_sums(hdus[0], memoryview(b""))
    check_name(name, hdus)
    return RawFile(
        source=source,
        size=size,
        name=name,
        coordinates=coordinates(name, hdus[0]),
        shape=file_shape(hdus),
        gain=tuple(_number(hdus[q], ("GAIN",)) for q in QUADRANTS),
        read_noise=tuple(_number(hdus[q], ("READNOI",)) for q in QUADRANTS),
    )


def file_shape(hdus: Sequence[Hdu]) -> tuple[int, int, int]:
    """Return rows and columns of the quadrants and columns of the overscans, the same for all four."""
    shapes = [image_shape(hdu) for hdu in hdus[1:]]
    ny, nx = shapes[0]
    overscan = shapes[4]
    for index, shape in enumerate(shapes, start=1):
        expected = (ny, nx) if index <= 4 else (ny, overscan[1])
        if shape != expected:
            wanted = f"expected {expected[0]} x {expected[1]} as its fellows"
            raise RefusedError(f"HDU {index}: {shape[0]} x {shape[1]} pixels, {wanted}")
    pixels = 4 * ny * (nx + overscan[1])
    if pixels > LARGEST_FILE:
        raise RefusedError(f"{pixels} pixels, expected at most 2^26: images of {ny} x {nx} and {overscan[1]}")
    return ny, nx, overscan[1]


def check_name(name: RawName, hdus: Sequence[Hdu]) -> None:
    """Refuse headers that contradict the file's name, or each other on CCD and quadrant."""
    primary = hdus[0]
    imgtype = primary.value("IMGTYPE")
    if isinstance(imgtype, str) and imgtype.strip().lower() != name.imgtype:
        raise RefusedError(f"IMGTYPE = {imgtype.strip()!r} in the header, but {name.imgtype!r} in the name")
    filter_id = primary.value("FILTERID")
    if name.imgtype != "bias" and filter_id is not None and FILTER_IDS.get(filter_id) != name.filter:
        raise RefusedError(f"FILTERID = {filter_id} in the header, but filter {name.filter!r} in the name")
    field = primary.value("FIELDID")
    if name.imgtype == "object" and field is not None and field != name.field:
        raise RefusedError(f"FIELDID = {field} in the header, but {name.field} in the name")
    for hdu in hdus[1:]:
        _check_channel(name, hdu)


def _check_channel(name: RawName, hdu: Hdu) -> None:
    """Refuse an extension of another CCD or amplifier than its place says."""
    ccd, amplifier = hdu.value("CCD_ID"), hdu.value("AMP_ID")
    quadrant = (hdu.index - 1) % 4 + 1
    if ccd is not None and ccd != name.ccd:
        raise RefusedError(f"HDU {hdu.index}: CCD_ID = {ccd} in the header, but CCD {name.ccd} in the name")
    if amplifier is not None and amplifier != quadrant - 1:
        raise RefusedError(
            f"HDU {hdu.index}: AMP_ID = {amplifier}, expected {quadrant - 1} for quadrant {quadrant}"
        )


def coordinates(name: RawName, primary: Hdu) -> dict[str, Any]:
    """Return the coordinates of an exposure, but for its number."""
    time = shutter_open(name, primary)
    values: dict[str, Any] = {key: _number(primary, cards) for key, cards in NUMBERS.items()}
    for key, absent in INTEGERS.items():
        number = values[key]
        fits_int16 = math.isfinite(number) and abs(number) < 2**15
        values[key] = int(number) if fits_int16 else absent
    opened, closed = _timestamp(primary, "SHUTOPEN"), _timestamp(primary, "SHUTCLSD")
    both = closed is not None and opened is not None
    return values | {
        "time": int(time.astype("datetime64[us]").astype(np.int64)),
        "night": int(night_of(np.array([time]))[0]),
        "imgtype": name.imgtype,
        "filter": name.filter,
        "field": name.field,
        "open_time": float((closed - opened) / np.timedelta64(1, "s")) if both else math.nan,  # type: ignore[operator]
    }


def shutter_open(name: RawName, primary: Hdu) -> np.datetime64:
    """Return when the shutter opened, UTC: SHUTOPEN, else OBSMJD, else the file name's time.

    Raises
    ------
    RefusedError
        If it is more than ten minutes from the time in the name.
    """
    named = filefracday_time(name.exposure)
    time = _timestamp(primary, "SHUTOPEN")
    if time is None:
        mjd = _number(primary, ("OBSMJD",))
        time = MJD_EPOCH + np.timedelta64(round(mjd * US_PER_DAY), "us") if 0 < mjd < 1e5 else named
    if abs(time - named) > NAME_TO_SHUTTER:
        raise RefusedError(f"the shutter opened at {time} in the header, but at {named} in the name")
    return time


def _timestamp(hdu: Hdu, key: str) -> np.datetime64 | None:
    """Return a card that is an ISO time, to the microsecond; None if it is none."""
    match = ISO_TIME.fullmatch(str(_readable(hdu, key)).strip())
    try:
        return np.datetime64(match[1], "us") if match else None
    except ValueError:  # a 31st of June
        return None


def _number(hdu: Hdu, keys: Sequence[str]) -> float:
    for key in keys:
        value = _readable(hdu, key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return math.nan


def _readable(hdu: Hdu, key: str) -> Any:
    """Return a card that only describes; None where it does not parse: a telescope may write NAN."""
    try:
        return hdu.value(key)
    except RefusedError:
        return None
