"""``ztfzarr copy``: part of a store to another, on disk or in a bucket, as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from nights import ran
from peers import same_bits
from s3 import S3
from stores import contents, flip, shard

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.recipe import default_recipe, merged
from ztfzarr.simulate import simulate_night
from ztfzarr.store import template
from ztfzarr.store.copy_products import REFERENCE
from ztfzarr.store.entries import Entry, fill_entry, mark_entries, update_row
from ztfzarr.store.objects import open_objects
from ztfzarr.store.versions import prepare_version

SHAPE = (40, 56)
RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights of two CCDs with products made of noise: what is in them does not matter here. Never changed."""
    folder = tmp_path_factory.mktemp("nights")
    store = folder / "source.zarr"
    for night in (20200802, 20200801):  # rows are not in order of time
        simulate_night(folder / str(night), night=night, ccds=(2, 11), shape=SHAPE, bias=2, flats=0, science=1)
        assert not ingest(store, [folder / str(night)]).refused
    for kind in ("bias", "flat", "science"):
        version = prepare_version(open_objects(store), kind, "v1", None, default_recipe())
        for ccd in (1, 10):
            for row in (2, 5) if kind == "science" else (0, 1):
                place = (row, 1, ccd) if kind == "flat" else (row, ccd)
                fill_entry(version, place, made_pixels(version))
                tables = {"provenance": json.dumps({"made of": [kind, *place]})}
                if kind == "flat":
                    tables |= {"level": RNG.random(), "led_level": RNG.random(11)}
                mark_entries(version, [Entry(place, tables)])
    return store


def made_pixels(version: object) -> dict[str, np.ndarray]:
    pixels = version.product.pixels
    return {name: (RNG.random((4, *SHAPE)) * 100).astype(pixels[name].dtype) for name in pixels}


def products(store: Path) -> dict[tuple[str, str], np.ndarray]:
    """Every array of every product, by its group and name."""
    groups = [path.parent for path in store.glob("*/v*/zarr.json")]
    return {
        (group.relative_to(store).as_posix(), name): np.asarray(array[...])
        for group in groups
        for name, array in zarr.open_group(group, mode="r").arrays()
    }


def assert_same(one: object, other: object) -> None:
    ours, theirs = ztfzarr.open_cube(one), ztfzarr.open_cube(other)
    for name in theirs.variables:
        if theirs[name].dtype == np.float32:
            assert same_bits(ours[name].values, theirs[name].values), name
        else:
            np.testing.assert_array_equal(ours[name].values, theirs[name].values, name)


def test_all_of_a_store(source, tmp_path, capsys):
    copy = tmp_path / "copy.zarr"
    assert ran("copy", source, copy, "--products", "-q") == 0
    assert_same(copy, source)
    assert ran("verify", copy, "-q") == 0
    ours, theirs = products(copy), products(source)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, str(name))
    before = contents(copy)
    capsys.readouterr()
    assert ran("copy", source, copy, "--products") == 0
    assert capsys.readouterr().out.splitlines() == [
        "raw: copied 0 files (0 B); 12 were there already, 0 refused",
        "bias/v1: copied 0 files (0 B); 4 were there already, 0 refused",
        "flat/v1: copied 0 files (0 B); 4 were there already, 0 refused",
        "science/v1: copied 0 files (0 B); 4 were there already, 0 refused",
    ]
    assert contents(copy) == before


def test_objects_are_copied_as_they_are(source, tmp_path):
    """Byte for byte, though the rows are other ones: the second night of the source is the first here."""
    copy = tmp_path / "copy.zarr"
    assert ran("copy", source, copy, "--night", "2020-08-01", "--ccds", "11", "--products", "-q") == 0
    for name in ("raw", "overscan", "zscale", "zzero"):
        for row in range(3):
            assert shard(copy, name, row, 11).read_bytes() == shard(source, name, row + 3, 11).read_bytes()
    assert not (copy / "raw/raw/c/0/1").exists(), "CCD 2 was not asked for"
    cube, whole = ztfzarr.open_cube(copy), ztfzarr.open_cube(source)
    chosen = whole.isel(time=whole.night.values == 20200801)
    assert same_bits(cube.raw.sel(ccd=11).values, chosen.raw.sel(ccd=11).values)
    assert int(cube.present.sum()) == 3
    found = products(copy)
    assert found["bias/v1", "present"].tolist() == [[int(ccd == 11) for ccd in range(1, 17)]]
    level = products(source)["flat/v1", "level"]
    assert np.array_equal(found["flat/v1", "level"][0, 1, 10], level[1, 1, 10])
    assert np.array_equal(
        found["flat/v1", "led_level"][0, :, 10], products(source)["flat/v1", "led_level"][1, :, 10]
    )
    assert json.loads(found["science/v1", "provenance"][2, 10]) == {"made of": ["science", 5, 10]}


def test_nights_are_added_to_what_is_there(source, tmp_path):
    copy = tmp_path / "copy.zarr"
    for night in ("2020-08-01", "2020-08-02"):
        assert ran("copy", source, copy, "--night", night, "--products", "-q") == 0
    assert_same(copy, source)
    assert products(copy)["bias/v1", "night"].tolist() == [20200801, 20200802]
    assert ran("verify", copy, "-q") == 0


def test_between_disk_and_bucket(source, s3: S3, tmp_path):
    """Up, across, and down again."""
    up, across = s3.place(), s3.place()
    to_bucket = [part.replace("--storage", "--dest") for part in s3.arguments]
    assert ran("copy", source, up, "--products", "-q", *to_bucket) == 0
    assert ran("copy", up, across, "--products", "-q", *s3.arguments, *to_bucket) == 0
    assert ran("copy", across, tmp_path / "down.zarr", "--products", "-q", *s3.arguments) == 0
    assert_same(tmp_path / "down.zarr", source)
    theirs = products(source)
    for name, values in products(tmp_path / "down.zarr").items():
        np.testing.assert_array_equal(values, theirs[name], str(name))


def test_other_chunks_are_encoded_anew(source, tmp_path, monkeypatch):
    """A destination made with other chunks keeps them, and holds the same values."""
    monkeypatch.setattr(template, "CHUNK", {"y": 20, "x": 30})
    copy = tmp_path / "copy.zarr"
    assert ran("copy", source, copy, "-q") == 0
    assert zarr.open_array(copy / "raw/raw", mode="r").chunks == (1, 1, 1, 20, 28)
    assert_same(copy, source)
    assert ran("verify", copy, "-q") == 0


def test_what_is_damaged_in_the_source_is_named(source, tmp_path, capsys):
    harmed = Path(shutil.copytree(source, tmp_path / "harmed.zarr"))
    flip(shard(harmed, "raw", 0, 2), 100)
    shard(harmed, "zscale", 1, 11).unlink()
    assert ran("copy", harmed, tmp_path / "copy.zarr", "-q") == 1
    error = capsys.readouterr().err.splitlines()
    number = int(ztfzarr.open_cube(source).isel(time=3).exposure)
    assert len(error) == 2
    assert f"refused raw exposure {number}, CCD 2: raw/raw/c/0/1/0/0/0 is damaged in the source" in error[0]
    assert "raw/zscale/c/1/10/0/0 is missing in the source" in error[1]
    assert int(ztfzarr.open_cube(tmp_path / "copy.zarr").present.sum()) == 10
    assert ran("copy", source, tmp_path / "copy.zarr", "-q") == 0
    assert_same(tmp_path / "copy.zarr", source)


def test_a_version_of_another_recipe_is_refused(source, tmp_path, capsys):
    copy = tmp_path / "copy.zarr"
    assert ran("copy", source, copy, "-q") == 0
    other = merged(default_recipe(), {"bias": {"rounding": 0.5}})
    prepare_version(open_objects(copy), "bias", "v1", other, default_recipe())
    assert ran("copy", source, copy, "--products", "-q") == 1
    assert "refused bias/v1 bias/v1: " in capsys.readouterr().err
    assert products(copy)["science/v1", "present"].sum() == 4


def with_reference(store: Path, path: Path, ccds: dict[int, float]) -> Path:
    """A copy of a store whose flats of the second night are against those of some CCDs, DN."""
    copy = Path(shutil.copytree(store, path))
    version = prepare_version(open_objects(copy), "flat", "v1", None, default_recipe())
    levels = np.full(11, sum(ccds.values()) / len(ccds))
    reference = np.isin(np.arange(1, 17), list(ccds)).astype(np.int8)
    update_row(version, 1, REFERENCE, lambda there: {"led_reference": levels, "reference": reference})
    return copy


def test_flats_bring_the_whole_reference_of_their_levels(source, tmp_path):
    """Though one CCD of the two that it is of is copied; and the other later."""
    ours, copy = with_reference(source, tmp_path / "ours.zarr", {2: 900.0, 11: 1100.0}), tmp_path / "copy.zarr"
    for ccds in ("11", "2"):
        assert ran("copy", ours, copy, "--night", "2020-08-01", "--ccds", ccds, "--products", "-q") == 0
        found = products(copy)
        assert found["flat/v1", "reference"][0].tolist() == [int(ccd in (2, 11)) for ccd in range(1, 17)]
        assert found["flat/v1", "led_reference"][0].tolist() == [1000.0] * 11
    assert found["flat/v1", "present"].sum() == 2


def test_flats_against_another_reference_are_refused(source, tmp_path, capsys):
    """Those of the destination's night keep theirs; the rest is copied."""
    ours = with_reference(source, tmp_path / "ours.zarr", {2: 900.0, 11: 1100.0})
    theirs = tmp_path / "theirs.zarr"
    assert ran("copy", source, tmp_path / "part.zarr", "--ccds", "11", "--products", "-q") == 0
    theirs = with_reference(tmp_path / "part.zarr", theirs, {11: 1100.0})
    before = products(theirs)
    capsys.readouterr()
    assert ran("copy", ours, theirs, "--products", "-q") == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "refused flat/v1 night 20200801: levels against CCDs 2, 11, in the destination against" in error[0]
    found = products(theirs)
    for name in ("led_reference", "reference", "level", "led_level"):
        np.testing.assert_array_equal(found["flat/v1", name][1], before["flat/v1", name][1], name)
    assert found["flat/v1", "present"].sum(axis=(1, 2)).tolist() == [2, 1]
    assert found["bias/v1", "present"].sum() == 4


def test_another_file_in_its_place_is_refused(source, tmp_path, capsys):
    copy = tmp_path / "copy.zarr"
    simulate_night(tmp_path, night=20200801, ccds=(2,), shape=SHAPE, bias=2, flats=0, science=1, seed=1)
    assert not ingest(copy, [tmp_path / "raw"]).refused
    harmed = Path(shutil.copytree(source, tmp_path / "other.zarr"))
    table = zarr.open_array(harmed / "raw/source_sha256", mode="r+")
    table[3, 1] = "0" * 64
    assert ran("copy", harmed, copy, "--ccds", "2", "-q") == 1
    assert "the destination holds another file of this exposure and CCD" in capsys.readouterr().err


def test_a_store_of_other_quadrants_is_refused(source, tmp_path, capsys):
    simulate_night(tmp_path, ccds=(2,), shape=(32, 36), bias=1, flats=0, science=0)
    assert not ingest(tmp_path / "small.zarr", [tmp_path / "raw"]).refused
    assert ran("copy", source, tmp_path / "small.zarr", "-q") == 3
    assert "quadrants of 32 x 36 + 30 pixels, expected 40 x 56 + 30" in capsys.readouterr().err
