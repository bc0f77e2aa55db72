"""Numbers of quality against the simulation's truth, and flags that are raised where they should be."""

from __future__ import annotations

import dask
import made
import numpy as np
import pytest
import xarray as xr

from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.flat import master_flat
from ztfzarr.masters.noise import read_noise
from ztfzarr.masters.quality import (
    bias_quality,
    flat_difference,
    flat_frames,
    flat_quality,
    overscan_quality,
    rejected,
    science_quality,
    settling,
)
from ztfzarr.simulate import Camera, camera, conditions, light
from ztfzarr.steps.detrend import detrend
from ztfzarr.steps.overscan import overscan_flag, overscan_level, overscan_profile

SHAPE = (200, 160)
LAMPS = {2: "zg", 3: "zg"}


@pytest.fixture(scope="module")
def biases() -> tuple[Camera, xr.Dataset, xr.Dataset]:
    one = camera([2, 6], SHAPE, 1)
    data = made.exposed(one, made.planned("b", bias=20))
    return one, data, master_bias(data)


@pytest.fixture(scope="module")
def flats(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> tuple[xr.Dataset, xr.Dataset]:
    one, _, bias = biases
    data = made.exposed(one, [e for e in made.planned("f", flats=4) if e.led in LAMPS])
    return data, master_flat(data, bias, leds=LAMPS)


def meaning(flag: xr.DataArray) -> list[str]:
    """Names of the bits set in a scalar flag."""
    names = zip(flag.attrs["flag_meanings"].split(), flag.attrs["flag_masks"], strict=True)
    return [name for name, mask in names if int(flag) & mask]


def test_overscans_are_measured(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    one, data, _ = biases
    found = overscan_quality(data["overscan"])
    late = found.isel(time=slice(12, None))
    drift = np.array([c.drift_scale for c in [conditions(one, e, 2) for e in made.planned("b", bias=20)[12:]]])
    expected = one.bias_level[0] + drift * (one.drift[0] / [2, 3, 4]).sum(axis=-1)
    assert late["mean"].sel(ccd=2).values == pytest.approx(expected, abs=0.1)
    # The median of 20 columns has 1.2 times the noise of their mean.
    assert late["rms"].mean("time").values == pytest.approx(1.22 * one.read_noise / np.sqrt(20), rel=0.1)
    assert (found["flag"] == 0).all()
    assert found["step"].max() < 0.6
    assert (found["rows"] > 0.95).all()
    assert {found[name].attrs["units"] for name in ("mean", "rms", "step")} == {"DN"}


FAILURES = {
    "nan": (lambda strip: strip * np.nan, ["failed"]),
    "saturated": (lambda strip: strip * 0 + 65535, ["saturated"]),
    "half saturated": (lambda strip: strip + 65000 * (strip["y"] > 90), ["saturated", "step"]),
    "jump": (lambda strip: strip + 6 * (strip["y"] > 60), ["step"]),
    "late jump": (lambda strip: strip - 6 * (strip["y"] > 165), ["step"]),
    "a star's trail": (lambda strip: strip + 300 * ((strip["y"] > 60) & (strip["y"] < 70)), []),
    "steep drift": (lambda strip: strip + 20 * (strip["y"] / 200) ** 2, []),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_overscans_are_flagged(biases: tuple[Camera, xr.Dataset, xr.Dataset], name: str) -> None:
    change, expected = FAILURES[name]
    _, data, _ = biases
    strips = data["overscan"].isel(time=[12]).copy(deep=True)
    strips[0, 1, 2] = change(strips[0, 1, 2]).transpose("y", "x_overscan")
    flag = overscan_quality(strips)["flag"]
    assert meaning(flag[0, 1, 2]) == expected
    assert int((flag != 0).sum()) == bool(expected)


def test_limits_of_overscans_are_keywords(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    _, data, _ = biases
    jumped = data["overscan"] + xr.where(data["y"] > 60, 6, 0).astype(np.float32)
    fit = overscan_level(overscan_profile(jumped.assign_attrs(units="DN")))
    assert (overscan_flag(fit) == 4).all()
    assert (overscan_flag(fit, step=20.0) == 0).all()
    assert (overscan_flag(fit, step=20.0, highest=1.0) == 2).all()


def test_a_small_jump_shows_at_full_size() -> None:
    """Of 3080 rows; noise alone jumps by half a DN at the most."""
    rng = np.random.default_rng(1)
    strips = (100 + 1.6 * rng.standard_normal((4, 1, 3080, 30))).astype(np.float32)
    strips[1, :, 2500:] += 3
    labels = {"quadrant": [1, 2, 3, 4], "ccd": [1]}
    array = xr.DataArray(strips, dims=("quadrant", "ccd", "y", "x_overscan"), coords=labels, attrs={"units": "DN"})
    found = overscan_quality(array, columns=(25, 30))
    assert found["flag"].values.ravel().tolist() == [0, 4, 0, 0]
    assert float(found["step"][1, 0]) == pytest.approx(3, abs=0.7)
    assert found["step"].isel(quadrant=[0, 2, 3]).max() < 1


def test_master_bias_is_judged(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    one, data, bias = biases
    noise = read_noise(data)["read_noise"]
    nominal = made.truth_of(one, "read_noise").assign_attrs(units="DN")
    found = bias_quality(bias, noise, nominal)
    structure = one.bias_structure
    assert found["level"].values == pytest.approx(np.median(structure, axis=(2, 3)), abs=0.1)
    bands = np.median(structure.reshape(2, 4, 4, 50, 160), axis=(3, 4))
    assert found["row_range"].values == pytest.approx(np.ptp(bands, axis=2), abs=0.35)
    assert ((found["structure"] > 0.5) & (found["structure"] < 2)).all()
    assert (found["read_noise_ratio"] - 1 < 0.01).all()
    assert (found["flag"] == 0).all()
    off = (noise * xr.where(noise["quadrant"] == 2, 1.06, 1.0)).assign_attrs(units="DN")
    worse = bias_quality(bias, off, nominal)
    assert meaning(worse["flag"].sel(ccd=6, quadrant=2)) == ["read_noise"]
    assert int((worse["flag"] != 0).sum()) == 2
    assert meaning(bias_quality(bias, noise, nominal, structure=0.1)["flag"][0, 0]) == ["structure"]
    unknown = bias_quality(bias, noise.where(noise["ccd"] == 2), nominal)["flag"].sel(ccd=6)
    assert (unknown == 1).all()  # not known to be good
    with pytest.raises(ValueError, match="read noise is in 'DN', nominal in 'electron': expected the same"):
        bias_quality(bias, noise, nominal.assign_attrs(units="electron"))


def test_settling_is_followed(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    """The skip can be read off: level and shape fall as the simulation's do."""
    one, data, bias = biases
    found = settling(data, bias["bias"])
    assert found["number"].values.tolist() == list(range(20))
    level = one.settling_level * np.exp(-np.arange(20) / 1.5)[:, np.newaxis, np.newaxis]
    assert found["level"].values == pytest.approx(level, abs=0.6)  # frames drift by a fifth of 1 DN of themselves
    fall = found["shape"].mean(("ccd", "quadrant"))
    assert fall[0] > 3
    assert fall[3] / fall[0] == pytest.approx(np.exp(-3 / 2.5), abs=0.1)
    assert fall[12:].max() < 0.6
    assert found["offset"][0].min() > 0.5
    assert abs(found["offset"][12:]).max() < 0.1


def test_settling_counts_in_time(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    _, data, bias = biases
    found = settling(data.isel(time=slice(None, None, -1)), bias["bias"])
    assert found["number"].values.tolist() == list(range(20))[::-1]
    assert found["shape"].isel(time=-1).min() > 2


def test_master_flat_is_judged(
    biases: tuple[Camera, xr.Dataset, xr.Dataset], flats: tuple[xr.Dataset, xr.Dataset]
) -> None:
    one, _, _ = biases
    _, flat = flats
    found = flat_quality(flat).isel(filter=0)
    assert found["scatter"].values == pytest.approx(np.full((2, 4), 0.011), abs=0.004)  # 0.8 %, and smooth maps
    by_gain = 1 / one.gain / np.median(1 / one.gain, axis=1, keepdims=True)
    assert found["level"].values == pytest.approx(by_gain, rel=0.05)
    assert (found["flag"] == 0).all()
    assert (found["rejected"] < 1e-3).all()
    assert meaning(flat_quality(flat, scatter=0.001)["flag"][0, 0, 0]) == ["scatter"]
    worse = flat.assign(count=flat["count"].where(flat["y"] > 20, 2))
    assert meaning(flat_quality(worse)["flag"][0, 0, 0]) == ["rejected"]
    assert rejected(worse["count"]).values == pytest.approx(np.full((1, 2, 4), 21 / 200 * 6 / 8), abs=1e-3)


def test_flat_frames_drift_and_colour(
    biases: tuple[Camera, xr.Dataset, xr.Dataset], flats: tuple[xr.Dataset, xr.Dataset]
) -> None:
    one, _, bias = biases
    data, flat = flats
    exposures = [e for e in made.planned("f", flats=4) if e.led in LAMPS]
    found = flat_frames(data, bias["bias"], flat["flat"].sel(filter="zg"))
    lamp = np.array([conditions(one, e, 2).lamp for e in exposures]).reshape(2, 4)
    drift = (lamp / lamp.mean(axis=1, keepdims=True) - 1).ravel()
    assert found["drift"].values == pytest.approx(drift[:, None, None] + np.zeros((8, 2, 4)), abs=3e-4)
    of_led = {
        e.led: np.array([[np.median(light(one, e, c, q)) for q in range(1, 5)] for c in (2, 6)]) for e in exposures
    }
    relative = {led: v / v.mean(axis=1, keepdims=True) for led, v in of_led.items()}
    mean = (relative[2] + relative[3]) / 2
    for t, led in enumerate(data["led"].values):
        expected = relative[int(led)] / mean
        assert found["colour"][t].values == pytest.approx(expected, abs=2e-3)
    assert (found["flag"] == 0).all()
    assert "drift" in meaning(flat_frames(data, bias["bias"], flat["flat"][0], drift=1e-6)["flag"][0, 0, 0])


def test_flats_are_compared(flats: tuple[xr.Dataset, xr.Dataset]) -> None:
    flat = flats[1]["flat"]
    dust = flat.copy(deep=True)
    dust[0, 1, 2, 60:140, :85] *= 0.99
    same, other = flat_difference(flat, flat), flat_difference(dust, flat)
    assert (same["difference"] == 0).all()
    assert float(other["difference"][0, 1, 2]) == pytest.approx(0.01, abs=1e-4)
    assert meaning(other["flag"][0, 1, 2]) == ["changed"]
    assert int((other["flag"] != 0).sum()) == 1


def test_sky_and_noise_of_science(biases: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    one, _, bias = biases
    exposure = made.planned("o", science=1)
    data = made.exposed(one, exposure)
    counts = detrend(data) - bias["bias"]
    image = (counts / made.truth_of(one, "response").clip(0.01)).assign_attrs(units="DN")
    mask = (made.truth_of(one, "response") < 0.8).expand_dims(time=image["time"]).astype(np.uint16)
    found = science_quality(image, mask=mask)
    lit = [[np.median(light(one, exposure[0], c, q)) for q in range(1, 5)] for c in (2, 6)]
    assert found["sky"][0].values == pytest.approx(np.array(lit), rel=0.02)
    relative = 5.6 / one.gain
    noise = np.sqrt(lit * relative / one.gain + one.read_noise**2 * 1.05) / relative
    assert found["noise"][0].values == pytest.approx(noise, rel=0.05)
    assert (found["flag"] == 0).all()
    negative = science_quality((image - 400).assign_attrs(units="DN"))["flag"][0, 0, 0]
    assert meaning(negative) == ["negative"]
    assert meaning(science_quality((image * np.nan).assign_attrs(units="DN"))["flag"][0, 0, 0]) == ["no_sky"]


def test_lazy_alike(biases: tuple[Camera, xr.Dataset, xr.Dataset], flats: tuple[xr.Dataset, xr.Dataset]) -> None:
    _, dark, bias = biases
    lamp, flat = flats
    noise = read_noise(dark)["read_noise"]
    chunks = {"y": 70, "x": 50}
    lazy_dark, lazy_lamp = dark.chunk(chunks | {"time": 1}), lamp.chunk(chunks | {"time": 1})
    with dask.config.set(scheduler=made.tables_only):
        lazy = [
            overscan_quality(lazy_dark["overscan"]),
            bias_quality(bias.chunk(chunks), noise, noise),
            settling(lazy_dark, bias["bias"].chunk(chunks)),
            flat_quality(flat.chunk(chunks)),
            flat_frames(lazy_lamp, bias["bias"], flat["flat"][0]),
            flat_difference(flat["flat"].chunk(chunks), flat["flat"] * 1.0),
            science_quality(lazy_lamp["raw"]),
        ]
    eager = [
        overscan_quality(dark["overscan"]),
        bias_quality(bias, noise, noise),
        settling(dark, bias["bias"]),
        flat_quality(flat),
        flat_frames(lamp, bias["bias"], flat["flat"][0]),
        flat_difference(flat["flat"], flat["flat"] * 1.0),
        science_quality(lamp["raw"]),
    ]
    for one, other in zip(lazy, eager, strict=True):
        assert any(dask.is_dask_collection(v.data) for v in one.data_vars.values())
        xr.testing.assert_allclose(one.compute().drop_vars("led", errors="ignore"),
                                   other.drop_vars("led", errors="ignore"), rtol=1e-5)  # fmt: skip
        for name in one:
            assert one[name].attrs == other[name].attrs
            assert "long_name" in one[name].attrs
