"""Joins of quadrants: offsets of amplifiers against what was put in, and stars that lie across them."""

from __future__ import annotations

from types import SimpleNamespace

import dask
import made
import numpy as np
import pytest
import skies
import xarray as xr

from ztfzarr.geometry import (
    JOINS,
    ccd_on_sky,
    first_pixel,
    in_read_order,
    indices_at_join,
    join_distance,
    joined_ccd,
    on_sky,
)
from ztfzarr.kernels.joins import ROUNDS, join_step, quadrant_offsets
from ztfzarr.masters.mask import MASKS
from ztfzarr.photometry.columns import FLAGS
from ztfzarr.photometry.measure import measure
from ztfzarr.photometry.pixels import prepare
from ztfzarr.photometry.quadrant import ccd_stars, quadrant_stars
from ztfzarr.steps.amplifier_offset import amplifier_offset, subtract_amplifier_offset

SHAPE = (192, 176)
QUADRANTS = (1, 2, 3, 4)


def cut(image: np.ndarray) -> np.ndarray:
    """The four quadrants (4, y, x) of a CCD's image, by hand: q1 q2 above q4 q3."""
    height, width = (n // 2 for n in image.shape)
    upper, lower = image[:height], image[height:]
    return np.stack([upper[:, :width], upper[:, width:], lower[:, width:], lower[:, :width]])


def exposed(
    seed: int, *, steps: np.ndarray | None = None, shape: tuple[int, int] = SHAPE, stars: int = 50
) -> SimpleNamespace:
    """A sloping sky with stars, bad pixels and a level of each quadrant's own; ``steps`` of which the sum is 0."""
    rng = np.random.default_rng(seed)
    whole = 2 * shape[0], 2 * shape[1]
    place = rng.uniform(0, whole, (stars, 2))
    light = skies.with_stars(np.zeros(whole, np.float32), *place.T[::-1], 10 ** rng.uniform(2.5, 5, stars))
    v, u = (np.linspace(-1, 1, n) for n in whole)
    sky = 200 * (1 + 0.01 * u - 0.02 * v[:, np.newaxis]) + light
    counts = rng.poisson(sky * skies.GAIN) / skies.GAIN + rng.normal(0, skies.READ_NOISE, whole)
    bad = rng.uniform(size=whole) < 0.01
    counts[bad] = rng.choice([np.nan, 1e4, -1e4], bad.sum())
    if steps is None:
        steps = rng.normal(0, 1, 4)
        steps -= steps.mean()
    labels = {"time": [0], "ccd": [6], "quadrant": list(QUADRANTS)}
    dims = ("time", "ccd", "quadrant", "y", "x")
    images = (cut(counts) + steps[:, np.newaxis, np.newaxis]).astype(np.float32)[np.newaxis, np.newaxis]
    mask = cut(np.where(bad, MASKS["dead"], 0).astype(np.uint16))[np.newaxis, np.newaxis]
    science = xr.DataArray(images, labels, dims, "science", {"units": "DN"})
    return SimpleNamespace(science=science, mask=xr.DataArray(mask, labels, dims), steps=steps)


def oracle(science: np.ndarray, good: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and errors of one CCD (4, y, x), segment by segment, with numpy's own fits."""
    height, columns = science.shape[1:]
    sides = {
        "x": lambda v, q: v[q - 1][:, ::-1][:, :width] if q in (1, 4) else v[q - 1][:, :width],
        "y": lambda v, q: (v[q - 1][::-1][:width] if q in (1, 2) else v[q - 1][:width]).T,
    }
    steps, errors = [], []
    for first, second, axis in ((1, 2, "x"), (4, 3, "x"), (1, 4, "y"), (2, 3, "y")):
        long = height if axis == "x" else columns
        length = max(long // 48, min(24, long // 8))
        parts = [(sides[axis](science, q), sides[axis](good, q)) for q in (first, second)]
        levels = [_segments(np.nan_to_num(image.astype(float)), fine, length) for image, fine in parts]
        found = np.subtract(*levels)
        middle = np.median(found)
        found = found[np.abs(found - middle) <= 4 * 1.4826 * np.median(np.abs(found - middle))]
        steps.append(found.mean())
        errors.append(found.std(ddof=1) / len(found) ** 0.5)
    design = np.array([[1, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, -1], [0, 1, -1, 0], [1e6, 1e6, 1e6, 1e6]])
    weight = np.append(1 / np.array(errors), 1.0)
    solved = np.linalg.lstsq(design * weight[:, None], np.append(steps, 0) * weight, rcond=None)[0]
    covariance = np.linalg.inv((design * weight[:, None]).T @ (design * weight[:, None]))
    return solved, np.sqrt(np.diag(covariance))


def _segments(image: np.ndarray, fine: np.ndarray, length: int) -> list[float]:
    """Levels at the join of one side (along, across): clipped lines, then without what stands out smoothed."""
    lines, residual, kept = [], np.zeros(image.shape), np.zeros(image.shape, bool)
    some = [slice(i * length, (i + 1) * length) for i in range(len(image) // length)]
    where = np.arange(image.shape[1]) + 0.5
    for s in some:
        line = np.full(fine[s].shape, np.median(image[s][fine[s]]))
        for _ in range(ROUNDS):
            apart = np.abs(image[s] - line)
            good = fine[s] & (apart <= 3 * 1.4826 * np.median(apart[fine[s]]))
            slope, level = np.polyfit(np.broadcast_to(where, good.shape)[good], image[s][good], 1)
            line = np.broadcast_to(level + slope * where, good.shape)
        residual[s], kept[s] = np.where(good, image[s] - line, 0), good
    padded = np.pad(residual[: some[-1].stop], 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    apart = np.abs(windows.mean(axis=(2, 3)))
    for s in some:
        good = kept[s] & (apart[s] <= 3 * 1.4826 * np.median(apart[s][kept[s]]))
        lines.append(np.polyfit(np.broadcast_to(where, good.shape)[good], image[s][good], 1)[1])
    return lines


def test_a_ccd_is_joined_as_it_lies_on_the_sky() -> None:
    quadrants = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    whole = joined_ccd(quadrants)
    assert np.array_equal(on_sky(whole), ccd_on_sky(quadrants))
    assert np.array_equal(cut(whole), quadrants)
    for quadrant in QUADRANTS:
        row, column = first_pixel(quadrant, (6, 5))
        assert np.array_equal(whole[row : row + 6, column : column + 5], quadrants[quadrant - 1])
        read_last = in_read_order(quadrants[quadrant - 1], quadrant)[::-1, ::-1]
        at_join = quadrants[quadrant - 1][indices_at_join(quadrant, "y", 6, 6)]
        assert np.array_equal(at_join[:, indices_at_join(quadrant, "x", 5, 5)], read_last)
    for first, second, axis in JOINS:
        apart = np.subtract(first_pixel(second, (6, 5)), first_pixel(first, (6, 5)))
        assert apart.tolist() == ([0, 5] if axis == "x" else [6, 0])
    with pytest.raises(ValueError, match="7 of 6 along 'y' of quadrant 1: expected x or y, and 1-4"):
        indices_at_join(1, "y", 7, 6)
    with pytest.raises(ValueError, match="no quadrant 5"):
        first_pixel(5, (6, 5))


@pytest.mark.parametrize(("quadrant", "x", "y"), [(1, 173, 100), (2, 2, 100), (3, 80, 2), (4, 80, 2)])
def test_distance_to_the_nearest_join(quadrant: int, x: float, y: float) -> None:
    assert join_distance(np.array([quadrant]), np.array([x]), np.array([y]), SHAPE).tolist() == [2]


@pytest.mark.parametrize(("stars", "chi2", "rms"), [(0, 1.4, 0.15), (50, 2.2, 0.3)])
def test_offsets_and_their_errors(stars: int, chi2: float, rms: float) -> None:
    """Of 24 exposures with bad pixels and slopes: errors are right; with stars they are too small."""
    pulls, off = [], []
    for seed in range(24):
        one = exposed(seed, stars=stars)
        found = amplifier_offset(one.science, one.mask).isel(time=0, ccd=0)
        off.append(found["offset"].values - one.steps)
        pulls.append(off[-1] / found["error"].values)
        assert found["offset"].sum() == pytest.approx(0, abs=1e-9)
    assert 0.6 < np.mean(np.square(pulls)) < chi2
    assert np.abs(np.mean(pulls, axis=0)).max() < 4 * chi2**0.5 / 24**0.5
    assert np.std(off) < rms


def test_offsets_by_the_oracle() -> None:
    one = exposed(3, shape=(210, 150))
    found = amplifier_offset(one.science, one.mask, width=20).isel(time=0, ccd=0)
    good = np.isfinite(one.science.values) & (one.mask.values == 0)
    offsets, errors = oracle(one.science.values[0, 0], good[0, 0], 20)
    np.testing.assert_allclose(found["offset"], offsets, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["error"], errors, rtol=1e-5)
    assert found["offset"].attrs["units"] == "DN"


def test_levels_are_taken_and_counts_not_scaled() -> None:
    one, steps = exposed(5), np.array([3.0, -1.0, -4.0, 2.0])
    other = exposed(5, steps=steps)
    offsets = [amplifier_offset(e.science, e.mask)["offset"] for e in (one, other)]
    assert (offsets[1] - offsets[0]).values[0, 0] == pytest.approx(steps - one.steps, abs=2e-5)
    flat = subtract_amplifier_offset(other.science, offsets[1])
    taken = (other.science - flat).values[0, 0]
    assert taken.dtype == np.float32
    for i in range(4):
        assert np.nanmax(np.abs(taken[i][np.abs(taken[i]) < 10] - float(offsets[1][0, 0, i]))) < 1e-3
    again = amplifier_offset(flat, other.mask)["offset"]
    assert np.abs(again).max() < 1e-3


def test_lazy_whatever_the_chunks_and_inputs_unchanged() -> None:
    one = exposed(1)
    before = one.science.copy(deep=True)
    expected = amplifier_offset(one.science, one.mask)
    flat = subtract_amplifier_offset(one.science, expected["offset"])
    xr.testing.assert_identical(one.science, before)
    for chunks in ({"y": 50, "x": 37}, {"quadrant": 1}, {"ccd": 1, "y": -1}):
        with dask.config.set(scheduler=made.tables_only):
            lazy = amplifier_offset(one.science.chunk(chunks), one.mask.chunk(chunks))
            lazy_flat = subtract_amplifier_offset(one.science.chunk(chunks), lazy["offset"])
        assert dask.is_dask_collection(lazy["offset"].data)
        assert dask.is_dask_collection(lazy_flat.data)
        xr.testing.assert_allclose(lazy.compute(), expected, rtol=1e-12)
        np.testing.assert_array_equal(lazy_flat.values, flat.values)
    turned = {"quadrant": [3, 1, 4, 2]}
    xr.testing.assert_allclose(
        amplifier_offset(one.science.sel(turned), one.mask.sel(turned)), expected.sel(turned)
    )


def test_what_joins_do_not_tell() -> None:
    one = exposed(2)
    lost = one.science.copy(deep=True)
    lost[0, 0, 2] = np.nan
    found = amplifier_offset(lost, one.mask)["offset"][0, 0]
    assert np.isnan(found[2])
    whole = amplifier_offset(one.science, one.mask)["offset"][0, 0]
    assert found.values[[0, 1, 3]].sum() == pytest.approx(0, abs=1e-9)
    assert float(found[0] - found[1]) == pytest.approx(float(whole[0] - whole[1]), abs=0.5)
    kept = subtract_amplifier_offset(lost, found.expand_dims(time=[0], ccd=[6]))
    assert np.isnan(kept[0, 0, 2]).all()
    offsets, errors = quadrant_offsets(np.full(4, np.nan), np.full(4, np.nan))
    assert np.isnan(offsets).all()
    assert np.isnan(errors).all()
    pairs = quadrant_offsets(np.array([2.0, 6.0, np.nan, np.nan]), np.array([0.1, 0.2, np.nan, np.nan]))[0]
    assert pairs.tolist() == pytest.approx([1, -1, -3, 3])
    assert np.isnan(join_step(np.ones((3, 3)), np.ones((3, 3)), (np.ones((3, 3), bool),) * 2)).all()
    assert np.isnan(join_step(np.ones((96, 9)), np.ones((96, 9)), (np.zeros((96, 9), bool),) * 2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda s: s.sel(quadrant=[1, 2, 3]), r"quadrants \[1, 2, 3\]: expected all four", id="missing"
        ),
        pytest.param(lambda s: s.assign_attrs(units="e-"), "is in 'e-', expected 'DN'", id="units"),
        pytest.param(lambda s: s.drop_vars("ccd"), "has no labels along ccd", id="labels"),
    ],
)
def test_what_is_refused(change, message: str) -> None:
    one = exposed(1)
    with pytest.raises(ValueError, match=message):
        amplifier_offset(change(one.science), one.mask)


CORNER = [(SHAPE[1] - 0.5, SHAPE[0] - 0.5), (SHAPE[1] - 1.2, SHAPE[0] - 0.1), (SHAPE[1] + 2.3, SHAPE[0] - 4.0)]


@pytest.mark.parametrize(("x", "y"), CORNER)
def test_a_star_on_the_corner_of_four_quadrants(x: float, y: float) -> None:
    """CCD-wide its flux is whole, within its error; by quadrants it is cut, and flagged."""
    one = skies.field(0.0, 200.0, shape=(2 * SHAPE[0], 2 * SHAPE[1]), step=1000)
    one.light = skies.with_stars(np.zeros_like(one.light), np.array([x]), np.array([y]), np.array([30_000.0]))
    truth = skies.without_noise(one).data.sum()
    images = [cut(image) for image in skies.images(one)]
    parts = ccd_stars(*images)
    quadrant = QUADRANTS[int(np.argmax([part["flux_10"].max(initial=0) for part in parts]))]
    star = parts[quadrant - 1]
    row, column = first_pixel(quadrant, SHAPE)
    assert (star["x"][0] + column, star["y"][0] + row) == pytest.approx((x, y), abs=0.05)
    assert -0.5 <= star["x"][0] < SHAPE[1] - 0.5
    assert -0.5 <= star["y"][0] < SHAPE[0] - 0.5
    assert star["flux_12"][0] == pytest.approx(truth, rel=0.01)
    assert abs(star["flux_12"][0] - 0.996 * truth) < 4 * star["flux_error_12"][0]
    assert star["flags"][0] & FLAGS["edge"] == 0
    for mine in (quadrant_stars(*(image[q - 1] for image in images)) for q in QUADRANTS):
        bright = mine["flux_12"] > 1000
        assert (mine["flux_12"][bright] < 0.97 * truth).all()
        assert (mine["flags"][bright] & FLAGS["edge"] != 0).all()


def test_ccd_wide_is_quadrant_wise_away_from_joins() -> None:
    one = skies.field(20_000.0, 100.0, shape=(2 * SHAPE[0], 2 * SHAPE[1]), step=48)
    images = [cut(image) for image in skies.images(one)]
    parts = ccd_stars(*images)
    assert sum(int((part["flux_10"] > 10_000).sum()) for part in parts) == one.x.size
    compared = 0
    for quadrant, part in zip(QUADRANTS, parts, strict=True):
        alone = quadrant_stars(*(image[quadrant - 1] for image in images))
        inside = join_distance(np.array([quadrant]), part["x"], part["y"], SHAPE) > 26
        for i in np.flatnonzero(inside & (part["flux_10"] > 10_000)):
            nearest = np.argmin(np.hypot(alone["x"] - part["x"][i], alone["y"] - part["y"][i]))
            assert part["flux_10"][i] == pytest.approx(
                alone["flux_10"][nearest], abs=0.3 * part["flux_error_10"][i]
            )
            assert part["flags"][i] & FLAGS["edge"] == alone["flags"][nearest] & FLAGS["edge"]
            compared += 1
    assert compared > 10


def beyond(radius: float, distance: float) -> float:
    """Area of a circle beyond a line."""
    d = min(distance, radius)
    return float(radius**2 * np.arccos(d / radius) - d * np.sqrt(radius**2 - d**2))


@pytest.mark.parametrize("distance", [0.0, 5.0, 10.0, 15.0, 20.0, 26.0])
def test_a_step_at_a_join_moves_apertures_until_it_is_taken(distance: float) -> None:
    """By the pixels that the annulus, scaled, has beyond the join and the aperture not: up to 104 of the step."""
    ring = (beyond(25, distance) - beyond(15, distance)) / (25**2 - 15**2) * 10**2
    pixels = ring - beyond(10, distance)
    assert pixels > 100 if distance == 10 else pixels < 104
    step, y = 4.0, np.array([60.0, 100.0, 140.0])
    x = np.full(3, SHAPE[1] - 0.5 - distance)
    one = exposed(7, stars=0, steps=np.zeros(4))
    science = one.science.fillna(200.0) + np.array([0.5, -0.5, -0.5, 0.5])[:, np.newaxis, np.newaxis] * step
    science = science.assign_attrs(units="DN")
    offset = amplifier_offset(science, one.mask)["offset"]
    flat = subtract_amplifier_offset(science, offset)
    fluxes = []
    for image in (science - one.science.fillna(200.0), flat - one.science.fillna(200.0)):
        whole = joined_ccd(image.values[0, 0].astype(np.float32))
        pixels_of = prepare(whole, np.zeros(whole.shape, np.uint16), np.ones_like(whole))
        fluxes.append(measure(pixels_of, x, y)["flux_10"])
    assert fluxes[0] / step == pytest.approx(pixels, abs=1)
    assert np.abs(fluxes[1]).max() < 0.1 * 104 * step
