"""Names, headers and the coordinates taken from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from rawfiles import Cards, find_hdus, raw_name, with_cards, write_raw
from stores import flip

import ztfzarr
from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.ingest.cards import card_fields, card_value
from ztfzarr.ingest.names import RawName, parse_name
from ztfzarr.ingest.run import ingest
from ztfzarr.ingest.scan import RawFile, scan
from ztfzarr.ingest.sources import Source
from ztfzarr.store.raw import HEADER_BYTES

# Names


@pytest.mark.parametrize("packed", ["", ".fz"])
def test_name_of_a_real_file(packed: str) -> None:
    name = parse_name(f"ztf_20200401152477_000517_zg_c06_o.fits{packed}")
    assert name == RawName(20200401152477, 517, "zg", 6, "o")
    assert name.imgtype == "object"


@given(
    exposure=st.integers(0, 999_999).map(lambda f: 20200229_000000 + f),
    field=st.integers(0, 999_999),
    kind=st.sampled_from(["bi b", "zg f", "zr f", "zi f", "zg o", "zr o", "zi o"]),
    ccd=st.integers(1, 16),
)
def test_every_name_says_what_it_was_made_of(exposure: int, field: int, kind: str, ccd: int) -> None:
    band, letter = kind.split()
    name = parse_name(f"ztf_{exposure}_{field:06d}_{band}_c{ccd:02d}_{letter}.fits.fz")
    assert name == RawName(exposure, field, band, ccd, letter)


FORM = "name is not that of a raw file: expected ztf_<YYYYMMDDFFFFFF>_<field, 6 digits>_<filter>_c<ccd, 2 digits>_"
BAD_NAMES = {
    "ztf_20200401152477_000517_zg_c06_o.fits.gz": FORM,
    "ztf_20200401152477_000517_zg_c06_o_q1.fits": FORM,
    "ztf_2020040115247_000517_zg_c06_o.fits": FORM,
    "ztf_20200401152477_517_zg_c06_o.fits": FORM,
    "ztf_20200401152477_000517_zg_c6_o.fits": FORM,
    "ztf_20200401152477_000517_ZG_c06_o.fits": FORM,
    "ztf_2020040115247\u0667_000517_zg_c06_o.fits": FORM,
    "image.fits": FORM,
    "": FORM,
    "ztf_20200401152477_000517_zg_c00_o.fits": "CCD 0 in the name: expected 1-16",
    "ztf_20200401152477_000517_zg_c17_o.fits": "CCD 17 in the name: expected 1-16",
    "ztf_20200431152477_000517_zg_c06_o.fits": "20200431 in the name is no date: expected YYYYMMDD",
    "ztf_20201301152477_000517_zg_c06_o.fits": "20201301 in the name is no date: expected YYYYMMDD",
    "ztf_20200401152477_000517_zg_c06_d.fits": (
        "kind 'd' is known to the camera but not read here: expected b (bias), f (dome flat) or o (object)"
    ),
    "ztf_20200401152477_000517_zg_c06_z.fits": (
        "kind 'z' is unknown: expected b (bias), f (dome flat) or o (object)"
    ),
    "ztf_20200401152477_000517_zz_c06_o.fits": "filter 'zz' in the name: expected zg, zr, zi",
    "ztf_20200401152477_000517_bi_c06_o.fits": "filter 'bi' in the name: expected zg, zr, zi",
    "ztf_20200401152477_000000_zg_c06_b.fits": "filter 'zg' in the name: expected bi",
}


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES.items(), ids=BAD_NAMES.keys())
def test_bad_name_is_refused(name: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_name(name)
    assert str(refused.value).startswith(reason)


# Cards


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("= 'object  '           / Image type", "object"),
        ("= 'O''Hara / it''s'", "O'Hara / it's"),
        ("=  '  leading'", "  leading"),
        ("= ''", ""),
        ("=                    T", True),
        ("=                    F / no", False),
        ("=                  -32 / bits", -32),
        ("= +7/comment", 7),
        ("=                  30. / s", 30.0),
        ("= .5", 0.5),
        ("=             6.58E-05 / torr", 6.58e-05),
        ("=  1.25D+02", 125.0),
        ("= / no value", None),
        ("=", None),
    ],
)
def test_card_value(field: str, value: object) -> None:
    found = card_value(field.ljust(72).encode())
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "field", ["  12", "= 'open", "= 1 2", "= nan", "= 1E999", "= 0x10", "= abc", "=12", "= 1_0"]
)
def test_what_is_no_card_value(field: str) -> None:
    with pytest.raises(ValueError, match=r"FITS value|range"):
        card_value(field.ljust(72).encode())


@given(st.one_of(st.integers(-(10**18), 10**18), st.booleans(), st.text("aZ'/ =", max_size=14)))
def test_cards_that_astropy_writes_parse(value: object) -> None:
    value = value.rstrip() if isinstance(value, str) else value
    card = fits.Card("KEY", value, "it's a / comment").image.encode()
    assert card_value(card_fields(card)["KEY"][0]) == value


@given(st.floats(-1e300, 1e300))
def test_numbers_that_astropy_writes_parse(value: float) -> None:
    """To the digits that fit its 20 columns."""
    card = fits.Card("KEY", value).image.encode()
    assert card_value(card_fields(card)["KEY"][0]) == pytest.approx(value, rel=1e-12)


# Coordinates


def scanned(folder: Path, name: str, cards: Cards, channel: Cards | None = None) -> RawFile:
    """Scan a file some of whose primary and extension cards are changed; None removes one."""

    def change(hdus: fits.HDUList) -> None:
        with_cards(hdus[0].header, cards)
        for hdu in hdus[1:]:
            with_cards(hdu.header, channel or {})

    return scan(Source(str(write_raw(folder, name, change=change))))


TIME = "2020-09-24T10:21:45.677"
NAMED = np.datetime64("2020-09-24T10:21:43.977600", "us")
MJD_TIME = "2020-09-24T10:21:44.928000"
TIMES: dict[str, tuple[Cards, str]] = {
    "SHUTOPEN": ({"SHUTOPEN": TIME, "OBSMJD": 59116.4}, TIME),
    "SHUTOPEN to the second": ({"SHUTOPEN": "2020-09-24T10:21:45"}, "2020-09-24T10:21:45"),
    "SHUTOPEN beyond microseconds": ({"SHUTOPEN": TIME + "123456"}, TIME + "123"),
    "OBSMJD": ({"SHUTOPEN": None, "OBSMJD": 59116.43177}, MJD_TIME),
    "OBSMJD for a blank SHUTOPEN": ({"SHUTOPEN": "", "OBSMJD": 59116.43177}, MJD_TIME),
    "OBSMJD for half a SHUTOPEN": ({"SHUTOPEN": "10:21", "OBSMJD": 59116.43177}, MJD_TIME),
    "OBSMJD for NaT": ({"SHUTOPEN": "NaT", "OBSMJD": 59116.43177}, MJD_TIME),
    "name": ({"SHUTOPEN": None}, str(NAMED)),
    "name for an OBSMJD of 0": ({"SHUTOPEN": None, "OBSMJD": 0}, str(NAMED)),
    "name for 31 September": ({"SHUTOPEN": "2020-09-31T10:21:45"}, str(NAMED)),
}  # fmt: skip


@pytest.mark.parametrize(("cards", "time"), TIMES.values(), ids=TIMES.keys())
def test_time(cards: Cards, time: str, tmp_path: Path) -> None:
    file = scanned(tmp_path, raw_name(), cards)
    assert file.coordinates["time"] == np.datetime64(time, "us").astype(np.int64)
    assert file.coordinates["night"] == 20200924


def number(cards: Cards, key: str, value: float) -> tuple[Cards, str, float]:
    return cards, key, value


COORDINATES = {
    "led": number({"ILUM_LED": 7}, "led", 7),
    "led as a real number": number({"ILUM_LED": 7.0}, "led", 7),
    "no led": number({}, "led", -1),
    "led as text": number({"ILUM_LED": "seven"}, "led", -1),
    "led beyond int16": number({"ILUM_LED": 70_000}, "led", -1),
    "wavelength": number({"ILUMWAVE": 525.5}, "led_wavelength", 525.5),
    "power": number({"ILUMPOWR": 10}, "led_power", 10.0),
    "program": number({"PROGRMID": 2}, "program", 2),
    "no program": number({}, "program", -1),
    "exptime": number({"EXPTIME": 29.5, "EXPOSURE": 1.0}, "exptime", 29.5),
    "exposure for exptime": number({"EXPTIME": None, "EXPOSURE": 12.5}, "exptime", 12.5),
    "no exptime": number({"EXPTIME": None}, "exptime", np.nan),
    "ra": number({"RAD": 48.36833, "TELRAD": 1.0}, "ra", 48.36833),
    "ra of the telescope": number({"TELRAD": 48.4}, "ra", 48.4),
    "ra of the telescope for text": number({"RAD": "03:13", "TELRAD": 48.4}, "ra", 48.4),
    "dec": number({"DECD": -8.55, "TELDECD": 1.0}, "dec", -8.55),
    "dec of the telescope": number({"TELDECD": -8.5}, "dec", -8.5),
    "airmass": number({"AIRMASS": 1.155}, "airmass", 1.155),
    "azimuth": number({"AZIMUTH": 222.5}, "azimuth", 222.5),
    "elevation": number({"ELVATION": 59.9}, "elevation", 59.9),
    "moon": number({"MOONILLF": 0.5}, "moon_illumination", 0.5),
    "open time": number({}, "open_time", 29.964),
    "open over midnight": number({"SHUTCLSD": "2020-09-25T00:00:00"}, "open_time", 49094.3224),
    "never closed": number({"SHUTCLSD": None}, "open_time", np.nan),
    "no field in the header": number({"FIELDID": None}, "field", 655),
}


@pytest.mark.parametrize(("cards", "key", "value"), COORDINATES.values(), ids=COORDINATES.keys())
def test_coordinate(cards: Cards, key: str, value: float, tmp_path: Path) -> None:
    found = scanned(tmp_path, raw_name(), cards).coordinates[key]
    assert found == pytest.approx(value, abs=1e-9, nan_ok=True)
    assert isinstance(found, int) == (key in ("led", "program", "field"))


def test_card_that_does_not_parse_is_no_coordinate(tmp_path: Path) -> None:
    """A telescope may write NAN, which is no FITS value: the exposure is as good without its airmass."""
    path = write_raw(
        tmp_path, raw_name(), change=lambda h: with_cards(h[0].header, {"AIRMASS": 1.25}), checksum=False
    )
    path.write_bytes(path.read_bytes().replace(b"1.25 ", b" NAN "))
    file = scan(Source(str(path)))
    assert np.isnan(file.coordinates["airmass"])
    assert file.coordinates["exptime"] == 30.0


@pytest.mark.parametrize(("kind", "field"), [("b", 0), ("f", 0), ("o", 655)])
def test_kind_and_filter_are_the_names(kind: str, field: int, tmp_path: Path) -> None:
    name = raw_name(kind=kind)
    cards: Cards = {"IMGTYPE": None, "FILTERID": None, "FIELDID": None}
    found = scanned(tmp_path, name, cards).coordinates
    expected = {"b": ("bias", "bi"), "f": ("flat", "zr"), "o": ("object", "zr")}[kind]
    assert (found["imgtype"], found["filter"], found["field"]) == (*expected, field)


def test_headers_may_say_nothing(tmp_path: Path) -> None:
    """A file with no cards beyond FITS's own is what its name says."""
    nothing: Cards = dict.fromkeys(("IMGTYPE", "FILTERID", "FIELDID", "SHUTOPEN", "SHUTCLSD", "EXPTIME"))
    file = scanned(
        tmp_path, raw_name(), nothing, dict.fromkeys(("CCD_ID", "AMP_ID", "GAIN", "READNOI", "EXTNAME"))
    )
    assert file.coordinates["time"] == NAMED.astype(np.int64)
    assert np.isnan([*file.gain, *file.read_noise]).all()


def test_gain_and_read_noise_are_the_quadrants(tmp_path: Path) -> None:
    file = scanned(tmp_path, raw_name(), {})
    assert (file.gain, file.read_noise) == ((7.0, 8.0, 9.0, 10.0), (9.5,) * 4)
    assert (file.shape, file.key) == ((24, 60, 9), (20200924431759, 6))


def test_where_the_files_of_an_exposure_differ_the_first_counts(tmp_path: Path) -> None:
    for ccd in (3, 7):
        change = {"AIRMASS": 1 + ccd / 10}
        write_raw(tmp_path, raw_name(ccd=ccd), change=lambda hdus, cards=change: with_cards(hdus[0].header, cards))
    assert ingest(tmp_path / "cube.zarr", [tmp_path]).refused == []
    for dataset in (ztfzarr.open_cube(tmp_path / "cube.zarr"), ztfzarr.open_fits(tmp_path)):
        assert dataset.airmass.values.tolist() == [1.3]


def test_time_of_calibrations_across_midnight(tmp_path: Path) -> None:
    """Biases at 23:58 UT and flats after midnight belong to the night that begins."""
    nights = []
    for number_ in (20200731_998611, 20200801_083333):
        name = f"ztf_{number_}_000000_bi_c06_b.fits"
        nights.append(scanned(tmp_path, name, {"SHUTOPEN": None}).coordinates["night"])
    assert nights == [20200801, 20200801]


# All cards, byte for byte


def odd_header(header: fits.Header) -> None:
    """Cards of every character that FITS has."""
    header["HIERARCH ZTF LONG KEYWORD"] = ("value", "a comment")
    header["LONGTEXT"] = "x" * 200
    header["COMPLEX"] = 1 + 2j
    header["UNDEF"] = None
    header["QUOTED"] = "O'Hara''s"
    header["LARGE"] = 2**70
    header.add_comment("a comment " * 20)
    header.add_history("history")
    header.add_blank("blank keyword")


def lengthen(header: fits.Header, cards: int) -> None:
    for i in range(cards):
        header[f"K{i}"] = (i, f"card {i} of {cards}")


def blocks_of(path: Path) -> list[bytes]:
    return [hdu.text for hdu in find_hdus(path.read_bytes())]


def plain(store: Path) -> xr.Dataset:
    return xr.open_zarr(store / "raw", chunks=None)


def kept_blocks(raw: xr.Dataset, path: Path) -> list[bytes]:
    row = int(np.flatnonzero(raw.exposure == int(path.name[4:18]))[0])
    table = raw.header.isel(time=row).sel(ccd=int(path.name.split("_c")[1][:2])).values
    return [row.tobytes().rstrip(b"\0") for row in table]


def with_odd_headers(
    folder: Path, name: str, cards: int = 0, only: Callable[[int], bool] = lambda i: True
) -> Path:
    def change(hdus: fits.HDUList) -> None:
        for i, hdu in enumerate(hdus):
            if only(i):
                odd_header(hdu.header)
                lengthen(hdu.header, cards)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # of the long card
        return write_raw(folder, name, change=change)


def test_every_card_is_kept(tmp_path: Path) -> None:
    path = with_odd_headers(tmp_path, raw_name())
    assert ingest(tmp_path / "cube.zarr", [path]).refused == []
    assert kept_blocks(plain(tmp_path / "cube.zarr"), path) == blocks_of(path)


def test_every_card_of_a_night_is_kept(night_store: Path, raw_files: list[Path]) -> None:
    raw = plain(night_store)
    for path in raw_files:
        assert kept_blocks(raw, path) == blocks_of(path)


def test_late_long_header_lengthens_the_table(tmp_path: Path) -> None:
    """Longer than what five blocks hold; files before and after keep theirs, readers the shape they saw."""
    store = tmp_path / "cube.zarr"
    paths = [write_raw(tmp_path, raw_name(0))]
    ingest(store, paths)
    before = plain(store)
    assert before.sizes["byte"] == HEADER_BYTES
    paths.append(with_odd_headers(tmp_path, raw_name(1), 400, only=lambda i: i in (0, 3)))
    paths += [with_odd_headers(tmp_path, raw_name(1, ccd=7)), write_raw(tmp_path, raw_name(2))]
    assert ingest(store, paths).ingested == 3
    assert max(len(text) for text in blocks_of(paths[1])) > 2 * HEADER_BYTES
    after = plain(store)
    assert after.sizes["byte"] == 3 * HEADER_BYTES
    assert before.header.isel(time=0).values.shape[-1] == HEADER_BYTES
    for path in paths:
        assert kept_blocks(after, path) == blocks_of(path)


# ztfzarr.header


@pytest.mark.parametrize("hdu", range(9))
def test_header_is_the_files(hdu: int, night_store: Path, raw_files: list[Path]) -> None:
    path = raw_files[5]
    found = ztfzarr.header(night_store, int(path.name[4:18]), int(path.name.split("_c")[1][:2]), hdu)
    with fits.open(path, disable_image_compression=True) as file:
        assert found.tostring() == file[hdu].header.tostring()


def test_header_of_odd_cards_warns_of_nothing(tmp_path: Path) -> None:
    path = with_odd_headers(tmp_path, raw_name(), 300)
    ingest(tmp_path / "cube.zarr", [path])
    found = ztfzarr.header(tmp_path / "cube.zarr", 20200924431759, 6)
    assert found["LONGTEXT"] == "x" * 200
    assert found["K299"] == 299
    assert found["HIERARCH ZTF LONG KEYWORD"] == "value"


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    ingest(folder / "cube.zarr", [write_raw(folder, raw_name())])
    return folder / "cube.zarr"


@pytest.mark.parametrize(
    ("exposure", "ccd", "hdu", "reason"),
    [
        (20200924431759, 6, 9, "no CCD 6, HDU 9: expected 1-16 and 0-8"),
        (20200924431759, 0, 0, "no CCD 0, HDU 0: expected 1-16 and 0-8"),
        (20200924431759, 17, 0, "no CCD 17, HDU 0: expected 1-16 and 0-8"),
        (20200924431759, 6, -1, "no CCD 6, HDU -1: expected 1-16 and 0-8"),
        (20200924431759, 7, 0, "exposure 20200924431759 has no file of CCD 7"),
        (20200924431758, 6, 0, "no exposure 20200924431758 in the cube"),
    ],
)
def test_no_such_header(exposure: int, ccd: int, hdu: int, reason: str, one_file: Path) -> None:
    with pytest.raises(StoreError) as error:
        ztfzarr.header(one_file, exposure, ccd, hdu)
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (Path.unlink, "raw/header: header of HDU 0 is missing"),
        (lambda path: flip(path, 10), "raw/header is damaged"),
    ],
    ids=["lost", "damaged"],
)
def test_header_that_is_lost_or_damaged(harm: Callable, reason: str, store_copy: Path) -> None:
    harm(store_copy / "raw/header/c/4/0/0/0")
    exposure = int(xr.open_zarr(store_copy / "raw", chunks=None).exposure[4])
    with pytest.raises(StoreError, match=reason):
        ztfzarr.header(store_copy, exposure, 2)
