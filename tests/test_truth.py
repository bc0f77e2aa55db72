"""Masters, science and variance against what the simulation knows to be true."""

from __future__ import annotations

import checks
import made
import numpy as np
import pytest
import xarray as xr

from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.flat import master_flat
from ztfzarr.simulate import camera, conditions, readout

PROFILES = [((5, 25), 0.05), ((25, 30), 0.08)]


def test_noise_of_a_master_bias() -> None:
    checks.bias_noise()


@pytest.mark.parametrize(("columns", "limit"), PROFILES, ids=["[5, 25)", "[25, 30)"])
def test_rows_of_a_master_bias(columns: tuple[int, int], limit: float) -> None:
    checks.row_profile(columns, limit)


def test_cosmic_rays_in_flats() -> None:
    checks.struck_pixels()


def test_the_spread_of_a_stack_does_not_reject_them() -> None:
    """Of 5 frames none is further than 1.8 of the stack's own sigma from the mean: nothing is ever rejected."""
    assert checks.wrong_pixels("sigma") > 1e-4


def test_an_evenly_lit_focal_plane() -> None:
    checks.uniform_focal_plane()


def test_response_is_taken_out() -> None:
    checks.response()


def test_variance_planes() -> None:
    checks.variance_planes()


def struck(data: xr.Dataset, time: int, quadrant: int, value: float) -> xr.Dataset:
    """The exposures with one overscan all at a value."""
    strips = data["overscan"].copy(deep=True)
    strips[time, 0, quadrant - 1] = value
    return data.assign(overscan=strips)


@pytest.mark.parametrize("value", [65535.0, np.nan], ids=["saturated", "nan"])
def test_a_frame_without_overscan_is_left_out_of_a_bias(value: float) -> None:
    one = camera([6], (64, 48), 1)
    data = made.exposed(one, made.planned("b", bias=16))
    good = master_bias(data.isel(time=np.arange(16) != 12))
    found = master_bias(struck(data, 12, 3, value))
    np.testing.assert_array_equal(found["bias"].sel(quadrant=3), good["bias"].sel(quadrant=3))
    assert (found["count"].max(("y", "x")) == [[6, 6, 5, 6]]).all()


def test_a_jump_of_the_overscan_leaves_a_frame_out() -> None:
    one = camera([6], (200, 48), 1)
    data = made.exposed(one, made.planned("b", bias=14))
    strips = data["overscan"].copy(deep=True)
    strips[11, 0, 0, 120:] += 5.0
    assert master_bias(data.assign(overscan=strips))["count"].max(("y", "x")).values.tolist() == [[3, 4, 4, 4]]


@pytest.mark.parametrize("value", [65535.0, np.nan], ids=["saturated", "nan"])
def test_a_quadrant_without_overscan_leaves_the_ccd_s_flat_out(value: float) -> None:
    """The level of a CCD is that of four quadrants: of three it is another, by their gains."""
    one, data = checks.lamps()
    flats = data.isel(time=data["led"].values == 2)
    four = xr.concat([flats, flats.isel(time=[1])], "time")
    bias = checks.true_masters(one)
    good = master_flat(flats, bias, leds=checks.ONE_LED)
    found = master_flat(struck(four, 3, 2, value), bias, leds=checks.ONE_LED)
    np.testing.assert_array_equal(found["led_level"], good["led_level"])
    np.testing.assert_array_equal(found["flat"], good["flat"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("ccd", [1, 6, 16])
def test_master_bias_at_full_size(seed: int, ccd: int) -> None:
    """Noise and rows of a whole CCD, at both ranges of columns, settling and all."""
    one = camera([ccd], (3080, 768), seed)
    exposures = made.planned("b", bias=20, seed=seed)
    data = made.exposed(one, exposures)
    unsettled = np.mean([conditions(one, e, ccd).unsettled_shape for e in exposures[10:]])
    for columns, limit in PROFILES:
        master = master_bias(data, detrending={"columns": columns})["bias"].values[0]
        for q in range(4):
            shape = readout.settling_shape(unsettled * one.settling_shape[0, q], one.shape, q + 1)
            rest = (master[q] - shape - one.bias_structure[0, q])[:, one.bad[0, q] != 3].astype(float)
            assert np.ptp(rest.mean(axis=1)[:3050].reshape(-1, 50).mean(axis=1)) < limit
            assert rest.std() == pytest.approx(one.read_noise[0, q] / np.sqrt(10), rel=0.02)


@pytest.mark.slow
def test_cosmic_rays_in_flats_of_a_large_quadrant() -> None:
    one, data, lit = checks.struck_flats((1540, 1536))
    flat = master_flat(data, checks.true_masters(one), leds=checks.ONE_LED)["flat"].values[0, 0]
    typical = np.median(lit)
    sigma = np.sqrt((lit / one.gain[0][:, None, None] + one.read_noise[0][:, None, None] ** 2) / 5) / typical
    assert (np.abs(flat - lit / typical) > 6 * sigma).mean() < 1e-5
