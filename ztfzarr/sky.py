"""Where a position on the sky falls in the camera, from the pointing and the table of quadrant corners alone.

Raw files carry no WCS. The corners are taken as offsets in the plane that touches the sky where the telescope
points (TAN). For the one real quadrant there is (CCD 13 q3 of ztf_20200924431759, whose WCS is known) this misses
by 126 pixels, nearly all of it a shift; other projections of the table miss by 110-120.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ztfzarr.geometry import FULL_SHAPE, PIXEL_SCALE
from ztfzarr.tables import quadrant_corners

Floats = NDArray[np.float64]

UNCERTAINTY: Final = 125.0  # pixels of the camera
# Corners as the table lists them: south-west, north-west, north-east, south-east; as parts of a quadrant's width
# from its eastern edge and of its height from its northern, where stored column and row 0 are.
CORNERS: Final = ((1, 1), (1, 0), (0, 0), (0, 1))


@dataclass(frozen=True)
class Seen:
    """Where exposures saw a position: arrays of one length.

    ``row`` is the index of the exposure, ``x`` and ``y`` the stored, 0-based pixel, ``edge`` the distance in
    pixels to the nearest edge of the quadrant, negative outside.
    """

    row: NDArray[np.intp]
    ccd: NDArray[np.int64]
    quadrant: NDArray[np.int64]
    x: Floats
    y: Floats
    edge: Floats


def tangent_plane(ra: ArrayLike, dec: ArrayLike, ra0: ArrayLike, dec0: ArrayLike) -> tuple[Floats, Floats]:
    """Project positions onto the plane that touches the sphere at (ra0, dec0).

    Parameters
    ----------
    ra, dec, ra0, dec0 : array_like, degrees
        Broadcast together.

    Returns
    -------
    xi, eta : degrees
        To the east and to the north; NaN for what is 90 degrees away or more.

    Notes
    -----
    The gnomonic projection, TAN of Calabretta & Greisen 2002, from direction cosines: right at the poles and
    across RA 0.
    """
    a, d, a0, d0 = (np.radians(np.asarray(v, np.float64)) for v in (ra, dec, ra0, dec0))
    cos_d, sin_d, cos_d0, sin_d0, cos_a = np.cos(d), np.sin(d), np.cos(d0), np.sin(d0), np.cos(a - a0)
    along = sin_d * sin_d0 + cos_d * cos_d0 * cos_a
    along = np.where(along > 1e-12, along, np.nan)
    xi = cos_d * np.sin(a - a0) / along
    eta = (sin_d * cos_d0 - cos_d * sin_d0 * cos_a) / along
    return np.degrees(xi), np.degrees(eta)


def from_tangent_plane(xi: ArrayLike, eta: ArrayLike, ra0: ArrayLike, dec0: ArrayLike) -> tuple[Floats, Floats]:
    """Undo :func:`tangent_plane`.

    Parameters
    ----------
    xi, eta, ra0, dec0 : array_like, degrees
        Broadcast together.

    Returns
    -------
    ra, dec : degrees
        Right ascension within 0 to 360.
    """
    x, y, a0, d0 = (np.radians(np.asarray(v, np.float64)) for v in (xi, eta, ra0, dec0))
    along = np.cos(d0) - y * np.sin(d0)
    ra = np.degrees(a0 + np.arctan2(x, along)) % 360
    return ra, np.degrees(np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(along, x)))


def seen(
    ra: float, dec: float, ra0: ArrayLike, dec0: ArrayLike, shape: tuple[int, int], *, radius: float = 0.0
) -> Seen:
    """Find the quadrants that see a position, in many exposures at once.

    Parameters
    ----------
    ra, dec : float, degrees
        The position.
    ra0, dec0 : (exposure,), degrees
        Where the telescope pointed.
    shape : (int, int)
        Rows and columns of a quadrant; of smaller ones than the camera's, the pixels are larger.
    radius : float, degrees
        How far beyond its edges a quadrant still counts.

    Returns
    -------
    Seen
        By row, then CCD and quadrant. Good to :data:`UNCERTAINTY`.
    """
    xi, eta = tangent_plane(ra, dec, ra0, dec0)
    corners = quadrant_corners()
    low, high = corners.min(axis=1) - radius, corners.max(axis=1) + radius
    near = np.flatnonzero(_within(xi, eta, low.min(axis=0), high.max(axis=0)))
    xi, eta = xi[near], eta[near]
    parts = [_in_quadrant(r, near, xi, eta, (low[r], high[r]), shape, radius) for r in range(len(corners))]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(6)]
    order = np.lexsort((joined[2], joined[1], joined[0]))
    row, ccd, quadrant, x, y, edge = (values[order] for values in joined)
    return Seen(row.astype(np.intp), ccd.astype(np.int64), quadrant.astype(np.int64), x, y, edge)


def _within(xi: Floats, eta: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    return np.asarray((xi >= low[0]) & (xi <= high[0]) & (eta >= low[1]) & (eta <= high[1]))


def _in_quadrant(
    rcid: int, rows: NDArray[np.intp], xi: Floats, eta: Floats, box: tuple[Floats, Floats], shape: tuple[int, int],
    radius: float,
) -> tuple[NDArray[Any], ...]:  # fmt: skip
    """Return row, CCD, quadrant, x, y and edge of the exposures in which one quadrant sees the position."""
    at = np.flatnonzero(_within(xi, eta, *box))
    x, y = stored_pixels(rcid, xi[at], eta[at], shape)
    edge = edge_distance(x, y, shape)
    kept = edge >= -pixels_of(radius, shape)
    ccd, quadrant = (np.full(int(kept.sum()), v) for v in (rcid // 4 + 1, rcid % 4 + 1))
    return rows[at][kept], ccd, quadrant, x[kept], y[kept], edge[kept]


def edge_distance(x: Floats, y: Floats, shape: tuple[int, int]) -> Floats:
    """Return the distance, in pixels, of stored pixels to the nearest edge of their quadrant; negative outside."""
    across, along = (np.minimum(v + 0.5, n - 0.5 - v) for v, n in ((x, shape[1]), (y, shape[0])))
    return np.asarray(np.minimum(across, along))


def pixels_of(angle: float, shape: tuple[int, int]) -> float:
    """Return the pixels that an angle in degrees is, in quadrants of rows and columns ``shape``."""
    return angle * 3600 / PIXEL_SCALE * min(shape[0] / FULL_SHAPE[0], shape[1] / FULL_SHAPE[1])


def stored_pixels(rcid: int, xi: Floats, eta: Floats, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the stored, 0-based pixel x, y of a read-out channel at offsets in the tangent plane, degrees.

    Notes
    -----
    The projective map that takes the four corners of the table to the corners of the quadrant.
    """
    m = _projections()[rcid]
    scale = m[2, 0] * xi + m[2, 1] * eta + m[2, 2]
    u, v = ((m[i, 0] * xi + m[i, 1] * eta + m[i, 2]) / scale for i in (0, 1))
    return u * shape[1] - 0.5, v * shape[0] - 0.5


def plane_of_pixels(rcid: int, x: ArrayLike, y: ArrayLike, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the offsets in the tangent plane, degrees to the east and to the north, of stored, 0-based pixels.

    The inverse of :func:`stored_pixels`: focal-plane coordinates, which depend on no pointing.
    """
    m = np.linalg.inv(_projections()[rcid])
    across, down = ((np.asarray(v, np.float64) + 0.5) / n for v, n in ((x, shape[1]), (y, shape[0])))
    scale = m[2, 0] * across + m[2, 1] * down + m[2, 2]
    xi, eta = ((m[i, 0] * across + m[i, 1] * down + m[i, 2]) / scale for i in (0, 1))
    return xi, eta


@cache
def _projections() -> Floats:
    """Return the projective maps, (64 rcid, 3, 3), from the tangent plane to parts of a quadrant."""
    maps = np.ones((64, 9))
    for rcid, corners in enumerate(quadrant_corners()):
        lines, values = [], []
        for (e, n), (u, v) in zip(corners, CORNERS, strict=True):
            lines += [[e, n, 1, 0, 0, 0, -u * e, -u * n], [0, 0, 0, e, n, 1, -v * e, -v * n]]
            values += [u, v]
        maps[rcid, :8] = np.linalg.solve(np.array(lines), np.array(values, np.float64))
    return maps.reshape(64, 3, 3)
