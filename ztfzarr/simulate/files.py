"""Raw files, as the camera writes and the archive keeps them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from astropy.io import fits

from ztfzarr.geometry import archive_folder
from ztfzarr.simulate.camera import Camera
from ztfzarr.simulate.conditions import conditions
from ztfzarr.simulate.detector import RawCcd
from ztfzarr.simulate.header import extension_cards, file_name, primary_header
from ztfzarr.simulate.quantities import stream
from ztfzarr.simulate.schedule import Exposure
from ztfzarr.simulate.tiles import compressed_hdu, hdu_bytes


def raw_path(directory: Path, exposure: Exposure, ccd: int) -> Path:
    """Return where the archive keeps a file: raw/YYYY/MMDD/FFFFFF/ below a directory."""
    return directory / archive_folder(exposure.number) / f"{file_name(exposure, ccd)}.fz"


def file_bytes(camera: Camera, exposure: Exposure, ccd: int, raw: RawCcd) -> bytes:
    """Make a raw file: a primary header, four quadrants, their four overscans.

    Parameters
    ----------
    camera, exposure, ccd
        What took the pixels.
    raw : RawCcd
        The pixels.

    Returns
    -------
    bytes
        The same for the same arguments: the times it names are those of the exposure.
    """
    stamp = str(exposure.shutter_open.astype("datetime64[s]"))
    primary = primary_header(camera, exposure, conditions(camera, exposure, ccd), ccd)
    rng = stream(camera.seed, "dither", exposure.number, ccd)
    images = [*raw.images, *raw.overscans]
    seeds = rng.choice(np.arange(1, 10_001), len(images), replace=False).tolist()
    hdus = [
        compressed_hdu(image, seeds[i], extension_cards(camera, ccd, i + 1), stamp)
        for i, image in enumerate(images)
    ]
    return b"".join([hdu_bytes(fits.PrimaryHDU, primary, b"", stamp), *hdus])


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name of this process, then rename it: readers see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
