"""A response that depends on the colour of stars: simulated, fitted, stored, and taken out of magnitudes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_starflat_store as stored
import xarray as xr
from starfields import FEW, measurements_of, true_nodes, without_plane

import ztfzarr
from ztfzarr.errors import StoreError
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.starflat import starflat_of_table
from ztfzarr.simulate import camera, catalogue, conditions, dither_stars, schedule
from ztfzarr.simulate.measurements import StarfieldNight, simulate_starfield
from ztfzarr.sky import plane_of_pixels
from ztfzarr.starflat.errors import errors
from ztfzarr.starflat.fit import fit_starflat
from ztfzarr.starflat.nodes import Nodes
from ztfzarr.store.objects import open_objects
from ztfzarr.store.starflat_tables import mark_starflat, read_starflat
from ztfzarr.store.versions import existing_version, prepare_version

TERM = 0.03  # mag a mag of colour and a degree
NIGHT = StarfieldNight(stars=12000, dithers=12, rcids=tuple(range(16, 32)), seed=3, colour_term=TERM)


@pytest.fixture(scope="module")
def measured():
    return simulate_starfield(NIGHT)


@pytest.fixture(scope="module")
def fit(measured):
    return fit_starflat(measurements_of(measured, colours=True), NIGHT.shape, FEW)


def true_term(shape: tuple[int, int], rcids: tuple[int, ...]) -> np.ndarray:
    """The term at the corners, in the gauge: its mean over those of the quadrants that have stars is 0."""
    u = TERM * Nodes(shape, (2, 2)).focal_plane()[0].reshape(64, 2, 2)
    return u - u[list(rcids)].mean()


def test_the_term_is_recovered_within_its_errors(fit):
    found = errors(fit)
    off = (fit.colour - true_term(NIGHT.shape, NIGHT.rcids))[16:32]
    assert np.ptp(true_term(NIGHT.shape, NIGHT.rcids)[16:32]) > 0.15
    assert off.std() < 0.008
    assert np.std(off / found.colour[16:32]) == pytest.approx(1.0, abs=0.3)
    assert np.isnan(fit.colour[:16]).all()
    assert np.isnan(found.colour[:16]).all()


def test_the_gauge_of_the_term_is_its_mean_over_corners(fit):
    assert np.nansum(fit.colour) == pytest.approx(0, abs=1e-9)


def test_the_mean_colour_is_that_of_the_stars_that_are_seen(fit, measured):
    seen = np.unique(measured.columns["star"])
    assert fit.system.mean_colour == pytest.approx(measured.star_colour[seen].mean(), abs=1e-6)
    plain = fit_starflat(measurements_of(measured), NIGHT.shape, replace(FEW, resamples=0))
    assert np.isnan(plain.system.mean_colour)


def test_what_a_map_without_the_term_is_worse_by(fit, measured):
    """Colours that have nothing to do with places give noise, not bias: the map is off by more."""
    plain = fit_starflat(measurements_of(measured), NIGHT.shape, FEW)
    off = [np.nanstd(without_plane(f.delta - true_nodes(NIGHT, (4, 4)), (4, 4))) for f in (fit, plain)]
    assert off[0] < 1.6e-3
    assert off[1] > 1.5 * off[0]
    assert plain.chi2() > 1.1 * fit.chi2()


def test_a_map_without_the_term_is_wrong_where_colours_change_over_the_sky():
    """Stars that are redder to the east by 0.1 mag a degree: a bias, which more stars do not take away."""
    night = StarfieldNight(stars=6000, dithers=16, colour_term=TERM, seed=3)
    field = simulate_starfield(night)
    c, star = field.columns, field.columns["star"]
    east = 0.1 * np.bincount(star, c["u"]) / np.maximum(np.bincount(star), 1)
    m = measurements_of(field, colours=True)
    redder = m.magnitude + TERM * c["u"] * east[star]
    m = replace(m, magnitude=redder, colour=m.colour + east[star])
    fits = [fit_starflat(one, night.shape, replace(FEW, resamples=0)) for one in (m, replace(m, colour=None))]
    off = [np.nanstd(without_plane(f.delta - true_nodes(night, (4, 4)), (4, 4))) for f in fits]
    assert off[0] < 2.0e-3
    assert off[1] > 4e-3


@pytest.fixture(scope="module")
def field():
    return simulate_starfield(replace(stored.NIGHT, colour_term=TERM))


@pytest.fixture(scope="module")
def store(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory, field) -> Path:
    """A store with starflat v1 of zr with a colour term, and v2 without."""
    path = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("colour") / "night.zarr"))
    exposures = np.sort(ztfzarr.open_cube(path)["exposure"].values)[: stored.NIGHT.dithers]
    for name, colour in (("v1", "true"), ("v2", "false")):
        recipe = read_recipe("", [*stored.SETTINGS, f"starflat.colour={colour}"])
        version = prepare_version(open_objects(path), "starflat", name, recipe, default_recipe())
        if name == "v1":
            stars = stored.table_of(field, exposures), stored.catalogue_of(field)
            tables, used = starflat_of_table(version, "zr", *stars, stored.SHAPE)
        else:
            tables |= {name: np.full((16, 4, 2, 2), np.nan) for name in ("delta_colour", "delta_colour_error")}
            tables["mean_colour"] = np.nan
        mark_starflat(version, "zr", tables, used)
    return path


def test_a_version_holds_the_term_its_errors_and_the_mean_colour(store, field):
    one, other = (stored.opened(store, name) for name in ("v1", "v2"))
    rcids = list(stored.NIGHT.rcids)
    truth = true_term(stored.SHAPE, stored.NIGHT.rcids)[rcids]
    off = one["delta_colour"].values.reshape(64, 2, 2)[rcids] - truth
    error = one["delta_colour_error"].values.reshape(64, 2, 2)[rcids]
    assert np.ptp(truth) > 0.15
    assert np.median(np.abs(off) / error) == pytest.approx(0.67, abs=0.3)
    assert float(one["mean_colour"]) == pytest.approx(0.8, abs=0.02)
    assert np.isnan(other["mean_colour"])
    assert np.isnan(other["delta_colour_error"].values).all()
    assert stored.ran("verify", store, "-q") == 0


def corrected(store: Path, field, **options: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The star table before and after."""
    table = stored.table_of(field, np.arange(stored.NIGHT.dithers)).assign(filter="zr")
    return table, ztfzarr.correct_colour(table, field.columns["colour"], store, **options)


def test_magnitudes_are_those_of_stars_of_the_mean_colour(store, field):
    before, after = corrected(store, field)
    star, colour = before["star"].to_numpy(), field.columns["colour"]
    zero = field.zero[before["exposure"]] + stored.NIGHT.extinction * field.columns["slope"] + field.delta
    bright = (before["magnitude_error"].to_numpy() < 0.01) & ~field.is_outlier
    left = [(t["magnitude"].to_numpy() - field.star_magnitude[star] - zero)[bright] for t in (before, after)]
    u, off = field.columns["u"][bright], colour[bright] - 0.8
    slopes = [np.polyfit(u * off, values, 1)[0] for values in left]
    assert slopes[0] == pytest.approx(TERM, abs=0.002)
    assert slopes[1] == pytest.approx(0, abs=0.004)
    assert np.std(left[1]) < 0.7 * np.std(left[0])


def test_the_term_is_bilinear_in_its_quadrant_and_nothing_else_changes(store, field):
    before, after = corrected(store, field)
    one = stored.opened(store)
    row = int(np.flatnonzero(before["ccd"] == 11)[5])
    star = before.iloc[row]
    corner = one["delta_colour"].sel(ccd=11, quadrant=star["quadrant"]).values
    across, down = (star["x"] + 0.5) / stored.SHAPE[1], (star["y"] + 0.5) / stored.SHAPE[0]
    term = np.array([1 - down, down]) @ corner @ np.array([1 - across, across])
    expected = star["magnitude"] - term * (field.columns["colour"][row] - float(one["mean_colour"]))
    assert after["magnitude"].iloc[row] == pytest.approx(expected, abs=1e-6)
    pd.testing.assert_frame_equal(after.drop(columns="magnitude"), before.drop(columns="magnitude"))


def test_unknown_colours_count_as_the_mean_and_what_does_not_fit_is_refused(store, field):
    table = stored.table_of(field, np.arange(stored.NIGHT.dithers)).assign(filter="zr")[:10]
    same = ztfzarr.correct_colour(table, np.full(10, np.nan), store)
    pd.testing.assert_frame_equal(same, table)
    with pytest.raises(
        StoreError, match=r"starflat/v2 of zr has no colour term: make one with starflat.colour=true"
    ):
        ztfzarr.correct_colour(table, np.zeros(10), store, version="v2")
    with pytest.raises(StoreError, match="starflat/v1 of zg has no colour term"):
        ztfzarr.correct_colour(table.assign(filter="zg"), np.zeros(10), store)
    with pytest.raises(ValueError, match="9 colours of 10 rows: expected one a row"):
        ztfzarr.correct_colour(table, np.zeros(9), store)


def test_versions_from_before_colours_were_stored_open_and_can_be_completed(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    version = existing_version(open_objects(copy), "starflat", "v2")
    for name in ("mean_colour", "delta_colour_error"):
        shutil.rmtree(copy / "starflat" / "v2" / name)
        del version.document["consolidated_metadata"]["metadata"][name]
    (copy / "starflat" / "v2" / "zarr.json").write_text(json.dumps(version.document))
    assert stored.ran("verify", copy, "-q") == 0
    older = existing_version(open_objects(copy), "starflat", "v2")
    tables, used = read_starflat(older, "zr")
    assert "mean_colour" not in tables
    mark_starflat(older, "zg", tables | {"mean_colour": 0.8}, used)
    assert int(xr.open_zarr(copy / "starflat" / "v2", chunks=None)["present"].sel(filter="zg")) == 1
    with pytest.raises(StoreError, match="has no colour term"):
        ztfzarr.correct_colour(
            pd.DataFrame({"filter": ["zr"], "magnitude": [1.0]}), np.zeros(1), copy, version="v2"
        )


def test_simulated_images_have_the_term_in_their_stars():
    made = camera([2], (80, 64), 1)
    exposure = next(e for e in schedule(20200801, bias=0, flats=0, science=0, starflat=2, seed=1) if e.dither == 2)
    now = conditions(made, exposure, 2)
    plain, coloured = (dither_stars(1, exposure, now, 2, 3, (80, 64), colour_term=term) for term in (0.0, TERM))
    colour = catalogue(1, exposure.field, (80, 64)).colour[plain.id]
    u = plane_of_pixels(4 * 1 + 2, plain.x, plain.y, (80, 64))[0]
    assert np.ptp(u) > 0.5
    change = -2.5 * np.log10(coloured.flux / plain.flux)
    np.testing.assert_allclose(change, TERM * u * (colour - 0.5), atol=1e-5)
