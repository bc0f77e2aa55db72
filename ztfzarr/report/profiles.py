"""Overscans row by row, and biases as they settle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import QUADRANTS
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.settings import overscan_settings
from ztfzarr.report.charts import Chart, Series, chart
from ztfzarr.report.source import Product, Raw
from ztfzarr.steps.overscan import overscan_level, overscan_profile
from ztfzarr.store.cube import open_cube

POINTS: Final = 48  # of a profile: medians of some rows each
NUMBERS: Final = (
    ("settling_level", "overscan level above the settled"),
    ("settling_offset", "frame minus master"),
    ("settling_shape", "its range in 8 × 8 blocks"),
)


@dataclass(frozen=True)
class Profiles:
    """Overscan profiles of an exposure, CCD by CCD, about their mean; ``label`` says which exposure."""

    label: str
    columns: str
    charts: list[tuple[int, Chart | None]]


def overscan_profiles(raw: Raw, night: int, recipe: Recipe) -> Profiles | None:
    """Draw the overscans of the last bias of a night, else of its last exposure, as the recipe takes them."""
    rows = raw.rows_of(night)
    rows = rows[raw["present"][rows].any(axis=1)]
    biases = rows[raw["imgtype"][rows] == "bias"]
    if not len(rows):
        return None
    row = int(biases[-1] if len(biases) else rows[-1])
    number, ccds = int(raw["exposure"][row]), (np.flatnonzero(raw["present"][row]) + 1).tolist()
    cube = open_cube(raw.objects)
    place = int(np.flatnonzero(cube["exposure"].values == number)[0])
    settings = overscan_settings(recipe)
    fit = {name: settings[name] for name in ("degree", "clip")}
    columns = {name: settings[name] for name in ("columns", "columns_of_ccd")}
    found = []
    for ccd in ccds:
        profile = overscan_profile(cube["overscan"].isel(time=place).sel(ccd=ccd).load(), **columns)
        found.append((ccd, _profile_chart(ccd, profile, overscan_level(profile, **fit)["level"])))
    first, stop = settings["columns"]
    return Profiles(f"{raw['imgtype'][row]} {number}", f"[{first}, {stop})", found)


def _profile_chart(ccd: int, profile: xr.DataArray, level: xr.DataArray) -> Chart | None:
    series = []
    for quadrant in QUADRANTS:
        rows = profile.sel(quadrant=quadrant).values.astype(np.float64)
        if not np.isfinite(rows).any():
            continue
        smooth, mean = level.sel(quadrant=quadrant).values.astype(np.float64), float(np.nanmean(rows))
        y, medians = _thinned(rows - mean)
        series.append(Series(f"q{quadrant}", y, medians, style=quadrant))
        where, fitted = _thinned(smooth - mean)
        series.append(Series("", where, fitted, style=0))
    title = f"CCD {ccd}: overscan level about its mean against row, four quadrants and their fits"
    return chart(title, series, x_label="row", y_label="DN", size=(270, 170))


def _thinned(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and medians of some rows each."""
    parts = np.array_split(values, min(POINTS, len(values)))
    ends = np.cumsum([0, *(len(part) for part in parts)])
    medians = [np.nanmedian(part) if np.isfinite(part).any() else np.nan for part in parts]
    return (ends[:-1] + ends[1:] - 1) / 2, np.array(medians)


def settling_charts(bias: Product, row: int) -> list[Chart]:
    """Draw how the biases of a night settle: median of the quadrants and the band of nine tenths of them."""
    made = bias.table("present")[row] == 1
    skip = int(bias.recipe["bias"]["skip"])
    charts = []
    for table, what in NUMBERS:
        values = bias.table(table)[row][made].reshape(-1, bias.table(table).shape[-1]).astype(np.float64)
        known = np.isfinite(values).any(axis=0)
        if not known.any():
            continue
        low, middle, high = np.nanpercentile(values[:, known], [5, 50, 95], axis=0)
        series = Series("median", np.flatnonzero(known).astype(np.float64), middle, 1, low, high)
        found = chart(
            f"{what}, DN, against the number of the bias in its run", [series], x_label="number in the run",
            y_label=f"{what}, DN", mark=(skip - 0.5, f"used from {skip}"), size=(360, 220),
        )  # fmt: skip
        charts += [found] if found is not None else []
    return charts


def sky_chart(science: Product, night: int, seconds: NDArray[np.float64]) -> Chart | None:
    """Draw the sky of the exposures of a night against the hour UTC; ``seconds`` of each, from midnight.

    None if no science is made of them.
    """
    rows = science.rows_of(night)
    sky = np.where(science.rows("present", rows)[..., np.newaxis] == 1, science.rows("sky", rows), np.nan)
    known = np.isfinite(sky).any(axis=(1, 2))
    bands, hours = science.rows("filter", rows)[known], seconds[known] / 3600
    level = np.nanmedian(sky[known].astype(np.float64), axis=(1, 2))
    series = [
        Series(band, hours[bands == band], level[bands == band], style, dots=True)
        for style, band in enumerate(("zg", "zr", "zi"), 1)
        if (bands == band).any()
    ]
    return chart(
        "sky of the exposures against time, by filter",
        series,
        x_label="hour, UTC",
        y_label="sky, DN",
        size=(560, 240),
    )
