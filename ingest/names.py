"""The names of raw files: ``ztf_20200401152477_000517_zg_c06_o.fits.fz``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from ztfzarr.errors import RefusedError
from ztfzarr.geometry import CCDS, FILTER_IDS, IMAGE_TYPES, OTHER_KINDS, filefracday_time, night_of

PATTERN: Final = re.compile(
    r"ztf_(?P<exposure>\d{14})_(?P<field>\d{6})_(?P<filter>[a-z]{2})_c(?P<ccd>\d{2})_(?P<kind>[a-z])"
    r"\.fits(?P<packed>\.fz)?",
    re.ASCII,
)
EXPECTED: Final = "ztf_<YYYYMMDDFFFFFF>_<field, 6 digits>_<filter>_c<ccd, 2 digits>_<kind>.fits[.fz]"


@dataclass(frozen=True)
class RawName:
    """What the name of a raw file says."""

    exposure: int  # filefracday, YYYYMMDDFFFFFF
    field: int
    filter: str  # zg, zr, zi; bi for bias
    ccd: int
    kind: str

    @property
    def imgtype(self) -> str:
        """Header value IMGTYPE that the kind stands for."""
        return IMAGE_TYPES[self.kind]


def parse_name(name: str) -> RawName:
    """Parse the name (without folders) of a raw file.

    Raises
    ------
    RefusedError
        If it is not such a name, has an unknown kind, filter, CCD or date.
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        raise RefusedError(f"name is not that of a raw file: expected {EXPECTED}")
    ccd, kind = int(match["ccd"]), match["kind"]
    if kind not in IMAGE_TYPES:
        known = "known to the camera but not read here" if kind in OTHER_KINDS else "unknown"
        raise RefusedError(f"kind {kind!r} is {known}: expected b (bias), f (dome flat) or o (object)")
    filters = ("bi",) if kind == "b" else tuple(FILTER_IDS.values())
    if match["filter"] not in filters:
        raise RefusedError(f"filter {match['filter']!r} in the name: expected {', '.join(filters)}")
    if ccd not in CCDS:
        raise RefusedError(f"CCD {ccd} in the name: expected 1-16")
    try:
        filefracday_time(int(match["exposure"]))
    except ValueError:
        raise RefusedError(f"{match['exposure'][:8]} in the name is no date: expected YYYYMMDD") from None
    return RawName(int(match["exposure"]), int(match["field"]), match["filter"], ccd, kind)


def night_in_name(name: str) -> int | None:
    """Return the night YYYYMMDD that the name of a raw file tells, be it of a kind that is not read; else None."""
    match = PATTERN.fullmatch(name)
    try:
        return int(night_of(np.array(filefracday_time(int(match["exposure"]))))) if match else None
    except ValueError:
        return None
