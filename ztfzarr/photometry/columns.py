"""The columns of a star table: names, types, units, and what the bits of its flags mean."""

from __future__ import annotations

from typing import Final, NamedTuple

RADII: Final = (3, 4, 5, 6, 8, 10, 12)  # pixels
MAIN: Final = 10  # pixels: the aperture of magnitudes and flags

# Bits of ``flags``. All but the last three are about the aperture of 10 pixels.
FLAGS: Final = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "bad",  # a pixel is dead, hot, noisy, of odd response or missing
            "spike",  # a cosmic-ray candidate
            "saturated",
            "suspect",  # beyond the levels for which the non-linearity was measured
            "edge",  # it reaches over the edge of the quadrant; CCD-wide, of the CCD
            "blended",  # another star of 1 % of its light or more within 1.5 radii, or parted from it
            "neighbour",  # another star of 1 % of its light or more within 2.5 radii
            "background",  # less than a quarter of the annulus is free of stars, bad pixels and edges
            "position",  # the windowed position went astray: it is that of the detection
            "no_wcs",  # no position on the sky
        )
    )
}


class Column(NamedTuple):
    """Type, unit ("" without) and description of a column."""

    dtype: str
    units: str
    long_name: str


def _fluxes() -> dict[str, Column]:
    found = {}
    for radius in RADII:
        found[f"flux_{radius}"] = Column("float64", "DN", f"within {radius} pixels, above the background")
        found[f"flux_error_{radius}"] = Column("float64", "DN", "its standard error, with that of the background")
    return found


COLUMNS: Final = {
    "exposure": Column("int64", "", "number of the exposure, YYYYMMDDFFFFFF"),
    "night": Column("int32", "", "YYYYMMDD"),
    "filter": Column("str", "", "zg, zr, zi"),
    "ccd": Column("int8", "", "1-16"),
    "quadrant": Column("int8", "", "1-4"),
    "x": Column("float64", "pixel", "stored column, 0-based, windowed"),
    "y": Column("float64", "pixel", "stored row, 0-based, windowed"),
    "x_error": Column("float64", "pixel", "standard error of x"),
    "y_error": Column("float64", "pixel", "standard error of y"),
    "ra": Column("float64", "degree", "right ascension; NaN without a WCS"),
    "dec": Column("float64", "degree", "declination; NaN without a WCS"),
    "u": Column("float64", "degree", "in the focal plane, from the axis to the east"),
    "v": Column("float64", "degree", "in the focal plane, from the axis to the north"),
    "pointing_ra": Column("float64", "degree", "where the telescope pointed, by the header"),
    "pointing_dec": Column("float64", "degree", "where the telescope pointed, by the header"),
    "airmass": Column("float64", "1", "of the star, in the middle of the exposure"),
    "exposure_airmass": Column("float64", "1", "of the exposure, by the header"),
    **_fluxes(),
    "magnitude": Column("float64", "mag", "-2.5 log10 of flux_10 / exposure time: instrumental"),
    "magnitude_error": Column("float64", "mag", "its standard error"),
    "background": Column("float64", "DN", "of a pixel, from an annulus"),
    "background_error": Column("float64", "DN", "its standard error"),
    "peak": Column("float64", "DN", "highest pixel of the detection above the sky"),
    "fwhm": Column("float64", "pixel", "twice the radius of half of the light within 10 pixels"),
    "skew_x": Column("float64", "1", "skewness along x, under a Gaussian weight"),
    "flags": Column("uint16", "", " ".join(FLAGS)),
    "star": Column("int64", "", "which star; -1 none"),
}
