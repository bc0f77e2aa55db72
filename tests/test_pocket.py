"""Pocket effect as a step, together with the overscan, in frames; its trails and their fit; all on simulations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import dask
import made
import numpy as np
import pytest
import xarray as xr
from checks import changed

import ztfzarr
from ztfzarr import tables
from ztfzarr.geometry import QUADRANTS, in_read_order
from ztfzarr.kernels.pocket import Pocket, deferred
from ztfzarr.masters.frames import calibrated_frames, combine_frames
from ztfzarr.masters.pocket import frames_without_pocket, pocket_trail
from ztfzarr.masters.pocket_fit import fit_pocket
from ztfzarr.simulate import camera, simulate_night
from ztfzarr.steps.detrend import POCKET_DETREND, detrend, without_pocket
from ztfzarr.steps.linearity import linearity_coefficients
from ztfzarr.steps.overscan import overscan_level, overscan_profile
from ztfzarr.steps.pocket import (
    PARAMETERS,
    correct_pocket,
    last_read,
    overscan_level_with_pocket,
    pocket_applies,
    pocket_parameters,
    release_overscan,
)

CCD = 6
SHAPE = (90, 160)
RANGES = [(5, 25), (5, 10), (20, 30), (25, 30)]


def pocket_of(quadrant: int, ccd: int = CCD) -> Pocket:
    table = tables.pocket()
    return Pocket(*(float(table[name][ccd - 1, quadrant - 1]) for name in PARAMETERS))


def read(
    levels: list[float], rows: int, width: int, *, noise: float = 1.6, level: float = 100.0, ccd: int = CCD
) -> xr.Dataset:
    """Exposures of even light through the pockets of a CCD, by hand: linear amplifiers, one level everywhere."""
    rng = np.random.default_rng(1)
    raw = np.empty((len(levels), 1, 4, rows, width), np.float32)
    overscan = np.empty((len(levels), 1, 4, rows, 30), np.float32)
    for (t, _, q), sky in np.ndenumerate(np.broadcast_to(np.array(levels)[:, None, None], (len(levels), 1, 4))):
        image, trail = deferred(rng.poisson(np.full((rows, width), sky * 5.6)) / 5.6, 30, pocket_of(q + 1, ccd))
        for whole, part in ((raw, image), (overscan, trail)):
            whole[t, 0, q] = in_read_order(level + part + rng.normal(0, noise, part.shape), q + 1)
    time = np.datetime64("2020-08-01", "ns") + np.arange(len(levels)) * np.timedelta64(60, "s")
    labels: dict[str, Any] = {"time": time, "ccd": [ccd], "quadrant": list(QUADRANTS), "y": np.arange(rows)}
    dims = ("time", "ccd", "quadrant", "y")
    return xr.Dataset(
        {
            "raw": ((*dims, "x"), raw, {"units": "DN"}),
            "overscan": ((*dims, "x_overscan"), overscan, {"units": "DN"}),
        },
        labels | {"x": np.arange(width), "imgtype": ("time", ["object"] * len(levels))},
    )


def counts_like(*, quadrants: tuple[int, ...] = QUADRANTS, ccds: tuple[int, ...] = (CCD, 13)) -> xr.DataArray:
    values = np.random.default_rng(2).normal(200, 6, (2, len(ccds), len(quadrants), 12, 100)).astype(np.float32)
    time = np.array(["2020-08-01T03", "2020-08-01T04"], "datetime64[ns]")
    coords: dict[str, Any] = {"time": time, "ccd": list(ccds), "quadrant": list(quadrants)}
    dims = ("time", "ccd", "quadrant", "y", "x")
    return xr.DataArray(values, coords, dims, "counts", {"units": "DN"})


def parameters_of(counts: xr.DataArray) -> xr.Dataset:
    return pocket_parameters(pocket_applies(counts["time"]))


@pytest.fixture(scope="module")
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    """Flats, sky and a bias of CCD 6 through pockets, and the same without: the same light and noise."""
    plain = changed(camera([CCD], SHAPE, 1), trail=0.0)
    exposures = [made.planned(kind, bias=12, flats=1, science=3) for kind in "fob"]
    chosen = [e for group in exposures for e in group[:3]]
    return made.exposed(plain, chosen, pocket=True), made.exposed(plain, chosen)


# Which exposures, which parameters


def test_when_it_applies() -> None:
    time = xr.DataArray(
        np.array(["2019-10-21T23:59:59", "2019-10-22T00:00:00", "2020-08-01T05"], "datetime64[ns]"), dims="time"
    )
    assert pocket_applies(time, "off").values.tolist() == [False] * 3
    assert pocket_applies(time, "on").values.tolist() == [True] * 3
    assert pocket_applies(time).values.tolist() == [False, True, True]
    assert pocket_applies(time, "auto", np.datetime64("2020-01-01")).values.tolist() == [False, False, True]
    kinds = xr.DataArray(["flat", "bias", "object"], dims="time")
    assert pocket_applies(time, "on", imgtype=kinds).values.tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"pocket\.correct = 'maybe': expected one of off, auto, on"):
        pocket_applies(time, "maybe")


def test_parameters_are_the_table() -> None:
    time = xr.DataArray(np.array(["2019-10-21", "2019-10-22"], "datetime64[ns]"), dims="time")
    found = pocket_parameters(pocket_applies(time))
    assert found["cmax"].sel(ccd=6, quadrant=1).values.tolist() == [0, 1756.6362]
    assert found["nmax"].sel(ccd=16, quadrant=2).values.tolist() == [66405.425] * 2
    assert [found[name].attrs["units"] for name in PARAMETERS] == ["1", "DN", "1", "DN"]


# The step


def test_step_is_the_kernel_in_each_quadrants_direction() -> None:
    """A star's trail goes back into it: to lower columns in q1 and q4, to higher ones in q2 and q3."""
    true = np.full((5, 120), 150.0)
    true[:, 60:63] += 3000
    image = np.stack([in_read_order(deferred(in_read_order(true, q), 1, pocket_of(q))[0], q) for q in QUADRANTS])
    counts = xr.DataArray(
        image[None, None].astype(np.float32),
        {"time": np.array(["2020-08-01"], "datetime64[ns]"), "ccd": [CCD], "quadrant": list(QUADRANTS)},
        ("time", "ccd", "quadrant", "y", "x"),
        attrs={"units": "DN"},
    )
    out = correct_pocket(counts, parameters_of(counts))
    assert np.abs(counts.values[0, 0] - true).max() > 30
    assert np.abs(out.values[0, 0] - true).max() < 0.02


def test_nothing_is_done_where_it_does_not_apply() -> None:
    counts = counts_like()
    parameters = pocket_parameters(
        pocket_applies(counts["time"], imgtype=xr.DataArray(["bias", "flat"], dims="time"))
    )
    out = correct_pocket(counts, parameters)
    np.testing.assert_array_equal(out[0], counts[0])
    assert np.abs(out[1] - counts[1]).max() > 20


def test_step_keeps_its_contract() -> None:
    counts = counts_like()
    before = counts.copy(deep=True)
    out = correct_pocket(counts, parameters_of(counts))
    xr.testing.assert_identical(counts, before)
    assert out.dims == counts.dims
    assert out.attrs["units"] == "DN"
    assert out.dtype == np.float32
    turned = correct_pocket(counts.transpose("x", "quadrant", "time", "y", "ccd"), parameters_of(counts))
    np.testing.assert_array_equal(turned.transpose(*counts.dims), out)
    single = correct_pocket(counts.sel(ccd=13, quadrant=3), parameters_of(counts))
    np.testing.assert_array_equal(single, out.sel(ccd=13, quadrant=3))


def no_compute(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    raise AssertionError("computed")


@pytest.mark.parametrize("chunks", [{"time": 1, "ccd": 1}, {"y": 5, "quadrant": 2}])
def test_step_is_lazy(chunks: dict[str, int]) -> None:
    counts = counts_like()
    with dask.config.set(scheduler=no_compute):
        lazy = correct_pocket(counts.chunk(chunks), parameters_of(counts))
    assert lazy.chunks
    np.testing.assert_array_equal(lazy.compute(), correct_pocket(counts, parameters_of(counts)))


def test_step_refuses() -> None:
    counts = counts_like()
    parameters = parameters_of(counts)
    with pytest.raises(ValueError, match="counts is in 'electron', expected 'DN'"):
        correct_pocket(counts.assign_attrs(units="electron"), parameters)
    electrons = parameters.assign(cmax=parameters["cmax"].assign_attrs(units="electron"))
    with pytest.raises(ValueError, match="cmax is in 'electron', expected 'DN'"):
        correct_pocket(counts, electrons)
    with pytest.raises(ValueError, match="no pocket parameters for"):
        correct_pocket(counts, parameters.sel(ccd=[CCD]))
    with pytest.raises(ValueError, match="no labels along quadrant"):
        correct_pocket(counts.drop_vars("quadrant"), parameters)
    with pytest.raises(ValueError, match="exact"):
        correct_pocket(counts, parameters.isel(time=[0]))
    with pytest.raises(ValueError, match="rows of 5 pixels: expected 8"):
        correct_pocket(counts.isel(x=slice(0, 5)), parameters)


# Overscan


@pytest.mark.parametrize("sky", [100, 40_000])
def test_overscan_level(sky: float) -> None:
    """Within 0.1 DN in any columns from 5 on, in CCD 6; the plain level is off by up to 11 DN."""
    data = read([sky], 3080, 280)
    settings = linearity_coefficients(data["time"]), parameters_of(data["raw"])
    plain, freed = [], []
    for columns in RANGES:
        fits = [
            overscan_level(overscan_profile(data["overscan"], columns=columns)),
            overscan_level_with_pocket(data["raw"], data["overscan"], *settings, columns=columns),
        ]
        for found, fit in zip((plain, freed), fits, strict=True):
            found.append(np.abs(fit["level"].mean("y").values - 100).max())
    assert np.max(freed) < 0.1, freed
    assert plain[0] > 2.5
    assert plain[1] > 7


def test_the_last_columns_are_enough() -> None:
    data = read([20, 200], 8, 600)
    linear = (data["raw"] - 100).assign_attrs(units="DN")
    whole, tail = (
        release_overscan(data["overscan"], part, parameters_of(linear)) for part in (linear, last_read(linear))
    )
    assert np.abs(whole - tail).max() < 0.5  # by the noise of the sky of the last block
    assert np.abs(whole - tail).mean() < 0.01
    nine = last_read(linear, 9)
    for q, columns in zip(QUADRANTS, ((591, 600), (0, 9), (0, 9), (591, 600)), strict=True):
        np.testing.assert_array_equal(nine.sel(quadrant=q), linear.sel(quadrant=q).isel(x=slice(*columns)))
        np.testing.assert_array_equal(last_read(linear.sel(quadrant=q), 9), nine.sel(quadrant=q))


def test_overscan_level_is_lazy() -> None:
    data = read([100], 16, 300)
    settings = linearity_coefficients(data["time"]), parameters_of(data["raw"])
    chunked = data.chunk(time=1, quadrant=1)
    with dask.config.set(scheduler=no_compute):
        lazy = overscan_level_with_pocket(chunked["raw"], chunked["overscan"], *settings)
    xr.testing.assert_identical(
        lazy.compute(), overscan_level_with_pocket(data["raw"], data["overscan"], *settings)
    )


# Whole detrending, on the simulated camera


def test_simulated_pockets_begin_with_the_new_read_out() -> None:
    one = camera([CCD], SHAPE, 1)
    for night, same in ((20191021, True), (20191023, False)):
        exposures = made.planned("f", night=night, flats=1)[:1]
        raw = [made.exposed(one, exposures, pocket=pocket)["raw"].values for pocket in (False, True)]
        assert np.array_equal(*raw) == same


def test_nights_of_files_have_pockets_on_request(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"ccds": (CCD,), "shape": SHAPE, "bias": 0, "flats": 0, "science": 1}
    first = []
    for pocket in (False, True):
        simulate_night(tmp_path / str(pocket), pocket=pocket, **settings)
        trail = pocket_trail(ztfzarr.open_fits(tmp_path / str(pocket) / "raw").sel(ccd=[CCD]))
        first.append(trail["trail"].isel(column=0).values)
    assert (first[0] < 10).all()
    assert (first[1] > 40).all()


def test_detrended_is_as_without_a_pocket(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    with_pocket, without = pair
    truth = detrend(without)
    left = detrend(with_pocket, steps=POCKET_DETREND) - truth
    untreated = detrend(with_pocket) - truth
    light = (without["imgtype"] != "bias").values
    assert np.abs(untreated[light]).mean() > 2
    assert np.abs(left[light].median(["y", "x"])).max() < 0.15
    # What is left is noise that the pocket has mixed: fractions of the read noise.
    flats, sky = ((without["imgtype"] == kind).values for kind in ("flat", "object"))
    assert np.sqrt((left[sky] ** 2).median(["y", "x"])).max() < 1.0
    # Flats are structured: where a pixel is 1 % up, the pocket takes 0.4 % more of the 250 DN that it takes.
    lit = truth[flats].where(truth[flats] > 20e3)  # dead columns aside
    assert np.sqrt(((left[flats] / lit) ** 2).median()) < 5e-5
    assert np.abs((left[flats] / lit).mean(["time", "y"])).max() < 5e-4  # the first columns too
    assert np.abs((untreated[flats] / lit).mean(["time", "y"])).max() > 0.01


def test_biases_are_left_alone(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    biases = pair[0].isel(time=(pair[0]["imgtype"] == "bias").values)
    np.testing.assert_array_equal(detrend(biases, steps=POCKET_DETREND), detrend(biases))


def test_order_is_data(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    flats = pair[0].isel(time=slice(0, 1))
    off = detrend(flats, steps=(*POCKET_DETREND[:2], partial(without_pocket, setting="off")))
    np.testing.assert_array_equal(off, detrend(flats, steps=POCKET_DETREND[:2]))


def test_detrending_is_lazy(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    pixels = {name: pair[0][name].variable.chunk(time=1) for name in ("raw", "overscan")}
    pixels["raw"] = pixels["raw"].chunk(x=70)
    with dask.config.set(scheduler=no_compute):
        lazy = detrend(pair[0].assign(pixels), steps=POCKET_DETREND)
    np.testing.assert_array_equal(lazy.compute(), detrend(pair[0], steps=POCKET_DETREND))


def test_frames_combine_as_without_a_pocket(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    flats, plain = (data.isel(time=slice(0, 3)) for data in pair)
    parameters = pocket_parameters(pocket_applies(flats["time"]))
    frames = frames_without_pocket(flats, parameters, columns=(5, 25))
    combined = combine_frames(frames, relative=0.1)
    truth = combine_frames(calibrated_frames(plain, columns=(5, 25)), relative=0.1)
    assert np.abs(combined["mean"] / truth["mean"] - 1).median() < 1e-4
    assert np.abs(combine_frames(calibrated_frames(flats), relative=0.1)["mean"] - truth["mean"]).max() > 100
    with dask.config.set(scheduler=no_compute):
        lazy = combine_frames(frames_without_pocket(flats.chunk(time=1), parameters), relative=0.1)
    xr.testing.assert_identical(lazy.compute(), combined)


def test_frames_without_a_level_are_left_out(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    flats = pair[0].isel(time=slice(0, 3)).copy(deep=True)
    flats["overscan"][1, 0, 2] = np.nan
    frames = frames_without_pocket(flats, pocket_parameters(pocket_applies(flats["time"])))
    count = combine_frames(frames, relative=0.1)["count"].max(["y", "x"])
    assert count.values.tolist() == [[3, 3, 2, 3]]


# Trails and their fit


@pytest.fixture(scope="module")
def trails() -> xr.Dataset:
    return pocket_trail(read([30, 60, 120, 250, 500, 1000, 4000, 30_000], 800, 64))


def test_trail(trails: xr.Dataset) -> None:
    for quadrant in QUADRANTS:
        truth = deferred(np.full((1, 300), 250.0), 30, pocket_of(quadrant))[1][0]
        one = trails.isel(time=3, ccd=0).sel(quadrant=quadrant)
        pull = (one["trail"] - (truth - truth[25:].mean())) / one["error"]
        assert np.abs(pull[:25]).max() < 4.5
        assert float(one["level"]) == pytest.approx(250 - truth[25:].mean(), abs=1.0)
        assert float(one["charge"]) == pytest.approx((truth - truth[25:].mean()).sum(), rel=0.01)


def test_trails_are_lazy(trails: xr.Dataset) -> None:
    data = read([30, 60], 40, 64)
    with dask.config.set(scheduler=no_compute):
        lazy = pocket_trail(data.chunk(time=1, x=20))
    xr.testing.assert_allclose(lazy.compute(), pocket_trail(data))


def test_rows_with_stars_in_their_last_columns_do_not_count() -> None:
    data = read([200], 200, 64)
    starry = data.copy(deep=True)
    for q in QUADRANTS:
        in_read_order(starry["raw"].values[0, 0, q - 1], q)[::5, -4] += 500
        in_read_order(starry["overscan"].values[0, 0, q - 1], q)[::5, :3] += 100
    found, plain = pocket_trail(starry), pocket_trail(data)
    assert np.abs(found["trail"] - plain["trail"]).max() < 0.5
    assert np.abs(found["level"] - plain["level"]).max() < 0.5


def test_fit_recovers_the_pockets(trails: xr.Dataset) -> None:
    """alpha within 0.5 %, cmax 1 %, beta 1 %, nmax 10 %, and within four of their errors."""
    found = fit_pocket(trails)
    within = dict(zip(PARAMETERS, (0.005, 0.01, 0.01, 0.1), strict=True))
    for i, quadrant in enumerate(QUADRANTS):
        for name, true in zip(PARAMETERS, pocket_of(quadrant), strict=True):
            off = np.log(float(found[name][0, i]) / true)
            assert abs(off) < within[name], (quadrant, name)
            assert abs(off) < 4 * float(found["error"].sel(parameter=name)[0, i]), (quadrant, name)
    assert (found["chi2"] < 2).all()


def test_fitted_parameters_correct(trails: xr.Dataset) -> None:
    """What was fitted is what ``correct_pocket`` takes."""
    data = read([200], 6, 300, noise=0.0)
    fitted = fit_pocket(trails)
    linear = (data["raw"] - 100).assign_attrs(units="DN")
    table = parameters_of(linear)
    assert np.abs(correct_pocket(linear, fitted) - correct_pocket(linear, table)).max() < 0.5


def test_fit_needs_levels(trails: xr.Dataset) -> None:
    assert fit_pocket(trails.isel(time=slice(0, 3))).to_array().isnull().any()
    lazy = fit_pocket(trails.chunk(time=2))
    assert lazy["alpha"].chunks
