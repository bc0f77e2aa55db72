"""``ztfzarr repair`` of products: damaged entries are made again as they were, or what changed is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from nights import ran
from stores import contents, flip

from ztfzarr.ingest.run import ingest
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.store.products import FILTERS

CCD = 2


def shard(store: Path, group: str, name: str, row: int = 0, band: str | None = None) -> Path:
    place = [row, *([FILTERS.index(band)] if band else []), CCD - 1]
    return store.joinpath(group, name, "c", *map(str, place), "0", "0", "0")


def science_row(store: Path) -> int:
    present = zarr.open_group(store / "science/v1", mode="r")["present"][...]
    return int(np.flatnonzero(present[:, CCD - 1])[0])


def changed(store: Path, group: str, name: str, place: tuple[int, ...], **values: object) -> None:
    """What an entry says that it was made of, changed."""
    table = zarr.open_array(store / group / name, mode="r+")
    record = json.loads(str(table[place]))
    table[place] = json.dumps(record | values)


def refusals(store: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What repair says; and that it wrote nothing."""
    before = contents(store)
    capsys.readouterr()
    assert ran("repair", store, "-q") == 1
    assert contents(store) == before
    return capsys.readouterr().err.splitlines()


def test_damaged_entries_are_made_again(reduced_copy, reduced_store, capsys):
    """Of every kind, a master and what was made of it at once; bit for bit, and nothing else is touched."""
    row = science_row(reduced_copy)
    harmed = [
        shard(reduced_copy, "bias/v1", "bias"),
        shard(reduced_copy, "bias/v2", "variance"),
        shard(reduced_copy, "flat/v1", "flat", band="zr"),
        shard(reduced_copy, "flat/v1", "bad", band="zg"),
        shard(reduced_copy, "science/v1", "science", row),
        shard(reduced_copy, "science/v1", "mask", row),
    ]
    for path in harmed[:-1]:
        flip(path, 20)
    harmed[-1].unlink()
    times = {path: path.stat().st_mtime_ns for path in reduced_copy.rglob("*") if path.is_file()}
    assert ran("verify", reduced_copy, "-q") == 1
    assert len(capsys.readouterr().err.splitlines()) == 6
    assert ran("repair", reduced_copy) == 0
    told = capsys.readouterr().out.splitlines()
    assert sorted(told[:-1]) == sorted(
        f"rewrote {'/'.join(path.relative_to(reduced_copy).parts[:3])}: object {path.relative_to(reduced_copy)}"
        for path in harmed
    )
    assert told[-1] == "checked 14 entries of products: 6 rewritten, 0 refused"
    assert contents(reduced_copy) == contents(reduced_store)
    assert all(
        path.read_bytes() == (reduced_store / path.relative_to(reduced_copy)).read_bytes() for path in harmed
    )
    touched = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert touched <= set(harmed)
    assert ran("verify", reduced_copy, "-q") == 0


def test_late_frames_do_not_change_what_is_made_again(reduced_store, tmp_path):
    """The entry is made of the exposures that it names, not of those that came since."""
    files = sorted((reduced_store.parent / "raw").rglob(f"*_bi_c{CCD:02d}_b.fits.fz"))
    store = tmp_path / "night.zarr"
    ingest(store, files[:-1])
    reduce(store, ["bias"], recipe=read_recipe("", ["bias.skip=9"]))
    path = shard(store, "bias/v1", "count")
    before = path.read_bytes()

    ingest(store, files[-1:])
    path.unlink()
    assert ran("repair", store, "-q") == 0
    assert path.read_bytes() == before


def test_other_inputs_are_refused(reduced_copy, capsys):
    provenance = json.loads(str(zarr.open_array(reduced_copy / "bias/v1/provenance", mode="r")[0, CCD - 1]))
    first = next(iter(provenance["exposures"]))
    flip(shard(reduced_copy, "bias/v1", "bias"), 20)
    exposures = provenance["exposures"]
    changed(reduced_copy, "bias/v1", "provenance", (0, CCD - 1), exposures=exposures | {first: "0" * 64})
    (line,) = refusals(reduced_copy, capsys)
    assert line.startswith("refused bias/v1/bias: ")
    assert line.endswith(f": exposure {first} has another SHA-256 than that of which it was made")
    changed(
        reduced_copy, "bias/v1", "provenance", (0, CCD - 1), exposures=exposures | {"20200101000000": "0" * 64}
    )
    (line,) = refusals(reduced_copy, capsys)
    assert line.endswith(": exposure 20200101000000, of which it was made, is not in the cube")


def test_a_master_made_anew_is_refused(reduced_copy, capsys):
    row = science_row(reduced_copy)
    flip(shard(reduced_copy, "science/v1", "science", row), 20)
    changed(reduced_copy, "bias/v1", "provenance", (0, CCD - 1), made="2999-01-01T00:00:00Z")
    (line,) = refusals(reduced_copy, capsys)
    night = int(zarr.open_array(reduced_copy / "bias/v1/night", mode="r")[0])
    assert line.endswith(f": bias/v1/{night}, of which it was made, was made anew since")


def test_other_masters_are_refused(reduced_copy, capsys):
    """As when a nearer night came since: it would now be made of that."""
    row = science_row(reduced_copy)
    flip(shard(reduced_copy, "science/v1", "science", row), 20)
    changed(reduced_copy, "science/v1", "provenance", (row, CCD - 1), k=2.0)
    (line,) = refusals(reduced_copy, capsys)
    assert ": it was made of k 2.0, now it would be " in line


def test_what_is_whole_proves_the_inputs(reduced_copy, capsys):
    """A mask is lost, but the science beside it was made by other software."""
    row = science_row(reduced_copy)
    other = shard(reduced_copy, "science/v1", "science", row)
    mask = shard(reduced_copy, "science/v1", "mask", row)
    other.write_bytes(shard(reduced_copy, "science/v1", "science", row + 1).read_bytes())
    mask.unlink()
    (line,) = refusals(reduced_copy, capsys)
    assert line.endswith(": made again, science differs where it is whole: its software or its inputs changed")


def test_published_entries_and_tables_are_refused(reduced_copy, capsys):
    changed(reduced_copy, "bias/v1", "provenance", (0, CCD - 1), published=True)
    flip(shard(reduced_copy, "bias/v1", "bias"), 20)
    flip(reduced_copy / "flat/v1/level/c/0/0/0", 6)
    lines = refusals(reduced_copy, capsys)
    assert lines[0].endswith(": it was published, not made by its recipe: publish it again under another version")
    assert lines[1].startswith("refused not to be made again: flat/v1/level: damaged (")


def test_damaged_raw_is_named(reduced_copy, capsys):
    """Raw must be repaired first; with the raw files both are."""
    row = science_row(reduced_copy)
    flip(shard(reduced_copy, "science/v1", "science", row), 20)
    flip(reduced_copy / f"raw/raw/c/{row}/{CCD - 1}/0/0/0", 20)
    (line,) = refusals(reduced_copy, capsys)
    assert "checksum does not hold: " in line


def test_a_version_dropped_meanwhile_stays_dropped(reduced_copy, monkeypatch, capsys):
    from ztfzarr.reduce import remake

    flip(shard(reduced_copy, "bias/v2", "bias"), 20)
    make = remake.make_bias

    def dropped(*args: object) -> object:
        made = make(*args)
        assert ran("drop", reduced_copy, "bias", "v2", "--yes") == 0
        return made

    monkeypatch.setattr(remake, "make_bias", dropped)
    assert ran("repair", reduced_copy, "-q") == 1
    assert "bias/v2 was dropped while its entries were made" in capsys.readouterr().err
    assert not (reduced_copy / "bias/v2/bias").exists()


def test_recipe_is_the_versions_own(reduced_copy, reduced_store):
    """Not the defaults, nor one that is asked for elsewhere."""
    reduce(reduced_copy, ["bias"], version="v3", recipe=read_recipe("", ["bias.skip=9", "bias.rounding=0"]))
    path = shard(reduced_copy, "bias/v3", "bias")
    before = path.read_bytes()
    flip(path, 20)
    assert ran("repair", reduced_copy, "-q") == 0
    assert path.read_bytes() == before
