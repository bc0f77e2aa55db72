"""verify names every fault: bits, objects, metadata, and what differs from the raw files."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from astropy.io import fits
from stores import ccd_of, contents, exposure_of, flip, shard

from ztfzarr.cli import main
from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
from ztfzarr.store.objects import open_objects
from ztfzarr.store.raw import COORDINATES, FILE_OWNED, LABELS, TABLES
from ztfzarr.store.register import create_raw, open_raw


@pytest.fixture(scope="module")
def shared(night_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(night_store, tmp_path_factory.mktemp("verify") / "s.zarr"))


@pytest.fixture
def store(shared: Path) -> Iterator[Path]:
    """A store to harm: whatever a test does to its objects is undone."""
    before = contents(shared)
    yield shared
    for key in contents(shared).keys() - before.keys():
        (shared / key).unlink()
    for key, data in before.items():
        if not (shared / key).exists() or (shared / key).read_bytes() != data:
            (shared / key).write_bytes(data)


def faults(store: Path) -> list[str]:
    objects = open_objects(store)
    files = present_files(open_raw(objects), Selection())
    return [*metadata_faults(objects), *table_faults(objects), *shard_faults(objects, files)]


def verify(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    """Exit status of the command, and the lines of its output and its errors."""
    with pytest.raises(SystemExit) as status:
        main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return status.value.code, captured.out.splitlines(), captured.err.splitlines()


def chunk_of(store: Path, name: str) -> Path:
    return next(p for p in sorted((store / "raw" / name / "c").rglob("*")) if p.is_file())


def test_a_sound_store_has_no_faults(night_store, capsys):
    assert verify(capsys, night_store) == (0, ["checked 36 files: 0 faults"], [])


def test_an_empty_store_has_no_faults(tmp_path, capsys):
    create_raw(open_objects(tmp_path / "s.zarr"), (70, 96), 30)
    assert verify(capsys, tmp_path / "s.zarr") == (0, ["checked 0 files: 0 faults"], [])


# File-owned objects


@pytest.mark.parametrize("name", FILE_OWNED)
def test_a_flipped_bit_is_named(store, raw_files, name):
    flip(shard(store, name, 4, 11), 7)
    (line,) = faults(store)
    assert line.startswith(f"raw/{name}: exposure {exposure_of(raw_files[8])}, CCD 11")
    assert f"checksum does not hold in raw/{name}/c/4/10/" in line
    if name in ("raw", "overscan"):
        columns = "0-95" if name == "raw" else "0-29"
        assert f", quadrant 1, rows 0-69, columns {columns}: " in line


@pytest.mark.parametrize("name", FILE_OWNED)
@pytest.mark.parametrize("offset", [-1, -10])
def test_a_damaged_index_is_named(store, name, offset):
    flip(shard(store, name, 4, 11), offset)
    (line,) = faults(store)
    assert f"index of raw/{name}/c/4/10/" in line


@pytest.mark.parametrize("name", FILE_OWNED)
@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_truncated_shard_is_named(store, name, size):
    path = shard(store, name, 4, 11)
    path.write_bytes(path.read_bytes()[:size])
    (line,) = faults(store)
    assert f"index of raw/{name}/c/4/10/" in line


@pytest.mark.parametrize("name", FILE_OWNED)
def test_a_lost_shard_is_named(store, name):
    shard(store, name, 4, 11).unlink()
    (line,) = faults(store)
    assert f"CCD 11: object raw/{name}/c/4/10/" in line
    assert "is missing; its pixels read as NaN" in line


def test_every_flipped_bit_is_found(store):
    """Wherever it is: pixels, checksums or index."""
    path = shard(store, "overscan", 0, 2)
    sound = path.read_bytes()
    for offset in range(0, len(sound), 131):
        path.write_bytes(sound)
        flip(path, offset)
        assert len(faults_of_one(store)) == 1, offset


def faults_of_one(store: Path) -> list[str]:
    objects = open_objects(store)
    return list(shard_faults(objects, present_files(open_raw(objects), Selection())[:1]))


# Tables


@pytest.mark.parametrize("name", [*COORDINATES, *LABELS, *TABLES])
def test_a_damaged_table_is_named(store, name):
    flip(chunk_of(store, name), 5)
    (line,) = table_faults(open_objects(store))
    assert line.startswith(f"raw/{name} is damaged")


@pytest.mark.parametrize("name", ["exposure", "night", "present"])
def test_damage_to_the_tables_that_name_the_files(store, capsys, name):
    flip(chunk_of(store, name), 5)
    status, output, lines = verify(capsys, store)
    assert (status, output, len(lines)) == (1, ["checked 0 files: 1 fault"], 1)
    assert lines[0].startswith(f"raw/{name} is damaged")


@pytest.mark.parametrize("name", [*COORDINATES, *LABELS, *TABLES])
def test_a_lost_table_is_named(store, name):
    path = chunk_of(store, name)
    path.unlink()
    lines = list(table_faults(open_objects(store)))
    assert f"raw/{name}: object {path.relative_to(store)} is missing; its entries read as absent" in lines


def test_a_damaged_header_is_named(store, raw_files):
    flip(store / "raw/header/c/4/0/0/0", 9)
    lines = faults(store)
    assert [line.split(": ")[:2] for line in lines] == [
        ["raw/header", f"exposure {exposure_of(raw_files[8])}, CCD {ccd}"] for ccd in (2, 11)
    ]
    assert all("damaged" in line for line in lines)


def test_a_lost_header_is_named(store):
    (store / "raw/header/c/4/0/0/0").unlink()
    lines = faults(store)
    assert len(lines) == 2
    assert all(line.endswith("header of HDU 0 is missing") for line in lines)


@pytest.mark.parametrize(
    ("name", "value"), [("source_name", ""), ("source_size", 0), ("source_sha256", ""), ("zdither", -32768)]
)
def test_a_present_file_without_its_entry_is_named(store, raw_files, name, value):
    zarr.open_array(store / "raw" / name, mode="r+")[4, 10] = value
    (line,) = faults(store)
    assert line == f"raw/{name}: exposure {exposure_of(raw_files[8])}, CCD 11: no entry"


# Metadata


def change(store: Path, key: str, **changes: object) -> None:
    path = store / key
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_wrong_document_is_named(store, capsys):
    document = json.loads((store / "raw/zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["gain"]["attributes"]["units"] = "DN"
    (store / "raw/zarr.json").write_text(json.dumps(document))
    status, _, lines = verify(capsys, store)
    assert status == 1
    assert any("gain/attributes/units: 'electron DN-1' was expected" in line for line in lines)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="lost"),
        pytest.param(lambda path: path.write_text("{"), id="cut"),
        pytest.param(lambda path: path.write_text("[]"), id="list"),
    ],
)
@pytest.mark.parametrize("key", ["zarr.json", "raw/led/zarr.json"])
def test_lost_or_damaged_metadata_is_named(store, harm, key):
    harm(store / key)
    assert f"{key}: missing or damaged" in metadata_faults(open_objects(store))


@pytest.mark.parametrize("changes", [{"shape": [17]}, {"fill_value": 0}, {"shape": [18, 1]}])
def test_an_array_that_differs_from_what_readers_see_is_named(store, changes):
    change(store, "raw/led/zarr.json", **changes)
    assert metadata_faults(open_objects(store)) == [
        "raw/led/zarr.json: differs from the group's consolidated metadata"
    ]


def test_an_append_that_was_cut_short_is_no_fault(store):
    change(store, "raw/led/zarr.json", shape=[25])
    assert faults(store) == []


def test_consolidated_metadata_of_the_root_is_named(store, capsys):
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)
    status, _, lines = verify(capsys, store)
    assert status == 1
    assert lines == ["zarr.json: the root holds consolidated metadata, which hides later nights from readers"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damage_to_the_group_itself(store, capsys, text):
    (store / "raw/zarr.json").write_text(text)
    status, _, lines = verify(capsys, store)
    assert status == 3
    assert "raw/zarr.json is damaged" in lines[0]


def test_no_store(tmp_path, capsys):
    status, _, lines = verify(capsys, tmp_path)
    assert (status, len(lines)) == (3, 1)
    assert "no store with raw exposures" in lines[0]


# Command


def test_many_faults_are_all_named(store, capsys):
    for name in FILE_OWNED:
        flip(shard(store, name, 1, 2), 7)
    shard(store, "raw", 2, 2).unlink()
    flip(chunk_of(store, "gain"), 5)
    status, output, lines = verify(capsys, store)
    assert (status, output, len(lines)) == (1, ["checked 36 files: 6 faults"], 6)


def test_json_says_the_same(store, capsys):
    shard(store, "raw", 2, 2).unlink()
    status, output, lines = verify(capsys, store, "--json")
    result = json.loads("\n".join(output))
    assert (status, result["files"], result["faults"]) == (1, 36, lines)


def test_a_selection_is_checked_alone(store, capsys):
    flip(shard(store, "raw", 4, 11), 7)
    assert verify(capsys, store, "--ccds", "2")[:2] == (0, ["checked 18 files: 0 faults"])
    assert verify(capsys, store, "--night", "2020-08-02:")[:2] == (0, ["checked 0 files: 0 faults"])
    assert verify(capsys, store, "--night", "2020-08-01", "--ccds", "11", "-q")[:2] == (1, [])


# Against raw files


def test_raw_files_that_are_in_the_cube(night_store, raw_files, capsys):
    status, output, lines = verify(capsys, night_store, *raw_files[:6])
    assert (status, output, lines) == (0, ["checked 6 files: 0 faults"], [])


def test_no_raw_files_to_compare_with_is_wrong_usage(night_store, raw_files, tmp_path, capsys):
    """Not a sound cube: nothing was looked at."""
    status, output, lines = verify(capsys, night_store, tmp_path)
    assert (status, output) == (2, [])
    assert lines[-1] == "Error: nothing to compare: expected raw files in .fits or .fits.fz"
    for option in (("--ccds", "2"), ("--night", "2020-08-01")):
        status, output, lines = verify(capsys, night_store, raw_files[0], *option)
        assert (status, output) == (2, [])
        assert lines[-1].startswith("Error: --night and --ccds choose")


def rewritten(path: Path, folder: Path, change) -> Path:
    """The file again, uncompressed and of other bytes, changed."""
    with fits.open(path) as file:
        images = [fits.ImageHDU(np.asarray(hdu.data).copy(), header=hdu.header) for hdu in file[1:]]
        copy = fits.HDUList([fits.PrimaryHDU(header=file[0].header), *images])
        change(copy)
        copy.writeto(folder / path.name)
    return folder / path.name


def test_a_raw_file_with_a_changed_pixel(night_store, raw_files, tmp_path, capsys):
    def change(file: fits.HDUList) -> None:
        file[2].data[3, 5] += 1
        file[7].data[69, 29] = np.nan

    path = rewritten(raw_files[9], tmp_path, change)
    status, _, lines = verify(capsys, night_store, path)
    assert status == 1
    assert lines[0] == f"{path}: SHA-256 differs from that of the file that was ingested"
    differing = [line for line in lines if "1 pixel differs" in line]
    assert len(differing) == 2
    assert differing[0].startswith(f"{path}: quadrant 2: 1 pixel differs, the first at y 3, x 5: ")
    assert differing[1].startswith(f"{path}: overscan of quadrant 3: 1 pixel differs, the first at y 69, x 29: ")
    assert differing[1].endswith("expected nan")


def test_a_raw_file_with_a_changed_card(night_store, raw_files, tmp_path, capsys):
    path = tmp_path / raw_files[9].name
    data = raw_files[9].read_bytes()
    assert data.count(b"TELESCOP") == 1
    path.write_bytes(data.replace(b"TELESCOP", b"TELESCOQ"))
    status, _, lines = verify(capsys, night_store, path)
    assert status == 1
    assert lines == [
        f"{path}: SHA-256 differs from that of the file that was ingested",
        f"{path}: HDU 0: 1 cards differ",
    ]


def test_a_cube_that_differs_from_the_raw_file(store, raw_files, capsys):
    """Damage that no checksum of the store can show: a whole shard of another file."""
    shutil.copy(shard(store, "raw", 5, 11), shard(store, "raw", 4, 11))
    assert faults(store) == []
    path = next(p for p in raw_files[8:10] if ccd_of(p) == 11)
    status, _, lines = verify(capsys, store, path)
    assert status == 1
    assert [line.split(": ")[1] for line in lines] == [f"quadrant {q}" for q in (1, 2, 3, 4)]


def test_a_raw_file_that_is_not_in_the_cube(night_store, raw_files, tmp_path, capsys):
    path = tmp_path / raw_files[0].name.replace("_c02_", "_c03_")
    shutil.copy(raw_files[0], path)
    assert verify(capsys, night_store, path)[::2] == (1, [f"{path}: not in the cube"])
    other = tmp_path / raw_files[0].name.replace("20200801", "20200802")
    shutil.copy(raw_files[0], other)
    status, _, lines = verify(capsys, night_store, other)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(f"{other}: no exposure {exposure_of(other)}")
