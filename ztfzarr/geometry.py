"""The camera: labels, read-out order, orientation on the sky, LEDs, filters, nights and epochs.

Everything here is a fact about ZTF's mosaic camera. Arrays keep the orientation stored in the FITS
files; the functions below say how that relates to the read-out and to the sky.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

CCDS: Final = tuple(range(1, 17))
QUADRANTS: Final = (1, 2, 3, 4)
IMAGES: Final = tuple(range(1, 9))  # FITS extensions: 1-4 quadrants, 5-8 their overscans
N_HDU: Final = 9

FULL_SHAPE: Final = (3080, 3072)  # rows, columns of a quadrant
FULL_OVERSCAN: Final = 30  # columns

PIXEL_SCALE: Final = 1.012  # arcsec

# Gaps between CCDs in pixels; sources differ by up to 30.
GAP_X: Final = 488
GAP_Y: Final = 672

# Columns are read from the stored end that is nearest the amplifier, rows likewise.
FIRST_READ_COLUMN_LAST: Final = frozenset({2, 3})
FIRST_READ_ROW_LAST: Final = frozenset({3, 4})

# CCDs as they lie on the sky, north up and east right, top row first; quadrants within a CCD likewise.
FOCAL_PLANE: Final = ((16, 15, 14, 13), (12, 11, 10, 9), (8, 7, 6, 5), (4, 3, 2, 1))
CCD_LAYOUT: Final = ((2, 1), (3, 4))
# Joins of a CCD's quadrants, without gaps: along stored x, then along y, the one of lower indices first. The rows
# and columns at joins are read last.
JOINS: Final[tuple[tuple[int, int, str], ...]] = ((1, 2, "x"), (4, 3, "x"), (1, 4, "y"), (2, 3, "y"))

FILTER_IDS: Final = {1: "zg", 2: "zr", 3: "zi"}
LED_FILTERS: Final = {
    **dict.fromkeys((2, 3, 4, 5), "zg"),
    **dict.fromkeys((7, 8, 9, 10), "zr"),
    **dict.fromkeys((11, 12, 13), "zi"),
}

IMAGE_TYPES: Final = {"b": "bias", "f": "flat", "o": "object"}
OTHER_KINDS: Final = frozenset("dtpceigsxn")

# First UTC day on which each linearity table holds (camera team's tables of 2018-03, 2019-10, 2020-04).
LINEARITY_EPOCHS: Final = {
    "201803": np.datetime64("1970-01-01", "D"),
    "201910": np.datetime64("2019-10-23", "D"),
    "202004": np.datetime64("2020-04-28", "D"),
}
# First UTC day with the read-out that leaves deferred charge, one day before the linearity epoch changes.
POCKET_START: Final = np.datetime64("2019-10-22", "D")

# Local noon at Palomar is 19:47 UTC: a night runs from one to the next, named by the UTC date it ends on.
NOON_TO_MIDNIGHT: Final = np.timedelta64(4 * 60 + 13, "m")

Pixel = TypeVar("Pixel", bound=np.generic)


def rcid(ccd: int, quadrant: int) -> int:
    """Return the read-out channel number 0-63 of a quadrant: ``4 (ccd - 1) + quadrant - 1``."""
    if ccd not in CCDS or quadrant not in QUADRANTS:
        raise ValueError(f"no read-out channel ccd {ccd}, quadrant {quadrant}: expected 1-16 and 1-4")
    return 4 * (ccd - 1) + quadrant - 1


def in_read_order(image: NDArray[Pixel], quadrant: int) -> NDArray[Pixel]:
    """View a stored quadrant or overscan with its first-read pixel at [..., 0, 0].

    Parameters
    ----------
    image : (..., y, x)
        As stored. The view of a view is the stored image again: the function is its own inverse.
    quadrant : int
        1-4.

    Returns
    -------
    (..., y, x)
        A view; rows and columns in the order in which the amplifier reads them.
    """
    if quadrant not in QUADRANTS:
        raise ValueError(f"no quadrant {quadrant}: expected 1-4")
    rows = slice(None, None, -1) if quadrant in FIRST_READ_ROW_LAST else slice(None)
    columns = slice(None, None, -1) if quadrant in FIRST_READ_COLUMN_LAST else slice(None)
    return image[..., rows, columns]


def stored_columns(quadrant: int, first: int, stop: int, width: int) -> slice:
    """Return the stored columns of the read-order range [first, stop) of a row of ``width`` pixels.

    Parameters
    ----------
    quadrant : int
        1-4.
    first, stop : int
        Columns counted from the first read, 0-based, ``0 <= first < stop <= width``.
    width : int
        Number of columns stored.

    Returns
    -------
    slice
        Ascending stored columns; the first read is the last of them in quadrants 2 and 3.
    """
    if quadrant not in QUADRANTS or not 0 <= first < stop <= width:
        raise ValueError(f"columns [{first}, {stop}) of quadrant {quadrant}: expected within [0, {width})")
    if quadrant in FIRST_READ_COLUMN_LAST:
        return slice(width - stop, width - first)
    return slice(first, stop)


def on_sky(image: NDArray[Pixel]) -> NDArray[Pixel]:
    """View a stored quadrant from south to north and from west to east. Its own inverse.

    Parameters
    ----------
    image : (..., y, x)
        As stored: row 0 is the northern edge, column 0 the eastern one (CD matrix of the real quadrant).

    Returns
    -------
    (..., y, x)
        Drawn with row 0 at the bottom: north up, **east right**, mirrored against a chart.
    """
    return image[..., ::-1, ::-1]


def ccd_on_sky(quadrants: NDArray[Pixel]) -> NDArray[Pixel]:
    """Join the four stored quadrants of a CCD from south to north and from west to east.

    Parameters
    ----------
    quadrants : (4, y, x)
        As stored, in the order of their labels.

    Returns
    -------
    (2 y, 2 x)
        Drawn with row 0 at the bottom: q2 q1 over q3 q4. The first-read pixels are the corners.
    """
    return np.block([[on_sky(quadrants[q - 1]) for q in row] for row in CCD_LAYOUT[::-1]])


def joined_ccd(quadrants: NDArray[Pixel]) -> NDArray[Pixel]:
    """Join the four stored quadrants of a CCD as they lie, without turning any.

    Parameters
    ----------
    quadrants : (4, y, x)
        As stored, in the order of their labels.

    Returns
    -------
    (2 y, 2 x)
        q1 q2 above q4 q3: from north to south and from east to west. Pixel (0, 0) of a quadrant is at
        :func:`first_pixel`.
    """
    return np.block([[quadrants[q - 1] for q in row[::-1]] for row in CCD_LAYOUT])


def first_pixel(quadrant: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return row and column of a quadrant's first stored pixel in :func:`joined_ccd`; ``shape`` of a quadrant."""
    if quadrant not in QUADRANTS:
        raise ValueError(f"no quadrant {quadrant}: expected 1-4")
    row = shape[0] if quadrant in FIRST_READ_ROW_LAST else 0
    return row, shape[1] if quadrant in FIRST_READ_COLUMN_LAST else 0


def indices_at_join(quadrant: int, axis: str, count: int, length: int) -> NDArray[np.int64]:
    """Return stored rows or columns of a quadrant from a join inwards.

    Parameters
    ----------
    quadrant : int
        1-4.
    axis : str
        ``x`` for the columns at the join with the quadrant beside, ``y`` for the rows at the other.
    count, length : int
        How many, of how many.

    Returns
    -------
    (count,) int64
        The one at the join first, which is read last.
    """
    if quadrant not in QUADRANTS or axis not in ("x", "y") or not 0 < count <= length:
        raise ValueError(f"{count} of {length} along {axis!r} of quadrant {quadrant}: expected x or y, and 1-4")
    low = quadrant in (FIRST_READ_COLUMN_LAST if axis == "x" else FIRST_READ_ROW_LAST)
    return np.arange(count) if low else np.arange(length - 1, length - 1 - count, -1)


def join_distance(
    quadrant: NDArray[np.integer], x: NDArray[np.floating], y: NDArray[np.floating], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return how far stored pixels are from the nearest join of their quadrant with another.

    Parameters
    ----------
    quadrant, x, y : arrays that broadcast together
        1-4; stored, 0-based pixels.
    shape : (int, int)
        Rows, columns of a quadrant.

    Returns
    -------
    float64, pixels
        From the middle of the last row or column before the join; the join itself is at -0.5.
    """
    across = np.where(np.isin(quadrant, (*FIRST_READ_COLUMN_LAST,)), x, shape[1] - 1 - x)
    along = np.where(np.isin(quadrant, (*FIRST_READ_ROW_LAST,)), y, shape[0] - 1 - y)
    return np.asarray(np.minimum(across, along), np.float64)


def night_of(time: NDArray[np.datetime64]) -> NDArray[np.int32]:
    """Name the night of each UTC time, as the integer YYYYMMDD.

    Notes
    -----
    night = UTC date of (time + 4 h 13 m), local noon to noon: it keeps together calibrations taken
    around sunset (23:45-02:00 UTC), and equals the UTC date from 00:00 to 19:47 UTC.
    """
    day = (np.asarray(time, "datetime64[us]") + NOON_TO_MIDNIGHT).astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    year = day.astype("datetime64[Y]")
    y = year.astype(np.int64) + 1970
    m = (month - year.astype("datetime64[M]")).astype(np.int64) + 1
    d = (day - month.astype("datetime64[D]")).astype(np.int64) + 1
    return np.asarray(y * 10000 + m * 100 + d, np.int32)


def linearity_epoch(time: np.datetime64, epochs: Mapping[str, np.datetime64] = LINEARITY_EPOCHS) -> str:
    """Name the linearity table that holds at a UTC time: "201803", "201910" or "202004".

    Parameters
    ----------
    time : datetime64
        UTC.
    epochs : mapping
        First UTC day of each table, in their order.

    Raises
    ------
    ValueError
        If the time is before all of them.
    """
    begun = [name for name, first in epochs.items() if first <= time]
    if not begun:
        raise ValueError(f"no linearity table holds at {time}: the first is from {min(epochs.values())}")
    return begun[-1]


def filefracday_time(exposure: int) -> np.datetime64:
    """Return the UTC time written in an exposure's number YYYYMMDDFFFFFF (day and fraction x 10^6).

    Raises
    ------
    ValueError
        If the first eight digits are no date.
    """
    text = f"{exposure:014d}"
    day = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}", "us")
    return day + np.timedelta64(int(text[8:]) * 86_400, "us")


def archive_folder(exposure: int) -> str:
    """Return the archive's folder of an exposure, ``raw/YYYY/MMDD/FFFFFF``."""
    text = f"{exposure:014d}"
    return f"raw/{text[:4]}/{text[4:8]}/{text[8:]}"
