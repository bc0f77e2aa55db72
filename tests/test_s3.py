"""The whole of it on a real S3 server: each command takes ``s3://`` as it takes a path."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nights import FILES, NIGHTS, SETTINGS, ran, remote_contents, without_times
from peers import same_bits
from s3 import BUCKET, KEY, S3, SECRET, free_ports
from stores import astropy_images, contents, plain_decoder

import ztfzarr
from ztfzarr.store.objects import open_objects


@pytest.fixture(scope="module")
def url(s3: S3, nights: dict[int, Path]) -> str:
    """The same in a bucket, made by the command line, night after night. Never changed."""
    url = s3.place()
    for folder in nights.values():
        assert ran("ingest", url, folder, "-q", *s3.arguments) == 0
        assert ran("run", url, "-q", *(f"--set={setting}" for setting in SETTINGS), *s3.arguments) == 0
    return url


def test_a_bucket_holds_what_a_folder_holds(url, s3, local):
    objects = open_objects(url, s3.options)
    ours, theirs = remote_contents(objects), contents(local)
    assert ours.keys() == theirs.keys()
    assert without_times(ours) == without_times(theirs)
    assert not list(objects.entries(".ztfzarr")), "no lock is left"


def test_commands_read_a_bucket(url, s3, nights, local, tmp_path, capsys):
    assert ran("ls", url, "--json", *s3.arguments) == 0
    assert [night["night"] for night in json.loads(capsys.readouterr().out)["nights"]] == list(NIGHTS)
    assert ran("info", url, "--json", *s3.arguments) == 0
    assert json.loads(capsys.readouterr().out)["files"] == sum(FILES.values())
    assert ran("verify", url, *s3.arguments) == 0
    assert f"checked {sum(FILES.values())} files, 7 entries of products: 0 faults" in capsys.readouterr().out
    assert ran("verify", url, nights[20200802], *s3.arguments) == 0
    assert ran("compare", url, "bias", "v1", "v1", "--json", *s3.arguments) == 0
    capsys.readouterr()
    assert ran("restore", url, tmp_path, "--night", "2020-08-02", *s3.arguments) == 0
    assert f"restored {FILES[20200802]} files byte for byte" in capsys.readouterr().out
    originals = {path.name: path.read_bytes() for path in nights[20200802].rglob("*.fz")}
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.fz")} == originals


def test_cube_science_and_headers_are_read_from_a_bucket(url, s3, local):
    ours = ztfzarr.open_cube(url, storage_options=s3.options)
    theirs = ztfzarr.open_cube(local)
    for name in theirs.variables:
        if theirs[name].dtype == np.float32:
            assert same_bits(ours[name].values, theirs[name].values), name
        else:
            np.testing.assert_array_equal(ours[name].values, theirs[name].values, name)
    science = ztfzarr.open_science(url, storage_options=s3.options).science[1].sel(ccd=2).values
    assert same_bits(science, ztfzarr.open_science(local).science[1].sel(ccd=2).values)
    exposure = int(theirs.exposure[0])
    header = ztfzarr.header(url, exposure, 2, storage_options=s3.options)
    assert header == ztfzarr.header(local, exposure, 2)
    travelled = pickle.loads(pickle.dumps(ours.raw.isel(time=0).sel(ccd=2)))
    assert same_bits(travelled.values, theirs.raw.isel(time=0).sel(ccd=2).values)
    engine = xr.open_dataset(url, engine="ztfzarr", storage_options=s3.options)
    assert engine.raw.shape == theirs.raw.shape


@pytest.mark.slow
def test_a_cluster_reads_a_bucket(url, s3, local):
    """Workers are processes of their own; options go with the tasks, and workers that die are done without."""
    from dask.distributed import Client, LocalCluster

    theirs = ztfzarr.open_cube(local).raw.sel(ccd=2).mean(("y", "x")).values
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        cube = ztfzarr.open_cube(url, storage_options=s3.options)
        means = client.compute(cube.raw.sel(ccd=2).chunk(time=1).mean(("y", "x")))
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        np.testing.assert_allclose(means.result(timeout=60).values, theirs, rtol=1e-6)


def test_plain_readers_read_a_bucket(url, s3, nights):
    plain = xr.open_zarr(f"{url}/raw", chunks=None, zarr_format=3, storage_options=s3.plain).sortby("time")
    first = min(nights[20200801].rglob("*.fz"), key=lambda path: path.name)
    expected = astropy_images(first)
    image = plain_decoder().image
    for number in (1, 4, 5):
        assert same_bits(image(plain.sel(ccd=2).isel(time=0), number), expected[number - 1])
    science = xr.open_zarr(f"{url}/science/v1", chunks=None, zarr_format=3, storage_options=s3.plain)
    assert int(science.present.sum()) == 3


def test_raw_files_are_read_from_a_bucket(s3, nights, tmp_path):
    """A prefix with a slash at its end, or single URLs; into a folder and into the bucket itself."""
    raw = f"{s3.place()}/raw/"
    objects = open_objects(raw, s3.options)
    files = sorted(nights[20200801].rglob("*.fz"))[:3]
    for file in files:
        objects.put(f"2020/{file.name}", file.read_bytes())
    source = [part.replace("--storage", "--source") for part in s3.arguments]
    assert ran("ingest", tmp_path / "a.zarr", raw, "-q", *source) == 0
    one = f"{raw}2020/{files[0].name}"
    store = s3.place()
    assert ran("ingest", store, raw, "-q", *s3.arguments) == 0
    assert ran("verify", store, one, "-q", *s3.arguments) == 0
    assert remote_contents(open_objects(store, s3.options)) == contents(tmp_path / "a.zarr")
    assert ztfzarr.open_fits(raw, storage_options=s3.options).sizes["time"] == 3


def test_two_writers_at_once(s3, nights, tmp_path):
    """Of overlapping files, in processes of their own: both succeed, nothing is lost."""
    url, files = s3.place(), sorted(nights[20200801].rglob("*.fz"))
    parts = files[:8], files[:2:-1]
    command = [sys.executable, "-m", "ztfzarr.cli", "ingest", url, "-q", *s3.arguments]
    processes = [subprocess.Popen([*command, *map(str, part)], stderr=subprocess.PIPE) for part in parts]
    outcomes = [(p.communicate(timeout=100)[1], p.returncode) for p in processes]
    assert [status for _, status in outcomes] == [0, 0], outcomes
    assert ran("verify", url, nights[20200801], "-q", *s3.arguments) == 0
    assert int(ztfzarr.open_cube(url, storage_options=s3.options).present.sum()) == FILES[20200801]


# Credentials


def test_credentials_from_the_environment(url, s3, monkeypatch):
    for name, value in s3.options.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    assert ran("verify", url, "-q") == 0


def test_credentials_from_a_profile(url, s3, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        f"[survey]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / "config").write_text(f"[profile survey]\nregion = us-east-1\nendpoint_url = {s3.endpoint}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    options = ["--storage-option", "allow_http=true"]
    assert ran("verify", url, "-q", "--storage-option", "profile=survey", *options) == 0
    monkeypatch.setenv("AWS_PROFILE", "survey")
    assert ran("verify", url, "-q", *options) == 0


def test_credentials_are_nowhere_in_store_or_output(url, s3, capfd):
    dataset = ztfzarr.open_cube(url, storage_options=s3.options)
    shown = [repr(dataset), dataset._repr_html_(), repr(open_objects(url, s3.options)), str(dataset.encoding)]
    assert ran("info", url, *s3.arguments) == 0
    shown += capfd.readouterr()
    stored = remote_contents(open_objects(url, s3.options))
    for secret in (KEY, SECRET):
        assert not [text for text in shown if secret in text]
        assert not [key for key, data in stored.items() if secret.encode() in data]


def refused(capfd: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on standard error of a command that cannot use its store."""
    started = time.monotonic()
    assert ran(*arguments) == 3
    assert time.monotonic() - started < 60
    out, error = capfd.readouterr()
    assert out == ""
    assert error.count("\n") == 1, error
    assert SECRET not in error
    return error.removeprefix("ztfzarr: ").strip()


COMMANDS = [("ls",), ("verify",), ("run",), ("ingest", "PATH"), ("restore", "FOLDER")]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"secret_access_key": "wrong-one"}, "access denied (403 SignatureDoesNotMatch): check the credentials"),
        ({"access_key_id": "nobody"}, "access denied (403 InvalidAccessKeyId): check the credentials"),
    ],
    ids=["secret", "key"],
)
def test_wrong_credentials(url, s3, nights, tmp_path, capfd, command, changed, says):
    given = {"PATH": nights[20200801], "FOLDER": tmp_path}
    options = [f"--storage-option={name}={value}" for name, value in (s3.options | changed).items()]
    error = refused(capfd, command[0], url, *(given[name] for name in command[1:]), *options)
    assert error.startswith(f"{url}: {says}")
    assert not any(value in error for value in changed.values())


@pytest.mark.parametrize("command", ["ls", "verify", "run"])
def test_missing_bucket(s3, capfd, command):
    error = refused(capfd, command, "s3://nobody/ztf", *s3.arguments)
    assert error == "s3://nobody/ztf: no such bucket (404 NoSuchBucket)"


@pytest.mark.parametrize("command", COMMANDS[:1] + COMMANDS[3:4], ids=["ls", "ingest"])
def test_server_away(s3, nights, tmp_path, capfd, command):
    """Nobody listens: said within the seconds of its retries."""
    away = S3(f"http://127.0.0.1:{free_ports(1)[0]}")
    fewer = [] if command == ("ls",) else ["--storage-option", "max_retries=3"]
    error = refused(
        capfd, command[0], "s3://ztf/x", *[nights[20200801]][: len(command) - 1], *away.arguments, *fewer
    )
    tries = 3 if fewer else 12
    assert error == f"s3://ztf/x: the server cannot be reached, or does not answer (after {tries} retries)"


@pytest.mark.parametrize(
    ("option", "status", "says"),
    [
        ("aws_fish=trout", 3, "Configuration key: 'aws_fish' is not valid for store 'S3'."),
        ("max_retries=many", 3, "max_retries and retry_timeout (seconds): expected numbers"),
        ("profile=nobody", 3, "profile nobody: not found, or without credentials"),
        ("trout", 2, "expected KEY=VALUE, as in endpoint=https://s3.example.org"),
    ],
)
def test_storage_options_that_are_not_valid(capfd, option, status, says):
    assert ran("ls", "s3://ztf/x", "--storage-option", option) == status
    error = capfd.readouterr().err
    assert says in error
    assert "trout" not in error


def test_http_must_be_asked_for(s3, capfd):
    options = [part for part in s3.arguments if "allow_http" not in part][:-1]
    assert refused(capfd, "ls", f"s3://{BUCKET}/x", *options).endswith("allow_http=true if that is meant")
