"""Servers and disks that fail: work completes or is named, nothing is lost, nothing wrong is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from nights import SETTINGS, ran, remote_contents, without_times
from proxy import FAULTS, Plan, proxied
from s3 import S3
from stores import contents

from ztfzarr.store import lock as lock_module
from ztfzarr.store.objects import Objects, open_objects

# A server that spoils a tenth of the requests


def spoilt(s3: S3, plan: Plan, url: str, folders: Iterable[Path], commands: Sequence[str]) -> dict[str, bytes]:
    """Ingest folders and run commands after each, through a proxy that spoils requests; what is in the bucket."""
    with proxied(s3.endpoint, plan) as endpoint:
        arguments = [*S3(endpoint).arguments, "--storage-option", "timeout=0.5s", "-q"]
        for folder in folders:
            assert ran("ingest", url, folder, *arguments) == 0
            for command in commands:
                assert ran(command, url, *(f"--set={setting}" for setting in SETTINGS), *arguments) == 0
        assert ran("verify", url, *arguments) == 0
    objects = open_objects(url, s3.options)
    assert not list(objects.entries(".ztfzarr")), "no lock is left"
    return remote_contents(objects)


def test_a_tenth_of_the_requests_is_spoilt(s3, nights, tmp_path):
    """500, 503, resets, stalls and truncated answers, before and after the server has done what was asked."""
    plan = Plan(rate=0.1, stall=1.0)
    ours = spoilt(s3, plan, s3.place(), [nights[20200802]], ["bias"])
    assert plan.spoilt.total() > 15
    assert ran("ingest", tmp_path / "s.zarr", nights[20200802], "-q") == 0
    assert ran("bias", tmp_path / "s.zarr", *(f"--set={setting}" for setting in SETTINGS), "-q") == 0
    theirs = contents(tmp_path / "s.zarr")
    assert ours.keys() == theirs.keys()
    assert without_times(ours) == without_times(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_a_tenth_of_all_requests_is_spoilt(s3, nights, local, seed):
    """Two nights, all products."""
    plan = Plan(rate=0.1, stall=1.0, seed=seed)
    ours, theirs = spoilt(s3, plan, s3.place(), nights.values(), ["run"]), contents(local)
    assert plan.spoilt.total() > 50
    assert set(plan.spoilt) == set(FAULTS)
    assert ours.keys() == theirs.keys()
    assert without_times(ours) == without_times(theirs)


# Disks


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount something on a folder, or skip."""
    folder.mkdir(exist_ok=True)
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def failed(capfd: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line of a command that could not use its store."""
    capfd.readouterr()
    assert ran(*arguments) == 3
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_disk_full(nights, local, tmp_path, capfd):
    """Named, exit status 3; with room again the same command completes, and nothing differs."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        store = disk / "s.zarr"
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        assert "No space left on device" in failed(capfd, "ingest", store, *nights.values(), "-q")
        assert not list(store.glob(".ztfzarr/lock/*/*")), "no lock is left"
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        ballast.unlink()
        complete(store, nights, local)


def complete(store: Path, nights: dict[int, Path], undisturbed: Path) -> None:
    """Run the commands again, and compare."""
    assert ran("ingest", store, *nights.values(), "-q") == 0
    assert ran("verify", store, "-q") == 0
    ours, theirs = contents(store), contents(undisturbed)
    assert ours == {key: data for key, data in theirs.items() if key == "zarr.json" or key.startswith("raw/")}


def test_read_only_store(nights, local, tmp_path, capfd):
    """Everything that reads works; what writes says why it does not."""
    store = tmp_path / "s.zarr"
    shutil.copytree(local, store)
    shutil.rmtree(store / "raw/raw/c/0")
    with mounted(store, "--bind", str(store)) as frozen:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(store)], check=True)
        assert ran("ls", frozen) == 0
        assert ran("info", frozen) == 0
        assert ran("verify", frozen, "-q") == 1
        assert ran("restore", frozen, tmp_path / "out", "--night", "2020-08-02", "-q") == 0
        for command in (["run"], ["repair", *nights.values()], ["drop", "science", "v1", "--yes"]):
            assert "Read-only file system" in failed(capfd, command[0], frozen, *command[1:])


def test_permission_denied(nights, local, tmp_path, capfd):
    """A folder that nothing may be added to: by its immutable flag, which holds for root too."""
    store = tmp_path / "s.zarr"
    store.mkdir()
    store.chmod(0o500)
    if os.geteuid() == 0:
        if shutil.which("chattr") is None:
            pytest.skip("root, and no chattr here")
        done = subprocess.run(["chattr", "+i", str(store)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"root, and no immutable flag here: {done.stderr.strip()}")
    try:
        error = failed(capfd, "ingest", store, nights[20200802], "-q")
        assert "Operation not permitted" in error or "Permission denied" in error
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", str(store)], check=True)
        store.chmod(0o700)
    complete(store, nights, local)


# Locks, in a bucket and in a folder (tests/test_lock.py has their laws)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> Objects:
    return open_objects(tmp_path / "s.zarr") if request.param == "folder" else open_objects(s3.place(), s3.options)


def ingested(objects: Objects, folder: Path, timeout: float) -> subprocess.CompletedProcess:
    """Ingest in a process of its own."""
    options = [f"--storage-option={k}={v}" for k, v in getattr(objects, "_options", {}).items()]
    command = [sys.executable, "-m", "ztfzarr.cli", "ingest", objects.location, str(folder), "-q", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_a_holder_that_died_here(store, nights):
    """Taken over at once: its process is gone."""
    dead = json.loads(lock_module._identity()) | {"pid": 2**22 + 1}
    assert store.create(".ztfzarr/lock/raw/000000000001", json.dumps(dead).encode())
    done = ingested(store, nights[20200802], 60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_holder_elsewhere_after_its_lease(store, nights, monkeypatch):
    """By the clock of the store: what another machine left long ago is taken over."""
    elsewhere = json.loads(lock_module._identity()) | {"machine": "another", "host": "elsewhere"}
    assert store.create(".ztfzarr/lock/raw/000000000001", json.dumps(elsewhere).encode())
    monkeypatch.setattr(lock_module, "LEASE", 2.0)
    started = time.monotonic()
    with lock_module.lock(store, "raw", patience=30):
        assert time.monotonic() - started > 0.5, "while the lease lasted it was kept"


def test_a_live_holder_is_waited_for(store, nights):
    told: list[str] = []
    with lock_module.lock(store, "raw") as held:
        process = subprocess.Popen(
            [sys.executable, "-m", "ztfzarr.cli", "ingest", store.location, str(nights[20200802]), "-q"]
            + [f"--storage-option={k}={v}" for k, v in getattr(store, "_options", {}).items()],
            stderr=subprocess.PIPE,
            text=True,
        )
        told.append(process.stderr.readline())
        assert process.poll() is None
        assert not list(store.entries("raw")), "nothing is written meanwhile"
        held.check()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert told == [f"waiting for process {os.getpid()} on {os.uname().nodename}, which is writing to the store\n"]
