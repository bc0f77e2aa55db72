"""Positions on the sky, against astropy's projections and the one real WCS; and ``ztfzarr find``."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawfiles
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ztfzarr
from ztfzarr.cli import main
from ztfzarr.geometry import rcid
from ztfzarr.ingest.run import ingest
from ztfzarr.sky import UNCERTAINTY, seen, tangent_plane
from ztfzarr.store.opening import open_version
from ztfzarr.tables import quadrant_corners

FULL = (3080, 3072)
SHAPE = (80, 64)  # of the store


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


def tangent(ra0: float, dec0: float) -> WCS:
    """Degrees in the tangent plane, to the east and to the north, as 1-based pixels of astropy's TAN."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra0, dec0], [0, 0]
    wcs.wcs.cd = np.eye(2)
    wcs.wcs.lonpole = 180  # its default at the very pole is 0, which turns north round
    return wcs


pointings = st.tuples(
    st.one_of(st.floats(0, 360), st.sampled_from([0.0, 359.999, 180.0])),
    st.one_of(st.floats(-90, 90), st.sampled_from([90.0, -90.0, 89.0, 0.0])),
)
offsets = st.tuples(st.floats(-4, 4), st.floats(-4, 4))


@settings(deadline=None)
@given(pointing=pointings, offset=offsets)
def test_the_tangent_plane_is_that_of_astropy(pointing: tuple[float, float], offset: tuple[float, float]) -> None:
    xi, eta = tangent_plane(*_sky(pointing, *offset), *pointing)
    assert (float(xi), float(eta)) == pytest.approx(offset, abs=1e-7)


def test_what_is_behind_is_nowhere() -> None:
    xi, _ = tangent_plane(10.0, 0.0, [190.0, 100.0, 99.0], [0.0, 0.0, 0.0])
    assert np.isnan(xi).tolist() == [True, True, False]


def in_plane(ccd: int, quadrant: int, u: float, v: float) -> np.ndarray:
    """A point of a quadrant, parts u from the east and v from the north: degrees to the east, to the north."""
    sw, nw, ne, se = quadrant_corners()[rcid(ccd, quadrant)]
    return (1 - v) * ((1 - u) * ne + u * nw) + v * ((1 - u) * se + u * sw)


@settings(deadline=None)
@given(
    pointing=pointings,
    ccd=st.integers(1, 16),
    quadrant=st.integers(1, 4),
    u=st.floats(0.01, 0.99),
    v=st.floats(0.01, 0.99),
)
def test_a_position_is_found_in_its_quadrant(
    pointing: tuple[float, float], ccd: int, quadrant: int, u: float, v: float
) -> None:
    """At the poles and across RA 0 too; stored columns run from east to west, stored rows from north to south."""
    xi, eta = in_plane(ccd, quadrant, u, v)
    ra, dec = _sky(pointing, xi, eta)
    found = seen(ra, dec, [pointing[0] + 180, pointing[0]], [-pointing[1], pointing[1]], FULL)
    assert found.row.tolist() == [1]
    assert (found.ccd.tolist(), found.quadrant.tolist()) == ([ccd], [quadrant])
    assert (found.x[0], found.y[0]) == pytest.approx((u * 3072 - 0.5, v * 3080 - 0.5), abs=0.7)
    expected = min(u * 3072, (1 - u) * 3072, v * 3080, (1 - v) * 3080)
    assert found.edge[0] == pytest.approx(expected, abs=1)


def _sky(pointing: tuple[float, float], xi: float, eta: float) -> tuple[float, float]:
    """Degrees in the tangent plane to the sky, by astropy."""
    ra, dec = tangent(*pointing).wcs_pix2world([[xi, eta]], 1)[0]
    return float(ra), float(dec)


def test_the_real_exposure() -> None:
    """The centre of CCD 13 q3 by the WCS of its header, from the pointing of the same header alone."""
    found = seen(57.9974032715, 35.74628707041, [55.0608], [33.35], FULL)
    assert (found.ccd[0], found.quadrant[0]) == (13, 3)
    miss = np.hypot(found.x[0] - 1535.5, found.y[0] - 1539.5)
    assert 100 < miss < UNCERTAINTY + 5


def test_gaps_see_nothing_and_the_radius_reaches_over_them() -> None:
    corners = quadrant_corners()
    east, west = corners[rcid(6, 2), :, 0].min(), corners[rcid(7, 1), :, 0].max()
    ra, dec = _sky((120.0, 20.0), (east + west) / 2, float(corners[rcid(6, 2), :, 1].mean()))
    assert seen(ra, dec, [120.0], [20.0], FULL).row.size == 0
    half = abs(east - west) / 2
    near = seen(ra, dec, [120.0], [20.0], FULL, radius=half * 1.02)
    assert set(zip(near.ccd.tolist(), near.quadrant.tolist(), strict=True)) == {(6, 2), (7, 1)}
    assert (near.edge < 0).all()
    assert seen(ra, dec, [120.0], [20.0], FULL, radius=half * 0.98).row.size == 0


def test_smaller_quadrants_have_larger_pixels() -> None:
    ra, dec = _sky((120.0, 20.0), *in_plane(11, 4, 0.25, 0.75))
    whole, small = (seen(ra, dec, [120.0], [20.0], shape) for shape in (FULL, SHAPE))
    assert small.x + 0.5 == pytest.approx((whole.x + 0.5) / 48)
    assert small.y + 0.5 == pytest.approx((whole.y + 0.5) / 38.5)


# In a store


@pytest.fixture(scope="module")
def store(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One exposure of two points near the pole, the other at RA 0."""
    path = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("find") / "night.zarr"))
    group = zarr.open_group(path / "raw", mode="r+", use_consolidated=False)
    sky = np.flatnonzero(group["imgtype"][:] == "object")
    group["ra"][sky[0]], group["dec"][sky[0]] = 77.0, 88.5
    group["ra"][sky[1]], group["dec"][sky[1]] = 0.2, 10.0
    return path


def place(store: Path, index: int, ccd: int = 2, quadrant: int = 3) -> tuple[float, float]:
    return _sky(((77.0, 88.5), (0.2, 10.0))[index], *in_plane(ccd, quadrant, 0.5, 0.25))


@pytest.mark.parametrize("index", [0, 1])
def test_find(store: Path, index: int) -> None:
    ra, dec = place(store, index)
    found = ztfzarr.find(store, ra, dec)
    cube = ztfzarr.open_cube(store)
    sky = cube.isel(time=np.flatnonzero(cube["imgtype"].values == "object"))
    assert found["exposure"].values.tolist() == [sky["exposure"].values[index]]
    assert found["time"].values == sky["time"].values[index]
    assert (int(found["ccd"][0]), int(found["quadrant"][0])) == (2, 3)
    assert (float(found["x"][0]), float(found["y"][0])) == pytest.approx((31.5, 19.5), abs=0.1)
    assert float(found["uncertainty"][0]) == pytest.approx(125 / 48)
    assert found["x"].attrs["units"] == "pixel"


def test_only_files_that_are_there(store: Path) -> None:
    assert ztfzarr.find(store, *place(store, 1, ccd=11, quadrant=1)).sizes["match"] == 1
    assert ztfzarr.find(store, *place(store, 1, ccd=5)).sizes["match"] == 0
    assert ztfzarr.find(store, *place(store, 1), nights=(20200802, 20200803)).sizes["match"] == 0
    band = str(ztfzarr.find(store, *place(store, 1))["filter"].values[0])
    assert ztfzarr.find(store, *place(store, 1), band=band).sizes["match"] == 1
    assert ztfzarr.find(store, *place(store, 1), band="zi").sizes["match"] == 0


def test_a_wcs_of_the_header_is_used(tmp_path: Path) -> None:
    """Also where it puts inside what the pointing puts outside."""
    name = rawfiles.raw_name(ccd=13)
    wcs = tangent(0, 0)
    wcs.wcs.crval, wcs.wcs.crpix = [58.0, 35.7], [31, 13]  # the middle of 24 rows and 60 columns
    wcs.wcs.cd = [[-0.0144, 0], [0, -0.036]]

    def change(hdus: fits.HDUList) -> None:
        hdus[0].header["RAD"], hdus[0].header["DECD"] = 55.0608, 33.35
        hdus[3].header.update(wcs.to_header())

    rawfiles.write_raw(tmp_path, name, change=change)
    assert not ingest(tmp_path / "night.zarr", [tmp_path / name]).refused
    for pixel in ((3.0, 20.0), (59.2, 12.0), (30.0, -0.3)):
        ra, dec = (float(v) for v in wcs.wcs_pix2world([pixel], 0)[0])
        found = ztfzarr.find(tmp_path / "night.zarr", ra, dec)
        mine = found.isel(match=np.flatnonzero(found["quadrant"].values == 3))
        assert (float(mine["x"][0]), float(mine["y"][0])) == pytest.approx(pixel, abs=1e-3)
        assert mine["uncertainty"].values.tolist() == [1.0]
    ra, dec = (float(v) for v in wcs.wcs_pix2world([(60.0, 12.0)], 0)[0])
    assert 3 not in ztfzarr.find(tmp_path / "night.zarr", ra, dec)["quadrant"].values


def test_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ra, dec = place(store, 1)
    assert run("find", store, ra, dec) == 0
    out = capsys.readouterr().out
    assert "good to 3 pixels, from the pointing, without a WCS" in out
    assert "    2  3" in out
    assert run("find", store, ra, dec, "--json") == 0
    matches = json.loads(capsys.readouterr().out)["matches"]
    assert [(m["ccd"], m["quadrant"]) for m in matches] == [(2, 3)]
    assert run("find", store, "00:00:00", "-45.5") == 0
    assert "no exposure saw 0.00000 -45.50000" in capsys.readouterr().out
    assert run("find", store, "12:30:00", "-00:30:00") == 0
    assert "no exposure saw 187.50000 -0.50000" in capsys.readouterr().out


WRONG = [
    pytest.param([10, "north"], "'north' is no angle: expected +2.21 or -00:12:30", id="angle"),
    pytest.param([10, 91], "dec within 90", id="declination"),
    pytest.param([10, -20, "--cutout", 64], "expected both or none", id="cutout"),
    pytest.param([10, -20, "--radus", 1], "--radus", id="option"),
    pytest.param([10, -20, "--radius", -1], "--radius", id="radius"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_usage(store: Path, arguments: list[Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("find", store, *arguments) == 2
    assert message in capsys.readouterr().err


def test_stamps(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ra, dec = place(store, 1)
    assert run("find", store, ra, dec, "--cutout", 24, "-o", tmp_path / "out") == 0
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files[0] == "contact-1.png"
    assert len(files) == 2
    path = tmp_path / "out" / files[1]
    science = open_version(store, "science")["science"]
    exposure = int(files[1].split("_")[1])
    row = int(np.flatnonzero(science["exposure"].values == exposure)[0])
    with fits.open(path, checksum=True) as file:
        header = file[0].header
        first_x, first_y = header["X_FIRST"], header["Y_FIRST"]
        expected = science[row].sel(
            ccd=2, quadrant=3, y=range(first_y, first_y + 24), x=range(first_x, first_x + 24)
        )
        np.testing.assert_array_equal(file[0].data, expected.values)
        assert abs(first_x + 12 - header["X_POS"]) < 1
        assert (header["RA_POS"], header["DEC_POS"]) == (ra, dec)
        assert header["BUNIT"] == "adu"
    with Image.open(tmp_path / "out" / files[0]) as sheet:
        assert sheet.width > 400
    if shutil.which("fitsverify"):
        said = subprocess.run(["fitsverify", "-q", str(path)], capture_output=True, text=True, check=False).stdout
        assert said.startswith("verification OK")
    assert "may lie outside" not in capsys.readouterr().err


def test_a_stamp_at_the_edge_is_padded(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corner = in_plane(2, 3, 0.98, 0.02)  # north-west: last columns, first rows
    ra, dec = _sky((0.2, 10.0), *corner)
    assert run("find", store, ra, dec, "--cutout", 4, "-o", tmp_path) == 0
    assert "it may lie outside stamps of 4" in capsys.readouterr().err
    assert run("find", store, ra, dec, "--cutout", 20, "-o", tmp_path) == 0
    data = fits.getdata(next(tmp_path.glob("stamp*.fits")))
    assert data.shape == (20, 20)
    assert np.isnan(data[:8]).all()
    assert np.isnan(data[:, 12:]).all()
    assert np.isfinite(data[9:, :11]).mean() > 0.9


def test_stamps_of_science_that_is_not_stored(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    shutil.rmtree(copy / "science")
    for path in (store, copy):
        assert run("find", path, *place(store, 0), "--cutout", 16, "-o", tmp_path / path.parent.name, "-q") == 0
    kept, computed = (fits.getdata(next((tmp_path / p.parent.name).glob("*.fits"))) for p in (store, copy))
    np.testing.assert_allclose(kept, computed, atol=0.0626)
