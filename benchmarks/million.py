"""Figures of a cube of a million exposures: opening it, selecting a night, reading a few rows, marking a file.

    python benchmarks/million.py [--folder DIR] [--exposures N]

Metadata and coordinates are of full length, written in blocks; a handful of files are really there. Prints
Markdown; docs/benchmarks.md holds a run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ztfzarr
from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.store.listing import nights
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import COORDINATES, DOCUMENT, GROUP
from ztfzarr.store.register import FilledFile, create_raw, existing_document, fill, mark
from ztfzarr.store.template import ROW_CHUNK, arrays_of, dumped, resized
from ztfzarr.store.writing import writable_arrays

NIGHT = 512  # exposures of a night
FIRST = np.datetime64("2018-03-01")
CCD = 6
FILES = 4
OVERSCAN = 30


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
    parser.add_argument("--folder", help="where to make the store (0.2 GB); default the temporary folder")
    parser.add_argument("--exposures", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        store = Path(scratch) / "million.zarr"
        present = build(store, arguments.exposures)
        print(f"{arguments.exposures:,} exposures; {_megabytes()} MB resident at most while it was made\n")
        print("| | seconds |\n|---|---|")
        report(store, present)
        print(f"\n{_megabytes()} MB resident at most")


def report(store: Path, present: list[int]) -> None:
    cube = _timed("`open_cube`", lambda: ztfzarr.open_cube(store))
    plain = _timed("`xr.open_zarr(chunks=None)`", lambda: xr.open_zarr(store / "raw", chunks=None, zarr_format=3))
    select = night_of(present[0])
    night = _timed("select a night", lambda: cube.isel(time=np.flatnonzero(cube.night.values == select)))
    _timed("select a night, plainly", lambda: plain.isel(time=np.flatnonzero(plain.night.values == select)))
    rows = night.raw.sel(ccd=CCD, quadrant=2).isel(y=slice(100, 110))
    _timed(f"10 rows of a quadrant, {night.sizes['time']} exposures, {FILES} of them there", rows.load)
    _timed("`ztfzarr ls`", lambda: nights(store))
    _timed("`ztfzarr find`", lambda: ztfzarr.find(store, 100.0, 20.0))
    objects, again = open_objects(store), [_filled(number) for number in present]
    _timed("mark a file", lambda: mark(objects, again))


def _timed(label: str, act: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = act()
    print(f"| {label} | {time.perf_counter() - started:.2f} |")
    return result


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
