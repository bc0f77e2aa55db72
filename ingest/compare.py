"""The cube against raw files: pixel for pixel with what astropy reads, card for card, and by SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.ingest.hdus import Hdu, file_bytes, read_hdus
from ztfzarr.ingest.headers import file_headers, row_of
from ztfzarr.ingest.names import parse_name
from ztfzarr.ingest.rare import astropy_images
from ztfzarr.ingest.restore import stored_images
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.store.check import PresentFile
from ztfzarr.store.objects import Objects
from ztfzarr.store.register import array_of, open_raw


def compare_files(
    objects: Objects,
    paths: Sequence[str],
    *,
    source_options: Mapping[str, str] | None = None,
    workers: int | None = None,
    step: Callable[[str, int], None] = lambda name, total: None,
    done: Callable[[], None] = lambda: None,
) -> tuple[int, list[str]]:
    """Compare the cube with raw files.

    Parameters
    ----------
    objects : Objects
        The store.
    paths : sequence of str
        Files, folders, globs or URLs.
    source_options : mapping of str, optional
        Credentials and settings of the object store that raw files are in; default the environment's.
    workers : int, optional
        Files at a time; default the number of cores.
    step, done : callable
        For progress.

    Returns
    -------
    int
        Number of files compared.
    list of str
        One line a difference.
    """
    sources, refused = find_sources(paths, source_options)
    faults = [f"{path}: {reason}" for path, reason in refused]
    step("compare", len(sources))
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for lines in pool.map(lambda source: _compared(objects, source), sources):
            done()
            faults += lines
    return len(sources), faults


def _compared(objects: Objects, source: Source) -> list[str]:
    try:
        return [f"{source.label}: {line}" for line in file_differences(objects, source)]
    except (RefusedError, StoreError, ValueError) as error:
        return [f"{source.label}: {str(error).splitlines()[0]}"]


def file_differences(objects: Objects, source: Source) -> Iterator[str]:
    """Compare one raw file with the cube: one line for each image, header or hash that differs."""
    name = parse_name(source.name)
    content = source.read()
    hdus = read_hdus(file_bytes(content), len(content))
    group = open_raw(objects)
    file = PresentFile(row_of(group, name.exposure), name.exposure, name.ccd)
    if _entry(group, "present", file) != 1:
        yield "not in the cube"
        return
    if _entry(group, "source_sha256", file) != hashlib.sha256(content).hexdigest():
        yield "SHA-256 differs from that of the file that was ingested"
    yield from _header_differences(group, file, hdus)
    yield from _pixel_differences(objects, file, hdus, memoryview(content))


def _entry(group: zarr.Group, name: str, file: PresentFile) -> object:
    return np.asarray(array_of(group, name)[file.row, file.ccd - 1])[()]


def _header_differences(group: zarr.Group, file: PresentFile, hdus: Sequence[Hdu]) -> Iterator[str]:
    for hdu, stored in zip(hdus, file_headers(group, file.row, file.ccd), strict=True):
        theirs = [hdu.text[i : i + 80] for i in range(0, len(hdu.text), 80)]
        ours = [stored[i : i + 80] for i in range(0, len(stored), 80)]
        if ours != theirs:
            cards = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
            yield f"HDU {hdu.index}: {cards} cards differ"


def _pixel_differences(
    objects: Objects, file: PresentFile, hdus: Sequence[Hdu], content: memoryview
) -> Iterator[str]:
    for hdu, image in zip(hdus[1:], stored_images(objects, file), strict=True):
        pixels, index = image.integers, hdu.index
        decode_rows(pixels, image.zscale, image.zzero, image.zdither, 0, 0, RANDOM)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = astropy_images([hdu], content)[0].astype(np.float32)
        ours: NDArray[np.float32] = pixels.view(np.float32)
        different = ~((ours == expected) | (np.isnan(ours) & np.isnan(expected)))
        if different.any():
            y, x = np.argwhere(different)[0]
            kind = "quadrant" if index <= 4 else "overscan of quadrant"
            where = f"{kind} {(index - 1) % 4 + 1}: {_differ(int(different.sum()))}"
            yield f"{where}, the first at y {y}, x {x}: {ours[y, x]}, expected {expected[y, x]}"


def _differ(count: int) -> str:
    return "1 pixel differs" if count == 1 else f"{count} pixels differ"
