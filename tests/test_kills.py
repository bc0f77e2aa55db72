"""kill -9 of ingest and of run, on disk and in a bucket, while a plain reader loops.

Of ingest on disk: tests/test_crash.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from nights import SETTINGS, remote_contents, without_times
from s3 import S3
from stores import contents, plain_decoder_source
from test_crash import Spawner

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.store.check import Selection, metadata_faults, present_files, shard_faults, table_faults
from ztfzarr.store.group import open_raw
from ztfzarr.store.objects import Objects, open_objects

LONGEST = 4.0  # seconds from start to kill; a command takes one to ten, as busy as the machine is

# Reads over and over by nothing but xarray and the decoder of the docs, until told to stop.
READER = """
import json, sys, warnings
from pathlib import Path
{decoder}
warnings.simplefilter("ignore")
options, stop = json.loads(sys.argv[1]), Path(sys.argv[2])
truth = dict(np.load(sys.argv[3]))
rng = np.random.default_rng(1)
tally = dict(reads=0, present=0, errors=[], wrong=[])

def opened(store, group):
    try:
        return xr.open_zarr(f"{{store}}/{{group}}", chunks=None, zarr_format=3, storage_options=options)
    except FileNotFoundError:
        return None  # not made yet

def check(store, group):
    dataset = opened(store, group)
    if dataset is None or not dataset.present.size:
        return
    here = dataset.present.values == 1
    if not here.any():
        return
    places = np.argwhere(here)
    place = places[rng.integers(len(places))]
    one = dataset.isel(dict(zip(dataset.present.dims, place.tolist())))
    row = int(one.exposure if "exposure" in one.coords else one.night)
    key = f"{{group}} {{row}} " + " ".join(map(str, place[1:].tolist()))
    if group == "raw":
        quadrant = int(rng.integers(1, 5))
        right = np.array_equal(image(one, quadrant), truth[key][quadrant - 1], equal_nan=True)
    else:
        right = np.array_equal(one[group.split("/")[0]].values, truth[key], equal_nan=True)
    tally["reads"] += 1
    tally["present"] += 1
    if not right:
        tally["wrong"].append(key)

store = sys.stdin.readline().strip()
while not stop.exists():
    for group in ("raw", "bias/v1", "flat/v1", "science/v1"):
        try:
            check(store, group)
        except Exception as error:
            tally["errors"].append(f"{{group}}: {{error!r}}"[:500])
print(json.dumps(tally))
"""


@pytest.fixture(scope="module")
def truth(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels of every entry of the undisturbed store, by group, row and the other dimensions."""
    cube, values = ztfzarr.open_cube(local), {}
    for row, exposure in enumerate(cube.exposure.values.tolist()):
        values[f"raw {exposure} 1"] = cube.raw[row].sel(ccd=2).values
    for group in ("bias/v1", "flat/v1", "science/v1"):
        product = zarr.open_group(local / group, mode="r")
        rows = product["exposure" if group.startswith("science") else "night"][...].tolist()
        for place in map(tuple, np.argwhere(product["present"][...] == 1).tolist()):
            key = f"{group} {rows[place[0]]} " + " ".join(map(str, place[1:]))
            values[key] = np.asarray(product[group.split("/")[0]][place])
    path = tmp_path_factory.mktemp("truth") / "truth.npz"
    np.savez(path, **values)
    return path


class Reader:
    """A process that reads a store until the end of the block; its tally afterwards."""

    def __init__(self, location: str, options: dict, truth: Path, folder: Path) -> None:
        self.stop = folder / f"{random.random()}.stop"
        code = READER.format(decoder=plain_decoder_source())
        command = [sys.executable, "-c", code, json.dumps(options or None), str(self.stop), str(truth)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(f"{location}\n")
        self.process.stdin.flush()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.touch()
        self.tally = json.loads(self.process.communicate(timeout=60)[0])


@dataclass
class Place:
    """Where stores are made: on disk or in a bucket."""

    s3: S3 | None
    folder: Path

    def new(self) -> Objects:
        if self.s3 is not None:
            return open_objects(self.s3.place(), self.s3.options)
        return open_objects(self.folder / f"{len(list(self.folder.iterdir()))}.zarr")

    def contents(self, objects: Objects) -> dict[str, bytes]:
        return contents(Path(objects.location)) if self.s3 is None else remote_contents(objects)


def arguments(command: str, objects: Objects, place: Place, nights: dict[int, Path]) -> list[str]:
    given = place.s3.arguments if place.s3 else []
    if command == "ingest":
        return ["ingest", objects.location, *map(str, nights.values()), "-q", "--workers", "2", *given]
    return ["run", objects.location, *(f"--set={s}" for s in SETTINGS), "-q", "--workers", "2", *given]


def killed(spawner: Spawner, command: list[str], seconds: float) -> bool:
    """Kill a command some time after its start; say whether it was still running."""
    pid = spawner.run(command)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    status = spawner.status()
    assert status in (0, -signal.SIGKILL)
    return status == -signal.SIGKILL


def faults(objects: Objects) -> list[str]:
    files = present_files(open_raw(objects), Selection())
    return [*metadata_faults(objects), *table_faults(objects), *shard_faults(objects, files)]


MANY = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("where", "command", "kills"),
    [
        ("bucket", "run", 2),
        pytest.param("bucket", "run", 20, marks=MANY),
        pytest.param("bucket", "ingest", 20, marks=MANY),
        pytest.param("disk", "run", 20, marks=MANY),
    ],
)
def test_killed_at_random_instants(where, command, kills, s3, nights, local, truth, tmp_path, tmp_path_factory):
    place = Place(s3 if where == "bucket" else None, tmp_path)
    rng = random.Random(f"{where} {command} {kills}")
    folder = tmp_path_factory.mktemp("reader")
    count, tally = 0, {"reads": 0, "present": 0, "errors": [], "wrong": []}
    with Spawner() as spawner:
        while count < kills:
            objects = place.new()
            if command == "run":
                assert not ingest(objects, list(nights.values())).refused
            commands = arguments(command, objects, place, nights)
            with Reader(objects.location, place.s3.plain if place.s3 else {}, truth, folder) as reader:
                running = True
                while running and count < kills:
                    running = killed(spawner, commands, rng.uniform(0, LONGEST))
                    count += running
                spawner.run(commands)
                assert spawner.status() == 0
                time.sleep(1.0)  # the reader sees the whole, also on a busy machine
            tally = {key: tally[key] + reader.tally[key] for key in tally}
            compare(place, objects, local, command)
    assert (tally["errors"], tally["wrong"]) == ([], [])
    assert tally["present"] > 3


def compare(place: Place, objects: Objects, local: Path, command: str) -> None:
    """What is in the store is what an undisturbed one holds."""
    assert faults(objects) == []
    theirs = without_times(contents(local))
    if command == "ingest":
        theirs = {key: data for key, data in theirs.items() if key == "zarr.json" or key.startswith("raw/")}
    ours = without_times(place.contents(objects))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if ours[key] != theirs[key]] == []
