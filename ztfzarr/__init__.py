"""The array store for detrending wide-field CCD surveys: raw ZTF exposures as one Zarr cube."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ztfzarr.export.ccddata import to_ccddata
    from ztfzarr.export.find import find
    from ztfzarr.ingest.fits import open_fits
    from ztfzarr.ingest.headers import header
    from ztfzarr.masters.bias import master_bias
    from ztfzarr.masters.flat import master_flat, relative_levels, with_starflat
    from ztfzarr.masters.mask import bad_pixels
    from ztfzarr.masters.science import science, science_variance
    from ztfzarr.photometry.matching import match_stars
    from ztfzarr.recipe import read_recipe
    from ztfzarr.reduce.calibrated import open_science
    from ztfzarr.reduce.publish import publish
    from ztfzarr.reduce.starflat_colour import correct_colour
    from ztfzarr.reduce.starflat_map import starflat_map
    from ztfzarr.reduce.stars import open_stars
    from ztfzarr.steps.detrend import detrend
    from ztfzarr.store.cube import open_cube

__all__ = [
    "bad_pixels",
    "correct_colour",
    "detrend",
    "find",
    "header",
    "master_bias",
    "master_flat",
    "match_stars",
    "open_cube",
    "open_fits",
    "open_science",
    "open_stars",
    "publish",
    "read_recipe",
    "relative_levels",
    "science",
    "science_variance",
    "starflat_map",
    "to_ccddata",
    "with_starflat",
]

# Imported when first used, so that `ztfzarr --help` and `import ztfzarr` cost nothing.
_HOME: Final = {
    "bad_pixels": "ztfzarr.masters.mask",
    "correct_colour": "ztfzarr.reduce.starflat_colour",
    "detrend": "ztfzarr.steps.detrend",
    "find": "ztfzarr.export.find",
    "header": "ztfzarr.ingest.headers",
    "master_bias": "ztfzarr.masters.bias",
    "master_flat": "ztfzarr.masters.flat",
    "match_stars": "ztfzarr.photometry.matching",
    "open_cube": "ztfzarr.store.cube",
    "open_fits": "ztfzarr.ingest.fits",
    "open_science": "ztfzarr.reduce.calibrated",
    "open_stars": "ztfzarr.reduce.stars",
    "publish": "ztfzarr.reduce.publish",
    "read_recipe": "ztfzarr.recipe",
    "relative_levels": "ztfzarr.masters.flat",
    "science": "ztfzarr.masters.science",
    "science_variance": "ztfzarr.masters.science",
    "starflat_map": "ztfzarr.reduce.starflat_map",
    "to_ccddata": "ztfzarr.export.ccddata",
    "with_starflat": "ztfzarr.masters.flat",
}
_SUBMODULES: Final = ("errors", "photometry", "plot", "report", "simulate")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"ztfzarr.{name}")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("ztfzarr")
    if name not in _HOME:
        raise AttributeError(f"module 'ztfzarr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__", *(name for name in globals() if name.startswith("__"))])
