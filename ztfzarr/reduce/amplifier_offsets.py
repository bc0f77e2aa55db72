"""Offsets of amplifiers while exposures are calibrated: from strips along joins, calibrated first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import JOINS, QUADRANTS, indices_at_join
from ztfzarr.kernels.joins import join_step, quadrant_offsets
from ztfzarr.reduce.where import Where
from ztfzarr.steps.amplifier_offset import WIDTH, strip_width

Floats = NDArray[np.float64]


def measured_offsets(
    calibrated: Callable[[Where], Sequence[NDArray[Any]]], shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Measure the offsets of the quadrants of an exposure and CCD.

    Parameters
    ----------
    calibrated : callable
        Gives science (DN) and mask of part of one quadrant, each (y, x).
    shape : (int, int)
        Rows, columns of a quadrant.

    Returns
    -------
    offsets, errors : (quadrant,), DN
        As :func:`ztfzarr.steps.amplifier_offset.amplifier_offset` of the whole CCD.
    """

    def side(quadrant: int, axis: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        science, mask = calibrated(at_join(quadrant, axis, shape))
        good = np.isfinite(science) & (mask == 0)
        return (science, good) if axis == "x" else (science.T, good.T)

    steps = []
    for first, second, axis in JOINS:
        (one, good), (other, fine) = side(first, axis), side(second, axis)
        steps.append(join_step(one, other, (good, fine)))
    return quadrant_offsets(*np.array(steps).T)


def at_join(quadrant: int, axis: str, shape: tuple[int, int]) -> Where:
    """Return the strip of a quadrant beside a join, from the join inwards; ``shape`` of the quadrant."""
    whole = {"y": np.arange(shape[0]), "x": np.arange(shape[1])}
    count = strip_width(WIDTH, *shape)
    whole[axis] = indices_at_join(quadrant, axis, count, len(whole[axis]))
    return Where(np.array([QUADRANTS.index(quadrant)]), **whole)
