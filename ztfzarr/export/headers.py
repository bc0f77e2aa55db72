"""Headers of exported files: the raw cards, then what was done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from astropy.io import fits

from ztfzarr.export.frames import Frame
from ztfzarr.export.sheets import Sheet
from ztfzarr.geometry import rcid
from ztfzarr.ingest.headers import file_headers, row_of
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.ingest.restore import own_cards
from ztfzarr.store.group import open_raw
from ztfzarr.store.objects import StoreLike, open_objects

# FITS 4.0's own name of DN; dimensionless images have no unit.
UNITS: Final = {
    "DN": "adu", "DN2": "adu2", "e-": "electron", "mag": "mag", "pixel": "pixel", "degree": "deg",
}  # fmt: skip
RAW_FILE: Final = ("EXTNAME", "FILENAME", "ORIGNAME", "NFRAMES", "HDUVERS")  # of the raw file, not of the exported

NUMBERS: Final = {
    "slope_u": ("SLOPEU", "[mag/deg] plane of the map, to the east"),
    "slope_u_error": ("ESLOPEU", "[mag/deg] standard error of SLOPEU"),
    "slope_v": ("SLOPEV", "[mag/deg] plane of the map, to the north"),
    "slope_v_error": ("ESLOPEV", "[mag/deg] standard error of SLOPEV"),
    "extinction": ("EXTINCT", "[mag] k, an airmass"),
    "extinction_error": ("EEXTINCT", "[mag] standard error of EXTINCT; 0 given"),
    "chi2": ("CHI2", "chi squared by degree of freedom"),
    "half_sample": ("HALFSAMP", "chi2 of even exposures by the map of the odd"),
    "measurements": ("NMEASURE", "measurements kept"),
    "stars": ("NSTARS", "stars"),
}

Card = tuple[str, Any, str]


def raw_headers(store: StoreLike, frame: Frame) -> list[fits.Header]:
    """Return the cards of the raw file of a frame of science: the primary's, then those of each quadrant."""
    group = open_raw(open_objects(store))
    blocks = file_headers(group, row_of(group, frame.labels["exposure"]), frame.ccd)
    with quiet_astropy():
        return [own_cards(text) for text in blocks[:5]]


def image_header(frame: Frame, quadrant: int, raw: list[fits.Header]) -> fits.Header:
    """Make the header of an image.

    Parameters
    ----------
    frame : Frame
        Of the image.
    quadrant : int
        1-4.
    raw : list of Header
        From :func:`raw_headers`; empty for masters. All its cards are kept, those of a WCS among them.

    Returns
    -------
    Header
        ``EXPVERS`` tells whether a file is of the same pixels: a hash of version, recipe and provenance.
    """
    header = fits.Header()
    with quiet_astropy():
        for part in (raw[0], raw[quadrant]) if raw else ():
            kept = part.copy(strip=True)
            for key in set(RAW_FILE) & set(kept):
                kept.remove(key)
            header.extend(kept, update=True)
        if raw:
            header.set("RAWNAME", str(raw[0].get("FILENAME", "")), "raw file")
        header.extend(list(_own(frame, quadrant)), update=True)
    for line in _history(frame):
        header.add_history(line)
    return header


def plane_header(frame: Frame, name: str) -> fits.Header:
    """Make the header of the mask, variance or count beside an image."""
    array = frame.images[name]
    header = fits.Header([("EXTNAME", name.upper(), str(array.attrs.get("long_name", name))[:45])])
    _set_unit(header, array.attrs)
    masks, names = (
        np.atleast_1d(array.attrs.get("flag_masks", [])),
        str(array.attrs.get("flag_meanings", "")).split(),
    )
    for flag, meaning in zip(masks, names, strict=False):
        bit = int(flag).bit_length() - 1
        header.set(f"BIT{bit:02d}", bit, meaning)
    return header


def sheet_header(sheet: Sheet) -> fits.Header:
    """Make the header of the file of a table."""
    header = fits.Header()
    if "exposure" in sheet.labels:
        header.set("EXPOSURE", sheet.labels["exposure"], "exposure YYYYMMDDFFFFFF")
    header.set("NIGHT", sheet.labels["night"], "night YYYYMMDD: UTC date of time + 4 h 13 min")
    if sheet.ccd is not None:
        header.set("CCD", sheet.ccd, "CCD 1-16")
        header.set("BAND", sheet.labels["filter"], "filter, as in file names")
    header.extend(list(_product(sheet)), update=True)
    for line in _history(sheet):
        header.add_history(line)
    return header


def identity(frame: Frame | Sheet) -> str:
    """Name what decides the pixels of a frame, or a table: version, recipe and, of stored ones, provenance."""
    text = json.dumps(
        [frame.kind, frame.version, frame.labels, frame.ccd, frame.recipe, frame.made], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _own(frame: Frame, quadrant: int) -> Iterator[Card]:
    yield "NIGHT", frame.labels["night"], "night YYYYMMDD: UTC date of time + 4 h 13 min"
    yield "CCD", frame.ccd, "CCD 1-16"
    yield "QUADRANT", quadrant, "quadrant 1-4 of the CCD"
    yield "RCID", rcid(frame.ccd, quadrant), "read-out channel 0-63"
    yield "BAND", frame.labels["filter"], "filter, as in file names"
    yield from _product(frame)
    units = UNITS.get(str(frame.images[frame.kind].attrs.get("units", "")))
    if units:
        yield "BUNIT", units, "unit of the image"


def _product(frame: Frame | Sheet) -> Iterator[Card]:
    yield "PRODUCT", frame.kind, "what the image is"
    yield "PRODVERS", frame.version, "version of the product"
    for kind, name in frame.made.get("masters", {}).items():
        yield f"CAL{kind.upper()}"[:8], str(name), f"master {kind}: version and night"
    if "k" in frame.made:
        yield "CALLEVEL", float(frame.made["k"]), "1 / level of the CCD against the focal plane's"
    if "made" in frame.made:
        yield "PRODDATE", str(frame.made["made"]), "when the product was made, UTC"
    yield "STORED", bool(frame.made), "F: computed for this file, from raw and masters"
    yield "SOFTWARE", f"ztfzarr {frame.software.get('ztfzarr', _installed())}", "what made the product"
    yield "EXPVERS", identity(frame), "hash of version, recipe and provenance"
    if "plane" in frame.made:
        yield "PLANE", str(frame.made["plane"]), "what fixed the plane of the map"
    for name, value in frame.made.get("numbers", {}).items():
        card, text = NUMBERS[name]
        yield card, value, text


def _set_unit(header: fits.Header, attributes: dict[str, Any]) -> None:
    units = UNITS.get(str(attributes.get("units", "")))
    if units:
        header.set("BUNIT", units, "unit of the image")


def _installed() -> str:
    from importlib.metadata import version

    return version("ztfzarr")


def _history(frame: Frame | Sheet) -> Iterator[str]:
    yield f"recipe of {frame.kind}/{frame.version}:"
    yield from _settings(frame.recipe, "")
    for name in ("science", "stars"):
        if name in frame.made:
            yield f"made of {frame.made[name]}"
    for exposure in frame.made.get("exposures", {}):
        yield f"used exposure {exposure}"
    for exposure, reason in dict(frame.made.get("dropped", {})).items():
        yield f"dropped exposure {exposure}: {reason}"


def _settings(recipe: Any, path: str) -> Iterator[str]:
    for name, value in recipe.items():
        inner = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            yield from _settings(value, inner)
        else:
            yield f"{inner} = {json.dumps(value)}"
