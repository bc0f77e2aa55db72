"""What a starflat holds: maps at their nodes, numbers of the fit and of its exposures, and its validation."""

from __future__ import annotations

from typing import Final

import numpy as np

from ztfzarr.store.template import Variable

BAND: Final = ("filter",)
CELL: Final = ("filter", "ccd", "quadrant", "cell_y", "cell_x")
BRIGHTNESS: Final = ("filter", "brightness")
JOIN: Final = ("filter", "join")
APERTURES: Final = (6, 12)  # pixels: radii whose maps are compared with that of the recipe
# pixels: edges of bins of the distance to the join of quadrants; below 10, CCD-wide apertures alone have stars
JOINS: Final = np.array([-0.5, 3, *np.geomspace(10, 1600, 12)])
BRIGHTNESSES: Final = np.arange(-17.75, -4, 0.5)  # instrumental magnitudes, middles of the bins


def _number(dims: tuple[str, ...], long_name: str, units: str) -> Variable:
    return Variable(dims, "float32", np.nan, long_name, units, 1024)


def _night(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "int32", 0, long_name, row_chunk=4096)


def _of_band(long_name: str, units: str) -> Variable:
    return Variable(BAND, "float64", np.nan, long_name, units)


TABLES: Final = {
    "present": Variable(BAND, "int8", 0, "1 where the filter has its map; else it means nothing"),
    "provenance": Variable(BAND, "str", "", "JSON: exposures, star tables, catalogue, settings, software"),
    "delta": _number(CELL, "stars appear fainter by it; flat x 10^(-0.4 delta)", "mag"),
    "error": _number(CELL, "standard error of delta, by jackknife over exposures", "mag"),
    "error_formal": _number(CELL, "standard error of delta, by the noise model", "mag"),
    "delta_colour": _number(
        ("filter", "ccd", "quadrant", "corner_y", "corner_x"), "colour term at the corners; NaN without", "1"
    ),
    "delta_colour_error": _number(
        ("filter", "ccd", "quadrant", "corner_y", "corner_x"), "standard error of delta_colour, by jackknife", "1"
    ),
    "mean_colour": _of_band("colour at which the colour term is 0; NaN without", "mag"),
    "count": Variable(CELL, "int32", 0, "measurements that bear on the node", "1"),
    "residual_before": _number(CELL, "mean m - mean of the star about the node, without the map", "mag"),
    "residual_after": _number(CELL, "mean m - mean of the star about the node, with the map", "mag"),
    "half_difference": _number(CELL, "map of the odd exposures minus that of the even", "mag"),
    "exposure_filter": Variable(("time",), "str", "", "filter of the map that the exposure went into"),
    "zero_point": Variable(("time",), "float64", np.nan, "zero point of the exposure: their mean is 0", "mag"),
    "zero_point_error": Variable(
        ("time",), "float64", np.nan, "standard error of the zero point, by the noise model", "mag"
    ),
    "exposure_residual": Variable(("time",), "float32", np.nan, "rms of m - model of the exposure", "mag"),
    "exposure_stars": Variable(("time",), "int32", 0, "measurements of the exposure that were kept", "1"),
    "extinction": _of_band("k, of the airmass of a star less that of its exposure", "mag"),
    "extinction_error": _of_band("standard error of k; 0 where it was given", "mag"),
    "slope_u": _of_band("slope of the plane to the east; NaN undetermined", "mag degree-1"),
    "slope_v": _of_band("slope of the plane to the north; NaN undetermined", "mag degree-1"),
    "slope_u_error": _of_band("standard error of slope_u; NaN undetermined", "mag degree-1"),
    "slope_v_error": _of_band("standard error of slope_v; NaN undetermined", "mag degree-1"),
    "chi2": _of_band("chi squared by degree of freedom", "1"),
    "measurements": Variable(BAND, "int64", 0, "measurements kept", "1"),
    "rejected": _of_band("share of the measurements that were rejected", "1"),
    "stars": Variable(BAND, "int64", 0, "stars", "1"),
    "catalogue_stars": Variable(BAND, "int64", 0, "stars that fixed the plane", "1"),
    "first_night": _night(BAND, "night YYYYMMDD of the first exposure used"),
    "last_night": _night(BAND, "night YYYYMMDD of the last exposure used"),
    "ccd_residual": _number(("filter", "ccd"), "rms of m - model of the CCD", "mag"),
    "repeatability_before": _number(BRIGHTNESS, "scatter of a star's magnitudes without the map", "mag"),
    "repeatability_after": _number(BRIGHTNESS, "scatter of a star's magnitudes with the map", "mag"),
    "repeatability_expected": _number(BRIGHTNESS, "scatter by the noise model, with the floor", "mag"),
    "join_before": _number(JOIN, "mean m - mean of the star by distance to a join, without the map", "mag"),
    "join_after": _number(JOIN, "mean m - mean of the star by distance to a join, with the map", "mag"),
    "half_sample": _of_band("chi squared of even exposures by the map of the odd", "1"),
    "half_sample_before": _of_band("chi squared of even exposures without a map", "1"),
    "bright_faint": _of_band("chi squared of the maps of bright minus that of faint stars", "1"),
    "radius_difference": _number(("filter", "radius"), "rms of the map less that of the aperture", "mag"),
}
LABELS: Final = {
    "filter": Variable(("filter",), "str", "", "filter"),
    "cell_y": Variable(("cell_y",), "float64", np.nan, "row of the nodes, as stored", "pixel"),
    "cell_x": Variable(("cell_x",), "float64", np.nan, "column of the nodes, as stored", "pixel"),
    "brightness": Variable(("brightness",), "float64", np.nan, "instrumental magnitude", "mag"),
    "join": Variable(("join",), "float64", np.nan, "distance to the nearest join of quadrants", "pixel"),
    "radius": Variable(("radius",), "int16", 0, "radius of the aperture", "pixel"),
}
