"""The array store for detrending wide-field CCD surveys: raw ZTF exposures as one Zarr cube."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ztfzarr.ingest.fits import open_fits
    from ztfzarr.ingest.headers import header
    from ztfzarr.store.cube import open_cube

__all__ = ["header", "open_cube", "open_fits"]

# Imported when first used, so that `ztfzarr --help` and `import ztfzarr` cost nothing.
_HOME: Final = {
    "header": "ztfzarr.ingest.headers",
    "open_cube": "ztfzarr.store.cube",
    "open_fits": "ztfzarr.ingest.fits",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ztfzarr' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
