"""Nodes of the map: where they lie, and what the map is between them, never across the edge of a quadrant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.sky import CORNERS
from ztfzarr.tables import quadrant_corners

Floats = NDArray[np.float64]
QUADRANTS: Final = 64


@dataclass(frozen=True)
class Nodes:
    """Bilinear nodes: ``count`` in y and x in each quadrant of ``shape`` rows and columns.

    The first and the last lie on the edges of the quadrant, at -0.5 and at shape - 0.5: every pixel is between
    nodes of its own quadrant.
    """

    shape: tuple[int, int]
    count: tuple[int, int] = (15, 15)

    def __post_init__(self) -> None:
        """Refuse what makes no map."""
        if min(self.count) < 2:
            raise ValueError(f"nodes {self.count}: expected at least 2 along each axis")

    @property
    def total(self) -> int:
        """Nodes of the camera."""
        return QUADRANTS * self.count[0] * self.count[1]

    @property
    def y(self) -> Floats:
        """Rows of the nodes, pixels."""
        return np.linspace(-0.5, self.shape[0] - 0.5, self.count[0])

    @property
    def x(self) -> Floats:
        """Columns of the nodes, pixels."""
        return np.linspace(-0.5, self.shape[1] - 0.5, self.count[1])

    def place(
        self, rcid: NDArray[np.integer], y: Floats, x: Floats
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Find the node before each position along both axes, and how far between nodes it lies in x and in y.

        Parameters
        ----------
        rcid : (n,) integers
            Read-out channel 0-63.
        y, x : (n,)
            Stored pixel, 0-based; what lies beyond an edge counts as on it.
        """
        (row, along), (column, across) = (
            self._between(v, size, n) for v, size, n in zip((y, x), self.shape, self.count, strict=True)
        )
        node = (np.asarray(rcid, np.int64) * self.count[0] + row) * self.count[1] + column
        return node.astype(np.int32), across, along

    @staticmethod
    def _between(position: Floats, size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        steps = np.clip((np.asarray(position) + 0.5) / size, 0, 1) * (count - 1)
        before = np.minimum(steps.astype(np.int64), count - 2)
        return before, (steps - before).astype(np.float32)

    def shares(
        self, node: NDArray[np.int32], across: NDArray[np.float32], along: NDArray[np.float32]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """List the four nodes about each position, with their bilinear weights."""
        width = self.count[1]
        return [
            (node, (1 - across) * (1 - along)),
            (node + 1, across * (1 - along)),
            (node + width, (1 - across) * along),
            (node + width + 1, across * along),
        ]

    def focal_plane(self) -> tuple[Floats, Floats]:
        """Return u and v of the nodes, degrees to the east and north of the axis, flattened.

        Bilinear between the corners of the camera's table, as the map is between nodes: what is a plane in u and v
        at the nodes is the same plane at every pixel.
        """
        u, v = (self._from_corners(quadrant_corners()[:, :, i]) for i in (0, 1))
        return u.ravel(), v.ravel()

    def _from_corners(self, corners: Floats) -> Floats:
        """Interpolate values at the corners, (64, 4), to the nodes, (64, y, x)."""
        fy, fx = (np.linspace(0, 1, n) for n in self.count)
        result = np.zeros((QUADRANTS, *self.count))
        for i, (cx, cy) in enumerate(CORNERS):
            share = np.multiply.outer(fy if cy else 1 - fy, fx if cx else 1 - fx)
            result += corners[:, i, np.newaxis, np.newaxis] * share
        return result


def between_nodes(
    values: NDArray[np.floating],
    shape: tuple[int, int],
    *,
    rows: NDArray[np.int64] | None = None,
    columns: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Evaluate maps at pixels.

    Parameters
    ----------
    values : (..., cell_y, cell_x)
        At the nodes of quadrants, the first and last on their edges.
    shape : (int, int)
        Rows and columns of a quadrant.
    rows, columns : (y,), (x,) integers, optional
        Where; default all.

    Returns
    -------
    (..., y, x) float32
        Bilinear; NaN beside nodes that are NaN.
    """
    grid = Nodes(shape, (values.shape[-2], values.shape[-1]))
    y = np.arange(shape[0]) if rows is None else rows
    x = np.arange(shape[1]) if columns is None else columns
    below, along = grid._between(y.astype(np.float64), shape[0], grid.count[0])
    before, across = grid._between(x.astype(np.float64), shape[1], grid.count[1])
    at_rows = _mixed(np.asarray(values, np.float32), below, along[:, np.newaxis], axis=-2)
    return _mixed(at_rows, before, across, axis=-1)


def _mixed(
    values: NDArray[np.float32], before: NDArray[np.int64], share: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    low, high = np.take(values, before, axis), np.take(values, before + 1, axis)
    return low + share * (high - low)
