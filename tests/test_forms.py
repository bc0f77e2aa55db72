"""Every form of pixel storage that CFITSIO and astropy write, as whole raw files in one cube: bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from peers import fpack, same_bits
from rawfiles import OVERSCAN, SHAPE, channel_cards, find_hdus, noise, raw_hdus, raw_name, with_cards, write_raw

import ztfzarr
from ztfzarr.ingest.images import read_images
from ztfzarr.ingest.run import ingest

Images = list[np.ndarray | fits.ImageHDU]


# What the pixels are


def odd_rows() -> Images:
    """Rows that no quantisation fits: constant, half of them 1e30, NaN, exact zeros."""
    images = noise(seed=1)
    for data in images:
        data[3], data[5], data[9], data[15] = 7, 0.1, np.nan, 0
        data[4, ::2] = 1e30
        data[6, 2:7], data[20, 0] = np.nan, np.nan
        data[7, 3:8] = 0
    return images


def integers(dtype: type, scale: float = 1, offset: float = 0) -> Callable[[], Images]:
    return lambda: [(data * scale + offset).astype(dtype) for data in noise(seed=2)]


def scaled(dtype: str, bscale: float, bzero: float) -> Callable[[], Images]:
    """Integers with a BSCALE that is not 1."""

    def images() -> Images:
        hdus = [fits.ImageHDU(data.astype(np.float64)) for data in noise(seed=3)]
        for hdu in hdus:
            hdu.scale(dtype, bscale=bscale, bzero=bzero)
        return hdus

    return images


def blank() -> Images:
    """Short integers one of whose values means that there is none."""
    hdus = [fits.ImageHDU(data.astype(np.int16)) for data in noise(seed=4)]
    for hdu in hdus:
        hdu.header["BLANK"] = int(hdu.data[2, 3])
    return hdus


def small_uint32() -> Images:
    """Zeros and ones of unsigned integers: stored as the very numbers that mean NULL in quantised tiles."""
    return [np.abs(data - data.mean()).astype(np.uint32) for data in noise(seed=5)]


PIXELS: dict[str, Callable[[], Images]] = {
    "noise": noise,
    "odd": odd_rows,
    "uint8": integers(np.uint8),
    "uint16": integers(np.uint16, 300),
    "int16": integers(np.int16, 30, -5000),
    "int32": integers(np.int32, 1000, -50_000),
    "int64": integers(np.int64, 1000, -50_000),
    "uint32": integers(np.uint32, 1000),
    "small-uint32": small_uint32,
    "scaled16": scaled("int16", 0.5, 30),
    "scaled16-inexact": scaled("int16", 0.013, 100.1),
    "scaled32": scaled("int32", 0.0013, 100.1),
    "blank16": blank,
    "float64": lambda: [data.astype(np.float64) for data in noise(seed=6)],
}


# How they are stored, and what the cube keeps of it


@dataclass(frozen=True)
class Form:
    """A form of storage: pixels, how they are stored, what the cube holds, and the sign of its dither.

    ``kept``: "integers", all rows with a scale; "bits", float bits; "mixed", some rows of each.
    """

    pixels: str
    storage: str
    kept: str = "integers"
    dither: int = 0

    def __str__(self) -> str:
        return f"{self.pixels}: {self.storage}"

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        return [pytest.mark.fpack] if self.storage.startswith("fpack") else []


INTEGERS = ("uint8", "int16", "int32", "uint16")
FORMS = [
    Form("noise", "plain", "bits"),
    Form("odd", "plain", "bits"),
    *(Form(pixels, "plain") for pixels in (*INTEGERS, "scaled16", "scaled32", "uint32")),
    Form("small-uint32", "plain", "bits"),
    Form("scaled16-inexact", "plain", "bits"),
    Form("blank16", "plain", "bits"),
    Form("float64", "plain", "bits"),
    Form("int64", "plain", "bits"),
    # Quantised rows: integers, scale, zero and dither as the file has them.
    Form("noise", "fpack -r -q 4", dither=1),
    Form("noise", "fpack -r -q7 4", dither=1),
    Form("noise", "fpack -r -qz 4", dither=-1),
    Form("noise", "fpack -r -qz10000 4", dither=-1),
    Form("noise", "fpack -r -q0 4"),
    Form("noise", "fpack -r -q -1", dither=1),
    Form("noise", "fpack -g -q 4", dither=1),
    Form("noise", "fpack -g -q0 4"),
    Form("noise", "fpack -g -qz 4", dither=-1),
    Form("noise", "fpack -g2 -q 4", dither=1),
    Form("noise", "fpack -g2 -q0 4"),
    Form("noise", "fpack -g2 -qz 4", dither=-1),
    Form("odd", "fpack -r -q 4", "mixed", dither=1),
    Form("odd", "fpack -r -qz 4", "mixed", dither=-1),
    Form("odd", "fpack -r -q0 4", "mixed"),
    Form("odd", "fpack -g -q 4", "mixed", dither=1),
    Form("odd", "fpack -g -qz 4", "mixed", dither=-1),
    Form("odd", "fpack -g2 -q 4", "mixed", dither=1),
    Form("odd", "fpack -g2 -qz 4", "mixed", dither=-1),
    # Lossless floats.
    Form("noise", "fpack -g -q 0", "bits"),
    Form("noise", "fpack -g2 -q 0", "bits"),
    Form("odd", "fpack -g -q 0", "bits"),
    Form("odd", "fpack -g2 -q 0", "bits"),
    # Integers.
    *(Form(pixels, f"fpack {option}") for pixels in INTEGERS for option in ("-r", "-g", "-g2")),
    *(Form(pixels, "fpack -r") for pixels in ("scaled16", "scaled32", "uint32")),
    Form("small-uint32", "fpack -r", "bits"),
    Form("scaled16-inexact", "fpack -r", "bits"),
    Form("blank16", "fpack -g", "bits"),
    # Other tiles and algorithms: astropy decodes them.
    *(Form("noise", f"fpack {o} -q 4", "bits") for o in ("-h", "-w", "-t 50,1", "-t 150,8", "-g -t 9,9")),
    Form("noise", "fpack -h -q 16 -s 2", "bits"),
    Form("odd", "fpack -h -q 4", "bits"),
    Form("odd", "fpack -t 150,8 -q 4", "bits"),
    *(Form("int16", f"fpack {option}", "bits") for option in ("-h", "-w", "-t 150,8")),
    Form("uint8", "fpack -p", "bits"),
    Form("uint16", "fpack -p", "bits"),
    # By astropy.
    Form("noise", "astropy RICE_1 -1"),
    Form("noise", "astropy RICE_1 1", dither=1),
    Form("noise", "astropy RICE_1 2", dither=-1),
    Form("noise", "astropy GZIP_1 2", dither=-1),
    Form("noise", "astropy GZIP_2 1", dither=1),
    Form("odd", "astropy RICE_1 1", "mixed", dither=1),
    Form("odd", "astropy RICE_1 2", "mixed", dither=-1),
    Form("odd", "astropy GZIP_2 2", "mixed", dither=-1),
    Form("noise", "astropy HCOMPRESS_1 1", "bits"),
    Form("noise", "astropy NOCOMPRESS 1", "bits"),
    *(Form(pixels, "astropy RICE_1 -1") for pixels in ("uint8", "int16", "uint16", "int32")),
    Form("int16", "astropy GZIP_2 -1"),
]


def packed_by_fpack(form: Form, folder: Path, name: str) -> Path:
    path = write_raw(folder, name, PIXELS[form.pixels]())
    return fpack(path, *form.storage.split()[1:])


def packed_by_astropy(form: Form, folder: Path, name: str) -> Path:
    _, method, dither = form.storage.split()
    options = {"compression_type": method, "quantize_method": int(dither), "dither_seed": 77}
    path = folder / f"{name}.fz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tile that does not quantise
        plain = raw_hdus(name, PIXELS[form.pixels]())
        packed = [fits.CompImageHDU(hdu.data, header=hdu.header, **options) for hdu in plain[1:]]
        for i, hdu in enumerate(packed, start=1):
            with_cards(hdu.header, channel_cards(name, i))
        fits.HDUList([plain[0], *packed]).writeto(path)
    return path


def write_form(form: Form, folder: Path, name: str) -> Path:
    if form.storage == "plain":
        return write_raw(folder, name, PIXELS[form.pixels]())
    by = packed_by_fpack if form.storage.startswith("fpack") else packed_by_astropy
    return by(form, folder, name)


def astropy_reads(path: Path) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as file:
            return [np.asarray(hdu.data).astype(np.float32) for hdu in file[1:]]


def of_file(dataset: xr.Dataset, path: Path) -> list[np.ndarray]:
    """The eight images of a file in a cube."""
    exposure, ccd = int(path.name[4:18]), int(path.name.split("_c")[1][:2])
    file = dataset.isel(time=int(np.flatnonzero(dataset.exposure == exposure)[0])).sel(ccd=ccd)
    return [*file.raw.values, *file.overscan.values]


@dataclass(frozen=True)
class Written:
    """All the forms as files, and a cube of them: decoded, and plain."""

    paths: dict[Form, Path]
    cube: xr.Dataset
    raw: xr.Dataset


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, have_fpack: bool) -> Written:
    folder = tmp_path_factory.mktemp("forms")
    forms = [form for form in FORMS if have_fpack or not form.marks]
    paths = {form: write_form(form, folder, raw_name(i)) for i, form in enumerate(forms)}
    store = folder / "cube.zarr"
    report = ingest(store, list(paths.values()))
    assert report.refused == []
    assert report.ingested == len(forms)
    return Written(paths, ztfzarr.open_cube(store), xr.open_zarr(store / "raw", chunks=None))


@pytest.fixture(scope="module")
def have_fpack() -> bool:
    import shutil

    return shutil.which("fpack") is not None


each_form = pytest.mark.parametrize("form", [pytest.param(f, id=str(f), marks=f.marks) for f in FORMS])


@each_form
def test_cube_has_astropys_values(form: Form, written: Written) -> None:
    path = written.paths[form]
    for image, expected in zip(of_file(written.cube, path), astropy_reads(path), strict=True):
        assert same_bits(image, expected)


@each_form
def test_open_fits_has_astropys_values(form: Form, written: Written) -> None:
    path = written.paths[form]
    for image, expected in zip(of_file(ztfzarr.open_fits(path), path), astropy_reads(path), strict=True):
        assert same_bits(image, expected)


@each_form
def test_cube_keeps_integers(form: Form, written: Written) -> None:
    exposure = int(written.paths[form].name[4:18])
    file = written.raw.isel(time=int(np.flatnonzero(written.raw.exposure == exposure)[0])).sel(ccd=6)
    scaled = file.zscale.values != 0
    assert not np.isnan(file.zscale.values).any()
    assert {"integers": scaled.all(), "bits": not scaled.any(), "mixed": scaled.any() > scaled.all()}[form.kept]
    assert (np.sign(file.zdither.values) == form.dither).all()


def test_forms_cover_what_the_issue_names(written: Written) -> None:
    """RICE_1 and RICE_ONE, GZIP, HCOMPRESS, PLIO; every dither; BYTEPIX 1, 2, 4; the columns of fallback rows."""
    cards: dict[str, set] = {key: set() for key in ("ZCMPTYPE", "ZQUANTIZ", "ZVAL2", "TTYPE1", "TTYPE2", "BITPIX")}
    for path in written.paths.values():
        for hdu in find_hdus(path.read_bytes())[1:]:
            for key, found in cards.items():
                found.add(hdu.value(key))
    assert {"RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "NOCOMPRESS"} <= cards["ZCMPTYPE"]
    assert {"NO_DITHER", "SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2"} <= cards["ZQUANTIZ"]
    assert {8, 16, 32, 64, -32, -64} == cards["BITPIX"]


@pytest.mark.fpack
def test_fpacks_forms_cover_what_the_issue_names(written: Written) -> None:
    found = [hdu for path in written.paths.values() for hdu in find_hdus(path.read_bytes())[1:]]
    assert {"RICE_ONE", "PLIO_1"} <= {hdu.value("ZCMPTYPE") for hdu in found}
    assert {1, 2, 4} <= {hdu.value("ZVAL2") for hdu in found if hdu.value("ZNAME2") == "BYTEPIX"}
    assert -2147483647 in {hdu.value("ZBLANK") for hdu in found}
    assert {"GZIP_COMPRESSED_DATA", "ZSCALE"} <= {hdu.value("TTYPE2") for hdu in found}


def spliced(paths: list[Path], target: Path) -> Path:
    """A raw file whose extensions have the forms of different files, extension by extension."""
    contents = [path.read_bytes() for path in paths]
    files = [find_hdus(content) for content in contents]
    parts = [contents[0][: files[0][0].end]]
    for i in range(1, 9):
        hdu = files[(i - 1) % len(paths)][i]
        parts.append(contents[(i - 1) % len(paths)][hdu.start : hdu.end])
    target.write_bytes(b"".join(parts))
    return target


MIXTURES = {
    "floats": ["noise: plain", "odd: plain", "noise: astropy RICE_1 1", "odd: astropy GZIP_2 2"],
    "integers and floats": ["uint16: plain", "noise: astropy RICE_1 2", "blank16: plain", "int64: plain"],
    "rare ones": ["noise: astropy HCOMPRESS_1 1", "int32: plain", "noise: astropy NOCOMPRESS 1"],
}


@pytest.mark.parametrize("names", MIXTURES.values(), ids=MIXTURES.keys())
def test_forms_mix_in_a_file(names: list[str], written: Written, tmp_path: Path) -> None:
    of_name = {str(form): path for form, path in written.paths.items()}
    paths = [of_name[name] for name in names]
    path = spliced(paths, tmp_path / paths[0].name)
    report = ingest(tmp_path / "cube.zarr", [path])
    assert report.refused == []
    expected = astropy_reads(path)
    for dataset in (ztfzarr.open_cube(tmp_path / "cube.zarr"), ztfzarr.open_fits(path)):
        assert all(same_bits(a, b) for a, b in zip(of_file(dataset, path), expected, strict=True))


def with_card(header: bytes, old: str, card: str) -> bytes:
    """Header blocks with one card in the place of another."""
    start = header.index(old.ljust(8).encode() + b"=")
    return header[:start] + card.ljust(80).encode() + header[start + 80 :]


def blanked(path: Path, folder: Path, *, column: bool) -> Path:
    """A quantised file in which an ordinary integer of each image stands for NULL: by a card, or row by row."""
    content = path.read_bytes()
    hdus = find_hdus(content)
    parts = [content[: hdus[0].end]]
    for hdu in hdus[1:]:
        null = int(read_images([hdu], memoryview(content))[0].integers[2, 3])
        header, data = hdu.text, content[hdu.data_offset : hdu.data_offset + hdu.data_size]
        if column:
            width, rows = hdu.integer("NAXIS1"), hdu.integer("NAXIS2")
            table = np.frombuffer(data, np.uint8, width * rows).reshape(rows, width)
            nulls = np.full((rows, 1), null, ">i4").view(np.uint8)
            data = np.hstack([table, nulls]).tobytes() + data[width * rows :]
            for old, card in {
                "NAXIS1": f"NAXIS1  = {width + 4:20}",
                "TFIELDS": f"TFIELDS = {hdu.integer('TFIELDS') + 1:20}",
                "GAIN": f"TTYPE{hdu.integer('TFIELDS') + 1}  = 'ZBLANK  '",
                "READNOI": f"TFORM{hdu.integer('TFIELDS') + 1}  = '1J      '",
            }.items():
                header = with_card(header, old, card)
        else:
            header = with_card(header, "GAIN", f"ZBLANK  = {null:20}")
        parts += [header, data, bytes(-len(data) % 2880)]
    (folder / path.name).write_bytes(b"".join(parts))
    return folder / path.name


QUANTISED = Form("noise", "astropy RICE_1 1", dither=1)


def assert_as_astropy(path: Path, expected: list[np.ndarray], store: Path) -> None:
    assert ingest(store, [path]).refused == []
    for dataset in (ztfzarr.open_cube(store), ztfzarr.open_fits(path)):
        assert all(same_bits(a, b) for a, b in zip(of_file(dataset, path), expected, strict=True))


@pytest.mark.parametrize("column", [False, True], ids=["card", "column"])
def test_any_integer_may_stand_for_null(column: bool, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    path = blanked(write_form(QUANTISED, tmp_path, raw_name()), tmp_path / "new", column=column)
    expected = astropy_reads(path)
    assert all(np.isnan(image[2, 3]) and not np.isnan(image).all() for image in expected)
    assert_as_astropy(path, expected, tmp_path / "cube.zarr")


@pytest.mark.parametrize("form", [Form("noise", "plain"), QUANTISED], ids=str)
def test_floats_with_a_bscale(form: Form, tmp_path: Path) -> None:
    path = write_form(form, tmp_path, raw_name())
    before, content = astropy_reads(path), path.read_bytes()
    for hdu in find_hdus(content)[1:]:
        content = content.replace(hdu.text, with_card(hdu.text, "GAIN", "BSCALE  =                  0.5"))
    path.write_bytes(content.replace(b"CHECKSUM=", b"CHECKED =").replace(b"DATASUM =", b"DATUM   ="))
    expected = astropy_reads(path)
    if form.storage == "plain":
        assert same_bits(expected[0], before[0] / 2)
    assert_as_astropy(path, expected, tmp_path / "cube.zarr")


def test_open_fits_is_the_cube(written: Written) -> None:
    """Not the pixels only: coordinates, names, labels; all but the hashes."""
    cube = written.cube.drop_vars("source_sha256")
    direct = ztfzarr.open_fits(list(written.paths.values())).assign_attrs(cube.attrs)
    xr.testing.assert_identical(cube.drop_vars(("raw", "overscan")), direct.drop_vars(("raw", "overscan")))
    for name in ("raw", "overscan"):
        assert cube[name].attrs == direct[name].attrs
        assert (cube[name].dims, cube[name].dtype) == (direct[name].dims, direct[name].dtype)


def test_open_fits_reads_lazily_and_part(written: Written, tmp_path: Path) -> None:
    path = next(iter(written.paths.values()))
    whole = of_file(ztfzarr.open_fits(path), path)[2]
    dataset = ztfzarr.open_fits(path).isel(time=0)
    part = dataset.raw.sel(ccd=6, quadrant=3).isel(y=slice(3, 20, 4), x=[5, 2, 59])
    assert same_bits(part.values, whole[3:20:4][:, [5, 2, 59]])
    assert dataset.raw.isel(y=slice(0)).values.shape == (16, 4, 0, SHAPE[1])
    assert np.isnan(dataset.overscan.sel(ccd=5).values).all()
    assert dataset.overscan.shape == (16, 4, SHAPE[0], OVERSCAN)
