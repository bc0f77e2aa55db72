"""Figures of the reductions on full-size quadrants: combining, masters from the cube, science; against peers.

    python benchmarks/reduce.py [--folder DIR] [--peers]

``--peers`` also runs ccdproc (``pip install ccdproc``) on the same files: overscan and combination of ten biases
of a CCD, from the FITS files. Prints Markdown; docs/benchmarks.md holds a run.
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
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clip

from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.ingest.run import ingest
from ztfzarr.kernels import combine as kernel
from ztfzarr.simulate import simulate_night

CCD = 6
MPIX = 4 * FULL_SHAPE[0] * FULL_SHAPE[1] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to make files (3 GB); default the temporary folder")
    parser.add_argument("--peers", action="store_true", help="run ccdproc too")
    arguments = parser.parse_args()
    report_combining()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        simulate_night(folder, ccds=(CCD,), shape=FULL_SHAPE, bias=20, flats=3, science=3, workers=2)
        ingest(folder / "night.zarr", [folder / "raw"])
        report_production(folder / "night.zarr")
        if arguments.peers:
            report_ccdproc(folder)


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
    print("| from the cube to the stored product, one CCD | seconds | peak memory |\n|---|---|---|")
    frames = {"bias": "10 frames of 20", "flat": "33 frames, 11 LEDs", "science": "3 exposures"}
    for kind, what in frames.items():
        for _ in range(2):  # the first loads or makes what is compiled
            shutil.rmtree(store / kind, ignore_errors=True)
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "ztfzarr.cli", kind, str(store), "-q"], check=True)
            seconds = time.perf_counter() - start
        print(f"| {kind}: {what} | {seconds:.1f} | {_peak():.2f} GB so far |")
    print()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def report_ccdproc(folder: Path) -> None:
    """Time ccdproc at the same: overscan and sigma-clipped mean of the last ten biases of a CCD."""
    import ccdproc
    from astropy.nddata import CCDData

    files = sorted((folder / "raw").rglob("*_bi_*.fits.fz"))[10:]
    start = time.perf_counter()
    for quadrant in range(1, 5):
        frames = []
        for path in files:
            with fits.open(path) as file:
                image, strip = (CCDData(file[i].data, unit="adu") for i in (quadrant, quadrant + 4))
            columns = strip[:, 5:25]
            frames.append(ccdproc.subtract_overscan(image, overscan=columns, overscan_axis=1, median=True))
        ccdproc.combine(frames, method="average", sigma_clip=True)
    seconds = time.perf_counter() - start
    print(f"| ccdproc {ccdproc.__version__}, overscan and combine of 10 biases | {seconds:.0f} s |")


if __name__ == "__main__":
    main()
