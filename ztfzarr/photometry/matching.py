"""Which detections are the same star, in any number of exposures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ztfzarr.sky import from_tangent_plane

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

RADIUS: Final = 2.0  # arcsec: twice a pixel


def match_stars(
    table: pd.DataFrame, *, radius: float = RADIUS, catalogue: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Say which rows of a star table are the same star.

    Parameters
    ----------
    table : DataFrame
        From ``open_stars``; of any exposures, CCDs and filters. Rows without ``ra`` and ``dec`` are placed by
        their focal-plane coordinates and the pointing: their radius must then hold the pointing's error.
    radius : float
        Arcsec.
    catalogue : DataFrame, optional
        With ``ra``, ``dec`` (degrees) and, if it has it, ``id``: stars are then its rows.

    Returns
    -------
    DataFrame
        The table with its column ``star``: a number a star, in order of first appearance or the catalogue's
        ``id``; -1 where an exposure has another row nearer to the star, or the catalogue none within the radius.

    Notes
    -----
    Exposure by exposure, a row and a star are matched if each is the other's nearest within the radius; what is
    left starts new stars. Stars of which that made two (seen twice in one exposure) are joined, positions are
    averaged, and all exposures matched again. Memory is that of the table.
    """
    points = directions(*positions(table))
    exposure = table["exposure"].to_numpy()
    order = np.argsort(exposure, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(exposure[order])) + 1)
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    if catalogue is None:
        stars = _stars_of(points, groups, chord)
        names = np.arange(len(stars))
    else:
        stars = directions(catalogue["ra"].to_numpy(), catalogue["dec"].to_numpy())
        names = np.asarray(catalogue["id"] if "id" in catalogue else np.arange(len(stars)), np.int64)
    star = np.full(len(table), -1, np.int64)
    for rows in groups:
        mine, theirs = _mutual(points[rows], stars, chord)
        star[rows[mine]] = names[theirs]
    return table.assign(star=star if catalogue is not None else _in_order(star))


def nearest_entries(ra: Floats, dec: Floats, catalogue: pd.DataFrame, radius: float) -> NDArray[np.int64]:
    """Return the ``id`` of the entry of a catalogue nearest to each position within a radius, arcsec; else -1.

    An entry goes to the nearest of the positions only.
    """
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    entries = directions(catalogue["ra"].to_numpy(), catalogue["dec"].to_numpy())
    mine, theirs = _mutual(directions(ra, dec), entries, chord)
    star = np.full(len(ra), -1, np.int64)
    star[mine] = catalogue["id"].to_numpy(np.int64)[theirs]
    return star


def positions(table: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return right ascension and declination of rows, by the pointing where they have none, degrees."""
    of = {
        name: table[name].to_numpy(np.float64) for name in ("ra", "dec", "u", "v", "pointing_ra", "pointing_dec")
    }
    ra, dec = from_tangent_plane(of["u"], of["v"], of["pointing_ra"], of["pointing_dec"])
    known = np.isfinite(of["ra"] + of["dec"])
    return np.where(known, of["ra"], ra), np.where(known, of["dec"], dec)


def directions(ra: Any, dec: Any) -> Floats:
    """Return unit vectors, (star, 3); distances between near ones are angles, at the poles too."""
    a, d = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _mutual(points: Floats, stars: Floats, chord: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs that are each other's nearest: indices of points, and of stars."""
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not usable.size or not len(stars):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    apart, nearest = cKDTree(stars).query(points[usable], distance_upper_bound=chord)
    near = np.flatnonzero(np.isfinite(apart))
    near = near[np.argsort(apart[near], kind="stable")]
    _, first = np.unique(nearest[near], return_index=True)
    chosen = near[first]
    return usable[chosen], nearest[chosen]


def _stars_of(points: Floats, groups: list[NDArray[np.intp]], chord: float) -> Floats:
    """Collect the stars of all exposures: mean directions."""
    total = np.empty((0, 3))
    for rows in groups:
        mine, theirs = _mutual(points[rows], _unit(total), chord)
        total[theirs] += points[rows[mine]]
        left = np.setdiff1d(np.arange(len(rows)), mine)
        left = left[np.isfinite(points[rows[left]]).all(axis=1)]
        total = np.concatenate([total, points[rows[left]]])
    return _joined(total, chord)


def _joined(total: Floats, chord: float) -> Floats:
    """Join stars that are within the radius of one another: sums of directions, averaged."""
    pairs = (
        cKDTree(_unit(total)).query_pairs(chord, output_type="ndarray") if len(total) else np.empty((0, 2), int)
    )
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(total),) * 2)
    count, label = connected_components(links, directed=False)
    summed = np.zeros((count, 3))
    np.add.at(summed, label, total)
    return _unit(summed)


def _unit(total: Floats) -> Floats:
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300))


def _in_order(star: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give stars numbers from 0 in order of first appearance."""
    known = star >= 0
    found, first, which = np.unique(star[known], return_index=True, return_inverse=True)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(found))
    result = np.full(len(star), -1, np.int64)
    result[known] = rank[which]
    return result
