"""The round trips, one after the other, that reading an object store takes: at most twice as many as needed.

The proxy adds 0.25 s to each request, so that only those count as a sequence that wait for each other.
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from nights import remote_contents
from peers import same_bits
from proxy import Plan, Request, in_sequence, proxied
from s3 import S3
from stores import ROOT, contents

import ztfzarr
from ztfzarr.export.stamps import stamps
from ztfzarr.reduce.versions import drop
from ztfzarr.store.group import existing_document
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.shard import read_chunks, shard_format
from ztfzarr.store.template import arrays_of

sys.path.insert(0, str(ROOT / "benchmarks"))
import latency

EXPOSURES = 5
INSIDE = {"y": slice(30, 40), "x": slice(50, 60)}


@pytest.fixture(scope="module")
def url(s3: S3) -> str:
    """Five exposures of a CCD, with science, of which only a quadrant is not empty. Never changed."""
    url = s3.place()
    latency.build(open_objects(url, s3.options), EXPOSURES, (700, 600))
    latency.build_science(open_objects(url, s3.options), EXPOSURES)
    return url


@pytest.fixture
def plan() -> Plan:
    return Plan(delay=0.25)


@pytest.fixture
def slow_s3(s3: S3, plan: Plan):
    with proxied(s3.endpoint, plan) as endpoint:
        yield S3(endpoint)


def counted(plan: Plan, act: Callable[[], object]) -> tuple[object, list[Request]]:
    plan.log.clear()
    result = act()
    return result, list(plan.log)


def cutout(cube: xr.Dataset, name: str, **where: slice) -> np.ndarray:
    return cube[name].sel(ccd=6, quadrant=2).isel(INSIDE | where).values


@pytest.mark.parametrize("opener", ["open_cube", "engine"])
def test_opening_and_the_first_cutout(url, s3, slow_s3, plan, opener):
    """zarr.json, then labels at once; present, then all but the chunks, then these: 3 trips, 4 requests a file."""
    openers = {
        "open_cube": lambda: ztfzarr.open_cube(url, storage_options=slow_s3.options),
        "engine": lambda: xr.open_dataset(url, engine="ztfzarr", storage_options=slow_s3.options),
    }
    cube, opening = counted(plan, openers[opener])
    assert len(opening) == 7
    assert in_sequence(opening) <= 2 * 2
    values, first = counted(plan, lambda: cutout(cube, "raw"))
    counts = Counter(request.path.split("/")[4] for request in first)
    assert counts == {"present": 1, "zdither": 1, "raw": 2 * EXPOSURES, "zscale": EXPOSURES, "zzero": EXPOSURES}
    assert in_sequence(first) <= 2 * 3
    again, second = counted(plan, lambda: cutout(cube, "raw"))
    assert len(second) == 2 * EXPOSURES
    assert in_sequence(second) <= 2 * 2
    assert np.isfinite(values).all()
    assert same_bits(values, again)
    whole = len(open_objects(url, s3.options).get("raw/raw/c/0/5/0/0/0"))
    assert sum(request.size for request in first if "/raw/raw/" in request.path) < EXPOSURES * whole / 8


def test_a_cutout_across_chunks_takes_no_more_trips(url, slow_s3, plan):
    """The chunks of a shard are asked for together: no run of them waits for another."""
    cube = ztfzarr.open_cube(url, storage_options=slow_s3.options)
    values, log = counted(plan, lambda: cutout(cube, "raw", y=slice(200, 400)))
    assert in_sequence(log) <= 2 * 3
    assert np.isfinite(values).all()


def test_stored_science(url, slow_s3, plan):
    """By ``open_version`` and by xarray alone: a shard's index and its chunk, of all exposures at once."""
    ours, opening = counted(plan, lambda: open_version(open_objects(url, slow_s3.options), "science"))
    assert in_sequence(opening) <= 2 * 2
    options = slow_s3.plain | {"config_kwargs": {"max_pool_connections": 64}}
    with zarr.config.set({"async.concurrency": 64}):
        values, log = counted(plan, lambda: cutout(ours, "science"))
        assert (len(log), in_sequence(log) <= 2 * 2) == (2 * EXPOSURES, True)
        plain = xr.open_zarr(f"{url}/science/v1", chunks=None, zarr_format=3, storage_options=options)
        theirs, log = counted(plan, lambda: cutout(plain, "science"))
    assert (len(log), in_sequence(log) <= 2 * 2) == (2 * EXPOSURES, True)
    assert same_bits(values, theirs)
    assert values.std() == pytest.approx(10, rel=0.1)


def test_science_made_as_it_is_read(s3: S3, local: Path, slow_s3, plan):
    """Opening: documents, labels, coordinates. A cutout: masters' tables, present, indices, chunks."""
    url = s3.place()
    objects = open_objects(url, s3.options)
    for key, data in contents(local).items():
        objects.put(key, data)
    assert remote_contents(objects).keys() == contents(local).keys()
    cube, opening = counted(plan, lambda: ztfzarr.open_science(url, storage_options=slow_s3.options))
    assert in_sequence(opening) <= 2 * 3
    part = {"quadrant": 1, "y": slice(5, 30), "x": slice(9, 40)}
    values, log = counted(plan, lambda: cube.science.sel(ccd=2).isel(part).values)
    assert in_sequence(log) <= 2 * 4
    masters = Counter(r.path for r in log if "/bias/v1/bias/" in r.path or "/flat/v1/flat/" in r.path)
    assert max(masters.values()) <= 2, "exposures share their masters"
    expected = ztfzarr.open_science(local).science.sel(ccd=2).isel(part).values
    assert same_bits(values, expected)
    assert len(values) == 3


def test_chunks_that_lie_apart_are_asked_for_together(url, s3, slow_s3, plan):
    objects: Objects = open_objects(url, slow_s3.options)
    form = shard_format(arrays_of_raw(url, s3)["raw"])
    positions = [(0, 0, q, 0, 0) for q in (0, 3)]
    found, log = counted(plan, lambda: read_chunks(objects, "raw/raw/c/0/5/0/0/0", form, positions))
    assert found is not None
    assert list(found) == positions
    assert in_sequence(log) == 2
    whole = read_chunks(open_objects(url, s3.options), "raw/raw/c/0/5/0/0/0", form, list(np.ndindex(form.grid)))
    assert whole is not None
    assert [found[p] == whole[p] for p in positions] == [True, True]


def arrays_of_raw(url: str, s3: S3) -> dict[str, dict[str, object]]:
    return arrays_of(existing_document(open_objects(url, s3.options)))


def test_what_is_held_for_opening_does_not_travel(url, s3):
    """Pickles of a selection go to workers with each task: without the labels, and readable there."""
    cube = ztfzarr.open_cube(url, storage_options=s3.options)
    data = pickle.dumps(cube.raw.isel(time=0, y=0, x=0, quadrant=1))
    store = open_objects(url, s3.options).zarr_store(read_only=True, path="raw", first={"y/c/0": None, "no": None})
    assert set(store.held) == {"y/c/0"}
    assert pickle.loads(pickle.dumps(store)).held == {}
    assert same_bits(
        pickle.loads(data).sel(ccd=6).values, cube.raw.isel(time=0, y=0, x=0, quadrant=1).sel(ccd=6).values
    )


def test_stamps_are_cut_together(url, s3, slow_s3, plan):
    """Index and chunk of a plane of an exposure; of all exposures and planes at once."""
    rows = ztfzarr.open_cube(url, storage_options=s3.options)["exposure"].values
    place = {"ccd": 6, "quadrant": 2, "y": 35.2, "x": 54.9}
    matches = xr.Dataset(
        {"exposure": ("match", rows)} | {n: ("match", np.full(EXPOSURES, v)) for n, v in place.items()}
    )
    found, log = counted(plan, lambda: list(stamps(open_objects(url, slow_s3.options), matches, 10)))
    assert [int(stamp.match.exposure) for stamp in found] == rows.tolist()
    chunks = [r for r in log if "/c/" in r.path and "/science/v1/science/" in r.path]
    assert len(log) < 20 + 4 * EXPOSURES
    assert len(chunks) == 2 * EXPOSURES
    assert in_sequence(chunks) <= 2 * 2
    science = open_version(open_objects(url, s3.options), "science").science
    assert same_bits(
        np.array([s.images["science"].values for s in found]), cutout(science.to_dataset(), "science")
    )


def test_dropping_lists_the_version_once_and_deletes_together(local: Path, s3: S3, slow_s3, plan):
    url = s3.place()
    for key, data in contents(local).items():
        open_objects(url, s3.options).put(key, data)
    count = len(list(open_objects(url, s3.options).entries("science/v1")))
    assert count > 30
    plan.log.clear()
    assert drop(open_objects(url, slow_s3.options), "science", "v1") == count
    lists = [r for r in plan.log if r.method == "GET" and "list-type" in r.path and "delimiter" not in r.path]
    assert sum("science%2Fv1" in r.path or "science/v1" in r.path for r in lists) == 1
    deleted = [r for r in plan.log if r.method == "DELETE"]
    assert in_sequence(deleted) < count / 4
    assert not list(open_objects(url, s3.options).entries("science"))
