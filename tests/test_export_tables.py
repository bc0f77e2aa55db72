"""Starflats, star tables and pockets as FITS: what a user's tools read back is what the store holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.io import fits
from astropy.table import Table
from nights import ran

import ztfzarr
from ztfzarr.errors import RefusedError
from ztfzarr.export.fits import table_content
from ztfzarr.export.run import export
from ztfzarr.export.sheets import Sheet, SheetColumn
from ztfzarr.photometry.columns import COLUMNS, FLAGS
from ztfzarr.store.check import Selection
from ztfzarr.store.products import PRODUCTS

FITS_UNITS = {"DN": "adu", "degree": "deg", "1": None, "": None}


@pytest.fixture(scope="module")
def exported(all_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Starflats plain and compressed, stars and pockets."""
    folder = tmp_path_factory.mktemp("exported")
    for kind, options in (("starflat", []), ("starflat", ["--compress"]), ("stars", []), ("pocket", [])):
        assert ran("export", all_kinds, kind, folder, *options, "-q") == 0
    return folder


def opened(store: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(store / group, chunks=None, zarr_format=3)


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz"])
def test_a_starflat_is_the_map_at_every_pixel(all_kinds: Path, exported: Path, suffix: str) -> None:
    one = opened(all_kinds, "starflat/v1").sel(filter="zr")
    ccds = [2, 6, 7, 8, 9, 10, 11]
    names = {f"ztf_20200801_000000_zr_c{ccd:02d}_f_q{q}_starflat{suffix}" for ccd in ccds for q in (1, 2, 3, 4)}
    assert {p.name for p in exported.glob(f"*starflat{suffix}")} == names
    delta = ztfzarr.starflat_map(all_kinds, "zr").sel(ccd=11, quadrant=2).values
    with fits.open(exported / f"ztf_20200801_000000_zr_c11_f_q2_starflat{suffix}", checksum=True) as file:
        file.verify("exception")
        image = file[0] if file[0].data is not None else file[1]
        np.testing.assert_array_equal(image.data, delta)
        assert image.data.shape == (80, 64)
        header = image.header
        assert (header["BUNIT"], header["PRODUCT"], header["BAND"]) == ("mag", "starflat", "zr")
        assert (header["CCD"], header["QUADRANT"], header["RCID"]) == (11, 2, 41)
        assert header["PLANE"] == "from the catalogue"
        assert header["SLOPEU"] == pytest.approx(float(one["slope_u"]))
        assert header["CHI2"] == pytest.approx(float(one["chi2"]))
        assert header["NMEASURE"] == int(one["measurements"])
        assert sum("used exposure" in line for line in header["HISTORY"]) == 8
        assert "made of stars/v1" in list(header["HISTORY"])
        assert file["ERROR"].header["BUNIT"] == "mag"
        corner = one["error"].sel(ccd=11, quadrant=2).values[0, 0]
        assert file["ERROR"].data[0, 0] == pytest.approx(corner, rel=0.05)
        nodes = file["NODES"].data
        assert nodes["y"].tolist() == np.repeat([-0.5, 39.5, 79.5], 4).tolist()
        for name in ("delta", "error", "error_formal", "count"):
            np.testing.assert_array_equal(nodes[name], one[name].sel(ccd=11, quadrant=2).values.ravel())
        assert file["NODES"].columns["delta"].unit == "mag"


def test_an_undetermined_plane_has_no_slopes(all_kinds: Path, tmp_path: Path) -> None:
    assert ran("export", all_kinds, "starflat", tmp_path, "--version", "v2", "--ccds", 2, "-q") == 0
    header = fits.getheader(tmp_path / "ztf_20200801_000000_zr_c02_f_q1_starflat.fits")
    assert header["PLANE"] == "undetermined"
    assert not {"SLOPEU", "SLOPEV", "ESLOPEU"} & set(header)


def test_stars_are_tables_with_units_and_descriptions(all_kinds: Path, exported: Path) -> None:
    stars = ztfzarr.open_stars(all_kinds)
    paths = sorted(exported.glob("*_stars.fits"))
    assert len(paths) == 4
    for (exposure, ccd), rows in stars.groupby(["exposure", "ccd"]):
        band = rows["filter"].iloc[0]
        (path,) = exported.glob(f"ztf_{exposure}_*_{band}_c{ccd:02d}_o_stars.fits")
        table = Table.read(path, hdu=1)
        assert table.colnames == list(COLUMNS)
        header, columns = fits.getheader(path, 1), fits.getdata(path, 1).columns
        for number, (name, column) in enumerate(COLUMNS.items(), 1):
            values = rows[name].to_numpy()
            read = np.asarray(fits.getdata(path, 1)[name])
            if column.dtype == "str":
                assert [str(v).strip() for v in read] == values.tolist()
            else:
                np.testing.assert_array_equal(read, values)
            assert columns[name].unit == FITS_UNITS.get(column.units, column.units)
            if name != "flags":
                assert column.long_name.startswith(header[f"TCOMM{number}"])
        assert table["x"].unit == units.pixel
        assert table["ra"].unit == units.deg
        assert {name: header.comments[f"BIT{flag.bit_length() - 1:02d}"] for name, flag in FLAGS.items()} == {
            name: name for name in FLAGS
        }
        own = fits.getheader(path)
        assert (own["EXPOSURE"], own["CCD"], own["BAND"], own["PRODVERS"]) == (exposure, ccd, band, "v1")
        assert any(line.startswith("made of science/v1") for line in own["HISTORY"])
        assert "stars.threshold = 3" in [line.replace(".0", "") for line in own["HISTORY"]]


def test_pockets_are_a_table_a_night(all_kinds: Path, exported: Path) -> None:
    group = opened(all_kinds, "pocket/v1").isel(night=0).sel(ccd=[2, 11])
    data = fits.getdata(exported / "ztf_20200801_pocket.fits", 1)
    assert data["ccd"].tolist() == [2] * 4 + [11] * 4
    assert data["quadrant"].tolist() == [1, 2, 3, 4] * 2
    assert data["rcid"].tolist() == [4, 5, 6, 7, 40, 41, 42, 43]
    left_out = {"present", "provenance", "inputs", "first_night", "last_night"}
    for name in PRODUCTS["pocket"].tables.keys() - left_out:
        np.testing.assert_array_equal(data[name], group[name].values.ravel())
    header = fits.getheader(exported / "ztf_20200801_pocket.fits", 1)
    assert data.columns["cmax"].unit == "adu"
    assert header["TCOMM5"] == "pocket: charge when it is full"
    assert header.comments["BIT01"] == "limit"
    assert ran("export", all_kinds, "pocket", exported / "one", "--ccds", 11, "-q") == 0
    assert fits.getdata(exported / "one" / "ztf_20200801_pocket.fits", 1)["ccd"].tolist() == [11] * 4
    shutil.rmtree(exported / "one")


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify(exported: Path) -> None:
    paths = sorted(exported.glob("*.fits*"))
    result = subprocess.run(["fitsverify", "-q", *map(str, paths)], capture_output=True, text=True, check=False)
    assert result.stdout.count("verification OK") == len(paths) == 61


def test_checksums_hold_and_damage_is_seen(exported: Path, tmp_path: Path) -> None:
    for pattern in ("*_stars.fits", "*_pocket.fits", "*_starflat.fits"):
        path = sorted(exported.glob(pattern))[0]
        with fits.open(path, checksum=True) as file:  # warns, hence raises, where one does not hold
            assert all({"CHECKSUM", "DATASUM"} <= set(hdu.header) for hdu in file)
        content = bytearray(path.read_bytes())
        content[-2880] ^= 1
        (tmp_path / "damaged.fits").write_bytes(content)
        with (
            pytest.warns(Warning, match="verification failed"),
            fits.open(tmp_path / "damaged.fits", checksum=True) as file,
        ):
            assert file[-1].data is not None


@pytest.mark.parametrize("kind", ["starflat", "stars", "pocket"])
def test_again_changes_nothing_and_versions_are_told_apart(
    all_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arguments = ["export", all_kinds, kind, tmp_path, "--ccds", 2]
    assert ran(*arguments, "-q") == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    assert ran(*arguments, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["there"]) == len(before)
    assert ran(*arguments, "--version", "v2") == 1
    assert "exists, of another version or made otherwise" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert ran(*arguments, "--version", "v2", "--overwrite", "-q") == 0
    assert {fits.getheader(p)["PRODVERS"] for p in tmp_path.iterdir()} == {"v2"}


def test_names_and_selections(all_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(all_kinds, "stars", tmp_path, name="{night}/{exposure}_{ccd}.fits", selection=Selection(ccds=(11,)))
    assert len(list((tmp_path / "20200801").glob("*_11.fits"))) == 2
    with pytest.raises(
        RefusedError, match=r"gives 20200801.fits to stars/v1 exposure .* and to stars/v1 exposure"
    ):
        export(all_kinds, "stars", tmp_path, name="{night}.fits")
    with pytest.raises(RefusedError, match="no field 'ccd'; expected fields of ccds, kind, night, version"):
        export(all_kinds, "pocket", tmp_path, name="{night}_{ccd}.fits")
    for kind in ("starflat", "stars", "pocket"):
        assert ran("export", all_kinds, kind, tmp_path, "--night", "2021-01-01") == 3
        assert f"nothing of {kind}/v1" in capsys.readouterr().err
        assert ran("export", all_kinds, kind, tmp_path, "--version", "v9") == 3
        assert f"no {kind}/v9" in capsys.readouterr().err
    assert ran("export", all_kinds, "stars", tmp_path, "--compress") == 2
    assert "stars are tables, which are not compressed: leave out --compress" in capsys.readouterr().err


def test_a_damaged_table_of_stars_is_refused(
    all_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(all_kinds, tmp_path / "copy.zarr"))
    damaged = sorted((copy / "stars" / "v1" / "table").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert ran("export", copy, "stars", tmp_path / "out", "-q") == 1
    assert f"stars/v1/table/{damaged.name} is damaged" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_table_without_rows(tmp_path: Path) -> None:
    columns = {"filter": SheetColumn(np.empty(0, object), "", "name"), "x": SheetColumn(np.empty(0), "pixel", "x")}
    sheet = Sheet("stars", "v1", {"night": 20200801}, lambda: columns, {}, {}, {})
    (tmp_path / "x.fits").write_bytes(table_content(sheet))
    assert len(fits.getdata(tmp_path / "x.fits", 1)) == 0


def test_integers_that_fits_lacks_keep_their_values(tmp_path: Path) -> None:
    values = {"uint16": [0, 65535], "int8": [-128, 127], "uint8": [0, 255], "int64": [-(2**60), 20200801169199]}
    columns = {name: SheetColumn(np.array(column, name), "", name) for name, column in values.items()}
    sheet = Sheet("pocket", "v1", {"night": 20200801}, lambda: columns, {}, {}, {})
    (tmp_path / "x.fits").write_bytes(table_content(sheet))
    data = fits.getdata(tmp_path / "x.fits", 1)
    assert {name: data[name].tolist() for name in values} == values
