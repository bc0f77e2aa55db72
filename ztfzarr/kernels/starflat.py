"""Starflat equations applied star by star: the magnitudes of the stars are eliminated where they stand.

Measurements are sorted by star, so that each of a star's is next to the others: an application of the reduced
normal matrix is one pass out and one pass back over memory, and the matrix itself, 1.7 GB for the whole camera at
15 x 15 nodes a quadrant, is never made.

Parameters are one vector: delta (quadrant node_y node_x), delta-k (quadrant 2 2; none without colours), the zero
points, and k last. ``layout`` is (node_y, node_x, where delta-k begins, where the zero points begin).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Layout = tuple[int, int, int, int]


@numba.njit(nogil=True, cache=True)
def _in_quadrant(node: int, fx: float, fy: float, ny: int, nx: int) -> tuple[int, float, float]:
    """Return the quadrant, and the place in it from 0 to 1 in x and in y."""
    rest = node % (ny * nx)
    return node // (ny * nx), (rest % nx + fx) / (nx - 1), (rest // nx + fy) / (ny - 1)


@numba.njit(nogil=True, cache=True)
def predict(
    node: NDArray[np.int32],
    across: NDArray[np.float32],
    along: NDArray[np.float32],
    exposure: NDArray[np.int32],
    slope: NDArray[np.float32],
    colour: NDArray[np.float32],
    layout: Layout,
    parameters: Floats,
    out: Floats,
) -> None:
    """Write what parameters add to each measurement, without its star's magnitude.

    Parameters
    ----------
    node : (measurement,)
        The node before the measurement along both axes.
    across, along : (measurement,)
        Its place between nodes in x and y, 0 to 1.
    exposure, slope, colour : (measurement,)
        Index of the exposure; X - X_exp; colour minus mean colour.
    layout, parameters
        See above.
    out : (measurement,)
        Written.
    """
    ny, nx, corners, zero = layout
    p, last = parameters, parameters.size - 1
    for i in range(node.size):
        n, fx, fy = node[i], across[i], along[i]
        low = p[n] + fx * (p[n + 1] - p[n])
        high = p[n + nx] + fx * (p[n + nx + 1] - p[n + nx])
        value = low + fy * (high - low) + p[zero + exposure[i]] + p[last] * slope[i]
        if zero > corners:
            q, gx, gy = _in_quadrant(n, fx, fy, ny, nx)
            c = corners + 4 * q
            near = p[c] + gx * (p[c + 1] - p[c])
            far = p[c + 2] + gx * (p[c + 3] - p[c + 2])
            value += colour[i] * (near + gy * (far - near))
        out[i] = value


@numba.njit(nogil=True, cache=True)
def gather(
    star: NDArray[np.int32],
    node: NDArray[np.int32],
    across: NDArray[np.float32],
    along: NDArray[np.float32],
    exposure: NDArray[np.int32],
    slope: NDArray[np.float32],
    colour: NDArray[np.float32],
    layout: Layout,
    weight: Floats,
    value: Floats,
    to: Floats,
) -> None:
    """Add weight x (value - mean of its star) of each measurement to the parameters that bear on it.

    Parameters
    ----------
    node, across, along, exposure, slope, colour, layout
        As of :func:`predict`.
    star : (measurement,)
        Equal for the measurements of a star, which are neighbours.
    weight, value : (measurement,)
        Weight 0 takes a measurement out.
    to : (parameter,)
        Added to.
    """
    ny, nx, corners, zero = layout
    last, begin = to.size - 1, 0
    while begin < star.size:
        stop, mean = star_mean(star, weight, value, begin)
        for i in range(begin, stop):
            r = weight[i] * (value[i] - mean)
            n, fx, fy = node[i], across[i], along[i]
            to[n] += r * (1 - fx) * (1 - fy)
            to[n + 1] += r * fx * (1 - fy)
            to[n + nx] += r * (1 - fx) * fy
            to[n + nx + 1] += r * fx * fy
            to[zero + exposure[i]] += r
            to[last] += r * slope[i]
            if zero > corners:
                q, gx, gy = _in_quadrant(n, fx, fy, ny, nx)
                c, s = corners + 4 * q, r * colour[i]
                to[c] += s * (1 - gx) * (1 - gy)
                to[c + 1] += s * gx * (1 - gy)
                to[c + 2] += s * (1 - gx) * gy
                to[c + 3] += s * gx * gy
        begin = stop


@numba.njit(nogil=True, cache=True)
def star_mean(star: NDArray[np.int32], weight: Floats, value: Floats, begin: int) -> tuple[int, float]:
    """Return the end of the star that begins at a measurement, and its weighted mean; 0 without weight."""
    stop, weights, mean = begin, 0.0, 0.0
    while stop < star.size and star[stop] == star[begin]:
        weights += weight[stop]
        mean += weight[stop] * value[stop]
        stop += 1
    return stop, mean / weights if weights > 0 else 0.0


@numba.njit(nogil=True, cache=True)
def star_medians(star: NDArray[np.int32], kept: NDArray[np.bool_], value: Floats, out: Floats) -> None:
    """Write the median of each star's kept values to all its measurements; NaN where none is kept."""
    begin = 0
    while begin < star.size:
        stop = begin
        while stop < star.size and star[stop] == star[begin]:
            stop += 1
        mine = value[begin:stop][kept[begin:stop]]
        out[begin:stop] = np.median(mine) if mine.size > 0 else np.nan
        begin = stop
