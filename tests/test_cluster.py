"""Reductions on a real dask cluster of several processes, one of which is killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_products import CCDS, FIRST, SHAPE, call, opened

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.simulate import simulate_night
from ztfzarr.store.objects import open_objects
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import find_version

# distributed warns of ports and of what we kill
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    simulate_night(folder, night=FIRST, ccds=CCDS, shape=SHAPE, bias=14, flats=3, science=6)
    assert not ingest(folder / "night.zarr", [folder / "raw"]).refused
    return folder / "night.zarr"


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(shutil.copytree(store, tmp_path_factory.mktemp("threads") / "night.zarr"))
    assert call("run", path, "-q") == 0
    return path


@pytest.fixture
def cluster() -> Iterator[object]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as made:
        yield made


def assert_same(one: Path, other: Path) -> None:
    for kind in ("bias", "flat", "science"):
        first, second = opened(one, f"{kind}/v1"), opened(other, f"{kind}/v1")
        version = find_version(open_objects(one), kind, "v1")
        assert version is not None
        for name in arrays_of(version.document):
            if name != "provenance" and name in first:
                floats = first[name].dtype.kind == "f"
                assert np.array_equal(first[name].values, second[name].values, equal_nan=floats), name


def test_the_same_as_in_threads(store: Path, undisturbed: Path, cluster: object, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "night.zarr"))
    assert call("run", path, "--scheduler", cluster.scheduler_address, "-q") == 0
    assert_same(path, undisturbed)


def test_workers_that_are_killed(store: Path, undisturbed: Path, cluster: object, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store, tmp_path / "night.zarr"))
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        """Kill a worker a second; its nanny starts another."""
        while not stop.wait(1.0) and len(killed) < 6:
            pids = [w.pid for w in cluster.workers.values() if w.pid]
            os.kill(pids[len(killed) % len(pids)], signal.SIGKILL)
            killed.append(pids[len(killed) % len(pids)])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        status = call("run", path, "--scheduler", cluster.scheduler_address, "-q")
    finally:
        stop.set()
        killer.join()
    assert killed
    assert status in (0, 1)  # an entry whose workers died each time is refused, and made by
    if status:
        time.sleep(2)
        assert call("run", path, "-q") == 0  # the next run
    assert_same(path, undisturbed)


@pytest.fixture(scope="module")
def dithers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with masters and three dithers of a field, whose truth has the catalogue."""
    folder = tmp_path_factory.mktemp("dithers")
    simulate_night(folder, night=FIRST, ccds=(2,), shape=(180, 150), bias=13, flats=3, science=0, starflat=3)
    files = [p for p in (folder / "raw").rglob("*.fits.fz") if p.name[29] != "f" or "_zr_" in p.name]
    assert not ingest(folder / "night.zarr", files).refused
    for kind in ("bias", "flat"):
        assert call(kind, folder / "night.zarr", "-q") == 0
    return folder / "night.zarr"


@pytest.mark.parametrize("command", ["stars", "starflat"])
def test_star_tables_are_those_of_threads(
    dithers: Path, cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Made on workers alone: threads of this process would fail."""
    catalogue = next((dithers.parent / "truth").glob("*_catalogue.fits"))
    threads, workers = (
        Path(shutil.copytree(dithers, tmp_path / name)) for name in ("threads.zarr", "workers.zarr")
    )
    assert call("stars", threads, "--catalogue", catalogue, "-q") == 0
    monkeypatch.setattr("ztfzarr.reduce.stars.threads_for_exposures", None)
    options = ["--scheduler", cluster.scheduler_address, "--catalogue", catalogue, "-q"]
    # So few and small dithers make no starflat: the fit refuses them, and the tables are there.
    assert call(command, workers, *options) == (0 if command == "stars" else 1)
    expected = ztfzarr.open_stars(threads)
    assert len(expected) > 30
    assert expected["exposure"].nunique() == 3
    pd.testing.assert_frame_equal(ztfzarr.open_stars(workers), expected)
    assert opened(workers, "stars/v1")["present"].sum() == 3


@pytest.mark.parametrize("command", ["stars", "starflat"])
def test_stars_without_a_scheduler(dithers: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, dithers, "--scheduler", "tcp://127.0.0.1:9", "-q") == 3
    assert "no scheduler at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_no_scheduler(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", store, "--scheduler", "tcp://127.0.0.1:9", "-q") == 3
    assert "no scheduler at tcp://127.0.0.1:9" in capsys.readouterr().err
