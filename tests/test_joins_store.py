"""Amplifier offsets and CCD-wide apertures of a store: versions, what is computed, provenance, commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_products import call, opened

import ztfzarr
from ztfzarr.geometry import QUADRANTS
from ztfzarr.ingest.run import ingest
from ztfzarr.photometry.columns import COLUMNS
from ztfzarr.photometry.quadrant import ccd_stars
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.simulate import camera, raw_ccd, schedule, simulate_night
from ztfzarr.steps.amplifier_offset import amplifier_offset, subtract_amplifier_offset
from ztfzarr.store.objects import open_objects
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import find_version, prepare_version

NIGHT, CCD, SHAPE, STEP = 20200801, 2, (128, 112), 5.0
COUNTS = {"bias": 13, "flats": 3, "science": 6}
EXACT = [f"{kind}.rounding=0" for kind in ("bias", "flat", "science")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night with steps of 5 DN."""
    path = tmp_path_factory.mktemp("steps")
    arguments = ["--ccds", CCD, "--shape", "128x112", "--amplifier-step", STEP, "--workers", 1, "-q"]
    assert call("simulate", path, *arguments, *(f"--{n}={c}" for n, c in COUNTS.items())) == 0
    return path


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """science/v1 without offsets, v2 with them; stars/v1 by quadrants, v2 on the CCD. Of zr alone."""
    path = tmp_path_factory.mktemp("store") / "night.zarr"
    files = [p for p in (folder / "raw").rglob("*.fits.fz") if "_bi_" in p.name or "_zr_" in p.name]
    assert not ingest(path, files).refused
    settings = [*EXACT, "science.variance=true", "flat.without_leds=[2, 3, 4, 5, 11, 12, 13]"]
    assert [r.refused for r in reduce(path, recipe=read_recipe("", settings))] == [[], [], []]
    on = ["--set=science.rounding=0", "--set=science.variance=true", "--set=science.amplifier_offset=true"]
    assert call("science", path, "--version", "v2", *on, "-q") == 0
    assert call("stars", path, "-q") == 0
    assert call("stars", path, "--version", "v2", "--set=stars.apertures=ccd", "--set=stars.science=v2", "-q") == 0
    return path


def exposures(store: Path, group: str) -> xr.Dataset:
    science = opened(store, group)
    return science.isel(time=(science["imgtype"] == "object").values).sortby("time").sel(ccd=[CCD])


def test_steps_are_in_the_sky_alone_and_in_the_truth(folder: Path) -> None:
    planned = schedule(NIGHT, **COUNTS, seed=1)
    one = camera([CCD], SHAPE, 1)
    truth = xr.open_zarr(folder / "truth" / f"{NIGHT}.zarr", chunks=None)["amplifier_step"]
    assert truth.dims == ("time", "ccd", "quadrant")
    assert truth.attrs["units"] == "DN"
    for exposure in (next(e for e in planned if e.kind == kind) for kind in "bfo"):
        plain, stepped = raw_ccd(one, exposure, CCD), raw_ccd(one, exposure, CCD, amplifier_step=STEP)
        assert np.array_equal(plain.overscans, stepped.overscans)
        steps = truth.values[planned.index(exposure), 0]
        assert (stepped.images - plain.images).mean((1, 2)) == pytest.approx(steps, abs=0.01)
        assert (exposure.kind == "o") == (np.abs(steps) > 0).all()
        assert np.array_equal(plain.images, raw_ccd(one, exposure, CCD, amplifier_step=0.0).images)
    of_sky = truth.values[[e.kind == "o" for e in planned]]
    assert 0.6 * STEP < of_sky.std() < 1.5 * STEP
    with pytest.raises(ValueError, match="amplifier_step = -1: expected DN from 0 to 1000"):
        simulate_night(folder, amplifier_step=-1)


def test_offsets_are_those_of_the_truth(folder: Path, store: Path) -> None:
    """But for the glow of the read sides, which is up to 1 DN at joins of quadrants as small."""
    found, plain = exposures(store, "science/v2"), exposures(store, "science/v1")
    truth = xr.open_zarr(folder / "truth" / f"{NIGHT}.zarr", chunks=None).swap_dims(time="exposure")
    steps = truth["amplifier_step"].sel(exposure=found["exposure"].values)[:, 0]
    scale = opened(store, "flat/v1")["flat"].sel(filter="zr", ccd=CCD)[0].median(("y", "x"))
    level = float(opened(store, "flat/v1")["level"].sel(filter="zr", ccd=CCD)[0])
    expected = steps.values / (scale.values * level)
    expected -= expected.mean(axis=1, keepdims=True)
    assert found["amplifier_offset"][:, 0].values == pytest.approx(expected, abs=1.2)
    assert found["amplifier_offset"].attrs["units"] == "DN"
    assert (found["amplifier_offset_error"] < 0.7).all()
    spread = plain["sky"][:, 0].std("quadrant") / found["sky"][:, 0].std("quadrant")
    assert (spread > 3).all()


def test_versions_differ_by_the_offsets_alone(store: Path) -> None:
    found, plain = exposures(store, "science/v2"), exposures(store, "science/v1")
    taken = (plain["science"] - found["science"]).where(plain["mask"] == 0)
    offset = found["amplifier_offset"]
    rounded = np.spacing(np.abs(plain["science"]))  # 0.001 DN from 8192 DN on
    assert (np.abs(taken - offset) < 1e-3 + rounded).where(taken.notnull(), True).all()
    assert np.array_equal(found["mask"], plain["mask"])
    own = amplifier_offset(plain["science"].assign_attrs(units="DN"), plain["mask"])
    assert own["offset"].values == pytest.approx(offset.values, rel=1e-4, abs=1e-4)
    assert own["error"].values == pytest.approx(found["amplifier_offset_error"].values, rel=1e-3)
    flat = subtract_amplifier_offset(plain["science"], own["offset"])
    assert (np.abs(flat - found["science"]) < 1e-3 + rounded).where(plain["mask"] == 0, True).all()
    drop = (plain["variance"] - found["variance"]).median(("y", "x"))
    gain = ztfzarr.open_cube(store)["gain"].sel(ccd=[CCD]).values[:1]
    share = opened(store, "flat/v1")["flat"].sel(filter="zr", ccd=CCD)[0].median(("y", "x")).values
    assert drop.values == pytest.approx((offset / (gain * share)).values, rel=0.1, abs=0.01)


def test_computed_is_stored(store: Path) -> None:
    stored, computed = exposures(store, "science/v2"), ztfzarr.open_science(store, version="v2").sel(ccd=[CCD])
    for name in ("science", "mask", "variance"):
        assert np.array_equal(computed[name].values, stored[name].values, equal_nan=True), name
    part = {"quadrant": [2, 0], "y": slice(100, 20, -3), "x": [5, 70]}
    cutout = computed["science"][1:, 0, [2, 0], 100:20:-3, [5, 70]]
    assert np.array_equal(cutout, stored["science"][1:, 0].isel(part))


def test_off_is_what_it_was(store: Path) -> None:
    """No variable more, the same provenance, and recipes of versions that are older than the setting do."""
    assert not any(name.startswith("amplifier") for name in opened(store, "science/v1").variables)
    assert read_recipe("")["science"]["amplifier_offset"] is False
    records = [json.loads(str(exposures(store, f"science/{v}")["provenance"].values[0, 0])) for v in ("v1", "v2")]
    assert "amplifier_offset" not in records[0]
    offsets = exposures(store, "science/v2")["amplifier_offset"].values[0, 0]
    assert records[1]["amplifier_offset"] == pytest.approx(offsets.tolist(), abs=1e-3)
    assert call("verify", store, "-q") == 0


def test_older_versions_open(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    for kind, setting in (("science", "amplifier_offset"), ("stars", "apertures")):
        place = copy / kind / "v1" / "zarr.json"
        document = json.loads(place.read_text())
        del document["attributes"]["recipe"][kind][setting]
        place.write_text(json.dumps(document))
        asked = read_recipe("", [*EXACT, "science.variance=true"])
        objects = open_objects(copy)
        assert prepare_version(objects, kind, "v1", asked, default_recipe()) == find_version(objects, kind, "v1")
        assert call(kind, copy, "-q") == 0
    computed, before = ztfzarr.open_science(copy), exposures(store, "science/v1")
    assert np.array_equal(computed["science"].sel(ccd=[CCD])[0, 0, 0], before["science"][0, 0, 0])
    assert call("science", copy, "--set=science.amplifier_offset=true", "-q") == 2


def test_stars_on_the_ccd(store: Path) -> None:
    """Those of the joined quadrants, each in pixels of its own."""
    table = ztfzarr.open_stars(store, version="v2")
    assert list(table.columns) == list(COLUMNS)
    science = exposures(store, "science/v2").isel(time=0, ccd=0)
    parts = ccd_stars(*(science[name].values for name in ("science", "mask", "variance")))
    mine = table[table["exposure"] == int(science["exposure"])]
    for quadrant, part in zip(QUADRANTS, parts, strict=True):
        rows = mine[mine["quadrant"] == quadrant]
        np.testing.assert_array_equal(rows["x"], part["x"])
        np.testing.assert_array_equal(rows["flux_10"], part["flux_10"])
        assert rows["y"].between(-0.5, SHAPE[0] - 0.5).all()
    assert arrays_of(find_version(open_objects(store), "stars", "v2").document)["stars"]["shape"][1:] == [16, 4]
    counts = exposures(store, "stars/v2")["stars"].isel(time=0, ccd=0).values
    assert counts.tolist() == [part["x"].size for part in parts]
    assert call("stars", store, "--set=stars.apertures=ccd", "-q") == 2
    assert call("stars", store, "--version", "v3", "--set=stars.apertures=chip", "-q") == 2
