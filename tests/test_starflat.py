"""The fit of a starflat: simulated measurements in, the map that made them out, with errors that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starfields import (
    FEW,
    catalogue_of,
    fitted,
    measurements_of,
    slopes_of,
    true_nodes,
    without_plane,
)

from ztfzarr.simulate.measurements import StarfieldNight, simulate_starfield
from ztfzarr.starflat.errors import errors, extinction_error
from ztfzarr.starflat.fit import Settings, fit_starflat
from ztfzarr.starflat.nodes import Nodes, between_nodes
from ztfzarr.starflat.plane import absorbed, fix_plane, undetermined
from ztfzarr.starflat.validation import join_means

MMAG = 1e-3
SMALL = StarfieldNight(stars=12000, dithers=12, rcids=tuple(range(16, 32)), seed=3)


def test_the_simulated_night_is_what_the_issue_asks_for():
    night = fitted().night
    field = fitted().field
    truth = true_nodes(night, (15, 15))
    assert night.dithers >= 30
    assert 0.02 < np.ptp(truth) < 0.04
    assert np.hypot(*slopes_of(truth, (15, 15))) > 1 * MMAG
    assert 0.04 < np.abs(field.zero).max() <= 0.05
    assert np.ptp(field.columns["slope"]) > 0.1


def test_the_map_is_recovered_but_for_constant_and_plane():
    one = fitted()
    assert one.off(one.fit.delta).std() < 1 * MMAG
    assert without_plane(one.truth, one.count).std() > 3 * MMAG
    assert one.fit.extinction == pytest.approx(0.2, abs=0.02)
    assert one.fit.chi2() == pytest.approx(1, abs=0.05)
    assert one.fit.dropped == ()


def test_the_gauge_holds_at_the_nodes():
    delta = fitted().fit.delta
    u, v = fitted().fit.system.nodes.focal_plane()
    for direction in (np.ones_like(u), u, v):
        assert abs((delta.ravel() * direction).sum()) < 1e-9
    assert fitted().fit.zero.mean() == pytest.approx(0, abs=1e-9)


def test_errors_by_jackknife_and_by_the_noise_model_hold():
    one = fitted()
    found = errors(one.fit)
    off = one.off(one.fit.delta)
    assert np.nanstd(off / found.delta) == pytest.approx(1.0, abs=0.15)
    assert np.nanstd(off / found.delta_formal) == pytest.approx(1.0, abs=0.15)
    assert abs(one.fit.extinction - 0.2) < 4 * found.extinction


def test_the_error_of_the_extinction_holds_on_both_sides():
    pulls = []
    for seed in range(16):
        night = replace(SMALL, stars=5000, seed=seed + 40)
        fit = fit_starflat(measurements_of(simulate_starfield(night)), night.shape, replace(FEW, resamples=0))
        pulls.append((fit.extinction - 0.2) / extinction_error(fit))
    assert np.abs(np.mean(pulls)) < 1
    assert 0.65 < np.sqrt(np.mean(np.square(pulls))) < 1.4


def test_errors_of_zero_points_hold():
    """But for a constant, and for the plane of the map: it shifts each exposure by where that points."""
    one = fitted()
    c = one.field.columns
    pointed = []
    for name in ("u", "v"):
        means = np.bincount(c["star"], c[name]) / np.maximum(np.bincount(c["star"]), 1)
        of_exposure = np.unique(c["exposure"], return_inverse=True)[1]
        pointed.append(np.bincount(of_exposure, c[name] - means[c["star"]]) / np.bincount(of_exposure))
    shift = one.fit.zero - one.field.zero
    directions = np.stack([np.ones_like(shift), *pointed], axis=-1)
    shift -= directions @ np.linalg.lstsq(directions, shift)[0]
    assert np.std(shift / errors(one.fit).zero) == pytest.approx(1.0, abs=0.3)


def test_a_catalogue_fixes_the_plane():
    one = fitted()
    plane = fix_plane(one.fit, catalogue_of(one.field))
    error = plane.fit.delta - one.truth
    tilt = slopes_of(error, one.count)
    u, v = one.fit.system.nodes.focal_plane()
    assert np.std(u * tilt[0] + v * tilt[1]) < 0.5 * MMAG
    assert np.abs(slopes_of(one.truth, one.count)).min() > 4 * np.sqrt(plane.covariance.max())
    np.testing.assert_array_less(np.abs(tilt), 4 * np.sqrt(np.diag(plane.covariance)))
    error = 4 * np.sqrt(plane.covariance.max())
    np.testing.assert_allclose(plane.slopes, slopes_of(one.truth, one.count), atol=error)
    assert plane.determined
    assert plane.chi2 == pytest.approx(1, abs=0.1)


def test_without_a_catalogue_the_plane_is_undetermined_not_zero_with_small_errors():
    one = fitted()
    for plane in (undetermined(one.fit), fix_plane(one.fit, replace_star(catalogue_of(one.field), 10**9))):
        assert not plane.determined
        assert np.isnan(plane.slopes).all()
        assert np.isnan(plane.covariance).all()


def replace_star(catalogue, offset):
    return replace(catalogue, star=catalogue.star + offset)


@pytest.mark.slow
def test_pulls_of_the_plane_over_many_nights():
    pulls = []
    for seed in range(12):
        one = fitted(FEW, stars=4000, seed=seed + 10)
        taken = absorbed(one.fit)
        catalogue = catalogue_of(one.field, seed=seed)
        plane = fix_plane(one.fit, catalogue, taken)
        spread = errors(one.fit, lambda fit, c=catalogue, t=taken: fix_plane(fit, c, t).slopes)
        sigma = np.sqrt(np.diag(plane.covariance) + np.diag(spread.covariance))
        pulls.append(slopes_of(plane.fit.delta - one.truth, one.count) / sigma)
    assert 0.6 < np.std(pulls) < 1.4


def test_planes_of_variable_stars_and_outliers_do_not_move_the_plane():
    one = fitted()
    catalogue = catalogue_of(one.field)
    wild = catalogue.magnitude.copy()
    wild[::20] += 0.5
    plane, same = fix_plane(one.fit, replace(catalogue, magnitude=wild)), fix_plane(one.fit, catalogue)
    np.testing.assert_allclose(plane.slopes, same.slopes, atol=2 * np.sqrt(plane.covariance.max()))


def test_bright_stars_repeat_within_their_noise():
    one = fitted()
    system, kept = one.fit.system, one.fit.weight > 0
    bright = kept & (system.error < 0.005)
    pull = one.fit.residual()[bright] * np.sqrt(one.fit.weight[bright])
    assert bright.sum() > 1000
    assert pull.std() < 1.2


def test_outliers_are_rejected_and_good_measurements_kept():
    one = fitted()
    system, kept = one.fit.system, one.fit.weight > 0
    wild = one.field.is_outlier[system.order]
    far = wild & (np.abs(system.error) < 0.02)
    assert (kept & far).sum() < 0.12 * far.sum()
    assert (~kept & ~wild).sum() < 0.02 * (~wild).sum()


def test_a_colour_term_is_fitted_and_its_absence_seen():
    night = replace(SMALL, colour_term=0.03)
    field = simulate_starfield(night)
    with_term = fit_starflat(measurements_of(field, colours=True), night.shape, FEW)
    without = fit_starflat(measurements_of(field), night.shape, FEW)
    assert with_term.chi2() < 1.1 < without.chi2()
    assert np.isnan(without.colour).all()
    u = Nodes(SMALL.shape, (2, 2)).focal_plane()[0].reshape(64, 2, 2)[16:32]
    slope = np.polyfit(u.ravel(), with_term.colour[16:32].ravel(), 1)[0]
    assert slope == pytest.approx(0.03, abs=0.003)


def test_nodes_without_stars_are_nan_with_count_0_and_never_extrapolated():
    field = simulate_starfield(SMALL)
    m = measurements_of(field)
    away = ~((m.rcid == 20) & (m.x < 1100))
    fit = fit_starflat(m.take(away), SMALL.shape, FEW)
    assert np.isnan(fit.delta[20][:, 0]).all()
    assert (fit.count[20][:, 0] == 0).all()
    assert np.isfinite(fit.delta[20][:, 2:]).all()
    assert np.isnan(fit.delta[:16]).all()
    assert (fit.count[:16] == 0).all()
    assert np.isfinite(fit.delta[16:20]).all()


def test_a_quadrant_that_no_star_links_to_the_others_is_dropped_and_named():
    field = simulate_starfield(SMALL)
    m = measurements_of(field)
    star = np.where(m.rcid == 23, m.star + 10**6, m.star)
    fit = fit_starflat(replace(m, star=star), SMALL.shape, FEW)
    assert fit.dropped == (23,)
    assert np.isnan(fit.delta[23]).all()


def test_stars_seen_once_are_refused():
    m = measurements_of(simulate_starfield(SMALL))
    with pytest.raises(ValueError, match="no star has two measurements: expected dithered exposures"):
        fit_starflat(replace(m, star=np.arange(len(m))), SMALL.shape, FEW)


def test_what_smoothness_costs_is_less_than_what_it_gains():
    """The prior's bias: a fit of measurements without noise, against the same with noise and no prior."""
    night = replace(SMALL, floor=1e-9, outliers=0.0)
    quiet = simulate_starfield(night)
    exact = quiet.columns["magnitude"]
    m = measurements_of(quiet)
    noise = exact - true_magnitudes(quiet, night)
    bias = fit_starflat(replace(m, magnitude=exact - noise), night.shape, Settings(nodes=(8, 8), resamples=0))
    rough = fit_starflat(m, night.shape, Settings(nodes=(8, 8), smoothness=0.0, resamples=0))
    smooth = fit_starflat(m, night.shape, Settings(nodes=(8, 8), resamples=0))
    off = [without_plane(fit.delta - true_nodes(night, (8, 8)), (8, 8)) for fit in (bias, rough, smooth)]
    biased, noisy, better = (np.nanstd(values) for values in off)
    assert biased < 0.3 * MMAG
    assert better < 0.6 * noisy


def true_magnitudes(field, night):
    c = field.columns
    zero = field.zero[c["exposure"] - c["exposure"].min()]
    return field.star_magnitude[c["star"]] + zero + night.extinction * c["slope"] + field.delta - 26.3


def test_between_nodes_is_bilinear_and_keeps_to_the_quadrant():
    nodes = Nodes((40, 60), (3, 4))
    y, x = np.meshgrid(nodes.y, nodes.x, indexing="ij")
    pixels = between_nodes((2 * y - 3 * x + 1)[np.newaxis], (40, 60))
    rows, columns = np.mgrid[0:40, 0:60]
    np.testing.assert_allclose(pixels[0], 2 * rows - 3 * columns + 1, atol=1e-3)
    node, across, along = nodes.place(np.array([63]), np.array([39.49]), np.array([59.49]))
    assert node[0] + nodes.count[1] + 1 == nodes.total - 1
    assert across[0] == pytest.approx(1, abs=1e-3)
    assert along[0] == pytest.approx(1, abs=1e-3)


def test_planes_at_the_nodes_are_planes_at_every_star():
    field = simulate_starfield(SMALL)
    c = field.columns
    nodes = Nodes(SMALL.shape, (4, 4))
    node, across, along = nodes.place(c["rcid"], c["y"], c["x"])
    for values, expected in zip(nodes.focal_plane(), (c["u"], c["v"]), strict=True):
        found = sum(values[n] * share for n, share in nodes.shares(node, across, along))
        np.testing.assert_allclose(found, expected, atol=3e-4)  # a pixel: the table's quadrants are no rectangles


@pytest.fixture(scope="module")
def small():
    return measurements_of(simulate_starfield(SMALL))


@pytest.fixture(scope="module")
def small_fit(small):
    return fit_starflat(small, SMALL.shape, FEW)


def test_residuals_are_averaged_by_the_distance_to_the_nearest_join(small, small_fit):
    """Quadrants 2 and 3 join at column 0, 1 and 4 at their last; 3 and 4 at row 0, 1 and 2 at their last."""
    height, width = SMALL.shape
    sorted_ = small.take(small_fit.system.order)
    quadrant = sorted_.rcid % 4 + 1
    left, low = np.isin(quadrant, (2, 3)), np.isin(quadrant, (3, 4))
    distance = np.where(left, sorted_.x, width - 1 - sorted_.x)
    distance = np.minimum(distance, np.where(low, sorted_.y, height - 1 - sorted_.y))
    edges = np.array([-0.5, 3.0, 10.0, 50.0, 400.0])  # pixels; the join itself is at -0.5
    residual = np.sqrt(1 + distance)
    means = join_means(small_fit, small, residual, edges)
    for mean, first, last in zip(means, edges[:-1], edges[1:], strict=True):
        among = (distance >= first) & (distance < last)
        if np.count_nonzero(among & (small_fit.weight > 0)) < 20:
            assert np.isnan(mean)
        else:
            assert mean == pytest.approx(np.average(residual[among], weights=small_fit.weight[among]))
    assert np.isfinite(means[-2:]).all()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_measurements_changes_nothing(small, small_fit, seed):
    shuffled = small.take(np.random.default_rng(seed).permutation(len(small)))
    np.testing.assert_array_equal(fit_starflat(shuffled, SMALL.shape, FEW).delta, small_fit.delta)


@settings(max_examples=5, deadline=None)
@given(which=st.integers(0, 11), shift=st.floats(-5.0, 5.0))
@example(which=7, shift=0.5)
def test_a_constant_on_an_exposure_changes_its_zero_point_alone(small, small_fit, which, shift):
    label = np.unique(small.exposure)[which]
    moved = replace(small, magnitude=small.magnitude + shift * (small.exposure == label))
    fit = fit_starflat(moved, SMALL.shape, FEW)
    np.testing.assert_allclose(fit.delta, small_fit.delta, atol=1e-6)
    change = fit.zero - small_fit.zero
    expected = shift * (np.arange(change.size) == which)
    np.testing.assert_allclose(change, expected - expected.mean(), atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_names_of_stars_change_nothing(small, small_fit, seed):
    labels = np.random.default_rng(seed).choice(10**12, SMALL.stars, replace=False)
    fit = fit_starflat(replace(small, star=labels[small.star]), SMALL.shape, FEW)
    np.testing.assert_allclose(fit.delta, small_fit.delta, atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(slopes=st.tuples(st.floats(-0.002, 0.002), st.floats(-0.002, 0.002)))
def test_planes_are_invisible(small, small_fit, slopes):
    """A tilt of the illumination moves stars and zero points, not the map.

    But for how the field turns between dithers: by 1.2 degrees at most here, so that 2 % of a tilt along u is one
    along v.
    """
    nodes = Nodes(SMALL.shape, (4, 4))
    node, across, along = nodes.place(small.rcid, small.y, small.x)
    u, v = (sum(w[n] * s for n, s in nodes.shares(node, across, along)) for w in nodes.focal_plane())
    tilted = replace(small, magnitude=small.magnitude + slopes[0] * u + slopes[1] * v)
    turned = np.sin(np.radians(1.2)) * (abs(slopes[0]) * np.abs(v).max() + abs(slopes[1]) * np.abs(u).max())
    all_kept = replace(FEW, clip=1e3)
    fits = [fit_starflat(m.take(small_fit_kept(small_fit)), SMALL.shape, all_kept) for m in (small, tilted)]
    np.testing.assert_allclose(fits[1].delta, fits[0].delta, atol=turned + 1e-6)


def small_fit_kept(fit):
    return np.sort(fit.system.order[fit.weight > 0])
