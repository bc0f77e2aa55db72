"""Pixels by the WCS of raw headers, where they have one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.ingest.headers import file_headers
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.ingest.restore import own_cards

WITH_WCS: Final = 1.0  # pixel
SAMPLE: Final = 16

Places = dict[str, NDArray[Any]]


def by_wcs(group: Any, rows: NDArray[np.intp], places: Places, position: tuple[float, float]) -> Places:
    """Return x, y and uncertainty of a position in quadrants, by the WCS of those whose headers have one.

    Parameters
    ----------
    group : Group
        The raw group.
    rows : (match,)
        Of the exposures.
    places : dict of (match,)
        ``ccd``, ``quadrant``, and ``x``, ``y``, ``uncertainty`` as the pointing has them, which others keep.
    position : (float, float)
        Degrees.

    Notes
    -----
    A header is a read each, so a sample of them is looked at first: where none has a WCS, none is expected.
    """
    made = {name: places[name].copy() for name in ("x", "y", "uncertainty")}

    def wcs_of(i: int) -> WCS | None:
        return _wcs(group, int(rows[i]), int(places["ccd"][i]), int(places["quadrant"][i]))

    count = len(rows)
    if not any(wcs_of(i) for i in range(0, count, max(count // SAMPLE, 1))):
        return made
    for i in range(count):
        wcs = wcs_of(i)
        if wcs is not None:
            made["x"][i], made["y"][i] = (float(v) for v in wcs.all_world2pix(*position, 0, quiet=True))
            made["uncertainty"][i] = WITH_WCS
    return made


def _wcs(group: Any, row: int, ccd: int, quadrant: int) -> WCS | None:
    try:
        blocks = file_headers(group, row, ccd)[quadrant]
    except StoreError:  # a lost header, which ztfzarr verify names
        return None
    if b"CTYPE1  =" not in blocks:
        return None
    with quiet_astropy():
        return WCS(own_cards(blocks))
