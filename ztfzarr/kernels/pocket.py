"""Pocket effect: charge that a pocket in the serial register holds back from a pixel and gives to later ones.

Along a row, in read order, the pocket's charge p starts at 0; n is the true and ``out`` the measured pixel:

    out = n + f - t,   p <- p - (f - t),   f = min(c (p/c)^alpha, p),   t = min(c (1 - p/c)^alpha (n/m)^beta, n)

with t = 0 where n <= 0. In the overscan n is 0, so that out = f. All in DN (N. Regnault's ztfsensors).
This module is the model and its exact inverse, by their formulas; :mod:`ztfzarr.kernels.denoised` is what
corrects exposures.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS: Final = 50  # Newton's method takes four to seven

Floats = NDArray[Any]


class Pocket(NamedTuple):
    """The pocket of a quadrant: what it holds (``cmax``) and the charge that would fill it (``nmax``), in DN."""

    alpha: float
    cmax: float
    beta: float
    nmax: float


@numba.njit(nogil=True, cache=True)
def released(p: float, pocket: Pocket) -> float:
    """Return the charge that leaves a pocket of charge ``p`` in the time of a pixel, DN."""
    if p <= 0:
        return 0.0
    return min(pocket.cmax * (p / pocket.cmax) ** pocket.alpha, p)


@numba.njit(nogil=True, cache=True)
def attraction(p: float, pocket: Pocket) -> float:
    """Return A, so that a pocket of charge ``p`` takes A n^beta from n DN, or all if that is more."""
    room = min(max(1.0 - p / pocket.cmax, 0.0), 1.0)
    return pocket.cmax * room**pocket.alpha / pocket.nmax**pocket.beta


@numba.njit(nogil=True, cache=True)
def trapped(n: float, p: float, pocket: Pocket) -> float:
    """Return the charge that a pocket of charge ``p`` takes from ``n``, DN."""
    if n <= 0:
        return 0.0
    return min(attraction(p, pocket) * n**pocket.beta, n)


@numba.njit(nogil=True, cache=True)
def before_trapping(rest: float, p: float, pocket: Pocket) -> float:
    """Return the charge of which a pocket of charge ``p`` leaves ``rest``, DN.

    Notes
    -----
    n - A n^beta = rest. Below n* = A^(1 / (1 - beta)) the pocket takes all: nothing is left to know n by, and 0
    is returned. Above, the left side is convex and rises: Newton's method, which begins below the root, jumps
    over it once and then falls towards it.
    """
    if rest <= 0:
        return rest
    a, b = attraction(p, pocket), pocket.beta
    n = rest + a ** (1 / (1 - b))
    for _ in range(MAX_ITERATIONS):
        step = (n - a * n**b - rest) / (1 - a * b * n ** (b - 1))
        n -= step
        if abs(step) <= 1e-12 * n:
            break
    return n


@numba.njit(nogil=True, cache=True)
def deferred(true: Floats, width: int, pocket: Pocket) -> tuple[Floats, Floats]:
    """Read rows through a pocket: the forward model.

    Parameters
    ----------
    true : (y, x) float, DN
        In read order.
    width : int
        Columns of overscan.
    pocket : Pocket
        Of the quadrant.

    Returns
    -------
    image : (y, x) float, DN
        As measured, of the type of ``true``.
    overscan : (y, width) float, DN
        What the pocket releases after the last column.
    """
    image, overscan = np.empty_like(true), np.empty((true.shape[0], width), true.dtype)
    for y in range(true.shape[0]):
        p = 0.0
        for x in range(true.shape[1]):
            change = trapped(true[y, x], p, pocket) - released(p, pocket)
            image[y, x] = true[y, x] - change
            p += change
        for x in range(width):
            f = released(p, pocket)
            overscan[y, x] = f
            p -= f
    return image, overscan


@numba.njit(nogil=True, cache=True)
def restored(image: Floats, pocket: Pocket) -> tuple[Floats, Floats]:
    """Undo :func:`deferred` exactly; for noiseless rows, since it amplifies noise by up to a half.

    Parameters
    ----------
    image : (y, x) float, DN
        As measured, in read order.
    pocket : Pocket
        Of the quadrant.

    Returns
    -------
    true : (y, x) float, DN
        Where the pocket took a pixel's whole charge, 0.
    charge : (y,) float64, DN
        Left in the pocket after the last column.
    """
    true, charge = np.empty_like(image), np.zeros(image.shape[0])
    for y in range(image.shape[0]):
        p = 0.0
        for x in range(image.shape[1]):
            n = before_trapping(image[y, x] - released(p, pocket), p, pocket)
            p += n - image[y, x]
            true[y, x] = n
        charge[y] = p
    return true, charge
