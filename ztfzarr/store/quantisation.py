"""What fpack's steps add to the noise of raw pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ztfzarr.store.group import array_of, open_raw, read_table
from ztfzarr.store.objects import Objects


def quantisation_variance(
    objects: Objects, exposures: NDArray[np.int64], ccd: int, rows: slice
) -> NDArray[np.float64]:
    """Return the mean variance that a pixel has from its row's step, (exposure, quadrant), DN2.

    Parameters
    ----------
    objects : Objects
        The store.
    exposures : (exposure,) int64
        Numbers of exposures of the cube.
    ccd : int
        Label.
    rows : slice
        Of the quadrants.

    Returns
    -------
    (exposure, quadrant) float64, DN2. 0 of files whose pixels are no integers.

    Notes
    -----
    step^2 / 12: with FITS's subtractive dither (FITS 4.0 §10.2) the error is uniform within a step, whatever the
    pixel.
    """
    group = open_raw(objects)
    known = read_table(group, "exposure")
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known[order], exposures)]
    step = np.asarray(array_of(group, "zscale").oindex[at, ccd - 1, slice(0, 4), rows], np.float64)
    return np.asarray(np.square(step).mean(axis=-1) / 12)
