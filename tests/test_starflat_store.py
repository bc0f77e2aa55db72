"""Starflat versions: what they hold, that science uses them, and that the commands know them."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from nights import ran
from stores import flip

import ztfzarr
from ztfzarr.errors import StoreError
from ztfzarr.photometry.columns import FLAGS
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.report import Report
from ztfzarr.reduce.run import reduce
from ztfzarr.reduce.starflat import _join_edges, measurements_of, starflat_of_table
from ztfzarr.reduce.versions import drop
from ztfzarr.schema import faults
from ztfzarr.simulate.measurements import StarfieldNight, illumination, simulate_starfield
from ztfzarr.store.copy_products import copy_products
from ztfzarr.store.objects import open_objects
from ztfzarr.store.starflat_tables import mark_starflat
from ztfzarr.store.versions import Version, existing_version, prepare_version

SHAPE = (80, 64)
SETTINGS = ("starflat.nodes=[3, 4]", "starflat.resamples=4", "starflat.minimum=0.2")
RCIDS = (*range(4, 8), *range(40, 44), *range(20, 40))


def strong(*places: np.ndarray) -> np.ndarray:
    """Three times what the camera has: few stars are to see it."""
    return 3 * illumination(*places)


NIGHT = StarfieldNight(14_000, 8, faintest=16.5, shape=SHAPE, rcids=RCIDS, illumination=strong)


@pytest.fixture(scope="module")
def field():
    return simulate_starfield(NIGHT)


def table_of(field, exposures: np.ndarray) -> pd.DataFrame:
    """The star table that photometry would give of a simulated field, in exposures of a store."""
    c = field.columns
    size = c["star"].size
    rng = np.random.default_rng(2)
    columns = {
        "exposure": exposures[c["exposure"] - c["exposure"].min()],
        "night": np.full(size, 20200801, np.int32),
        "ccd": c["rcid"] // 4 + 1,
        "quadrant": c["rcid"] % 4 + 1,
        "airmass": 1.2 + c["slope"],
        "exposure_airmass": np.full(size, 1.2),
        "flags": np.zeros(size, np.uint16),
    }
    flux = 10 ** (-0.4 * c["magnitude"])
    fluxes = {f"flux_{r}": flux * (1 + 1e-3 * rng.standard_normal(size)) for r in (6, 12)} | {"flux_10": flux}
    same = {name: c[name] for name in ("x", "y", "u", "v", "magnitude", "magnitude_error", "star")}
    return pd.DataFrame(columns | same | fluxes)


def catalogue_of(field) -> pd.DataFrame:
    size = field.star_magnitude.size
    noisy = field.star_magnitude + np.random.default_rng(4).normal(0, 0.02, size)
    return pd.DataFrame({"id": np.arange(size), "colour": field.star_colour, "zr": noisy})


@pytest.fixture(scope="module")
def store(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory, field) -> Path:
    """A store with starflat v1 of zr with a plane, and v2 without. Never changed: copy it."""
    path = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("starflat") / "night.zarr"))
    exposures = np.sort(ztfzarr.open_cube(path)["exposure"].values)[: NIGHT.dithers]
    for name, known in (("v1", catalogue_of(field)), ("v2", None)):
        version = version_of(path, name)
        tables, used = starflat_of_table(version, "zr", table_of(field, exposures), known, SHAPE)
        mark_starflat(version, "zr", tables, used)
    return path


def version_of(path: Path, name: str) -> Version:
    recipe = read_recipe("", SETTINGS)
    return prepare_version(open_objects(path), "starflat", name, recipe, default_recipe())


def opened(path: Path, name: str = "v1") -> xr.Dataset:
    return xr.open_zarr(path / "starflat" / name, chunks=None, zarr_format=3).sel(filter="zr")


def test_a_version_holds_map_errors_and_what_it_was_made_of(store):
    one = opened(store)
    assert one["delta"].dims == ("ccd", "quadrant", "cell_y", "cell_x")
    assert one["delta"].shape == (16, 4, 3, 4)
    assert one["cell_y"].values.tolist() == [-0.5, 39.5, 79.5]
    done = np.isfinite(one["delta"].values)
    assert done[1].all()
    assert not done[3].any()
    assert (one["count"].values[done] > 0).all()
    assert (one["count"].values[~done] == 0).all()
    assert (one["error"].values[done] > 0).all()
    assert np.isfinite(one["zero_point"].values).sum() == NIGHT.dithers
    record = json.loads(str(one["provenance"].values))
    assert len(record["exposures"]) == NIGHT.dithers
    assert record["plane"] == "from the catalogue"
    assert record["stars"] == "stars/v1"


def test_the_plane_is_undetermined_without_a_catalogue(store):
    with_catalogue, without = opened(store), opened(store, "v2")
    assert np.isfinite(with_catalogue["slope_u"])
    assert with_catalogue["catalogue_stars"] > 1000
    for name in ("slope_u", "slope_v", "slope_u_error", "slope_v_error"):
        assert np.isnan(without[name])
    assert json.loads(str(without["provenance"].values))["plane"] == "undetermined"


def test_validation_says_that_the_map_helps(store):
    one = opened(store)
    assert 0.8 < one["half_sample"] < 1.2
    assert one["half_sample_before"] > one["half_sample"]
    before, after = (one[f"residual_{when}"].values for when in ("before", "after"))
    assert np.nanstd(after) < 0.5 * np.nanstd(before)
    assert 0.5 < one["bright_faint"] < 2
    bright = int(np.flatnonzero(np.isfinite(one["repeatability_after"].values))[0])
    assert one["repeatability_after"][bright] < 1.2 * one["repeatability_expected"][bright]
    assert (one["radius_difference"] < 1e-3).all()
    assert np.isfinite(one["ccd_residual"].values).sum() == 7
    joins = one["join_after"].values
    assert np.isfinite(joins).sum() > 2
    assert np.nanmax(np.abs(joins)) < 2e-3
    assert np.isnan(one["delta_colour"].values).all()


def test_the_schema_holds_and_wrong_documents_fail(store):
    document = json.loads((store / "starflat" / "v1" / "zarr.json").read_text())
    assert faults(document, "starflat") == []
    document["consolidated_metadata"]["metadata"]["delta"]["attributes"]["units"] = "1"
    assert any("delta" in line for line in faults(document, "starflat"))


def test_science_is_flat_for_stars_after_it(store, tmp_path):
    """The sign: where stars appear fainter, science is brighter by as much."""
    copy = Path(shutil.copytree(store, tmp_path / "applied.zarr"))
    for name, starflat in (("v3", "v1"), ("v4", "off")):
        recipe = read_recipe("", [f"science.starflat={starflat}", "science.rounding=0"])
        report = reduce(copy, ["science"], version=name, recipe=recipe)[0]
        assert all("no starflat/v1 of z" in reason for _, reason in report.refused)
    delta = ztfzarr.starflat_map(copy, "zr").sel(ccd=2).load()
    stored = [xr.open_zarr(copy / "science" / name, chunks=None, zarr_format=3) for name in ("v3", "v4")]
    rows = np.flatnonzero((stored[0]["filter"].values == "zr") & (stored[0]["present"].values[:, 1] == 1))
    assert rows.size
    corrected, before = (one["science"].isel(time=int(rows[0]), ccd=1).values for one in stored)
    np.testing.assert_allclose(corrected, before * 10 ** (0.4 * delta.values), rtol=1e-5)
    record = json.loads(str(stored[0]["provenance"].isel(time=int(rows[0]), ccd=1).values))
    assert record["masters"]["starflat"] == "starflat/v1/zr"
    lost = copy / "science" / "v3" / "science" / "c" / str(rows[0]) / "1/0/0/0"
    before = lost.read_bytes()
    lost.unlink()
    assert ran("repair", copy, "-q") == 0
    assert lost.read_bytes() == before


def test_stars_are_flat_once_the_map_is_taken_out(store, field):
    one = opened(store)
    table = table_of(field, np.arange(NIGHT.dithers))
    before = measurements_of(table, 10)
    pixels = ztfzarr.starflat_map(store, "zr").stack(rcid=("ccd", "quadrant")).transpose("rcid", "y", "x").values
    y, x = (np.clip(np.rint(v), 0, n - 1).astype(int) for v, n in zip((before.y, before.x), SHAPE, strict=True))
    delta = pixels[before.rcid, y, x]
    bright = (before.error < 0.003) & np.isfinite(delta) & ~field.is_outlier
    zero = field.zero[before.exposure] + NIGHT.extinction * before.slope
    off = before.magnitude - field.star_magnitude[before.star] - zero
    scatter = [np.std((off - sign * delta)[bright]) for sign in (0, 1, -1)]
    assert scatter[1] < 0.9 * scatter[0] < scatter[2]
    assert one["present"] == 1


def test_the_map_is_lazy_and_named_filters_are_refused(store):
    lazy = ztfzarr.starflat_map(store, "zr")
    assert lazy.chunks is not None
    assert lazy.dims == ("ccd", "quadrant", "y", "x")
    assert lazy.attrs["units"] == "mag"
    with pytest.raises(StoreError, match="no starflat/v1 of zg: make it with ztfzarr starflat"):
        ztfzarr.starflat_map(store, "zg")


def test_a_filter_is_written_once(store, field):
    version = version_of(store, "v1")
    with pytest.raises(StoreError, match="starflat/v1 has zr already: use another --version"):
        mark_starflat(version, "zr", {}, np.empty(0, np.int64))


def test_the_commands_know_starflats(store, tmp_path, capsys):
    assert ran("verify", store, "-q") == 0
    capsys.readouterr()
    assert ran("ls", store, "--json") == 0
    listed = json.loads(capsys.readouterr().out)["products"]
    mine = [row for row in listed if row["group"] == "starflat/v1"]
    assert [row["made"] for row in mine] == [1]
    assert "plane from the catalogue" in mine[0]["quality"]
    assert ran("info", store) == 0
    assert "starflat/v2  1 made" in capsys.readouterr().out
    assert ran("show", store, "starflat", "-o", tmp_path / "s.png", "-q") == 0
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    assert ran("show", store, "starflat", "--filter", "zi", "-o", tmp_path / "t.png") == 3
    assert ran("show", store, "starflat", "--ccd", 2, "-o", tmp_path / "t.png") == 2
    assert ran("report", store, "-o", tmp_path / "r.html", "-q") == 0
    assert "starflat/v2" in (tmp_path / "r.html").read_text()


def test_applying_follows_the_recipe_and_says_if_it_is_not_done(store, tmp_path, capsys, monkeypatch):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    prepare_version(open_objects(copy), "stars", "v1", None, default_recipe())
    asked = ("starflat", copy, "--version", "v1", "--set", "science.rounding=0.25", "--apply", "v6", "-q")

    def found(refused):
        report = Report("starflat/v1", there=1)
        report.refused += refused
        return lambda *args, **kwargs: report

    monkeypatch.setattr("ztfzarr.reduce.starflat.reduce_starflat", found([("starflat/v1 zi", "no stars")]))
    assert ran(*asked) == 1
    assert capsys.readouterr().err.splitlines() == [
        "science/v6 is not made, for what was refused: make it with ztfzarr science",
        "refused starflat/v1 zi: no stars",
    ]
    assert not (copy / "science" / "v6").exists()
    monkeypatch.setattr("ztfzarr.reduce.starflat.reduce_starflat", found([]))
    ran(*asked)
    recipe = prepare_version(open_objects(copy), "science", "v6", None, default_recipe()).recipe["science"]
    assert (recipe["starflat"], recipe["rounding"]) == ("v1", 0.25)


def test_damage_is_found(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    chunk = next(p for p in (copy / "starflat" / "v1" / "delta" / "c").rglob("*") if p.is_file())
    flip(chunk, chunk.stat().st_size // 2)
    assert ran("verify", copy, "-q") == 1


def test_drop_refuses_what_science_uses_and_then_drops(store, tmp_path):
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    prepare_version(
        open_objects(copy), "science", "v5", read_recipe("", ["science.starflat=v1"]), default_recipe()
    )
    assert ran("drop", copy, "starflat", "v1", "--yes") == 3
    assert ran("drop", copy, "starflat", "v2", "--yes") == 0
    assert not (copy / "starflat" / "v2").exists() or not (copy / "starflat" / "v2" / "zarr.json").exists()


def test_copies_are_equal(store, tmp_path):
    dest = open_objects(shutil.copytree(store, tmp_path / "dest.zarr"))
    drop(dest, "starflat", "v1")
    reports = {report.what: report for report in copy_products(open_objects(store), dest)}
    assert reports["starflat/v1"].copied == 1
    assert reports["starflat/v2"].there == 1
    assert not any(report.refused for report in reports.values())
    one, other = opened(store), opened(tmp_path / "dest.zarr")
    xr.testing.assert_equal(one, other)


def test_flags_speak_against_stars():
    recipe = read_recipe("")["starflat"]
    assert set(recipe["without"]) < set(FLAGS)
    assert "neighbour" not in recipe["without"]


def test_other_settings_under_a_name_are_refused(store):
    assert ran("starflat", store, "--set", "starflat.floor=0.01", "-q") == 2


def test_versions_that_begin_ten_pixels_from_joins_keep_their_bins(store):
    version = existing_version(open_objects(store), "starflat", "v1")
    assert _join_edges(version)[[0, 1, 2, -1]] == pytest.approx([-0.5, 3, 10, 1600])
    older = copy.deepcopy(version.document)
    for array in older["consolidated_metadata"]["metadata"].values():
        for axis, name in enumerate(array["dimension_names"]):
            if name == "join":
                array["shape"][axis] = array["chunk_grid"]["configuration"]["chunk_shape"][axis] = 11
    assert faults(older, "starflat") == []
    np.testing.assert_array_equal(_join_edges(replace(version, document=older)), np.geomspace(10, 1600, 12))
