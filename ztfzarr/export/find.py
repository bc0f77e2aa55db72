"""Which exposures of a store saw a position, and where."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.export.wcs import by_wcs
from ztfzarr.geometry import FULL_SHAPE, PIXEL_SCALE
from ztfzarr.sky import UNCERTAINTY, edge_distance, pixels_of, seen
from ztfzarr.store.group import existing_document, open_raw, read_table
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.template import dimension_lengths

TOLD: Final = ("exposure", "time", "night", "filter", "field", "exptime")
ATTRIBUTES: Final[dict[str, dict[str, str]]] = {
    "x": {"units": "pixel", "long_name": "stored column, 0-based"},
    "y": {"units": "pixel", "long_name": "stored row, 0-based"},
    "edge": {"units": "pixel", "long_name": "distance to the quadrant's edge, negative outside"},
    "uncertainty": {"units": "pixel", "long_name": "of x and y: 125 pixels of the camera without a WCS"},
}


def find(
    store: StoreLike,
    ra: float,
    dec: float,
    *,
    radius: float = 0.0,
    nights: tuple[int, int] = (0, 99999999),
    band: str | None = None,
) -> xr.Dataset:
    """Find the exposures of the sky that saw a position.

    Parameters
    ----------
    store : path or URL
        Of the store.
    ra, dec : float, degrees
        ICRS.
    radius : float, arcsec
        Quadrants that come so near to the position count too; ``edge`` is negative then.
    nights : (int, int)
        First and last, YYYYMMDD.
    band : str, optional
        Filter, zg, zr or zi.

    Returns
    -------
    Dataset
        Along ``match``, in order of time: the exposure's ``exposure``, ``time``, ``night``, ``filter``, ``field``
        and ``exptime``; ``ccd``, ``quadrant``, ``x``, ``y`` (stored pixels, 0-based), ``edge``; and
        ``uncertainty``, pixels. Only files that are in the cube.

    Raises
    ------
    RefusedError
        If the position is not on the sphere.

    Notes
    -----
    From the telescope's pointing and the table of quadrant corners, which are good to 125 pixels of the camera,
    2 arcmin: raw files have no WCS. Where the header of a quadrant has one, it is used, and good to a pixel.
    """
    if not (np.isfinite(ra) and -90 <= dec <= 90 and radius >= 0):
        raise RefusedError(
            f"position {ra}, {dec}, radius {radius}: expected degrees, dec within 90, radius from 0"
        )
    objects = open_objects(store)
    lengths = dimension_lengths(existing_document(objects))
    shape = lengths["y"], lengths["x"]
    group = open_raw(objects)
    rows = _selected(group, nights)
    ra0, dec0 = (read_table(group, name)[rows] for name in ("ra", "dec"))
    slack = UNCERTAINTY * PIXEL_SCALE / 3600  # what the pointing puts just outside, a WCS may put inside
    found = seen(ra, dec, ra0, dec0, shape, radius=radius / 3600 + slack)
    at = rows[found.row]
    kept = read_table(group, "present")[at, found.ccd - 1] == 1
    kept[kept] = _of_the_sky(group, at[kept], band)
    places = {name: getattr(found, name)[kept] for name in ("ccd", "quadrant", "x", "y")}
    places["uncertainty"] = np.full(int(kept.sum()), UNCERTAINTY * shape[1] / FULL_SHAPE[1])
    places |= by_wcs(group, at[kept], places, (ra, dec))
    places["edge"] = edge_distance(places["x"], places["y"], shape)
    near = places["edge"] >= -pixels_of(radius / 3600, shape)
    return _table(group, at[kept][near], {name: values[near] for name, values in places.items()})


def _selected(group: Any, nights: tuple[int, int]) -> NDArray[np.intp]:
    night = read_table(group, "night")
    return np.flatnonzero((night >= nights[0]) & (night <= nights[1]))


def _of_the_sky(group: Any, rows: NDArray[np.intp], band: str | None) -> NDArray[np.bool_]:
    if not rows.size:
        return np.zeros(0, np.bool_)
    sky = read_table(group, "imgtype")[rows] == "object"
    return np.asarray(sky if band is None else sky & (read_table(group, "filter")[rows] == band), np.bool_)


def _table(group: Any, rows: NDArray[np.intp], places: dict[str, NDArray[Any]]) -> xr.Dataset:
    columns: dict[str, Any] = {name: read_table(group, name)[rows] for name in TOLD} | places
    columns["time"] = columns["time"].astype("datetime64[us]").astype("datetime64[ns]")
    order = np.lexsort((columns["quadrant"], columns["ccd"], columns["time"]))
    return xr.Dataset({n: ("match", v[order], ATTRIBUTES.get(n, {})) for n, v in columns.items()})
