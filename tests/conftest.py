"""Fixtures shared by the tests: a small simulated night, a store made from it, and CFITSIO's fpack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kinds import all_kinds as all_kinds
from nights import local as local
from nights import nights as nights
from s3 import s3 as s3

from ztfzarr.ingest.run import ingest
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.simulate import simulate_night

SHAPE = (70, 96)  # rows and columns of a quadrant: small, and none a multiple of the other or of a chunk
CCDS = (2, 11)


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of two CCDs: 4 biases, 11 flats, 3 exposures of the sky; raw files below ``raw/``. Never changed."""
    folder = tmp_path_factory.mktemp("night")
    simulate_night(folder, ccds=CCDS, shape=SHAPE, bias=4, flats=1, science=3)
    return folder


@pytest.fixture(scope="session")
def raw_files(night: Path) -> list[Path]:
    """The raw files of the night, by name, which is by time."""
    return sorted((night / "raw").rglob("*.fits.fz"), key=lambda path: path.name)


@pytest.fixture(scope="session")
def night_store(night: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the whole night. Never changed: copy it to do harm."""
    store = tmp_path_factory.mktemp("store") / "night.zarr"
    report = ingest(store, [night / "raw"])
    assert report.ingested == 36
    assert not report.refused
    return store


@pytest.fixture(scope="session")
def reduced_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of CCDs 2 and 11 with masters, science and its variance, and bias v2. Never changed: copy it."""
    folder = tmp_path_factory.mktemp("reduced")
    simulate_night(folder, ccds=CCDS, shape=(80, 64), bias=13, flats=3, science=2)
    path = folder / "night.zarr"
    ingest(path, [folder / "raw"])
    reports = reduce(path, recipe=read_recipe("", ["science.variance=true"]))
    reports += reduce(path, ["bias"], version="v2", recipe=read_recipe("", ["overscan.columns=25:30"]))
    assert not any(report.refused for report in reports)
    return path


@pytest.fixture
def store_copy(night_store: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    return Path(shutil.copytree(night_store, tmp_path / "copy.zarr"))


@pytest.fixture
def reduced_copy(reduced_store: Path, tmp_path: Path) -> Path:
    """A copy of the store with products that a test may damage."""
    return Path(shutil.copytree(reduced_store, tmp_path / "reduced.zarr"))


@pytest.fixture(autouse=True)
def _no_progress_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes more than ten seconds, on a slow machine, says on standard error how far it is."""
    monkeypatch.setattr("ztfzarr.cli.progress.LINE_SECONDS", 1e9)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need fpack where Debian's libcfitsio-bin is not installed; .ci/run installs it."""
    if shutil.which("fpack") is None:
        for item in items:
            if item.get_closest_marker("fpack"):
                item.add_marker(pytest.mark.skip(reason="fpack (libcfitsio-bin) is not installed"))
