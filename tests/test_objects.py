"""Listing the objects of a folder: what is there, and nothing twice."""

from __future__ import annotations

from pathlib import Path

from ztfzarr.store.objects import open_objects


def test_entries_are_the_files_below_a_folder(tmp_path: Path) -> None:
    for number, key in enumerate(("a/zarr.json", "a/c/0/0/0", "a/c/1/.hidden", "b/é", "top")):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number))
    (tmp_path / "a" / "empty").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")  # a folder elsewhere is not the store's
    objects = open_objects(tmp_path)
    for prefix in ("", "a", "a/c", "b", "none"):
        below = [p for p in (tmp_path / prefix).rglob("*") if p.is_file() and "link" not in p.parts]
        expected = {p.relative_to(tmp_path).as_posix(): p.stat() for p in below}
        found = list(objects.entries(prefix))
        assert sorted(e.key for e in found) == sorted(expected), prefix
        for entry in found:
            status = expected[entry.key]
            assert (entry.size, entry.modified) == (status.st_size, status.st_mtime)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    assert list(open_objects(tmp_path).entries("one")) == []
