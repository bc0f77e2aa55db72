"""One raw file into its place in the cube."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.hdus import Hdu, check_sums, file_bytes, read_hdus
from ztfzarr.ingest.images import StoredImage, read_images
from ztfzarr.ingest.scan import RawFile, describe
from ztfzarr.store.objects import Objects
from ztfzarr.store.register import FilledFile, fill


def fill_file(objects: Objects, document: dict[str, Any], row: int, file: RawFile) -> FilledFile:
    """Read, check and encode a raw file, and create its objects in the cube.

    Parameters
    ----------
    objects : Objects
        The store.
    document : dict
        Of the raw group.
    row : int
        Of the exposure along time.
    file : RawFile
        As scanned.

    Raises
    ------
    RefusedError
        If the file is damaged; nothing of it is in the store then.
    """
    values, filled = read_file(file)
    fill(objects, document, (row, file.name.ccd), values)
    return filled


def read_file(file: RawFile) -> tuple[dict[str, NDArray[Any]], FilledFile]:
    """Read and check a raw file: its arrays as the cube has them, and what is marked of it.

    Raises
    ------
    RefusedError
        If the file is damaged, or not what was scanned.
    """
    content = file.source.read()
    hdus = open_file(content, file)
    view = memoryview(content)
    for hdu in hdus:
        check_sums(hdu, view)
    zdither: list[int] = []
    values = file_values(hdus, view, zdither)
    return values, FilledFile(
        exposure=file.name.exposure,
        ccd=file.name.ccd,
        zdither=zdither,
        gain=file.gain,
        read_noise=file.read_noise,
        name=file.source.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        headers=[hdu.text for hdu in hdus],
    )


def open_file(content: bytes, file: RawFile) -> list[Hdu]:
    """Find the HDUs of a file again; RefusedError if it is not what was scanned."""
    hdus = read_hdus(file_bytes(content), len(content))
    again = describe(file.source, len(content), file.name, hdus)
    if (again.size, again.shape) != (file.size, file.shape):
        raise RefusedError("changed while it was being ingested")
    return hdus


def file_values(hdus: Sequence[Hdu], content: memoryview, zdither: list[int]) -> dict[str, NDArray[Any]]:
    """Return a file's pixels, scales and zeros as the arrays of the cube have them; append the dithers."""
    images = read_images(hdus[1:], content)
    zdither.extend(image.zdither for image in images)
    return {
        "raw": np.stack([image.integers for image in images[:4]]),
        "overscan": np.stack([image.integers for image in images[4:]]),
        "zscale": _stacked(images, "zscale"),
        "zzero": _stacked(images, "zzero"),
    }


def _stacked(images: Sequence[StoredImage], name: str) -> NDArray[np.float64]:
    return np.stack([getattr(image, name) for image in images])
