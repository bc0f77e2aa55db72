"""Stars of a quadrant, or of a whole CCD: found, measured, and judged by those around them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ztfzarr.geometry import QUADRANTS, first_pixel, joined_ccd
from ztfzarr.photometry.columns import FLAGS, MAIN
from ztfzarr.photometry.detect import Detections, detect
from ztfzarr.photometry.measure import ANNULUS, Columns, half_light_width, measure, skewness, windowed
from ztfzarr.photometry.pixels import Image, prepare

BLENDED: Final = 1.5 * MAIN  # pixels
NEIGHBOUR: Final = 2.5 * MAIN
BRIGHT_ENOUGH: Final = 0.01  # of a star's light: less is below 11 mmag even if it is all in the aperture
TYPICAL: Final = 200  # of the brightest stars tell the width
USUAL_FWHM: Final = 2.0  # pixels, where no star tells


def quadrant_stars(
    science: NDArray[np.floating],
    mask: NDArray[np.uint16],
    variance: NDArray[np.floating],
    *,
    threshold: float = 3.0,
    pixels: int = 4,
    mesh: int = 64,
    annulus: tuple[float, float] = ANNULUS,
) -> Columns:
    """Find and measure the stars of a quadrant.

    Parameters
    ----------
    science, mask, variance : (y, x)
        DN, bits of ``ztfzarr.masters.mask.MASKS``, DN2 with photon noise.
    threshold : float
        Sigma of a smoothed pixel.
    pixels : int
        Fewest that stand above it together.
    mesh : int
        Pixels across which the sky is level.
    annulus : (float, float)
        Radii of the local background, pixels.

    Returns
    -------
    dict of (star,)
        Those of the columns of a star table that pixels tell, brightest first: positions, fluxes, magnitudes for
        one second (``magnitude`` + 2.5 log10(exposure time) is the table's), background, shape, flags.
    """
    ready = prepare(science, mask, variance)
    found = detect(ready, threshold=threshold, least=pixels, mesh=mesh)
    above, width = ready.data - found.sky, _typical_fwhm(ready.data - found.sky, found)
    x, y, x_error, y_error, wandered = windowed(above, ready.noise, found.x, found.y, width)
    columns = measure(ready, x, y, stars=found.stars, annulus=annulus)
    columns |= {"x": x, "y": y, "x_error": x_error, "y_error": y_error, "peak": found.peak}
    columns["skew_x"] = skewness(above, x, y)
    columns["flags"] = columns["flags"] | wandered | _crowding(x, y, found)
    return columns | _magnitudes(columns)


def ccd_stars(
    science: NDArray[np.floating], mask: NDArray[np.uint16], variance: NDArray[np.floating], **how: Any
) -> list[Columns]:
    """Find and measure the stars of a CCD on its four quadrants joined, so that those near joins are whole.

    Parameters
    ----------
    science, mask, variance : (4, y, x)
        As of :func:`quadrant_stars`, of all quadrants as stored, in the order of their labels.
    **how
        As of :func:`quadrant_stars`.

    Returns
    -------
    list of dict of (star,)
        As of :func:`quadrant_stars`, one a quadrant: the stars whose centres are on it, in its own stored pixels.
        The flag ``edge`` is that of the CCD.
    """
    shape = science.shape[1], science.shape[2]
    whole = quadrant_stars(joined_ccd(science), joined_ccd(mask), joined_ccd(variance), **how)
    lower, right = whole["y"] >= shape[0] - 0.5, whole["x"] >= shape[1] - 0.5
    parts = []
    for quadrant in QUADRANTS:
        row, column = first_pixel(quadrant, shape)
        mine = (lower == (row > 0)) & (right == (column > 0))
        part = {name: values[mine] for name, values in whole.items()}
        parts.append(part | {"x": part["x"] - column, "y": part["y"] - row})
    return parts


def _typical_fwhm(above: Image, found: Detections) -> float:
    """Return the median of the brightest stars' widths."""
    few = slice(0, TYPICAL)
    widths = half_light_width(above, found.x[few], found.y[few], np.zeros(found.x[few].size))
    widths = widths[np.isfinite(widths)]
    return float(np.median(widths)) if widths.size else USUAL_FWHM


def _crowding(x: Any, y: Any, found: Detections) -> NDArray[np.uint16]:
    """Flag stars with others of some of their light nearby."""
    flags = np.where(found.merged, FLAGS["blended"], 0).astype(np.uint16)
    if x.size < 2:
        return flags
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(NEIGHBOUR, output_type="ndarray")
    for one, other in (pairs.T, pairs[:, ::-1].T):
        bright = found.flux[other] > BRIGHT_ENOUGH * found.flux[one]
        near = np.hypot(x[one] - x[other], y[one] - y[other]) < BLENDED
        np.bitwise_or.at(flags, one[bright], np.uint16(FLAGS["neighbour"]))
        np.bitwise_or.at(flags, one[bright & near], np.uint16(FLAGS["blended"]))
    return flags


def _magnitudes(columns: Columns) -> Columns:
    """Turn the flux of the main aperture into magnitudes; NaN where it is not positive."""
    flux, error = columns[f"flux_{MAIN}"], columns[f"flux_error_{MAIN}"]
    positive = np.where(flux > 0, flux, np.nan)
    return {"magnitude": -2.5 * np.log10(positive), "magnitude_error": 2.5 / np.log(10) * error / positive}
