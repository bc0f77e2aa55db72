"""Every command with every kind of product, on disk and in a bucket."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from kinds import KINDS
from nights import ran
from s3 import S3
from stores import contents, flip

from ztfzarr.store.objects import open_objects
from ztfzarr.store.versions import versions_of

DRAWN = ("bias", "flat", "science", "starflat")
FILES = {"bias": 4, "pocket": 1, "flat": 12, "science": 8, "stars": 2, "starflat": 4}  # exported of CCD 2
MADE = {"bias": 2, "pocket": 2, "flat": 6, "science": 4, "stars": 4, "starflat": 1}
USERS = {"bias": "flat/v1", "flat": "science/v1", "science": "stars/v1", "stars": "starflat/v1"}


@pytest.fixture(scope="module")
def url(s3: S3, all_kinds: Path) -> str:
    """The store on disk, copied to a bucket. Never changed."""
    url = s3.place()
    to_bucket = [part.replace("--storage", "--dest") for part in s3.arguments]
    assert ran("copy", all_kinds, url, "--products", "-q", *to_bucket) == 0
    return url


@pytest.fixture
def copy(all_kinds: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(all_kinds, tmp_path / "copy.zarr"))


def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    capsys.readouterr()
    assert ran(*arguments) == status
    return capsys.readouterr().out


def test_ls_and_info_name_every_kind(all_kinds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(said(capsys, "ls", all_kinds, "--json"))["products"]
    assert {row["group"]: row["made"] for row in listed if row["group"].endswith("/v1")} == {
        f"{kind}/v1": count for kind, count in MADE.items()
    }
    assert all(row["quality"] for row in listed)
    found = json.loads(said(capsys, "info", all_kinds, "--json"))["products"]
    assert {p["group"].split("/")[0] for p in found} == set(KINDS)
    assert {p["group"]: p["entries"] for p in found if p["group"].endswith("/v1")} == {
        f"{kind}/v1": count for kind, count in MADE.items()
    }


def test_what_info_says_opens_every_kind(all_kinds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "info", all_kinds).partition("As stored")[2]
    names: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in text.split("\n")[1:]), names)
    assert set(KINDS) <= set(names)
    assert len(names["stars"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_named_and_mended_or_refused(
    copy: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pixels are made again; tables and stars are refused by name."""
    pixels = kind in ("bias", "flat", "science")
    name = {"stars": "table", "pocket": "cmax", "starflat": "delta"}.get(kind, kind)
    files = [p for p in (copy / kind / "v1" / name).rglob("*") if p.is_file() and p.name != "zarr.json"]
    before = files[0].read_bytes()
    flip(files[0], len(before) // (10 if kind == "stars" else 2))  # a page: Parquet's footer has no checksum
    capsys.readouterr()
    assert ran("verify", copy, "-q") == 1
    err = capsys.readouterr().err
    assert f"{kind}/v1" in err
    assert ran("repair", copy, "-q") == (0 if pixels else 1)
    refused = capsys.readouterr().err
    assert (files[0].read_bytes() == before) == pixels
    if not pixels:
        assert f"{kind}/v1/{name}" in refused
        assert "made again" in refused


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_the_same(all_kinds: Path, kind: str, url: str, s3: S3) -> None:
    """In the bucket is what is on disk, object by object but for the documents, which are written anew."""
    here, there = open_objects(all_kinds), open_objects(url, s3.options)
    keys = [e.key for e in here.entries(f"{kind}/v1") if not e.key.endswith("zarr.json")]
    mine = [key for key in keys if "/c/" not in key or kind not in ("pocket", "starflat")]
    assert {e.key for e in there.entries(f"{kind}/v1")} >= set(mine)
    stars = [key for key in mine if key.endswith(".parquet")]
    assert all(here.get(key) == there.get(key) for key in stars)
    assert len(stars) == (4 if kind == "stars" else 0)


def without_place(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return {name: value for name, value in found.items() if name not in ("store", "location", "open", "file")}


@pytest.mark.parametrize("kind", KINDS)
def test_compare_from_a_bucket(
    all_kinds: Path, url: str, s3: S3, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "v1" if kind == "flat" else "v2"
    arguments = (kind, "v1", other, "--json")
    here = said(capsys, "compare", all_kinds, *arguments)
    assert said(capsys, "compare", url, *arguments, *s3.arguments) == here
    assert json.loads(here)["differences"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_show(
    all_kinds: Path, url: str, s3: S3, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["show", all_kinds, kind, "-o", tmp_path / "x.png"]
    capsys.readouterr()
    if kind not in DRAWN:
        assert ran(*options) == 2
        assert f"'{kind}' has no picture: ztfzarr report draws its numbers" in capsys.readouterr().err
        return
    said(capsys, *options, "--json")
    picture = (tmp_path / "x.png").read_bytes()
    assert picture[:4] == b"\x89PNG"
    said(capsys, "show", url, kind, "-o", tmp_path / "x.png", "--json", *s3.arguments)
    assert (tmp_path / "x.png").read_bytes() == picture


@pytest.mark.parametrize("kind", KINDS)
def test_export(
    all_kinds: Path, url: str, s3: S3, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ccds", 2, "--json"]
    found = json.loads(said(capsys, "export", all_kinds, kind, tmp_path / "disk", *options))
    assert len(found["written"]) == FILES[kind]
    said(capsys, "export", url, kind, tmp_path / "bucket", *options, *s3.arguments)
    ours, theirs = contents(tmp_path / "bucket"), contents(tmp_path / "disk")
    assert ours.keys() == theirs.keys()
    same = {"ignore_keywords": ["DATE", "CHECKSUM"], "ignore_comments": ["DATASUM"]}
    for name in theirs:
        files = (tmp_path / where / name for where in ("bucket", "disk"))
        assert fits.FITSDiff(*files, **same).identical, name


@pytest.mark.slow
def test_verify_and_report_from_a_bucket(url: str, s3: S3, all_kinds: Path, tmp_path: Path) -> None:
    assert ran("verify", url, "-q", *s3.arguments) == 0
    pages = []
    for place, options in ((all_kinds, []), (url, s3.arguments)):
        assert ran("report", place, "--thumbnails", 0, "-o", tmp_path / "r.html", "-q", *options) == 0
        pages.append(
            (tmp_path / "r.html").read_text().partition('<main id="content">')[2].partition("<footer>")[0]
        )
    assert pages[0] == pages[1]
    assert all(
        f'id="{name}"' in pages[0] for name in (*("bias", "flat", "science", "stars", "starflat", "pocket"),)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_drop_refuses_what_is_used_and_drops_the_rest(
    copy: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    if kind in USERS:
        assert ran("drop", copy, kind, "v1", "--yes") == 3
        assert f"{USERS[kind]} is made with {kind}/v1: drop " in capsys.readouterr().err
    else:
        assert json.loads(said(capsys, "drop", copy, kind, "v1", "--yes", "--json"))["deleted"] == f"{kind}/v1"
        assert f"{kind}/v1" not in [version.group for version in versions_of(open_objects(copy))]
        assert ran("verify", copy, "-q") == 0


@pytest.mark.parametrize("command", ["compare", "drop", "export", "show"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_and_what_is_misspelt(
    all_kinds: Path, kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(all_kinds)
    more = {
        "compare": ["v1", "v9"],
        "drop": ["v9", "--yes"],
        "export": [tmp_path, "--version", "v9"],
        "show": ["--version", "v9", "-o", tmp_path / "x.png"],
    }[command]
    capsys.readouterr()
    drawn = command != "show" or kind in DRAWN
    assert ran(command, all_kinds, kind, *more) == (3 if drawn else 2)
    assert f"no {kind}/v9 in" in capsys.readouterr().err or not drawn or kind == "science"
    assert ran(command, all_kinds, f"{kind}t", *more) == 2
    err = capsys.readouterr().err
    assert not drawn or f"Did you mean '{kind}'?" in err.replace("\n", " ")
    assert contents(all_kinds) == before
