"""Every other command on a real S3 server gives what it gives on disk; and workers of a cluster reach it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from nights import SETTINGS, ran, remote_contents, without_times
from s3 import KEY, S3, SECRET
from stores import contents
from test_find import _sky, in_plane

import ztfzarr
from ztfzarr.store.objects import open_objects

SET = [f"--set={setting}" for setting in SETTINGS]


@pytest.fixture(scope="module")
def url(s3: S3, local: Path) -> str:
    """The store on disk, copied to a bucket. Never changed."""
    url = s3.place()
    to_bucket = [part.replace("--storage", "--dest") for part in s3.arguments]
    assert ran("copy", local, url, "--products", "-q", *to_bucket) == 0
    return url


def without_place(text: str) -> dict[str, object]:
    """What a command prints as JSON, but for where the store is."""
    found = json.loads(text)
    return {name: value for name, value in found.items() if name not in ("store", "location", "open")}


@pytest.mark.parametrize(
    "command",
    [("ls",), ("info",), ("compare", "bias", "v1", "v1"), ("show", "science", "--ccd", "2")],
    ids=lambda command: command[0],
)
def test_a_bucket_answers_as_a_folder_does(url, s3, local, tmp_path, capsys, command):
    said, pictures = [], []
    for place, options in ((local, []), (url, s3.arguments)):
        picture = tmp_path / f"{len(said)}.png"
        more = ["-o", picture] if command[0] == "show" else []
        assert ran(command[0], place, *command[1:], *more, "--json", *options) == 0
        said.append(without_place(capsys.readouterr().out.replace(str(picture), "x.png")))
        pictures.append(picture.read_bytes() if more else b"")
    assert said[0] == said[1]
    assert pictures[0] == pictures[1]


def test_export_from_a_bucket(url, s3, local, tmp_path):
    """Science and flats: the same files but for when they were written."""
    for kind in ("science", "flat"):
        assert ran("export", local, kind, tmp_path / "disk", "-q") == 0
        assert ran("export", url, kind, tmp_path / "bucket", "-q", *s3.arguments) == 0
    ours, theirs = contents(tmp_path / "bucket"), contents(tmp_path / "disk")
    assert ours.keys() == theirs.keys()
    assert len(theirs) > 8
    for name in theirs:
        files = (tmp_path / where / name for where in ("bucket", "disk"))
        same = {"ignore_keywords": ["DATE", "CHECKSUM"], "ignore_comments": ["DATASUM"]}
        assert fits.FITSDiff(*files, **same).identical, name


def test_find_and_stamps_from_a_bucket(url, s3, local, tmp_path, capsys):
    cube = ztfzarr.open_cube(local)
    sky = cube.isel(time=int(np.flatnonzero(cube.imgtype == "object")[0]))
    position = _sky((float(sky.ra), float(sky.dec)), *in_plane(2, 3, 0.5, 0.25))
    found = []
    for place, options in ((local, []), (url, s3.arguments)):
        folder = tmp_path / str(len(found))
        assert ran("find", place, *position, "--cutout", "20", "-o", folder, "--json", "-q", *options) == 0
        said = capsys.readouterr().out.replace(str(folder), "")
        found.append((json.loads(said), [fits.getdata(path) for path in sorted(folder.glob("*.fits"))]))
    assert found[0][0] == found[1][0]
    assert len(found[0][1]) == 3
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_drop_in_a_bucket(url, s3, capsys):
    place = s3.place()
    options = [part.replace("--storage", "--dest") for part in s3.arguments]
    assert ran("copy", url, place, "--products", "-q", *s3.arguments, *options) == 0
    assert ran("drop", place, "bias", "v1", "--yes", *s3.arguments) == 3
    assert "drop flat/v1 first" in capsys.readouterr().err
    assert ran("drop", place, "science", "v1", "--yes", *s3.arguments) == 0
    assert "deleted science/v1" in capsys.readouterr().out
    assert not list(open_objects(place, s3.options).entries("science"))
    assert ran("info", place, "--json", *s3.arguments) == 0
    assert ran("verify", place, "-q", *s3.arguments) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # distributed warns of ports
@pytest.mark.parametrize("given", ["options", "environment"])
def test_workers_of_a_cluster_make_products_in_a_bucket(s3, nights, local, tmp_path, given, monkeypatch, capfd):
    """Credentials reach them with the tasks, or are their own environment's; they are in no log and no object."""
    from distributed import LocalCluster

    secret = {f"AWS_{name.upper()}": value for name, value in s3.options.items()}
    if given == "environment":
        for name, value in secret.items():
            monkeypatch.setenv(name, value)
    url, options = s3.place(), s3.arguments if given == "options" else []
    page = "127.0.0.1:0"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=page, silence_logs=10) as cluster:
        for folder in nights.values():
            assert ran("ingest", url, folder, "-q", *options) == 0
            assert ran("run", url, "-q", *SET, "--scheduler", cluster.scheduler_address, *options) == 0
        logs = json.dumps([list(map(str, cluster.get_logs().values()))])
    assert without_times(remote_contents(open_objects(url, s3.options))) == without_times(contents(local))
    shown = [logs, *capfd.readouterr()]
    assert [text for text in shown if SECRET in text or KEY in text] == []
    assert not [k for k, data in remote_contents(open_objects(url, s3.options)).items() if SECRET.encode() in data]
