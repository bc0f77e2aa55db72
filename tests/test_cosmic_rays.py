"""Cosmic rays in the mask: against where they were made to fall, against astroscrappy, lazy, stored, at edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import made
import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.kernels.cosmic_rays import REACH, cosmic_rays
from ztfzarr.masters.cosmic_rays import OBJLIM, SIGCLIP, SIGFRAC, candidates, find_cosmic_rays
from ztfzarr.masters.mask import MASKS
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.schema import faults
from ztfzarr.simulate import camera, readout, simulate_night
from ztfzarr.steps.amplifier_offset import amplifier_offset

GAIN, READ_NOISE, SKY = 6.0, 9.5, 150.0
SETTINGS = {"sigclip": SIGCLIP, "sigfrac": SIGFRAC, "objlim": OBJLIM}
ON = ["science.cosmic_rays=lacosmic", "science.rounding=0"]
TOUCHING = np.ones((3, 3))
STEP = 20  # pixels between stars


class Field:
    """Stars of a width on a grid, each somewhere within its pixel, with photons, reading and tracks of charge."""

    def __init__(self, rows: int, fwhm: float, hits: int, *, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        side = rows * STEP
        centre = STEP * (np.indices((rows, rows)) + 0.5) + rng.uniform(-0.5, 0.5, (2, rows, rows))
        self.peak = 10 ** rng.uniform(1.5, 4.6, (rows, rows))
        y, x = np.indices((side, side))
        star = (y // STEP, x // STEP)
        square = (y - centre[0][star]) ** 2 + (x - centre[1][star]) ** 2
        light = SKY + self.peak[star] * np.exp(-4 * np.log(2) * square / fwhm**2)
        self.hits = np.zeros((side, side), np.float32)
        np.add.at(self.hits.reshape(-1), *readout.cosmic_rays(hits, (side, side), GAIN, rng))
        noise = rng.normal(0, READ_NOISE / GAIN, light.shape)
        self.image = (rng.poisson(light * GAIN) / GAIN + noise + self.hits).astype(np.float32)
        self.variance = (np.maximum(self.image, 0) / GAIN + (READ_NOISE / GAIN) ** 2).astype(np.float32)
        self.near = ndimage.binary_dilation(self.hits > 0, TOUCHING, 3)
        self.core = square < 9

    def found(self, **settings: float) -> np.ndarray:
        return candidates(self.image, self.variance, np.zeros(self.image.shape, np.uint16), **SETTINGS | settings)

    def stars_flagged(self, found: np.ndarray) -> float:
        """Share of the stars without a hit near them that have a flagged pixel in their core."""
        blocks = (len(self.peak), STEP, len(self.peak), STEP)
        clean = ~(self.near & self.core).reshape(blocks).any((1, 3))
        return float((found & self.core).reshape(blocks).any((1, 3))[clean].mean())


@pytest.fixture(scope="module")
def field() -> Field:
    return Field(50, 2.0, 200)


def test_completeness_and_purity(field: Field) -> None:
    found = field.found()
    bright = field.hits > 50
    tracks, count = ndimage.label(bright, TOUCHING)
    assert len(np.unique(tracks[found & bright])) / count > 0.98
    assert (found & bright).sum() / bright.sum() > 0.96
    pieces, count = ndimage.label(found, TOUCHING)
    assert len(np.unique(pieces[found & field.near])) / count > 0.97
    assert found.dtype == bool


@pytest.mark.parametrize(("fwhm", "most"), [(1.7, 0.003), (2.0, 0.001), (3.0, 0.001)])
def test_cores_of_stars_are_left_alone(fwhm: float, most: float) -> None:
    stars = Field(45, fwhm, 0, seed=2)
    assert stars.stars_flagged(stars.found()) <= most


def test_stars_of_a_real_width_need_the_default_contrast() -> None:
    """What van Dokkum has for well sampled images would flag most stars: the figure above can fail."""
    stars = Field(30, 1.7, 0, seed=3)
    assert stars.stars_flagged(stars.found(objlim=2.0)) > 0.5


@pytest.mark.parametrize(
    "settings", [{}, {"objlim": 5.0}, {"sigclip": 4.5, "sigfrac": 0.5, "objlim": 3.0}], ids=str
)
def test_it_is_what_astroscrappy_finds(field: Field, settings: dict[str, float]) -> None:
    """But for the pixels at the border, where that has no medians."""
    other = pytest.importorskip("astroscrappy")
    part = np.s_[:300, :240]
    image, variance = (np.ascontiguousarray(v[part]) for v in (field.image, field.variance))
    options = {"invar": variance, "gain": 1.0, "satlevel": np.inf, "sepmed": False, "cleantype": "medmask"}
    theirs, _ = other.detect_cosmics(image, **options, **SETTINGS | settings)
    ours = candidates(image, variance, np.zeros(image.shape, np.uint16), **SETTINGS | settings)
    inner = np.s_[8:-8, 8:-8]
    assert (ours != theirs)[inner].sum() <= 0.02 * theirs.sum()  # of 225, three at sigclip 4.5
    assert theirs.sum() > 100


def test_a_part_with_its_reach_is_the_whole(field: Field) -> None:
    mask = np.zeros(field.image.shape, np.uint16)
    mask[:, 333] = MASKS["dead"]
    mask[400:403, 300:310] = MASKS["saturated"]
    whole = candidates(field.image, field.variance, mask, **SETTINGS | {"objlim": 2.0})
    assert whole.sum() > 2000
    for y, x in ((200, 300), (390, 280), (0, 700)):
        rows, columns = slice(max(y - REACH, 0), y + 100 + REACH), slice(x - REACH, x + 64 + REACH)
        parts = (v[rows, columns] for v in (field.image, field.variance, mask))
        part = candidates(*parts, **SETTINGS | {"objlim": 2.0})
        top = y - rows.start
        assert np.array_equal(part[top : top + 100, REACH:-REACH], whole[y : y + 100, x : x + 64])


def flat_image(shape: tuple[int, int] = (60, 60)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.random.default_rng(4).normal(SKY, 5, shape).astype(np.float32)
    return image, np.full(shape, 25, np.float32), np.zeros(shape, np.uint16)


@pytest.mark.parametrize("at", [(0, 0), (0, 30), (59, 31), (1, 30), (30, 59), (30, 30)], ids=str)
def test_a_hit_is_found_at_the_edges_too(at: tuple[int, int]) -> None:
    image, variance, mask = flat_image()
    image[at] += 400
    variance[at] += 400 / GAIN
    found = candidates(image, variance, mask, **SETTINGS)
    assert found[at]
    assert found.sum() <= 2


def test_bad_and_saturated_pixels_are_no_candidates() -> None:
    image, variance, mask = flat_image()
    for at, value, bit in (((10, 10), 900, "hot"), ((30, 30), 60_000, "saturated")):
        image[at], mask[at] = value, MASKS[bit]
    image[11, 11] += 500  # touches the hot one
    image[30, 34] += 500  # within four pixels of the saturated one
    image[30, 35] += 500
    image[50, 10] = np.nan
    image[50, 12] += 500
    mask[50, 12] = MASKS["suspect"] | MASKS["low_response"]
    found = candidates(image, variance, mask, **SETTINGS)
    assert sorted(map(tuple, np.argwhere(found).tolist())) == [(30, 35), (50, 12)]


def test_a_hit_does_not_hide_in_its_own_noise() -> None:
    image, variance, mask = flat_image()
    image[30, 30] += 200
    variance[30, 30] = 1e6
    assert candidates(image, variance, mask, **SETTINGS)[30, 30]


def test_nothing_is_found_in_nothing() -> None:
    image = np.full((40, 40), np.nan, np.float32)
    none = np.zeros(image.shape, bool)
    assert not cosmic_rays(image, image, none, none, **SETTINGS).any()


@pytest.fixture(scope="module")
def night() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    one = camera([2, 6], (120, 140), 1)
    bias = ztfzarr.master_bias(made.exposed(one, made.planned("b", bias=14)))
    lamps = made.exposed(one, [e for e in made.planned("f", flats=3) if e.led in (2, 7)])
    sky = made.exposed(one, [e for e in made.planned("o", science=4) if e.filter in ("zg", "zr")])
    sky["raw"][0, 1, 2, 50, 60] += 900
    return sky, bias, ztfzarr.master_flat(lamps, bias, leds={2: "zg", 7: "zr"})


def test_science_marks_spikes_and_changes_no_pixel(night: tuple[xr.Dataset, ...]) -> None:
    sky, bias, flat = night
    plain, found = (ztfzarr.science(sky, bias, flat, cosmic_rays=s) for s in (None, {}))
    xr.testing.assert_identical(found["science"], plain["science"])
    assert found["mask"].attrs == plain["mask"].attrs
    spikes = (found["mask"] & MASKS["spike"]) != 0
    assert spikes[0, 1, 2, 50, 60]
    assert ((found["mask"] & ~np.uint16(MASKS["spike"])) == plain["mask"]).all()
    before = plain["mask"].isel(time=0, ccd=1, quadrant=2)
    image = found["science"].isel(time=0, ccd=1, quadrant=2)
    gain, noise = (float(sky[n][0, 1, 2]) for n in ("gain", "read_noise"))
    k = 1 / float(flat["level"].sel(filter=str(sky["filter"].values[0]), ccd=6))
    response = flat["flat"].sel(filter=str(sky["filter"].values[0]), ccd=6, quadrant=3).values
    with np.errstate(divide="ignore", invalid="ignore"):
        own = (np.maximum(image.values * response / k, 0) / gain + (noise / gain) ** 2) * (k / response) ** 2
    expected = candidates(image.values, own.astype(np.float32), before.values, **SETTINGS)
    assert np.array_equal(spikes[0, 1, 2].values, expected)


def test_lazy(night: tuple[xr.Dataset, ...]) -> None:
    sky, bias, flat = night
    expected = ztfzarr.science(sky, bias, flat, cosmic_rays={"sigclip": 5.0})
    with dask.config.set(scheduler=made.tables_only):
        lazy = ztfzarr.science(sky.chunk(time=1, ccd=1, y=50), bias, flat, cosmic_rays={"sigclip": 5.0})
    assert dask.is_dask_collection(lazy["mask"].data)
    xr.testing.assert_equal(lazy.compute(), expected)


def test_units_are_asked_for(night: tuple[xr.Dataset, ...]) -> None:
    found = ztfzarr.science(*night)
    with pytest.raises(ValueError, match="expected 'DN2'"):
        find_cosmic_rays(found["science"], found["science"], found["mask"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Science without and with cosmic rays, v1 and v2, and with amplifiers' offsets too, v3."""
    path = tmp_path_factory.mktemp("cosmic_rays") / "night.zarr"
    simulate_night(path.parent, ccds=(2, 11), shape=(120, 140), bias=13, flats=3, science=3)
    ingest(path, [path.parent / "raw"])
    assert not any(r.refused for r in reduce(path))
    for version, more in {"v2": (), "v3": ("science.amplifier_offset=true", "science.variance=true")}.items():
        recipe = read_recipe("", [*ON, "science.sigclip=4.5", *more])
        assert not any(r.refused for r in reduce(path, ["science"], version=version, recipe=recipe))
    return path


def opened(store: Path, version: str) -> xr.Dataset:
    found = xr.open_zarr(f"{store}/science/{version}", chunks=None, zarr_format=3)
    return found.isel(time=(found["imgtype"] == "object").values).sortby("time").sel(ccd=[2, 11])


@pytest.mark.parametrize(
    ("version", "names"), [("v2", ("science", "mask")), ("v3", ("science", "mask", "variance"))]
)
def test_stored_is_computed_in_any_part(store: Path, version: str, names: tuple[str, ...]) -> None:
    stored, computed = opened(store, version), ztfzarr.open_science(store, version=version).sel(ccd=[2, 11])
    assert (stored["mask"].values & MASKS["spike"]).any()
    for name in names:
        assert np.array_equal(stored[name].values, computed[name].values, equal_nan=True)
    for part in (np.s_[0, 1, 2, 40:70, 33:90], np.s_[1, :, [3, 0], 119:3:-9, [5, 90, 6]], np.s_[2, 0, 1, 60, 70]):
        assert np.array_equal(stored["mask"][part].values, computed["mask"][part].values)


def test_offsets_of_amplifiers_are_measured_without_them(store: Path) -> None:
    """By the same pixels as where no cosmic rays are sought."""
    found = opened(store, "v3")
    plain = ztfzarr.open_science(store, version="v1").sel(ccd=[2, 11]).load()
    own = amplifier_offset(plain["science"], plain["mask"])
    assert np.abs(found["amplifier_offset"].values).max() > 0
    np.testing.assert_allclose(own["offset"].values, found["amplifier_offset"].values, atol=1e-3)


def test_they_are_counted(store: Path) -> None:
    stored = opened(store, "v2")
    spikes = ((stored["mask"] & MASKS["spike"]) != 0).sum(("y", "x"))
    assert stored["cosmic_rays"].dims == ("time", "ccd", "quadrant")
    assert np.array_equal(stored["cosmic_rays"].values, spikes.values)
    assert spikes.values.max() > 0


def test_off_is_as_it_was(store: Path) -> None:
    stored = opened(store, "v1")
    assert "cosmic_rays" not in stored
    assert not (stored["mask"].values & MASKS["spike"]).any()
    assert default_recipe()["science"]["cosmic_rays"] == "off"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_satisfy_the_schema(store: Path, version: str) -> None:
    assert faults(document(store, version), "science") == []


def test_the_schema_pins_the_count(store: Path) -> None:
    wrong = document(store, "v2")
    wrong["consolidated_metadata"]["metadata"]["cosmic_rays"]["data_type"] = "int16"
    assert any("'int32' was expected" in line for line in faults(wrong, "science"))


def document(store: Path, version: str) -> dict[str, Any]:
    return json.loads((store / "science" / version / "zarr.json").read_text())
