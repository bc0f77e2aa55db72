"""kill -9 at any instant, and two ingests at once: readers see no error and no wrong value, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from peers import same_bits
from stores import astropy_cube, plain_decoder_source

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
from ztfzarr.store.objects import open_objects
from ztfzarr.store.register import open_raw

# The command itself, marking every few files, so that marks are hit too.
COMMAND = """
import sys
import ztfzarr.ingest.run as run
import ztfzarr.reduce.run
run.MARK_FILES = 3
from ztfzarr.cli import main
"""
INGEST = COMMAND + "main(sys.argv[1:])"

# Gets Ctrl-C as the sixth file is filled: sent from outside, it comes too late where the machine is busy.
INTERRUPTED = """
import itertools, os, signal
import ztfzarr.ingest.run as run
fill_file, count = run.fill_file, itertools.count(1)
def interrupted(*args):
    if next(count) == 6:
        os.kill(os.getpid(), signal.SIGINT)
    return fill_file(*args)
run.fill_file = interrupted
"""

# Starts the command again and again, each in a process of its own that need not import everything anew.
SPAWNER = (
    COMMAND
    + """
import json, os
for line in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if pid == 0:
        main(json.loads(line))
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
)

# Reads over and over, plainly with the docs' decoder and through open_cube, until told to stop.
READER = """
import json, sys, warnings
from pathlib import Path
{decoder}
import ztfzarr
warnings.simplefilter("ignore")
store, truth, stop, seen = Path(sys.argv[1]), np.load(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rng = np.random.default_rng(1)
tally = dict(reads=0, present=0, errors=[], wrong=[])

def check(dataset, read):
    row, ccd = int(rng.integers(dataset.sizes["time"])), int(rng.choice([2, 11]))
    file = dataset.isel(time=row).sel(ccd=ccd)
    exposure, quadrant = int(file.exposure), int(rng.integers(1, 5))
    here = bool(file.present)
    pixels = read(file, quadrant)
    expected = truth[f"{{exposure}}-{{ccd}}"][quadrant - 1]
    right = np.array_equal(pixels, expected)
    tally["reads"] += 1
    tally["present"] += here
    # What is marked between the two looks may be there already; what is there is right.
    if not (right or (not here and np.isnan(pixels).all())):
        tally["wrong"].append([row, ccd, quadrant, here])

while not stop.exists():
    if not (store / "raw" / "zarr.json").exists():
        continue
    try:
        cube = ztfzarr.open_cube(store)
        plain = xr.open_zarr(str(store / "raw"), chunks=None)
        assert len(set(plain.exposure.values.tolist())) == plain.sizes["time"]
        assert not np.isnat(plain.time.values).any()
        for _ in range(3 if plain.sizes["time"] and cube.sizes["time"] else 0):
            check(cube, lambda file, quadrant: file.raw.sel(quadrant=quadrant).values)
            check(plain, image)
        if cube.sizes["time"] and int(cube.present.sum()) == len(truth.files):
            seen.touch()
    except Exception as error:
        tally["errors"].append(repr(error))
print(json.dumps(tally))
"""


def arguments(store: Path, *paths: Path) -> list[str]:
    return ["ingest", str(store), *map(str, paths), "-q", "--workers", "2"]


def ingest_command(store: Path, *paths: Path) -> list[str]:
    return [sys.executable, "-c", INGEST, *arguments(store, *paths)]


class Spawner:
    """Runs the command in processes that can be killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SPAWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Spawner:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)

    def start(self, store: Path, *paths: Path) -> int:
        """Start an ingest; return its process number."""
        return self.run(arguments(store, *paths))

    def run(self, command: list[str]) -> int:
        """Start a command; return its process number."""
        return self._ask(json.dumps(command))

    def status(self) -> int:
        """Exit status of the ingest, once it has ended; until this is asked its number stays its own."""
        return self._ask("")

    def _ask(self, line: str) -> int:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def truth_file(raw_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    truth = astropy_cube(raw_files)
    path = tmp_path_factory.mktemp("truth") / "truth.npz"
    files = {f"{e}-{ccd}": truth.raw[i, ccd - 1] for i, e in enumerate(truth.exposure) for ccd in (2, 11)}
    np.savez(path, **files)
    return path


class Reader:
    """A process that reads a store until the end of the block; its tally afterwards."""

    def __init__(self, store: Path, truth: Path) -> None:
        self.stop, self.seen = store.with_suffix(".stop"), store.with_suffix(".seen")
        code = READER.format(decoder=plain_decoder_source())
        command = [sys.executable, "-c", code, str(store), str(truth), str(self.stop), str(self.seen)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def __enter__(self) -> Reader:
        return self

    def sees_the_whole(self) -> None:
        """Wait until it has read the store with every file in it."""
        give_up = time.monotonic() + 60
        while not self.seen.exists():
            assert time.monotonic() < give_up, "the reader does not see the whole store"
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.stop.touch()
        output, _ = self.process.communicate(timeout=60)
        self.tally = json.loads(output)


def kill_at(spawner: Spawner, store: Path, folder: Path, seconds: float) -> bool:
    """Kill an ingest some time after it begins to write; say whether it was still running."""
    before = state(store)
    pid = spawner.start(store, folder)
    started = time.monotonic()
    while state(store) == before and time.monotonic() - started < 5:
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return spawner.status() == -signal.SIGKILL


def state(store: Path) -> float:
    """A number that changes when anything is written to a store."""
    folder = store / ".ztfzarr" / "partial"
    return folder.stat().st_mtime if folder.exists() else 0.0


def faults(store: Path) -> list[str]:
    objects = open_objects(store)
    files = present_files(open_raw(objects), Selection())
    return [*metadata_faults(objects), *table_faults(objects), *shard_faults(objects, files)]


def assert_complete(store: Path, undisturbed: Path) -> None:
    """All that the store holds decodes to what a store that nobody disturbed holds."""
    ours, theirs = ztfzarr.open_cube(store), ztfzarr.open_cube(undisturbed)
    assert set(ours.variables) == set(theirs.variables)
    for name in ours.variables:
        if ours[name].dtype == np.float32:
            assert same_bits(ours[name].values, theirs[name].values), name
        else:
            np.testing.assert_array_equal(ours[name].values, theirs[name].values, name)
    assert faults(store) == []


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(25, 1), pytest.param(100, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_killed_at_random_instants(night, night_store, truth_file, tmp_path, kills, seed):
    rng = random.Random(seed)
    count, tally = 0, {"reads": 0, "present": 0, "errors": [], "wrong": []}
    with Spawner() as spawner:
        for number in range(kills):
            if count == kills:
                break
            store = tmp_path / f"{number}.zarr"
            with Reader(store, truth_file) as reader:
                running = True
                while running and count < kills:
                    running = kill_at(spawner, store, night / "raw", rng.uniform(0, 0.5))
                    count += running
                spawner.start(store, night / "raw")
                assert spawner.status() == 0
                reader.sees_the_whole()
            tally = {key: tally[key] + reader.tally[key] for key in tally}
            assert_complete(store, night_store)
    assert (tally["errors"], tally["wrong"]) == ([], [])
    assert count == kills
    assert 3 < tally["present"] < tally["reads"]


def test_two_ingests_at_once(raw_files, night_store, truth_file, tmp_path):
    """Of overlapping files: one waits for the other where it must, both succeed, nothing is lost."""
    store = tmp_path / "s.zarr"
    store.mkdir()
    with Reader(store, truth_file) as reader:
        commands = [ingest_command(store, *files) for files in (raw_files[:26], raw_files[:9:-1])]
        processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
        outcomes = [(p.communicate(timeout=100)[1], p.returncode) for p in processes]
    assert [status for _, status in outcomes] == [0, 0], outcomes
    assert (reader.tally["errors"], reader.tally["wrong"]) == ([], [])
    assert_complete(store, night_store)


def test_interrupted_ingest_marks_what_it_filled(night, night_store, tmp_path):
    """Ctrl-C: exit status 130, no lock left, what was done stays."""
    store = tmp_path / "s.zarr"
    command = [sys.executable, "-c", INTERRUPTED + INGEST, *arguments(store, night / "raw")]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=100)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == b"ztfzarr: interrupted; run the command again to finish"
    assert not list((store / ".ztfzarr").glob("lock/raw/*"))
    assert faults(store) == []
    assert 0 < int(ztfzarr.open_cube(store).present.sum()) < 36
    assert subprocess.run(ingest_command(store, night / "raw"), timeout=100).returncode == 0
    assert_complete(store, night_store)


def test_full_disk_is_named_and_the_rerun_finishes(night, raw_files, night_store, tmp_path):
    """No file larger than 14 kB, as if the disk were full: shards of pixels do not fit."""
    store = tmp_path / "s.zarr"
    ingest(store, [path for path in raw_files if "_c02_" in path.name])
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (14_000, 14_000))\n"
    command = [sys.executable, "-c", limit + INGEST, *arguments(store, night / "raw")]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=100, text=True)
    assert done.returncode == 3
    assert re.fullmatch(r"ztfzarr: .*/s.zarr/.ztfzarr/partial/.*: File too large\n", done.stderr)
    assert not [path for path in (store / ".ztfzarr").rglob("*") if path.is_file()]
    assert faults(store) == []
    assert int(ztfzarr.open_cube(store).present.sum()) == 18
    assert subprocess.run(ingest_command(store, night / "raw"), timeout=100).returncode == 0
    assert_complete(store, night_store)
