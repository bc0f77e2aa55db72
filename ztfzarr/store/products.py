"""The groups of products, ``KIND/vN``: their variables, and the ``zarr.json`` of a new version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.geometry import FILTER_IDS, LED_FILTERS
from ztfzarr.masters.bits import MASKS
from ztfzarr.recipe import Recipe, recipe_for
from ztfzarr.store import starflat_variables
from ztfzarr.store.raw import COORDINATES, LABELS
from ztfzarr.store.template import ROWS, Variable, dimension_lengths, group_document

IMAGE: Final = ("quadrant", "y", "x")
FILTERS: Final = tuple(sorted(FILTER_IDS.values()))
LEDS: Final = tuple(LED_FILTERS)
WCS: Final = {"header": 1, "file": 2, "catalogue": 4}
NUMBERS: Final = 32  # biases of a run that are followed as they settle
SHARED_LABELS: Final = ("ccd", "quadrant", "rcid", "y", "x")


@dataclass(frozen=True)
class Product:
    """What a kind of product holds.

    ``entry`` are the dimensions that tell entries apart, each written once; ``pixels`` are arrays with one
    shard an entry; ``tables`` are written with the mark.
    """

    entry: tuple[str, ...]
    pixels: dict[str, Variable]
    tables: dict[str, Variable]

    @property
    def rows(self) -> str:
        """Dimension that grows, with raw's own rows: ``night`` or ``time``."""
        return self.entry[0] if self.entry[0] in ROWS else "time"


def _number(dims: tuple[str, ...], long_name: str, units: str, *, row_chunk: int = 1024) -> Variable:
    return Variable(dims, "float32", np.nan, long_name, units, row_chunk)


def _flag(dims: tuple[str, ...], long_name: str, *meanings: str) -> Variable:
    flags = {name: 1 << bit for bit, name in enumerate(meanings)}
    return Variable(dims, "uint8", 0, long_name, row_chunk=1024, flags=flags)


def _night(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "int32", 0, long_name, row_chunk=4096)


def _tables(entry: tuple[str, ...]) -> dict[str, Variable]:
    return {
        "present": Variable(
            entry, "int8", 0, "1 where the entry is made; else its pixels mean nothing", row_chunk=4096
        ),
        "provenance": Variable(
            entry, "str", "", "JSON: exposures used and dropped, masters, software", row_chunk=256
        ),
    }


def _master_tables(entry: tuple[str, ...]) -> dict[str, Variable]:
    return {
        "inputs": Variable(entry, "int32", 0, "exposures that the cube had for it, used and dropped", "1", 4096),
        "first_night": _night(entry, "night YYYYMMDD of the first exposure used"),
        "last_night": _night(entry, "night YYYYMMDD of the last exposure used"),
    }


def _overscan(dims: tuple[str, ...]) -> dict[str, Variable]:
    return {
        "overscan_mean": _number(dims, "mean overscan level", "DN"),
        "overscan_rms": _number(dims, "rms of the overscan's rows about its level", "DN"),
        "overscan_step": _number(dims, "largest jump of the overscan", "DN"),
    }


NIGHT_CCD: Final = ("night", "ccd")
CHANNEL: Final = ("night", "ccd", "quadrant")
FLAT_ENTRY: Final = ("night", "filter", "ccd")
FLAT_CHANNEL: Final = (*FLAT_ENTRY, "quadrant")
LAMP: Final = ("night", "led", "ccd")
SCIENCE_ENTRY: Final = ("time", "ccd")
SCIENCE_CHANNEL: Final = ("time", "ccd", "quadrant")
SETTLING: Final = (*CHANNEL, "number")
TRAILS: Final = {
    "trail": ("median charge that trails into the overscan after {}", "DN"),
    "level": ("median level of the last columns of {}", "DN"),
    "ratio": ("charge that trails after {}, over the table's", "1"),
}

BIAS: Final = Product(
    NIGHT_CCD,
    {
        "bias": Variable((*NIGHT_CCD, *IMAGE), "float32", np.nan, "master bias", "DN"),
        "variance": Variable((*NIGHT_CCD, *IMAGE), "float32", np.nan, "variance of the master bias", "DN2"),
        "count": Variable((*NIGHT_CCD, *IMAGE), "int16", 0, "frames kept", "1"),
    },
    _tables(NIGHT_CCD)
    | _master_tables(NIGHT_CCD)
    | {
        "bias_level": _number(CHANNEL, "median of the master bias", "DN"),
        "structure": _number(CHANNEL, "1.4826 MAD of the master bias", "DN"),
        "row_range": _number(CHANNEL, "range of the medians of 50 rows", "DN"),
        "column_range": _number(CHANNEL, "range of the medians of bands of 50 columns", "DN"),
        "rejected": _number(CHANNEL, "share of the counts rejected", "1"),
        "read_noise": _number(CHANNEL, "read noise, from pairs of biases", "DN"),
        "read_noise_error": _number(CHANNEL, "standard error of the read noise", "DN"),
        "read_noise_ratio": _number(CHANNEL, "read noise: measured / header", "1"),
        "overscan_failed": Variable(CHANNEL, "int16", 0, "frames whose overscan is not sound", "1", 1024),
        "settling_level": _number(SETTLING, "overscan level above the settled", "DN", row_chunk=64),
        "settling_offset": _number(SETTLING, "median of frame minus master bias", "DN", row_chunk=64),
        "settling_shape": _number(SETTLING, "range of frame minus master bias, in blocks", "DN", row_chunk=64),
        "flag": _flag(CHANNEL, "master bias: what is wrong", "read_noise", "structure"),
    }
    | _overscan(CHANNEL),
)

FLAT: Final = Product(
    FLAT_ENTRY,
    {
        "flat": Variable((*FLAT_ENTRY, *IMAGE), "float32", np.nan, "master flat", "1"),
        "variance": Variable((*FLAT_ENTRY, *IMAGE), "float32", np.nan, "variance of the master flat", "1"),
        "count": Variable((*FLAT_ENTRY, *IMAGE), "int16", 0, "frames kept, of all LEDs", "1"),
        "bad": Variable(
            (*FLAT_ENTRY, *IMAGE),
            "uint16",
            MASKS["no_data"],
            "bad pixels, from the masters",
            flags=MASKS,
        ),
    },
    _tables(FLAT_ENTRY)
    | _master_tables(FLAT_ENTRY)
    | {
        "bias_night": _night(FLAT_ENTRY, "night of the master bias"),
        "level": Variable(FLAT_ENTRY, "float64", np.nan, "level of the CCD against the focal plane's", "1", 4096),
        "led_level": Variable(LAMP, "float64", np.nan, "CCD-wide median of the LED's combined flat", "DN", 4096),
        "led_reference": Variable(
            ("night", "led"), "float64", np.nan, "median of led_level over the CCDs of the reference", "DN", 4096
        ),
        "reference": Variable(
            NIGHT_CCD, "int8", 0, "1 where the CCD is one of those that levels are against", row_chunk=4096
        ),
        "led_drift": _number(LAMP, "range of the levels of a LED's frames over their mean", "1"),
        "led_frames": Variable(LAMP, "int16", 0, "frames of the LED", "1", 1024),
        "led_quadrant_level": _number(
            ("night", "led", "ccd", "quadrant"), "median of the LED's combined flat in a quadrant", "DN"
        ),
        "quadrant_level": _number(FLAT_CHANNEL, "median of the master flat", "1"),
        "scatter": _number(FLAT_CHANNEL, "1.4826 MAD of the master flat about 64 x 64 pixels, relative", "1"),
        "rejected": _number(FLAT_CHANNEL, "share of the counts rejected", "1"),
        "difference": _number(FLAT_CHANNEL, "largest change in 64 x 64 pixels against the flat before", "1"),
        "gain": _number(CHANNEL, "gain, from pairs of flats", "electron DN-1"),
        "gain_error": _number(CHANNEL, "standard error of the gain", "electron DN-1"),
        "gain_ratio": _number(CHANNEL, "gain: measured / header", "1"),
        "flag": _flag(FLAT_CHANNEL, "master flat: what is wrong", "scatter", "rejected"),
    },
)

AMPLIFIER_OFFSET: Final = {
    "amplifier_offset": _number(SCIENCE_CHANNEL, "level subtracted: above the mean of the CCD's quadrants", "DN"),
    "amplifier_offset_error": _number(SCIENCE_CHANNEL, "standard error of amplifier_offset", "DN"),
}

SCIENCE: Final = Product(
    SCIENCE_ENTRY,
    {
        "science": Variable((*SCIENCE_ENTRY, *IMAGE), "float32", np.nan, "calibrated counts", "DN"),
        "mask": Variable(
            (*SCIENCE_ENTRY, *IMAGE), "uint16", MASKS["no_data"], "what is wrong with the pixel", flags=MASKS
        ),
        "variance": Variable(
            (*SCIENCE_ENTRY, *IMAGE), "float32", np.nan, "variance of the calibrated counts", "DN2"
        ),
    },
    _tables(SCIENCE_ENTRY)
    | {
        "bias_night": _night(SCIENCE_ENTRY, "night of the master bias"),
        "flat_night": _night(SCIENCE_ENTRY, "night of the master flat"),
        "sky": _number(SCIENCE_CHANNEL, "median", "DN"),
        "noise": _number(SCIENCE_CHANNEL, "robust noise of a pixel", "DN"),
        "flag": _flag(
            SCIENCE_CHANNEL, "science exposure: what is wrong", "no_sky", "negative", "overscan", "bias", "flat"
        ),
    }
    | _overscan(SCIENCE_CHANNEL)
    | AMPLIFIER_OFFSET
    | {"cosmic_rays": Variable(SCIENCE_CHANNEL, "int32", 0, "pixels that cosmic rays may have hit", "1", 1024)},
)

POCKET: Final = Product(
    NIGHT_CCD,
    {},
    _tables(NIGHT_CCD)
    | _master_tables(NIGHT_CCD)
    | {
        "alpha": _number(CHANNEL, "pocket: exponent of release and trapping", "1"),
        "cmax": _number(CHANNEL, "pocket: charge when it is full", "DN"),
        "beta": _number(CHANNEL, "pocket: exponent of the charge that passes", "1"),
        "nmax": _number(CHANNEL, "pocket: scale of the charge that passes", "DN"),
        "alpha_error": _number(CHANNEL, "error of the logarithm of alpha", "1"),
        "cmax_error": _number(CHANNEL, "error of the logarithm of cmax", "1"),
        "beta_error": _number(CHANNEL, "error of the logarithm of beta", "1"),
        "nmax_error": _number(CHANNEL, "error of the logarithm of nmax", "1"),
        "chi2": _number(CHANNEL, "chi2 of the fit, per degree of freedom", "1"),
    }
    | {
        f"{kind}_{name}": _number(CHANNEL, long_name.format(what), units)
        for kind, what in (("flat", "flats"), ("sky", "exposures of the sky"))
        for name, (long_name, units) in TRAILS.items()
    }
    | {"flag": _flag(CHANNEL, "fit of the pocket: what is wrong", "poor_fit", "limit", "changed")},
)

# Its stars are in Parquet tables, one an entry: see ztfzarr.store.star_tables.
STARS: Final = Product(
    SCIENCE_ENTRY,
    {},
    _tables(SCIENCE_ENTRY)
    | {
        "stars": Variable(SCIENCE_CHANNEL, "int32", 0, "rows of the table", "1", 1024),
        "fwhm": _number(SCIENCE_CHANNEL, "median full width at half maximum of unflagged stars", "pixel"),
        "wcs": Variable(SCIENCE_CHANNEL, "uint8", 0, "where ra and dec are from", row_chunk=1024, flags=WCS),
        "wcs_stars": Variable(SCIENCE_CHANNEL, "int32", 0, "stars of the fit to a catalogue", "1", 1024),
        "wcs_rms": _number(SCIENCE_CHANNEL, "rms of a coordinate of the fit to a catalogue", "pixel"),
        "flag": _flag(SCIENCE_CHANNEL, "star table: what is wrong", "no_wcs", "few_stars"),
    },
)

STARFLAT: Final = Product(starflat_variables.BAND, {}, starflat_variables.TABLES)
PRODUCTS: Final = {
    "bias": BIAS,
    "pocket": POCKET,
    "flat": FLAT,
    "science": SCIENCE,
    "stars": STARS,
    "starflat": STARFLAT,
}
NIGHT: Final = Variable(("night",), "int32", 0, "night YYYYMMDD: UTC date of time + 4 h 13 min")
KIND_LABELS: Final[dict[str, dict[str, Variable]]] = {
    "bias": {"number": Variable(("number",), "int16", 0, "number of a bias in its run, from 0")},
    "flat": {
        "filter": Variable(("filter",), "str", "", "filter"),
        "led": Variable(("led",), "int16", 0, "LED"),
    },
    "pocket": {},
    "science": {},
    "stars": {},
    "starflat": starflat_variables.LABELS,
}


def pixel_variables(kind: str, recipe: Recipe) -> dict[str, Variable]:
    """Return the arrays of a product that a recipe asks for: science has its variance only if it says so."""
    wanted = dict(PRODUCTS[kind].pixels)
    if kind == "science" and not recipe["science"]["variance"]:
        del wanted["variance"]
    return wanted


def table_variables(kind: str, recipe: Recipe) -> dict[str, Variable]:
    """Return the tables of a product that a recipe asks for: what it subtracts of amplifiers, what it counts."""
    wanted = dict(PRODUCTS[kind].tables)
    if kind != "science":
        return wanted
    settings = recipe["science"]
    unwanted = set() if settings["amplifier_offset"] else set(AMPLIFIER_OFFSET)
    unwanted |= {"cosmic_rays"} if settings["cosmic_rays"] == "off" else set()
    return {name: variable for name, variable in wanted.items() if name not in unwanted}


def row_coordinates(kind: str) -> dict[str, Variable]:
    """Return the coordinates along the dimension that grows: raw's own."""
    if kind == "starflat":  # the exposures' filter would be in the place of the maps'
        return {name: COORDINATES[name] for name in ("exposure", "time", "night", "airmass")}
    return {"night": NIGHT} if PRODUCTS[kind].rows == "night" else dict(COORDINATES)


def fixed_labels(kind: str) -> dict[str, Variable]:
    """Return the coordinates that no night changes."""
    return {name: LABELS[name] for name in SHARED_LABELS} | KIND_LABELS[kind]


def kind_label_values(kind: str, lengths: Mapping[str, int]) -> dict[str, Any]:
    """Return the values of the labels that only this kind has, in a group of these lengths."""
    edges = {d: (-0.5, lengths[d[-1]] - 0.5) for d in ("cell_y", "cell_x") if d in lengths}
    values: dict[str, Any] = {d: np.linspace(*ends, lengths[d]) for d, ends in edges.items()}
    values |= {
        "brightness": starflat_variables.BRIGHTNESSES,
        "join": np.sqrt(starflat_variables.JOINS[1:] * np.maximum(starflat_variables.JOINS[:-1], 1)),
        "radius": np.array(starflat_variables.APERTURES),
        "number": np.arange(NUMBERS),
        "filter": np.array(FILTERS, object),
        "led": np.array(LEDS),
    }
    return {name: values[name] for name in KIND_LABELS[kind]}


def new_version(
    kind: str, raw_document: dict[str, Any], recipe: Recipe, software: dict[str, str]
) -> dict[str, Any]:
    """Make the consolidated ``zarr.json`` of a new version of a product, without rows.

    Parameters
    ----------
    kind : str
        One of :data:`PRODUCTS`.
    raw_document : dict
        Of the raw group, for the size of quadrants.
    recipe : dict
        All settings; the version keeps those that decide its pixels.
    software : dict of str
        Versions of the packages that make it.
    """
    product = PRODUCTS[kind]
    raw = dimension_lengths(raw_document)
    lengths = {name: raw[name] for name in ("ccd", "quadrant", "y", "x")}
    lengths |= {product.rows: 0, "filter": len(FILTERS), "led": len(LEDS), "number": NUMBERS}
    lengths |= {"brightness": len(starflat_variables.BRIGHTNESSES), "radius": len(starflat_variables.APERTURES)}
    lengths |= {"join": len(starflat_variables.JOINS) - 1, "corner_y": 2, "corner_x": 2}
    if kind == "starflat":
        lengths |= dict(zip(("cell_y", "cell_x"), recipe["starflat"]["nodes"], strict=True))
    rows, pixels = row_coordinates(kind), pixel_variables(kind, recipe)
    variables = rows | fixed_labels(kind) | table_variables(kind, recipe) | pixels
    attributes = {
        "kind": kind,
        "title": f"ZTF {kind}",
        "coordinates": " ".join([*(n for n in rows if n != product.rows), "rcid"]),
        "recipe": recipe_for(kind, recipe),
        "software": software,
    }
    return group_document(variables, lengths, attributes, owned=dict.fromkeys(pixels, product.entry))
