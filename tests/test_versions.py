"""Choices and their record: periods, quality, staleness, levels of CCDs, measured noise, products by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import stores
import xarray as xr
import zarr
from test_products import CCDS, FIRST, SECOND, SHAPE, call, exposures, opened

import ztfzarr
from ztfzarr.errors import RecipeError
from ztfzarr.ingest.run import ingest
from ztfzarr.masters.mask import MASKS
from ztfzarr.masters.noise import measured_noise
from ztfzarr.masters.quality import overscan_quality
from ztfzarr.reduce import parts
from ztfzarr.reduce.listing import ProductNight, product_nights
from ztfzarr.simulate import simulate_night

EXACT = [f"--set={kind}.rounding=0" for kind in ("bias", "flat", "science")]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights of two CCDs; the second has no flats."""
    folder = tmp_path_factory.mktemp("two")
    simulate_night(folder, night=FIRST, ccds=CCDS, shape=SHAPE, bias=14, flats=3, science=3)
    simulate_night(folder, night=SECOND, ccds=CCDS, shape=SHAPE, bias=14, flats=0, science=3)
    return folder


@pytest.fixture(scope="module")
def store(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "night.zarr"
    assert not ingest(path, [nights / "raw"]).refused
    assert call("run", path, *EXACT, "-q") == 0
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


def raw_of(folder: Path, ccd: int | None = None, kind: str = "*") -> list[Path]:
    pattern = f"ztf_*_c{'*' if ccd is None else f'{ccd:02d}'}_{kind}.fits.fz"
    return sorted((folder / "raw").rglob(pattern))


def listed(store: Path, group: str, night: int) -> ProductNight:
    (found,) = [n for n in product_nights(store) if (n.group, n.night) == (group, night)]
    return found


# Periods


def test_a_master_of_a_month(copy: Path) -> None:
    settings = ["--version", "v2", "--set", "bias.period=month", *EXACT]
    assert call("bias", copy, *settings, "-q") == 0
    month = opened(copy, "bias/v2")
    assert month["present"].sum("ccd").values.tolist() == [2, 0]
    row = month.isel(night=0).sel(ccd=3)
    assert (int(row["first_night"]), int(row["last_night"]), int(row["inputs"])) == (FIRST, SECOND, 28)
    cube = ztfzarr.open_cube(copy)
    biases = cube.isel(time=(cube["imgtype"] == "bias").values).sel(ccd=[3])
    assert np.array_equal(row["bias"].values, ztfzarr.master_bias(biases)["bias"].values[0])
    assert int(row["count"].max()) == 8
    sciences = ["--set", "science.bias=v2", "--version", "v2", "--set", "science.rounding=0"]
    assert call("science", copy, *sciences, "-q") == 0
    used = opened(copy, "science/v2")
    objects = used.isel(time=(used["imgtype"] == "object").values)
    assert (objects["bias_night"].sel(ccd=list(CCDS)) == FIRST).all()


def test_a_range_of_nights(copy: Path) -> None:
    assert call("bias", copy, "--version", "v2", "--set", "bias.period=2020-08-02:2020-08-04", "-q") == 0
    assert opened(copy, "bias/v2")["present"].sum("ccd").values.tolist() == [0, 2]
    assert listed(copy, "bias/v2", SECOND).made == 2


# Quality


def test_quality_is_that_of_the_library(store: Path) -> None:
    bias, flat = opened(store, "bias/v1").sel(night=FIRST), opened(store, "flat/v1").sel(night=FIRST)
    dark = exposures(store, FIRST, "bias")
    strips = overscan_quality(dark["overscan"][10:]).mean("time").sel(ccd=list(CCDS))
    for name in ("mean", "rms"):
        np.testing.assert_allclose(bias[f"overscan_{name}"].sel(ccd=list(CCDS)), strips[name], rtol=1e-5)
    lit = exposures(store, FIRST, "flat")
    raw = xr.open_zarr(store / "raw", chunks=None, zarr_format=3).set_index(time="exposure")
    step = raw["zscale"].sel(time=lit["exposure"].values, ccd=list(CCDS)).isel(image=slice(0, 4)).values
    steps = xr.DataArray(
        (step**2 / 12).mean(-1), lit["gain"].sel(ccd=list(CCDS)).coords, ("time", "ccd", "quadrant")
    )
    measured = measured_noise(dark, lit, bias["bias"].sel(ccd=list(CCDS)), quantisation=steps)
    gain, noise = (v.sel(ccd=list(CCDS)) for v in (flat["gain"], bias["read_noise"]))
    np.testing.assert_allclose(gain, measured["gain"], rtol=1e-4)
    np.testing.assert_allclose(noise * gain, measured["read_noise"], rtol=1e-4)
    settling = bias["settling_level"].sel(ccd=list(CCDS))
    assert (np.abs(settling.isel(number=0)) > 3 * np.abs(settling.isel(number=9))).all()
    assert np.abs(settling.isel(number=slice(10, 14)).mean("number")).max() < 1e-4
    assert np.isnan(settling.isel(number=slice(14, None))).all()
    assert flat["led_frames"].sel(ccd=3).values.tolist() == [3] * 11
    assert ((flat["led_drift"] > 0) & (flat["led_drift"] < 0.1)).sel(ccd=list(CCDS)).all()


def test_sky_and_noise_of_science(store: Path) -> None:
    data = opened(store, "science/v1")
    one = data.isel(time=(data["imgtype"] == "object").values).isel(time=0).sel(ccd=3)
    for q in range(4):
        image = np.where(one["mask"].values[q] == 0, one["science"].values[q], np.nan)[::16]
        assert float(one["sky"][q]) == pytest.approx(np.nanmedian(image), abs=1e-3)
        steps = np.diff(image, axis=1)
        noise = 1.4826 * np.nanmedian(np.abs(steps - np.nanmedian(steps))) / np.sqrt(2)
        assert float(one["noise"][q]) == pytest.approx(noise, rel=1e-4)


def test_flagged_masters_are_taken_last_or_never(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = zarr.open_array(copy, path="bias/v1/flag", mode="r+")
    flags[...] = 0
    flags[1, 2, 1] = 1  # the second night's, CCD 3
    remake = ["--set", "science.rounding=0", "-q"]
    assert call("science", copy, "--version", "v2", *remake) == 0
    used = opened(copy, "science/v2")
    second = used.isel(time=((used["imgtype"] == "object") & (used["night"] == SECOND)).values)
    assert (second["bias_night"].sel(ccd=3) == FIRST).all()
    assert (second["bias_night"].sel(ccd=8) == SECOND).all()
    flags[0, 2, 0] = 2  # and the first night's
    assert call("science", copy, "--version", "v3", *remake) == 0
    used = opened(copy, "science/v3")
    second = used.isel(time=((used["imgtype"] == "object") & (used["night"] == SECOND)).values)
    assert (second["bias_night"].sel(ccd=3) == SECOND).all()
    assert (second["flag"].sel(ccd=3) & 8).all()
    assert not (second["flag"].sel(ccd=8) & 8).any()
    capsys.readouterr()
    assert call("science", copy, "--version", "v4", "--set", "science.flagged=never", *remake) == 1
    assert "no bias/v1 of CCD 3 within 7 days" in capsys.readouterr().err


def test_thresholds_set_the_flag(copy: Path) -> None:
    assert call("bias", copy, "--version", "v2", "--set", "bias.read_noise=1e-6", *EXACT, "-q") == 0
    one, other = opened(copy, "bias/v1"), opened(copy, "bias/v2")
    assert (other["flag"].sel(ccd=list(CCDS)) & 1).all()
    assert not (one["flag"].sel(ccd=list(CCDS)) & 1).all()
    assert listed(copy, "bias/v2", FIRST).flagged == 2
    assert other["flag"].attrs["flag_meanings"] == "read_noise structure"


# Late frames


def test_late_frames_make_masters_stale(copy: Path, nights: Path, tmp_path: Path) -> None:
    assert listed(copy, "bias/v1", FIRST).stale == 0
    simulate_night(tmp_path / "late", night=FIRST, ccds=(8,), shape=SHAPE, bias=15, flats=0, science=0)
    late = raw_of(tmp_path / "late", 8, "b")[-1]
    assert ingest(copy, [late]).ingested == 1
    before = opened(copy, "bias/v1")["bias"].values
    assert call("bias", copy, "-q") == 0
    assert np.array_equal(opened(copy, "bias/v1")["bias"].values, before, equal_nan=True)
    assert (listed(copy, "bias/v1", FIRST).stale, listed(copy, "bias/v1", SECOND).stale) == (1, 0)


def test_science_is_stale_when_its_own_night_gets_masters(nights: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.zarr"
    assert not ingest(path, raw_of(nights, 3, "[fo]") + raw_of(nights, 3, "b")[:14]).refused
    assert call("run", path, "-q") == 0
    assert listed(path, "science/v1", SECOND).stale == 0
    ingest(path, raw_of(nights, 3, "b"))
    assert call("run", path, "-q") == 0
    assert (listed(path, "science/v1", FIRST).stale, listed(path, "science/v1", SECOND).stale) == (0, 3)


# Levels of CCDs


def test_a_late_ccd_is_compared_with_the_frozen_reference(nights: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.zarr"
    assert not ingest(path, raw_of(nights, 3)).refused
    assert call("run", path, *EXACT, "-q") == 0
    first = opened(path, "flat/v1").sel(night=FIRST)
    assert (first["level"].sel(ccd=3) == 1).all()
    assert first["reference"].values.tolist() == [int(c == 3) for c in range(1, 17)]
    assert not ingest(path, raw_of(nights, 8)).refused
    assert call("run", path, "-q") == 0
    later = opened(path, "flat/v1").sel(night=FIRST)
    assert (later["level"].sel(ccd=3) == 1).all()
    assert np.array_equal(later["led_reference"].values, first["led_reference"].values)
    ratio = later["led_level"].sel(ccd=8) / later["led_level"].sel(ccd=3)
    assert float(later["level"].sel(ccd=8, filter="zi")) == pytest.approx(float(ratio[8:].mean()))


def test_a_missing_ccd_of_the_reference_is_refused(
    nights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gap.zarr"
    led9 = exposures_of_led(nights, 9)
    assert not ingest(path, [p for p in raw_of(nights) if not (p.name in led9 and "_c08_" in p.name)]).refused
    assert call("run", path, "-q") == 1
    message = capsys.readouterr().err
    assert f"refused flat/v1 {FIRST} CCD 8: no flats of LED 9" in message
    assert f"refused flat/v1 {FIRST}: no levels: flats of CCD 8 are missing" in message
    assert "no flat/v1 of CCD 3" in message
    assert call("run", path, "--version", "v2", "--set", "flat.ccds=[3]", "-q") == 1
    message = capsys.readouterr().err
    assert "no levels" not in message
    science = opened(path, "science/v2")
    assert int(science["present"].sel(ccd=3).sum()) == 6
    assert int(science["present"].sel(ccd=8).sum()) == 0
    settings = ["--version", "v3", "--set", "flat.without_leds=[9]"]
    assert call("run", path, *settings, "-q") == 0


def exposures_of_led(nights: Path, led: int) -> set[str]:
    data = ztfzarr.open_fits(nights / "raw")
    numbers = data["exposure"].values[data["led"].values == led].tolist()
    return {p.name for p in raw_of(nights, kind="f") if stores.exposure_of(p) in numbers}


# Other choices


def test_measured_noise_is_used_on_request(copy: Path) -> None:
    for version, noise in (("v2", "header"), ("v3", "measured")):
        settings = ["--version", version, "--set", f"science.noise={noise}", "--set", "science.rounding=0"]
        assert call("science", copy, *settings, "--with-variance", "-q") == 0
    header, measured = (opened(copy, f"science/{v}").sel(ccd=3) for v in ("v2", "v3"))
    assert np.array_equal(header["science"].values, measured["science"].values, equal_nan=True)
    flat = opened(copy, "flat/v1").sel(night=FIRST, ccd=3)
    rows = (header["imgtype"] == "object").values
    ratio = (measured["variance"] / header["variance"]).isel(time=rows).median(("time", "y", "x"))
    assert np.allclose(ratio, 1 / flat["gain_ratio"], rtol=0.05)
    lazy = ztfzarr.open_science(copy, version="v3")["variance"].sel(ccd=3)
    stored = measured["variance"].isel(time=rows).sortby("time")
    assert np.array_equal(lazy.values, stored.values, equal_nan=True)


@pytest.mark.parametrize("setting", ["on", "auto"])
def test_pocket_in_science_and_flats(tmp_path: Path, setting: str) -> None:
    """The pocket is corrected in flats and science, alike stored, computed and by the library; not in biases."""
    night = 20200801 if setting == "on" else 20191021  # auto: from 2019-10-22 on
    simulate_night(tmp_path, night=night, ccds=(6,), shape=(70, 96), bias=14, flats=3, science=3, pocket=True)
    path = tmp_path / "night.zarr"
    assert not ingest(path, [tmp_path / "raw"]).refused
    assert call("run", path, *EXACT, "-q") == 0
    assert call("run", path, "--version", "v2", "--set", f"pocket.correct={setting}", *EXACT, "-q") == 0
    plain, corrected = (opened(path, f"science/{v}").sel(ccd=[6]) for v in ("v1", "v2"))
    rows = (plain["imgtype"] == "object").values
    changed = np.nanmax(np.abs((corrected["science"] - plain["science"]).values[rows]))
    assert np.array_equal(
        opened(path, "bias/v1")["bias"].values, opened(path, "bias/v2")["bias"].values, equal_nan=True
    )
    if setting == "auto":
        assert changed == 0
        return
    assert changed > 1
    stored = corrected.isel(time=rows).sortby("time")
    lazy = ztfzarr.open_science(path, version="v2").sel(ccd=[6])
    for name in ("science", "mask"):
        assert np.array_equal(lazy[name].values, stored[name].values, equal_nan=True)
    part = {"quadrant": [2, 0], "y": slice(60, 10, -7), "x": [5, 90, 6]}
    assert np.array_equal(lazy["science"].isel(part).values, stored["science"].isel(part).values, equal_nan=True)
    bias, flat = (opened(path, f"{kind}/v2").isel(night=0).sel(ccd=[6]) for kind in ("bias", "flat"))
    sky = exposures_of(path, night, "object")
    expected = ztfzarr.science(sky, bias, flat, detrending={"pocket": "on"})
    assert np.array_equal(stored["science"].values, expected["science"].values, equal_nan=True)
    lamps = ztfzarr.master_flat(exposures_of(path, night, "flat"), bias, detrending={"pocket": "on"})
    np.testing.assert_allclose(flat["flat"].values, lamps["flat"].values, rtol=3e-7)


def exposures_of(store: Path, night: int, imgtype: str) -> xr.Dataset:
    cube = ztfzarr.open_cube(store)
    return cube.isel(time=((cube["imgtype"] == imgtype) & (cube["night"] == night)).values).sel(ccd=[6])


def test_variance_is_stored_on_request_only(store: Path) -> None:
    assert "variance" not in opened(store, "science/v1")
    assert opened(store, "science/v1")["mask"].attrs["flag_masks"] == list(MASKS.values())


def test_publish(copy: Path) -> None:
    biases, flats = exposures(copy, FIRST, "bias"), exposures(copy, FIRST, "flat")
    recipe = ztfzarr.read_recipe("", ["bias.skip=9", "bias.rounding=0", "flat.rounding=0", "science.rounding=0"])
    bias = ztfzarr.master_bias(biases, skip=9)
    assert ztfzarr.publish(bias, copy, "bias", version="v5", recipe=recipe) == 2
    made = opened(copy, "bias/v5").sel(night=FIRST, ccd=list(CCDS))
    assert np.array_equal(made["bias"].values, bias["bias"].values)
    assert json.loads(str(made["provenance"].values[0]))["published"] is True
    assert ztfzarr.publish(bias, copy, "bias", version="v5") == 0
    with pytest.raises(RecipeError, match=r"bias/v5 has bias\.skip 9, you asked 10"):
        ztfzarr.publish(bias, copy, "bias", version="v5", recipe=ztfzarr.read_recipe("", ["bias.rounding=0"]))
    flat = ztfzarr.master_flat(flats, bias)
    assert ztfzarr.publish(flat, copy, "flat", version="v5", recipe=recipe) == 6
    sky = exposures(copy, FIRST, "object").chunk(time=1, ccd=1)
    science = ztfzarr.science(sky, bias, flat)
    assert ztfzarr.publish(science, copy, "science", version="v5", recipe=recipe) == 6
    stored = opened(copy, "science/v5")
    rows = ((stored["imgtype"] == "object") & (stored["night"] == FIRST)).values
    stored = stored.isel(time=rows).sortby("time").sel(ccd=list(CCDS))
    for name in ("science", "mask"):
        assert np.array_equal(stored[name].values, science[name].values, equal_nan=True)
    with pytest.raises(ValueError, match="the store has no night 20200101"):
        ztfzarr.publish(bias.assign_coords(night=20200101), copy, "bias", version="v5")
    with pytest.raises(ValueError, match="the bias has no coordinate 'night'"):
        ztfzarr.publish(bias.drop_vars("night"), copy, "bias", version="v5")


def test_verify_checks_products(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", copy) == 0
    assert "entries of products: 0 faults" in capsys.readouterr().out
    row = int(np.flatnonzero(opened(copy, "science/v1")["present"].sel(ccd=8).values)[0])
    stores.flip(copy / "science/v1/mask/c" / str(row) / "7/0/0/0", 5)
    (copy / "bias/v1/count/c/1/2/0/0/0").unlink()
    exposure = int(opened(copy, "science/v1")["exposure"].values[row])
    assert call("verify", copy) == 1
    message = capsys.readouterr().err
    assert f"science/v1/mask: {exposure} CCD 8, quadrant 1, rows 0-69, columns 0-95: checksum does not" in message
    assert f"bias/v1/count: {SECOND} CCD 3: object bias/v1/count/c/1/2/0/0/0 is missing" in message
    assert call("verify", copy, "--ccds", "1-2") == 0
    assert call("verify", copy, "--night", str(FIRST), "--ccds", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["entries"] == 7


def test_listing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ls", store) == 0
    text = capsys.readouterr().out
    assert "read noise" in text
    assert call("ls", store, "--night", "2020-08-03", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [n["night"] for n in found["nights"]] == [SECOND]
    assert {p["group"]: (p["made"], p["missing"]) for p in found["products"]} == {
        "bias/v1": (2, 0),
        "science/v1": (6, 0),
    }
    assert call("info", store) == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if "science = xr.open_zarr" in line]
    names: dict = {"xr": xr}
    exec(line.strip(), names)
    assert names["science"].attrs["kind"] == "science"


def test_many_frames_are_combined_strip_by_strip(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that holds a few rows of the frames only gives the same bits."""
    monkeypatch.setattr(parts, "STACK", 4 * 96 * 7)
    assert call("bias", copy, "--version", "v2", *EXACT, "-q") == 0
    one, other = (opened(copy, f"bias/{v}") for v in ("v1", "v2"))
    for name in ("bias", "variance", "count"):
        assert np.array_equal(one[name].values, other[name].values, equal_nan=True)


def test_a_version_that_lacks_a_table_is_named(
    reduced_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those are that were made before there was the table."""
    copy = Path(shutil.copytree(reduced_store, tmp_path / "older.zarr"))
    path = copy / "bias" / "v1" / "zarr.json"
    document = json.loads(path.read_text())
    del document["consolidated_metadata"]["metadata"]["flag"]
    path.write_text(json.dumps(document))
    assert call("ls", copy) == 3
    assert capsys.readouterr().err == "ztfzarr: bias/v1 lacks flag: it was made by another version of ztfzarr\n"
    assert call("verify", copy, "-q") == 1
    assert "'flag' is a required property" in capsys.readouterr().err
