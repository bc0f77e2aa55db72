"""What a starflat is fitted to: magnitudes of stars, in the order in which the fit wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measurements:
    """Magnitudes of stars of one filter; arrays of one length, in any order.

    Parameters
    ----------
    star : int64
        Which star; any labels.
    exposure : int64
        Which exposure; any labels.
    rcid : int16
        Read-out channel 0-63.
    x, y : float64
        Stored pixel, 0-based.
    magnitude, error : float64
        Instrumental, and its standard error without the floor.
    slope : float64
        Airmass at the star minus that of its exposure.
    colour : float64, optional
        Of the star, mag; NaN unknown. Without it there is no colour term.
    """

    star: NDArray[np.int64]
    exposure: NDArray[np.int64]
    rcid: NDArray[np.int16]
    x: Floats
    y: Floats
    magnitude: Floats
    error: Floats
    slope: Floats
    colour: Floats | None = None

    def __len__(self) -> int:
        """Count the measurements."""
        return int(self.star.size)

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Measurements:
        """Return some of them, by mask or index."""
        values: dict[str, Any] = {n: v if v is None else v[which] for n, v in vars(self).items()}
        return Measurements(**values)

    def usable(self) -> NDArray[np.bool_]:
        """Say which have a star, and finite magnitudes, errors and airmasses."""
        finite = np.isfinite(self.magnitude) & np.isfinite(self.slope) & (self.error > 0) & np.isfinite(self.error)
        return np.asarray(finite & (self.star >= 0))


def by_star(measurements: Measurements) -> NDArray[np.intp]:
    """Return the order of the fit: by star, exposure, channel and place, whatever order they come in."""
    m = measurements
    return np.lexsort((m.x, m.y, m.rcid, m.exposure, m.star))
