"""Gain and read noise from pairs of frames, against the simulation's true ones."""

from __future__ import annotations

from pathlib import Path

import dask
import made
import numpy as np
import pytest
import xarray as xr

from ztfzarr.kernels.noise import pair_statistics
from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.noise import gain, header_ratio, measured_noise, read_noise
from ztfzarr.simulate import Camera, camera
from ztfzarr.store.objects import open_objects
from ztfzarr.store.quantisation import quantisation_variance

SHAPE = (308, 256)
LEDS = (2, 7, 11)


@pytest.fixture(scope="module")
def night() -> tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]:
    """Biases, flats of three LEDs, and the master bias."""
    one = camera([2, 6], SHAPE, 1)
    dark = made.exposed(one, made.planned("b", bias=18))
    lamp = made.exposed(one, [e for e in made.planned("f", flats=6) if e.led in LEDS])
    return one, dark, lamp, master_bias(dark)


def test_read_noise_is_the_true_one(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    one, dark, _, _ = night
    found = read_noise(dark)
    assert found["read_noise"].attrs["units"] == "DN"
    assert np.abs(found["read_noise"] / one.read_noise - 1).max() < 0.01
    assert (found["error"] / found["read_noise"] < 0.002).all()
    assert np.abs((found["read_noise"] - one.read_noise) / found["error"]).max() < 4


def test_gain_is_the_true_one_not_the_header_s(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    one, dark, lamp, bias = night
    found = gain(lamp, bias["bias"], read_noise(dark)["read_noise"], leds=LEDS)
    assert found["gain"].attrs["units"] == "electron DN-1"
    assert np.abs(found["gain"] / one.gain - 1).max() < 0.01
    assert np.abs(one.nominal_gain / one.gain - 1).min() > 0.04
    pulls = (found["led_gain"] - made.truth_of(one, "gain")) / found["led_error"]
    assert pulls.std() == pytest.approx(1, abs=0.4)  # 24 of them: the errors are what they say


def test_headers_are_compared(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    one, dark, lamp, bias = night
    found = measured_noise(dark, lamp, bias["bias"], leds=LEDS)
    ratio = header_ratio(found, dark)
    assert ratio["gain"].values == pytest.approx(one.gain / one.nominal_gain, rel=0.01)
    electrons = one.read_noise * one.gain / one.nominal_read_noise
    assert ratio["read_noise"].values == pytest.approx(electrons, rel=0.015)
    with pytest.raises(ValueError, match="read_noise is in 'DN', expected 'electron'"):
        header_ratio(found.assign(read_noise=read_noise(dark)["read_noise"]), dark)
    with pytest.raises(ValueError, match="exact"):
        header_ratio(found.sel(ccd=[6]), dark)


def test_measured_ones_can_stand_for_headers(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    """A master made with them has the variance they predict."""
    _, dark, lamp, bias = night
    found = measured_noise(dark, lamp, bias["bias"], leds=LEDS).astype(np.float32)
    times = dark["time"]
    with_measured = dark.assign({name: found[name].expand_dims(time=times) for name in ("gain", "read_noise")})
    variance = master_bias(with_measured)["variance"].median(("y", "x"))
    floor = (found["read_noise"] / found["gain"]) ** 2 / 8
    assert (variance / floor > 1).all()
    assert (variance / floor < 1.15).all()


@pytest.mark.parametrize("chunks", [{"time": 1, "ccd": 1}, {"time": 4, "y": 100, "x": 70}], ids=str)
def test_lazy_alike(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset], chunks: dict[str, int]) -> None:
    _, dark, lamp, bias = night
    expected = measured_noise(dark, lamp, bias["bias"], leds=LEDS)
    with dask.config.set(scheduler=made.tables_only):
        lazy = measured_noise(dark.chunk(chunks), lamp.chunk(chunks), bias["bias"], leds=LEDS)
    assert all(dask.is_dask_collection(v.data) for v in lazy.data_vars.values())
    xr.testing.assert_allclose(lazy.compute(), expected, rtol=1e-10)
    assert [v.attrs for v in lazy.data_vars.values()] == [v.attrs for v in expected.data_vars.values()]


def test_a_frame_without_overscan_is_skipped(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    one, dark, _, _ = night
    broken = dark.copy(deep=True)
    broken["overscan"][12, 0, 2] = np.nan
    found = read_noise(broken)["read_noise"]
    assert found.values == pytest.approx(one.read_noise, rel=0.01)
    assert (found == read_noise(dark)["read_noise"]).sum() == 7  # of 8 quadrants


def test_poor_columns_and_cosmic_rays_do_not_count(
    night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset],
) -> None:
    one, dark, lamp, bias = night
    rng = np.random.default_rng(1)
    struck = dark.copy(deep=True)
    pixels = struck["raw"].values
    hits = rng.integers(0, [*pixels.shape], (3000, 5)).T
    pixels[tuple(hits)] += rng.exponential(500, 3000).astype(np.float32)
    pixels[..., 100:103] *= rng.uniform(0.5, 2, (*pixels.shape[:-1], 3)).astype(np.float32)
    noise = read_noise(struck)["read_noise"]
    assert noise.values == pytest.approx(one.read_noise, rel=0.01)
    shaded = lamp.copy(deep=True)  # a pattern that all frames have, however strong, is no noise
    response = rng.uniform(0.9, 1.1, (2, 4, *SHAPE)).astype(np.float32)
    level = shaded["overscan"].median(("y", "x_overscan"))
    shaded["raw"] = level + (shaded["raw"] - level) * response
    shaded["raw"].attrs["units"] = "DN"
    found = gain(shaded, bias["bias"], noise, leds=LEDS)["gain"]
    # The pattern multiplies the noise as well: 1/gain grows by <response^2>/<response>.
    expected = one.gain * response.mean(axis=(2, 3)) / (response**2).mean(axis=(2, 3))
    assert found.values == pytest.approx(expected, rel=0.01)


def test_refusals(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    _, dark, lamp, bias = night
    noise = read_noise(dark)["read_noise"]
    with pytest.raises(ValueError, match="exposures of type bias: expected flat only"):
        gain(dark, bias["bias"], noise)
    with pytest.raises(ValueError, match=r"no flats of LED 3: found \[2, 7, 11\]"):
        gain(lamp, bias["bias"], noise)
    with pytest.raises(ValueError, match="expected at least 2 frames, but CCD 2 has 1, CCD 6 has 1"):
        read_noise(dark, skip=17)
    with pytest.raises(ValueError, match="read_noise is in 'electron', expected 'DN'"):
        gain(lamp, bias["bias"], noise.assign_attrs(units="electron"), leds=LEDS)


def test_statistics_of_a_pair() -> None:
    """Columns: plain noise; with outliers; without any pixel."""
    rng = np.random.default_rng(2)
    frames = rng.normal(0, 2, (2, 4000, 3)).astype(np.float32)
    frames += np.array([1000, 1020], np.float32)[:, None, None]
    frames[1, ::100, 1] += 300
    frames[0, :, 2] = np.nan
    zero = np.zeros((2, 4000), np.float32)
    count, levels, variance = np.zeros((1, 3)), np.zeros((1, 2, 3)), np.zeros((1, 3))
    pair_statistics(
        frames, zero, zero[:, 0], zero[:, 0], frames[0] * 0, True, 4.0, 1 / 0.99893, count, levels, variance
    )
    assert count[0, 0] > 3990
    assert 3950 < count[0, 1] <= 3960
    assert levels[0, :, 0] == pytest.approx([1000, 1020], abs=0.2)
    assert variance[0, :2] == pytest.approx([8, 8], rel=0.06)
    assert count[0, 2] == 0


def test_stored_gain_is_the_true_one_of_quantised_files(reduced_store: Path) -> None:
    """fpack's steps are a quarter of a flat row's scatter, which are 7 % of the photons' variance."""
    flat = xr.open_zarr(reduced_store / "flat" / "v1", chunks=None, zarr_format=3)
    found = flat["gain"].isel(night=0).sel(ccd=[2, 11]).values
    truth = camera([2, 11], (80, 64), 1).gain
    assert np.abs(found / truth - 1).max() < 0.03
    assert np.mean(found / truth) == pytest.approx(1, abs=0.01)


def test_quantisation_of_a_store_is_that_of_its_rows(reduced_store: Path) -> None:
    raw = xr.open_zarr(reduced_store / "raw", chunks=None, zarr_format=3)
    numbers = raw["exposure"].values[[30, 3, 12]]
    found = quantisation_variance(open_objects(reduced_store), numbers, 11, slice(0, 40))
    step = raw["zscale"].isel(time=[30, 3, 12]).sel(ccd=11).isel(image=slice(0, 4), y=slice(0, 40)).values
    np.testing.assert_allclose(found, (step**2 / 12).mean(axis=-1))


def test_quantisation_is_taken_from_both_frames(night: tuple[Camera, xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    """Uniform noise of two CCDs' own steps is added, and taken away again."""
    one, dark, lamp, bias = night
    step = xr.DataArray([60.0, 90.0], {"ccd": [2, 6]})
    rng = np.random.default_rng(1)
    extra = (rng.random(lamp["raw"].shape, np.float32) - 0.5) * step.values[:, None, None, None].astype(np.float32)
    noisy = lamp.assign(raw=lamp["raw"].copy(data=lamp["raw"].values + extra))
    noise = read_noise(dark)["read_noise"]
    known = (step**2 / 12).expand_dims(time=lamp["time"].values, quadrant=[1, 2, 3, 4])
    known = known.transpose("time", "ccd", "quadrant")
    plain = gain(noisy, bias["bias"], noise, leds=LEDS)["gain"]
    assert (plain / one.gain - 1).max() < -0.03
    found = gain(noisy, bias["bias"], noise, leds=LEDS, quantisation=known)["gain"]
    assert np.abs(found / one.gain - 1).max() < 0.01
