"""Versions of bias, flat and science in a store: made by the command line, read with plain xarray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfzarr
from ztfzarr.cli import main
from ztfzarr.ingest.run import ingest
from ztfzarr.masters.calibrations import nearest_master, period_of
from ztfzarr.masters.flat import relative_levels
from ztfzarr.reduce.calibrated import calibrated
from ztfzarr.schema import faults
from ztfzarr.simulate import simulate_night
from ztfzarr.store.objects import open_objects
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import find_version

SHAPE = (70, 96)
CCDS = (3, 8)
FIRST, SECOND = 20200801, 20200803


def call(*arguments: str | Path) -> int:
    """Run the command line; return its exit status."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights: the second has no flats."""
    folder = tmp_path_factory.mktemp("two")
    simulate_night(folder, night=FIRST, ccds=CCDS, shape=SHAPE, bias=14, flats=3, science=3)
    simulate_night(folder, night=SECOND, ccds=CCDS, shape=SHAPE, bias=14, flats=0, science=3)
    return folder


@pytest.fixture(scope="module")
def store(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all the products of both nights, unrounded."""
    path = tmp_path_factory.mktemp("store") / "night.zarr"
    assert not ingest(path, [nights / "raw"]).refused
    exact = [f"--set={kind}.rounding=0" for kind in ("bias", "flat", "science")]
    assert call("run", path, *exact, "--with-variance", "-q") == 0
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


def opened(store: Path, group: str) -> xr.Dataset:
    """Open a group with nothing of ours."""
    return xr.open_zarr(f"{store}/{group}", chunks=None, zarr_format=3)


def snapshot(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def exposures(store: Path, night: int, imgtype: str) -> xr.Dataset:
    cube = ztfzarr.open_cube(store)
    of_type = ((cube["imgtype"] == imgtype) & (cube["night"] == night)).values
    return cube.isel(time=of_type).sel(ccd=list(CCDS))


def test_masters_are_those_of_the_library(store: Path) -> None:
    bias, flat = opened(store, "bias/v1"), opened(store, "flat/v1")
    assert bias["night"].values.tolist() == [FIRST, SECOND]
    expected = ztfzarr.master_bias(exposures(store, FIRST, "bias"))
    made = bias.sel(night=FIRST, ccd=list(CCDS))
    for name in ("bias", "variance", "count"):
        assert np.array_equal(made[name].values, expected[name].values)
    lamps = ztfzarr.master_flat(exposures(store, FIRST, "flat"), expected)
    one = flat.sel(night=FIRST, ccd=list(CCDS))
    for name in ("flat", "variance"):
        # LEDs are added up in another order: the last bit may differ.
        assert one[name].values == pytest.approx(lamps[name].values, rel=3e-7)
    assert np.array_equal(one["count"].values, lamps["count"].values)
    assert one["level"].values == pytest.approx(relative_levels(lamps["led_level"]).values, rel=1e-12)
    assert np.isnan(flat["flat"].sel(night=SECOND)).all()
    assert np.isnan(bias["bias"].sel(ccd=1)).all()


def test_science_stored_is_science_computed(store: Path) -> None:
    stored = opened(store, "science/v1")
    stored = stored.isel(time=(stored["imgtype"] == "object").values).sortby("time")
    computed = ztfzarr.open_science(store)
    assert computed["exposure"].values.tolist() == stored["exposure"].values.tolist()
    for name in ("science", "mask", "variance"):
        ours = computed[name].sel(ccd=list(CCDS)).values
        assert np.array_equal(ours, stored[name].sel(ccd=list(CCDS)).values, equal_nan=True), name
    part = computed["science"][1:4, [7, 2], [3, 0], 60:10:-7, [5, 90, 6]]
    assert np.array_equal(
        part.values, stored["science"][1:4, [7, 2], [3, 0], 60:10:-7, [5, 90, 6]].values, equal_nan=True
    )
    assert np.isnan(computed["science"][0, 0].values).all()


def test_science_is_that_of_the_library(store: Path) -> None:
    """Both nights by the first night's flats, each by its own bias."""
    bias, flat = opened(store, "bias/v1"), opened(store, "flat/v1").sel(night=FIRST, ccd=list(CCDS))
    stored = opened(store, "science/v1")
    for night in (FIRST, SECOND):
        sky = exposures(store, night, "object")
        for i, exposure in enumerate(sky["exposure"].values):
            name = str(sky["filter"].values[i])
            master = bias.sel(night=night, ccd=list(CCDS))
            expected = ztfzarr.science(sky.isel(time=[i]), master, flat)
            made = stored.isel(time=(stored["exposure"] == exposure).values).sel(ccd=list(CCDS))
            for variable in ("science", "mask"):
                assert np.array_equal(made[variable].values, expected[variable].values, equal_nan=True), name
            variance = ztfzarr.science_variance(sky.isel(time=[i]), master, flat)
            assert np.array_equal(made["variance"].values, variance.values, equal_nan=True)


KINDS = ("bias", "flat", "science")
WRONG = [
    pytest.param(
        lambda d, k: arrays_of(d)[k].update(data_type="float64"), "data_type: 'float32' was expected", id="type"
    ),
    pytest.param(
        lambda d, k: arrays_of(d).pop("variance" if k != "science" else "mask"), "is a required", id="missing"
    ),
    pytest.param(lambda d, k: arrays_of(d)[k]["attributes"].update(units="e"), "was expected", id="units"),
    pytest.param(lambda d, k: d["attributes"].pop("recipe"), "'recipe' is a required property", id="recipe"),
    pytest.param(lambda d, k: arrays_of(d)[k]["dimension_names"].reverse(), "dimension_names", id="dimensions"),
    pytest.param(lambda d, k: arrays_of(d)["ccd"].update(shape=[15]), "16 was expected", id="ccds"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_schema(store: Path, kind: str) -> None:
    document = json.loads((store / kind / "v1" / "zarr.json").read_text())
    assert faults(document, kind) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("damage", "message"), WRONG)
def test_schema_refuses(store: Path, kind: str, damage: Callable[..., Any], message: str) -> None:
    document = json.loads((store / kind / "v1" / "zarr.json").read_text())
    damage(document, kind)
    assert any(message in line for line in faults(document, kind))


def test_a_failed_overscan_gives_no_science(store: Path) -> None:
    cube = ztfzarr.open_cube(store)
    cube = cube.isel(time=[int(np.flatnonzero(cube["imgtype"].values == "object")[0])])
    strips = cube["overscan"].load().copy()
    strips.loc[{"ccd": 8, "quadrant": 3}] = 60000.0
    objects = open_objects(store)
    recipe = find_version(objects, "science", "v1").recipe
    sound, failed = (
        calibrated(c, recipe, objects)["science"].sel(ccd=8) for c in (cube, cube.assign(overscan=strips))
    )
    assert np.isnan(failed.sel(quadrant=3)).all()
    rest = {"quadrant": [1, 2, 4]}
    assert np.array_equal(failed.sel(rest).values, sound.sel(rest).values, equal_nan=True)
    assert np.isfinite(sound.sel(quadrant=3)).mean() > 0.9


def test_provenance(store: Path) -> None:
    bias = json.loads(str(opened(store, "bias/v1")["provenance"].sel(night=FIRST, ccd=3).values))
    raw = exposures(store, FIRST, "bias")
    assert list(bias["exposures"]) == [str(e) for e in raw["exposure"].values[10:]]
    assert list(bias["exposures"].values()) == [str(s) for s in raw["source_sha256"].sel(ccd=3).values[10:]]
    assert list(bias["dropped"]) == [str(e) for e in raw["exposure"].values[:10]]
    science = opened(store, "science/v1")
    last = science.isel(time=int(np.argmax(science["time"].values))).sel(ccd=8)
    masters = json.loads(str(last["provenance"].values))["masters"]
    assert masters == {"bias": f"bias/v1/{SECOND}", "flat": f"flat/v1/{FIRST}"}


def test_again_changes_nothing(copy: Path) -> None:
    before = snapshot(copy)
    assert call("run", copy, "-q") == 0
    assert snapshot(copy) == before


def test_another_recipe_needs_another_version(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(copy)
    assert call("bias", copy, "--set", "overscan.columns=25:30") == 2
    message = capsys.readouterr().err
    assert "bias/v1 has bias.rounding 0, you asked 0.0625, overscan.columns [5, 25), you asked [25, 30)" in message
    assert snapshot(copy) == before
    assert call("bias", copy, "--version", "v2", "--set", "overscan.columns=25:30", "-q") == 0
    one, other = opened(copy, "bias/v1"), opened(copy, "bias/v2")
    assert other.attrs["recipe"]["overscan"]["columns"] == [25, 30]
    difference = (one["bias"] - other["bias"]).sel(ccd=list(CCDS))
    assert 0 < float(np.abs(difference).median()) < 1
    # Rounding is to multiples of 1/16 DN.
    assert np.array_equal(other["bias"].values * 16, np.rint(other["bias"].values * 16), equal_nan=True)


def test_compare_and_drop(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "overscan.columns=25:30", "--set", "bias.rounding=0"]
    assert call("bias", copy, "--version", "v2", *settings, "-q") == 0
    capsys.readouterr()
    assert call("compare", copy, "bias", "v1", "v2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["recipe"] == [{"setting": "overscan.columns", "v1": [5, 25], "v2": [25, 30]}]
    assert len(result["differences"]) == 2 * len(CCDS) * 4
    one, other = (
        opened(copy, f"bias/{v}")["bias"].sel(night=SECOND, ccd=8, quadrant=2).values for v in ("v1", "v2")
    )
    row = next(d for d in result["differences"] if (d["entry"], d["quadrant"]) == (f"{SECOND} CCD 8", 2))
    assert row["median"] == pytest.approx(np.median(other.astype(float) - one), abs=1e-9)
    assert call("compare", copy, "bias", "v1", "v2") == 0
    assert "overscan.columns: v1 [5, 25], v2 [25, 30]" in capsys.readouterr().out

    assert call("drop", copy, "bias", "v1", "--yes") == 3
    assert "flat/v1 is made with bias/v1: drop flat/v1 first" in capsys.readouterr().err
    assert call("drop", copy, "bias", "v2", "--yes") == 0
    assert not (copy / "bias" / "v2").exists()
    assert call("compare", copy, "bias", "v1", "v2") == 3


def test_failures_are_named_and_the_rest_is_done(
    copy: Path, nights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate_night(nights / "third", night=20200810, ccds=(3,), shape=SHAPE, bias=11, flats=0, science=1)
    simulate_night(nights / "third", night=20200901, ccds=(3,), shape=SHAPE, bias=13, flats=0, science=1)
    assert not ingest(copy, [nights / "third" / "raw"]).refused
    assert call("run", copy, "-q") == 1
    message = capsys.readouterr().err
    assert (
        "refused bias/v1 20200810 CCD 3: master bias after the first 10 of each run: expected at least 3"
        in message
    )
    assert "no flat/v1 of CCD 3, zg within 7 days, of the same epoch" in message
    bias = opened(copy, "bias/v1")
    assert bias["night"].values.tolist() == [FIRST, SECOND, 20200810, 20200901]
    assert np.isfinite(bias["bias"].sel(night=20200901, ccd=3)).all()
    assert np.isnan(bias["bias"].sel(night=20200810)).all()


def test_nothing_to_work_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", tmp_path / "none.zarr") == 3
    assert "no store with raw exposures" in capsys.readouterr().err


def test_masters_must_be_there(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("science", copy, "--version", "v7", "--set", "science.flat=v9") == 3
    assert "no flat/v9 in" in capsys.readouterr().err


NOON = {"validity": 7.0}
DAYS = [
    pytest.param("2020-08-01T08:00", 20200801, [20200801, 20200802], {}, 20200801, id="same night"),
    pytest.param("2020-08-01T19:40", 20200801, [20200730, 20200802], {}, 20200802, id="nearest in time"),
    pytest.param("2020-08-01T02:00", 20200801, [20200731, 20200802], {}, 20200731, id="nearest before"),
    pytest.param("2020-01-01T05:00", 20200101, [20191230, 20200108], {}, 20191230, id="across New Year"),
    pytest.param("2020-08-10T05:00", 20200810, [20200801], {}, None, id="out of validity"),
    pytest.param("2020-08-10T05:00", 20200810, [], {}, None, id="none at all"),
    pytest.param(
        "2019-10-23T05:00", 20191023, [20191022, 20191026], {"borders": [np.datetime64("2019-10-23")]}, 20191026,
        id="never across an epoch",
    ),
    pytest.param("2019-10-23T05:00", 20191023, [20191022, 20191026], {}, 20191022, id="but if allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("time", "night", "available", "options", "expected"), DAYS)
def test_nearest_master(
    time: str, night: int, available: list[int], options: dict[str, Any], expected: int | None
) -> None:
    spans = [(n, n) for n in available]
    found = nearest_master(np.datetime64(time, "us"), night, spans, **NOON, **options)
    assert (None if found is None else available[found]) == expected


def test_masters_of_periods_hold_their_nights() -> None:
    spans = [(20200701, 20200731), (20200803, 20200831), (20200802, 20200802)]
    time = np.datetime64("2020-08-02T19:00", "us")
    assert nearest_master(time, 20200802, spans, **NOON) == 2
    assert nearest_master(time, 20200802, spans[:2], **NOON) == 1
    assert nearest_master(np.datetime64("2020-08-20T05:00"), 20200820, spans, validity=0.0) == 1
    border = [np.datetime64("2020-08-15")]
    assert nearest_master(np.datetime64("2020-08-20T05:00"), 20200820, spans, **NOON, borders=border) is None


PERIODS = [
    ("night", 20200801, "20200801"),
    ("week", 20200801, "2020-W31"),
    ("week", 20210101, "2020-W53"),
    ("month", 20200801, "2020-08"),
    ("2020-07-30:2020-08-01", 20200801, "2020-07-30:2020-08-01"),
    ("2020-07-30:2020-08-01", 20200802, None),
    (["2020-07-01:2020-07-31", "2020-08-01:2020-08-31"], 20200802, "2020-08-01:2020-08-31"),
]


@pytest.mark.parametrize(("period", "night", "expected"), PERIODS)
def test_periods(period: str | list[str], night: int, expected: str | None) -> None:
    assert period_of(night, period) == expected
