"""Star tables of a store, made by the command line from a simulated starflat night, against its truth."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
import stores
import xarray as xr
from scipy.spatial import cKDTree
from test_mosaic import real_wcs
from test_products import call

import ztfzarr
from ztfzarr.errors import StoreError
from ztfzarr.ingest.run import ingest
from ztfzarr.photometry.columns import COLUMNS, FLAGS, RADII
from ztfzarr.photometry.quadrant import quadrant_stars
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.listing import product_nights
from ztfzarr.reduce.run import reduce
from ztfzarr.reduce.star_entries import StarTask
from ztfzarr.schema import faults
from ztfzarr.schemas import load
from ztfzarr.simulate import camera, conditions, dither_stars, illumination_error, schedule, simulate_night
from ztfzarr.store.objects import open_objects
from ztfzarr.store.star_tables import create_table
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import find_version, prepare_version

NIGHT, CCD, SHAPE = 20200801, 2, (360, 300)
COUNTS = {"bias": 13, "flats": 3, "science": 0, "starflat": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starflat night of one CCD, without the flats of the other filters."""
    path = tmp_path_factory.mktemp("starflat")
    simulate_night(path, night=NIGHT, ccds=(CCD,), shape=SHAPE, **COUNTS)
    return path


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masters, stars/v1 with the catalogue, stars/v2 without."""
    path = tmp_path_factory.mktemp("store") / "night.zarr"
    files = [p for p in (folder / "raw").rglob("*.fits.fz") if p.name[29] != "f" or "_zr_" in p.name]
    assert not ingest(path, files).refused
    exact = read_recipe("", [f"{kind}.rounding=0" for kind in ("bias", "flat", "science")])
    assert not any(report.refused for report in reduce(path, ["bias", "flat"], recipe=exact))
    catalogue = folder / "truth" / f"{NIGHT}_catalogue.fits"
    assert call("stars", path, "--catalogue", catalogue, "-q") == 0
    assert call("stars", path, "--version", "v2", "--set", "stars.threshold=5", "-q") == 0
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


@pytest.fixture(scope="module")
def truth() -> pd.DataFrame:
    """Every star of every dither: its identity, pixel, and the DN that science should have."""
    made, parts = camera([CCD], SHAPE, 1), []
    for exposure in schedule(NIGHT, **COUNTS, seed=1):
        for quadrant in (1, 2, 3, 4) if exposure.dither else ():
            now = conditions(made, exposure, CCD)
            star = dither_stars(1, exposure, now, CCD, quadrant, SHAPE)
            across, down = ((v + 0.5) / n for v, n in ((star.x, SHAPE[1]), (star.y, SHAPE[0])))
            error = illumination_error(1, exposure.filter, CCD, quadrant, across, down)
            columns = {"id": star.id, "true_x": star.x, "true_y": star.y, "true_flux": star.flux * error}
            parts.append(pd.DataFrame(columns).assign(exposure=exposure.number, quadrant=quadrant))
    return pd.concat(parts, ignore_index=True)


def identified(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The rows that are within a pixel of a true star, with its columns."""
    parts = []
    for key, rows in table.groupby(["exposure", "quadrant"]):
        mine = truth[(truth["exposure"] == key[0]) & (truth["quadrant"] == key[1])].reset_index(drop=True)
        apart, nearest = cKDTree(mine[["true_x", "true_y"]].to_numpy()).query(rows[["x", "y"]].to_numpy())
        joined = rows.reset_index(drop=True).join(
            mine.loc[nearest].reset_index(drop=True).drop(columns=["exposure", "quadrant"])
        )
        parts.append(joined[apart < 1])
    return pd.concat(parts, ignore_index=True)


def test_columns_are_those_of_the_contract(store: Path) -> None:
    table = ztfzarr.open_stars(store)
    assert list(table.columns) == list(COLUMNS)
    expected = {name: column.dtype for name, column in COLUMNS.items() if column.dtype != "str"}
    assert {name: str(table[name].dtype) for name in expected} == expected
    assert set(table["filter"]) == {"zr"}
    assert set(table["quadrant"]) == {1, 2, 3, 4}
    assert table["exposure"].nunique() == 3
    assert ztfzarr.open_stars(store, columns=["x", "ra"]).columns.tolist() == ["x", "ra"]
    assert ztfzarr.open_stars(store, ccds=[1]).shape == (0, len(COLUMNS))
    assert ztfzarr.open_stars(store, nights=(20200802, 20200901)).empty
    with pytest.raises(ValueError, match="no column 'flux' in star tables: expected some of exposure, night"):
        ztfzarr.open_stars(store, columns=["flux"])


def test_plain_readers_see_the_same(store: Path) -> None:
    plain = pd.read_parquet(store / "stars" / "v1" / "table")
    pd.testing.assert_frame_equal(plain, ztfzarr.open_stars(store))
    group = xr.open_zarr(store / "stars" / "v1", chunks=None, zarr_format=3)
    assert int(group["stars"].sum()) == len(plain)
    assert group["stars"].dims == ("time", "ccd", "quadrant")


def test_stars_are_where_and_as_bright_as_in_truth(store: Path, truth: pd.DataFrame) -> None:
    table = ztfzarr.open_stars(store)
    found = identified(table, truth)
    inside = truth["true_x"].between(0, SHAPE[1] - 1) & truth["true_y"].between(0, SHAPE[0] - 1)
    bright = truth[inside & (truth["true_flux"] > 5000)]
    seen = bright.merge(found[["id", "exposure"]].drop_duplicates(), on=["id", "exposure"])
    assert len(bright) > 150
    assert len(seen) > 0.93 * len(bright)  # the others are blends
    wide = [(rows["flags"] == 0) & (rows["fwhm"] > 2) & (rows["fwhm"] < 3) for rows in (table, found)]
    assert wide[1].sum() > 0.9 * wide[0].sum()  # the others are cosmic rays
    clean = found[(found["flags"] & ~np.uint16(FLAGS["neighbour"])) == 0]
    bright = clean[clean["true_flux"] > 20_000]
    assert len(bright) > 30
    assert np.abs(np.median(bright["x"] - bright["true_x"])) < 0.01
    assert np.abs(np.median(bright["y"] - bright["true_y"])) < 0.01
    ratio = bright["flux_10"] / bright["true_flux"]
    constant = np.median(ratio)
    assert constant == pytest.approx(1, abs=0.05)  # of one CCD alone the level is its own
    pulls = (bright["flux_10"] - constant * bright["true_flux"]) / bright["flux_error_10"]
    assert 1.4826 * np.median(np.abs(pulls)) < 1.5
    magnitude = -2.5 * np.log10(bright["flux_10"] / 30)
    assert bright["magnitude"].to_numpy() == pytest.approx(magnitude.to_numpy())


def test_the_catalogue_names_and_places_stars(store: Path, folder: Path, truth: pd.DataFrame) -> None:
    found = identified(ztfzarr.open_stars(store), truth)
    named = found["star"] >= 0
    assert named.mean() > 0.97
    assert (found["star"] == found["id"])[named].mean() > 0.995
    group = xr.open_zarr(store / "stars" / "v1", chunks=None, zarr_format=3).sel(ccd=CCD)
    used = group.isel(time=group["present"].values == 1)
    assert (used["wcs"] == 4).all()
    assert float(used["wcs_rms"].max()) < 0.2
    assert (used["flag"] == 0).all()
    assert found["airmass"].std() > 1e-3
    assert found["airmass"].to_numpy() == pytest.approx(found["exposure_airmass"].to_numpy(), rel=0.1)


def test_without_a_catalogue_the_pointing_joins_dithers(store: Path, truth: pd.DataFrame) -> None:
    table = ztfzarr.open_stars(store, version="v2")
    assert table[["ra", "dec"]].isna().all(axis=None)
    assert (table["flags"] & FLAGS["no_wcs"] != 0).all()
    assert (table["star"] == -1).all()
    found = identified(ztfzarr.match_stars(table, radius=10.0), truth)
    bright = found[found["true_flux"] > 5000]
    purity = bright.groupby("star")["id"].nunique()
    complete = bright.groupby("id")["star"].nunique()
    assert (purity == 1).mean() > 0.97
    assert (complete == 1).mean() > 0.97


def test_a_table_is_what_open_science_gives(store: Path) -> None:
    science = ztfzarr.open_science(store).sel(ccd=CCD, quadrant=3).isel(time=1)
    alone = quadrant_stars(science["science"].values, science["mask"].values, science["variance"].values)
    table = ztfzarr.open_stars(store)
    mine = table[(table["exposure"] == int(science["exposure"])) & (table["quadrant"] == 3)]
    for name in ("x", "y", *(f"flux_{r}" for r in RADII), "background", "peak"):
        assert mine[name].to_numpy() == pytest.approx(alone[name], rel=1e-5, nan_ok=True), name


def test_the_group_satisfies_its_schema(store: Path) -> None:
    version = find_version(open_objects(store), "stars", "v1")
    assert version is not None
    assert faults(version.document, "stars") == []
    pinned = load("stars")["properties"]["consolidated_metadata"]["properties"]["metadata"]
    assert set(pinned["required"]) == set(pinned["properties"]) == set(arrays_of(version.document))


WRONG = [
    pytest.param(lambda d: arrays_of(d)["stars"].update(data_type="int64"), "'int32' was expected", id="type"),
    pytest.param(lambda d: arrays_of(d).pop("wcs"), "'wcs' is a required property", id="missing"),
    pytest.param(lambda d: arrays_of(d)["fwhm"]["attributes"].update(units="arcsec"), "'pixel' was", id="units"),
    pytest.param(lambda d: arrays_of(d)["flag"]["attributes"].pop("flag_meanings"), "flag_meanings", id="bits"),
    pytest.param(lambda d: d["attributes"]["recipe"].pop("stars"), "'stars' is a required", id="recipe"),
    pytest.param(lambda d: arrays_of(d)["ccd"].update(shape=[15]), "16 was expected", id="ccds"),
]


@pytest.mark.parametrize(("damage", "message"), WRONG)
def test_the_schema_refuses(store: Path, damage: Callable[[dict], object], message: str) -> None:
    document = json.loads((store / "stars" / "v1" / "zarr.json").read_text())
    damage(document)
    assert any(message in line for line in faults(document, "stars"))


def test_cluster_workers_get_what_a_run_shares(store: Path) -> None:
    task = StarTask(open_objects(store), "v1", "stars.fits", ("a.hdr",))
    assert pickle.loads(pickle.dumps(task)) == task
    assert StarTask(open_objects(store), "v1") != StarTask(open_objects(store), "v1")  # two runs share nothing


def test_what_is_made_stays(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stores.contents(store)
    assert call("stars", store, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0] == {"product": "stars/v1", "made": 0, "there": 3, "refused": []}
    assert stores.contents(store) == before
    assert call("stars", store, "--set", "stars.mesh=32") != 0
    assert "stars/v1 has stars.mesh 64, you asked 32: use another --version" in capsys.readouterr().err


def test_a_run_that_was_cut_short_is_finished(copy: Path) -> None:
    """Tables without their mark are made again, and are the same."""
    before = ztfzarr.open_stars(copy, version="v2")
    (copy / "stars" / "v2" / "present" / "c" / "0" / "0").unlink()
    assert ztfzarr.open_stars(copy, version="v2").empty
    assert call("stars", copy, "--version", "v2", "-q") == 0
    pd.testing.assert_frame_equal(ztfzarr.open_stars(copy, version="v2"), before)


def test_leftovers_of_other_input_are_refused(
    copy: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "stars" / "v2" / "present" / "c" / "0" / "0").unlink()
    catalogue = folder / "truth" / f"{NIGHT}_catalogue.fits"
    assert call("stars", copy, "--version", "v2", "--catalogue", catalogue, "-q") == 1
    assert "is there with other content: an unfinished run with other input left it" in capsys.readouterr().err


def test_ls_and_info(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one, two) = [night for night in product_nights(store) if night.group.startswith("stars/")]
    assert (one.made, one.missing, one.flagged, one.stale) == (3, 0, 0, 0)
    assert (two.made, two.missing, two.flagged) == (3, 0, 3)  # no WCS
    assert "fwhm" in one.quality
    assert call("info", store) == 0
    out = capsys.readouterr().out
    assert "stars/v2  3 made" in out
    assert "stars.threshold = 5" in out
    assert f"stars = pd.read_parquet({str(store / 'stars' / 'v1' / 'table')!r})" in out


def test_a_report_names_their_science(store: Path, tmp_path: Path) -> None:
    assert call("report", store, "-o", tmp_path / "report.html", "-q") == 0
    assert "science/v1, computed" in (tmp_path / "report.html").read_text()


def test_without_pyarrow_the_rest_is_checked_and_copied(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert call("verify", copy, "-q") == 1
    said = capsys.readouterr().err.splitlines()
    why = "star tables need pyarrow: pip install 'ztfzarr[stars]'"
    assert [line.split(": ", 1)[1] for line in said] == [f"tables not checked: {why}"] * 2
    assert call("repair", copy, "-q") == 1
    assert capsys.readouterr().err.count(why) == 2
    assert call("copy", copy, tmp_path / "dest.zarr", "--products", "-q") == 1
    assert capsys.readouterr().err.count(why) == 2
    assert {path.name for path in (tmp_path / "dest.zarr").iterdir()} >= {"bias", "flat", "raw"}
    assert not (tmp_path / "dest.zarr" / "stars").exists()


def test_a_table_of_other_bytes_and_the_same_stars_is_the_same(copy: Path) -> None:
    """What a killed run left, of a pyarrow that compressed otherwise: stars without a position are NaN in it."""
    key = next((copy / "stars" / "v2" / "table").glob("*.parquet"))
    exposure, ccd = int(key.stem[:14]), int(key.stem[-2:])
    table = parquet.read_table(key)
    assert np.isnan(table["ra"].to_numpy()).all()
    version = find_version(open_objects(copy), "stars", "v2")
    columns = {name: table[name].to_numpy() for name in COLUMNS}
    parquet.write_table(table, key, compression="gzip")
    create_table(version, exposure, ccd, columns)
    with pytest.raises(StoreError, match="is there with other content"):
        create_table(version, exposure, ccd, columns | {"x": columns["x"] + 1})


def test_verify_finds_damage(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", copy, "-q") == 0
    damaged, lost, _ = sorted((copy / "stars" / "v1" / "table").iterdir())
    stores.flip(damaged, damaged.stat().st_size // 3)
    lost.unlink()
    assert call("verify", copy, "-q") == 1
    err = capsys.readouterr().err
    assert f"stars/v1: {damaged.name[:14]} CCD 2: stars/v1/table/{damaged.name} is damaged" in err
    assert f"stars/v1: {lost.name[:14]} CCD 2: object stars/v1/table/{lost.name} is missing" in err
    with pytest.raises(StoreError, match=r"is damaged|is missing"):
        ztfzarr.open_stars(copy)
    assert call("repair", copy, "-q") == 1
    assert capsys.readouterr().err.count("stars is not made again: make another version of it") == 2


def test_copy_takes_them_along(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "dest.zarr"
    assert call("copy", store, dest, "--products", "-q") == 0
    pd.testing.assert_frame_equal(ztfzarr.open_stars(dest), ztfzarr.open_stars(store))
    assert call("verify", dest, "-q") == 0


def test_drop(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("drop", copy, "stars", "v1", "--yes") == 0
    assert not (copy / "stars" / "v1").exists()
    with pytest.raises(StoreError, match=r"no stars/v1 in .*: make it with ztfzarr stars --version v1"):
        ztfzarr.open_stars(copy)


def test_science_that_tables_are_made_of_is_not_dropped(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_version(open_objects(copy), "science", "v1", None, read_recipe(""))
    assert call("drop", copy, "science", "v1", "--yes") == 3
    assert "stars/v1 is made with science/v1: drop stars/v1 first" in capsys.readouterr().err


@pytest.mark.parametrize("variance", [False, True])
def test_stored_science_gives_nearly_the_same(copy: Path, variance: bool) -> None:
    """Rounded to 1/8 DN, with its variance or without."""
    assert call("science", copy, "--set", f"science.variance={str(variance).lower()}", "-q") == 0
    assert call("stars", copy, "--version", "v3", "--set", "stars.threshold=5", "-q") == 0
    computed, stored = (ztfzarr.open_stars(copy, version=v) for v in ("v2", "v3"))
    assert len(stored) == pytest.approx(len(computed), abs=5)
    assert np.median(stored["flux_10"]) == pytest.approx(np.median(computed["flux_10"]), rel=0.01)
    assert np.median(stored["flux_error_10"]) == pytest.approx(np.median(computed["flux_error_10"]), rel=1e-3)
    group = xr.open_zarr(copy / "stars" / "v3", chunks=None, zarr_format=3).sel(ccd=CCD)
    records = [json.loads(text) for text in group["provenance"].values if text]
    assert {record["science"] for record in records} == {"science/v1"}
    assert records[0]["without_wcs"] == dict.fromkeys("1234", "no WCS and no catalogue")


def test_a_catalogue_of_another_field_is_said(copy: Path, tmp_path: Path) -> None:
    far = tmp_path / "far.csv"
    far.write_text("ra,dec,mag\n" + "\n".join(f"{10 + i / 100},{-60 + i % 7 / 10},{i % 9}" for i in range(300)))
    assert call("stars", copy, "--version", "v4", "--catalogue", far, "-q") == 0
    (night,) = [n for n in product_nights(copy) if n.group == "stars/v4"]
    assert night.flagged == 3
    group = xr.open_zarr(copy / "stars" / "v4", chunks=None, zarr_format=3).sel(ccd=CCD)
    record = json.loads(next(text for text in group["provenance"].values if text))
    assert "0 entries of the catalogue: expected 10 of each" in record["without_wcs"]["1"]


def test_files_with_a_wcs_come_before_the_catalogue(copy: Path, folder: Path, tmp_path: Path) -> None:
    exposure = int(ztfzarr.open_stars(copy)["exposure"].iloc[0])
    header = real_wcs().to_header().tostring(sep="\n")
    (tmp_path / f"ztf_{exposure}_000655_zr_c{CCD:02d}_o_q3_sciimg.hdr").write_text(header)
    catalogue = folder / "truth" / f"{NIGHT}_catalogue.fits"
    assert call("stars", copy, "--version", "v5", "--wcs", tmp_path, "--catalogue", catalogue, "-q") == 0
    table = ztfzarr.open_stars(copy, version="v5")
    other = (table["exposure"] == exposure) & (table["quadrant"] == 3)
    assert np.hypot(table["ra"] - 57.997, table["dec"] - 35.746)[other].max() < 1
    assert np.hypot(table["ra"] - 57.997, table["dec"] - 35.746)[~other].min() > 1
    group = xr.open_zarr(copy / "stars" / "v5", chunks=None, zarr_format=3).sel(ccd=CCD)
    assert np.unique(group["wcs"].values, return_counts=True)[1].tolist()[-2:] == [1, 11]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--catalogue", "missing.fits"), 2, "does not exist"),
        (("--set", "stars.pixel=3"), 2, "stars.pixel: no such setting, expected pixels"),
        (("--wcs", "pyproject.toml"), 2, "expected a name such as ztf_20200924431759"),
    ],
    ids=["no catalogue", "no setting", "no WCS"],
)
def test_wrong_usage(
    options: tuple[str, str],
    status: int,
    message: str,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(stores.ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    before = stores.contents(copy)
    assert call("stars", copy, *options) == status
    assert message in capsys.readouterr().err
    assert stores.contents(copy) == before


def test_the_truth_beside_the_files(folder: Path) -> None:
    truth = xr.open_zarr(folder / "truth" / f"{NIGHT}.zarr")
    assert truth["illumination_error"].dims == ("filter", "ccd", "quadrant", "node_y", "node_x")
    error = truth["illumination_error"].sel(filter="zr", ccd=CCD, quadrant=3)
    node = truth["node_x"].values
    expected = illumination_error(1, "zr", CCD, 3, node, node[:, np.newaxis])
    assert error.values == pytest.approx(expected)
    every = [
        illumination_error(1, "zr", c, q, node, node[:, np.newaxis]) for c in range(1, 17) for q in range(1, 5)
    ]
    assert np.ptp(every) == pytest.approx(0.03, abs=0.001)
    dithers = truth["transparency"].sel(ccd=CCD).values[-3:]
    assert (np.abs(dithers - 1) <= 0.05).all()
    assert np.unique(dithers).size == 3
    assert (truth["transparency"].values[:-3] == 1).all()


def test_dithers_are_as_wide_as_a_starflat_needs() -> None:
    plan = [e for e in schedule(NIGHT, bias=0, flats=0, science=0, starflat=30, seed=1) if e.dither]
    centre = plan[0]
    steps = [np.hypot((e.ra - centre.ra) * np.cos(np.radians(e.dec)), e.dec - centre.dec) for e in plan[1:]]
    wide = np.array(steps) > 1.65
    assert wide.sum() == 6
    assert ((np.array(steps)[~wide] > 0.09) & (np.array(steps)[~wide] < 0.51)).all()
    assert {e.filter for e in plan} == {"zr"}
    with pytest.raises(ValueError, match="filter 'zz': expected one of zg, zr, zi"):
        schedule(NIGHT, bias=0, flats=0, science=0, starflat=1, starflat_filter="zz", seed=1)
