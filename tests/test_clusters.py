"""Many jobs at once on one store, as a batch farm runs them: none fails, none collides, nothing differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits
from nights import LEDS, SETTINGS, SHAPE, ran, remote_contents, without_times
from s3 import S3
from stores import contents

from ztfzarr.simulate import simulate_night
from ztfzarr.store.objects import open_objects

NIGHTS = (20200801, 20200802, 20200803, 20200804)
SET = [f"--set={setting}" for setting in SETTINGS]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four nights of one CCD, each with biases, flats and an exposure of the sky."""
    folder = tmp_path_factory.mktemp("nights")
    for night in NIGHTS:
        simulate_night(folder / str(night), night=night, ccds=(2,), shape=SHAPE, bias=3, flats=3, science=1)
    for file in folder.rglob("*_f.fits.fz"):
        if fits.getheader(file)["ILUM_LED"] not in LEDS:
            file.unlink()
    return folder


@pytest.fixture(scope="module")
def undisturbed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a store holds in which one command after the other has done it all."""
    store = tmp_path_factory.mktemp("store") / "s.zarr"
    assert ran("ingest", store, raw, "-q") == 0
    assert ran("run", store, "-q", *SET) == 0
    return without_times(contents(store))


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("where", ["bucket", "disk"])
def test_one_job_a_night(where, s3: S3, raw, undisturbed, tmp_path):
    store = s3.place() if where == "bucket" else str(tmp_path / "s.zarr")
    options = s3.arguments if where == "bucket" else []
    assert ran("ingest", store, raw, "-q", *options) == 0
    command = [sys.executable, "-m", "ztfzarr.cli", "run", store, "-q", "--workers", "1", *SET, *options]
    jobs = [
        subprocess.Popen([*command, "--night", str(night)], stderr=subprocess.PIPE, text=True) for night in NIGHTS
    ]
    outcomes = [(job.communicate(timeout=200)[1], job.returncode) for job in jobs]
    assert outcomes == [("", 0)] * len(NIGHTS)
    ours = contents(Path(store)) if where == "disk" else remote_contents(open_objects(store, s3.options))
    ours = without_times(ours)
    assert ours.keys() == undisturbed.keys()
    # Against the flats of the night before, if these are made already: which job comes first decides.
    found = [key for key in ours if ours[key] != undisturbed[key] and not key.startswith("flat/v1/difference/")]
    assert found == []


@pytest.mark.parametrize("where", ["bucket", "disk"])
def test_one_ingest_a_night(where, s3: S3, raw, tmp_path):
    """Rows are given in the order in which jobs come: the values are the same, by exposure."""
    store = s3.place() if where == "bucket" else str(tmp_path / "s.zarr")
    options = s3.arguments if where == "bucket" else []
    command = [sys.executable, "-m", "ztfzarr.cli", "ingest", store, "-q", "--workers", "1", *options]
    jobs = [subprocess.Popen([*command, str(raw / str(night))], stderr=subprocess.PIPE) for night in NIGHTS]
    assert [job.communicate(timeout=200)[1] for job in jobs] != []
    assert [job.returncode for job in jobs] == [0] * len(NIGHTS)
    assert ran("verify", store, raw, "-q", *options) == 0
    assert ran("verify", store, "-q", *options) == 0
