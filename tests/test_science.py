"""Science and its mask from raw exposures and masters: against the oracle, by labels, lazy."""

from __future__ import annotations

import checks
import dask
import made
import numpy as np
import oracle
import pytest
import xarray as xr

import ztfzarr
from ztfzarr.geometry import CCDS
from ztfzarr.masters.mask import MASKS
from ztfzarr.simulate import camera

SHAPE = (80, 70)
LAMPS = {2: "zg", 7: "zr"}
COLUMNS = {"columns": (25, 30)}


@pytest.fixture(scope="module")
def night() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Exposures of two CCDs in two filters, mixed; master bias and flats."""
    one = camera([2, 6], SHAPE, 1)
    dark = made.exposed(one, made.planned("b", bias=14))
    lamps = made.exposed(one, [e for e in made.planned("f", flats=3) if e.led in LAMPS])
    sky = made.exposed(one, [e for e in made.planned("o", science=6) if e.filter in LAMPS.values()])
    bias = ztfzarr.master_bias(dark, detrending=COLUMNS)
    return sky, bias, ztfzarr.master_flat(lamps, bias, leds=LAMPS, detrending=COLUMNS)


def test_against_the_oracle(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    sky, bias, flat = night
    found = ztfzarr.science(sky, bias, flat, detrending=COLUMNS)
    assert found["science"].dims == ("time", "ccd", "quadrant", "y", "x")
    assert len(set(sky["filter"].values.tolist())) == 2
    for t, c, q in np.ndindex(found["science"].shape[:3]):
        raw, strip = (sky[name].values[t, c, q] for name in ("raw", "overscan"))
        counts = oracle.detrended(raw, strip, "2020-08-01", int(sky["ccd"][c]), q + 1, (25, 30))
        lamp = flat.sel(filter=str(sky["filter"].values[t]))
        dark, response = (v.values[c, q].astype(float) for v in (bias["bias"], lamp["flat"]))
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = (counts - dark) / response / float(lamp["level"][c])
        alive = response > 0.05
        image = found["science"].values[t, c, q]
        np.testing.assert_allclose(image[alive], expected[alive], rtol=1e-4, atol=1e-2)
        saturated = raw - oracle.level(strip, q + 1, (25, 30))[:, None] >= 55_000
        assert np.array_equal((found["mask"].values[t, c, q] & MASKS["saturated"]) != 0, saturated)


def test_what_is_lit_evenly_comes_out_even() -> None:
    one, lamp, exposure, _ = checks.evenly_lit()
    bias = checks.true_masters(one)
    flat = ztfzarr.master_flat(lamp, bias, leds=checks.GREEN)
    bias["count"] = xr.full_like(bias["bias"], 10, np.int16)
    ccds = ztfzarr.science(exposure, bias, flat)["science"].median(("time", "quadrant", "y", "x"))
    assert ccds["ccd"].values.tolist() == list(CCDS)
    assert np.abs(ccds / ccds.median() - 1).max() < 1e-3


def test_masters_pair_by_their_labels(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    sky, bias, flat = night
    expected = ztfzarr.science(sky, bias, flat)
    turned = {"quadrant": [3, 1, 4, 2], "ccd": [6, 2]}
    for one, other in ((bias.sel(turned), flat), (bias, flat.sel(turned)), (bias.sel(turned), flat.sel(turned))):
        xr.testing.assert_identical(ztfzarr.science(sky, one, other), expected)
    one_ccd = ztfzarr.science(sky.sel(ccd=[6]), bias, flat)
    xr.testing.assert_identical(one_ccd, expected.sel(ccd=[6]))


def test_what_is_missing_is_named(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    sky, bias, flat = night
    with pytest.raises(ValueError, match="no master flat of filter zr: found zg"):
        ztfzarr.science(sky, bias, flat.sel(filter=["zg"]))
    with pytest.raises(ValueError, match=r"the master bias lacks .*: expected every CCD of the exposures"):
        ztfzarr.science(sky, bias.sel(ccd=[2]), flat.assign(bad=xr.zeros_like(flat["count"], np.uint16)))


def test_a_quadrant_without_a_sound_overscan(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    sky, bias, flat = night
    strips = sky["overscan"].copy(deep=True)
    strips[1, 0, 2] = 60_000.0
    sound, found = (ztfzarr.science(s, bias, flat) for s in (sky, sky.assign(overscan=strips)))
    failed = found.isel(time=1, ccd=0, quadrant=2)
    assert np.isnan(failed["science"]).all()
    assert (failed["mask"].values & MASKS["no_calibration"]).all()
    others = np.ones(found["science"].shape[:3], bool)
    others[1, 0, 2] = False
    for name in ("science", "mask"):
        assert np.array_equal(found[name].values[others], sound[name].values[others], equal_nan=True)


def test_lazy_and_unchanged(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> None:
    sky, bias, flat = night
    before = [v.copy(deep=True) for v in night]
    expected = ztfzarr.science(sky, bias, flat)
    variance = ztfzarr.science_variance(sky, bias, flat)
    for v, copy in zip(night, before, strict=True):
        xr.testing.assert_identical(v, copy)
    with dask.config.set(scheduler=made.tables_only):
        lazy = ztfzarr.science(sky.chunk(time=1, ccd=1, y=50), bias, flat)
        lazy_variance = ztfzarr.science_variance(sky.chunk(time=1, ccd=1, y=50), bias, flat)
    assert dask.is_dask_collection(lazy["science"].data)
    assert dask.is_dask_collection(lazy_variance.data)
    xr.testing.assert_equal(lazy.compute(), expected)
    xr.testing.assert_equal(lazy_variance.compute(), variance)
