"""Bad input: each with one line, exit status 1, the good files in, and never a pixel of it marked present."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import fpack, same_bits
from rawfiles import find_hdus, flipped, noise, raw_name, with_cards, write_raw

import ztfzarr
from ztfzarr.cli import main
from ztfzarr.errors import RefusedError
from ztfzarr.ingest import rare
from ztfzarr.ingest.run import ingest
from ztfzarr.ingest.sources import Source

Write = Callable[[Path, str], Path]


# Ways to make a bad file: each writes one under the name it is given


def with_primary(**cards: object) -> Write:
    return lambda folder, name: write_raw(folder, name, change=lambda hdus: with_cards(hdus[0].header, cards))


def with_extension(index: int, **cards: object) -> Write:
    return lambda folder, name: write_raw(folder, name, change=lambda hdus: with_cards(hdus[index].header, cards))


def with_hdus(change: Callable[[fits.HDUList], object]) -> Write:
    def write(folder: Path, name: str) -> Path:
        return write_raw(folder, name, change=lambda hdus: change(hdus) and None)

    return write


def with_images(images: list) -> Write:
    return lambda folder, name: write_raw(folder, name, images)


def with_bytes(change: Callable[[bytes], bytes], *, checksum: bool = True, packed: bool = False) -> Write:
    """Change the bytes of a written file; ``packed`` by astropy, row tiles under RICE."""

    def write(folder: Path, name: str) -> Path:
        path = write_raw(folder, name, rice(noise()) if packed else None, checksum=checksum)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def rice(images: list[np.ndarray]) -> list[fits.CompImageHDU]:
    return [
        fits.CompImageHDU(data, compression_type="RICE_1", quantize_method=1, dither_seed=9) for data in images
    ]


def harmed(index: int, where: str, *, checksum: bool = True, packed: bool = False) -> Write:
    """A bit flipped in the header, table or heap of an HDU."""

    def change(content: bytes) -> bytes:
        hdu = find_hdus(content)[index]
        table = hdu.integer("NAXIS1") * hdu.integer("NAXIS2") if hdu.index else 0
        card = b"GAIN    =" if index else b"EXPTIME ="
        places = {
            "header": hdu.start + hdu.text.index(card) + 29,
            "table": hdu.data_offset + 7,
            "data": hdu.data_offset + hdu.data_size // 2,
            "heap": hdu.data_offset + table + 50,
            "padding": hdu.end - 1,
            "end": hdu.data_offset - 5,
        }
        return flipped(content, places[where])

    return with_bytes(change, checksum=checksum, packed=packed)


def with_card(index: int, old: bytes, new: bytes, *, packed: bool = False) -> Write:
    """Bytes of a header replaced, in a file without checksums."""

    def change(content: bytes) -> bytes:
        hdu = find_hdus(content)[index]
        assert old in hdu.text
        header = hdu.text.replace(old, new.ljust(len(old)), 1)
        return content[: hdu.start] + header + content[hdu.data_offset :]

    return with_bytes(change, checksum=False, packed=packed)


def short_tile(content: bytes) -> bytes:
    """The third row's tile of quadrant 2 one byte shorter than it is."""
    hdu = find_hdus(content)[2]
    offset = hdu.data_offset + 2 * hdu.integer("NAXIS1") + 3
    return content[:offset] + bytes([content[offset] - 1]) + content[offset + 1 :]


def far_tile(content: bytes) -> bytes:
    """The fifth row's tile of overscan 1 beyond the heap."""
    hdu = find_hdus(content)[5]
    offset = hdu.data_offset + 4 * hdu.integer("NAXIS1") + 4
    return content[:offset] + b"\x7f" + content[offset + 1 :]


def reordered(hdus: fits.HDUList) -> None:
    hdus[1], hdus[2] = hdus[2], hdus[1]


def with_value(image: int, value: float, dtype: type) -> list[np.ndarray]:
    images = [data.astype(dtype) for data in noise()]
    images[image - 1][5, 6] = value
    return images


def a_directory(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def a_dangling_link(folder: Path, name: str) -> Path:
    (folder / name).symlink_to(folder / "nowhere")
    return folder / name


def a_pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def written(content: bytes) -> Write:
    def write(folder: Path, name: str) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def truncated(keep: Callable[[bytes], int]) -> Write:
    return with_bytes(lambda content: content[: keep(content)])


@dataclass(frozen=True)
class Bad:
    """A bad file, the line that refuses it ("…" stands for anything), and its name if it needs one."""

    write: Write
    reason: str
    name: str = ""

    def refuses(self, line: str) -> bool:
        pattern = ".+".join(re.escape(part) for part in self.reason.split("…"))
        return re.fullmatch(pattern, line) is not None


BAD: dict[str, Bad] = {
    # Not the whole file, or no FITS.
    "zero length": Bad(written(b""), "file is empty: expected a FITS file"),
    "not FITS": Bad(
        written(b"P6 3080 3072 255 " * 400), "not FITS: HDU 0 at byte 0 starts with b'P6 3080 ', expected SIMPLE"
    ),
    "an error page": Bad(
        written(b"<html>404</html>"), "not FITS: HDU 0 at byte 0 starts with b'<html>40', expected SIMPLE"
    ),
    "gzipped": Bad(
        written(b"\x1f\x8b\x08\x00" * 900),
        "not FITS: HDU 0 at byte 0 starts with b'\\x1f\\x8b\\x08\\x00\\x1f\\x8b\\x08\\x00', expected SIMPLE",
    ),
    "truncated in the primary header": Bad(
        truncated(lambda c: 1000), "truncated in the header of HDU 0, at byte 1000"
    ),
    "truncated after the primary header": Bad(
        truncated(lambda c: find_hdus(c)[1].start), "1 HDUs: expected 9 (primary, 4 quadrants, 4 overscans)"
    ),
    "truncated in a header": Bad(
        truncated(lambda c: find_hdus(c)[3].start + 81), "truncated in the header of HDU 3, at byte 20241"
    ),
    "truncated in a quadrant": Bad(
        truncated(lambda c: find_hdus(c)[2].data_offset + 100),
        "truncated in HDU 2: 14500 bytes, expected at least 20160",
    ),
    "truncated between quadrants": Bad(
        truncated(lambda c: find_hdus(c)[4].end), "5 HDUs: expected 9 (primary, 4 quadrants, 4 overscans)"
    ),
    "truncated in the last padding": Bad(
        truncated(lambda c: len(c) - 1), "truncated in HDU 8: 60479 bytes, expected at least 60480"
    ),
    "a byte too many": Bad(with_bytes(lambda c: c + b"\0"), "1 bytes after HDU 8: expected the end of the file"),
    "missing extension": Bad(
        with_hdus(lambda hdus: hdus.pop(8)), "8 HDUs: expected 9 (primary, 4 quadrants, 4 overscans)"
    ),
    "missing overscans": Bad(
        with_hdus(lambda hdus: [hdus.pop(5) for _ in range(4)]),
        "5 HDUs: expected 9 (primary, 4 quadrants, 4 overscans)",
    ),
    "extra extension": Bad(
        with_hdus(lambda hdus: hdus.append(fits.ImageHDU(np.zeros((2, 2), np.float32)))),
        "5760 bytes after HDU 8: expected the end of the file",
    ),
    "primary HDU with data": Bad(
        with_hdus(lambda hdus: hdus.__setitem__(0, fits.PrimaryHDU(np.zeros((3, 3), np.int16), hdus[0].header))),
        "the primary HDU holds data: expected a header only",
    ),
    "header without END": Bad(
        with_bytes(lambda c: c[:2880] .replace(b"END".ljust(80), b" " * 80) + c[2880:]),
        "HDU 0: 2 cards BITPIX that differ, expected one",
    ),
    "binary header": Bad(
        with_bytes(lambda c: c[:1600] + b"\x00" + c[1601:]),
        "header of HDU 0 holds bytes that are no printable ASCII",
    ),
    # Bits flipped, and seen by a checksum.
    "flip in the primary header": Bad(
        harmed(0, "header"), "HDU 0: CHECKSUM does not hold: header or data damaged"
    ),
    "flip in a quadrant": Bad(
        harmed(1, "data"), "HDU 1: DATASUM is '…' but the data sum to …: damaged"
    ),
    "flip in an overscan": Bad(
        harmed(8, "data"), "HDU 8: DATASUM is '…' but the data sum to …: damaged"
    ),
    "flip in a header": Bad(harmed(6, "header"), "HDU 6: CHECKSUM does not hold: header or data damaged"),
    "flip in padding": Bad(
        harmed(4, "padding"), "HDU 4: DATASUM is '…' but the data sum to …: damaged"
    ),
    "flip in a table": Bad(
        harmed(2, "table", packed=True), "HDU 2: DATASUM is '…' but the data sum to …: damaged"
    ),
    "flip in a heap": Bad(
        harmed(7, "heap", packed=True), "HDU 7: DATASUM is '…' but the data sum to …: damaged"
    ),
    # The same without checksums: what does not decode.
    "tile that ends early": Bad(
        with_bytes(short_tile, checksum=False, packed=True), "HDU 2: tile of row 2 does not decode: damaged"
    ),
    "tile outside the heap": Bad(
        with_bytes(far_tile, checksum=False, packed=True), "HDU 5: tile of row 4 lies outside the heap: damaged"
    ),
    "flip after END": Bad(
        harmed(3, "end", checksum=False), "header of HDU 3 goes on after its END card: damaged"
    ),
    "NAXIS that is text": Bad(
        with_card(2, b"NAXIS   =                    2", b"NAXIS   = 'two'"),
        "HDU 2: NAXIS = 'two', expected an integer",
    ),
    "card that does not parse": Bad(
        with_card(2, b"BITPIX  =                  -32", b"BITPIX  =                  -3x"),
        "HDU 2: card BITPIX does not parse: no FITS value: '=                  -3x / array data type'",
    ),
    "BITPIX that there is not": Bad(
        with_card(2, b"BITPIX  =                  -32", b"BITPIX  =                  -31"),
        "HDU 2: BITPIX -31, PCOUNT 0, GCOUNT 1 do not fit",
    ),
    "cards that contradict": Bad(
        with_card(2, b"GAIN    =                  8.0", b"NAXIS1  =                   61"),
        "HDU 2: 2 cards NAXIS1 that differ, expected one",
    ),
    "a table in place of an image": Bad(
        with_card(4, b"XTENSION= 'IMAGE   '", b"XTENSION= 'TABLE   '"),
        "HDU 4: XTENSION = 'TABLE', expected an image",
    ),
    "tiles fewer than rows": Bad(
        with_card(1, b"ZNAXIS2 =                   24", b"ZNAXIS2 =                   23", packed=True),
        "HDU 2: 24 x 60 pixels, expected 23 x 60 as its fellows",
    ),
    "no compressed data": Bad(
        with_card(3, b"'COMPRESSED_DATA'", b"'COMPRESSED_BATA'", packed=True),
        "HDU 3: no column COMPRESSED_DATA in a compressed image",
    ),
    "column of no image": Bad(
        with_card(3, b"TFORM3  = '1D      '", b"TFORM3  = '1Y      '", packed=True),
        "HDU 3: TFORM3 = '1Y' is no column format of an image",
    ),
    "Rice blocks that there are not": Bad(
        with_card(3, b"ZVAL2   =                    4", b"ZVAL2   =                    3", packed=True),
        "HDU 3: Rice blocks of 32 pixels of 3 bytes",
    ),
    # Shapes.
    "another shape than the cube's": Bad(
        with_images(noise(shape=(12, 60))),
        "quadrants of 12 x 60 + 9 pixels, expected 24 x 60 + 9 as in the cube",
    ),
    "another overscan than the cube's": Bad(
        with_images(noise(overscan=7)), "quadrants of 24 x 60 + 7 pixels, expected 24 x 60 + 9 as in the cube"
    ),
    "one odd-shaped quadrant": Bad(
        with_images([*noise()[:2], noise()[2][:, :50], *noise()[3:]]),
        "HDU 3: 24 x 50 pixels, expected 24 x 60 as its fellows",
    ),
    "one odd-shaped overscan": Bad(
        with_images([*noise()[:7], noise()[7][:20]]), "HDU 8: 20 x 9 pixels, expected 24 x 9 as its fellows"
    ),
    "image of three dimensions": Bad(
        with_images([noise()[0][np.newaxis], *noise()[1:]]), "HDU 1: an image of 3 dimensions, expected 2"
    ),
    "image without pixels": Bad(
        with_images([*noise()[:5], np.zeros((24, 0), np.float32), *noise()[6:]]),
        "HDU 6: an image of 24 x 0 pixels, expected at most 2^26",
    ),
    # Pixels that float32 does not hold.
    "int32 beyond 2^24": Bad(
        with_images(with_value(3, 2**24 + 1, np.int32)),
        "HDU 3: integers up to 16777217, expected at most 2^24 = 16777216: larger ones are not exact in float32",
    ),
    "int64 beyond 2^24": Bad(
        with_images(with_value(8, 2**24 + 1, np.int64)), "HDU 8: int64 pixels that are not exact in float32"
    ),
    "real float64": Bad(
        with_images(with_value(2, 0.1, np.float64)), "HDU 2: float64 pixels that are not exact in float32"
    ),
    "BSCALE of 0": Bad(
        with_card(3, b"GAIN    =                  9.0", b"BSCALE  =                  0.0"),
        "HDU 3: BSCALE = 0, expected another number",
    ),
    # Headers that contradict the name.
    "another IMGTYPE": Bad(
        with_primary(IMGTYPE="bias"), "IMGTYPE = 'bias' in the header, but 'object' in the name"
    ),
    "another FILTERID": Bad(with_primary(FILTERID=1), "FILTERID = 1 in the header, but filter 'zr' in the name"),
    "FILTERID that there is not": Bad(
        with_primary(FILTERID=4), "FILTERID = 4 in the header, but filter 'zr' in the name"
    ),
    "another FIELDID": Bad(with_primary(FIELDID=656), "FIELDID = 656 in the header, but 655 in the name"),
    "another time": Bad(
        with_primary(SHUTOPEN="2020-09-24T12:57:55"),
        "the shutter opened at 2020-09-24T12:57:55.000000 in the header, "
        "but at 2020-09-24T12:47:43.987200 in the name",
        "ztf_20200924533148_000655_zr_c06_o.fits",
    ),
    "another OBSMJD": Bad(
        with_primary(SHUTOPEN=None, OBSMJD=59115.43),
        "the shutter opened at 2020-09-23T10:19:12.000000 in the header, "
        "but at 2020-09-24T12:00:00.000000 in the name",
        "ztf_20200924500000_000655_zr_c06_o.fits",
    ),
    "another CCD": Bad(with_extension(4, CCD_ID=7), "HDU 4: CCD_ID = 7 in the header, but CCD 6 in the name"),
    "another CCD in an overscan": Bad(
        with_extension(8, CCD_ID=5), "HDU 8: CCD_ID = 5 in the header, but CCD 6 in the name"
    ),
    "another amplifier": Bad(with_extension(2, AMP_ID=2), "HDU 2: AMP_ID = 2, expected 1 for quadrant 2"),
    "another amplifier in an overscan": Bad(
        with_extension(7, AMP_ID=0), "HDU 7: AMP_ID = 0, expected 2 for quadrant 3"
    ),
    "quadrants in another order": Bad(with_hdus(reordered), "HDU 1: AMP_ID = 1, expected 0 for quadrant 1"),
    "a flat by its header": Bad(
        with_primary(IMGTYPE="flat"),
        "IMGTYPE = 'flat' in the header, but 'bias' in the name",
        raw_name(201, kind="b"),
    ),
    # Names.
    "unknown kind": Bad(
        written(b""),
        "kind 'z' is unknown: expected b (bias), f (dome flat) or o (object)",
        "ztf_20200924432259_000655_zr_c06_z.fits",
    ),
    "kind that is not read": Bad(
        written(b""),
        "kind 'd' is known to the camera but not read here: expected b (bias), f (dome flat) or o (object)",
        "ztf_20200924432259_000000_zr_c06_d.fits",
    ),
    "bad name": Bad(
        written(b""),
        "name is not that of a raw file: expected "
        "ztf_<YYYYMMDDFFFFFF>_<field, 6 digits>_<filter>_c<ccd, 2 digits>_<kind>.fits[.fz]",
        "ztf_1.fits",
    ),
    # What cannot be read.
    "a directory": Bad(a_directory, "cannot be read: is a directory, expected a file"),
    "a dangling link": Bad(a_dangling_link, "cannot be read: No such file or directory"),
    "a pipe": Bad(a_pipe, "cannot be read: is a pipe or device, expected a file"),
}  # fmt: skip


NAMES = {case: bad.name or raw_name(i) for i, (case, bad) in enumerate(BAD.items(), start=3)}
each_case = pytest.mark.parametrize("case", BAD)


def run(*arguments: object) -> int:
    """Run the command line; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def key(name: str) -> tuple[int, int]:
    return int(name[4:18]), int(name.split("_c")[1][:2])


def present(store: Path) -> set[tuple[int, int]]:
    """The files in the cube: number of the exposure and CCD."""
    raw = xr.open_zarr(store / "raw", chunks=None)
    where = np.argwhere(raw.present.values == 1)
    return {(int(raw.exposure[row]), int(raw.ccd[ccd])) for row, ccd in where}


@dataclass(frozen=True)
class Call:
    """A call of ``ztfzarr ingest`` with every bad file and some good ones among them."""

    status: int
    refusals: dict[str, str]
    store: Path
    paths: dict[str, Path]
    good: list[Path]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("bad")
    raw = folder / "raw"
    raw.mkdir()
    paths = {case: bad.write(raw, NAMES[case]) for case, bad in BAD.items()}
    # Before, amid and after the bad ones; and another CCD of the exposure of a bad one.
    names = [
        raw_name(0),
        raw_name(1, ccd=1),
        raw_name(2),
        raw_name(300),
        NAMES["flip in a heap"].replace("c06", "c05"),
    ]
    good = [write_raw(raw, name) for name in names]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = run("ingest", folder / "cube.zarr", raw, "--quiet")
    refusals = dict(line.removeprefix("refused ").split(": ", 1) for line in errors.getvalue().splitlines())
    return Call(status, refusals, folder / "cube.zarr", paths, good)


@each_case
def test_bad_file_has_its_line(case: str, call: Call) -> None:
    line = call.refusals[str(call.paths[case])]
    assert BAD[case].refuses(line), line


def test_bad_files_have_one_line_each(call: Call) -> None:
    assert call.status == 1
    assert set(call.refusals) == {str(path) for path in call.paths.values()}


def test_good_files_go_in_and_no_bad_one(call: Call) -> None:
    assert present(call.store) == {key(path.name) for path in call.good}


def test_good_files_are_whole(call: Call) -> None:
    cube = ztfzarr.open_cube(call.store)
    for path in call.good:
        exposure, ccd = key(path.name)
        file = cube.isel(time=int(np.flatnonzero(cube.exposure == exposure)[0])).sel(ccd=ccd)
        images = [*file.raw.values, *file.overscan.values]
        assert all(same_bits(a, b) for a, b in zip(images, noise(), strict=True))


def test_bad_files_show_no_pixel(call: Call) -> None:
    """Not even in the rows that those with good headers have been given."""
    cube = ztfzarr.open_cube(call.store)
    rows = np.flatnonzero(~np.isin(cube.exposure, [key(path.name)[0] for path in call.good]))
    assert rows.size > 10
    assert np.isnan(cube.raw.isel(time=rows).values).all()
    assert np.isnan(cube.overscan.isel(time=rows).values).all()


def test_again_is_the_same(call: Call, capsys: pytest.CaptureFixture) -> None:
    """The good ones are there already; the bad ones are refused for the same reasons."""
    assert run("ingest", call.store, call.paths["zero length"].parent) == 1
    shown = capsys.readouterr()
    assert shown.out.endswith(f"; {len(call.good)} were there already, {len(BAD)} refused\n")
    assert len(shown.err.splitlines()) == len(BAD)


@each_case
def test_open_fits_refuses_it_too(case: str, call: Call) -> None:
    """With the reason that ingest gives; the other shape only beside a file of the usual one."""
    path, bad = call.paths[case], BAD[case]
    if bad.reason.startswith("quadrants of"):
        with pytest.raises(RefusedError, match=r"^files of several shapes: "):
            ztfzarr.open_fits([path, call.good[0]])
        return
    with pytest.raises(RefusedError) as refused:
        ztfzarr.open_fits(path).load()
    assert bad.refuses(str(refused.value).removeprefix(f"{path}: "))


# Files that contradict others


def two_folders(folder: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (folder / name).mkdir()
    return folder / "a", folder / "b"


def test_duplicate_exposure_in_a_call(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, other = (write_raw(folder, raw_name()) for folder in two_folders(tmp_path))
    assert run("ingest", tmp_path / "cube.zarr", one, other) == 1
    line = f"refused {other}: same exposure and CCD as {one}: expected one file of each\n"
    assert capsys.readouterr().err == line
    assert present(tmp_path / "cube.zarr") == {key(raw_name())}


def test_same_file_twice_is_one(tmp_path: Path) -> None:
    path = write_raw(tmp_path, raw_name())
    (tmp_path / "link").symlink_to(tmp_path)
    assert run("ingest", tmp_path / "cube.zarr", path, tmp_path, tmp_path / "link" / path.name) == 0


def test_another_file_for_a_place_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, other = two_folders(tmp_path)
    run("ingest", tmp_path / "cube.zarr", write_raw(one, raw_name()))
    cards = {f"K{i}": i for i in range(40)}
    path = with_primary(**cards)(other, raw_name())  # longer: of the same size it would be taken for the same
    capsys.readouterr()
    assert run("ingest", tmp_path / "cube.zarr", path) == 1
    assert capsys.readouterr().err == (
        f"refused {path}: differs from {raw_name()}, which the cube holds for exposure 20200924431759, CCD 6\n"
    )
    values = ztfzarr.open_cube(tmp_path / "cube.zarr").raw.sel(ccd=6, quadrant=1).values[0]
    assert same_bits(values, noise()[0])


def test_same_content_under_another_name_is_there_already(tmp_path: Path) -> None:
    one, other = two_folders(tmp_path)
    path = write_raw(one, raw_name())
    run("ingest", tmp_path / "cube.zarr", path)
    renamed = other / f"{raw_name()}.fz"
    renamed.write_bytes(path.read_bytes())
    assert run("ingest", tmp_path / "cube.zarr", renamed) == 0


def test_same_name_and_size_is_told_apart_by_check(tmp_path: Path) -> None:
    path = write_raw(tmp_path, raw_name(), checksum=False)
    run("ingest", tmp_path / "cube.zarr", path)
    path.write_bytes(flipped(path.read_bytes(), find_hdus(path.read_bytes())[1].data_offset + 40))
    assert run("ingest", tmp_path / "cube.zarr", path) == 0
    assert run("ingest", tmp_path / "cube.zarr", path, "--check") == 1


def test_file_that_vanishes_before_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raw(tmp_path, raw_name())
    run("ingest", tmp_path / "cube.zarr", path)

    def gone(source: Source) -> bytes:
        raise RefusedError("cannot be read: No such file or directory")

    monkeypatch.setattr(Source, "read", gone)
    report = ingest(tmp_path / "cube.zarr", [path], check=True)
    assert report.refused == [(str(path), "cannot be read: No such file or directory")]


def test_file_that_changes_after_its_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = write_raw(tmp_path, raw_name()), write_raw(tmp_path, raw_name(1))
    original = Source.read
    longer = path.read_bytes() + bytes(2880)
    monkeypatch.setattr(Source, "read", lambda s: longer if s.name == path.name else original(s))
    report = ingest(tmp_path / "cube.zarr", [path, other])
    assert report.refused == [(str(path), "2880 bytes after HDU 8: expected the end of the file")]
    assert present(tmp_path / "cube.zarr") == {key(other.name)}


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (raw_name(filter="zg"), raw_name(ccd=7), "filter zr, expected zg"),
        (raw_name(), raw_name(ccd=7, field=700), "field 700, expected 655"),
        (raw_name(kind="f"), raw_name(ccd=7), "imgtype object, expected flat"),
    ],
    ids=["filter", "field", "kind"],
)
@pytest.mark.parametrize("together", [True, False], ids=["in one call", "later"])
def test_file_that_contradicts_its_exposure(
    first: str, second: str, reason: str, together: bool, tmp_path: Path
) -> None:
    one, other = write_raw(tmp_path, first), write_raw(tmp_path, second)
    if not together:
        ingest(tmp_path / "cube.zarr", [one])
    report = ingest(tmp_path / "cube.zarr", [one, other])
    assert report.refused == [(str(other), f"{reason} as in the other files of exposure 20200924431759")]
    assert present(tmp_path / "cube.zarr") == {key(first)}


def test_damaged_file_leaves_its_place_to_the_good_one(tmp_path: Path) -> None:
    """With the good one's coordinates: a header that is damaged is never registered."""
    bad, good = two_folders(tmp_path)
    for where in ("header", "data"):
        path = harmed(0 if where == "header" else 1, where)(bad, raw_name())
        assert run("ingest", tmp_path / "cube.zarr", path) == 1
    assert run("ingest", tmp_path / "cube.zarr", write_raw(good, raw_name())) == 0
    cube = ztfzarr.open_cube(tmp_path / "cube.zarr")
    assert cube.exptime.values.tolist() == [30.0]
    assert same_bits(cube.raw.sel(ccd=6, quadrant=1).values[0], noise()[0])


# Truncated anywhere, flipped anywhere


@pytest.fixture(scope="module", params=["plain", "astropy RICE", pytest.param("fpack", marks=pytest.mark.fpack)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    path = write_raw(folder, raw_name(), rice(noise()) if request.param == "astropy RICE" else None)
    return fpack(path) if request.param == "fpack" else path


def refusals(path: Path, contents: Iterator[bytes]) -> list[str]:
    """What open_fits says of each version of a file; "" where it reads it."""
    lines = []
    for content in contents:
        path.write_bytes(content)
        try:
            ztfzarr.open_fits(path).load()
            lines.append("")
        except RefusedError as error:
            lines.append(str(error).removeprefix(f"{path}: "))
    return lines


def test_truncated_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    lengths = [*range(1, len(content), 1777), *(hdu.start for hdu in find_hdus(content)), len(content) - 1]
    lines = refusals(tmp_path / whole.name, (content[:n] for n in lengths))
    expected = r"file is empty.*|truncated in .*|\d HDUs: expected 9 .*|not FITS.*"
    assert all(re.fullmatch(expected, line) for line in lines), lines


def test_flipped_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    """With checksums in the file; but END cards and what is before them may say something else first."""
    content = whole.read_bytes()
    offsets = range(3, len(content), 997)
    lines = refusals(tmp_path / whole.name, (flipped(content, offset) for offset in offsets))
    assert all(lines), [offset for offset, line in zip(offsets, lines, strict=True) if not line]
    assert all("\n" not in line and len(line) < 200 for line in lines)
    assert sum("damaged" in line for line in lines) > len(lines) / 2


@pytest.fixture(scope="module")
def unsummed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of row tiles without checksums."""
    path = write_raw(tmp_path_factory.mktemp("unsummed"), raw_name(), rice(noise()), checksum=False)
    return path.read_bytes()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), patch=st.binary(min_size=1, max_size=90))
def test_any_damage_is_refused_or_read(place: float, patch: bytes, unsummed: bytes, tmp_path: Path) -> None:
    """Without checksums wrong pixels cannot be told from right ones; but nothing else may happen."""
    start = int(place * (len(unsummed) - len(patch)))
    content = unsummed[:start] + patch + unsummed[start + len(patch) :]
    (line,) = refusals(tmp_path / raw_name(), [content])
    assert "\n" not in line
    assert len(line) < 200


# Tiles that only astropy's compiled decoders read


def hcompressed(folder: Path, *, name: str = raw_name()) -> Path:
    """A file for them, without checksums."""
    images = [fits.CompImageHDU(data.astype(np.int32), compression_type="HCOMPRESS_1") for data in noise()]
    return write_raw(folder, name, images, checksum=False)


def test_tile_that_is_not_whole(tmp_path: Path) -> None:
    path = hcompressed(tmp_path)
    hdu = find_hdus(path.read_bytes())[4]
    content = bytearray(path.read_bytes())
    content[hdu.data_offset + 3] -= 1
    assert refusals(path, [bytes(content)]) == ["HDU 4: tiles do not fill the heap one after the other: damaged"]


def test_damage_that_crashes_astropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with a flipped bit in a tile: it overwrites memory. It must not end the ingest."""
    monkeypatch.setattr(rare, "CHILD", "import os; os.abort()")
    bad, good = hcompressed(tmp_path), write_raw(tmp_path, raw_name(1))
    report = ingest(tmp_path / "cube.zarr", [bad, good])
    assert report.refused == [(str(bad), "HDU 1-8: astropy crashed on a tile: damaged")]
    assert present(tmp_path / "cube.zarr") == {key(good.name)}


def test_damage_that_hangs_astropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rare, "CHILD", "import time; print('ready', end='', flush=True); time.sleep(100)")
    monkeypatch.setattr(rare, "CHILD_SECONDS", 0.5)
    (line,) = refusals(tmp_path / raw_name(), [hcompressed(tmp_path).read_bytes()])
    assert line == "HDU 1-4: astropy did not come to an end within 1 s: damaged"


def test_damage_that_astropy_sees(tmp_path: Path) -> None:
    path = hcompressed(tmp_path)
    hdu = find_hdus(path.read_bytes())[2]
    heap = hdu.data_offset + hdu.integer("NAXIS1") * hdu.integer("NAXIS2")
    (line,) = refusals(path, [flipped(path.read_bytes(), heap)])  # the first byte of a tile says what it is
    assert line.startswith("HDU 2: astropy cannot read the image (")


# What cannot be read


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Work as a user without rights, where we are root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that anybody may enter and write to: pytest's own are the user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="ztfzarr-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_no_permission(public_folder: Path) -> None:
    """Neither for a file nor for a folder; the good one goes in."""
    closed = public_folder / "raw" / "closed"
    closed.mkdir(parents=True)
    good, bad, hidden = (write_raw(closed, raw_name(i)) for i in range(3))
    good, bad = good.rename(closed.parent / good.name), bad.rename(closed.parent / bad.name)
    ingest(public_folder / "first.zarr", [good])  # Python may have to read modules that others may not
    bad.chmod(0)
    closed.chmod(0)
    with without_rights():
        report = ingest(public_folder / "cube.zarr", [closed.parent, hidden])
    closed.chmod(0o755)
    assert sorted(report.refused) == [
        (str(closed), "cannot be read: Permission denied"),
        (str(hidden), "cannot be read: Permission denied"),
        (str(bad), "cannot be read: Permission denied"),
    ]
    assert present(public_folder / "cube.zarr") == {key(good.name)}


# Nothing to do


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("empty", []),
        ("none*.fits", ["refused {}: no file matches"]),
        ("nowhere", ["refused {}: no such file or folder"]),
        ("nowhere.fits", ["refused {}: no such file or folder"]),
    ],
)
def test_nothing_to_ingest(path: str, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no raw file")
    assert run("ingest", tmp_path / "cube.zarr", tmp_path / path) == 2
    nothing = "ztfzarr: nothing to ingest: expected raw files in .fits or .fits.fz"
    assert capsys.readouterr().err.splitlines() == [*(line.format(tmp_path / path) for line in lines), nothing]
    assert not (tmp_path / "cube.zarr").exists()


def test_path_that_names_nothing_beside_a_good_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = write_raw(tmp_path, raw_name())
    assert run("ingest", tmp_path / "cube.zarr", good, tmp_path / "nowhere") == 1
    assert capsys.readouterr().err == f"refused {tmp_path / 'nowhere'}: no such file or folder\n"
    assert present(tmp_path / "cube.zarr") == {key(good.name)}


def test_only_bad_files_make_no_store(tmp_path: Path) -> None:
    (tmp_path / raw_name()).write_bytes(b"")
    assert run("ingest", tmp_path / "cube.zarr", tmp_path / raw_name()) == 1
    assert not (tmp_path / "cube.zarr").exists()


def test_open_fits_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"^no raw files: expected names in \.fits or \.fits\.fz$"):
        ztfzarr.open_fits(tmp_path)
    with pytest.raises(RefusedError, match=r"nowhere: no such file or folder$"):
        ztfzarr.open_fits([tmp_path / "nowhere"])


def test_open_fits_of_two_files_of_one_place(tmp_path: Path) -> None:
    paths = [write_raw(folder, raw_name()) for folder in two_folders(tmp_path)]
    with pytest.raises(RefusedError, match=r"^two files of one exposure and CCD: expected one of each$"):
        ztfzarr.open_fits(paths)


def test_open_fits_sees_a_file_that_changes(tmp_path: Path) -> None:
    """Not the pixels that it read before of another file of that path."""
    path = write_raw(tmp_path, raw_name())
    assert same_bits(ztfzarr.open_fits(path).raw.sel(ccd=6, quadrant=2).values[0], noise()[1])
    dataset = ztfzarr.open_fits(path)
    write_raw(tmp_path, raw_name(), noise(seed=1))
    assert same_bits(ztfzarr.open_fits(path).raw.sel(ccd=6, quadrant=2).values[0], noise(seed=1)[1])
    write_raw(tmp_path, raw_name(), noise(shape=(12, 60)))
    with pytest.raises(RefusedError, match=r"changed since its headers were read$"):
        dataset.raw.values  # noqa: B018
