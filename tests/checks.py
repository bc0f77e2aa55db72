"""What a reduction must get right, against the oracle or the simulation's truth: each raises AssertionError.

They look functions up where users find them, so that a mutant put there is what they judge. Data are made once.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import made
import numpy as np
import oracle
import xarray as xr

from ztfzarr.geometry import CCDS, LED_FILTERS
from ztfzarr.masters import bias as biases
from ztfzarr.masters import calibrate as sciences
from ztfzarr.masters import flat as flats
from ztfzarr.simulate import Camera, camera, conditions, detector, light, readout
from ztfzarr.steps import detrend, linearity, overscan

NIGHTS = {20191022: "2019-10-22", 20191023: "2019-10-23", 20200427: "2020-04-27", 20200428: "2020-04-28"}
GREEN = {led: name for led, name in LED_FILTERS.items() if name == "zg"}
ONE_LED = {2: "zg"}


def changed(made_camera: Camera, **values: Any) -> Camera:
    """The camera with other truth; a number fills the array that was there."""
    full = {
        name: np.full_like(getattr(made_camera, name), value) if np.isscalar(value) else value
        for name, value in values.items()
    }
    return dataclasses.replace(made_camera, **full)


# Overscan and non-linearity, frame by frame


@cache
def frames_of_all_epochs() -> dict[int, xr.Dataset]:
    """A late bias and a flat of CCD 6 on each side of both changes of epoch."""
    one = camera([6], (90, 110), 1)
    return {
        night: made.exposed(
            one, made.planned("b", night=night, bias=12)[-1:] + made.planned("f", night=night, flats=1)[:1]
        )
        for night in NIGHTS
    }


def detrended_frames(columns: tuple[int, int], nights: tuple[int, ...] = tuple(NIGHTS)) -> None:
    """Detrended pixels are the oracle's: rows, columns and read side of the overscan, and the epoch."""
    for night in nights:
        data = frames_of_all_epochs()[night]
        level = overscan.overscan_level(overscan.overscan_profile(data["overscan"], columns=columns))["level"]
        counts = overscan.subtract_overscan(data["raw"], level)
        ours = linearity.linearize(counts, linearity.linearity_coefficients(data["time"])).values[:, 0]
        for t, q in np.ndindex(ours.shape[:2]):
            raw, strip = data["raw"].values[t, 0, q], data["overscan"].values[t, 0, q]
            expected = oracle.detrended(raw, strip, NIGHTS[night], 6, q + 1, columns)
            np.testing.assert_allclose(ours[t, q], expected, rtol=1e-6, atol=2e-3)


def order_of_steps() -> None:
    """Overscan first, then non-linearity, which knows nothing of the level of the amplifier."""
    data = frames_of_all_epochs()[20200427]
    ours = detrend.detrend(data, steps=detrend.DETREND).values[:, 0]
    for t, q in np.ndindex(ours.shape[:2]):
        raw, strip = data["raw"].values[t, 0, q], data["overscan"].values[t, 0, q]
        expected = oracle.detrended(raw, strip, "2020-04-27", 6, q + 1, (5, 25))
        np.testing.assert_allclose(ours[t, q], expected, rtol=1e-6, atol=2e-3)


def star_beside_the_overscan() -> None:
    """Rows into which a star's charge trails do not pull the level."""
    data = frames_of_all_epochs()[20200427]
    clean = overscan.overscan_level(overscan.overscan_profile(data["overscan"]))["level"]
    struck = data["overscan"].copy(deep=True)
    struck[..., 40:50, :] += 60.0
    level = overscan.overscan_level(overscan.overscan_profile(struck))["level"]
    assert np.abs(level - clean).max() < 0.5


# Master bias


@cache
def settled_biases(shape: tuple[int, int]) -> tuple[Camera, xr.Dataset, np.ndarray]:
    """Biases 10-19 of a run, and what their mean should be: structure and what is left of the settling."""
    one = camera([6], shape, 1)
    exposures = made.planned("b", bias=20)[10:]
    unsettled = np.mean([conditions(one, e, 6).unsettled_shape for e in exposures])
    shapes = [
        readout.settling_shape(unsettled * one.settling_shape[0, q], shape, q + 1) + one.bias_structure[0, q]
        for q in range(4)
    ]
    dark = one.dark[0][:, np.newaxis, :] * 8.2
    return one, made.exposed(one, exposures), np.stack(shapes) + dark


def bias_noise() -> None:
    """The noise of a master of 10 frames is that of their mean."""
    one, data, expected = settled_biases((3080, 256))
    residual = biases.master_bias(data, skip=0)["bias"].values[0] - expected
    good = one.bad[0] != 3  # a hot column has the noise of its dark current
    for q in range(4):
        noise = residual[q][:, good[q]].std(dtype=float)
        assert abs(noise / (one.read_noise[0, q] / np.sqrt(10)) - 1) < 0.02, f"quadrant {q + 1}: {noise:.4f} DN"


def row_profile(columns: tuple[int, int], limit: float) -> None:
    """Rows come out level: mean of 50 rows of the residual, peak to peak."""
    one, data, expected = settled_biases((3080, 256))
    master = biases.master_bias(data, skip=0, detrending={"columns": columns})["bias"].values[0]
    for q in range(4):
        good = one.bad[0, q] != 3
        rows = (master[q] - expected[q])[:3050, good].mean(axis=1).reshape(-1, 50).mean(axis=1)
        assert np.ptp(rows) < limit, f"quadrant {q + 1}: {np.ptp(rows):.3f} DN"


def reading_order() -> None:
    """The biases left out are the first in time, in whatever order the exposures come."""
    one = camera([6], (64, 48), 1)
    data = made.exposed(one, made.planned("b", bias=14))
    expected = biases.master_bias(data)["bias"].values
    shuffled = data.isel(time=np.random.default_rng(1).permutation(14))
    np.testing.assert_allclose(biases.master_bias(shuffled)["bias"].values, expected, atol=1e-4)


# Master flats


@cache
def struck_flats(shape: tuple[int, int] = (616, 512)) -> tuple[Camera, xr.Dataset, np.ndarray]:
    """Five flats of a LED with strong cosmic rays, and their mean light in DN of each amplifier."""
    one = changed(camera([6], shape, 1), dark=0, glow=0)
    exposures = [e for e in made.planned("f", flats=5) if e.led == 2]
    strength = readout.TRACK_CHARGE
    try:
        readout.TRACK_CHARGE = 10 * strength  # type: ignore[misc]
        data = made.exposed(one, exposures)
    finally:
        readout.TRACK_CHARGE = strength  # type: ignore[misc]
    lit = np.mean([[light(one, e, 6, q) for q in range(1, 5)] for e in exposures], axis=0) * one.response[0]
    return one, data, lit


def true_bias(one: Camera) -> xr.DataArray:
    return made.truth_of(one, "bias_structure").assign_attrs(units="DN")


def true_masters(one: Camera) -> xr.Dataset:
    return true_bias(one).to_dataset(name="bias")


def wrong_pixels(method: str = "noise") -> float:
    """Share of the pixels of a LED's flat that are more than 6 sigma of their photon noise off."""
    one, data, lit = struck_flats()
    flat = flats.master_flat(data, true_masters(one), leds=ONE_LED, method=method)["flat"].values[0, 0]
    typical = np.median(lit)
    sigma = np.sqrt((lit / one.gain[0][:, None, None] + one.read_noise[0][:, None, None] ** 2) / 5) / typical
    return float((np.abs(flat - lit / typical) > 6 * sigma).mean())


def struck_pixels() -> None:
    """Cosmic rays do not get into flats."""
    assert wrong_pixels() < 1e-5


@cache
def lamps() -> tuple[Camera, xr.Dataset]:
    """Three flats of each LED of zg, small and square."""
    one = camera([6], (64, 64), 1)
    return one, made.exposed(one, [e for e in made.planned("f", flats=3) if e.led in GREEN])


def oracle_leds(data: xr.Dataset, bias: np.ndarray) -> dict[int, np.ndarray]:
    """Normalised flats of the LEDs of a single CCD, by the oracle."""
    made_flats = {}
    for led in sorted(set(data["led"].values.tolist())):
        one = data.isel(time=data["led"].values == led, ccd=0)
        frames = np.array(
            [
                [oracle.detrended(raw, strip, "2020-08-01", 6, q + 1, (5, 25))
                 for q, (raw, strip) in enumerate(zip(image, strips, strict=True))]
                for image, strips in zip(one["raw"].values, one["overscan"].values, strict=True)
            ]
        )  # fmt: skip
        made_flats[led] = oracle.led_flat(frames, bias, one["gain"].values[0], one["read_noise"].values[0])[0]
    return made_flats


def led_weights() -> None:
    """LEDs count in the flat of their filter as they are told to."""
    one, data = lamps()
    weights = {2: 5.0, 4: 0.5}
    flat = flats.master_flat(data, true_masters(one), leds=GREEN, weights=weights)["flat"].values[0, 0]
    single = oracle_leds(data, one.bias_structure[0])
    share = [weights.get(led, 1.0) for led in single]
    expected = np.average(list(single.values()), axis=0, weights=share)
    assert np.abs(flat - expected).max() < 1e-5


def bias_before_scaling() -> None:
    """Frames are scaled to a common level without their bias: a strong one, frames of very different levels."""
    one, data = lamps()
    pattern = np.linspace(0, 3000, 64 * 64 * 4, dtype=np.float32).reshape(4, 64, 64)
    bias = xr.zeros_like(true_bias(one)).assign_attrs(units="DN") + pattern
    dim = data.isel(time=data["led"].values == 2)
    dim["raw"] = dim["raw"] * xr.DataArray([0.3, 0.6, 1.0], dims="time").astype(np.float32)
    dim["raw"].attrs["units"] = "DN"
    flat = flats.master_flat(dim, bias.assign_attrs(units="DN").to_dataset(name="bias"), leds=ONE_LED)[
        "flat"
    ].values[0, 0]
    assert np.abs(flat - oracle_leds(dim, pattern)[2]).max() < 1e-5


# Science


def level_camera(shape: tuple[int, int], ccds: tuple[int, ...]) -> Camera:
    """A camera lit evenly, but for the colours of lights and CCDs, without dark current and glow."""
    return changed(camera(ccds, shape, 1), illumination=0, dark=0, glow=0)


@cache
def evenly_lit() -> tuple[Camera, xr.Dataset, xr.Dataset, np.ndarray]:
    """All 16 CCDs: flats of the LEDs of zg, and one exposure of 2000 DN everywhere."""
    one = level_camera((48, 40), CCDS)
    lamp = made.exposed(one, [e for e in made.planned("f", flats=3) if e.led in GREEN])
    exposure = made.planned("o", science=1)
    sky = np.full((60, 60), 2000, np.float32)
    return one, lamp, made.exposed(one, exposure, sky=sky), sky


def uniform_focal_plane() -> None:
    """What is lit evenly comes out even across CCDs of different response, under LEDs of different colour."""
    one, lamp, exposure, _ = evenly_lit()
    bias = true_bias(one)
    flat = flats.master_flat(lamp, true_masters(one), leds=GREEN)
    level = flat["level"].sel(filter="zg")
    image = sciences.calibrate(detrend.detrend(exposure), bias, flat["flat"].sel(filter="zg"), level)
    ccds = image.median(("time", "quadrant", "y", "x"))
    assert np.ptp(one.throughput[0]) > 0.05  # LEDs do differ from CCD to CCD
    assert np.abs(ccds / ccds.median() - 1).max() < 1e-3


def response() -> None:
    """The response of pixels, rows and columns is taken out: science is the light, within its noise."""
    one = level_camera((64, 64), (6,))
    lamp = made.exposed(one, [e for e in made.planned("f", flats=3) if e.led in GREEN])
    sky = np.full((64, 64), 20_000, np.float32)
    exposure = made.exposed(one, made.planned("o", science=1), sky=sky)
    bias = true_bias(one)
    flat = flats.master_flat(lamp, true_masters(one), leds=GREEN)["flat"].sel(filter="zg")
    image = sciences.calibrate(detrend.detrend(exposure), bias, flat, xr.ones_like(flat[:, 0, 0, 0])).values[0, 0]
    alive = one.bad[0][:, np.newaxis, :] == 0
    rest = np.where(alive, image / np.median(image) - 1, 0)
    assert rest.std() < 1.1 / np.sqrt(20_000 * 5.3)


def labels() -> None:
    """Quadrants pair by their labels, or not at all."""
    one = level_camera((64, 64), (6,))
    exposure = made.exposed(one, made.planned("o", science=1))
    counts, bias = detrend.detrend(exposure), true_bias(one)
    flat = made.truth_of(one, "response").assign_attrs(units="1").clip(0.1)
    level = xr.ones_like(flat[:, 0, 0, 0])
    expected = sciences.calibrate(counts, bias, flat, level)
    turned = [3, 1, 4, 2]
    try:
        found = sciences.calibrate(counts, bias.sel(quadrant=turned), flat.sel(quadrant=turned), level)
    except ValueError:
        return
    np.testing.assert_array_equal(found.sel(quadrant=expected["quadrant"]).values, expected.values)


# Variance


@cache
def realisations(count: int = 50, shape: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """The same light seen again and again: biases, flats and one exposure of it, all with noise of their own."""
    one = level_camera(shape, (6,))
    one = changed(one, nominal_gain=one.gain, nominal_read_noise=one.read_noise * one.gain)
    sky = np.full(shape, 200, np.float32)
    sky[20:36, 8:40] = 20_000
    real = detector.conditions

    def steady(*args: Any) -> Any:
        still = dataclasses.replace(real(*args), shift_x=0.0, shift_y=0.0)
        return dataclasses.replace(still, cosmic_rays=np.zeros(4, np.int32))

    try:
        detector.conditions = steady
        nights = [_realisation(one, 20200601 + i, sky) for i in range(28)]
        nights += [_realisation(one, 20200701 + i, sky) for i in range(count - 28)]
        exposure = dataclasses.replace(made.planned("o", science=1)[0], field=655)
        lit = np.stack([light(one, exposure, 6, q, sky=sky) for q in range(1, 5)])
    finally:
        detector.conditions = real
    return {"camera": one, "nights": nights, "light": lit}


def _realisation(one: Camera, night: int, sky: np.ndarray) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    exposure = dataclasses.replace(made.planned("o", night=night, science=1)[0], field=655)
    lamp = [e for e in made.planned("f", night=night, flats=6) if e.led == 2]
    settled = made.planned("b", night=night, bias=16)[10:]
    return made.exposed(one, settled), made.exposed(one, lamp), made.exposed(one, [exposure], sky=sky)


def _reduced(night: tuple[xr.Dataset, xr.Dataset, xr.Dataset]) -> dict[str, xr.DataArray]:
    """Reduce a realisation: master bias, master flat, science and the variance of each."""
    dark, lamp, exposure = night
    bias = biases.master_bias(dark, skip=0)
    flat = flats.master_flat(lamp, bias, leds=ONE_LED).sel(filter="zg")
    counts, even = detrend.detrend(exposure), xr.ones_like(bias["bias"][:, 0, 0, 0])
    gain, noise = (exposure[name].isel(time=0) for name in ("gain", "read_noise"))
    return {
        "bias": bias["bias"],
        "bias variance": bias["variance"],
        "flat": flat["flat"],
        "flat variance": flat["variance"],
        "science": sciences.calibrate(counts, bias["bias"], flat["flat"], even)[0],
        "science variance": sciences.calibrated_variance(counts, bias, flat, even, gain, noise)[0],
    }


@cache
def scatter() -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], float]]:
    """Kinds of pixels, and the variance found in them over all realisations."""
    data = realisations()
    reduced = [_reduced(night) for night in data["nights"]]
    bad = np.broadcast_to(data["camera"].bad[0][:, np.newaxis, :], data["light"].shape)
    star = data["light"] > 10_000
    kinds = {
        ("science", "sky"): (bad == 0) & ~star,
        ("science", "star core"): (bad == 0) & star,
        ("science", "poor column"): (bad == 1) & ~star,
        ("bias", "all"): bad == 0,
        ("flat", "all"): bad == 0,
    }
    found = {name: np.var([r[name].values[0] for r in reduced], axis=0, ddof=1) for name, _ in kinds}
    return kinds, {kind: float(found[kind[0]][where].mean()) for kind, where in kinds.items()}


def variance_ratios(nights: int = 4) -> dict[tuple[str, str], float]:
    """Variance that some of the realisations predict, over the scatter of all."""
    kinds, found = scatter()
    reduced = [_reduced(night) for night in realisations()["nights"][:nights]]
    planes = {name: np.mean([r[f"{name} variance"].values[0] for r in reduced], axis=0) for name, _ in kinds}
    return {kind: float(planes[kind[0]][where].mean()) / found[kind] for kind, where in kinds.items()}


def variance_planes() -> None:
    """Variance planes are the scatter of realisations: 3 %; of biases 10 %, whose structure counts as light."""
    for (what, kind), ratio in variance_ratios().items():
        limit = 0.1 if what == "bias" else 0.03
        assert abs(ratio - 1) < limit, f"{what}, {kind}: predicted {ratio:.3f} of the scatter"
