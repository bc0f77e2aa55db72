"""Where pixels lie in the focal plane, and how lamps and sky light it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import CCD_LAYOUT, FOCAL_PLANE, FULL_SHAPE, GAP_X, GAP_Y

TERMS: Final = ("u", "v", "u^2", "u v", "v^2")


def _place(layout: tuple[tuple[int, ...], ...], label: int) -> tuple[int, int]:
    row = next(i for i, labels in enumerate(layout) if label in labels)
    return row, layout[row].index(label)


def coordinates(
    ccd: int, quadrant: int, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where the columns and rows of a stored quadrant lie in the focal plane.

    Parameters
    ----------
    ccd, quadrant : int
        1-16 and 1-4.
    shape : (int, int)
        Rows, columns of a quadrant. Gaps scale with it, so that any shape covers the same plane.

    Returns
    -------
    u : (x,) float32
        -1 to 1 from left to right with north up and east right: falls with the stored column.
    v : (y,) float32
        -1 to 1 from top to bottom: falls with the stored row.
    """
    (row, column), (down, right) = _place(FOCAL_PLANE, ccd), _place(CCD_LAYOUT, quadrant)
    v = _along(row, down, shape[0], GAP_Y / FULL_SHAPE[0])
    u = _along(column, right, shape[1], GAP_X / FULL_SHAPE[1])
    return u, v


def _along(ccd: int, quadrant: int, pixels: int, gap: float) -> NDArray[np.float32]:
    """Place the stored pixels of a quadrant along one axis; the stored order runs against the axis."""
    pitch, width = (2 + gap) * pixels, (8 + 3 * gap) * pixels
    position = ccd * pitch + quadrant * pixels + np.arange(pixels)[::-1] + 0.5
    return (2 * position / width - 1).astype(np.float32)


def illumination(
    coefficients: NDArray[np.float32], u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Evaluate how a lamp or the sky lights a quadrant.

    Parameters
    ----------
    coefficients : (5,)
        Of :data:`TERMS`; the constant is 1, at the centre of the focal plane.
    u, v : (x,), (y,)
        See :func:`coordinates`.

    Returns
    -------
    (y, x) float32
        Relative to the centre of the focal plane.
    """
    of_u, of_v, of_u2, of_uv, of_v2 = coefficients
    row = (1 + of_v * v + of_v2 * v**2)[:, np.newaxis]
    slope = (of_u + of_uv * v)[:, np.newaxis]
    lit: NDArray[np.float32] = row + u * (slope + of_u2 * u)
    return lit
