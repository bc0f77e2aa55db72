"""A cube of a million exposures opens, selects and reads in little memory, and without dask."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from peers import same_bits
from stores import ROOT, plain_decoder

import ztfzarr
from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.store import decoded
from ztfzarr.store.check import metadata_faults
from ztfzarr.store.objects import open_objects
from ztfzarr.store.shard import ShardFormat

sys.path.insert(0, str(ROOT / "benchmarks"))
import million

SHAPE = (616, 1024)
MEMORY = 1e9


@pytest.fixture(
    scope="module", params=[100_000, pytest.param(1_000_000, marks=pytest.mark.slow)], ids=["100k", "million"]
)
def long_cube(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[int], int]:
    """A store, the exposures that are there, and the length of its cube."""
    store = tmp_path_factory.mktemp("long") / "long.zarr"
    return store, million.build(store, request.param, SHAPE), request.param


def expected_rows(exposure: int, quadrant: int, rows: slice) -> np.ndarray:
    values = million.file_values(exposure, SHAPE)
    image = values["raw"][quadrant - 1].copy()
    scales = values["zscale"][quadrant - 1], values["zzero"][quadrant - 1]
    decode_rows(image, *scales, million.zdither_of(exposure)[quadrant - 1], 0, 0, RANDOM)
    return image.view(np.float32)[rows]


def select_night(dataset: xr.Dataset, exposure: int) -> xr.Dataset:
    return dataset.isel(time=np.flatnonzero(dataset.night.values == million.night_of(exposure)))


def test_ten_rows_of_a_night(long_cube, monkeypatch):
    store, present, length = long_cube
    read = []
    read_chunks = decoded.read_chunks

    def counting(objects: object, key: str, form: ShardFormat, positions: list) -> object:
        read.append((key, len(positions)))
        return read_chunks(objects, key, form, positions)

    monkeypatch.setattr(decoded, "read_chunks", counting)
    tracemalloc.start()
    cube = ztfzarr.open_cube(store)
    night = select_night(cube, present[0])
    rows = night.raw.sel(ccd=million.CCD, quadrant=2).isel(y=slice(100, 110)).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cube.raw.shape == (length, 16, 4, *SHAPE)
    assert cube.indexes["time"].is_monotonic_increasing
    assert night.sizes["time"] == million.NIGHT
    assert (cube.chunks, night.chunks) == ({}, {})
    # Two chunks of pixels and the scales and zeros of each of the four files that are there; no others.
    assert sorted(n for _, n in read) == [1] * 8 + [2] * 4
    assert peak < 200 * length + 100e6 < MEMORY
    for number, values in zip(night.exposure.values.tolist(), rows.values, strict=True):
        known = number in present
        expected = expected_rows(number, 2, slice(100, 110)) if known else np.full((10, SHAPE[1]), np.nan)
        assert same_bits(values, expected)


def test_ten_rows_of_a_night_plainly(long_cube):
    store, present, length = long_cube
    plain = xr.open_zarr(store / "raw", chunks=None, zarr_format=3)
    assert plain.sizes["time"] == length
    night = select_night(plain, present[0]).sel(ccd=million.CCD)
    file = night.isel(time=night.exposure.values.tolist().index(present[2]), y=slice(100, 110))
    assert same_bits(plain_decoder().image(file, 3), expected_rows(present[2], 3, slice(100, 110)))


def test_memory_of_a_process_that_reads(long_cube):
    """All of it, libraries too."""
    store, present, _ = long_cube
    code = """
import sys
from pathlib import Path
import numpy as np, ztfzarr
cube = ztfzarr.open_cube(sys.argv[1])
night = cube.isel(time=np.flatnonzero(cube.night.values == int(sys.argv[2])))
rows = night.raw.sel(ccd=6, quadrant=2).isel(y=slice(100, 110)).load()
assert int(np.isfinite(rows).any(("y", "x")).sum()) == 4
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)  # ru_maxrss would count the parent's memory at the fork
"""
    command = [sys.executable, "-c", code, str(store), str(million.night_of(present[0]))]
    result = subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert int(result.stdout) < MEMORY


def test_metadata_is_that_of_any_store(long_cube):
    store, _, length = long_cube
    assert metadata_faults(open_objects(store)) == []
    assert (store / "raw" / "zarr.json").stat().st_size < 60_000
    objects = sum(1 for path in (store / "raw").rglob("*") if path.is_file())
    assert objects < 200 + 25 * -(-length // 65536)


def test_timings(long_cube):
    """Printed, not asserted: `pytest -rP`."""
    store, present, length = long_cube
    found = million.report(store, present)
    assert min(found.values()) > 0
    assert xr.open_zarr(store / "raw", chunks=None, zarr_format=3).sizes["time"] == length + million.NIGHT
    print(found)
