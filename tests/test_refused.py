"""What ingest refused is kept in the store: once, bounded, as plain JSON that verify knows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from nights import ran

from ztfzarr.ingest.names import night_in_name
from ztfzarr.ingest.run import ingest
from ztfzarr.schema import record_faults
from ztfzarr.store.objects import LocalObjects
from ztfzarr.store.refused import (
    CHARACTERS,
    FILES,
    RUNS,
    UNKNOWN,
    Refused,
    keep_refused,
    refused_faults,
    refused_files,
    refused_nights,
)

NAME = "ztf_20200802109421_000000_zg_c02_f.fits.fz"
GOOD: dict[str, Any] = {
    "format": 1,
    "kind": "refused",
    "when": "2020-08-02T10:00:00Z",
    "files": [{"path": "a", "reason": "b"}],
    "more": 0,
}


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "store")


@pytest.fixture
def bad_files(raw_files: list[Path], tmp_path: Path) -> Path:
    """A raw file that breaks off, and one whose name says nothing."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / NAME).write_bytes(raw_files[0].read_bytes()[:5000])
    (folder / "focus <b>.fits").write_bytes(b"no FITS")
    return folder


def records(store: Path) -> dict[str, Any]:
    return {
        p.relative_to(store).as_posix(): json.loads(p.read_text()) for p in (store / "refused").rglob("*.json")
    }


def test_ingest_keeps_what_it_refused(store_copy: Path, bad_files: Path) -> None:
    refused = dict(ingest(store_copy, [bad_files]).refused)
    found = records(store_copy)
    assert {key.split("/")[1] for key in found} == {"20200802", "unknown"}
    kept = {file["path"]: file["reason"] for record in found.values() for file in record["files"]}
    assert kept == refused
    assert len(kept) == 2
    assert refused_nights(LocalObjects(store_copy)) == [UNKNOWN, 20200802]


def test_the_same_refusals_are_kept_once(store_copy: Path, bad_files: Path) -> None:
    ingest(store_copy, [bad_files])
    before = records(store_copy)
    ingest(store_copy, [bad_files])
    assert records(store_copy) == before
    (bad_files / "other.fits").write_bytes(b"nor this")
    ingest(store_copy, [bad_files])
    new = {key: record for key, record in records(store_copy).items() if key not in before}
    assert [[Path(f["path"]).name for f in record["files"]] for record in new.values()] == [["other.fits"]]


def test_refusals_alone_make_no_store(tmp_path: Path, bad_files: Path) -> None:
    assert len(ingest(tmp_path / "none.zarr", [bad_files]).refused) == 2
    assert not (tmp_path / "none.zarr").exists()


def test_paths_that_name_nothing_are_no_refused_files(store_copy: Path, tmp_path: Path) -> None:
    assert ingest(store_copy, [tmp_path / "typo"]).refused
    assert not (store_copy / "refused").exists()


def test_readers_do_not_see_it(store_copy: Path, bad_files: Path) -> None:
    ingest(store_copy, [bad_files])
    with xr.open_zarr(store_copy / "raw", chunks=None, zarr_format=3) as raw:
        assert "refused" not in raw
        assert raw.sizes["time"] == 18


def test_what_is_kept_is_bounded(objects: LocalObjects) -> None:
    long = Refused(20200801, "x" * 3000, "y" * 3000)
    many = [Refused(20200801, f"f{i}", "r") for i in range(FILES + 7)]
    assert keep_refused(objects, [long, *many]) == 1
    kept = refused_files(objects, 20200801)
    assert (len(kept.files), kept.more) == (FILES, 8)
    assert max(len(file.path) for file in kept.files) == CHARACTERS
    assert max(len(file.reason) for file in kept.files) == CHARACTERS
    for i in range(RUNS + 3):
        keep_refused(objects, [Refused(20200802, f"f{i}", "r")])
    assert len(refused_files(objects, 20200802).files) == RUNS


def test_signatures_of_urls_are_left_out(objects: LocalObjects) -> None:
    keep_refused(objects, [Refused(20200801, "https://host/a.fits?X-Amz-Signature=abc", "r")])
    assert [file.path for file in refused_files(objects, 20200801).files] == ["https://host/a.fits"]


def test_names_that_are_no_text_are_kept(objects: LocalObjects) -> None:
    keep_refused(objects, [Refused(UNKNOWN, "a\udc80\n\u202e.fits", "r")])
    assert [file.path for file in refused_files(objects, UNKNOWN).files] == ["a\udc80\n\u202e.fits"]


def test_runs_at_once_lose_nothing(objects: LocalObjects) -> None:
    files = [Refused(20200801, f"f{i}", "r") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda file: keep_refused(objects, [file]), files)) == 24
    assert set(refused_files(objects, 20200801).files) == set(files)


def test_ls_and_verify_know_it(store_copy: Path, bad_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(store_copy, [bad_files])
    assert ran("ls", store_copy) == 0
    assert "files were refused of no known night, 2020-08-02" in capsys.readouterr().out
    ran("ls", store_copy, "--json")
    assert json.loads(capsys.readouterr().out)["refused"] == [0, 20200802]
    ran("ls", store_copy, "--night", "2020-08-01")
    assert "2020-08-02" not in capsys.readouterr().out
    assert ran("verify", store_copy, "-q") == 0
    key = next(iter(records(store_copy)))
    (store_copy / key).write_text("{")
    capsys.readouterr()
    assert ran("verify", store_copy, "-q") == 1
    assert capsys.readouterr().err == f"{key}: no JSON\n"


def test_what_is_written_satisfies_the_schema(objects: LocalObjects) -> None:
    keep_refused(objects, [Refused(20200801, "a", "b")])
    assert list(refused_faults(objects)) == []
    assert record_faults(GOOD, "refused") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": 2}, "format: 1 was expected"),
        ({"kind": "raw"}, "kind: 'refused' was expected"),
        ({"when": "yesterday"}, "when: 'yesterday' does not match"),
        ({"files": []}, "files: [] should be non-empty"),
        ({"files": [{"path": "a"}]}, "files/0: 'reason' is a required property"),
        ({"files": [{"path": "a", "reason": 3}]}, "files/0/reason: 3 is not of type 'string'"),
        ({"more": -1}, "more: -1 is less than the minimum of 0"),
    ],
)
def test_wrong_records_are_named_and_passed_over(
    objects: LocalObjects, change: dict[str, Any], expected: str
) -> None:
    objects.put("refused/20200801/a.json", json.dumps(GOOD).encode())
    objects.put("refused/20200801/b.json", json.dumps(GOOD | change).encode())
    (line,) = refused_faults(objects)
    assert line.startswith(f"refused/20200801/b.json: {expected}")
    assert [file.path for file in refused_files(objects, 20200801).files] == ["a"]


@pytest.mark.parametrize(
    ("name", "night"),
    [
        (NAME, 20200802),
        ("ztf_20200802900000_000000_zg_c02_f.fits", 20200803),  # after 19:47 UTC
        ("ztf_20200802109421_000000_zg_c02_d.fits", 20200802),  # of a kind that is not read
        ("ztf_20209902109421_000000_zg_c02_f.fits", None),
        ("focus.fits", None),
    ],
)
def test_the_night_that_a_name_tells(name: str, night: int | None) -> None:
    assert night_in_name(name) == night


def test_copy_leaves_refusals(store_copy: Path, bad_files: Path, tmp_path: Path) -> None:
    ingest(store_copy, [bad_files])
    assert ran("copy", store_copy, tmp_path / "dest.zarr", "-q") == 0
    assert not (tmp_path / "dest.zarr" / "refused").exists()
