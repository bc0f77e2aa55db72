"""restore: raw files back, byte for byte where the cube determines them, else with the same pixels and cards."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from peers import fpack, same_bits
from rawfiles import find_hdus, noise, raw_hdus, raw_name, with_cards, write_raw
from stores import ccd_of, exposure_of, flip, shard

from ztfzarr.cli import main
from ztfzarr.ingest.restore import Restored, restore
from ztfzarr.ingest.run import ingest
from ztfzarr.store.check import Selection
from ztfzarr.store.raw import FILE_OWNED

# Not cards of the image but of how a file stores it; and what astropy and CFITSIO put beside those.
STORAGE = {
    "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTEND", "BSCALE", "BZERO",
    "BLANK", "CHECKSUM", "DATASUM",
}  # fmt: skip


def odd_rows() -> list[np.ndarray]:
    """Rows that no quantisation fits, NaN and exact zeros."""
    images = noise(seed=1)
    for data in images:
        data[3], data[5], data[9], data[15] = 7, 0.1, np.nan, 0
        data[4, ::2] = 1e30
        data[6, 2:7] = np.nan
        data[7, 3:8] = 0
    return images


def typed(dtype: type, scale: float = 1) -> list[np.ndarray]:
    return [(data * scale).astype(dtype) for data in noise()]


PIXELS = {
    "noise": noise,
    "odd": odd_rows,
    "uint8": lambda: typed(np.uint8),
    "uint16": lambda: typed(np.uint16, 300),
    "int16": lambda: typed(np.int16, -30),
    "int32": lambda: typed(np.int32, 1000),
    "int64": lambda: typed(np.int64, 1000),
}

IDENTICAL = [
    ("noise", "plain"),
    ("odd", "plain"),
    ("uint8", "plain"),
    ("uint16", "plain"),
    ("int16", "plain"),
    ("int32", "plain"),
    *((pixels, f"fpack -r {q}") for pixels in ("noise", "odd") for q in ("-q 4", "-q0 4", "-qz 4")),
    *((p, f"fpack {g} {q}") for p in ("noise", "odd") for g in ("-g", "-g2") for q in ("-q 4", "-qz 4", "-q 0")),
    *((pixels, f"fpack {o}") for pixels in ("uint8", "uint16", "int16", "int32") for o in ("-r", "-g", "-g2")),
    ("noise", "fpack -C"),
    ("noise", "astropy RICE_1"),
    ("int16", "astropy RICE_1"),
]  # fmt: skip

SAME_PIXELS = [
    ("noise", "fpack -h -q 4"),
    ("noise", "fpack -w -q 4"),
    ("noise", "fpack -t 30,8 -q 4"),
    ("int16", "fpack -h"),
    ("uint8", "fpack -p"),
    ("int64", "plain"),
    ("odd", "astropy RICE_1"),
    ("noise", "astropy GZIP_2"),
    ("noise", "astropy HCOMPRESS_1"),
    ("uint16", "astropy GZIP_1"),
]


def write(folder: Path, pixels: str, storage: str, name: str = raw_name()) -> Path:
    images, (tool, *options) = PIXELS[pixels](), storage.split()
    if tool == "astropy":
        return by_astropy(folder, raw_hdus(name, images), name, options[0])
    path = write_raw(folder, name, images)
    return fpack(path, *options) if tool == "fpack" else path


def by_astropy(folder: Path, plain: fits.HDUList, name: str, method: str) -> Path:
    path = folder / f"{name}.fz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = [
            fits.CompImageHDU(h.data, h.header, compression_type=method, quantize_method=1) for h in plain[1:]
        ]
        fits.HDUList([plain[0].copy(), *packed]).writeto(path)
    return path


Form = tuple[str, str]


@dataclass(frozen=True)
class Both:
    """A file of each form, and what came back of it."""

    originals: dict[Form, Path]
    results: dict[Form, Restored]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("restore")
    forms = [f for f in IDENTICAL + SAME_PIXELS if shutil.which("fpack") or not f[1].startswith("fpack")]
    originals = {form: write(folder, *form, raw_name(i)) for i, form in enumerate(forms)}
    assert ingest(folder / "cube.zarr", list(originals.values())).refused == []
    by_exposure = {result.path.name[4:18]: result for result in restore(folder / "cube.zarr", folder / "back")}
    return Both(originals, {form: by_exposure[path.name[4:18]] for form, path in originals.items()})


def each_of(forms: list[Form]) -> pytest.MarkDecorator:
    marks = {True: [pytest.mark.fpack], False: []}
    values = [pytest.param(f, id=": ".join(f), marks=marks[f[1].startswith("fpack")]) for f in forms]
    return pytest.mark.parametrize("form", values)


@each_of(IDENTICAL)
def test_byte_for_byte(form: Form, both: Both) -> None:
    path, result = both.originals[form], both.results[form]
    assert result.error is None
    assert result.identical
    folders = result.path.parts[-5:-1]
    assert folders == ("raw", "2020", "0924", path.name[12:18])
    assert result.path.name == path.name
    assert result.path.read_bytes() == path.read_bytes()


def read(path: Path) -> tuple[list[np.ndarray], list[fits.Header]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as file:
            return [np.asarray(h.data).astype(np.float32) for h in file[1:]], [h.header.copy() for h in file]


def own_cards(header: fits.Header) -> list[tuple]:
    return [tuple(card) for card in header.cards if card.keyword not in STORAGE]


@each_of(SAME_PIXELS)
def test_same_pixels_and_cards(form: Form, both: Both) -> None:
    path, result = both.originals[form], both.results[form]
    assert result.error is None
    assert not result.identical
    assert result.path.name == path.name.removesuffix(".fz")
    (theirs, their_headers), (ours, our_headers) = read(path), read(result.path)
    assert all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))
    for mine, original in zip(our_headers, their_headers, strict=True):
        assert own_cards(mine) == own_cards(original)


def test_what_is_restored_may_be_ingested(both: Both, tmp_path: Path) -> None:
    """Checksums hold, headers agree with names."""
    paths = [result.path for result in both.results.values()]
    report = ingest(tmp_path / "again.zarr", paths)
    assert report.refused == []
    assert report.ingested == len(paths)


def restored(folder: Path, path: Path) -> Restored:
    """Ingest a file and restore it."""
    assert ingest(folder / "cube.zarr", [path]).refused == []
    (result,) = restore(folder / "cube.zarr", folder / "back")
    assert result.error is None
    return result


def test_simulated_night_byte_for_byte(night_store: Path, raw_files: list[Path], tmp_path: Path) -> None:
    counted: list[int] = []
    results = list(restore(night_store, tmp_path, total=counted.append))
    assert counted == [len(raw_files)]
    assert all(result.identical for result in results)
    back = {path.name: path for path in tmp_path.rglob("*.fits.fz")}
    assert back.keys() == {path.name for path in raw_files}
    for path in raw_files:
        assert back[path.name].read_bytes() == path.read_bytes()
        assert back[path.name].relative_to(tmp_path) == path.relative_to(path.parents[4])


def test_sha256_is_the_files(night_store: Path, raw_files: list[Path]) -> None:
    raw = xr.open_zarr(night_store / "raw", chunks=None)
    stored = set(raw.source_sha256.values.ravel().tolist()) - {""}
    assert stored == {hashlib.sha256(path.read_bytes()).hexdigest() for path in raw_files}


def test_selection(night_store: Path, raw_files: list[Path], tmp_path: Path) -> None:
    list(restore(night_store, tmp_path, selection=Selection(ccds=(11,))))
    assert {p.name for p in tmp_path.rglob("*.fz")} == {p.name for p in raw_files if "_c11_" in p.name}
    assert list(restore(night_store, tmp_path, selection=Selection(20200101, 20200102))) == []


@each_of(
    [("odd", "fpack -r -q 4"), ("odd", "fpack -g -qz 4"), ("noise", "fpack -h -q 4"), ("uint16", "fpack -g2")]
)
def test_funpack_reads_it(form: Form, both: Both, tmp_path: Path) -> None:
    """CFITSIO's pixels of what came back are those of the file that was ingested, and its checksums hold."""
    found = []
    for i, path in enumerate((both.originals[form], both.results[form].path)):
        target = tmp_path / f"{i}.fits"
        if path.suffix == ".fz":
            subprocess.run(["funpack", "-O", str(target), str(path)], check=True, capture_output=True)
        else:
            target = path
        with fits.open(target, checksum=True) as file:
            found.append([np.asarray(hdu.data).astype(np.float32) for hdu in file[1:]])
    assert len(found[0]) == 8
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_other_content_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path, "noise", "plain")
    first = restored(tmp_path, path)
    first.path.write_bytes(b"mine")
    (result,) = restore(tmp_path / "cube.zarr", tmp_path / "back")
    assert result.error == f"{first.path} exists with other content: not overwritten"
    assert first.path.read_bytes() == b"mine"
    assert [p.name for p in first.path.parent.iterdir()] == [first.path.name]


def test_same_content_is_written_again(tmp_path: Path) -> None:
    path = write(tmp_path, "noise", "plain")
    restored(tmp_path, path)
    (result,) = restore(tmp_path / "cube.zarr", tmp_path / "back")
    assert (result.identical, result.error) == (True, None)


def test_changed_cube_does_not_pass_for_the_original(tmp_path: Path) -> None:
    """The hash decides: pixels that somebody changed in the cube come back, but not as the original's bytes."""
    restored(tmp_path, write(tmp_path, "noise", "astropy RICE_1"))
    raw = tmp_path / "cube.zarr" / "raw"
    one, other = (raw / name / "c" / "0" / "5" / "0" / "0" for name in ("zzero", "zscale"))
    one.write_bytes(other.read_bytes())
    (result,) = restore(tmp_path / "cube.zarr", tmp_path / "other")
    assert not result.identical


def damage(path: Path) -> None:
    flip(path, 10)


@pytest.mark.parametrize("harm", [Path.unlink, damage], ids=["lost", "damaged"])
@pytest.mark.parametrize("name", [*FILE_OWNED, "header"])
def test_what_is_lost_or_damaged_is_refused(name: str, harm: Callable, store_copy, raw_files, tmp_path) -> None:
    """Named, and never NaN in the place of a file's own pixels; all the others come back."""
    harm(store_copy / "raw/header/c/4/0/0/0" if name == "header" else shard(store_copy, name, 4, 2))
    hit = raw_files[8:10] if name == "header" else raw_files[8:9]
    results = list(restore(store_copy, tmp_path / "back"))
    errors = [result.error for result in results if result.error]
    for path, error in zip(hit, errors, strict=True):
        assert error.startswith(f"exposure {exposure_of(path)}, CCD {ccd_of(path)}: ")
        assert f"raw/{name}" in error
    assert all(result.identical for result in results if not result.error)
    written = {path.name for path in tmp_path.joinpath("back").rglob("*") if path.is_file()}
    assert written == {path.name for path in raw_files} - {path.name for path in hit}


@pytest.mark.parametrize("harm", [Path.unlink, damage], ids=["lost", "damaged"])
@pytest.mark.parametrize("name", ["zdither", "source_name", "source_sha256"])
def test_without_a_table_nothing_is_restored(name: str, harm: Callable, store_copy, tmp_path) -> None:
    """Pixels whose dither is unknown are not the file's."""
    for path in (store_copy / "raw" / name / "c").rglob("0"):
        if path.is_file():
            harm(path)
    results = list(restore(store_copy, tmp_path / "back", selection=Selection(ccds=(2,))))
    assert len(results) == 18
    assert all(f"raw/{name}" in result.error for result in results)
    assert not (tmp_path / "back").exists()


ODD_CARDS = {"HIERARCH ZTF LONG KEYWORD": 1, "LONGTEXT": "x" * 150, "UNDEF": None, "QUOTED": "it''s"}


@pytest.mark.parametrize("storage", ["plain", "astropy GZIP_2"])
def test_odd_cards_come_back_without_a_warning(storage: str, tmp_path: Path) -> None:
    def change(hdus: fits.HDUList) -> None:
        for hdu in hdus:
            for key, value in ODD_CARDS.items():
                hdu.header[key] = value
            hdu.header.add_comment("twice")
            hdu.header.add_comment("twice")

    path = write_raw(tmp_path, raw_name(), change=change)
    if storage != "plain":
        with fits.open(path) as file:
            path = by_astropy(tmp_path, file, raw_name(), "GZIP_2")
    result = restored(tmp_path, path)
    assert result.identical == (storage == "plain")
    for mine, original in zip(read(result.path)[1], read(path)[1], strict=True):
        assert own_cards(mine) == own_cards(original)
        assert mine["LONGTEXT"] == "x" * 150


def test_extension_without_a_name_has_none(tmp_path: Path) -> None:
    """Compression names every extension COMPRESSED_IMAGE that has no name of its own."""

    def change(hdus: fits.HDUList) -> None:
        for hdu in hdus[1:]:
            with_cards(hdu.header, {"EXTNAME": None})

    plain = write_raw(tmp_path, raw_name(), change=change)
    with fits.open(plain) as file:
        path = by_astropy(tmp_path, file, raw_name(), "GZIP_1")
    assert find_hdus(path.read_bytes())[1].value("EXTNAME") == "COMPRESSED_IMAGE"
    for header in read(restored(tmp_path, path).path)[1]:
        assert "EXTNAME" not in header


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_command_says_what_is_not_identical(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_raw(tmp_path, raw_name(1))
    write_raw(tmp_path, raw_name(2), PIXELS["int64"]())
    assert run("ingest", tmp_path / "cube.zarr", tmp_path) == 0
    capsys.readouterr()
    assert run("restore", tmp_path / "cube.zarr", tmp_path / "back") == 0
    path = tmp_path / "back" / "raw" / "2020" / "0924" / "432759" / raw_name(2)
    assert capsys.readouterr().out.splitlines() == [
        f"not the original's bytes, but its pixels and cards: {path}",
        "restored 1 file byte for byte, 1 with the same pixels and cards",
    ]


def test_command_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("ingest", tmp_path / "cube.zarr", write_raw(tmp_path, raw_name()))
    run("restore", tmp_path / "cube.zarr", tmp_path / "back")
    (path,) = (tmp_path / "back").rglob("*.fits")
    path.write_bytes(b"mine")
    capsys.readouterr()
    assert run("restore", tmp_path / "cube.zarr", tmp_path / "back") == 1
    assert capsys.readouterr().err == f"refused {path} exists with other content: not overwritten\n"


def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ingest(tmp_path / "cube.zarr", [write_raw(tmp_path, raw_name())])
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/back/raw/.*\.partial'"):
        list(restore(tmp_path / "cube.zarr", tmp_path / "back"))
    assert not [path for path in (tmp_path / "back").rglob("*") if path.is_file()]
