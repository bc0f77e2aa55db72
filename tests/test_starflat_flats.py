"""Flats with a starflat in them: the same science as flats without and a starflat beside, once and never twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from nights import ran

import ztfzarr
from ztfzarr.errors import RecipeError, StoreError
from ztfzarr.masters.bits import MASKS
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.listing import product_nights
from ztfzarr.reduce.provenance import starflat_provenance
from ztfzarr.reduce.report import Selection
from ztfzarr.reduce.run import reduce
from ztfzarr.reduce.starflat_recipe import recipe_with_starflat
from ztfzarr.store.objects import open_objects
from ztfzarr.store.starflat_tables import mark_starflat
from ztfzarr.store.versions import find_version, prepare_version

OTHERS = [2, 3, 4, 5, 11, 12, 13]  # LEDs of zg and zi, of which there is no map
EXACT = ("flat.rounding=0", f"flat.without_leds={OTHERS}")


@pytest.fixture(scope="module")
def store(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with starflats v1 and v3 of zr; v3 has a hole in quadrant 3 of CCD 2. Never changed: copy it."""
    path = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("starflat") / "night.zarr"))
    delta = np.random.default_rng(1).normal(0, 0.02, (16, 4, 3, 4)).astype(np.float32)
    holed = delta.copy()
    holed[1, 2, 0, 0] = np.nan
    for name, values in (("v1", delta), ("v3", holed)):
        recipe = read_recipe("", ["starflat.nodes=[3, 4]"])
        version = prepare_version(open_objects(path), "starflat", name, recipe, default_recipe())
        exposures = ztfzarr.open_cube(path)["exposure"].values[-1:]
        nights = {"first_night": 20200801, "last_night": 20200801}
        record = starflat_provenance(version, exposures, False, [])
        mark_starflat(version, "zr", {"delta": values, "provenance": record, **nights}, exposures)
    return path


@pytest.fixture(scope="module")
def made(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flats v2 with starflat v3 in them, flats v3 without; science v4 of the ones, and v5 of the others and it."""
    path = Path(shutil.copytree(store, tmp_path_factory.mktemp("flats") / "night.zarr"))
    for name, starflat in (("v2", "v3"), ("v3", "off")):
        recipe = read_recipe("", [*EXACT, f"flat.starflat={starflat}"])
        assert not reduce(path, ["flat"], version=name, recipe=recipe)[0].refused
    for name, flat, starflat in (("v4", "v2", "off"), ("v5", "v3", "v3")):
        settings = [
            "science.rounding=0",
            "science.variance=true",
            f"science.flat={flat}",
            f"science.starflat={starflat}",
        ]
        reduce(path, ["science"], version=name, recipe=read_recipe("", settings), selection=Selection(ccds=(2,)))
    return path


def group(path: Path, kind: str, name: str) -> xr.Dataset:
    return xr.open_zarr(path / kind / name, chunks=None, zarr_format=3)


def test_flats_are_multiplied_and_their_variance_by_the_square(made):
    one, plain = (group(made, "flat", name).sel(filter="zr", ccd=[2, 11]).isel(night=0) for name in ("v2", "v3"))
    delta = ztfzarr.starflat_map(made, "zr", version="v3").sel(ccd=[2, 11]).values.astype(float)
    factor = 10 ** (-0.4 * delta)
    assert np.nanstd(factor) > 0.003
    np.testing.assert_allclose(one["flat"].values, plain["flat"].values * factor, rtol=1e-6)
    np.testing.assert_allclose(one["variance"].values, plain["variance"].values * factor**2, rtol=1e-6)
    np.testing.assert_array_equal(one["count"].values, plain["count"].values)
    for name in ("level", "gain"):
        np.testing.assert_array_equal(one[name].values, plain[name].values)
    np.testing.assert_allclose(
        one["quadrant_level"], plain["quadrant_level"] * np.nanmedian(factor, (-2, -1)), rtol=3e-3
    )


def test_what_the_map_does_not_know_has_no_calibration(made):
    one, plain = (group(made, "flat", name).sel(filter="zr", ccd=2).isel(night=0) for name in ("v2", "v3"))
    hole = np.isnan(one["flat"].values)
    assert hole[2, 0, 0]
    assert 0 < hole.sum() < 0.2 * hole[2].size
    assert not np.isnan(plain["flat"].values).any()
    np.testing.assert_array_equal(
        one["bad"].values, plain["bad"].values | hole * np.uint16(MASKS["no_calibration"])
    )


def test_science_is_the_same_as_with_the_starflat_beside(made):
    one, other = (group(made, "science", name) for name in ("v4", "v5"))
    rows = np.flatnonzero((one["filter"].values == "zr") & (one["imgtype"].values == "object"))
    for name in ("science", "variance"):
        mine, theirs = (g[name].isel(time=rows).sel(ccd=2).values for g in (one, other))
        np.testing.assert_allclose(mine, theirs, rtol=5e-7)
        assert 0.9 < np.isfinite(mine).mean() < 1
    mine, theirs = (g["mask"].isel(time=rows).sel(ccd=2).values for g in (one, other))
    lost = np.isnan(one["science"].isel(time=rows).sel(ccd=2).values)
    np.testing.assert_array_equal(mine, theirs | lost * np.uint16(MASKS["no_calibration"]))
    k = [json.loads(str(g["provenance"].isel(time=rows[0]).sel(ccd=2).values))["k"] for g in (one, other)]
    assert k[0] == k[1]
    lazy = ztfzarr.open_science(made, version="v4").sel(ccd=2, quadrant=3)
    lazy = lazy["science"].isel(time=np.flatnonzero(lazy["filter"].values == "zr")).values
    np.testing.assert_array_equal(lazy, one["science"].isel(time=rows).sel(ccd=2, quadrant=3).values)


@pytest.mark.parametrize("chunks", [None, {"ccd": 1, "y": 32}], ids=["eager", "lazy"])
def test_with_starflat_is_what_is_stored(made, chunks):
    stored, plain = (
        group(made, "flat", name).sel(filter="zr", ccd=[11, 2]).isel(night=0) for name in ("v2", "v3")
    )
    plain = plain if chunks is None else plain.chunk(chunks)
    delta = ztfzarr.starflat_map(made, "zr", version="v3")
    found = ztfzarr.with_starflat(plain, delta if chunks else delta.load())
    assert (found["flat"].chunks is not None) == (chunks is not None)
    for name in ("flat", "variance"):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name].values, stored[name].values)
    assert "starflat" not in plain["flat"].attrs
    with pytest.raises(ValueError, match="has a starflat in it already"):
        ztfzarr.with_starflat(found, delta)


def test_with_starflat_refuses_what_does_not_fit(made):
    plain = group(made, "flat", "v3").isel(night=0)
    delta = ztfzarr.starflat_map(made, "zr", version="v3")
    with pytest.raises(ValueError, match="a flat of zg and a starflat of zr: expected one filter"):
        ztfzarr.with_starflat(plain.sel(filter="zg"), delta)
    with pytest.raises(ValueError, match="expected one filter"):
        ztfzarr.with_starflat(plain, delta)
    with pytest.raises(ValueError, match=r"the master starflat lacks ccd .*11"):
        ztfzarr.with_starflat(plain.sel(filter="zr"), delta.sel(ccd=[1, 2]))


def test_two_starflats_are_refused(made):
    message = "science.starflat is v1, and flat/v2 has starflat/v3 in it already"
    recipe = read_recipe("", ["science.flat=v2", "science.starflat=v1"])
    with pytest.raises(RecipeError, match=message):
        reduce(made, ["science"], version="v8", recipe=recipe)
    both = read_recipe("", ["flat.starflat=v1", "science.starflat=v1"], masters="v9")
    with pytest.raises(RecipeError, match="flat/v9 has starflat/v1 in it already"):
        reduce(made, version="v9", recipe=both)
    assert ran("science", made, "--version", "v8", "--set", "science.flat=v2", "--set", "science.starflat=v1") == 2
    objects = open_objects(made)
    names = [("science", "v8"), *((kind, "v9") for kind in ("bias", "flat", "science"))]
    assert not any(find_version(objects, *name) for name in names)
    prepare_version(objects, "science", "v8", recipe, default_recipe())
    with pytest.raises(RecipeError, match=message):
        ztfzarr.open_science(made, version="v8")


def test_flats_without_a_map_or_a_starflat_are_refused(made):
    recipe = read_recipe("", ["flat.starflat=v1"])
    (report,) = reduce(made, ["flat"], version="v6", recipe=recipe)
    assert {reason for what, reason in report.refused if "CCD" in what} == {
        "no starflat/v1/zg: make it with ztfzarr starflat, or do without its LEDs "
        "(flat.without_leds=[2, 3, 4, 5, 11, 12, 13])"
    }
    assert report.made == 0
    with pytest.raises(StoreError, match=r"no starflat/v7 in .*: make it with ztfzarr starflat --version v7"):
        reduce(made, ["flat"], version="v7", recipe=read_recipe("", ["flat.starflat=v7"]))


def test_flats_of_before_the_setting_are_off(made):
    """Versions keep the recipe that they were made with."""
    path = made / "flat" / "v1" / "zarr.json"
    text = path.read_text()
    document = json.loads(text)
    del document["attributes"]["recipe"]["flat"]["starflat"]
    path.write_text(json.dumps(document))
    try:
        assert np.isfinite(ztfzarr.open_science(made, version="v1")["science"].isel(time=0).sel(ccd=2)).any()
        assert ran("flat", made, "-q") == 0
        assert ran("verify", made, "-q") == 0
    finally:
        path.write_text(text)


def test_the_commands_know_them(made, tmp_path, capsys):
    copy = Path(shutil.copytree(made, tmp_path / "copy.zarr"))
    assert ran("verify", copy, "-q") == 0
    (row,) = [night for night in product_nights(copy) if night.group == "flat/v2"]
    assert (row.made, row.stale) == (2, 0)
    record = json.loads(str(group(copy, "flat", "v2")["provenance"].sel(filter="zr", ccd=2).values[0]))
    assert record["masters"] == {"bias": "bias/v1/20200801", "starflat": "starflat/v3/zr"}
    assert ran("drop", copy, "starflat", "v3", "--yes") == 3
    assert "is made with starflat/v3: drop" in capsys.readouterr().err
    band = group(copy, "flat", "v2")["filter"].values.tolist().index("zr")
    lost = copy / "flat" / "v2" / "flat" / "c" / "0" / str(band) / "1/0/0/0"
    before = lost.read_bytes()
    lost.unlink()
    assert ran("verify", copy, "-q") == 1
    assert ran("repair", copy, "-q") == 0
    assert lost.read_bytes() == before
    assert ran("export", copy, "flat", tmp_path / "out", "--version", "v2", "--ccds", 2, "-q") == 0
    exported = sorted((tmp_path / "out").rglob("*zr*c02*q1*.fits*"))
    stored = group(copy, "flat", "v2")["flat"].sel(filter="zr", ccd=2, quadrant=1).values[0]
    with fits.open(exported[0]) as hdus:
        image = next(hdu.data for hdu in hdus if hdu.data is not None)
    np.testing.assert_array_equal(image, stored)
    assert ran("copy", copy, tmp_path / "dest.zarr", "--products", "-q") == 0
    copied = group(tmp_path / "dest.zarr", "flat", "v2")["flat"].sel(filter="zr", ccd=2, quadrant=1).values[0]
    np.testing.assert_array_equal(copied, stored)


def test_applying_keeps_the_settings_of_the_flats_that_stars_were_measured_with(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    objects = open_objects(copy)
    recipe = read_recipe("", ["science.flat=v2", "science.rounding=0.25"])
    prepare_version(objects, "flat", "v2", read_recipe("", ["flat.clip=5"]), default_recipe())
    prepare_version(objects, "science", "v2", recipe, default_recipe())
    prepare_version(objects, "stars", "v1", read_recipe("", ["stars.science=v2"]), default_recipe())
    flat, science = (recipe_with_starflat(objects, kind, "v1") for kind in ("flat", "science"))
    assert (flat["flat"]["clip"], flat["flat"]["starflat"], flat["flat"]["without_leds"]) == (5, "v1", OTHERS)
    assert (science["science"]["rounding"], science["science"]["starflat"]) == (0.25, "v1")
    prepare_version(objects, "flat", "v3", read_recipe("", ["flat.starflat=v1"]), default_recipe())
    prepare_version(objects, "science", "v3", read_recipe("", ["science.flat=v3"]), default_recipe())
    prepare_version(objects, "stars", "v2", read_recipe("", ["stars.science=v3"]), default_recipe())
    prepare_version(objects, "starflat", "v4", read_recipe("", ["starflat.stars=v2"]), default_recipe())
    with pytest.raises(
        RecipeError, match="starflat/v4 was measured through starflat/v1: it holds what that one left"
    ):
        recipe_with_starflat(objects, "flat", "v4")


def test_the_command_applies_it_to_flats(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    assert ran("starflat", copy, "--filter", "zr", "--apply-flats", "v2", "-q") == 0
    one = group(copy, "flat", "v2")
    assert one.attrs["recipe"]["flat"]["starflat"] == "v1"
    assert (one["present"].sel(filter="zr", ccd=[2, 11]) == 1).all()
    assert (one["present"].sel(filter=["zg", "zi"]) == 0).all()
