"""The groups of products, ``KIND/vN``: their variables, and the ``zarr.json`` of a new version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.geometry import FILTER_IDS, LED_FILTERS
from ztfzarr.recipe import Recipe, recipe_for
from ztfzarr.store.raw import COORDINATES, LABELS
from ztfzarr.store.template import Variable, dimension_lengths, group_document

IMAGE: Final = ("ccd", "quadrant", "y", "x")
FILTERS: Final = tuple(sorted(FILTER_IDS.values()))
LEDS: Final = tuple(LED_FILTERS)
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
        return self.entry[0]


def _tables(entry: tuple[str, ...]) -> dict[str, Variable]:
    return {
        "present": Variable(
            entry, "int8", 0, "1 where the entry is made; else its pixels mean nothing", row_chunk=4096
        ),
        "provenance": Variable(
            entry, "str", "", "JSON: exposures used and dropped, masters, software", row_chunk=256
        ),
    }


BIAS_ENTRY: Final = ("night", "ccd")
FLAT_ENTRY: Final = ("night", "filter", "ccd")
SCIENCE_ENTRY: Final = ("time", "ccd")

PRODUCTS: Final = {
    "bias": Product(
        BIAS_ENTRY,
        {
            "bias": Variable(("night", *IMAGE), "float32", np.nan, "master bias", "DN"),
            "variance": Variable(("night", *IMAGE), "float32", np.nan, "variance of the master bias", "DN2"),
            "count": Variable(("night", *IMAGE), "int16", 0, "frames kept", "1"),
        },
        _tables(BIAS_ENTRY),
    ),
    "flat": Product(
        FLAT_ENTRY,
        {
            "flat": Variable(("night", "filter", *IMAGE), "float32", np.nan, "master flat", "1"),
            "variance": Variable(
                ("night", "filter", *IMAGE), "float32", np.nan, "variance of the master flat", "1"
            ),
            "count": Variable(("night", "filter", *IMAGE), "int16", 0, "frames kept, of all LEDs", "1"),
        },
        _tables(FLAT_ENTRY)
        | {
            "level": Variable(
                FLAT_ENTRY, "float64", np.nan, "level of the CCD against the focal plane's", "1", 4096
            ),
            "led_level": Variable(
                ("night", "led", "ccd"),
                "float64",
                np.nan,
                "CCD-wide median of the LED's combined flat",
                "DN",
                4096,
            ),
        },
    ),
    "science": Product(
        SCIENCE_ENTRY,
        {"science": Variable(("time", *IMAGE), "float32", np.nan, "calibrated counts", "DN")},
        _tables(SCIENCE_ENTRY),
    ),
}
NIGHT: Final = Variable(("night",), "int32", 0, "night YYYYMMDD: UTC date of time + 4 h 13 min")
FILTER: Final = Variable(("filter",), "str", "", "filter")
LED: Final = Variable(("led",), "int16", 0, "LED")


def row_coordinates(kind: str) -> dict[str, Variable]:
    """Return the coordinates along the dimension that grows: raw's own."""
    return {"night": NIGHT} if PRODUCTS[kind].rows == "night" else dict(COORDINATES)


def fixed_labels(kind: str) -> dict[str, Variable]:
    """Return the coordinates that no night changes."""
    labels = {name: LABELS[name] for name in SHARED_LABELS}
    return labels | {"filter": FILTER, "led": LED} if kind == "flat" else labels


def new_version(
    kind: str, raw_document: dict[str, Any], recipe: Recipe, software: dict[str, str]
) -> dict[str, Any]:
    """Make the consolidated ``zarr.json`` of a new version of a product, without rows.

    Parameters
    ----------
    kind : str
        ``bias``, ``flat`` or ``science``.
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
    lengths |= {product.rows: 0, "filter": len(FILTERS), "led": len(LEDS)}
    rows = row_coordinates(kind)
    variables = rows | fixed_labels(kind) | product.tables | product.pixels
    attributes = {
        "kind": kind,
        "title": f"ZTF {kind}",
        "coordinates": " ".join([*(n for n in rows if n != product.rows), "rcid"]),
        "recipe": recipe_for(kind, recipe),
        "software": software,
    }
    return group_document(variables, lengths, attributes, owned=dict.fromkeys(product.pixels, product.entry))
