"""Quadrants, CCDs and the focal plane on the sky: no flip or swap can hide, and nothing is read too early."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from ztfzarr import geometry, tables
from ztfzarr.kernels import blocks
from ztfzarr.plot import block_flags, block_mean, block_median, camera_mosaic, mosaic

NY, NX = 77, 96  # a gap of 17 rows and 15 columns
GAP_Y, GAP_X = round(NY * 672 / 3080), round(NX * 488 / 3072)


def camera(ccds: Any = geometry.CCDS, quadrants: Any = geometry.QUADRANTS) -> xr.DataArray:
    """An image in which every pixel says where it was stored: ccd, quadrant, row and column in one number."""
    shape = (len(ccds), len(quadrants), NY, NX)
    ccd, quadrant, y, x = np.indices(shape)
    values = (np.array(ccds)[ccd] * 10 + np.array(quadrants)[quadrant]) * 10_000 + y * 100 + x
    labels = {"ccd": list(ccds), "quadrant": list(quadrants), "y": np.arange(NY), "x": np.arange(NX)}
    return xr.DataArray(values.astype(np.float64), labels, ("ccd", "quadrant", "y", "x"), "image", {"units": "DN"})


def real_wcs() -> WCS:
    """The WCS of CCD 13 q3 in the header of ztf_20200924431759, without its distortions of a few pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval = [1536.5, 1540.5], [57.9974032715, 35.74628707041]
    wcs.wcs.cd = [[-2.811703032876e-4, -7.697098117566e-6], [7.721274603541e-6, -2.811698359281e-4]]
    return wcs


def test_a_quadrant_has_the_orientation_of_the_real_one() -> None:
    """The stored pixels at the mosaic's corners are where the real header puts them on the sky."""
    one = mosaic(camera().sel(ccd=13, quadrant=3))
    stored = {
        (north, west): (float(one["x"][-west]), float(one["y"][-north])) for north in (0, 1) for west in (0, 1)
    }
    full = {place: (x / (NX - 1) * 3071, y / (NY - 1) * 3079) for place, (x, y) in stored.items()}
    sky = {place: real_wcs().wcs_pix2world([pixel], 0)[0] for place, pixel in full.items()}
    for side in (0, 1):
        assert sky[1, side][1] - sky[0, side][1] > 0.8  # north is up
        assert sky[side, 0][0] - sky[side, 1][0] > 0.8  # east is left
    assert one.values[0, 0] == camera().sel(ccd=13, quadrant=3).values[-1, 0]


def origin(ccd: int, quadrant: int, across: str) -> tuple[int, int]:
    """Row and column of a quadrant's southern, left edge, from the corner table alone."""
    centres = tables.quadrant_corners().mean(axis=1)
    own = centres[geometry.rcid(ccd, quadrant)]
    to_the_right = own[0] if across == "east" else -own[0]
    column, row = (round((v + 3.2) / 0.94) for v in (to_the_right, own[1]))
    column, row = int(np.clip(column, 0, 7)), int(np.clip(row, 0, 7))
    return row * NY + row // 2 * GAP_Y, column * NX + column // 2 * GAP_X


@pytest.mark.parametrize("across", ["west", "east"])
def test_the_focal_plane(across: str) -> None:
    """Each quadrant is where the corner table has it, turned as it should be; all else is NaN."""
    image = camera()
    joined = (mosaic if across == "west" else camera_mosaic)(image)
    assert joined.dims == ("north", across)
    assert joined.shape == (8 * NY + 3 * GAP_Y, 8 * NX + 3 * GAP_X)
    expected = np.full(joined.shape, np.nan)
    for ccd in geometry.CCDS:
        for quadrant in geometry.QUADRANTS:
            row, column = origin(ccd, quadrant, across)
            stored = image.sel(ccd=ccd, quadrant=quadrant).values
            turned = stored[::-1] if across == "west" else stored[::-1, ::-1]
            expected[row : row + NY, column : column + NX] = turned
    np.testing.assert_array_equal(joined.values, expected)


@pytest.mark.parametrize("across", ["west", "east"])
def test_every_pixel_says_where_it_was_stored(across: str) -> None:
    joined = (mosaic if across == "west" else camera_mosaic)(camera().sel(ccd=5))
    code = joined.values.astype(int)
    y, x = np.broadcast_arrays(joined["y"].values[:, None], joined["x"].values[None, :])
    assert np.array_equal(code % 10_000, y * 100 + x)
    top, bottom = ((1, 2), (4, 3)) if across == "west" else ((2, 1), (3, 4))
    quadrants = code // 10_000 % 10
    assert tuple(quadrants[-1, [0, -1]]) == top
    assert tuple(quadrants[0, [0, -1]]) == bottom


def test_what_is_missing_stays_empty() -> None:
    image = camera(ccds=(3, 16), quadrants=(4, 1))
    joined = mosaic(image)
    assert np.isfinite(joined).sum() == 4 * NY * NX
    whole = mosaic(camera())
    kept = np.isin(whole.values // 100_000, (3, 16)) & np.isin(whole.values // 10_000 % 10, (1, 4))
    np.testing.assert_array_equal(joined.values, whole.where(kept).values)
    assert (mosaic(image.astype(np.uint16)).values[np.isnan(joined)] == 0).all()


BAD = [
    pytest.param(camera().drop_vars("ccd"), "has no labels along ccd", id="no labels"),
    pytest.param(camera().assign_coords(ccd=range(16)), "expected labels from 1 to 16", id="labels from 0"),
    pytest.param(camera().assign_coords(quadrant=[1, 2, 3, 3]), "each once", id="a quadrant twice"),
    pytest.param(camera().sel(ccd=1).rename(y="row"), "has no dimension y", id="other dimensions"),
    pytest.param(camera().isel(quadrant=0), "has no dimension quadrant", id="CCDs of one quadrant"),
]


@pytest.mark.parametrize(("image", "message"), BAD)
def test_refusals(image: xr.DataArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mosaic(image)


def counted(graph: Any, keys: Any, **options: Any) -> Any:
    counted.calls += 1
    return dask.get(graph, keys, **options)


def test_lazy_and_the_same() -> None:
    image = camera()
    counted.calls = 0
    with dask.config.set(scheduler=counted):
        joined = mosaic(block_mean(image.chunk(ccd=1, quadrant=1, y=30), 8))
        assert counted.calls == 0
        lazy = joined.compute()
        assert counted.calls == 1
    xr.testing.assert_identical(lazy, mosaic(block_mean(image, 8)))
    xr.testing.assert_identical(image, camera())


def test_a_part_needs_only_its_quadrant() -> None:
    def load(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        loaded.append(block_info[0]["chunk-location"])
        return block

    loaded: list[tuple[int, ...]] = []
    chunked = camera().chunk(ccd=1, quadrant=1)
    data = chunked.data.map_blocks(load, dtype=float, meta=np.empty((0,) * 4))
    corner = mosaic(chunked.copy(data=data))[:4, :4].compute(scheduler="sync")
    assert set(loaded) == {(0, 3, 0, 0)}  # CCD 1 q4: the south-east
    assert corner.values[0, 0] == camera().sel(ccd=1, quadrant=4).values[-1, 0]


def test_binned_pixels_lie_where_their_pixels_lay() -> None:
    """Coordinates of a binned focal plane and of the whole one are the same scale."""
    image = camera()
    whole, binned = mosaic(image), mosaic(block_mean(image, 7))
    for dim in ("north", "west"):
        assert float(binned[dim][0]) == pytest.approx(3, abs=1)
        assert float(binned[dim][-1]) == pytest.approx(float(whole[dim][-1]) - 3, abs=2 * 3 * 7)
    assert float(binned["y"].max()) <= NY - 1


shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(deadline=None)  # the first call compiles
@given(shape=shapes, size=st.integers(2, 9), seed=st.integers(0, 99))
def test_blocks_are_those_of_numpy(shape: tuple[int, int], size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=shape).astype(np.float32)
    pixels[rng.random(shape) < 0.3] = np.nan
    flags = rng.integers(0, 65536, shape).astype(np.uint16)
    rows, columns = (max(round(n / size), 1) for n in shape)
    for i in range(rows):
        for j in range(columns):
            part = np.s_[
                i * shape[0] // rows : (i + 1) * shape[0] // rows,
                j * shape[1] // columns : (j + 1) * shape[1] // columns,
            ]
            finite = pixels[part][np.isfinite(pixels[part])].astype(float)
            expected = finite.mean() if finite.size else np.nan
            assert blocks.block_means(pixels, size, size)[i, j] == pytest.approx(expected, rel=1e-5, nan_ok=True)
            assert blocks.block_flags(flags, size, size)[i, j] == np.bitwise_or.reduce(flags[part], axis=None)


def test_rebinned_arrays() -> None:
    image = camera().sel(ccd=2).astype(np.float32)
    image[0, :7, :8] = np.nan
    mean, median = block_mean(image, 7), block_median(image, 7)
    assert mean.dims == image.dims
    assert mean.shape == (4, 11, 14)
    assert np.isnan(mean.values[0, 0, 0])
    assert mean.attrs == image.attrs
    assert float(median[1, 3, 4]) == float(np.median(image.values[1, 21:28, 4 * 96 // 14 : 5 * 96 // 14]))
    assert block_mean(image, 1).equals(image)
    np.testing.assert_allclose(mean["y"], np.arange(11) * 7 + 3)
    with pytest.raises(ValueError, match="expected 1 or more"):
        block_mean(image, 0)


def test_a_flag_of_one_pixel_is_not_lost() -> None:
    flags = xr.zeros_like(camera(), dtype=np.uint16)
    flags.loc[{"ccd": 7, "quadrant": 2, "y": 40, "x": 17}] = 1 << 9
    small = mosaic(block_flags(flags, 8))
    assert (small.values != 0).sum() == 1
    where = small.where(small != 0, drop=True)
    assert abs(float(where["y"][0]) - 40) < 5
    assert abs(float(where["x"][0]) - 17) < 5
