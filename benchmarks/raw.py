"""Figures of the raw cube on full-size files: size, ingest, decoding, memory; against astropy in the same run.

    python benchmarks/raw.py [--folder DIR] [--sky FILE] [--files N]

Files are simulated and compressed by CFITSIO's own ``fpack -q 4`` where it is installed. ``--sky`` exposes a
real image instead of made stars. Prints Markdown; docs/benchmarks.md holds a run.
"""

from __future__ import annotations

import argparse
import os
import platform
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

import ztfzarr
from ztfzarr.geometry import FULL_SHAPE
from ztfzarr.ingest.run import ingest
from ztfzarr.simulate import camera, conditions, raw_ccd, read_sky, schedule
from ztfzarr.simulate.files import file_bytes, raw_path
from ztfzarr.simulate.header import extension_cards, primary_header

CCD = 6
KINDS = ("bias", "flat", "object")
MPIX = 4 * FULL_SHAPE[0] * (FULL_SHAPE[1] + 30) / 1e6


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        files = make_files(folder / "raw", arguments.files, arguments.sky)
        print(f"{_machine()}; {_packer()}; {arguments.files} files of each kind, {MPIX:.1f} Mpix a file\n")
        ingest(folder / "warm.zarr", [files["bias"][0]])  # compiles, or loads what is compiled
        report_ingest(folder, [path for kind in KINDS for path in files[kind]])
        report_sizes(folder / "night.zarr", files)
        report_decoding(folder / "night.zarr", files)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to make files (2 GB); default the temporary folder")
    parser.add_argument("--sky", type=Path, help="FITS image of the real sky")
    parser.add_argument("--files", type=int, default=8, help="files of each kind")
    return parser.parse_args()


def make_files(folder: Path, count: int, sky: Path | None) -> dict[str, list[Path]]:
    """Make ``count`` raw files of each kind, of one CCD."""
    made = camera([CCD], FULL_SHAPE, 1)
    image = None if sky is None else read_sky(sky)
    exposures = schedule(20200801, bias=count, flats=1, science=count, seed=1)
    files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for exposure in exposures:
        path = raw_path(folder, exposure, CCD)
        kind = {"b": "bias", "f": "flat", "o": "object"}[path.name.split(".")[0][-1]]
        if len(files[kind]) < count:
            path.parent.mkdir(parents=True)
            _write(path, made, exposure, image)
            files[kind].append(path)
    return files


def _write(path: Path, made, exposure, image) -> None:
    raw = raw_ccd(made, exposure, CCD, sky=image)
    if shutil.which("fpack") is None:
        path.write_bytes(file_bytes(made, exposure, CCD, raw))
        return
    primary = primary_header(made, exposure, conditions(made, exposure, CCD), CCD)
    hdus = [fits.PrimaryHDU(header=primary)]
    for i, pixels in enumerate([*raw.images, *raw.overscans]):
        cards = fits.Header([fits.Card(*card) for card in extension_cards(made, CCD, i + 1)])
        hdus.append(fits.ImageHDU(pixels, header=cards))
    plain = path.with_suffix("")
    fits.HDUList(hdus).writeto(plain, checksum=True)
    subprocess.run(["fpack", "-r", "-q", "4", "-D", "-Y", str(plain)], check=True, capture_output=True)


def report_ingest(folder: Path, files: list[Path]) -> None:
    print("| ingest | Mpix/s | Mpix per CPU second | peak memory |\n|---|---|---|---|")
    for workers in (1, 2):
        for _ in range(2):
            shutil.rmtree(folder / "night.zarr", ignore_errors=True)
            used = time.process_time()
            report = ingest(folder / "night.zarr", files, workers=workers)
            used = time.process_time() - used
        assert report.ingested == len(files)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rates = f"{report.pixels / 1e6 / report.seconds:.0f} | {report.pixels / 1e6 / used:.0f}"
        print(f"| {workers} workers | {rates} | {peak:.2f} GB so far |")
    print()


def report_sizes(store: Path, files: dict[str, list[Path]]) -> None:
    exposures = ztfzarr.open_cube(store)["source_name"].sel(ccd=CCD)
    registered = {str(name): row for row, name in enumerate(exposures.values)}
    assert len(registered) == sum(map(len, files.values()))
    print("| store ÷ .fits.fz | all | raw | overscan | zscale, zzero | header |\n|---|---|---|---|---|---|")
    rows = _rows_as_stored(store)
    for kind in KINDS:
        archive = sum(path.stat().st_size for path in files[kind])
        parts = {
            name: sum(_size(store / "raw" / name / "c" / str(rows[path.name])) for path in files[kind]) / archive
            for name in ("raw", "overscan", "zscale", "zzero", "header")
        }
        scales = parts["zscale"] + parts["zzero"]
        shares = f"{parts['raw']:.3f} | {parts['overscan']:.4f} | {scales:.4f} | {parts['header']:.4f}"
        print(f"| {kind} | **{sum(parts.values()):.3f}** | {shares} |")
    objects = sum(1 for path in (store / "raw").rglob("*") if path.is_file())
    print(f"\n{objects / len(registered):.1f} objects a raw file (one CCD; tables and metadata included)\n")


def _rows_as_stored(store: Path) -> dict[str, int]:
    from ztfzarr.store.objects import open_objects
    from ztfzarr.store.register import open_raw, read_table

    names = read_table(open_raw(open_objects(store)), "source_name")[:, CCD - 1]
    return {str(name): row for row, name in enumerate(names)}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report_decoding(store: Path, files: dict[str, list[Path]]) -> None:
    cube = ztfzarr.open_cube(store).sel(ccd=CCD)
    names = list(cube["source_name"].values)
    print("| decode a CCD | astropy Mpix/s | open_cube Mpix/s | ratio | ratio per CPU second |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        path = files[kind][-1]
        one = cube.isel(time=names.index(path.name))
        pair = [
            (
                _timed(lambda path=path: _astropy(path)),
                _timed(lambda one=one: (one.raw.values, one.overscan.values)),
            )
            for _ in range(7)
        ]
        wall = statistics.median(a[0] / b[0] for a, b in pair)
        cpu = statistics.median(a[1] / b[1] for a, b in pair)
        rates = [MPIX / statistics.median(p[i][0] for p in pair) for i in (0, 1)]
        print(f"| {kind} | {rates[0]:.0f} | {rates[1]:.0f} | **{wall:.1f}** | **{cpu:.1f}** |")
    assert np.array_equal(one.raw.values, _astropy(path)[0])


def _astropy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with fits.open(path) as file:
        images = [file[i].data for i in range(1, 9)]
    return np.stack(images[:4]), np.stack(images[4:])


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else platform.machine()}, {cores} cores, Python {sys.version.split()[0]}"


def _packer() -> str:
    return "CFITSIO's fpack -q 4" if shutil.which("fpack") else "the simulator's own compression"


if __name__ == "__main__":
    main()
