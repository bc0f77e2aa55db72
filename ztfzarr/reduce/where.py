"""Which part of an exposure and CCD is calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Where:
    """Part of a CCD's quadrants: indices along quadrant, y and x."""

    quadrant: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]

    @property
    def box(self) -> tuple[slice, ...]:
        """The smallest part of an array (quadrant, y, x) that holds the indices."""
        return tuple(slice(int(i.min()), int(i.max()) + 1) for i in (self.quadrant, self.y, self.x))

    def around(self, pixels: int, shape: tuple[int, ...]) -> Where:
        """Return the box that holds the indices and as many rows and columns about them, within (y, x)."""
        hulls = zip(self.box[1:], shape, strict=True)
        rows, columns = (np.arange(max(h.start - pixels, 0), min(h.stop + pixels, n)) for h, n in hulls)
        return Where(self.quadrant, rows, columns)

    def within(self, image: NDArray[Any], box: Where) -> NDArray[Any]:
        """Take the indices from an image of a box of the same quadrants."""
        return image[:, self.y[:, np.newaxis] - box.y[0], self.x - box.x[0]]
