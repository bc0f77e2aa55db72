"""A night of raw files, from nothing but its arguments."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from ztfzarr.simulate.camera import Camera, camera, check
from ztfzarr.simulate.detector import raw_ccd
from ztfzarr.simulate.files import file_bytes, raw_path, write_atomically
from ztfzarr.simulate.scene import read_sky
from ztfzarr.simulate.schedule import Exposure, schedule
from ztfzarr.simulate.starfield import catalogue
from ztfzarr.simulate.truth import write_catalogue, write_truth

Progress = Callable[[int, int], None]
MOST_STEP: Final = 1000  # DN


@dataclass(frozen=True)
class _Task:
    """One file to write: all that a process needs to know."""

    directory: Path
    exposure: Exposure
    ccd: int
    shape: tuple[int, int]
    seed: int
    sky: str | None
    pocket: bool
    colour_term: float
    amplifier_step: float


def simulate_night(
    directory: str | os.PathLike[str],
    *,
    night: int = 20200801,
    ccds: Sequence[int] = (1, 2),
    shape: tuple[int, int] = (616, 512),
    bias: int = 20,
    flats: int = 5,
    science: int = 6,
    starflat: int = 0,
    starflat_filter: str = "zr",
    colour_term: float = 0.0,
    sky: str | os.PathLike[str] | None = None,
    pocket: bool = False,
    amplifier_step: float = 0.0,
    seed: int = 1,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the raw files of a night as the camera does, and the truth beside them.

    Parameters
    ----------
    directory : path
        Gets ``raw/YYYY/MMDD/FFFFFF/*.fits.fz`` and ``truth/<night>.zarr``; made if need be. The camera
        depends on the seed alone: several nights in one directory share it.
    night : int
        YYYYMMDD.
    ccds : sequence of int
        1-16.
    shape : (int, int)
        Rows, columns of a quadrant; the camera's are 3080, 3072.
    bias, flats, science : int
        Bias frames; flats of each of the 11 LEDs; exposures of the sky, spread over zg, zr and zi.
    starflat : int
        Dithered exposures of one dense field, lit otherwise than dome flats tell; their catalogue is in
        ``truth/<night>_catalogue.fits``.
    starflat_filter : str
        Their filter: zg, zr or zi.
    colour_term : float
        By how many magnitudes their stars appear fainter if redder by one, a degree to the east of the axis.
    sky : path, optional
        FITS image of the real sky (DN) to expose, cut or repeated to the shape; its own noise stays in it.
    pocket : bool
        Read through the pockets of the serial registers; see :func:`~ztfzarr.simulate.detector.raw_ccd`.
    amplifier_step : float
        DN: standard deviation of the level by which a quadrant stands above its overscan, another in each exposure
        of the sky; 0: none.
    seed : int
        Of everything random.
    workers : int
        Processes; they start afresh (spawn), so a script needs its ``if __name__ == "__main__"``.
    progress : callable, optional
        Told the files done and the files in all, after each.

    Returns
    -------
    list of Path
        The raw files, sorted; their bytes depend on the arguments alone, not on ``workers``.

    Raises
    ------
    ValueError
        If an argument is out of range, the night cannot hold the exposures, or ``sky`` holds no image.
    """
    check(ccds, shape, seed)
    if workers < 1:
        raise ValueError(f"workers = {workers}: expected 1 or more")
    if not 0 <= amplifier_step < MOST_STEP:
        raise ValueError(f"amplifier_step = {amplifier_step}: expected DN from 0 to {MOST_STEP}")
    exposures = schedule(
        night, bias=bias, flats=flats, science=science, starflat=starflat,
        starflat_filter=starflat_filter, seed=seed,
    )  # fmt: skip
    image = None if sky is None else os.fspath(sky)
    pixels = None if image is None else read_sky(image)
    top, shape = Path(directory), (shape[0], shape[1])
    # CCD by CCD, so that a process makes each camera once.
    chosen = {"colour_term": colour_term, "amplifier_step": amplifier_step}
    tasks = [_Task(top, e, ccd, shape, seed, image, pocket, **chosen) for ccd in ccds for e in exposures]
    paths = _write_all(tasks, workers, progress)
    write_truth(top / "truth" / f"{night}.zarr", ccds, shape, seed, exposures, sky=pixels, **chosen)
    if starflat:
        write_catalogue(top / "truth" / f"{night}_catalogue.fits", catalogue(seed, exposures[-1].field, shape))
    return sorted(paths)


def _write_all(tasks: list[_Task], workers: int, progress: Progress | None) -> list[Path]:
    paths = []
    with _mapper(workers) as run:
        for path in run(_write, tasks):
            paths.append(path)
            if progress is not None:
                progress(len(paths), len(tasks))
    return paths


@contextmanager
def _mapper(
    workers: int,
) -> Iterator[Callable[[Callable[[_Task], Path], Iterable[_Task]], Iterator[Path]]]:
    """Give a map over tasks: the plain one, or one over processes."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map


@lru_cache(maxsize=1)
def _camera(ccd: int, shape: tuple[int, int], seed: int) -> Camera:
    return camera([ccd], shape, seed)


def _write(task: _Task) -> Path:
    """Expose, read and write one file."""
    made = _camera(task.ccd, task.shape, task.seed)
    image = None if task.sky is None else read_sky(task.sky)
    chosen = {"colour_term": task.colour_term, "amplifier_step": task.amplifier_step}
    raw = raw_ccd(made, task.exposure, task.ccd, sky=image, pocket=task.pocket, **chosen)
    path = raw_path(task.directory, task.exposure, task.ccd)
    write_atomically(path, file_bytes(made, task.exposure, task.ccd, raw))
    return path
