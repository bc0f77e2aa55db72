"""Register, fill, mark: whatever the order, whoever dies where, readers never fail and never see wrong values."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from astropy.io import fits
from peers import same_bits
from stores import astropy_cube, astropy_images, ccd_of, contents, exposure_of, flip, plain_decoder, shard

import ztfzarr
from ztfzarr.cli import main
from ztfzarr.errors import StoreError
from ztfzarr.ingest import run
from ztfzarr.ingest.run import ingest
from ztfzarr.simulate import simulate_night
from ztfzarr.store import lock as lock_module
from ztfzarr.store import register as register_module
from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
from ztfzarr.store.listing import nights
from ztfzarr.store.objects import LocalObjects, open_objects
from ztfzarr.store.raw import COORDINATES, FILE_OWNED
from ztfzarr.store.register import Exposure, create_raw, mark, open_raw, register, sweep_partial
from ztfzarr.store.remote import RemoteObjects


@pytest.fixture(scope="module")
def later_night(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The next night, of CCD 2 only."""
    folder = tmp_path_factory.mktemp("later")
    simulate_night(folder, night=20200802, ccds=(2,), shape=(70, 96), bias=1, flats=0, science=1)
    return sorted((folder / "raw").rglob("*.fz"), key=lambda path: path.name)


@pytest.fixture(scope="module")
def few(raw_files: list[Path]) -> list[Path]:
    """Three exposures of two CCDs: a bias, a flat and one of the sky."""
    return [*raw_files[:2], *raw_files[16:18], *raw_files[-2:]]


def faults(store: Path) -> list[str]:
    objects = open_objects(store)
    files = present_files(open_raw(objects), Selection())
    return [*metadata_faults(objects), *table_faults(objects), *shard_faults(objects, files)]


def assert_holds(store: Path, files: list[Path]) -> None:
    """The store holds just these files, in DN as astropy has them, and is sound."""
    truth, cube = astropy_cube(files), ztfzarr.open_cube(store)
    assert cube.exposure.values.tolist() == truth.exposure
    assert same_bits(cube.raw.values, truth.raw)
    assert same_bits(cube.overscan.values, truth.overscan)
    assert faults(store) == []


def states(store: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file of a store."""
    paths = [p for p in store.rglob("*") if p.is_file()]
    return {p.relative_to(store).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}


# Order


@pytest.mark.parametrize("seed", [1, 2])
def test_files_in_any_order(few, tmp_path, seed):
    files = random.Random(seed).sample(few, len(few))
    for batch in (files[:1], files[1:4], files[3:]):
        assert ingest(tmp_path / "s.zarr", batch).refused == []
    assert_holds(tmp_path / "s.zarr", few)


def test_nights_in_any_order(few, later_night, tmp_path):
    ingest(tmp_path / "s.zarr", later_night)
    ingest(tmp_path / "s.zarr", few)
    assert_holds(tmp_path / "s.zarr", few + later_night)
    found = nights(tmp_path / "s.zarr")
    assert [(n.night, n.ccds, n.files, n.missing) for n in found] == [
        (20200801, [2, 11], 6, 0),
        (20200802, [2], 2, 0),
    ]


def test_ccds_that_arrive_later(few, tmp_path):
    first = [p for p in few if ccd_of(p) == 11]
    ingest(tmp_path / "s.zarr", first)
    assert_holds(tmp_path / "s.zarr", first)
    report = ingest(tmp_path / "s.zarr", few)
    assert (report.ingested, report.skipped) == (3, 3)
    assert_holds(tmp_path / "s.zarr", few)


@pytest.mark.parametrize("check", [False, True])
def test_twice_changes_nothing(store_copy, raw_files, check):
    before = states(store_copy)
    report = ingest(store_copy, raw_files, check=check)
    assert (report.ingested, report.skipped, report.refused) == (0, 36, [])
    assert states(store_copy) == before


# Other files for a taken place


def altered(path: Path, folder: Path, card: str, value: object) -> Path:
    """The same pixels under the same name, with another header."""
    folder.mkdir(exist_ok=True)
    with fits.open(path, disable_image_compression=True) as file:
        file[0].header[card] = value
        file.writeto(folder / path.name, checksum=True)
    return folder / path.name


def test_another_file_is_refused_and_named(store_copy, raw_files, tmp_path, capsys):
    path = altered(raw_files[5], tmp_path / "other", "OBSERVER", "somebody else")
    data = path.read_bytes()
    path.write_bytes(data + bytes(2880))  # another size: seen without hashing
    before = states(store_copy)
    with pytest.raises(SystemExit) as status:
        main(["ingest", str(store_copy), str(path)])
    assert status.value.code == 1
    assert str(path) in capsys.readouterr().err
    after = states(store_copy)
    noted = [name for name in after if name.startswith("refused/")]
    assert len(noted) == 1
    assert {name: state for name, state in after.items() if name not in noted} == before


def test_another_file_of_the_same_size_is_refused_with_check(store_copy, raw_files, tmp_path, capsys):
    path = tmp_path / raw_files[5].name
    path.write_bytes(raw_files[5].read_bytes())
    flip(path, -4000)
    assert ingest(store_copy, [path]).skipped == 1, "name and size are the same: documented"
    with pytest.raises(SystemExit) as status:
        main(["ingest", str(store_copy), str(path), "--check"])
    error = capsys.readouterr().err
    assert status.value.code == 1
    assert f"refused {path}: differs from {path.name}" in error
    assert f"exposure {exposure_of(path)}, CCD {ccd_of(path)}" in error


def collected(store: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[register_module.FilledFile]:
    """Register and fill files as an ingest does that dies before its mark; return what it would have marked."""
    filled = []
    with monkeypatch.context() as patch:
        patch.setattr(run, "mark", lambda objects, batch, **options: filled.extend(batch) or [])
        assert ingest(store, files).refused == []
    return filled


def test_of_two_marks_for_one_place_the_first_holds(few, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    (mine,) = collected(store, few[:1], monkeypatch)
    (theirs,) = collected(store, [altered(few[0], tmp_path / "other", "OBSERVER", "somebody else")], monkeypatch)
    objects = open_objects(store)
    assert mark(objects, [mine]) == []
    before = contents(store)
    assert mark(objects, [theirs]) == [theirs]
    assert mark(objects, [mine]) == [], "the same file marked twice is no conflict"
    assert contents(store) == before
    assert open_raw(objects)["source_sha256"][0, ccd_of(few[0]) - 1] == mine.sha256


def test_other_pixels_are_never_filled_over(few, tmp_path, monkeypatch):
    """An ingest that died left a file's objects; another file for the place is refused, not mixed with them."""
    store = tmp_path / "s.zarr"
    collected(store, few[:1], monkeypatch)
    other = tmp_path / few[0].name
    with fits.open(few[0]) as file:
        hdus = [fits.PrimaryHDU(header=file[0].header)]
        hdus += [fits.ImageHDU(hdu.data + np.float32(1), header=hdu.header) for hdu in file[1:]]
        fits.HDUList(hdus).writeto(other)
    report = ingest(store, [other])
    assert report.ingested == 0
    assert "left by an unfinished ingest of another file" in report.refused[0][1]
    assert ingest(store, few[:1]).ingested == 1
    assert_holds(store, few[:1])


# Leftovers


def test_absent_slots_are_nan_whatever_was_left(few, later_night, tmp_path, monkeypatch):
    """Die after the fills; then another night with fewer CCDs: no pixel of the first may show."""
    store = tmp_path / "s.zarr"
    collected(store, few, monkeypatch)
    assert shard(store, "raw", 0, 11).exists()
    ingest(store, later_night)
    cube = ztfzarr.open_cube(store)
    plain = xr.open_zarr(store / "raw", chunks=None)
    assert cube.exposure.values[:3].tolist() == sorted({exposure_of(p) for p in few})
    assert np.isnan(cube.raw[:3].values).all()
    assert np.isnan(cube.raw.sel(ccd=11).values).all()
    for row, ccd in itertools.product(range(3), (2, 11)):
        assert np.isnan(plain_decoder().image(plain.isel(time=row).sel(ccd=ccd), 3)).all()
    truth = astropy_cube(later_night)
    assert same_bits(cube.raw[3:].values, truth.raw)
    assert ingest(store, few).ingested == 6
    assert_holds(store, few + later_night)


def test_a_slot_never_changes_its_exposure(few, later_night, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    collected(store, few[4:], monkeypatch)
    ingest(store, later_night)
    ingest(store, few)
    rows = open_raw(open_objects(store))["exposure"][...].tolist()
    assert rows == list(dict.fromkeys(exposure_of(p) for p in [*few[4:], *later_night, *few]))


def test_a_cut_short_register_leaves_no_trace(few, later_night, tmp_path, monkeypatch):
    """Coordinates of rows that were never shown are written over, not inherited."""
    store = tmp_path / "s.zarr"
    ingest(store, few[:2])
    with monkeypatch.context() as patch:
        patch.setattr(LocalObjects, "put", refusing(LocalObjects.put, "raw/zarr.json"))
        with pytest.raises(OSError, match="died"):
            ingest(store, few)
    assert ztfzarr.open_cube(store).sizes["time"] == 1
    ingest(store, later_night[:1])
    assert_holds(store, few[:2] + later_night[:1])


def refusing(put: Callable, key: str) -> Callable:
    def refuse(self, name, data):
        if name == key:
            raise OSError("died")
        put(self, name, data)

    return refuse


def test_old_partial_files_are_swept(store_copy):
    folder = store_copy / ".ztfzarr" / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    for name, age in (("old.partial", 4000), ("new.partial", 3000)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (folder.stat().st_mtime - age,) * 2)
    sweep_partial(open_objects(store_copy))
    assert [p.name for p in folder.iterdir()] == ["new.partial"]


# Every write


class Died(BaseException):
    """The process is dead: nothing of it may run on."""


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """Calls ``before(key, count)`` and ``after(key)`` around each write of a store; no waits for the disk."""
    hooks = {"before": lambda key, count: None, "after": lambda key: None, "count": 0}

    def publish(self, key, data, move):
        hooks["before"](key, hooks["count"])
        hooks["count"] += 1
        result = real_publish(self, key, data, move)
        hooks["after"](key)
        return result

    def delete(self, key):
        hooks["before"](key, hooks["count"])
        real_delete(self, key)

    real_publish, real_delete = LocalObjects._publish, LocalObjects.delete
    monkeypatch.setattr(LocalObjects, "_publish", publish)
    monkeypatch.setattr(LocalObjects, "delete", delete)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    yield hooks
    hooks |= {"before": lambda key, count: None, "after": lambda key: None}


def assert_readers_right(store: Path, truth: dict[tuple[int, int], list[np.ndarray]], lengths: set[int]) -> int:
    """Open the store afresh, plainly and decoded: no failure, no wrong value, one of the lengths. Returns it."""
    decode = plain_decoder().image
    plain, cube = xr.open_zarr(store / "raw", chunks=None), ztfzarr.open_cube(store)
    assert {plain.sizes["time"], cube.sizes["time"]} <= lengths
    for dataset in (plain, cube):
        exposures, present = dataset.exposure.values, dataset.present.values
        assert len(set(exposures.tolist())) == dataset.sizes["time"]
        assert set(exposures.tolist()) <= {exposure for exposure, _ in truth}
        assert set(dataset.night.values.tolist()) <= {20200801}
        assert not np.isnat(dataset.time.values).any()
        for (row, exposure), ccd in itertools.product(enumerate(exposures.tolist()), (2, 11)):
            file = dataset.isel(time=row).sel(ccd=ccd)
            pixels = file.raw[3].values if dataset is cube else decode(file, 4)
            expected = truth[exposure, ccd][3] if present[row, ccd - 1] else np.full_like(pixels, np.nan)
            assert same_bits(pixels, expected), (exposure, ccd)
            if present[row, ccd - 1]:
                assert len(str(file.source_sha256.values)) == 64
                assert not np.isnan(file.gain.values).any()
    return plain.sizes["time"]


@pytest.fixture(scope="module")
def truth(few: list[Path]) -> dict[tuple[int, int], list[np.ndarray]]:
    return {(exposure_of(p), ccd_of(p)): astropy_images(p) for p in few}


def start(few: list[Path], store: Path, grown: bool) -> tuple[list[Path], set[int]]:
    """A store to ingest into, with one file if ``grown``; the files to ingest and the lengths that may be seen.

    They come before and after the exposure that is there, and with a CCD that it lacks.
    """
    if grown:
        ingest(store, few[2:3], workers=1)
        return [few[0], few[1], few[3]], {1, 2}
    return few[:2], {1}


@pytest.mark.parametrize("grown", [False, True])
def test_readers_see_the_old_or_the_new_at_every_write(few, truth, tmp_path, writes, grown):
    store = tmp_path / "s.zarr"
    files, lengths = start(few, store, grown)
    seen = []

    def after(key: str) -> None:
        if (store / "raw" / "zarr.json").exists():
            seen.append(assert_readers_right(store, truth, lengths | {0} if not grown else lengths))

    writes["after"] = after
    ingest(store, files, workers=1)
    assert seen == sorted(seen), "rows never vanish"
    assert len(seen) > 70
    # One put shows all the new rows.
    assert len(set(seen)) == 2
    assert_holds(store, files + few[2:3] if grown else files)


def die_after(limit: int, writes: dict, store: Path, files: list[Path]) -> bool:
    """Ingest with a process that dies after a number of writes; say whether it came to that."""

    def before(key: str, count: int) -> None:
        if count >= limit:
            raise Died

    writes |= {"before": before, "count": 0}
    try:
        ingest(store, files, workers=1)
    except Died:
        return True
    finally:
        writes["before"] = lambda key, count: None
    return False


def bury(store: Path) -> None:
    """Make the lock that the dead left be of a process that is not there."""
    for path in (store / ".ztfzarr" / "lock").rglob("0*"):
        identity = json.loads(path.read_text())
        path.write_text(json.dumps(identity | {"start": "0"}))


EVERY = int(os.environ.get("ZTFZARR_DEATHS", "1"))  # of so many writes, where all are asked for


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("step", [13, pytest.param(EVERY, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_death_after_any_write_and_a_rerun(few, truth, tmp_path, writes, grown, step):
    """For every number of writes of a small ingest (CI: every fourth); if not slow, for every thirteenth."""
    base = tmp_path / "base.zarr"
    files, lengths = start(few, base, grown)
    for limit in itertools.count(0, step):
        store = tmp_path / "s.zarr"
        if grown:
            shutil.copytree(base, store, copy_function=os.link)  # objects are replaced, never changed
        died = die_after(limit, writes, store, files)
        bury(store)
        if (store / "raw" / "zarr.json").exists():
            assert_readers_right(store, truth, lengths | {0} if not grown else lengths)
        elif store.exists():
            with pytest.raises(StoreError, match="no store"):
                ztfzarr.open_cube(store)
        report = ingest(store, files, workers=1)
        assert (report.ingested + report.skipped, report.refused) == (len(files), [])
        expected = files + few[2:3] if grown else files
        assert_readers_right(store, {k: v for k, v in truth.items() if k in {key(p) for p in expected}}, lengths)
        assert faults(store) == []
        with lock_module.lock(open_objects(store), "raw", patience=0.0):
            pass
        assert not list((store / ".ztfzarr" / "lock").rglob("0*"))
        shutil.rmtree(store)
        if not died:
            break
    assert limit > 80


def key(path: Path) -> tuple[int, int]:
    return exposure_of(path), ccd_of(path)


@pytest.mark.parametrize("at", ["raw/led/c/0", "raw/header/c/0/0/0/0"], ids=["register", "mark"])
def test_an_interrupt_lets_what_holds_the_lock_finish(few, tmp_path, writes, at):
    """zarr writes in a thread of its own: what it goes on with must not come after the lock is released."""
    store, keys = tmp_path / "s.zarr", []

    def before(key: str, count: int) -> None:
        keys.append(key)
        if key == at:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.2)

    writes["before"] = before
    with pytest.raises(KeyboardInterrupt):
        ingest(store, few[:2], workers=1)
    time.sleep(0.2)
    last = "raw/zarr.json" if at == "raw/led/c/0" else "raw/present/c/0/0"
    assert [key.startswith(".ztfzarr/lock") for key in keys[-2:]] == [False, True]
    assert keys[-2] == last
    assert not list((store / ".ztfzarr").glob("lock/raw/*"))
    writes["before"] = lambda key, count: None
    ingest(store, few[:2])
    assert_holds(store, few[:2])


# Headers


def test_a_header_longer_than_any_before(few, tmp_path):
    store, path = tmp_path / "s.zarr", tmp_path / few[3].name
    ingest(store, few[:3])
    with fits.open(few[3], disable_image_compression=True) as file:
        for i in range(300):
            file[0].header[f"EXTRA{i}"] = i
        file.writeto(path, checksum=True)
    assert ingest(store, [path]).refused == []
    assert ingest(store, few[4:]).refused == []
    assert metadata_faults(open_objects(store)) == []
    assert xr.open_zarr(store / "raw", chunks=None).sizes["byte"] == 3 * 14400
    header = ztfzarr.header(store, exposure_of(path), ccd_of(path))
    assert [header[f"EXTRA{i}"] for i in range(300)] == list(range(300))
    for other in (few[0], few[2], few[5]):
        assert "EXTRA0" not in ztfzarr.header(store, exposure_of(other), ccd_of(other))
        assert ztfzarr.header(store, exposure_of(other), ccd_of(other)) == fits.getheader(other)


# Metadata


def test_what_consolidates_the_root_is_undone(few, tmp_path):
    """One stray consolidation would freeze every reader of the root at that day's size."""
    store = tmp_path / "s.zarr"
    ingest(store, few[:2])
    root = json.loads((store / "zarr.json").read_text())
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(store)
    assert any("root holds consolidated metadata" in line for line in faults(store))
    ingest(store, few[2:4])
    assert faults(store) == []
    assert json.loads((store / "zarr.json").read_text()) == root


def test_a_file_is_no_store(tmp_path, few):
    (tmp_path / "s.zarr").write_text("a file")
    for act in (lambda: ingest(tmp_path / "s.zarr", few), lambda: ztfzarr.open_cube(tmp_path / "s.zarr")):
        with pytest.raises(StoreError, match=r"s.zarr is not a folder: expected that of a store"):
            act()


def test_another_zarr_is_no_store(tmp_path, few):
    zarr.create_array(tmp_path / "a.zarr", shape=(3,), dtype="f4")
    before = contents(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="another Zarr array"):
        ingest(tmp_path / "a.zarr", few[:1])
    assert contents(tmp_path / "a.zarr") == before


def test_two_who_make_a_store_of_different_shapes(tmp_path):
    objects = open_objects(tmp_path / "s.zarr")
    create_raw(objects, (70, 96), 30)
    with pytest.raises(StoreError, match=r"70 x 96 \+ 30 pixels, expected 80 x 96 \+ 30"):
        create_raw(objects, (80, 96), 30)


def exposure(number: int, **coordinates: object) -> Exposure:
    values = {name: variable.fill for name, variable in COORDINATES.items()}
    return Exposure(number, values | {"time": 1_600_000_000_000_000 + number} | coordinates)


def test_register_gives_each_exposure_one_row(tmp_path):
    objects = open_objects(tmp_path / "s.zarr")
    create_raw(objects, (70, 96), 30)
    assert register(objects, [exposure(1), exposure(2), exposure(1)]) == 2
    assert register(objects, [exposure(3), exposure(2)]) == 1
    assert register(objects, [exposure(3)]) == 0
    assert open_raw(objects)["exposure"][...].tolist() == [1, 2, 3]


def test_coordinates_that_do_not_fit_change_nothing(tmp_path):
    objects = open_objects(tmp_path / "s.zarr")
    create_raw(objects, (70, 96), 30)
    before = contents(tmp_path / "s.zarr")
    with pytest.raises(OverflowError):
        register(objects, [exposure(1, led=2**40)])
    assert contents(tmp_path / "s.zarr") == before


def test_a_writer_that_lost_the_lock_writes_no_more(few, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    filled = collected(store, few[:1], monkeypatch)
    before = contents(store)
    monkeypatch.setattr(lock_module, "LEASE", -1.0)
    objects = open_objects(store)
    with pytest.raises(StoreError, match="took over"):
        mark(objects, filled)
    with pytest.raises(StoreError, match="took over"):
        register(objects, [exposure(1)])
    assert contents(store) == before


# Durability


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_mark(few, tmp_path, monkeypatch):
    events = []
    fsync, link, replace = os.fsync, os.link, Path.replace

    def synced(handle):
        fsync(handle)
        events.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", lambda a, b: link(a, b) or events.append(("name", str(a), str(b))))
    monkeypatch.setattr(Path, "replace", lambda a, b: replace(a, b) and events.append(("name", str(a), str(b))))
    store = tmp_path / "s.zarr"
    ingest(store, few[:1], workers=1)
    marked = max(i for i, e in enumerate(events) if e[0] == "name" and "/raw/present/c/" in e[2])
    for i, event in enumerate(events):
        if event[0] == "name":
            assert ("sync", event[1]) in events[:i], "bytes first"
            assert ("sync", str(Path(event[2]).parent)) in events[i:], "then the name"
    for name in FILE_OWNED:
        path = shard(store, name, 0, ccd_of(few[0]))
        assert next(i for i, e in enumerate(events) if e[0] == "name" and e[2] == str(path)) < marked
        folders = [f for f in path.parents if f.is_relative_to(store / "raw" / name)]
        assert all(("sync", str(folder)) in events[:marked] for folder in folders), "and every folder on the way"


# Object stores


def test_through_an_object_store_the_store_is_the_same(few, tmp_path):
    """obstore's own folder store: create-if-absent, puts and listings as those of S3, and files to compare."""
    (tmp_path / "remote.zarr").mkdir()
    remote = RemoteObjects(f"file://{tmp_path}/remote.zarr")
    ingest(tmp_path / "local.zarr", few[:4], workers=1)
    assert ingest(remote, few[:2], workers=1).ingested == 2
    assert ingest(remote, few[:4], workers=1).ingested == 2
    assert ingest(remote, few[:4], workers=1).skipped == 4
    assert contents(tmp_path / "remote.zarr").keys() == contents(tmp_path / "local.zarr").keys()
    assert_holds(tmp_path / "remote.zarr", few[:4])
    files = present_files(open_raw(remote), Selection())
    assert [*metadata_faults(remote), *table_faults(remote), *shard_faults(remote, files)] == []
    assert not list(remote.entries(".ztfzarr"))
