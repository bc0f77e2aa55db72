"""The simulator: files as the camera writes them, physics as DOMAIN's facts have it, the same every time."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from ztfzarr import tables
from ztfzarr.cli import main
from ztfzarr.geometry import LED_FILTERS, QUADRANTS, filefracday_time, in_read_order, night_of
from ztfzarr.simulate import (
    camera,
    conditions,
    coordinates,
    ephemeris,
    illumination,
    light,
    raw_ccd,
    readout,
    scene,
    schedule,
    simulate_night,
    truth,
)
from ztfzarr.simulate.header import SHUTTER_LOSS, sexagesimal
from ztfzarr.simulate.tiles import row_noise

SHAPE = (300, 256)
NIGHT = {"ccds": (2, 6), "shape": (96, 64), "bias": 3, "flats": 1, "science": 3}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("night")
    return directory, simulate_night(directory, **NIGHT)


@pytest.fixture(scope="module")
def made():
    return camera([2, 6], SHAPE, 1)


@pytest.fixture(scope="module")
def exposures():
    return schedule(20200801, bias=12, flats=2, science=3, seed=1)


def first(exposures, kind):
    return next(e for e in exposures if e.kind == kind)


def quiet(made):
    """The same camera without cosmic-ray-like columns: good response and no dark current."""
    return dataclasses.replace(
        made,
        dark=np.zeros_like(made.dark),
        response=np.where(made.bad[:, :, None] == 0, made.response, np.float32(1)),
    )


# Files


def test_names_and_folders(written):
    directory, paths = written
    assert len(paths) == 2 * (3 + 11 + 3)
    assert paths == sorted(directory.glob("raw/*/*/*/*.fits.fz"))
    for path in paths:
        match = re.fullmatch(r"ztf_(\d{8})(\d{6})_(\d{6})_(bi|zg|zr|zi)_c(02|06)_([bfo])\.fits\.fz", path.name)
        date, fraction, field, name, _, kind = match.groups()
        assert path.parent == directory / "raw" / date[:4] / date[4:] / fraction
        assert (kind == "b") == (name == "bi")
        assert (field == "000000") == (kind != "o")
    assert not list(directory.rglob("*.partial"))


def test_primary_header(written):
    for path in written[1]:
        header = fits.getheader(path, 0)
        _, stem, field, name, _, kind = path.name.removesuffix(".fits.fz").split("_")
        opened = np.datetime64(header["SHUTOPEN"])
        # 116 cards as the real one, who made it, and the lamp.
        assert len(header) == (120 if kind == "f" else 117)
        assert header["FILENAME"] == header["ORIGNAME"] == path.name.removesuffix(".fz")
        assert header["IMGTYPE"] == {"b": "bias", "f": "flat", "o": "object"}[kind]
        assert header["FILTER"] == ("" if kind == "b" else f"ZTF_{name[1]}")
        assert header["FILTERID"] == ("bi", "zg", "zr", "zi").index(name)
        assert header["FIELDID"] == int(field)
        assert ("ILUM_LED" in header) == ("ILUMWAVE" in header) == ("ILUMPOWR" in header) == (kind == "f")
        assert 1.6 <= (opened - filefracday_time(int(stem))) / np.timedelta64(1, "s") <= 1.75
        assert night_of(np.array([opened])) == 20200801
        mjd = np.datetime64("1858-11-17", "ms") + np.timedelta64(round(header["OBSMJD"] * 86400e3), "ms")
        assert abs(opened - mjd) < np.timedelta64(1010, "ms")
        assert header["OBSJD"] == pytest.approx(header["OBSMJD"] + 2400000.5, abs=1e-6)
        assert header["NFRAMES"] == 8
        assert "CTYPE1" not in header


def test_science_header_is_consistent(written):
    header = fits.getheader(next(p for p in written[1] if p.name.endswith("_o.fits.fz")))
    open_for = np.datetime64(header["SHUTCLSD"]) - np.datetime64(header["SHUTOPEN"])
    assert open_for == np.timedelta64(30000, "ms") - SHUTTER_LOSS
    assert header["RA"] == sexagesimal(header["RAD"] / 15, ":", 2)
    assert header["DEC"] == sexagesimal(header["DECD"], ":", 0)
    assert abs(header["TELDECD"] - header["DECD"]) < 20 / 3600
    assert header["AIRMASS"] == pytest.approx(1 / np.sin(np.radians(header["ELVATION"])), abs=0.02)
    assert header["SUNALT"] < -12
    assert 0 <= header["MOONILLF"] <= 1


def test_extension_headers(written):
    with fits.open(written[1][0]) as hdus:
        assert len(hdus) == 9
        for image, hdu in enumerate(hdus[1:], 1):
            assert hdu.header["EXTNAME"] == str(image)
            assert hdu.header["AMP_ID"] == (image - 1) % 4
            assert hdu.header["AMP_NAME"] == "HGFE"[(image - 1) % 4]
            assert hdu.header["CCD_ID"] in (2, 6)
            assert 5.8 <= hdu.header["GAIN"] <= 6.3
            assert 7.5 <= hdu.header["READNOI"] <= 12
            assert hdu.shape == ((96, 64) if image <= 4 else (96, 30))
            assert "CTYPE1" not in hdu.header


def test_layout_is_that_of_fpack(written):
    with fits.open(written[1][0], disable_image_compression=True) as hdus:
        headers = [hdu.header for hdu in hdus[1:]]
        assert len({header["ZDITHER0"] for header in headers}) == 8
        for header in headers:
            assert header["ZBITPIX"] == -32
            assert header["ZCMPTYPE"] == "RICE_1"
            assert header["ZQUANTIZ"] == "SUBTRACTIVE_DITHER_1"
            assert 1 <= header["ZDITHER0"] <= 10000
            assert (header["ZTILE1"], header["ZTILE2"]) == (header["ZNAXIS1"], 1)


def test_checksums_hold(written):
    """Warnings are errors here, and astropy warns of a checksum that does not hold."""
    for path in written[1][::5]:
        with fits.open(path, checksum=True, disable_image_compression=True) as hdus:
            for hdu in hdus:
                assert {"CHECKSUM", "DATASUM"} <= set(hdu.header)
                assert hdu.verify_checksum() == hdu.verify_datasum() == 1


def test_file_holds_the_pixels(written, exposures):
    """Within half a step of the quantisation, a quarter of the noise."""
    made = camera([6], NIGHT["shape"], 1)
    night = schedule(20200801, bias=3, flats=1, science=3, seed=1)
    for kind in "bfo":
        exposure = first(night, kind)
        path = next(p for p in written[1] if f"_{exposure.number}_" in f"_{p.name[4:]}" and "_c06_" in p.name)
        raw = raw_ccd(made, exposure, 6)
        with fits.open(path) as hdus:
            for expected, hdu in zip([*raw.images, *raw.overscans], hdus[1:], strict=True):
                step = row_noise(expected)[:, None] / 4
                assert np.all(np.abs(hdu.data - expected) <= 0.51 * step + 0.01)


@pytest.mark.fpack
@pytest.mark.skipif(shutil.which("funpack") is None, reason="needs CFITSIO's funpack")
def test_cfitsio_reads_the_same(written, tmp_path):
    plain = tmp_path / "plain.fits"
    subprocess.run(["funpack", "-O", plain, written[1][-1]], check=True)
    with fits.open(plain) as unpacked, fits.open(written[1][-1]) as packed:
        for theirs, ours in zip(unpacked[1:], packed[1:], strict=True):
            np.testing.assert_array_equal(theirs.data, ours.data)


def test_bytes_depend_on_the_arguments_alone(written, tmp_path):
    few = NIGHT | {"bias": 1, "science": 1, "flats": 0}
    one = simulate_night(tmp_path / "one", **few)
    two = simulate_night(tmp_path / "two", **few, workers=2)
    other = simulate_night(tmp_path / "other", **few, seed=2)
    assert [p.name for p in one] == [p.name for p in two]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert not {p.read_bytes() for p in one} & {p.read_bytes() for p in other}
    # The first bias of a longer night, and of a night with other CCDs, is the same file.
    alone = simulate_night(tmp_path / "alone", **(few | {"ccds": (6,)}))
    assert {p.read_bytes() for p in alone} < {p.read_bytes() for p in one}
    assert written[1][0].read_bytes() == one[0].read_bytes()


def test_progress_counts_files(tmp_path):
    seen = []
    simulate_night(tmp_path, **(NIGHT | {"flats": 0}), progress=lambda *n: seen.append(n))
    assert seen == [(i + 1, 12) for i in range(12)]


# Schedule and sky


@pytest.mark.parametrize("night", [20180801, 20191231, 20201221, 20200301])
def test_every_exposure_is_of_the_night(night):
    exposures = schedule(night, bias=20, flats=5, science=60, seed=3)
    times = np.array([e.shutter_open for e in exposures])
    assert np.all(night_of(times) == night)
    assert np.all(np.diff(times) > np.timedelta64(15, "s"))
    assert len({e.number for e in exposures}) == len(exposures)
    biases = np.diff([e.shutter_open for e in exposures if e.kind == "b"]) / np.timedelta64(1, "s")
    assert np.all((biases > 20) & (biases < 40))
    sunset = ephemeris.sunset(night)
    assert abs(sunset - times[0] - np.timedelta64(55, "m")) < np.timedelta64(5, "s")


def test_flats_go_led_by_led(exposures):
    flats = [e for e in exposures if e.kind == "f"]
    assert [e.led for e in flats] == [led for led in LED_FILTERS for _ in range(2)]
    assert all(e.filter == LED_FILTERS[e.led] for e in flats)


def test_december_sequence_straddles_midnight():
    dates = {e.number // 10**6 for e in schedule(20201221, bias=40, flats=1, science=0, seed=1)}
    assert dates == {20201220, 20201221}


def test_ephemeris_agrees_with_a_real_header():
    """SHUTOPEN, OBLST, RAD, DECD, AZIMUTH, ELVATION, SUN*, MOON* of the real exposure 20200924431759."""
    time = np.datetime64("2020-09-24T10:21:45.646", "us")
    assert ephemeris.sidereal_time(time) / 15 == pytest.approx(2 + 49 / 60 + 21.1 / 3600, abs=0.005)
    assert ephemeris.horizontal(55.0608, 33.35, time) == pytest.approx((85.88, 79.13), abs=0.7)
    assert ephemeris.airmass(79.13) == pytest.approx(1.018, abs=0.0006)
    assert ephemeris.horizontal(*ephemeris.sun(time), time) == pytest.approx((57.9964, -39.8685), abs=0.01)
    assert ephemeris.moon(time) == pytest.approx((276.208, -24.561), abs=1)
    assert ephemeris.moon_phase_angle(time) == pytest.approx(85.4015, abs=1)


@pytest.mark.parametrize(
    ("value", "marks", "digits", "text"),
    [
        (55.0608 / 15, ":", 2, "+03:40:14.59"),
        (55.0608 / 15, "hms", 2, "+03h40m14.59s"),
        (33.35, "dms", 0, "+33d21m00s"),
        (-0.869956, ":", 2, "-00:52:11.84"),
        (1.99999999, ":", 1, "+02:00:00.0"),
    ],
)
def test_sexagesimal_as_in_the_real_header(value, marks, digits, text):
    assert sexagesimal(value, marks, digits) == text


# The camera


def test_a_ccd_does_not_depend_on_the_others(made):
    alone = camera([6], SHAPE, 1)
    for field in dataclasses.fields(alone):
        both, one = getattr(made, field.name), getattr(alone, field.name)
        if field.name == "throughput":
            np.testing.assert_array_equal(both[:, 1:], one)
        elif np.shape(both) != np.shape(one):
            np.testing.assert_array_equal(both[1:], one)


@pytest.mark.parametrize("name", ["response", "bias_structure"])
def test_no_flip_transpose_or_swap_hides(made, name):
    """Smooth structure, as medians of 16 x 16 pixels, differs by its own size whichever way it is turned."""
    square = getattr(made, name)[..., :256, :256].reshape(8, 16, 16, 16, 16)
    ways = [lambda m: m, np.fliplr, np.flipud, np.rot90, lambda m: m[::-1, ::-1], np.transpose]
    smooth = np.median(square, axis=(2, 4))
    for i, one in enumerate(smooth):
        for j, other in enumerate(smooth):
            for n, way in enumerate(ways):
                if (i, n) != (j, 0):
                    assert np.std(one - way(other)) > 0.5 * np.std(one)


def test_quadrants_of_a_flat_all_differ(made, exposures):
    images = raw_ccd(made, first(exposures, "f"), 2).images
    blocks = np.median(images[:, :300, :256].reshape(4, 2, 150, 2, 128), axis=(2, 4)).ravel()
    assert np.min(np.diff(np.sort(blocks))) > 3  # DN; the noise of a median is 1


def test_illumination_is_continuous_across_quadrants(made):
    def lit(quadrant):
        return illumination(made.illumination[0], *coordinates(6, quadrant, SHAPE))

    # On the sky q2 lies left of q1, and q3 below q2; stored, both axes are reversed.
    np.testing.assert_allclose(lit(2)[:, 0], lit(1)[:, -1], atol=3e-4)
    np.testing.assert_allclose(lit(2)[0], lit(3)[-1], atol=3e-4)
    assert np.ptp(lit(1)) > 2e-3


# The read-out


@pytest.mark.parametrize("epoch", ["201803", "201910", "202004"])
def test_non_linearity_is_the_inverse_of_the_tables(epoch):
    true = np.linspace(-50, 60000, 1001).astype(np.float32)
    for a, b in zip(*(table.ravel() for table in tables.linearity(epoch)), strict=True):
        x = readout.measured(true, a, b).astype(np.float64)
        np.testing.assert_allclose(x / (a * x**2 + b * x + 1), true, rtol=1e-6)


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_rows_drift_in_read_order(quadrant):
    drift = readout.row_drift(np.array([1, 0, 0.5]), 200, quadrant)[:, 0]
    assert drift[0 if quadrant in (1, 2) else -1] == 0
    assert np.all(np.diff(drift if quadrant in (1, 2) else drift[::-1]) > 0)


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_drift_is_in_files_as_in_the_truth(made, exposures, quadrant):
    """Rows of settled biases and their overscans follow the same drift; upside down it does not fit."""
    at = made.at(2, quadrant)
    for exposure in [e for e in exposures if e.kind == "b"][-2:]:
        now, raw = conditions(made, exposure, 2), raw_ccd(made, exposure, 2)
        expected = readout.row_drift(made.drift[at] * now.drift_scale[at[1]], SHAPE[0], quadrant)[:, 0]
        image = np.median(raw.images[at[1]] - made.bias_structure[at], axis=1)
        overscan = raw.overscans[at[1]].mean(axis=1)
        for rows, error in ((image, 0.13), (overscan, 0.31)):
            right = np.std(rows - made.bias_level[at] - expected)
            assert right == pytest.approx(error, rel=0.25)
            assert np.std(rows - expected[::-1]) > right + 0.01


@pytest.mark.parametrize("ccd", [2, 6])
@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_trail_starts_at_the_first_read_overscan_column(made, exposures, ccd, quadrant):
    raw = raw_ccd(made, first(exposures, "f"), ccd)
    columns = raw.overscans[quadrant - 1].mean(axis=0)
    trail = columns - np.median(columns)
    assert np.argmax(trail) == (0 if quadrant in (1, 4) else 29)
    last = in_read_order(raw.images[quadrant - 1], quadrant)[:, -8:].mean()
    in_order = in_read_order(trail[None], quadrant)[0]
    if ccd == 6:
        assert in_order[0] * 40e3 / last == pytest.approx(130, rel=0.2)
        assert in_order[5] * 40e3 / last == pytest.approx(10, rel=0.3)
    else:
        assert 5 < in_order[0] < 20


def test_read_noise_and_gain_are_the_truth(made, exposures):
    """From pairs, as they will be measured; 1.4826 MAD against cosmic rays."""
    quiet_camera = quiet(made)
    bias = [raw_ccd(quiet_camera, e, 2).images for e in exposures if e.kind == "b"][-2:]
    flats = [e for e in exposures if e.kind == "f"][:2]
    pair = [raw_ccd(quiet_camera, e, 2).images for e in flats]
    for q in range(4):
        noise = _noise(bias[1][q] - bias[0][q]) / np.sqrt(2)
        assert noise == pytest.approx(made.read_noise[0, q], rel=0.02)
        lamps = [conditions(made, e, 2).lamp for e in flats]
        photons = [light(made, e, 2, q + 1) * quiet_camera.response[0, q] for e in flats]
        np.testing.assert_allclose(photons[0] / lamps[0], photons[1] / lamps[1], rtol=1e-5)
        difference = pair[1][q] - pair[0][q] - (photons[1] - photons[0])
        variance = _noise(difference / np.sqrt(photons[0] + photons[1])) ** 2
        # Non-linearity stretches 40 kDN by up to 1 %.
        assert 1 / variance == pytest.approx(made.gain[0, q], rel=0.04)


def _noise(values):
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def test_nominal_values_are_off_by_several_percent(made):
    assert np.all((made.nominal_gain / made.gain > 1.04) & (made.nominal_gain / made.gain < 1.19))
    nominal = made.nominal_read_noise / made.gain
    assert np.all((nominal / made.read_noise > 1.02) & (nominal / made.read_noise < 1.14))
    assert np.all((made.bias_level >= 30) & (made.bias_level <= 250))


@pytest.mark.parametrize("kind", "fo")
def test_model_can_be_undone(made, exposures, kind):
    """Overscan, linearity and bias structure leave the light times the response, to 0.1 %."""
    exposure = first(exposures, kind)
    raw = raw_ccd(made, exposure, 2)
    a, b = (table[1] for table in tables.linearity("202004"))
    for q in range(4):
        now = conditions(made, exposure, 2)
        drift = readout.row_drift(made.drift[0, q] * now.drift_scale[q], SHAPE[0], q + 1)
        x = raw.images[q].astype(float) - made.bias_level[0, q] - drift - made.bias_structure[0, q]
        true = x / (a[q] * x**2 + b[q] * x + 1)
        expected = light(made, exposure, 2, q + 1) * made.response[0, q]
        expected = expected + readout.side_glow(made.glow[0, q], exposure.exptime, SHAPE[1], q + 1)
        good = made.bad[0, q] == 0
        error = np.median((true - expected)[:, good]) / np.median(expected)
        assert abs(error) < (1e-4 if kind == "f" else 2e-3)


def test_biases_settle_in_level_and_shape(made, exposures):
    biases = [raw_ccd(made, e, 2) for e in exposures if e.kind == "b"]
    for q in range(4):
        level = np.array([np.median(b.overscans[q]) for b in biases])
        above = np.array([np.median(b.images[q]) for b in biases]) - level
        assert abs(level[0] - level[-1]) > 1
        assert above[0] - above[-1] > 0.5
        assert np.ptp(level[10:]) < 0.7  # row drift
        assert np.ptp(above[10:]) < 0.15
        corner = in_read_order(biases[0].images[q] - biases[-1].images[q], q + 1)
        assert np.median(corner[:50, :50]) > np.median(corner[-50:, -50:]) + 1


def test_saturation(made, exposures):
    bright = dataclasses.replace(made, led_level=made.led_level * 3)
    images = raw_ccd(bright, first(exposures, "f"), 2).images
    assert np.all(np.ptp(np.median(images, axis=(1, 2))) > 10)
    assert np.all(np.median(images, axis=(1, 2)) > 57000)
    deep = dataclasses.replace(bright, full_well=made.full_well * 2)
    assert raw_ccd(deep, first(exposures, "f"), 2).images.max() == 65535


def test_bad_columns_and_cosmic_rays_show(made, exposures):
    raw = raw_ccd(made, first(exposures, "f"), 2).images
    for q in range(4):
        column = np.median(raw[q], axis=0) / np.median(raw[q])
        assert np.all(column[made.bad[0, q] == 1] < 0.75)
        assert np.all(column[made.bad[0, q] == 2] < 0.02)
    bias = [e for e in exposures if e.kind == "b"][-1]
    raw = raw_ccd(dataclasses.replace(made, dark=np.zeros_like(made.dark)), bias, 2).images
    hits = conditions(made, bias, 2).cosmic_rays
    assert np.array_equal(hits > 0, (raw - np.median(raw, axis=(1, 2), keepdims=True) > 40).any(axis=(1, 2)))


def test_stars_keep_their_flux_and_are_elongated():
    star = scene.Stars(np.array([100.3]), np.array([60.6]), np.array([[1e3], [2e3], [3e3]]))
    image = scene.made_sky(star, "zr", np.zeros((120, 200), np.float32), (1.0, -2.0)).astype(float)
    assert image.sum() == pytest.approx(2e3, rel=0.01)
    y, x = np.indices(image.shape)
    assert (image * x).sum() / image.sum() == pytest.approx(101.3, abs=0.05)
    assert (image * y).sum() / image.sum() == pytest.approx(58.6, abs=0.05)
    assert (image * (x - 101.3) * (y - 58.6)).sum() > 0.05 * image.sum()


def test_sky_levels(made, exposures):
    for exposure in [e for e in exposures if e.kind == "o"]:
        level = np.median(light(made, exposure, 2, 1))
        assert 80 < level < 450


# A real image of the sky


def test_real_sky_is_exposed(made, exposures, tmp_path):
    image = np.add.outer(np.arange(90.0), 3 * np.arange(70.0)).astype(np.float32) + 100
    image[3, 4] = np.nan
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)]).writeto(tmp_path / "sky.fits")
    sky = scene.read_sky(tmp_path / "sky.fits")
    assert sky[3, 4] == np.nanmedian(image)
    exposure = first(exposures, "o")
    windows = []
    for q in QUADRANTS:
        plane = coordinates(2, q, SHAPE)
        lit = illumination(made.illumination[11], *plane) * made.throughput[11, 0]
        windows.append(light(made, exposure, 2, q, sky=sky) / lit)
        steps = np.diff(windows[-1], axis=1)
        assert np.median(steps) == pytest.approx(3, abs=0.01)
        np.testing.assert_allclose(windows[-1][:, :100], windows[-1][:, 70:170], rtol=1e-4)
    assert np.std(windows[0] - windows[1]) > 1
    raw = raw_ccd(made, exposure, 2, sky=sky)
    assert np.median(raw.images[0]) > np.median(raw.overscans[0]) + 100


def test_sky_from_a_file(tmp_path):
    fits.PrimaryHDU(np.full((40, 50), 300, np.float32)).writeto(tmp_path / "sky.fits")
    few = NIGHT | {"bias": 0, "flats": 0, "science": 1}
    path = simulate_night(tmp_path, **few, sky=tmp_path / "sky.fits")[0]
    with fits.open(path) as hdus:
        assert 200 < np.median(hdus[1].data) - np.median(hdus[5].data) < 400


# The truth


def test_truth_opens_and_is_the_camera(written):
    directory, paths = written
    made = camera(NIGHT["ccds"], NIGHT["shape"], 1)
    with xr.open_zarr(directory / "truth" / "20200801.zarr", chunks=None) as saved:
        assert saved.ccd.values.tolist() == [2, 6]
        assert saved.sizes["time"] == len(paths) // 2
        for name in ("response", "bias_structure", "gain", "throughput", "illumination", "drift"):
            np.testing.assert_array_equal(saved[name], getattr(made, name))
        assert set(saved.exposure.values) == {int(p.name.split("_")[1]) for p in paths}
        assert all(v.attrs["units"] and v.attrs["long_name"] for v in saved.data_vars.values())
        assert saved.source.values.tolist()[-3:] == ["zg", "zr", "zi"]
        assert saved.star_flux.dims == ("field", "ccd", "quadrant", "filter", "star")
        lit = 1 + sum(
            saved.illumination.sel(source="led07", term=term) * factor
            for term, factor in {
                "u": saved.u, "v": saved.v, "u^2": saved.u**2, "u v": saved.u * saved.v, "v^2": saved.v**2
            }.items()
        )  # fmt: skip
        expected = illumination(made.illumination[4], *coordinates(6, 3, NIGHT["shape"]))
        here = lit.sel(ccd=6, quadrant=3).transpose("y", "x")
        np.testing.assert_allclose(here, expected, rtol=1e-6)


def test_truth_of_a_real_sky_is_where_quadrants_look(tmp_path):
    """Not the stars that the image stands in for."""
    image = np.add.outer(1000 * np.arange(40.0), np.arange(50.0)).astype(np.float32)
    fits.PrimaryHDU(image).writeto(tmp_path / "sky.fits")
    few = NIGHT | {"bias": 0, "flats": 0, "science": 1}
    simulate_night(tmp_path, **few, sky=tmp_path / "sky.fits")
    (exposure,) = schedule(20200801, bias=0, flats=0, science=1, seed=1)
    made = camera(NIGHT["ccds"], NIGHT["shape"], 1)
    with xr.open_zarr(tmp_path / "truth" / "20200801.zarr", chunks=None) as saved:
        assert "star_flux" not in saved
        assert saved.field.values.tolist() == [exposure.field]
        for ccd, q in [(2, 1), (2, 3), (6, 4)]:
            here = saved.sel(ccd=ccd, quadrant=q).isel(field=0, time=0)
            lit = illumination(made.illumination[11], *coordinates(ccd, q, NIGHT["shape"]))
            lit *= float(here.throughput.sel(source="zg"))
            seen = light(made, exposure, ccd, q, sky=image) / lit
            row, column = here.sky_row - np.round(here.shift_y), here.sky_column - np.round(here.shift_x)
            np.testing.assert_allclose(seen[0, 0], image[int(row) % 40, int(column) % 50], rtol=1e-5)


def test_truth_in_memory_is_the_saved(written):
    night = schedule(20200801, bias=3, flats=1, science=3, seed=1)
    whole = truth(camera(NIGHT["ccds"], NIGHT["shape"], 1), night)
    with xr.open_zarr(written[0] / "truth" / "20200801.zarr", chunks=None) as saved:
        xr.testing.assert_equal(saved.load(), whole)


def test_nights_share_a_camera(tmp_path):
    few = NIGHT | {"bias": 1, "flats": 0, "science": 0}
    for night in (20200801, 20200802):
        simulate_night(tmp_path, night=night, **few)
    one, two = (xr.open_zarr(p, chunks=None) for p in sorted(tmp_path.glob("truth/*.zarr")))
    xr.testing.assert_equal(one.response, two.response)
    assert one.exposure.values != two.exposure.values


# Wrong arguments


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ccds": (17,)}, r"ccds \[17\]: expected different numbers within 1-16"),
        ({"ccds": ()}, "expected different numbers"),
        ({"ccds": (2, 2)}, "expected different numbers"),
        ({"shape": (0, 512)}, r"shape \(0, 512\): expected rows, columns within 32-9500"),
        ({"shape": (616, 20000)}, "within 32-9500"),
        ({"shape": (616,)}, "expected rows, columns"),
        ({"bias": -1}, "bias = -1 exposures: expected 0 or more"),
        ({"flats": -1}, "flats = -1"),
        ({"science": 5000}, "last beyond the night 20200801: expected fewer"),
        ({"night": 20201332}, "night 20201332 is no date: expected YYYYMMDD"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
        ({"workers": 0}, "workers = 0: expected 1 or more"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_before_anything_is_written(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        simulate_night(tmp_path, **(NIGHT | wrong))
    assert not list(tmp_path.iterdir())


def test_a_sky_without_an_image_is_refused(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(ValueError, match=r"empty.fits: no pixels; expected a FITS file"):
        simulate_night(tmp_path / "night", **NIGHT, sky=tmp_path / "empty.fits")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(ValueError, match=r"text.fits: cannot be read as FITS \("):
        simulate_night(tmp_path / "night", **NIGHT, sky=tmp_path / "text.fits")
    assert not (tmp_path / "night").exists()
    with pytest.raises(ValueError, match="CCD 3 is not in this camera: expected one of"):
        camera([2, 6], (32, 32), 1).at(3, 1)


# The command


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_command_makes_the_same_night(written, tmp_path, capsys):
    directory, paths = written
    counts = ("--bias", 3, "--flats", 1, "--science", 3)
    options = ("--night", "2020-08-01", "--ccds", "2,6", "--shape", "96x64", *counts, "--workers", 1, "--json")
    assert run("simulate", tmp_path, *options) == 0
    made = [Path(path) for path in json.loads(capsys.readouterr().out)]
    assert [p.relative_to(tmp_path) for p in made] == [p.relative_to(directory) for p in paths]
    assert made[-1].read_bytes() == paths[-1].read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--night", "2020-08-01:2020-08-02"), "--night: expected one night, such as 2020-08-01"),
        (("--night", "2020-08-01:"), "--night: expected one night, such as 2020-08-01"),
        (("--shape", "10x10"), "shape (10, 10): expected rows, columns within 32-9500"),
        (("--sky", "text.fits"), "text.fits: cannot be read as FITS"),
    ],
)
def test_wrong_usage_of_the_command(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.fits").write_text("no FITS")
    assert run("simulate", "night", *options) == 2
    assert message in capsys.readouterr().err
    assert not Path("night").exists()
