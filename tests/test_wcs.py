"""Where quadrants look: fits to a catalogue, WCS of headers and of files, and which stars are the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import angular_separation
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mosaic import real_wcs

from ztfzarr import horizon
from ztfzarr.errors import RefusedError
from ztfzarr.geometry import rcid
from ztfzarr.photometry.catalogue import Catalogue, read_catalogue
from ztfzarr.photometry.matching import match_stars
from ztfzarr.photometry.wcs import fit_sky, header_sky
from ztfzarr.photometry.wcs_files import read_wcs_files
from ztfzarr.sky import from_tangent_plane, pixels_of, plane_of_pixels, stored_pixels, tangent_plane

FULL = (3080, 3072)
SMALL = (616, 512)
POINTING = (120.0, 33.35)
NAME = "ztf_20200924431759_000655_zr_c13_o_q3_sciimg"


def observed(
    ccd: int, quadrant: int, shape: tuple[int, int], *, offset: float = 3.0, angle: float = 40.0,
    turn: float = 0.2, density: float = 600.0, noise: float = 0.02, seed: int = 1,
) -> SimpleNamespace:  # fmt: skip
    """Stars on a quadrant of a camera that is off by arcminutes and turned; a tenth of each side alone."""
    rng = np.random.default_rng(seed)
    count = round(density * 12**2)
    ra, dec = from_tangent_plane(*rng.uniform(-6, 6, (2, count)), *POINTING)
    magnitude = 20 - rng.exponential(1.0, count)
    shift = offset / 60 * np.exp(1j * np.radians(angle))
    truth = from_tangent_plane(shift.real, shift.imag, *POINTING)
    xi, eta = tangent_plane(ra, dec, *truth)
    turned = np.exp(1j * np.radians(turn)) * (xi + 1j * eta)
    x, y = stored_pixels(rcid(ccd, quadrant), turned.real, turned.imag, shape)
    seen = np.flatnonzero((x > 0) & (y > 0) & (x < shape[1] - 1) & (y < shape[0] - 1))
    seen = seen[rng.uniform(size=seen.size) < 0.9]
    false = rng.uniform(0, 1, (2, seen.size // 10)) * np.array([[shape[1]], [shape[0]]])
    at = np.concatenate([np.stack([x[seen], y[seen]]), false], axis=1)
    at += rng.normal(0, noise, at.shape)
    flux = 10 ** (
        -0.4 * np.concatenate([magnitude[seen] + rng.normal(0, 0.1, seen.size), np.full(false.shape[1], 19)])
    )
    kept = rng.uniform(size=count) < 0.9
    return SimpleNamespace(
        x=at[0], y=at[1], flux=flux, catalogue=(ra[kept], dec[kept], magnitude[kept]), ra=ra[seen], dec=dec[seen],
        channel=rcid(ccd, quadrant), shape=shape,
    )  # fmt: skip


def fitted(one: SimpleNamespace) -> SimpleNamespace:
    """The fit, and by how many pixels it misses, rms of a coordinate."""
    sky = fit_sky(one.x, one.y, one.flux, one.catalogue, POINTING, one.channel, one.shape)
    ra, dec = sky.world(one.x[: one.ra.size], one.y[: one.ra.size])
    miss = np.concatenate([(ra - one.ra) * np.cos(np.radians(dec)), dec - one.dec]) * pixels_of(1.0, one.shape)
    return SimpleNamespace(sky=sky, rms=float(np.sqrt(np.mean(miss**2))))


CASES = [
    pytest.param(1, 4, FULL, {}, id="corner, full"),
    pytest.param(16, 2, SMALL, {"density": 300.0}, id="corner, small"),
    pytest.param(6, 1, FULL, {"angle": 220.0, "turn": -0.2}, id="middle"),
    pytest.param(13, 3, FULL, {"density": 40.0}, id="few stars"),
]


@pytest.mark.parametrize(("ccd", "quadrant", "shape", "other"), CASES)
def test_a_fit_from_three_arcminutes_off(ccd: int, quadrant: int, shape: tuple[int, int], other: dict) -> None:
    one = observed(ccd, quadrant, shape, **other)
    found = fitted(one)
    assert found.rms < 0.04
    assert 0.012 < found.sky.rms < 0.035  # stars are placed with noise of 0.02
    assert found.sky.stars > 0.7 * one.ra.size


def test_magnitudes_are_not_needed() -> None:
    one = observed(9, 2, SMALL)
    one.catalogue = (*one.catalogue[:2], np.full(one.catalogue[0].size, np.nan))
    assert fitted(one).rms < 0.04


def test_another_field_is_refused() -> None:
    one = observed(6, 1, SMALL, density=300.0)
    one.catalogue = observed(6, 1, SMALL, density=300.0, seed=2).catalogue
    with pytest.raises(ValueError, match=r"no offset matches the catalogue: \d+ pairs, \d+ by chance"):
        fitted(one)
    one.catalogue = (one.catalogue[0] + 60, *one.catalogue[1:])
    with pytest.raises(ValueError, match="stars and 0 entries of the catalogue: expected 10 of each"):
        fitted(one)


def test_the_corner_table_finds_the_real_quadrant() -> None:
    """Its stars, placed by its header, are found again from 125 pixels off."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 3071, (2, 800))
    ra, dec = real_wcs().all_pix2world(x, y, 0)
    magnitude = rng.uniform(14, 20, x.size)
    sky = fit_sky(x, y, 10 ** (-0.4 * magnitude), (ra, dec, magnitude), (55.0608, 33.35), rcid(13, 3), FULL)
    back = sky.world(x, y)
    assert np.abs(np.array(back) - [ra, dec]).max() * 3600 / 1.012 < 0.05
    guess = plane_of_pixels(rcid(13, 3), x, y, FULL)
    truth = tangent_plane(ra, dec, 55.0608, 33.35)
    assert 100 < np.median(np.hypot(guess[0] - truth[0], guess[1] - truth[1])) * 3600 / 1.012 < 140


def test_a_header_says_it_itself() -> None:
    header = real_wcs().to_header()
    blocks = fits.Header(header.cards).tostring().encode()
    sky = header_sky(blocks)
    assert sky is not None
    world = sky.world(np.array([1535.5]), np.array([1539.5]))
    assert (world[0][0], world[1][0]) == pytest.approx((57.9974032715, 35.74628707041), abs=1e-9)
    assert header_sky(fits.Header([("SIMPLE", True)]).tostring().encode()) is None


@pytest.mark.parametrize("suffix", ["fits", "hdr"])
def test_wcs_from_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.{suffix}"
    header = real_wcs().to_header()
    if suffix == "fits":
        fits.PrimaryHDU(np.zeros((3, 4), np.float32), header).writeto(path)
    else:
        path.write_text(header.tostring(sep="\n"))
    (tmp_path / "other.fits").write_bytes(b"not of IPAC's names")
    found = read_wcs_files([str(tmp_path)])
    assert set(found) == {(20200924431759, 13, 3)}
    sky = header_sky(found[20200924431759, 13, 3])
    assert sky is not None
    assert sky.world(np.array([1535.5]), np.array([1539.5]))[1][0] == pytest.approx(35.74628707041)


BAD_WCS = [
    ("image.fits", b"", "expected a name such as ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits"),
    (f"{NAME}.fits", b"no FITS", "cannot be read"),
    (f"{NAME}.txt", b"SIMPLE  =                    T", "its header has no WCS; expected CTYPE1"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_WCS, ids=["name", "no FITS", "no WCS"])
def test_wcs_files_that_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError, match=message):
        read_wcs_files([str(tmp_path / name)])


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "csv", "parquet"])
def test_catalogues_of_all_forms(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"stars.{suffix}"
    rows = {"RA": [10.0, np.nan, 20], "DEC": [-5.0, 0, 5], "mag": [15.0, 15, 16], "zg": [15.5, 15, 16.5]}
    table = pd.DataFrame(rows)
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        Table.from_pandas(table).write(path)
    found = read_catalogue(path)
    assert found["id"].tolist() == [0, 2]
    assert found[["ra", "dec"]].to_numpy().tolist() == [[10, -5], [20, 5]]
    assert found[["zg", "zr"]].to_numpy().tolist() == [[15.5, 15], [16.5, 16]]


@settings(deadline=None, max_examples=25)
@given(ra=st.floats(0, 360), dec=st.floats(-90, 90), radius=st.floats(0.1, 30), seed=st.integers(0, 2**32 - 1))
def test_entries_around_a_position(ra: float, dec: float, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = pd.DataFrame({"ra": rng.uniform(0, 360, 300), "dec": rng.uniform(-90, 90, 300)})
    apart = np.degrees(
        angular_separation(*np.radians([ra, dec]), *np.radians(entries[["ra", "dec"]].to_numpy().T))
    )
    found = Catalogue(entries).around(ra, dec, radius)
    assert found.index.tolist() == np.flatnonzero(apart <= radius).tolist()
    assert Catalogue(entries).around(np.nan, dec, radius).empty
    assert Catalogue(entries[:0]).around(ra, dec, radius).empty


def test_catalogues_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ra,mag\n1,2\n")
    (tmp_path / "b.fits").write_text("no FITS")
    with pytest.raises(RefusedError, match=r"a.csv: no column dec; expected ra, dec \(degrees\) and mag"):
        read_catalogue(tmp_path / "a.csv")
    with pytest.raises(RefusedError, match=r"c.dat: expected a catalogue in .fits, .ecsv, .csv or .parquet"):
        read_catalogue(tmp_path / "c.dat")
    with pytest.raises(RefusedError, match=r"b.fits: cannot be read as a catalogue"):
        read_catalogue(tmp_path / "b.fits")


BAD_ROWS = [
    ("id,ra,dec\nGaia1,1,2\n", "column id is not whole numbers from 0 on, one for each star"),
    ("id,ra,dec\n1,1,2\n,3,4\n", "column id is not whole numbers from 0 on, one for each star"),
    ("id,ra,dec\n-1,1,2\n", "column id is not whole numbers from 0 on, one for each star"),
    ("id,ra,dec\n18446744073709551615,1,2\n", "column id is not whole numbers from 0 on, one for each star"),
    ("id,ra,dec\n7,1,2\n7,3,4\n", "two stars have id 7: they would be fitted as one"),
    ("ra,dec,mag\n17:18:25,33:21:00,15\n", "column ra is not numbers"),
    ("ra,dec,mag\n1,2,faint\n", "column mag is not numbers"),
    ("ra,dec,mag\n1,200,15\n", "a declination of 200: expected degrees"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ROWS)
def test_rows_of_catalogues_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "stars.csv").write_text(text)
    with pytest.raises(RefusedError, match=f"stars.csv: {message}"):
        read_catalogue(tmp_path / "stars.csv")


def test_catalogues_as_queries_give_them(tmp_path: Path) -> None:
    """Ids of 19 digits, columns with gaps, rows of overlapping queries, names and suffixes in capitals, gzip."""
    ids = [2**62 + 1, 2**62 + 2, 2**62 + 1]
    gaps = MaskedColumn([15.0, 16, 15], mask=[False, True, False])
    table = Table(
        {"SOURCE_ID": ids, "RA": [1.0, 3, 1], "Dec": [2.0, 4, 2], "phot_g_mean_mag": gaps, "ra": [9.0] * 3}
    )
    for name in ("a.fits", "b.fits.gz"):
        table.write(tmp_path / name)
    table.write(tmp_path / "c.CSV", format="ascii.csv")
    for path in tmp_path.iterdir():
        found = read_catalogue(path)
        assert found["id"].tolist() == ids[:2]
        assert found["ra"].tolist() == [1, 3]
        np.testing.assert_array_equal(found["zr"], [15, np.nan])


def table_of(exposures: list[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """A star table with nothing but positions."""
    parts = [pd.DataFrame({"exposure": i, "ra": ra, "dec": dec}) for i, (ra, dec) in enumerate(exposures)]
    return pd.concat(parts, ignore_index=True).assign(u=np.nan, v=np.nan, pointing_ra=np.nan, pointing_dec=np.nan)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), where=st.sampled_from([(10.0, 0.0), (0.0, 40.0), (200.0, 89.9)]))
def test_matching_is_pure_and_complete(seed: int, where: tuple[float, float]) -> None:
    """Stars 10" apart or more, in some of six exposures, some twice in one; across RA 0 and at the pole too."""
    rng = np.random.default_rng(seed)
    grid = np.arange(-9, 10) * 15 / 3600
    xi, eta = (axis.ravel() + rng.uniform(-2.5, 2.5, axis.size) / 3600 for axis in np.meshgrid(grid, grid))
    exposures, ids = [], []
    for _ in range(6):
        seen = np.flatnonzero(rng.uniform(size=xi.size) < 0.7)
        seen = np.concatenate([seen, rng.choice(seen, 5)])  # twice
        order = rng.permutation(seen.size)
        jitter = rng.normal(0, 0.1 / 3600, (2, seen.size))
        exposures.append(from_tangent_plane(xi[seen][order] + jitter[0], eta[seen][order] + jitter[1], *where))
        ids.append(seen[order])
    truth = np.concatenate(ids)
    found = match_stars(table_of(exposures), radius=1.0)
    star = found["star"].to_numpy()
    known = star >= 0
    assert np.count_nonzero(~known) <= 30  # the second of those seen twice
    pairs = pd.DataFrame({"star": star[known], "truth": truth[known]}).drop_duplicates()
    assert pairs["star"].is_unique
    assert pairs["truth"].is_unique
    assert set(pairs["truth"]) == set(truth)
    assert not found[known].duplicated(["exposure", "star"]).any()
    assert star[known][0] == 0


def test_matching_to_a_catalogue() -> None:
    catalogue = pd.DataFrame({"id": [70, 80, 90], "ra": [10.0, 10.01, 10.02], "dec": [5.0, 5.0, 5.0]})
    near = 0.5 / 3600
    table = table_of([(np.array([10.0 + near, 10.01, 10.0, 11.0]), np.array([5.0, 5.0 + 3 * near, 5.0, 5.0]))])
    assert match_stars(table, catalogue=catalogue)["star"].tolist() == [-1, 80, 70, -1]
    assert match_stars(table, catalogue=catalogue, radius=1.0)["star"].tolist() == [-1, -1, 70, -1]


def test_without_a_wcs_the_pointing_places_stars() -> None:
    u, v = np.array([0.1, 0.2]), np.array([-0.3, 0.3])
    nan = np.full(2, np.nan)
    table = table_of([(nan, nan), (nan, nan)]).assign(pointing_ra=[30, 30, 31, 31.0], pointing_dec=40.0)
    ra, dec = from_tangent_plane(u, v, 30.0, 40.0)
    moved = tangent_plane(ra, dec, 31.0, 40.0)
    table = table.assign(u=np.r_[u, moved[0]], v=np.r_[v, moved[1]])
    assert match_stars(table)["star"].tolist() == [0, 1, 0, 1]


@settings(deadline=None)
@given(ra=st.floats(0, 359.9), dec=st.floats(-90, 90), xi=st.floats(-5, 5), eta=st.floats(-5, 5))
def test_the_tangent_plane_and_back(ra: float, dec: float, xi: float, eta: float) -> None:
    back = tangent_plane(*from_tangent_plane(xi, eta, ra, dec), ra, dec)
    assert (float(back[0]), float(back[1])) == pytest.approx((xi, eta), abs=1e-9)


@settings(deadline=None)
@given(ccd=st.integers(1, 16), quadrant=st.integers(1, 4), x=st.floats(-50, 3100), y=st.floats(-50, 3100))
def test_pixels_and_the_focal_plane(ccd: int, quadrant: int, x: float, y: float) -> None:
    channel = rcid(ccd, quadrant)
    u, v = plane_of_pixels(channel, x, y, FULL)
    back = stored_pixels(channel, u, v, FULL)
    assert (float(back[0]), float(back[1])) == pytest.approx((x, y), abs=1e-6)
    west, _ = plane_of_pixels(channel, x + 1, y, FULL)
    _, south = plane_of_pixels(channel, x, y + 1, FULL)
    assert west < u
    assert south < v


def test_airmass_is_that_of_a_real_header() -> None:
    """Azimuth 85.88, elevation 79.13, airmass 1.018 at the telescope's direction."""
    time = np.datetime64("2020-09-24T10:21:45.646")
    azimuth, elevation = horizon.horizontal([55.0608, 58.0], [33.35, 35.7], time)
    assert azimuth[0] == pytest.approx(85.88, abs=0.7)  # precession is left out
    assert elevation[0] == pytest.approx(79.13, abs=0.35)
    found = horizon.airmass(elevation)
    assert found[0] == pytest.approx(1.018, abs=0.001)
    assert found[1] > found[0]
