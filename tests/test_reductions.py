"""Master bias, flat and science against the oracle, at both epoch changes and on both sides of the overscan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracle
import pytest
import xarray as xr

import ztfzarr
from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.calibrate import calibrate
from ztfzarr.masters.flat import master_flat, relative_levels
from ztfzarr.masters.selection import number_in_run, require_frames, settled
from ztfzarr.simulate import simulate_night
from ztfzarr.steps.detrend import detrend, linear
from ztfzarr.steps.linearity import linearize
from ztfzarr.steps.overscan import overscan_level, overscan_profile, subtract_overscan

SHAPE = (90, 110)
CCDS = (6, 13)
NIGHTS = {20191022: "2019-10-22", 20191023: "2019-10-23", 20200427: "2020-04-27", 20200428: "2020-04-28"}
FLAT_NIGHTS = (20191023, 20200427)
COLUMNS = [(5, 25), (25, 30)]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, xr.Dataset]:
    """Nights on both sides of both epoch changes, straight from files, in memory."""
    folder: Path = tmp_path_factory.mktemp("epochs")
    opened = {}
    for night in NIGHTS:
        flats = 3 if night in FLAT_NIGHTS else 0
        simulate_night(folder / str(night), night=night, ccds=CCDS, shape=SHAPE, bias=14, flats=flats, science=3)
        opened[night] = ztfzarr.open_fits(folder / str(night) / "raw").sel(ccd=list(CCDS)).load()
    return opened


def of_type(night: xr.Dataset, imgtype: str) -> xr.Dataset:
    return night.isel(time=(night["imgtype"] == imgtype).values)


def channel(exposures: xr.Dataset, name: str, ccd: int) -> np.ndarray:
    """Header values of a CCD's quadrants."""
    return exposures[name].sel(ccd=ccd).median("time").values


def oracle_frames(exposures: xr.Dataset, ccd: int, columns: tuple[int, int]) -> np.ndarray:
    """Detrended frames of a CCD by the oracle, (time, quadrant, y, x)."""
    one = exposures.sel(ccd=ccd)
    days = np.datetime_as_string(one["time"].values, "D")
    return np.stack(
        [
            [oracle.detrended(one.raw.values[t, q], one.overscan.values[t, q], days[t], ccd, q + 1, columns)
             for q in range(4)]
            for t in range(one.sizes["time"])
        ]
    )  # fmt: skip


def oracle_bias(night: xr.Dataset, ccd: int, columns: tuple[int, int]) -> np.ndarray:
    biases = of_type(night, "bias").isel(time=slice(10, None))
    frames = oracle_frames(biases, ccd, columns)
    return oracle.master_bias(frames, channel(biases, "gain", ccd), channel(biases, "read_noise", ccd))


def oracle_flats(night: xr.Dataset, ccd: int, columns: tuple[int, int]) -> dict[int, tuple[np.ndarray, float]]:
    bias = oracle_bias(night, ccd, columns)
    made = {}
    for led in oracle.FILTER_OF_LED:
        flats = night.isel(time=(night["led"] == led).values)
        frames = oracle_frames(flats, ccd, columns)
        made[led] = oracle.led_flat(frames, bias, channel(flats, "gain", ccd), channel(flats, "read_noise", ccd))
    return made


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
@pytest.mark.parametrize("night", NIGHTS)
def test_detrended_frames(nights: dict[int, xr.Dataset], night: int, columns: tuple[int, int]) -> None:
    one = nights[night].isel(time=[0, 12, -1])
    level = overscan_level(overscan_profile(one["overscan"], columns=columns))["level"]
    ours = linear(subtract_overscan(one["raw"], level), one)
    for ccd in CCDS:
        expected = oracle_frames(one, ccd, columns)
        assert ours.sel(ccd=ccd).values == pytest.approx(expected, rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
@pytest.mark.parametrize("night", NIGHTS)
def test_master_bias(nights: dict[int, xr.Dataset], night: int, columns: tuple[int, int]) -> None:
    bias = master_bias(of_type(nights[night], "bias"), detrending={"columns": columns})
    for ccd in CCDS:
        expected = oracle_bias(nights[night], ccd, columns)
        assert np.abs(bias["bias"].sel(ccd=ccd).values - expected).max() < 1e-3


@pytest.mark.parametrize("columns", COLUMNS, ids=str)
@pytest.mark.parametrize("night", FLAT_NIGHTS)
def test_master_flat_and_science(nights: dict[int, xr.Dataset], night: int, columns: tuple[int, int]) -> None:
    data = nights[night]
    detrending: dict[str, Any] = {"columns": columns}
    bias = master_bias(of_type(data, "bias"), detrending=detrending)
    flat = master_flat(of_type(data, "flat"), bias, detrending=detrending)
    levels = relative_levels(flat["led_level"])
    lamps = {ccd: oracle_flats(data, ccd, columns) for ccd in CCDS}
    sky = of_type(data, "object")
    level = overscan_level(overscan_profile(sky["overscan"], columns=columns))["level"]
    plain = linear(subtract_overscan(sky["raw"], level), sky)
    for name in ("zg", "zr", "zi"):
        members = [led for led, f in oracle.FILTER_OF_LED.items() if f == name]
        r = {
            c: np.mean([lamps[c][m][1] / np.median([lamps[d][m][1] for d in CCDS]) for m in members]) for c in CCDS
        }
        exposure = plain.isel(time=(sky["filter"] == name).values)
        ours = calibrate(exposure, bias["bias"], flat["flat"].sel(filter=name), levels.sel(filter=name))
        for ccd in CCDS:
            expected_flat = np.mean([lamps[ccd][m][0] for m in members], axis=0)
            assert np.abs(flat["flat"].sel(filter=name, ccd=ccd).values - expected_flat).max() < 1e-5
            assert levels.sel(filter=name, ccd=ccd).item() == pytest.approx(r[ccd], rel=1e-6)
            frames = oracle_frames(sky.isel(time=(sky["filter"] == name).values), ccd, columns)
            expected = (frames - oracle_bias(data, ccd, columns)) / expected_flat / r[ccd]
            alive = np.broadcast_to(expected_flat > 0.05, expected.shape)  # elsewhere noise is divided by noise
            assert alive.mean() > 0.98
            assert ours.sel(ccd=ccd).values[alive] == pytest.approx(expected[alive], rel=1e-4, abs=1e-2)


def small_only(graph: Any, keys: Any, **_options: Any) -> Any:
    """A dask scheduler for tables of exposures; pixels must wait."""
    results = dask.get(graph, keys)
    assert sum(np.size(part) for part in dask.core.flatten(results)) < 1000, "pixels were computed"
    return results


CHUNKS = [{"time": 1, "ccd": 1}, {"time": 5, "y": 31, "x": 50, "ccd": 2}]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_lazy_and_chunked_alike(nights: dict[int, xr.Dataset], chunks: dict[str, int]) -> None:
    """Chunked input gives dask arrays, computes no pixel, and the same bits, whatever the chunks."""
    data = nights[20200427]
    lazy = data.chunk(chunks)
    bias = master_bias(of_type(data, "bias"))
    flat = master_flat(of_type(data, "flat"), bias)
    with dask.config.set(scheduler=small_only):
        lazy_bias = master_bias(of_type(lazy, "bias"))
        lazy_detrended = detrend(of_type(lazy, "object"))
        lazy_flat = master_flat(of_type(lazy, "flat"), bias)
    assert all(dask.is_dask_collection(v.data) for v in (lazy_bias["bias"], lazy_detrended, lazy_flat["flat"]))
    for name in ("bias", "variance", "count"):
        assert np.array_equal(lazy_bias[name].values, bias[name].values)
    for name in ("flat", "variance", "count", "led_level"):
        assert np.array_equal(lazy_flat[name].values, flat[name].values)
    assert np.array_equal(lazy_detrended.values, detrend(of_type(data, "object")).values)


def test_one_quadrant_alone_is_the_same(nights: dict[int, xr.Dataset]) -> None:
    biases = of_type(nights[20200427], "bias")
    whole = master_bias(biases)["bias"]
    alone = master_bias(biases.sel(ccd=13, quadrant=2))["bias"]
    assert np.array_equal(alone.values, whole.sel(ccd=13, quadrant=2).values)
    turned = master_bias(biases.sel(quadrant=[3, 1, 4, 2], ccd=[13, 6]))["bias"]
    assert np.array_equal(turned.sel(ccd=6, quadrant=4).values, whole.sel(ccd=6, quadrant=4).values)


def test_inputs_are_unchanged(nights: dict[int, xr.Dataset]) -> None:
    data = of_type(nights[20200427], "bias")
    before = data.copy(deep=True)
    master_bias(data)
    detrend(data)
    xr.testing.assert_identical(data, before)


def test_a_missing_ccd_is_an_error(nights: dict[int, xr.Dataset]) -> None:
    data = nights[20200427]
    bias = master_bias(of_type(data, "bias"))["bias"]
    with pytest.raises(ValueError, match=r"the master bias lacks ccd .*: expected every ccd of the exposures"):
        master_flat(of_type(data, "flat"), bias.to_dataset().sel(ccd=[6]))
    sky = detrend(of_type(data, "object"))
    flat = xr.ones_like(bias).assign_attrs(units="1")
    with pytest.raises(ValueError, match="exact"):
        calibrate(sky, bias.sel(ccd=[6]), flat, xr.ones_like(bias[:, 0, 0, 0]))
    with pytest.raises(ValueError, match="exact"):
        subtract_overscan(data["raw"], overscan_level(overscan_profile(data["overscan"].sel(ccd=[6])))["level"])


def test_units_are_checked(nights: dict[int, xr.Dataset]) -> None:
    data = nights[20200427]
    with pytest.raises(ValueError, match="raw is in 'electron', expected 'DN'"):
        linearize(data["raw"].assign_attrs(units="electron"), xr.Dataset())


REFUSALS = [
    ({"skip": 12}, r"after the first 12 of each run: expected at least 3 frames, but CCD 6 has 2, CCD 13 has 2"),
    ({"method": "mean"}, r"method 'mean': expected one of noise, sigma, median"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS, ids=["few frames", "method"])
def test_master_bias_refuses(nights: dict[int, xr.Dataset], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        master_bias(of_type(nights[20200427], "bias"), **options)


def test_master_flat_refuses_a_missing_led(nights: dict[int, xr.Dataset]) -> None:
    data = nights[20200427]
    flats = of_type(data, "flat")
    with pytest.raises(ValueError, match="no flats of LED 9"):
        master_flat(flats.isel(time=(flats["led"] != 9).values), data)


def test_biases_are_numbered_in_time_within_runs() -> None:
    start = np.datetime64("2020-08-01T01:00", "us")
    seconds = np.array([0, 30, 60, 700, 730, 2000])  # gaps of 640 s and more start new runs
    times = start + seconds.astype("timedelta64[s]")
    shuffled = np.array([3, 0, 5, 1, 4, 2])
    time = xr.DataArray(times[shuffled], dims="time")
    assert number_in_run(time).values.tolist() == [0, 0, 0, 1, 1, 2]
    assert settled(time, skip=1).tolist() == [False, False, False, True, True, True]


def test_no_frame_at_all_is_too_few() -> None:
    """As of a night of fewer biases than are left out at its start."""
    exposures = xr.Dataset({"present": (("time", "ccd"), np.ones((4, 2), np.int8))}, {"ccd": [3, 8]})
    message = "bias: expected at least 3 frames, but CCD 3 has 0, CCD 8 has 0"
    with pytest.raises(ValueError, match=message):
        require_frames(exposures, np.zeros(4, bool), 3, "bias")
    with pytest.raises(ValueError, match="bias: expected at least 3 frames, but CCD 8 has 0"):
        require_frames(exposures.sel(ccd=8), np.zeros(4, bool), 3, "bias")
