"""LED flats added up to the flat of a filter, in one pass over memory."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def add_lamp(
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
    count: NDArray[np.int16],
    unit: np.float32,
    share: np.float32,
    flat: NDArray[np.float32],
    flat_variance: NDArray[np.float32],
    total: NDArray[np.int16],
) -> None:
    """Add a LED's combined flat, normalised and by its share, to the sums; everything (y, x).

    Parameters
    ----------
    mean, variance, count
        Combined frames of the LED: DN, DN2, frames kept.
    unit : float32
        1 / CCD-wide median of ``mean``, DN^-1.
    share : float32
        Of the LED in its filter's flat.
    flat, flat_variance, total
        The sums, changed in place.
    """
    for y in range(mean.shape[0]):
        for x in range(mean.shape[1]):
            flat[y, x] += mean[y, x] * unit * share
            flat_variance[y, x] += variance[y, x] * (unit * unit) * (share * share)
            total[y, x] += count[y, x]
