"""Pocket effect in rows: the model against plain numpy, its inverse, and the correction of noisy rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztfzarr import tables
from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.kernels.pocket import Pocket, before_trapping, deferred, released, restored, trapped
from ztfzarr.kernels.pocket_correction import correct, lookup, release

OVERSCAN = 30
GAIN, READ_NOISE = 5.6, 1.6


def pocket_of(ccd: int, quadrant: int) -> Pocket:
    table = tables.pocket()
    return Pocket(*(float(table[name][ccd - 1, quadrant - 1]) for name in ("alpha", "cmax", "beta", "nmax")))


POCKETS = [pocket_of(ccd, q) for ccd in CCDS for q in QUADRANTS]
WORST = pocket_of(6, 1)


def oracle(true: np.ndarray, columns: int, pocket: Pocket) -> tuple[np.ndarray, np.ndarray]:
    """The forward model as DOMAIN's equations, a column of all rows at a time."""
    alpha, c, beta, m = pocket
    p = np.zeros(len(true))
    out = []
    for n in np.concatenate([true, np.zeros((len(true), columns))], axis=1).T:
        f = np.clip(c * (p / c) ** alpha, 0, p)
        t = np.clip(c * (1 - p / c) ** alpha * (np.maximum(n, 0) / m) ** beta, 0, np.maximum(n, 0))
        out.append(n + f - t)
        p = p - (f - t)
    image = np.array(out).T
    return image[:, : true.shape[1]], image[:, true.shape[1] :]


def stars(rng: np.random.Generator, shape: tuple[int, int], sky: float, full_well: float = 6e4) -> np.ndarray:
    """Sky with stars two pixels wide, some of them saturated."""
    image = np.full(shape, sky)
    x = np.arange(shape[1])
    for row in image:
        for _ in range(max(shape[1] // 60, 1)):
            row += 10 ** rng.uniform(1, 5) * np.exp(-(((x - rng.uniform(0, shape[1])) / 1.2) ** 2))
    return np.minimum(image, full_well)


def noisy(rng: np.random.Generator, true: np.ndarray, pocket: Pocket) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row with photon and read noise: without a pocket, through it, and its overscan."""
    light = rng.poisson(true * GAIN) / GAIN
    image, overscan = deferred(light, OVERSCAN, pocket)
    noise = rng.normal(0, READ_NOISE, true.shape)
    return light + noise, (image + noise).astype(np.float32), overscan


def corrected(image: np.ndarray, pocket: Pocket, *, backward: bool = False) -> tuple[np.ndarray, np.ndarray]:
    out = np.empty_like(image)
    charge = correct(image, lookup(pocket), backward, out)
    return out, charge


# The model


@pytest.mark.parametrize("pocket", [WORST, pocket_of(1, 1), pocket_of(4, 4)])
def test_forward_model_is_the_equations(pocket: Pocket) -> None:
    rng = np.random.default_rng(1)
    true = stars(rng, (6, 200), 30.0) + rng.normal(0, 20, (6, 200))  # negative pixels too
    for ours, theirs in zip(deferred(true, OVERSCAN, pocket), oracle(true, OVERSCAN, pocket), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9)


def test_charge_is_conserved() -> None:
    true = stars(np.random.default_rng(2), (4, 300), 150.0)
    image, overscan = deferred(true, 5000, WORST)
    np.testing.assert_allclose(image.sum(1) + overscan.sum(1), true.sum(1), rtol=1e-4)
    assert (true.sum(1) - image.sum(1) > 100).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sky=st.floats(100, 45e3),
    pocket=st.sampled_from(POCKETS),
)
def test_exact_inverse(seed: int, sky: float, pocket: Pocket) -> None:
    true = stars(np.random.default_rng(seed), (2, 400), sky)
    image, overscan = deferred(true, OVERSCAN, pocket)
    assert np.abs(image - true).max() > 1
    again, charge = restored(image, pocket)
    assert np.abs(again - true).max() <= 1e-3
    assert released(charge[0], pocket) == pytest.approx(overscan[0, 0], abs=1e-6)


def test_what_a_pocket_takes_whole_is_not_invented() -> None:
    """An empty pocket of CCD 6 takes pixels of up to 60 DN whole: they are returned as 0, not as anything else."""
    image, _ = deferred(np.full((1, 3), 20.0), 1, WORST)
    assert image[0, 0] == 0
    assert restored(image, WORST)[0][0, 0] == 0


# The correction


def test_noiseless_rows_are_restored_exactly() -> None:
    """Without noise every star stands out: what is left is the accuracy of the look-up."""
    worst = 0.0
    for i, pocket in enumerate(POCKETS):
        true = stars(np.random.default_rng(i), (4, 768), 200.0)
        image = deferred(true, OVERSCAN, pocket)[0].astype(np.float32)
        worst = max(worst, float(np.abs(corrected(image, pocket)[0] - true).max()))
    assert worst <= 0.02


@pytest.mark.parametrize("sky", [20, 50, 100, 200, 1000])
def test_noise_and_level_of_the_sky(sky: float) -> None:
    """Every quadrant's pocket: sigma after/before <= 1.02, level within 0.02 DN, neighbours no more alike."""
    rng = np.random.default_rng(int(sky))
    ratios, biases, lags = [], [], []
    for pocket in POCKETS:
        true, image, _ = noisy(rng, np.full((24, 3072), float(sky)), pocket)
        before, after = image[:, 64:], corrected(image, pocket)[0][:, 64:]
        ratios.append(after.std() / before.std())
        biases.append(after.mean() - true[:, 64:].mean())
        lags.append(lag_one(after) - lag_one(before))
    assert max(ratios) <= 1.02
    assert np.abs(biases).max() <= 0.02
    assert np.abs(lags).max() < 0.01


def lag_one(image: np.ndarray) -> float:
    rest = image - image.mean()
    return float((rest[:, 1:] * rest[:, :-1]).mean() / rest.var())


def test_the_exact_inverse_would_be_noisier() -> None:
    _, image, _ = noisy(np.random.default_rng(4), np.full((24, 1024), 200.0), WORST)
    exact = restored(image.astype(np.float64), WORST)[0]
    assert exact[:, 64:].std() / image[:, 64:].std() > 1.1


@pytest.mark.parametrize("pocket", [WORST, pocket_of(13, 3), pocket_of(1, 1)])
@pytest.mark.parametrize("sky", [100.0, 400.0])
def test_stars_in_noise(pocket: Pocket, sky: float) -> None:
    """The mean profile of faint stars is restored: an eighth of the change is left, or 0.1 % of the star."""
    rng = np.random.default_rng(7)
    flux, sigma, width = 600.0, 1.0, 3072
    x = np.arange(width)
    at = np.arange(40, width - 40, 80)
    star = (flux / (2 * np.pi) ** 0.5 / sigma) * np.exp(-(((x - at[:, None]) / sigma) ** 2) / 2).sum(0)
    true, image, _ = noisy(rng, np.tile(sky + star, (40, 1)), pocket)

    def profile(change: np.ndarray) -> np.ndarray:
        return np.mean([change[:, a - 3 : a + 12].mean(0) for a in at], axis=0) / flux

    before, after = profile(image - true), profile(corrected(image, pocket)[0] - true)
    assert np.abs(before).max() > 0.005
    assert np.abs(after).max() < max(np.abs(before).max() / 8, 0.001), (before, after)


def test_first_pixels_of_flats() -> None:
    """0.7-2.3 % low before; after, within their noise."""
    for pocket in POCKETS[::9]:
        true, image, _ = noisy(np.random.default_rng(3), np.full((300, 256), 38e3), pocket)
        low = (image - true)[:, 0].mean() / 38e3
        assert -0.03 < low < -0.005
        assert np.abs((corrected(image, pocket)[0] - true).mean(0)).max() < 2.0


def test_read_direction() -> None:
    _, image, _ = noisy(np.random.default_rng(5), stars(np.random.default_rng(6), (3, 300), 120.0), WORST)
    out, charge = corrected(image, WORST)
    mirrored, same = corrected(np.ascontiguousarray(image[:, ::-1]), WORST, backward=True)
    np.testing.assert_array_equal(mirrored[:, ::-1], out)
    np.testing.assert_array_equal(same, charge)
    assert np.abs(corrected(image, WORST, backward=True)[0] - out).max() > 10


def test_pixels_that_are_missing() -> None:
    """NaN stay NaN, spoil no other pixel of their row, and no other row."""
    _, image, _ = noisy(np.random.default_rng(8), stars(np.random.default_rng(9), (4, 300), 150.0), WORST)
    holes = image.copy()
    holes[1, [0, 70, 71, 299]] = np.nan
    holes[2] = np.nan
    out, charge = corrected(holes, WORST)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(holes))
    np.testing.assert_array_equal(np.isnan(charge), [False, False, True, False])
    np.testing.assert_array_equal(out[[0, 3]], corrected(image, WORST)[0][[0, 3]])
    assert np.abs(out[1] - corrected(image, WORST)[0][1])[200:290].max() < 1


@pytest.mark.parametrize("width", [3, 5, 31, 100])
def test_short_rows(width: int) -> None:
    image = np.full((2, width), 150.0, np.float32)
    out, _ = corrected(image, WORST)
    assert np.isfinite(out).all() == (width >= 8)


def test_overscan_gives_back_what_is_left() -> None:
    true = np.full((3, 500), 200.0)
    image, overscan = deferred(true, OVERSCAN, WORST)
    _, charge = corrected(image.astype(np.float32), WORST)
    strips = overscan.astype(np.float32)
    out = np.empty_like(strips)
    release(strips, charge, lookup(WORST), False, out)
    assert strips[:, 0].min() > 70
    assert np.abs(out).max() < 0.01
    mirrored = np.empty_like(strips)
    release(np.ascontiguousarray(strips[:, ::-1]), charge, lookup(WORST), True, mirrored)
    np.testing.assert_array_equal(mirrored[:, ::-1], out)


@settings(max_examples=200, deadline=None)
@given(
    pocket=st.sampled_from(POCKETS),
    full=st.floats(0, 0.9),
    n=st.floats(0.01, 6e4),
)
def test_trapping_and_its_inverse(pocket: Pocket, full: float, n: float) -> None:
    p = full * pocket.cmax
    rest = n - trapped(n, p, pocket)
    if rest > 1e-6:
        assert before_trapping(rest, p, pocket) == pytest.approx(n, rel=1e-8)
    else:
        assert before_trapping(0.0, p, pocket) == 0
