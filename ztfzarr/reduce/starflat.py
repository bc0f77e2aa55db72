"""Starflats of a store: star tables matched, fitted, judged, and written to a version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ztfzarr.photometry.catalogue import read_catalogue
from ztfzarr.photometry.columns import FLAGS
from ztfzarr.photometry.matching import match_stars
from ztfzarr.recipe import Recipe, default_recipe
from ztfzarr.reduce.provenance import starflat_provenance
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.reduce.stars import open_stars, reduce_stars, require_extra
from ztfzarr.starflat.errors import Errors, errors
from ztfzarr.starflat.fit import Fit, Settings, fit_starflat
from ztfzarr.starflat.measurements import Measurements
from ztfzarr.starflat.plane import Catalogue, Plane, absorbed, fix_plane, undetermined
from ztfzarr.starflat.validation import judged, kept_of
from ztfzarr.store.group import existing_document
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.starflat_tables import mark_starflat
from ztfzarr.store.starflat_variables import APERTURES, BRIGHTNESSES, JOINS
from ztfzarr.store.template import dimension_lengths
from ztfzarr.store.versions import Version, made, prepare_version

if TYPE_CHECKING:
    import pandas as pd

MAG = 2.5 / np.log(10)
COLUMNS = (
    "exposure", "night", "filter", "ccd", "quadrant", "x", "y", "ra", "dec", "u", "v", "pointing_ra",
    "pointing_dec", "airmass", "exposure_airmass", "magnitude", "magnitude_error", "flags", "star", "flux_10",
)  # fmt: skip


def reduce_starflat(
    store: StoreLike,
    *,
    version: str = "v1",
    recipe: Recipe | None = None,
    filters: Sequence[str] = (),
    selection: Selection | None = None,
    catalogue: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    events: Events | None = None,
) -> Report:
    """Make the starflats that a store lacks, one a filter; star tables first, where they are missing.

    Parameters
    ----------
    store : path or URL
        Of the store, with raw exposures and masters.
    version : str
        Version to make or to complete.
    recipe : dict, optional
        From ``read_recipe``; default an existing version's own, else the defaults.
    filters : sequence of str, optional
        Default all that the star tables have.
    selection : Selection, optional
        Nights and CCDs; default all.
    catalogue : path, optional
        Magnitudes that fix the plane; without, it is undetermined. Also for the WCS and names of stars.
    workers : int, optional
        Threads of the photometry.
    scheduler : str, optional
        Address of a dask.distributed scheduler, whose workers then make the star tables; they must see the
        store and the catalogue. The fit is made here.
    events : Events, optional
        For progress.

    Returns
    -------
    Report
        What failed is refused there, and the rest is done.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference.
    RefusedError
        If the catalogue cannot be read.
    StoreError
        If there is no such store, it lacks the masters, there is no such scheduler, or sep or pyarrow are not
        installed.
    """
    require_extra()
    objects, selection, events = open_objects(store), selection or Selection(), events or Events()
    known = None if catalogue is None else read_catalogue(catalogue)
    target = prepare_version(objects, "starflat", version, recipe, default_recipe())
    tables = target.recipe["starflat"]["stars"]
    report = Report(target.group)
    photometry = reduce_stars(
        objects, version=tables, selection=selection, catalogue=catalogue, workers=workers, scheduler=scheduler,
        events=events,
    )  # fmt: skip
    report.refused += photometry.refused
    columns = list(
        dict.fromkeys([*COLUMNS, *(f"flux_{r}" for r in radii(target)), f"flux_error_{radii(target)[0]}"])
    )
    nights = selection.first, selection.last
    table = open_stars(objects, version=tables, columns=columns, nights=nights, ccds=selection.ccds)
    table = match_stars(table, catalogue=known)
    wanted = [band for band in FILTERS if band in set(filters or table["filter"])]
    events.step(target.group, len(wanted))
    for band in wanted:
        _make(objects, target, band, table[table["filter"] == band], known, report)
        events.done()
    return report


def radii(version: Version) -> tuple[int, ...]:
    """Return the radius of the aperture, and those that it is compared with."""
    return (version.recipe["starflat"]["radius"], *APERTURES)


def _make(
    objects: Objects, target: Version, band: str, table: pd.DataFrame, known: pd.DataFrame | None, report: Report
) -> None:
    """Make the starflat of a filter, or say why it cannot be made."""
    if made(target)[FILTERS.index(band)]:
        report.there += 1
        return
    lengths = dimension_lengths(existing_document(objects))
    try:
        tables, exposures = starflat_of_table(target, band, table, known, (lengths["y"], lengths["x"]))
        mark_starflat(target, band, tables, exposures)
        report.made += 1
    except (ValueError, ArithmeticError) as error:
        report.refused.append((f"{target.group} {band}", str(error)))


def starflat_of_table(
    target: Version, band: str, table: pd.DataFrame, known: pd.DataFrame | None, shape: tuple[int, int]
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Fit the stars of a filter.

    Parameters
    ----------
    target : Version
        Whose recipe to follow.
    band : str
        The filter.
    table : DataFrame
        Matched star table of it.
    known : DataFrame, optional
        Catalogue, whose ``id`` are the table's stars.
    shape : (int, int)
        Rows and columns of a quadrant.

    Returns
    -------
    tables, exposures
        As ``mark_starflat`` takes them.

    Raises
    ------
    ValueError
        If no star is seen twice.
    """
    recipe = target.recipe["starflat"]
    table = usable(table, recipe)
    settings = settings_of(recipe)
    measurements = measurements_of(table, recipe["radius"], known if recipe["colour"] else None)
    fit = fit_starflat(measurements, shape, settings)
    plane, found = _with_plane(fit, known, band, recipe)
    result = plane.fit
    kept = kept_of(fit, measurements)
    results = _map_tables(result, found) | _numbers(result, plane, found, len(measurements))
    results |= _by_channel(judged(fit, measurements, BRIGHTNESSES, _join_edges(target)), settings.nodes)
    results["radius_difference"] = _other_radii(fit, table, shape, recipe)
    exposures = fit.system.exposures
    nights = table.drop_duplicates("exposure").set_index("exposure")["night"].loc[np.unique(kept.exposure)]
    results |= {
        "exposure_filter": [band] * exposures.size,
        "first_night": int(nights.min()),
        "last_night": int(nights.max()),
        "provenance": starflat_provenance(target, np.unique(kept.exposure), plane.determined, fit.dropped),
    }
    return results, exposures


def _join_edges(version: Version) -> NDArray[np.float64]:
    """Return the edges of a version's bins of the distance to a join: older ones begin at 10 pixels."""
    return JOINS[-1 - dimension_lengths(version.document)["join"] :]


def usable(table: pd.DataFrame, recipe: dict[str, Any]) -> pd.DataFrame:
    """Leave out stars that flags, errors or lack of a match speak against."""
    bits = np.uint16(sum(FLAGS[name] for name in recipe["without"]))
    good = (table["flags"].to_numpy() & bits) == 0
    good &= (table["magnitude_error"].to_numpy() < recipe["faintest"]) & (table["star"].to_numpy() >= 0)
    chosen: pd.DataFrame = table.loc[good]
    return chosen


def settings_of(recipe: dict[str, Any]) -> Settings:
    """Return the settings of the fit that a recipe's section says."""
    given = None if recipe["extinction"] == "fit" else float(recipe["extinction"])
    names = ("floor", "clip", "smoothness", "minimum", "resamples")
    return Settings(nodes=tuple(recipe["nodes"]), extinction=given, **{name: recipe[name] for name in names})


def measurements_of(table: pd.DataFrame, radius: int, known: pd.DataFrame | None = None) -> Measurements:
    """Return the magnitudes of a star table in an aperture, and colours of a catalogue if there are."""
    magnitude, error = table["magnitude"].to_numpy(), table["magnitude_error"].to_numpy()
    if radius != 10:
        flux = table[f"flux_{radius}"].to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitude = magnitude - 2.5 * np.log10(flux / table["flux_10"].to_numpy())
            error = (
                MAG * table[f"flux_error_{radius}"].to_numpy() / flux if f"flux_error_{radius}" in table else error
            )
    colour = None
    if known is not None and "colour" in known:
        colour = known.drop_duplicates("id").set_index("id")["colour"].reindex(table["star"]).to_numpy(np.float64)
    rcid = 4 * (table["ccd"].to_numpy(np.int16) - 1) + table["quadrant"].to_numpy(np.int16) - 1
    slope = table["airmass"].to_numpy() - table["exposure_airmass"].to_numpy()
    star, exposure, x, y = (table[name].to_numpy() for name in ("star", "exposure", "x", "y"))
    return Measurements(star, exposure, rcid.astype(np.int16), x, y, magnitude, error, slope, colour)


def catalogue_of(known: pd.DataFrame, band: str, error: float) -> Catalogue:
    """Return the magnitudes of a catalogue in a filter."""
    known = known.drop_duplicates("id")
    colour = known["colour"].to_numpy(np.float64) if "colour" in known else None
    magnitude = known[band].to_numpy(np.float64)
    return Catalogue(known["id"].to_numpy(np.int64), magnitude, np.full(magnitude.size, error), colour)


def _with_plane(fit: Fit, known: pd.DataFrame | None, band: str, recipe: dict[str, Any]) -> tuple[Plane, Errors]:
    """Fix the plane where there is a catalogue, with the jackknife's part of its errors."""
    if known is None or not np.isfinite(known[band]).any():
        return undetermined(fit), errors(fit)
    stars, taken = catalogue_of(known, band, recipe["catalogue_error"]), absorbed(fit)
    plane = fix_plane(fit, stars, taken)
    found = errors(fit, lambda one: fix_plane(one, stars, taken).slopes)
    extra = np.nan_to_num(found.covariance) if found.covariance.shape == (2, 2) else np.zeros((2, 2))
    return replace(plane, covariance=plane.covariance + extra), found


def _by_channel(values: dict[str, Any], nodes: tuple[int, int]) -> dict[str, Any]:
    """Give maps of (64 rcid) the axes of CCD and quadrant."""
    return {n: v.reshape(16, 4, *nodes) if np.shape(v) == (64, *nodes) else v for n, v in values.items()}


def _map_tables(fit: Fit, found: Errors) -> dict[str, Any]:
    system = fit.system
    count = np.bincount(system.exposure[fit.weight > 0], minlength=system.exposures.size)
    maps = {"delta": fit.delta, "error": found.delta, "error_formal": found.delta_formal, "count": fit.count}
    return _by_channel(maps, fit.settings.nodes) | {
        "zero_point": np.where(count > 0, fit.zero, np.nan),
        "zero_point_error": np.where(count > 0, found.zero, np.nan),
        "exposure_stars": count,
        "delta_colour": fit.colour.reshape(16, 4, 2, 2),
        "delta_colour_error": found.colour.reshape(16, 4, 2, 2),
        "mean_colour": fit.system.mean_colour,
    }


def _numbers(fit: Fit, plane: Plane, found: Errors, count: int) -> dict[str, Any]:
    kept = fit.weight > 0
    error = np.sqrt(np.diag(plane.covariance))
    return {
        "extinction": fit.extinction,
        "extinction_error": found.extinction,
        "slope_u": plane.slopes[0],
        "slope_v": plane.slopes[1],
        "slope_u_error": error[0],
        "slope_v_error": error[1],
        "chi2": fit.chi2(),
        "measurements": int(kept.sum()),
        "rejected": 1 - kept.sum() / max(count, 1),
        "stars": np.unique(fit.system.star[kept]).size,
        "catalogue_stars": plane.stars,
    }


def _other_radii(fit: Fit, table: pd.DataFrame, shape: tuple[int, int], recipe: dict[str, Any]) -> list[float]:
    """Return the rms of maps of other apertures, from the same measurements, less this one."""
    settings = replace(fit.settings, resamples=0)
    mine = np.sort(fit.system.order[fit.weight > 0])
    result = []
    for radius in APERTURES:
        other = fit_starflat(measurements_of(table, radius).take(mine), shape, settings)
        result.append(float(np.sqrt(np.nanmean((other.delta - fit.delta) ** 2))))
    return result
