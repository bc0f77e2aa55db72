"""Hostile raw files: each read as astropy reads it, or refused in one line; and the faults found so."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
from astropy.io import fits
from hostile import Tally
from mutations import Part, Seed, make_seeds, mutant
from peers import same_bits
from rawfiles import find_hdus, noise, raw_name, write_raw
from stores import ccd_of, exposure_of
from test_forms import FORMS, QUANTISED, Form, astropy_reads, write_form

from ztfzarr import open_cube
from ztfzarr.errors import RefusedError
from ztfzarr.ingest import rare
from ztfzarr.ingest.images import read_images
from ztfzarr.ingest.run import ingest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    forms = [form for form in FORMS if shutil.which("fpack") or not form.marks][::4]
    return make_seeds(tmp_path_factory.mktemp("seeds"), forms)


def check(tally: Tally, count: int) -> None:
    assert not tally.faults, tally.faults[:5]
    assert sum(tally.outcomes.values()) == count
    read = sum(number for kind, number in tally.outcomes.items() if kind.startswith("equal"))
    assert read > count / 5  # else the mutations try little beyond the header
    assert len(tally.outcomes) > 20
    fails = sum(number for kind, number in tally.outcomes.items() if kind.startswith("astropy fails"))
    assert fails <= count / 100  # of these nothing is known
    assert 0 <= tally.memory < 2**30


def test_hundreds_of_files(seeds: list[Seed]) -> None:
    check(hostile.run(300, seeds=seeds, processes=1), 300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_files() -> None:
    """Another set than the script's and the default test's; CI, which may not take long, asks for fewer."""
    count = int(os.environ.get("ZTFZARR_HOSTILE", "20000"))
    check(hostile.run(count, seed=1), count)


def test_whole_files_are_equal(seeds: list[Seed], tmp_path: Path) -> None:
    """Or else all the rest proves nothing."""
    known = hostile.known_images(seeds)
    for seed in seeds:
        content = b"".join(header + data for header, data in seed.parts)
        (tmp_path / seed.name).write_bytes(content)
        assert hostile.judged(content, hostile.pixels_of(tmp_path / seed.name), known) == ""


def test_the_judge_sees_a_wrong_pixel(seeds: list[Seed], tmp_path: Path) -> None:
    seed = seeds[0]
    content = b"".join(header + data for header, data in seed.parts)
    (tmp_path / seed.name).write_bytes(content)
    headers, images = hostile.pixels_of(tmp_path / seed.name)
    images[6][3, 4] += 1
    assert hostile.judged(content, (headers, images), hostile.known_images(seeds)) == "HDU 7: pixels differ"
    assert hostile.plainly_judged(content, (headers, images)) == "HDU 7: pixels differ from those read plainly"


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (lambda path: os.abort(), "crash (-6)"),
        (lambda path: time.sleep(60), "hang (-9)"),
        (lambda path: np.ones(2**28), "MemoryError"),
        (lambda path: {}["no such key"], "KeyError"),
    ],
    ids=["crash", "hang", "memory", "traceback"],
)
def test_the_judge_sees_a_fault(
    wrong: Callable[[Path], object], fault: str, seeds: list[Seed], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, name = hostile.pixels_of, mutant(1, seeds)[0]
    calls = iter(range(10**6))

    def once(path: Path) -> object:
        return wrong(path) if next(calls) == 0 and path.name == name else right(path)

    monkeypatch.setattr(hostile, "SECONDS", 2.0)
    monkeypatch.setattr(hostile, "warm", lambda seeds: None)
    monkeypatch.setattr(hostile, "pixels_of", once)
    tally = hostile.run(1, first=1, seeds=seeds, processes=1)
    assert [number for number, _ in tally.faults] == [1]
    assert fault in tally.faults[0][1]


def test_a_folder_of_hostile_files(seeds: list[Seed], tmp_path: Path) -> None:
    """Through ingest itself: what it takes is in the cube, what it refuses is named, and it goes on."""
    names = {}
    for number in range(40):
        _, content = mutant(number, seeds)
        names[raw_name(number)] = content
        (tmp_path / raw_name(number)).write_bytes(content)
    good = write_raw(tmp_path, raw_name(99))
    report = ingest(tmp_path / "cube.zarr", [tmp_path])
    refused = {Path(path).name for path, _ in report.refused}
    assert report.ingested + len(refused) == 41
    assert good.name not in refused
    assert all(reason.isprintable() for _, reason in report.refused)
    cube = open_cube(tmp_path / "cube.zarr").load()
    assert int(cube.present.sum()) == report.ingested > 3
    for path in sorted(tmp_path.glob("ztf_*")):
        if path.name not in refused:
            (row,) = np.flatnonzero(cube.exposure == exposure_of(path))
            file = cube.isel(time=int(row)).sel(ccd=ccd_of(path))
            for found, expected in zip([*file.raw, *file.overscan], hostile.pixels_of(path)[1], strict=True):
                assert same_bits(found.values, expected), path.name


# Faults that the files above found


def edited(path: Path, change: Callable[[list[Part]], None]) -> Path:
    """A file with its HDUs changed, and without checksums."""
    content = path.read_bytes()
    parts = [Part(bytearray(h.text), bytearray(content[h.data_offset : h.end])) for h in find_hdus(content)]
    for part in parts:
        part.set_cards([card for card in part.cards() if card[:8] not in (b"CHECKSUM", b"DATASUM ")])
    change(parts)
    path.write_bytes(b"".join(bytes(part.header) + bytes(part.data) for part in parts))
    return path


def set_values(part: Part, **values: str | None) -> None:
    """Cards of an HDU changed, added, or (None) taken out."""
    kept = [card for card in part.cards() if card[:8].decode().rstrip() not in values]
    new = [f"{key:8}= {value:>20}".encode().ljust(80) for key, value in values.items() if value is not None]
    part.set_cards([*kept, *new])


def with_cards(path: Path, index: int, **values: str | None) -> Path:
    return edited(path, lambda parts: set_values(parts[index], **values))


def refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as refused:
        hostile.pixels_of(path)
    return str(refused.value)


def test_a_column_without_a_name(tmp_path: Path) -> None:
    """Without ZSCALE's name its integers were taken for the bits of lossless floats."""
    path = write_form(Form("noise", "astropy GZIP_2 1"), tmp_path, raw_name())
    assert refusal(with_cards(path, 4, TTYPE3=None)) == "HDU 4: TTYPE3 = '', expected a name of its own"
    again = write_form(QUANTISED, tmp_path / "..", raw_name(1))
    assert "expected a name of its own" in refusal(with_cards(again, 4, TTYPE3="'ZZERO'", TTYPE4="'ZZERO'"))


def test_scales_that_readers_understand_differently(tmp_path: Path) -> None:
    """CFITSIO applies a ZSCALE of the header to lossless tiles, astropy does not."""
    path = write_form(Form("noise", "astropy NOCOMPRESS 1"), tmp_path, raw_name())
    path = with_cards(path, 4, ZCMPTYPE="'GZIP_1'", ZSCALE="-1", TTYPE3="'A'", TTYPE4="'B'")
    assert refusal(path) == "HDU 4: ZSCALE in the header only, expected a column: readers differ"
    again = with_cards(write_form(QUANTISED, tmp_path, raw_name(1)), 2, TTYPE4="'x'")
    assert refusal(again) == "HDU 2: a column ZSCALE alone, expected both ZSCALE and ZZERO"


def test_blank_of_quantised_floats(tmp_path: Path) -> None:
    """It is for integers, but astropy takes it for ZBLANK where that is not given."""
    path = write_form(QUANTISED, tmp_path, raw_name())
    _, before = hostile.pixels_of(path)
    content = path.read_bytes()
    blank = read_images([find_hdus(content)[5]], memoryview(content))[0].integers[2, 3]
    with_cards(path, 5, BLANK=str(blank), ZBLANK=None)
    expected = astropy_reads(path)
    assert all(same_bits(a, b) for a, b in zip(hostile.pixels_of(path)[1], expected, strict=True))
    assert np.isnan(expected[4][2, 3])
    assert not np.isnan(before[4][2, 3])


@pytest.mark.parametrize(
    ("form", "cards"),
    [
        (QUANTISED, {"ZQUANTIZ": "'NONE'"}),
        (Form("noise", "astropy GZIP_2 -1"), {"ZQUANTIZ": "'NONE'"}),
        (Form("int32", "astropy RICE_1 -1"), {"ZBITPIX": "-32"}),
        pytest.param(Form("odd", "fpack -g -q 0"), {"ZBLANK": "0"}, marks=pytest.mark.fpack),
        pytest.param(Form("odd", "fpack -g2 -q 0"), {"ZBLANK": "7"}, marks=pytest.mark.fpack),
    ],
    ids=["no dither by another name", "of undithered", "integers called floats", "zero is none", "seven is none"],
)
def test_cards_that_change_what_astropy_reads(form: Form, cards: dict[str, str], tmp_path: Path) -> None:
    path = with_cards(write_form(form, tmp_path, raw_name()), 4, **cards)
    expected = astropy_reads(path)
    assert all(same_bits(a, b) for a, b in zip(hostile.pixels_of(path)[1], expected, strict=True))


@pytest.mark.parametrize(
    ("form", "cards", "line"),
    [
        (Form("uint16", "plain"), {"BSCALE": ""}, "HDU 4: BSCALE = None, expected a number"),
        (QUANTISED, {"ZQUANTIZ": "''"}, "HDU 4: "),
    ],
    ids=["a scale without a value", "a quantisation without a name"],
)
def test_cards_that_astropy_fails_on(form: Form, cards: dict[str, str], line: str, tmp_path: Path) -> None:
    assert refusal(with_cards(write_form(form, tmp_path, raw_name()), 4, **cards)).startswith(line)


def test_integers_beyond_their_type(tmp_path: Path) -> None:
    path = with_cards(write_form(Form("int32", "astropy RICE_1 -1"), tmp_path, raw_name()), 5, ZBITPIX="16")
    assert refusal(path) == "HDU 5: pixels beyond the range of ZBITPIX 16"


def test_a_line_of_hundreds_of_digits(tmp_path: Path) -> None:
    path = with_cards(write_form(Form("int32", "plain"), tmp_path, raw_name()), 5, BZERO="1E308")
    assert refusal(path).startswith("HDU 5: integers up to 1e+308, expected at most 2^24")


def test_a_format_that_begins_with_a_blank(tmp_path: Path) -> None:
    path = with_cards(write_form(QUANTISED, tmp_path, raw_name()), 5, TFORM1="' PB(9)'")
    assert refusal(path) == "HDU 5: TFORM1 = ' PB(9)' is no column format of an image"


@pytest.mark.fpack
@pytest.mark.parametrize("length", [3000, 32767, -5])
def test_a_list_longer_than_its_tile(length: int, tmp_path: Path) -> None:
    """Astropy read on in memory: other values each time, or a crash."""
    path = write_form(Form("uint16", "fpack -p"), tmp_path, raw_name())

    def longer(parts: list[Part]) -> None:
        table = 8 * 24
        parts[6].data[table + 6 : table + 8] = (length % 2**16).to_bytes(2, "big")

    line = refusal(edited(path, longer))
    assert line.startswith("HDU 6: a list of ")
    assert line.endswith(": damaged")


def test_values_that_differ_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder leaves unset shows when memory is filled with something else."""
    images = iter([np.zeros(3), np.ones(3)])
    monkeypatch.setattr(rare, "_image", lambda extension, index: next(images))
    with pytest.raises(RefusedError, match=r"^HDU 6: a tile that does not hold all its pixels: damaged$"):
        rare._sound_image(b"", 6)


def test_right_checksums_do_not_make_a_tile_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a tile that crashes astropy writes its checksum too."""
    images = [fits.CompImageHDU(data.astype(np.int32), compression_type="HCOMPRESS_1") for data in noise()]
    path = write_raw(tmp_path, raw_name(), images)
    monkeypatch.setattr(rare, "CHILD", "import os; os.abort()")
    assert refusal(path) == "HDU 1-8: astropy crashed on a tile: damaged"


def test_a_tile_that_grows(tmp_path: Path) -> None:
    """A quarter of a megabyte of GZIP that is 256; ours stops at a row's size, and astropy is stopped."""
    bomb = gzip.compress(bytes(2**28))
    lines = {
        "astropy GZIP_1 1": "HDU 3: tile of row 0 does not decode: 481 bytes",  # one more than it may have
        "astropy NOCOMPRESS 1": "HDU 3: astropy cannot read the image (Unable to allocate output buffer.)",
    }
    for number, (storage, line) in enumerate(lines.items()):
        path = write_form(Form("noise", storage), tmp_path, raw_name(number))

        def grown(parts: list[Part], tile: str = str(number + 1)) -> None:
            table = 24 * int(next(c for c in parts[3].cards() if c.startswith(b"NAXIS1"))[10:30])
            row = parts[3].data[:table]
            row[:8] = len(bomb).to_bytes(4, "big") + bytes(4)
            parts[3].data = row + bomb + bytes(-(table + len(bomb)) % 2880)
            set_values(parts[3], PCOUNT=str(len(bomb)), ZCMPTYPE="'GZIP_1'", ZTILE2=tile)

        edited(path, grown)
        assert refusal(path) == line


@pytest.mark.parametrize("blocks", [30, 60])
def test_a_header_of_many_blocks(blocks: int, tmp_path: Path) -> None:
    """The cube keeps as many bytes of every header of every file as of the longest."""
    path = write_form(QUANTISED, tmp_path, raw_name())
    more = [b"COMMENT  long".ljust(80)] * (36 * (blocks - 3))
    path = edited(path, lambda parts: parts[2].set_cards([*parts[2].cards(), *more]))
    if blocks == 30:
        assert len(hostile.pixels_of(path)[0][2]) <= 40 * 2880
    else:
        assert refusal(path) == "header of HDU 2 has no END card"


def test_more_pixels_than_a_file_may_have(tmp_path: Path) -> None:
    """Rows of zeros take a few bytes each under RICE: a small file could ask for any memory."""
    path = write_form(QUANTISED, tmp_path, raw_name())
    for index in (1, 2, 3, 4):
        with_cards(path, index, ZNAXIS1="1000000", ZTILE1="1000000")
    line = refusal(path)
    assert line == "96000864 pixels, expected at most 2^26: images of 24 x 1000000 and 9"
