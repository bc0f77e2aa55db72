"""Products as FITS: what a user's tools read back is what the store holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawfiles
import sep
import xarray as xr
from astropy import units as u
from astropy.io import fits
from matplotlib.figure import Figure

import ztfzarr
from ztfzarr import plot
from ztfzarr.cli import main
from ztfzarr.export.fits import file_content
from ztfzarr.export.frames import Frame
from ztfzarr.export.headers import image_header, raw_headers
from ztfzarr.export.run import export
from ztfzarr.export.stamps import stamps
from ztfzarr.ingest.run import ingest
from ztfzarr.plot.source import Wanted, chosen
from ztfzarr.store.check import Selection
from ztfzarr.store.opening import open_version

SHAPE = (80, 64)
RECIPE = {"science": {"rounding": 0.125, "bias": "v1"}, "overscan": {"columns": [5, 25]}}


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


@pytest.fixture(scope="module")
def exported(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Science of CCD 11 plain and compressed, and the masters of CCD 2."""
    folder = tmp_path_factory.mktemp("exported")
    for options in ([], ["--compress"]):
        assert run("export", reduced_store, "science", folder, "--ccds", 11, *options) == 0
        for kind in ("bias", "flat"):
            assert run("export", reduced_store, kind, folder, "--ccds", 2, *options) == 0
    return folder


def image_hdu(file: fits.HDUList) -> Any:
    return file[0] if file[0].data is not None else file[1]


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz"])
def test_science_is_what_the_store_holds(reduced_store: Path, exported: Path, suffix: str) -> None:
    science = open_version(reduced_store, "science")
    sky = science.isel(time=np.flatnonzero(science["imgtype"].values == "object"))
    for i, exposure in enumerate(sky["exposure"].values):
        name = f"ztf_{exposure}_{int(sky['field'][i]):06d}_{sky['filter'].values[i]}_c11_o_q"
        for quadrant in (1, 2, 3, 4):
            with fits.open(exported / f"{name}{quadrant}_sciimg{suffix}") as file:
                file.verify("exception")
                hdu = image_hdu(file)
                expected = sky["science"][i].sel(ccd=11, quadrant=quadrant).values
                np.testing.assert_array_equal(hdu.data, expected)
                assert hdu.header["BUNIT"] == "adu"
                assert (hdu.header["CCD"], hdu.header["QUADRANT"], hdu.header["RCID"]) == (
                    11,
                    quadrant,
                    39 + quadrant,
                )


def test_headers_are_the_raw_ones_and_what_was_done(reduced_store: Path, exported: Path) -> None:
    path = sorted(exported.glob("ztf_*_q3_sciimg.fits"))[-1]
    exposure = int(path.name[4:18])
    raw = ztfzarr.header(reduced_store, exposure, 11)
    channel = ztfzarr.header(reduced_store, exposure, 11, 3)
    header = fits.getheader(path)
    left_out = {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "CHECKSUM", "DATASUM", "FILENAME", "ORIGNAME", "NFRAMES"}
    left_out |= {"HDUVERS", "HISTORY", "COMMENT", ""}
    assert {k: header.get(k) for k in raw if k not in left_out} == {k: raw[k] for k in raw if k not in left_out}
    assert all(header[k] == channel[k] for k in ("CCD_ID", "AMP_ID", "AMP_NAME", "GAIN", "READNOI"))
    assert header["RAWNAME"] == raw["FILENAME"]
    assert header["CALBIAS"] == "bias/v1/20200801"
    assert header["CALFLAT"] == "flat/v1/20200801"
    assert header["PRODVERS"] == "v1"
    history = list(header["HISTORY"])
    assert "overscan.columns = [5, 25]" in history
    assert not [k for k in header if k.startswith(("ZCMP", "TTYPE", "ZTILE"))]


def test_masters(reduced_store: Path, exported: Path) -> None:
    flat = open_version(reduced_store, "flat").isel(night=0).sel(filter="zi", ccd=2, quadrant=4)
    for suffix in (".fits", ".fits.fz"):
        with fits.open(exported / f"ztf_20200801_000000_zi_c02_f_q4_flat{suffix}") as file:
            np.testing.assert_array_equal(image_hdu(file).data, flat["flat"].values)
            np.testing.assert_array_equal(file["VARIANCE"].data, flat["variance"].values)
            np.testing.assert_array_equal(file["COUNT"].data, flat["count"].values)
            np.testing.assert_array_equal(file["BAD"].data, flat["bad"].values)
            assert "BUNIT" not in image_hdu(file).header
    bias = fits.getheader(exported / "ztf_20200801_000000_bi_c02_b_q1_bias.fits")
    used = [line for line in bias["HISTORY"] if line.startswith("used exposure")]
    assert len(used) == 3
    assert "dropped exposure" in str(bias["HISTORY"])


@pytest.mark.skipif(shutil.which("fitsverify") is None, reason="fitsverify is not installed")
def test_fitsverify(exported: Path) -> None:
    paths = sorted(exported.iterdir())
    result = subprocess.run(["fitsverify", "-q", *map(str, paths)], capture_output=True, text=True, check=False)
    assert result.stdout.count("verification OK") == len(paths) >= 48
    assert "FAILED" not in result.stdout


def test_checksums_hold_and_damage_is_seen(exported: Path, tmp_path: Path) -> None:
    path = sorted(exported.glob("*sciimg.fits"))[0]
    with fits.open(path, checksum=True) as file:  # warns, hence raises, where one does not hold
        assert {"CHECKSUM", "DATASUM"} <= set(file[0].header)
    content = bytearray(path.read_bytes())
    content[-2880 - 100] ^= 1
    damaged = tmp_path / "damaged.fits"
    damaged.write_bytes(content)
    with pytest.warns(Warning, match="verification failed"), fits.open(damaged, checksum=True) as file:
        assert file[0].data is not None


def test_photometry_reads_it(exported: Path) -> None:
    """A star put in by hand is where sep finds it, in FITS pixels less 1."""
    image = fits.getdata(sorted(exported.glob("*q1_sciimg.fits"))[0]).astype(np.float32)
    y, x = np.indices(SHAPE)
    image += 50_000 * np.exp(-((x - 20.3) ** 2 + (y - 51.6) ** 2) / 4).astype(np.float32)
    background = sep.Background(image, mask=~np.isfinite(image))
    found = sep.extract(image - background, 20, err=background.globalrms, mask=~np.isfinite(image))
    brightest = found[np.argmax(found["flux"])]
    assert (brightest["x"], brightest["y"]) == pytest.approx((20.3, 51.6), abs=0.1)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def test_again_changes_nothing(reduced_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", reduced_store, "bias", tmp_path, "--ccds", 2]
    assert run(*arguments) == 0
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["there"]) == 4
    assert snapshot(tmp_path) == before
    # Another version under the same names is not mistaken for this one.
    assert run(*arguments, "--version", "v2") == 1
    assert "exists, of another version or made otherwise" in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    assert run(*arguments, "--version", "v2", "--overwrite", "-q") == 0
    assert all(fits.getheader(p)["PRODVERS"] == "v2" for p in tmp_path.iterdir())
    # A file cut short is made again.
    path = next(tmp_path.iterdir())
    whole = fits.getdata(path).copy()  # no memory map of a file about to be cut
    path.write_bytes(path.read_bytes()[:2000])
    assert run(*arguments, "--version", "v2") == 1
    assert run(*arguments, "--version", "v2", "--overwrite") == 0
    assert np.array_equal(fits.getdata(path), whole, equal_nan=True)


def test_science_computed_is_science_stored(reduced_copy: Path, exported: Path, tmp_path: Path) -> None:
    shutil.rmtree(reduced_copy / "science")
    report = export(reduced_copy, "science", tmp_path / "out", selection=Selection(ccds=(11,)))
    assert len(report.written) == 8
    for path in map(Path, report.written):
        for plane in (0, "MASK"):  # the default recipe has no variance
            one, other = (fits.getdata(p, plane) for p in (path, exported / path.name))
            assert np.array_equal(one, other, equal_nan=True)
        assert fits.getheader(path)["STORED"] is False


NAMES = [
    pytest.param("{exposure}.fits", "gives .* to .*: add fields", id="not unique"),
    pytest.param("{mjd}_{quadrant}.fits", "no field 'mjd'; expected fields of", id="unknown field"),
    pytest.param(
        "../{exposure}_{ccd}_{quadrant}.fits", "expected a path below the folder", id="out of the folder"
    ),
    pytest.param("/tmp/{exposure}_{ccd}_{quadrant}.fits", "expected a path below the folder", id="absolute"),
    pytest.param("{exposure", "expected", id="no template"),
]


@pytest.mark.parametrize(("template", "message"), NAMES)
def test_templates_that_are_refused(reduced_store: Path, tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ztfzarr.errors.RefusedError, match=message):
        export(reduced_store, "science", tmp_path, name=template)
    assert list(tmp_path.iterdir()) == []


def test_a_template(reduced_store: Path, tmp_path: Path) -> None:
    name = "{night}/{filter}_{ccd:02d}{quadrant}_{kind}_{version}.fits"
    export(reduced_store, "flat", tmp_path, name=name, selection=Selection(ccds=(11,)))
    assert (tmp_path / "20200801" / "zr_113_flat_v1.fits").exists()


def test_nothing_to_export(reduced_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", reduced_store, "bias", tmp_path, "--ccds", 5) == 3
    assert "nothing of bias/v1" in capsys.readouterr().err
    for kind in ("bias", "science"):
        assert run("export", reduced_store, kind, tmp_path, "--version", "v9") == 3


# Without a store: planes and WCS


def frame() -> Frame:
    rng = np.random.default_rng(1)
    shape = (4, *SHAPE)
    science = np.rint(rng.normal(200, 10, shape) * 8) / 8
    science[0, 0, :3] = np.nan
    mask = rng.choice([0, 256, 1 << 15], shape, p=[0.9, 0.05, 0.05]).astype(np.uint16)
    dims = ("quadrant", "y", "x")
    flags = {"flag_masks": [256, 1 << 15], "flag_meanings": "saturated no_calibration"}
    images = xr.Dataset(
        {
            "science": (dims, science.astype(np.float32), {"units": "DN"}),
            "mask": (dims, mask, flags),
            "variance": (dims, np.rint(science / 6).astype(np.float32), {"units": "DN2"}),  # 7 bits hold it
        },
        {"quadrant": [1, 2, 3, 4]},
    )
    labels = {"night": 20200801, "exposure": 20200801169205, "field": 655, "filter": "zr"}
    return Frame("science", "v1", 7, labels, images, RECIPE, {"ztfzarr": "0.1.0"}, {"k": 1.01})


@pytest.mark.parametrize("compress", [False, True])
def test_mask_and_variance(compress: bool, tmp_path: Path) -> None:
    one = frame()
    path = tmp_path / "x.fits"
    path.write_bytes(file_content(one, 2, [], one.images.sel(quadrant=2), compress=compress))
    with fits.open(path, checksum=True) as file:
        own = one.images.sel(quadrant=2)
        np.testing.assert_array_equal(image_hdu(file).data, own["science"].values)
        np.testing.assert_array_equal(file["MASK"].data, own["mask"].values)
        np.testing.assert_array_equal(file["VARIANCE"].data, own["variance"].values)
        assert file["MASK"].data.dtype.kind == "u"
        assert file["MASK"].header["BIT15"] == 15
        assert file["MASK"].header.comments["BIT08"] == "saturated"
        assert file["VARIANCE"].header["BUNIT"] == "adu2"
        assert image_hdu(file).header["CALLEVEL"] == 1.01
    if shutil.which("fitsverify"):
        said = subprocess.run(["fitsverify", "-q", str(path)], capture_output=True, text=True, check=False).stdout
        assert said.startswith("verification OK")


def test_a_wcs_of_the_raw_file_is_kept(tmp_path: Path) -> None:
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 57.99, "CRVAL2": 35.74, "CRPIX1": 30.5}
    cards |= {"CRPIX2": 12.5, "CD1_1": -2.8e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": -2.8e-4}

    def with_wcs(hdus: fits.HDUList) -> None:
        rawfiles.with_cards(hdus[3].header, cards)

    name = rawfiles.raw_name(ccd=7)
    rawfiles.write_raw(tmp_path, name, change=with_wcs)
    assert not ingest(tmp_path / "night.zarr", [tmp_path / name]).refused
    one = frame()
    one.labels["exposure"] = rawfiles.FIRST
    raw = raw_headers(tmp_path / "night.zarr", one)
    assert {k: image_header(one, 3, raw)[k] for k in cards} == cards
    assert "CTYPE1" not in image_header(one, 2, raw)


# CCDData


def test_ccddata() -> None:
    own = frame().images.sel(quadrant=1)
    made = ztfzarr.to_ccddata(own["science"], mask=own["mask"], variance=own["variance"])
    assert made.unit == u.adu
    np.testing.assert_array_equal(made.data, own["science"].values)
    np.testing.assert_array_equal(made.mask, (own["mask"].values != 0) | np.isnan(own["science"].values))
    np.testing.assert_array_equal(made.flags, own["mask"].values)
    np.testing.assert_array_equal(made.uncertainty.array, own["variance"].values)
    assert made.uncertainty.uncertainty_type == "var"
    assert made.uncertainty.unit == u.adu**2
    assert made.header["QUADRANT"] == 1
    assert made.wcs is None


def test_ccddata_of_a_store(reduced_store: Path) -> None:
    science = open_version(reduced_store, "science")
    one = science["science"].sel(ccd=2, quadrant=3)[[-1]]
    header = ztfzarr.header(reduced_store, int(one["exposure"][0]), 2)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    made = ztfzarr.to_ccddata(one, header=header)
    assert made.header["TELESCOP"] == "Palomar 48-inch"
    assert made.wcs is not None
    assert made.shape == SHAPE
    plain = ztfzarr.to_ccddata(one[0])
    assert plain.header["EXPOSURE"] == int(one["exposure"][0])
    assert plain.mask.sum() == np.isnan(one.values).sum()


WRONG = [
    pytest.param(lambda i: i["science"], "expected one quadrant", id="four quadrants"),
    pytest.param(lambda i: i["science"][0].assign_attrs(units="Jy"), "is in 'Jy': expected one of", id="units"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_ccddata_refuses(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ztfzarr.to_ccddata(change(frame().images))


def test_ccddata_planes_must_be_of_the_same_pixels() -> None:
    own = frame().images.sel(quadrant=1).assign_coords(y=range(80))
    with pytest.raises(ValueError, match="align"):
        ztfzarr.to_ccddata(own["science"], variance=own["variance"][:40])


# Masks and variances of a store


def test_planes_of_the_store(reduced_store: Path, exported: Path) -> None:
    science = open_version(reduced_store, "science")
    for path in sorted(exported.glob("*_q3_sciimg.fits*")):
        one = science.isel(time=np.flatnonzero(science["exposure"].values == int(path.name[4:18]))[0])
        one = one.sel(ccd=11, quadrant=3)
        with fits.open(path, checksum=True) as file:
            np.testing.assert_array_equal(file["MASK"].data, one["mask"].values)
            np.testing.assert_array_equal(file["VARIANCE"].data, one["variance"].values)
            assert file["MASK"].header["BIT09"] == 9
            assert file["MASK"].header.comments["BIT09"] == "dead"


def test_a_mask_of_the_store_is_drawn(
    reduced_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = chosen(reduced_store, Wanted("mask", ccd=2))
    assert shown.title.startswith("mask of science v1\n")
    legend = plot.mask(shown.array, ax=Figure().add_subplot()).get_legend()
    named = {t.get_text().split("  ")[0] for t in legend.get_texts()}
    bits = np.bitwise_or.reduce(shown.array.values, axis=None)
    flags = dict(zip(shown.array.attrs["flag_meanings"].split(), shown.array.attrs["flag_masks"], strict=True))
    assert named == {name.replace("_", " ") for name, flag in flags.items() if bits & flag}
    assert "dead" in named
    monkeypatch.setattr("ztfzarr.plot.show.DPI", 60)
    assert run("show", reduced_store, "mask", "-o", tmp_path / "x.png") == 0


def test_stamps_have_the_planes(reduced_store: Path) -> None:
    last = ztfzarr.open_cube(reduced_store).isel(time=-1)
    found = ztfzarr.find(reduced_store, float(last["ra"]) + 2.5, float(last["dec"]) - 3.3, radius=2000)
    assert found.sizes["match"] >= 1
    for stamp in stamps(reduced_store, found, 200):
        assert set(stamp.images) == {"science", "mask", "variance"}
        assert stamp.images["mask"].dtype == np.uint16
        assert (stamp.images["mask"] != 0).any()
