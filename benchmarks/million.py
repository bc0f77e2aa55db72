"""Figures of cubes of up to a million exposures: opening, selecting a night, reading a few rows, adding a night.

    python benchmarks/million.py [--folder DIR] [--exposures N …]

Metadata and coordinates are of full length, written in blocks; a handful of files are really there. Prints
Markdown; docs/scale.md holds a run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ztfzarr
from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.ingest.names import parse_name
from ztfzarr.ingest.plan import Report, files_to_fill
from ztfzarr.ingest.scan import RawFile
from ztfzarr.ingest.sources import Source
from ztfzarr.store.listing import nights
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import COORDINATES, DOCUMENT, GROUP
from ztfzarr.store.register import Exposure, FilledFile, create_raw, existing_document, fill, mark, register
from ztfzarr.store.template import ROW_CHUNK, arrays_of, dumped, resized
from ztfzarr.store.writing import writable_arrays

NIGHT = 512  # exposures of a night
FIRST = np.datetime64("2018-03-01")
CCD = 6
FILES = 4
OVERSCAN = 30
SHARD_BYTES = 4e6  # a file's pixels have more, a table's chunk less


def build(path: Path | str, exposures: int, shape: tuple[int, int] = FULL_SHAPE) -> list[int]:
    """Make a store with a long cube; return the numbers of the exposures whose file of CCD 6 is really there.

    The later half of the nights has the first rows, as if it had been ingested first.
    """
    objects = open_objects(path)
    document = resized(create_raw(objects, shape, OVERSCAN), time=exposures)
    for name, array in arrays_of(document).items():
        objects.put(f"{GROUP}/{name}/zarr.json", dumped(array))
    arrays = writable_arrays(objects, GROUP, (*COORDINATES, "present"))
    for first in range(0, exposures, ROW_CHUNK):
        rows = np.arange(first, min(first + ROW_CHUNK, exposures))
        for name, values in _coordinates(_order(rows, exposures)).items():
            arrays[name][first : rows[-1] + 1] = values
        arrays["present"][first : rows[-1] + 1] = 0
    objects.put(DOCUMENT, dumped(document))
    return _fill(objects, exposures, shape)


def _order(rows: np.ndarray, exposures: int) -> np.ndarray:
    """The place in time of each row."""
    return (rows + exposures // 2) % exposures


def _coordinates(place: np.ndarray) -> dict[str, Any]:
    night, number = np.divmod(place, NIGHT)
    day = FIRST + night
    date = np.array([int(str(d).replace("-", "")) for d in np.unique(day)])[np.unique(day, return_inverse=True)[1]]
    fraction = 100_000 + 700 * number  # 02:24 to 10:58 UTC
    kind = np.where(number < 20, 0, np.where(number < 75, 1, 2))
    values: dict[str, Any] = {
        name: np.full(place.size, v.fill) for name, v in COORDINATES.items() if v.dtype != "str"
    }
    return values | {
        "exposure": date * 1_000_000 + fraction,
        "time": day.astype("datetime64[us]").astype(np.int64) + fraction * 86_400,
        "night": date.astype(np.int32),
        "imgtype": np.array(["bias", "flat", "object"], object)[kind],
        "filter": np.array(["bi", "zg", "zr"], object)[kind],
        "led": np.where(kind == 1, 2, -1).astype(np.int16),
        "exptime": np.where(kind == 0, 0.0, 30.0),
        "ra": place * 137.50776 % 360,  # spread over the sky that Palomar sees
        "dec": np.degrees(np.arcsin(place * 0.61803 % 1.5 - 0.5)),
    }


def file_values(seed: int, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Integers, scales and zeros of a made-up file."""
    rng = np.random.default_rng(seed)
    return {
        "raw": rng.normal(0, 20, (4, *shape)).astype(np.int32),
        "overscan": rng.normal(0, 5, (4, shape[0], OVERSCAN)).astype(np.int32),
        "zscale": rng.uniform(0.1, 0.5, (8, shape[0])),
        "zzero": rng.uniform(100, 200, (8, shape[0])),
    }


def zdither_of(exposure: int) -> list[int]:
    """ZDITHER0 of the eight images of a made-up file."""
    return [(exposure + i) % 10_000 + 1 for i in range(8)]


def _fill(objects: Objects, exposures: int, shape: tuple[int, int]) -> list[int]:
    """Put a few files, of a night in the middle of the time span, into the cube."""
    places = exposures // 3 // NIGHT * NIGHT + np.arange(FILES)
    numbers = [int(n) for n in _coordinates(places)["exposure"]]
    document = existing_document(objects)
    for number, place in zip(numbers, places.tolist(), strict=True):
        fill(objects, document, ((place - exposures // 2) % exposures, CCD), file_values(number, shape))
    mark(objects, [_filled(number) for number in numbers])
    return numbers


def _filled(number: int) -> FilledFile:
    return FilledFile(
        exposure=number,
        ccd=CCD,
        zdither=zdither_of(number),
        gain=[6.2] * 4,
        read_noise=[9.5] * 4,
        name=f"ztf_{number}_000000_bi_c{CCD:02d}_b.fits.fz",
        size=20_000_000,
        sha256=f"{number:064x}",
        headers=[b"SIMPLE  =                    T".ljust(2880)] * 9,
    )


def night_of(exposure: int) -> int:
    """The night of one of the exposures that are there."""
    return exposure // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to make the stores (0.2 GB); default the temporary folder")
    parser.add_argument("--exposures", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    columns = {}
    for exposures in arguments.exposures:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            # Processes of their own, for their memory.
            columns[exposures] = _in_a_process(_measured, Path(scratch) / "cube.zarr", exposures)
    print("| exposures | " + " | ".join(f"{n:,}" for n in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for label in next(iter(columns.values())):
        print(f"| {label} | " + " | ".join(f"{column[label]:.3g}" for column in columns.values()) + " |")


def _in_a_process(act: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(act, *arguments).result()


def _measured(store: Path, exposures: int) -> dict[str, float]:
    """Build a store in a process of its own, measure it here."""
    present = _in_a_process(build, store, exposures)
    before = _megabytes()
    found = report(store, present)
    sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
    tables = sum(size for size in sizes if size < SHARD_BYTES) / 1e6
    return found | {"MB of metadata and tables": tables, "MB resident beyond the libraries": _megabytes() - before}


def report(store: Path, present: list[int]) -> dict[str, float]:
    """Seconds of what readers and writers do, once."""
    found: dict[str, float] = {}

    def timed(label: str, act: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = act()
        found[label] = time.perf_counter() - started
        return result

    cube = timed("`open_cube`, s", lambda: ztfzarr.open_cube(store))
    plain = timed("`xr.open_zarr(chunks=None)`", lambda: xr.open_zarr(store / "raw", chunks=None, zarr_format=3))
    select = night_of(present[0])
    night = timed("select a night", lambda: cube.isel(time=np.flatnonzero(cube.night.values == select)))
    timed("select a night, plainly", lambda: plain.isel(time=np.flatnonzero(plain.night.values == select)))
    rows = night.raw.sel(ccd=CCD, quadrant=2).isel(y=slice(100, 110))
    timed(f"10 rows of a quadrant, a night of which {FILES} are there", rows.load)
    timed("`ztfzarr ls`", lambda: nights(store))
    timed("`ztfzarr find`", lambda: ztfzarr.find(store, 100.0, 20.0))
    objects, again = open_objects(store), [_filled(number) for number in present]
    timed("mark files", lambda: mark(objects, again))
    files = new_night(cube.sizes["time"])
    with ThreadPoolExecutor(2) as pool:
        timed(f"plan a night of {NIGHT} files", lambda: files_to_fill(objects, pool, files, Report(), check=False))
    exposures = [Exposure(file.name.exposure, file.coordinates) for file in files]
    timed(f"register a night of {NIGHT} exposures", lambda: register(objects, exposures))
    return found


def new_night(exposures: int) -> list[RawFile]:
    """What a scan would say of the files of CCD 6 of the night after the last."""
    values = _coordinates((exposures // NIGHT + 1) * NIGHT + np.arange(NIGHT))
    files = []
    for i, number in enumerate(values["exposure"].tolist()):
        name = parse_name(f"ztf_{number}_000000_bi_c{CCD:02d}_b.fits.fz")
        own = {key: value[i] for key, value in values.items()} | {"imgtype": "bias", "filter": "bi", "field": 0}
        shape = (*FULL_SHAPE, OVERSCAN)
        files.append(RawFile(Source(f"{number}.fits"), 1, name, own, shape, (6.2,) * 4, (9.5,) * 4))
    return files


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
