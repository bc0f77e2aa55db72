"""Photometry of quadrants against known stars: fluxes and positions by their pulls, flags, shapes."""

from __future__ import annotations

import numpy as np
import pytest
import skies
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ztfzarr.masters.mask import MASKS
from ztfzarr.photometry.columns import COLUMNS, FLAGS, RADII
from ztfzarr.photometry.detect import detect
from ztfzarr.photometry.measure import grown, measure, skewness, windowed
from ztfzarr.photometry.pixels import bridged, prepare
from ztfzarr.photometry.quadrant import quadrant_stars
from ztfzarr.simulate.scene import with_stars

LIMITED = [pytest.param(3000.0, 200.0, id="by the sky"), pytest.param(1e5, 20.0, id="by photons")]


@pytest.mark.parametrize(("flux", "sky"), LIMITED)
def test_pulls_of_fluxes(flux: float, sky: float) -> None:
    """chi2 / nu of 10 pixels within 5 % of 1 (3 sigma of 7,000 are 5 %), of all radii within 7 %."""
    one = skies.field(flux, sky, step=52)
    truth = measure(skies.without_noise(one), one.x, one.y)
    pulls: dict[int, list[np.ndarray]] = {radius: [] for radius in RADII}
    for _ in range(28):
        found = measure(prepare(*skies.images(one)), one.x, one.y)
        for radius in RADII:
            miss = found[f"flux_{radius}"] - truth[f"flux_{radius}"]
            pulls[radius].append(miss / found[f"flux_error_{radius}"])
    assert np.size(pulls[10]) == 28 * 256
    assert np.mean(np.square(pulls[10])) == pytest.approx(1, abs=0.05)
    assert [np.mean(np.square(pulls[radius])) for radius in RADII] == pytest.approx([1] * len(RADII), abs=0.07)
    assert np.abs([np.mean(pulls[radius]) for radius in RADII]).max() < 0.06


@pytest.mark.parametrize(("flux", "sky"), LIMITED)
def test_pulls_of_positions(flux: float, sky: float) -> None:
    """Of detected stars against their true places; bright ones by the floor of undersampled pixels."""
    pulls = []
    for seed in range(6):
        one = skies.field(flux, sky, seed=seed)
        found = quadrant_stars(*skies.images(one))
        apart, nearest = cKDTree(np.column_stack([found["x"], found["y"]])).query(np.column_stack([one.x, one.y]))
        assert apart.max() < 0.5
        pulls.append((found["x"][nearest] - one.x) / found["x_error"][nearest])
        pulls.append((found["y"][nearest] - one.y) / found["y_error"][nearest])
    assert np.mean(np.square(pulls)) == pytest.approx(1, abs=0.15)
    assert found["x"].dtype == np.float64


def test_detection_finds_the_stars_and_little_else() -> None:
    one = skies.field(1500.0, 200.0)
    found = detect(prepare(*skies.images(one)))
    tree = cKDTree(np.column_stack([one.x, one.y]))
    apart, _ = tree.query(np.column_stack([found.x, found.y]))
    assert np.unique(tree.query(np.column_stack([found.x, found.y]))[1][apart < 1]).size == one.x.size
    assert np.count_nonzero(apart > 1) < 10  # in 700,000 pixels
    assert (np.diff(found.flux) <= 0).all()


def test_a_star_alone_keeps_its_light_and_shape() -> None:
    one = skies.field(50_000.0, 0.0)
    found = measure(skies.without_noise(one), one.x, one.y)
    assert found["flux_12"] == pytest.approx(one.flux, rel=0.012)  # the profile is cut at 12 pixels
    assert (np.diff([found[f"flux_{r}"] for r in RADII], axis=0) > 0).all()
    assert found["fwhm"] == pytest.approx(np.full(one.x.size, 2.5), abs=0.25)
    assert np.abs(skewness(one.light, one.x, one.y)).max() < 0.05
    assert not found["flags"].any()


def parts_within(x: float, y: float, radius: float, shape: tuple[int, int]) -> np.ndarray:
    """Part of each pixel within a circle, by 20 x 20 points in each."""
    fine = np.arange(20) / 20 + 0.025 - 0.5
    dy, dx = ((np.arange(n)[:, None] + fine).ravel() - at for n, at in zip(shape, (y, x), strict=True))
    inside = dx**2 + dy[:, None] ** 2 < radius**2
    return inside.reshape(shape[0], 20, shape[1], 20).mean(axis=(1, 3))


@pytest.mark.parametrize("radius", [3, 10])
def test_apertures_and_their_errors_by_brute_force(radius: int) -> None:
    one = skies.field(5000.0, 100.0, shape=(60, 60))
    science, mask, variance = skies.images(one)
    found = measure(prepare(science, mask, variance), one.x, one.y)
    within, outer, inner = (parts_within(one.x[0], one.y[0], r, (60, 60)) for r in (radius, 25, 15))
    ring = outer - inner
    background = np.average(science, weights=ring)
    flux = (within * (science - background)).sum()
    error = np.sqrt((ring * variance).sum()) / ring.sum()
    assert found["background"][0] == pytest.approx(background, abs=0.01)
    assert found["background_error"][0] == pytest.approx(error, rel=0.01)
    assert found[f"flux_{radius}"][0] == pytest.approx(flux, rel=1e-3)
    whole = np.sqrt((within**2 * variance).sum() + (np.pi * radius**2 * error) ** 2)
    assert found[f"flux_error_{radius}"][0] == pytest.approx(whole, rel=0.005)


def test_a_trail_along_x_is_skewness() -> None:
    one = skies.field(1e5, 0.0)
    trailed = one.light.copy()
    trailed[:, 1:] += 0.03 * one.light[:, :-1]
    trailed[:, 2:] += 0.02 * one.light[:, :-2]
    x, y, *_ = windowed(trailed, np.ones_like(trailed), one.x, one.y, 2.3)
    assert np.median(skewness(trailed, x, y) - skewness(one.light, one.x, one.y)) > 0.05
    assert np.median(skewness(trailed[:, ::-1], trailed.shape[1] - 1 - x, y)) < -0.05


BITS = [("dead", "bad"), ("hot", "bad"), ("noisy", "bad"), ("spike", "spike"), ("saturated", "saturated")]


@pytest.mark.parametrize(("bit", "name"), [*BITS, ("suspect", "suspect")])
def test_flags_of_the_mask(bit: str, name: str) -> None:
    one = skies.field(5000.0, 100.0)
    science, mask, variance = skies.images(one)
    column, row = round(one.x[30]), round(one.y[30])
    mask[row + 9, column] = MASKS[bit]
    flags = measure(prepare(science, mask, variance), one.x, one.y)["flags"]
    assert flags[30] == FLAGS[name]
    assert not np.delete(flags, 30).any()
    mask[row + 9, column], mask[row + 12, column] = 0, MASKS[bit]
    assert not measure(prepare(science, mask, variance), one.x, one.y)["flags"].any()


def test_flags_of_edges_and_of_backgrounds() -> None:
    light, mask, ones = (
        np.zeros((100, 200), np.float32),
        np.zeros((100, 200), np.uint16),
        np.ones((100, 200), "f4"),
    )
    x, y = np.array([9.4, 9.6, 189.4, 189.6, 100, 100.0]), np.array([50, 50, 50, 50, 9.4, 89.6])
    flags = measure(prepare(light, mask, ones), x, y)["flags"]
    assert (flags & FLAGS["edge"] != 0).tolist() == [True, False, False, True, True, True]
    stars = np.zeros(light.shape, bool)
    stars[:, 60:140] = True
    one = measure(prepare(light, mask, ones), np.array([100.0, 30.0]), np.array([50.0, 50.0]), stars=stars)
    assert (one["flags"] & FLAGS["background"] != 0).tolist() == [True, False]
    assert np.isnan(one["background_error"][0])


def test_flags_of_neighbours() -> None:
    """Of three stars in a row, 12 and 20 pixels apart, the outer ones are 32; a faint one hurts no bright one."""
    x, y = np.array([50.0, 62, 82, 150, 170]), np.full(5, 50.0)
    flux = np.array([1e4, 1e4, 1e4, 1e5, 900])
    light = with_noise(x, y, flux)
    found = quadrant_stars(*light)
    order = [int(np.argmin(np.abs(found["x"] - v))) for v in x]
    blended, near = ((found["flags"][order] & FLAGS[name] != 0).tolist() for name in ("blended", "neighbour"))
    assert near == [True, True, True, False, True]
    assert blended == [True, True, False, False, False]


def with_noise(x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one = skies.field(0.0, 50.0, shape=(100, 200))
    one.light = with_stars(np.zeros((100, 200), np.float32), x, y, flux)
    return skies.images(one)


def test_a_dead_column_costs_little_and_is_flagged() -> None:
    one = skies.field(1e5, 100.0)
    science, mask, variance = skies.images(one)
    whole = measure(prepare(science, mask, variance), one.x, one.y)["flux_10"]
    column = round(one.x[100]) + 4
    science[:, column], mask[:, column] = 0, MASKS["dead"]
    found = measure(prepare(science, mask, variance), one.x, one.y)
    assert found["flags"][100] == FLAGS["bad"]
    assert found["flux_10"][100] == pytest.approx(whole[100], rel=0.01)


def test_nothing_is_measured_on_nothing() -> None:
    nan = np.full((100, 100), np.nan, np.float32)
    found = quadrant_stars(nan, np.full(nan.shape, MASKS["no_data"], np.uint16), nan)
    assert {name: values.size for name, values in found.items()} == dict.fromkeys(found, 0)
    assert set(found) <= set(COLUMNS)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1), flip_x=st.booleans(), flip_y=st.booleans(), turn=st.booleans(),
    scale=st.floats(0.1, 100), level=st.floats(-1000, 1000),
)  # fmt: skip
def test_fluxes_do_not_depend_on_orientation_unit_or_level(
    seed: int, flip_x: bool, flip_y: bool, turn: bool, scale: float, level: float
) -> None:
    """Flips and transposes move nothing in or out of a circle, also at edges; units and levels are right."""
    rng = np.random.default_rng(seed)
    science, variance = rng.normal(100, 5, (70, 80)), rng.uniform(20, 30, (70, 80))
    mask = np.where(rng.uniform(size=(70, 80)) < 0.01, MASKS["noisy"], 0).astype(np.uint16)
    x, y = rng.uniform(10, 69, 5), rng.uniform(10, 59, 5)
    one = measure(prepare(science, mask, variance), x, y)
    at = [79 - x if flip_x else x, 69 - y if flip_y else y][:: -1 if turn else 1]
    images = (i[:: -1 if flip_y else 1, :: -1 if flip_x else 1] for i in (science * scale + level, mask, variance))
    turned = [np.ascontiguousarray(i.T if turn else i) for i in images]
    other = measure(prepare(turned[0], turned[1], turned[2] * scale**2), *at)
    for radius in RADII:
        tolerance = 1e-3 * one[f"flux_error_{radius}"].max() * scale + 1e-4 * np.abs(level) * radius
        assert other[f"flux_{radius}"] == pytest.approx(one[f"flux_{radius}"] * scale, abs=tolerance)
        assert other[f"flux_error_{radius}"] == pytest.approx(one[f"flux_error_{radius}"] * scale, rel=1e-4)
    assert other["background"] == pytest.approx(one["background"] * scale + level, abs=0.001 * (scale + 1))
    assert (other["flags"] == one["flags"]).all()


def test_too_many_stars_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztfzarr.photometry.detect.PIXEL_STACK", 300)
    monkeypatch.setattr("ztfzarr.photometry.detect.OF_PIXELS", 10**6)
    with pytest.raises(ValueError, match=r"stars cannot be told apart \(internal pixel buffer full"):
        detect(prepare(*skies.images(skies.field(1e6, 10.0))))


def test_inputs_are_not_changed() -> None:
    arrays = skies.images(skies.field(5000.0, 100.0))
    before = [a.copy() for a in arrays]
    arrays[1][5, 5] = before[1][5, 5] = MASKS["dead"]
    quadrant_stars(*arrays)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_bridges_are_interpolation(seed: int, share: float) -> None:
    """Against numpy's, on any pattern of lost pixels."""
    rng = np.random.default_rng(seed)
    image, lost = rng.normal(size=(7, 9)).astype(np.float32), rng.uniform(size=(7, 9)) < share
    filled = bridged(image, lost)
    if lost.all():
        assert not filled.any()
        return
    index = np.arange(image.size)
    expected = np.interp(index, index[~lost.ravel()], image.ravel()[~lost.ravel()])
    assert filled.ravel() == pytest.approx(expected, abs=1e-5)
    assert (filled[~lost] == image[~lost]).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), pixels=st.integers(0, 4))
def test_grown_stars_are_a_square_larger(seed: int, pixels: int) -> None:
    stars = np.random.default_rng(seed).uniform(size=(12, 15)) < 0.05
    padded = np.pad(stars, pixels)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * pixels + 1,) * 2)
    assert (grown(stars, pixels) == windows.any(axis=(2, 3))).all()
