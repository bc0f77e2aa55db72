"""What files and stores are named, and say of themselves, stays text: no other path, no terminal's order."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from nights import ran
from rawfiles import raw_name, write_raw
from test_find import _sky, in_plane

import ztfzarr
from ztfzarr.cli.say import cell, plain
from ztfzarr.errors import RecipeError, RefusedError
from ztfzarr.store.files import plain_name
from ztfzarr.store.objects import LocalObjects
from ztfzarr.store.versions import find_version, versions_of

ORDER = "\x1b[2J\x1b]0;owned\x07[red]"  # clears the screen, names the window, and a colour of rich's
NAMES = {
    "up": "../../evil.fits",
    "absolute": "/tmp/evil.fits",
    "folder": "sub/evil.fits",
    "Windows": "..\\..\\evil.fits",
    "drive": "C:evil.fits",
    "zero byte": "evil\0.fits",
    "order": f"{ORDER}.fits",
    "long": "a" * 5000 + ".fits",
    "device": "NUL.fits",
    "hidden": ".bashrc",
    "nothing": " ",
    "another's": "ztf_20200801080084_000000_bi_c09_b.fits.fz",
}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def below_b(path: str) -> bool:
    return path in ("a", "a/b") or path.startswith("a/b/")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_restore_writes_no_other_name(
    name: str, store_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = zarr.open_array(store_copy / "raw/source_name", mode="r+")
    names = table[...]
    row = int(np.flatnonzero(names[:, 1] != "")[0])
    table[row, 1] = name
    before = files_below(tmp_path)
    exposure = int(zarr.open_array(store_copy / "raw/exposure", mode="r")[row])
    assert ran("restore", store_copy, tmp_path / "a/b/out", "--ccds", "2", "-q") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"refused exposure {exposure}, CCD 2: source_name ")
    assert line.isprintable()
    assert len(line) < 400
    made = files_below(tmp_path) - before
    assert all(below_b(path) for path in made)
    assert not any("evil" in path for path in made)
    assert sum(path.endswith(".fz") for path in made) == 17


def test_restore_leaves_what_is_linked_to(night_store: Path, tmp_path: Path) -> None:
    """A link where a file is to be: to a file, which stays; to nothing, which is not made; and a pipe."""
    assert ran("restore", night_store, tmp_path / "whole", "--ccds", "2", "-q") == 0
    one, two, three = sorted((tmp_path / "whole").rglob("*.fz"))[:3]
    target = tmp_path / "target"
    target.write_text("mine")
    places = [tmp_path / "out" / path.relative_to(tmp_path / "whole") for path in (one, two, three)]
    for place in places:
        place.parent.mkdir(parents=True)
    places[0].symlink_to(target)
    places[1].symlink_to(tmp_path / "nothing")
    os.mkfifo(places[2])
    assert ran("restore", night_store, tmp_path / "out", "--ccds", "2", "-q") == 1
    assert target.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()
    assert places[1].read_bytes() == two.read_bytes()
    assert not places[1].is_symlink()
    assert places[2].is_fifo()


def with_filter(store: Path, groups: tuple[str, ...], value: str) -> None:
    """Exposures of the sky under a filter's name of the store's own making."""
    for group in groups:
        imgtype = zarr.open_array(store / group / "imgtype", mode="r")[...]
        table = zarr.open_array(store / group / "filter", mode="r+")
        table[...] = np.where(imgtype == "object", value, table[...].astype(object))


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "a\0b", ORDER, "x" * 300, "", "a/b", "COM1"])
def test_export_and_stamps_write_no_other_name(
    name: str, reduced_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_filter(reduced_copy, ("raw", "science/v1"), name)
    before = files_below(tmp_path)
    assert ran("export", reduced_copy, "science", tmp_path / "a/b/out", "--ccds", "2", "-q") != 0
    error = capsys.readouterr().err
    assert "filter of science/v1 exposure" in error
    assert all(line.isprintable() for line in error.splitlines())
    cube = ztfzarr.open_cube(reduced_copy)
    sky = cube.isel(time=int(np.flatnonzero(cube.imgtype == "object")[0]))
    place = _sky((float(sky.ra), float(sky.dec)), *in_plane(2, 3, 0.5, 0.25))
    assert ran("find", reduced_copy, *place, "--cutout", "8", "-o", tmp_path / "a/b/stamps", "-q") == 1
    out, error = capsys.readouterr()
    assert error.count("refused exposure ") == error.count("\n") == 2
    assert error.count(" CCD 2: filter of exposure ") == 2
    assert all(line.isprintable() for line in error.splitlines())
    assert "\x1b" not in out
    assert all(below_b(path) for path in files_below(tmp_path) - before)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "", "v1\0", "é", ".hidden", "v" * 200])
def test_versions_stay_below_their_kind(
    name: str, reduced_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(tmp_path)
    for command in (
        ("bias", reduced_copy, "--version", name),
        ("drop", reduced_copy, "science", name, "--yes"),
        ("compare", reduced_copy, "bias", name, "v1"),
        ("export", reduced_copy, "bias", tmp_path / "out", "--version", name),
    ):
        assert ran(*command) == 2
        assert capsys.readouterr().err.startswith("ztfzarr: version ")
    assert files_below(tmp_path) == before
    with pytest.raises(RecipeError, match=r"^version "):
        find_version(LocalObjects(reduced_copy), "bias", name)


def test_folders_that_are_no_versions_are_passed_over(
    reduced_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(reduced_copy / "bias/v1", reduced_copy / "bias" / "v1\x1b[31m")
    assert [version.group for version in versions_of(LocalObjects(reduced_copy))] == [
        "bias/v1", "bias/v2", "flat/v1", "science/v1",
    ]  # fmt: skip
    for command in ("ls", "info", "verify"):
        assert ran(command, reduced_copy) == 0
        assert "\x1b" not in "".join(capsys.readouterr())


def with_imgtype(store: Path) -> None:
    table = zarr.open_array(store / "raw/imgtype", mode="r+")
    values = table[...].astype(object)
    values[0] = ORDER
    table[...] = values


def with_setting(store: Path) -> None:
    """A recipe that says so of how biases are stacked."""
    document = json.loads((store / "bias/v1/zarr.json").read_text())
    document["attributes"]["recipe"]["bias"]["method"] = ORDER
    (store / "bias/v1/zarr.json").write_text(json.dumps(document))


def with_array(store: Path) -> None:
    """Metadata that tell of an array of that name, which is not there."""
    document = json.loads((store / "raw/zarr.json").read_text())
    arrays = document["consolidated_metadata"]["metadata"]
    arrays[ORDER] = arrays["present"]
    (store / "raw/zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("command", "harm", "status"), [("ls", with_imgtype, 0), ("info", with_setting, 0), ("verify", with_array, 1)]
)
def test_text_of_a_store_gives_a_terminal_no_orders(
    command: str, harm: Callable[[Path], None], status: int, reduced_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what each command prints of a store."""
    harm(reduced_copy)
    assert ran(command, reduced_copy) == status
    shown = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in shown.splitlines())
    assert "\\x1b[2J\\x1b]0;owned\\x07[red]" in shown


@pytest.mark.parametrize(("command", "harm"), [("ls", with_imgtype), ("info", with_setting)])
def test_text_of_a_store_is_escaped_in_json(
    command: str, harm: Callable[[Path], None], reduced_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(reduced_copy)
    assert ran(command, reduced_copy, "--json") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\u001b[2J" in shown


def test_names_of_files_give_a_terminal_no_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor lines of their own, nor bytes that no stream can encode."""
    good = write_raw(tmp_path, raw_name())
    good.rename(tmp_path / f"{ORDER}\nrefused other.fits: \udcff\u202e.fits")
    assert ran("ingest", tmp_path / "cube.zarr", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "\\x1b[2J\\x1b]0;owned\\x07[red]\\nrefused other.fits: \\udcff\\u202e.fits" in line
    assert ran("ingest", tmp_path / "cube.zarr", tmp_path, "--json") == 1
    (refused,) = json.loads(capsys.readouterr().out)["refused"]
    assert "\x1b" in refused["path"]  # told to programs as it is, in ASCII


def test_a_table_shows_markup_as_it_is() -> None:
    from rich.text import Text

    assert Text.from_markup(cell("[red]x[/] [link=file:///]y")).plain == "[red]x[/] [link=file:///]y"
    assert plain("a\tb\x9b\u2028é 星") == "a\\tb\\x9b\\u2028é 星"


@pytest.mark.parametrize("name", [*NAMES.values(), "", "a b", "$(id)", "`id`", "a;b", "-rf", "*", "a\n"])
def test_plain_names(name: str) -> None:
    if name == NAMES["another's"]:
        assert plain_name(name, "file") == name
        return
    with pytest.raises(RefusedError, match=r"^file '.*: expected up to 100 letters"):
        plain_name(name, "file")
