"""``ztfzarr repair``: what is lost or damaged is named, written again from the raw files, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from nights import ran
from s3 import S3
from stores import ccd_of, contents, exposure_of, flip

from ztfzarr.ingest.run import ingest
from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
from ztfzarr.store.group import existing_document, object_key, open_raw
from ztfzarr.store.objects import LocalObjects, Objects, open_objects
from ztfzarr.store.shard import read_index, shard_format
from ztfzarr.store.template import arrays_of


def faults(objects: Objects) -> list[str]:
    files = present_files(open_raw(objects), Selection())
    return [*metadata_faults(objects), *table_faults(objects), *shard_faults(objects, files)]


def place(objects: Objects, file: Path) -> tuple[int, int]:
    """Row along time and CCD of a raw file."""
    exposures = np.asarray(open_raw(objects)["exposure"][...]).tolist()
    return exposures.index(exposure_of(file)), ccd_of(file)


def key(objects: Objects, name: str, file: Path) -> str:
    return object_key(existing_document(objects), name, place(objects, file))


def flipped(objects: Objects, name: str, file: Path, quadrant: int) -> None:
    """Flip a bit in a chunk of a quadrant."""
    where = key(objects, name, file)
    data = bytearray(objects.get(where))
    form = shard_format(arrays_of(existing_document(objects))[name])
    start, length = (int(n) for n in read_index(form, bytes(data))[0, 0, quadrant - 1, 0, 0])
    data[start + length // 2] ^= 1
    objects.put(where, bytes(data))


def without_header(objects: Objects, file: Path) -> None:
    """Lose the header row of one file."""
    row, ccd = place(objects, file)
    array = zarr.open_array(objects.zarr_store(read_only=False), path="raw/header", mode="r+")
    with zarr.config.set({"array.write_empty_chunks": True}):
        array[row, ccd - 1] = 0


def test_a_shard_lost_a_bit_flipped_a_header_gone(night_store, store_copy, night, raw_files, capsys):
    objects, undisturbed = LocalObjects(store_copy), contents(night_store)
    lost, bit, header = raw_files[0], raw_files[7], raw_files[20]
    objects.delete(key(objects, "overscan", lost))
    flipped(objects, "raw", bit, 3)
    without_header(objects, header)
    assert ran("verify", store_copy, "-q") == 1
    named = capsys.readouterr().err.splitlines()
    places = [f"exposure {exposure_of(f)}, CCD {ccd_of(f)}" for f in (lost, bit, header)]
    assert len(named) == 3
    assert f"raw/overscan: {places[0]}: object" in named[0]
    assert "is missing" in named[0]
    assert f"raw/raw: {places[1]}, quadrant 3, rows 0-69, columns 0-95: checksum does not hold" in named[1]
    assert f"raw/header: {places[2]}: header of HDU 0 is missing" in named[2]

    before = {path: path.stat().st_mtime_ns for path in store_copy.rglob("*") if path.is_file()}
    assert ran("repair", store_copy, night / "raw") == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "checked 36 files: 3 rewritten, 0 refused",
        f"rewrote raw/header: {places[2]}: its entry",
        f"rewrote raw/overscan: {places[0]}: object {key(objects, 'overscan', lost)}",
        f"rewrote raw/raw: {places[1]}: object {key(objects, 'raw', bit)}",
    ]
    assert ran("verify", store_copy, "-q") == 0
    assert contents(store_copy) == undisturbed
    touched = {p.relative_to(store_copy).parts[1] for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert "raw" in touched
    assert not touched & {"zscale", "zzero", "present", "exposure", "time"}
    assert ran("repair", store_copy, night / "raw") == 0
    assert "0 rewritten, 0 refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    "harm",
    [
        lambda objects, file: objects.delete("raw/zdither/c/0/0/0"),
        lambda objects, file: objects.delete("raw/source_size/c/0/0"),
        lambda objects, file: objects.put(key(objects, "zzero", file), b"not a shard"),
        lambda objects, file: objects.put(f"raw/header/c/{place(objects, file)[0]}/0/0/0", b"not a chunk"),
        lambda objects, file: objects.delete(f"raw/header/c/{place(objects, file)[0]}/0/0/0"),
    ],
    ids=["table of dithers", "table of sizes", "shard", "headers of an exposure", "headers lost"],
)
def test_content_is_that_of_before(
    night_store, store_copy, night, raw_files, harm: Callable[[Objects, Path], None]
):
    objects = LocalObjects(store_copy)
    harm(objects, raw_files[5])
    assert faults(objects) != []
    assert ran("repair", store_copy, night / "raw", "-q") == 0
    assert faults(objects) == []
    assert contents(store_copy) == contents(night_store)


def test_what_cannot_be_repaired_is_named(store_copy, raw_files, tmp_path, capsys):
    """Another file under the name, no file, hashes lost, a table whose other entries are damaged."""
    objects = LocalObjects(store_copy)
    one, other, twin = raw_files[0], raw_files[8], raw_files[9]
    assert exposure_of(other) == exposure_of(twin)
    for file in (one, other):
        objects.delete(key(objects, "raw", file))
    row = place(objects, other)[0]
    flip(store_copy / f"raw/header/c/{row}/0/0/0", 30)
    flip(store_copy / "raw/gain/c/0/0/0", 30)
    archive = tmp_path / "archive"
    archive.mkdir()
    wrong = archive / one.name
    wrong.write_bytes(raw_files[0].read_bytes()[:-2880] + bytes(2880))
    shutil.copy(other, archive)
    before = contents(store_copy)
    assert ran("repair", store_copy, archive, "-q") == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 5, error
    assert "not to be made from a raw file: raw/gain is damaged" in error[0]
    texts = "\n".join(error)
    assert f"exposure {exposure_of(one)}, CCD 2: object" in texts
    assert f"{wrong} is not the file" in texts or "DATASUM" in texts or "CHECKSUM" in texts
    assert f"CCD {ccd_of(twin)}: damaged" in texts
    assert "no raw file of it among those given" in texts
    assert "needs the raw files of all its CCDs" in texts
    after = contents(store_copy)
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} == {
        key(objects, "raw", other)
    }


def test_a_damaged_table_does_not_keep_a_header_from_repair(store_copy, night, raw_files, capsys):
    objects = LocalObjects(store_copy)
    without_header(objects, raw_files[3])
    flip(store_copy / "raw/gain/c/0/0/0", 30)
    assert ran("repair", store_copy, night / "raw", "-q") == 1
    assert capsys.readouterr().err.startswith("refused not to be made from a raw file: raw/gain is damaged")
    assert [line.split(" ")[0] for line in faults(objects)] == ["raw/gain"]


def test_another_file_is_not_taken(store_copy, raw_files, night_store, tmp_path, capsys):
    objects = LocalObjects(store_copy)
    file = raw_files[0]
    objects.delete(key(objects, "raw", file))
    table = zarr.open_array(store_copy / "raw/source_sha256", mode="r+")
    row, ccd = place(objects, file)
    table[row, ccd - 1] = "0" * 64
    before = contents(store_copy)
    assert ran("repair", store_copy, file, "-q") == 1
    assert f"{file} is not the file that was ingested: its SHA-256 differs" in capsys.readouterr().err
    assert contents(store_copy) == before


def test_in_a_bucket(s3: S3, raw_files, capsys):
    url, files = s3.place(), raw_files[:4]
    objects = open_objects(url, s3.options)
    assert not ingest(objects, files).refused
    before = {entry.key: objects.get(entry.key) for entry in objects.entries("raw")}
    objects.delete(key(objects, "zscale", files[1]))
    flipped(objects, "overscan", files[2], 4)
    assert ran("repair", url, *files, "-q", *s3.arguments) == 0
    assert {entry.key: objects.get(entry.key) for entry in objects.entries("raw")} == before
    assert ran("verify", url, "-q", *s3.arguments) == 0
