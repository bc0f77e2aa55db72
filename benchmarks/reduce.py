"""Figures of the reductions on full-size quadrants: combining, masters from the cube, science; against peers.

    python benchmarks/reduce.py [--folder DIR] [--peers]

``--peers`` also runs ccdproc (``pip install ccdproc``) and plain astropy with numpy on the same files: overscan
and combination of ten biases of a CCD. Prints Markdown; docs/benchmarks.md holds a run.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.stats import sigma_clip
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

import ztfzarr
from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.ingest.run import ingest
from ztfzarr.kernels import combine as kernel
from ztfzarr.masters.frames import calibrated_frames
from ztfzarr.reduce.parts import Part, combined_part, in_threads, parts_of
from ztfzarr.reduce.report import Selection
from ztfzarr.reduce.run import reduce
from ztfzarr.simulate import simulate_night
from ztfzarr.store.objects import open_objects
from ztfzarr.store.versions import existing_version

CCD = 6
MPIX = 4 * FULL_SHAPE[0] * FULL_SHAPE[1] / 1e6
THREADS = 2
NIGHT = 20200801
MORE = {20200802: 3, 20200803: 6}  # nights and their exposures of the sky


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to make files (3 GB); default the temporary folder")
    parser.add_argument("--peers", action="store_true", help="run ccdproc and astropy too")
    parser.add_argument(
        "--frames", type=int, metavar="N", help=argparse.SUPPRESS
    )  # of report_memory, in a process
    arguments = parser.parse_args()
    if arguments.frames:
        combine_frames_of(Path(arguments.folder), arguments.frames)
        print(f"{_own_peak():.2f}")
        return
    report_combining()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        simulate_night(folder, ccds=(CCD,), shape=FULL_SHAPE, bias=20, flats=3, science=12, workers=THREADS)
        for night, science in MORE.items():
            simulate_night(folder, night=night, ccds=(CCD,), shape=FULL_SHAPE, bias=0, flats=0, science=science)
        store = folder / "night.zarr"
        ingest(store, [folder / "raw"])
        report_production(store)
        report_bias(folder, store, peers=arguments.peers)
        report_dask(store)
        report_linear(store)
        report_memory(store)
        report_levels(store)


def report_combining() -> None:
    """Overscan, non-linearity and clipped mean of frames in memory, on one core."""
    print("| combine in memory, one core | Mpix/s |\n|---|---|")
    for frames in (5, 7, 10, 20):
        print(f"| {frames} frames | {_combine_rate(frames):.0f} |")
    stack = np.random.default_rng(1).normal(100, 1.5, (10, 616, 512)).astype(np.float32)
    seconds = _median(lambda: np.ma.mean(sigma_clip(stack, axis=0, sigma=3), axis=0), 3)
    print(f"| astropy.stats.sigma_clip, 10 frames | {stack.size / 1e6 / seconds:.1f} |\n")


def _combine_rate(frames: int) -> float:
    rng = np.random.default_rng(1)
    stack = rng.normal(100, 1.5, (frames, 616, FULL_SHAPE[1])).astype(np.float32)
    shape = stack.shape[1:]
    level = rng.normal(30, 0.1, stack.shape[:2]).astype(np.float32)
    a, b, scale = (np.full(frames, v, np.float32) for v in (-1e-11, 6e-7, 1))
    out = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int16)
    network = kernel.sorting_network(frames)
    offset = np.zeros(shape, np.float32)
    run = lambda: kernel.combine(  # noqa: E731
        stack, level, a, b, offset, scale, (6.0, 9.0, 0.0), kernel.NOISE, 4.0, network, *out
    )
    run()
    return stack.size / 1e6 / _median(run, 7)


def _median(run: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def report_production(store: Path) -> None:
    """Each product by the command line, in a process of its own: its time includes the start of Python."""
    print("| from the cube to the stored product, one CCD, as a command | seconds | peak memory |\n|---|---|---|")
    what = {"bias": "10 frames of 20", "flat": "33 frames, 11 LEDs", "science": "12 exposures"}
    seconds: dict[str, float] = {}
    for kind in what:
        for _ in range(2):  # the first loads or makes what is compiled
            shutil.rmtree(store / kind, ignore_errors=True)
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "ztfzarr.cli", kind, str(store), "-q"], check=True)
            seconds[kind] = time.perf_counter() - start
        print(f"| {kind}: {what[kind]} | {seconds[kind]:.1f} | {_peak():.2f} GB so far |")
    print(f"| flats / bias | {seconds['flat'] / seconds['bias']:.1f} | |")
    print("\n| science, in one process | seconds an exposure |\n|---|---|")
    for version in ("v2", "v3"):  # the first loads what is compiled
        start = time.perf_counter()
        (report,) = reduce(store, ["science"], version=version)
        print(f"| {report.made} exposures of 3 filters | {(time.perf_counter() - start) / report.made:.2f} |")
    print()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def _own_peak() -> float:
    """Peak memory of this process in GB; getrusage would count what the process had that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def report_bias(folder: Path, store: Path, *, peers: bool) -> None:
    """A master bias of a CCD in memory, ten frames: part by part, by dask, and by others from the FITS files."""
    biases = _biases(store)
    lazy = biases.chunk(time=-1, quadrant=1, y=616)
    ours = _best(lambda: _in_parts(store, biases), 3)
    dask = _best(lambda: ztfzarr.master_bias(lazy, skip=0).compute(num_workers=THREADS), 3)
    print("| master bias of a CCD in memory, 10 frames, two cores | seconds | ours is faster by |\n|---|---|---|")
    print(f"| from the cube, part by part | {ours:.2f} | |")
    print(f"| from the cube, `master_bias` by dask | {dask:.2f} | {dask / ours:.2f} |")
    files = sorted((folder / "raw").rglob("*_bi_*.fits.fz"))[10:]
    others: dict[str, Callable[[list[Path]], None]] = {"astropy and numpy": _astropy, "ccdproc": _ccdproc}
    for name, run in others.items() if peers else ():
        seconds = _best(partial(run, files), 1)
        print(f"| {name}, from the FITS files, one core as it is | {seconds:.1f} | {seconds / ours:.1f} |")
    print()


def _best(run: Callable[[], object], times: int) -> float:
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _biases(store: Path, frames: int = 10) -> xr.Dataset:
    cube = ztfzarr.open_cube(store)
    rows = np.flatnonzero(cube["imgtype"].values == "bias")
    chosen = np.resize(rows, frames) if frames > len(rows) else rows[-frames:]
    return cube.isel(time=np.sort(chosen)).sel(ccd=[CCD])


def _in_parts(store: Path, biases: xr.Dataset) -> dict[str, np.ndarray]:
    """Make a master bias of a CCD as the commands do: ``mean``, ``variance``, ``count``, each (quadrant, y, x)."""
    version = existing_version(open_objects(store), "bias", "v1")
    frames = calibrated_frames(biases)
    shape = biases["raw"].shape[2:]
    images = {name: np.empty(shape, np.float32) for name in ("mean", "variance")}
    images["count"] = np.empty(shape, np.int16)

    def combine(part: Part) -> None:
        for name, image in combined_part(frames, part).items():
            images[name][part.region] = image

    in_threads(THREADS, combine, parts_of(version, biases.sizes["time"]))
    return images


def _astropy(files: list[Path]) -> None:
    """Overscan and clipped mean with astropy and numpy, quadrant by quadrant."""
    for quadrant in range(1, 5):
        frames = []
        for path in files:
            with fits.open(path) as file:
                rows = np.arange(file[quadrant].shape[0])
                profile = np.median(file[quadrant + 4].data[:, 5:25], axis=1)
                level = np.polynomial.Legendre.fit(rows, profile, 3)(rows)
                frames.append(file[quadrant].data - level[:, np.newaxis].astype(np.float32))
        np.ma.mean(sigma_clip(np.stack(frames), axis=0, sigma=3), axis=0)


def _ccdproc(files: list[Path]) -> None:
    import ccdproc
    from astropy.nddata import CCDData

    for quadrant in range(1, 5):
        frames = []
        for path in files:
            with fits.open(path) as file:
                image, strip = (CCDData(file[i].data, unit="adu") for i in (quadrant, quadrant + 4))
            columns = strip[:, 5:25]
            frames.append(ccdproc.subtract_overscan(image, overscan=columns, overscan_axis=1, median=True))
        ccdproc.combine(frames, method="average", sigma_clip=True)


def report_dask(store: Path) -> None:
    """What dask adds: the same on lazily indexed and on chunked exposures, both on two threads."""
    print("| the same on two threads | seconds | by dask | overhead | CPU s | by dask | overhead |")
    print("|---|---|---|---|---|---|---|")
    biases, sky = _biases(store), _sky(store)
    one = {"night": 0, "ccd": slice(CCD - 1, CCD)}
    bias, flat = (xr.open_zarr(f"{store}/{kind}/v1", chunks=None).isel(one).load() for kind in ("bias", "flat"))
    science = partial(ztfzarr.science, bias=bias, flat=flat)
    lazy_bias = ztfzarr.master_bias(biases.chunk(time=-1, quadrant=1, y=616), skip=0)
    lazy_science = science(sky.chunk(time=1, quadrant=1)).mean(("quadrant", "y", "x"))

    def each(index: int) -> xr.Dataset:
        return science(sky.isel(time=[index])).mean(("quadrant", "y", "x"))

    runs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "master bias of 10 frames, joined": (
            lambda: _in_parts(store, biases),
            lambda: lazy_bias.compute(num_workers=THREADS),
        ),
        "master bias of 10 frames, in dask's chunks": (
            lambda: _in_parts(store, biases),
            lambda: lazy_bias.persist(num_workers=THREADS),
        ),
        f"science and mask of {sky.sizes['time']} exposures, averaged": (
            lambda: in_threads(THREADS, each, range(sky.sizes["time"])),
            lambda: lazy_science.compute(num_workers=THREADS),
        ),
    }
    for name, (plain, dask) in runs.items():
        (wall, cpu), (dask_wall, dask_cpu) = _paired(plain, dask, 8)
        walls = f"{wall:.2f} | {dask_wall:.2f} | {100 * (dask_wall / wall - 1):.0f} %"
        print(f"| {name} | {walls} | {cpu:.2f} | {dask_cpu:.2f} | {100 * (dask_cpu / cpu - 1):.0f} % |")
    print()


def _sky(store: Path) -> xr.Dataset:
    cube = ztfzarr.open_cube(store)
    rows = np.flatnonzero((cube["imgtype"].values == "object") & (cube["night"].values == NIGHT))
    return cube.isel(time=rows).sel(ccd=[CCD])


def _paired(first: Callable[[], object], second: Callable[[], object], times: int) -> list[tuple[float, float]]:
    """Run two in turns, so that both meet the same machine; the median wall and CPU seconds of each."""
    found: list[list[tuple[float, float]]] = [[], []]
    for turn in range(times + 1):
        for run, seconds in zip((first, second), found, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if turn > 0:  # the first loads what is compiled
                seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [
        (float(np.median(w)), float(np.median(c))) for w, c in (zip(*seconds, strict=True) for seconds in found)
    ]


def report_linear(store: Path) -> None:
    """Seconds of the stored product against the number of exposures or frames, in one process."""
    print("| stored science of a CCD, exposures | seconds | seconds an exposure |\n|---|---|---|")
    reduce(store, ["science"], version="v4", selection=Selection(*MORE))  # loads what is compiled
    for night, number in {**MORE, NIGHT: 12}.items():
        start = time.perf_counter()
        reduce(store, ["science"], version="v5", selection=Selection(night, night))
        seconds = time.perf_counter() - start
        print(f"| {number} | {seconds:.1f} | {seconds / number:.2f} |")
    print("\n| master bias of a CCD in memory, frames | seconds | seconds a frame |\n|---|---|---|")
    for frames in (10, 20, 40):
        seconds = _best(lambda frames=frames: _in_parts(store, _biases(store, frames)), 3)
        print(f"| {frames} | {seconds:.2f} | {seconds / frames:.3f} |")
    print()


def report_memory(store: Path) -> None:
    """Peak memory of combining 10, 20 and 40 frames, each in a process of its own."""
    print("| frames of a master bias | peak memory, GB |\n|---|---|")
    for frames in (10, 20, 40):
        command: list[Any] = [sys.executable, __file__, "--folder", str(store), "--frames", str(frames)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"| {frames} | {found} |")
    print()


def combine_frames_of(store: Path, frames: int) -> None:
    """Combine so many frames of the store, some of them twice."""
    _in_parts(store, _biases(store, frames))


def report_levels(store: Path) -> None:
    """Size and speed of pcodec's levels, and of telling it how to code, on a chunk of science."""
    science = xr.open_zarr(f"{store}/science/v1", chunks=None, zarr_format=3)
    row = int(np.flatnonzero(science["present"].sel(ccd=CCD).values)[0])
    chunk = np.ascontiguousarray(science["science"][row, CCD - 1, 0, :616, :512].values)
    print("| science in multiples of 1/8 DN | bits a pixel | encode, Mpix/s | decode, Mpix/s |\n|---|---|---|---|")
    told = {"mode_spec": ModeSpec.try_float_mult(0.125), "delta_spec": DeltaSpec.no_op()}
    for level in (2, 4, 6, 8, 10):
        for name, how in (("told", told), ("searching", {})):
            config = ChunkConfig(level, **how)
            data = standalone.simple_compress(chunk.ravel(), config)
            encode = _best(partial(standalone.simple_compress, chunk.ravel(), config), 5)
            decode = _best(partial(standalone.simple_decompress, data), 5)
            rates = f"{chunk.size / 1e6 / encode:.0f} | {chunk.size / 1e6 / decode:.0f}"
            print(f"| level {level}, {name} | {8 * len(data) / chunk.size:.2f} | {rates} |")


if __name__ == "__main__":
    main()
