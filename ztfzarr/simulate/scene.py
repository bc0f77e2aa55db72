"""Light before it reaches the detector: made stars and sky, or an image of the real sky."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.geometry import FILTER_IDS
from ztfzarr.simulate.quantities import stream

STARS_PER_PIXEL: Final = 2e-4
FAINTEST, BRIGHTEST, SLOPE = 400.0, 2e6, 0.6  # DN in 30 s; N(> f) falls as f^-SLOPE

# A Moffat profile of FWHM 2.3 x 1.9 pixels whose long axis no flip or transpose leaves in place.
WIDTHS, ANGLE, BETA = (1.8, 1.5), 0.5, 2.5
STAMP: Final = 12  # pixels each side


@dataclasses.dataclass(frozen=True, eq=False)
class Stars:
    """The stars that fall on one quadrant in one field, at perfect pointing."""

    x: NDArray[np.float32]  # stored pixels
    y: NDArray[np.float32]
    flux: NDArray[np.float32]  # (filter, star), DN in 30 s


def stars(seed: int, field: int, ccd: int, quadrant: int, shape: tuple[int, int]) -> Stars:
    """Draw the stars of a quadrant in a field.

    Parameters
    ----------
    seed : int
        Of the sky.
    field, ccd, quadrant : int
        Where.
    shape : (int, int)
        Rows, columns of the quadrant.
    """
    rng = stream(seed, "stars", field, ccd, quadrant)
    count = max(round(STARS_PER_PIXEL * shape[0] * shape[1]), 1)
    y, x = (rng.uniform(0, side, count).astype(np.float32) for side in shape)
    flux = np.minimum(FAINTEST * rng.uniform(0, 1, count) ** (-1 / SLOPE), BRIGHTEST)
    colour = rng.normal(0.5, 0.3, count)  # magnitudes g - r; r - i is a third of it
    by_filter = np.outer([0, 1, 4 / 3], colour)
    return Stars(x, y, (flux * 10 ** (0.4 * by_filter)).astype(np.float32))


def made_sky(
    star: Stars, filter_name: str, level: NDArray[np.float32], shift: tuple[float, float]
) -> NDArray[np.float32]:
    """Add stars to the level of the sky.

    Parameters
    ----------
    star : Stars
        Those of the quadrant.
    filter_name : str
        zg, zr, zi.
    level : (y, x) float32, DN
        Sky without stars.
    shift : (float, float)
        Pixels in x and y by which stars are moved.

    Returns
    -------
    (y, x) float32, DN
    """
    flux = star.flux[list(FILTER_IDS.values()).index(filter_name)]
    return with_stars(level, star.x + shift[0], star.y + shift[1], flux)


def with_stars(
    level: NDArray[np.float32], x: NDArray[np.floating], y: NDArray[np.floating], flux: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Add stars at stored pixels x, y, of fluxes in DN; those beyond the edges reach in."""
    stamp = np.arange(-STAMP, STAMP + 1)
    row = (np.rint(y)[:, np.newaxis, np.newaxis] + stamp[:, np.newaxis]).astype(np.int64)
    column = (np.rint(x)[:, np.newaxis, np.newaxis] + stamp).astype(np.int64)
    light = flux[:, np.newaxis, np.newaxis] * _moffat(column - x[:, None, None], row - y[:, None, None])
    row, column = np.broadcast_arrays(row, column)
    inside = (row >= 0) & (row < level.shape[0]) & (column >= 0) & (column < level.shape[1])
    sky = level.copy()
    np.add.at(sky, (row[inside], column[inside]), light[inside].astype(np.float32))
    return sky


def _moffat(dx: NDArray[np.float64], dy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the elongated profile, of integral 1, at offsets in pixels."""
    along = (np.cos(ANGLE) * dx + np.sin(ANGLE) * dy) / WIDTHS[0]
    across = (np.cos(ANGLE) * dy - np.sin(ANGLE) * dx) / WIDTHS[1]
    norm = (BETA - 1) / (np.pi * WIDTHS[0] * WIDTHS[1])
    profile: NDArray[np.float64] = norm * (1 + along**2 + across**2) ** -BETA
    return profile


@lru_cache(maxsize=1)
def read_sky(path: str | Path) -> NDArray[np.float32]:
    """Read an image of the sky, in DN: the first of a FITS file. NaN becomes the median.

    Raises
    ------
    ValueError
        If the file is no FITS file with a two-dimensional image.
    """
    try:
        with fits.open(path) as hdus:
            image = next((np.array(hdu.data, np.float32) for hdu in hdus if _is_image(hdu)), None)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as FITS ({str(error).splitlines()[0]})") from None
    if image is None or not np.isfinite(image).any():
        raise ValueError(f"{path}: no pixels; expected a FITS file with a two-dimensional image")
    return np.where(np.isfinite(image), image, np.nanmedian(image))


def _is_image(hdu: fits.hdu.base.ExtensionHDU) -> bool:
    return bool(hdu.is_image) and hdu.header["NAXIS"] == 2


def sky_window(seed: int, field: int, ccd: int, quadrant: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Choose what a quadrant sees of an image of the sky, another part for each.

    Parameters
    ----------
    seed : int
        Of the sky.
    field, ccd, quadrant : int
        Where.
    shape : (int, int)
        Rows, columns of the image.

    Returns
    -------
    (int, int)
        Row and column of the image that fall on the first stored pixel, at perfect pointing.
    """
    row, column = stream(seed, "window", field, ccd, quadrant).integers(0, shape)
    return int(row), int(column)


def cut_sky(image: NDArray[np.float32], corner: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Cut a window out of an image that repeats without end.

    Parameters
    ----------
    image : (y, x) float32
        The image.
    corner : (int, int)
        Row and column of the window's first pixel; any integers.
    shape : (int, int)
        Rows, columns of the window.
    """
    rows = (corner[0] + np.arange(shape[0])) % image.shape[0]
    columns = (corner[1] + np.arange(shape[1])) % image.shape[1]
    return image[np.ix_(rows, columns)]
