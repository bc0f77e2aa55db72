"""The batch farm's examples of docs/slurm, on a real SLURM of one node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nights import ran, remote_contents, without_times
from s3 import KEY, S3, SECRET
from slurm import finished, running_slurm
from stores import ROOT, contents
from test_clusters import NIGHTS, SET
from test_clusters import raw as raw
from test_clusters import undisturbed as undisturbed

from ztfzarr.store.objects import open_objects

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "docs" / "slurm"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of SLURM's commands; its jobs find this Python's ztfzarr."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"PATH": path}


def differing(ours: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    """Objects that are not the same, but for the flats of which night were there to compare with."""
    assert ours.keys() == theirs.keys()
    return [key for key in ours if ours[key] != theirs[key] and not key.startswith("flat/v1/difference/")]


def test_an_array_of_jobs_on_a_bucket(slurm, s3: S3, raw, undisturbed, tmp_path):
    """One job a night; credentials are in the environment alone, and neither in a log nor in what SLURM shows."""
    url = s3.place()
    assert ran("ingest", url, raw, "-q", *s3.arguments) == 0
    environment = slurm | {f"AWS_{name.upper()}": value for name, value in s3.options.items()}
    array = [f"--array=0-{len(NIGHTS) - 1}", "--cpus-per-task=2", "--mem=1G", "--parsable"]
    submitted = subprocess.run(
        ["sbatch", *array, EXAMPLES / "nights.sh", url, "2020-08-01", "-q", *SET],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    job = submitted.stdout.strip()
    shown = subprocess.run(["scontrol", "show", "job", job], env=slurm, capture_output=True, text=True).stdout
    finished(slurm, job)
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert logs == {f"ztfzarr-{job}_{number}.log": "" for number in range(len(NIGHTS))}
    assert not [secret for secret in (KEY, SECRET) if secret in shown]
    assert differing(without_times(remote_contents(open_objects(url, s3.options))), undisturbed) == []


def test_workers_that_slurm_starts(slurm, raw, undisturbed, tmp_path):
    """``docs/slurm/cluster.py``: dask-jobqueue's workers make what one process makes."""
    import dask_jobqueue  # noqa: F401  # else cluster.py says it less plainly

    store = tmp_path / "s.zarr"
    assert ran("ingest", store, raw, "-q") == 0
    command = [sys.executable, EXAMPLES / "cluster.py", "--jobs=2", "--memory=2GB", "--interface=lo", "--wait=100"]
    done = subprocess.run(
        [*command, "--", store, "-q", *SET], env=slurm, cwd=tmp_path, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    workers = [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert sum("Registered to" in text for text in workers) == 2
    assert differing(without_times(contents(store)), undisturbed) == []
