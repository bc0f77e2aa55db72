"""The lock: one holder at a time, none for ever; and the verbs of object spaces that it stands on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ztfzarr.errors import StoreError
from ztfzarr.store import lock as lock_module
from ztfzarr.store import objects as objects_module
from ztfzarr.store.lock import LEASE, lock
from ztfzarr.store.objects import LocalObjects, Objects, open_objects
from ztfzarr.store.remote import RemoteObjects, _client

FOLDER = ".ztfzarr/lock/raw"


@pytest.fixture(params=["local", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    _client.cache_clear()  # each test has a memory of its own
    return LocalObjects(tmp_path / "s.zarr") if request.param == "local" else RemoteObjects("memory://")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(lock_module, "POLL", 0.02)


def left(objects: Objects) -> list[str]:
    """Lock objects and clock probes, of which none may remain."""
    return [e.key for e in objects.entries(".ztfzarr") if not e.key.startswith(".ztfzarr/partial/")]


def leave(objects: Objects, number: int, **identity: object) -> str:
    """Leave a lock object as a holder who is gone does; of this live process but for what is said."""
    key = f"{FOLDER}/{number:012d}"
    objects.create(key, json.dumps(json.loads(lock_module._identity()) | identity).encode())
    return key


ELSEWHERE = {"host": "elsewhere", "machine": "another kernel"}


# Exclusion


def count_up(objects: Objects, counter: Path) -> None:
    with lock(objects, "raw") as held:
        before = int(counter.read_text())
        time.sleep(0.002)
        held.check()
        counter.write_text(str(before + 1))


def test_threads_hold_it_one_at_a_time(objects, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: count_up(objects, counter), range(80)))
    assert counter.read_text() == "80"
    assert left(objects) == []


COUNTING = """
import sys, time
from pathlib import Path
from ztfzarr.store import lock as lock_module
from ztfzarr.store.objects import open_objects

lock_module.POLL = 0.02
counter = Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with lock_module.lock(open_objects(sys.argv[1]), "raw") as held:
        before = int(counter.read_text())
        time.sleep(0.002)
        held.check()
        counter.write_text(str(before + 1))
"""


def test_processes_hold_it_one_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTING, str(tmp_path / "s.zarr"), str(counter), "25"]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [p.wait(timeout=100) for p in processes] == [0] * 4
    assert counter.read_text() == "100"
    assert left(LocalObjects(tmp_path / "s.zarr")) == []


def test_a_live_holder_is_waited_for(objects):
    told, entered, order = [], threading.Event(), []

    def hold() -> None:
        with lock(objects, "raw"):
            entered.set()
            time.sleep(0.4)
            order.append("first")

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    with lock(objects, "raw", waiting=told.append):
        order.append("second")
    holder.join()
    assert order == ["first", "second"]
    assert told == [f"process {os.getpid()} on {os.uname().nodename}"]


def test_patience_ends(objects):
    with (
        lock(objects, "raw"),
        pytest.raises(StoreError, match=f"locked by process {os.getpid()} .*: waited 0 s"),
        lock(objects, "raw", patience=0.1),
    ):
        pytest.fail("held twice")
    assert left(objects) == []


def test_locks_of_other_names_are_others(objects):
    with lock(objects, "raw"), lock(objects, "science", patience=0.0):
        pass


# Holders who are gone


def test_a_killed_process_is_taken_over_at_once(tmp_path):
    """Also while its entry remains because nobody has waited for it."""
    code = """
import sys, time
from ztfzarr.store.lock import lock
from ztfzarr.store.objects import open_objects
with lock(open_objects(sys.argv[1]), "raw"):
    print("held", flush=True)
    time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    objects = open_objects(tmp_path)
    with pytest.raises(StoreError, match=f"process {process.pid} "), lock(objects, "raw", patience=0.0):
        pass
    process.kill()
    time.sleep(0.2)
    try:
        assert Path(f"/proc/{process.pid}").exists(), "a zombie"
        with lock(objects, "raw", patience=1.0) as held:
            held.check()
    finally:
        process.stdout.close()
        process.wait()
    assert left(objects) == []


def test_a_process_number_used_again_is_another_process(objects):
    leave(objects, 1, start="0")
    with lock(objects, "raw", patience=0.0) as held:
        assert held.key.endswith("/000000000002")
        assert [e.key for e in objects.entries(FOLDER)] == [held.key]
    assert left(objects) == []


def test_other_machines_keep_it_for_the_lease(objects):
    """Even under this host's name and the number of a process that is dead here: containers share names."""
    leave(objects, 1, **ELSEWHERE, pid=2**22 + 1)
    leave(objects, 2, machine="another kernel", pid=2**22 + 1)
    told = []
    with pytest.raises(StoreError, match="waited"), lock(objects, "raw", waiting=told.append, patience=0.1):
        pass
    assert told == [f"process {2**22 + 1} on {os.uname().nodename}"]


def test_other_machines_lose_it_after_the_lease(objects, monkeypatch):
    leave(objects, 1, **ELSEWHERE)
    monkeypatch.setattr(lock_module, "LEASE", 0.5)
    started = time.monotonic()
    with lock(objects, "raw", patience=5.0):
        assert time.monotonic() - started > 0.4
    assert left(objects) == []


def test_the_lease_is_by_the_clock_of_the_store(tmp_path, monkeypatch):
    """Not by this machine's, which may be days off."""
    objects = LocalObjects(tmp_path)
    key = leave(objects, 1, **ELSEWHERE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    os.utime(tmp_path / key, (now - LEASE + 60,) * 2)
    with pytest.raises(StoreError, match="elsewhere"), lock(objects, "raw", patience=0.1):
        pass
    monkeypatch.setattr(time, "time", lambda: now - 1e6)
    os.utime(tmp_path / key, (now - LEASE - 60,) * 2)
    with lock(objects, "raw", patience=0.1):
        pass


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"[]", b'{"host": "x"}'])
def test_a_damaged_lock_object_lasts_its_lease(tmp_path, content):
    objects = LocalObjects(tmp_path)
    objects.create(f"{FOLDER}/{1:012d}", content)
    with pytest.raises(StoreError, match="waited"), lock(objects, "raw", patience=0.1):
        pass
    os.utime(tmp_path / FOLDER / f"{1:012d}", (time.time() - LEASE - 60,) * 2)
    with lock(objects, "raw", patience=0.1):
        pass


def test_who_comes_late_to_a_stale_lock_steps_back(objects, monkeypatch):
    """Between its look and its lock another took the stale one over and ended, and a third began from number 1."""
    stale, create = leave(objects, 1, start="0"), type(objects).create

    def late(self, key, content):
        monkeypatch.setattr(type(objects), "create", create)
        objects.delete(stale)
        leave(objects, 1)
        return create(self, key, content)

    monkeypatch.setattr(type(objects), "create", late)
    with pytest.raises(StoreError, match=f"locked by process {os.getpid()} "), lock(objects, "raw", patience=0.3):
        pass
    assert left(objects) == [f"{FOLDER}/{1:012d}"]


# Holders who have lost it


def test_a_taken_over_holder_is_told(objects, monkeypatch):
    monkeypatch.setattr(lock_module, "STEP_BACK", 0.2)
    with lock(objects, "raw") as held:
        held.check()
        newer = leave(objects, 2, **ELSEWHERE)
        with pytest.raises(StoreError, match="took over"):
            held.check()
    assert left(objects) == [newer]


def test_a_deleted_lock_is_lost(objects):
    with lock(objects, "raw") as held:
        objects.delete(held.key)
        with pytest.raises(StoreError, match="took over"):
            held.check()


def test_a_lease_that_ran_out_is_lost(objects, monkeypatch):
    monkeypatch.setattr(lock_module, "LEASE", 0.1)
    with lock(objects, "raw") as held:
        time.sleep(0.15)
        with pytest.raises(StoreError, match="took over"):
            held.check()


def test_a_number_used_again_is_not_released(objects):
    with lock(objects, "raw") as held:
        objects.delete(held.key)
        others = leave(objects, 1, **ELSEWHERE)
        assert others == held.key
    assert left(objects) == [others]


def test_who_only_looked_in_is_no_reason_to_stop(objects):
    """A writer who saw the lock just released takes a higher number, sees the holder and steps back."""
    with lock(objects, "raw") as held:
        visitor = leave(objects, 2)
        threading.Timer(0.3, objects.delete, [visitor]).start()
        held.check()
        assert [e.key for e in objects.entries(FOLDER)] == [held.key]


def test_a_visitor_who_died_is_no_reason_to_stop(objects):
    with lock(objects, "raw") as held:
        leave(objects, 2, start="0")
        held.check()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_release_it(objects, error):
    with pytest.raises(error), lock(objects, "raw"):
        raise error
    assert left(objects) == []


def test_an_interrupt_while_it_is_taken_releases_it(objects, monkeypatch):
    """Else this live process would hold it until it ends: a notebook for days."""

    def interrupted(space: Objects, folder: str) -> list:
        if list(space.entries(folder)):
            raise KeyboardInterrupt
        return []

    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "_locks", interrupted)
        with pytest.raises(KeyboardInterrupt), lock(objects, "raw"):
            pytest.fail("held")
    assert left(objects) == []


# The verbs


def test_create_has_one_winner(objects):
    with ThreadPoolExecutor(16) as pool:
        for round_ in range(30):
            won = list(pool.map(lambda i, r=round_: objects.create(f"a/{r}", b"%d" % i), range(16)))
            assert sum(won) == 1
            assert objects.get(f"a/{round_}") == b"%d" % won.index(True)


def test_a_link_whose_answer_was_lost_is_ours(tmp_path, monkeypatch):
    link = os.link

    def repeated(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", repeated)
    assert LocalObjects(tmp_path).create("a", b"mine")
    monkeypatch.setattr(os, "link", link)
    assert not LocalObjects(tmp_path).create("a", b"other")


def test_folders_may_be_pruned_while_others_write(tmp_path):
    """Every delete prunes the folders that it leaves empty, between another's making and using them."""
    objects = LocalObjects(tmp_path)

    def come_and_go(i: int) -> None:
        for _ in range(60):
            assert objects.create(f"a/b/c/{i}", b"x")
            objects.put(f"a/b/{i}", b"y")
            objects.delete(f"a/b/c/{i}")
            objects.delete(f"a/b/{i}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / ".ztfzarr" / "partial").iterdir()) == []


@pytest.mark.parametrize("verb", ["put", "create"])
def test_a_folder_that_is_pruned_is_made_again(tmp_path, monkeypatch, verb):
    pruned = []

    def make_and_prune(folder: Path) -> None:
        make(folder)
        if folder.name == "b" and len(pruned) < 3:
            folder.rmdir()
            pruned.append(folder)

    make = objects_module._make_folder
    monkeypatch.setattr(objects_module, "_make_folder", make_and_prune)
    getattr(LocalObjects(tmp_path), verb)("a/b/x", b"1")
    assert (tmp_path / "a/b/x").read_bytes() == b"1"
    assert len(pruned) == 3


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / ".ztfzarr").write_text("")
    with pytest.raises(OSError, match="exists"), lock(LocalObjects(tmp_path), "raw", patience=0.5):
        pass


def test_what_the_verbs_return(objects):
    objects.put("a/b", b"0123456789")
    objects.put("a/c/d", b"")
    assert objects.get("a/b") == b"0123456789"
    assert objects.get_ranges("a/b", [(3, 4), (0, 1)]) == [b"3456", b"0"]
    assert objects.get_tail("a/b", 3) == b"789"
    assert objects.get_tail("a/b", 30) == b"0123456789"
    assert sorted((e.key, e.size) for e in objects.entries("a")) == [("a/b", 10), ("a/c/d", 0)]
    assert all(abs(e.modified - time.time()) < 60 for e in objects.entries("a"))
    objects.put("a/b", b"new")
    assert objects.get("a/b") == b"new"
    objects.delete("a/b")
    objects.delete("a/b")
    for read in (objects.get, lambda key: objects.get_tail(key, 3), lambda key: objects.get_ranges(key, [(0, 1)])):
        with pytest.raises(FileNotFoundError):
            read("a/b")
    assert list(objects.entries("none")) == []
