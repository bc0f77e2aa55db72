"""Raw files made for the tests: nine HDUs under a raw file's name, to be stored in any form or damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from ztfzarr.geometry import filefracday_time
from ztfzarr.ingest.hdus import Hdu, file_bytes, read_hdus

SHAPE = (24, 60)  # rows and columns of a quadrant
OVERSCAN = 9
FIRST = 20200924431759  # the exposure of the one real file
FILTER_IDS = {"zg": 1, "zr": 2, "zi": 3}

Cards = dict[str, object]


def raw_name(number: int = 0, ccd: int = 6, *, kind: str = "o", filter: str = "zr", field: int = 655) -> str:
    """The name of the file of a CCD, uncompressed; ``number`` counts exposures."""
    if kind != "o":
        field = 0
    return f"ztf_{FIRST + 500 * number}_{field:06d}_{'bi' if kind == 'b' else filter}_c{ccd:02d}_{kind}.fits"


def primary_cards(name: str) -> Cards:
    """Cards of a primary header that agree with a file's name; the shutter opens 1.7 s later."""
    _, number, field, band, _, kind = name.split(".")[0].split("_")
    opened = filefracday_time(int(number)) + np.timedelta64(1_700_000, "us")
    return {
        "IMGTYPE": {"b": "bias", "f": "flat", "o": "object"}[kind],
        "FILTERID": FILTER_IDS.get(band, 0),
        "FIELDID": int(field),
        "SHUTOPEN": str(opened),
        "SHUTCLSD": str(opened + np.timedelta64(29_964, "ms")),
        "EXPTIME": 30.0,
    }


def channel_cards(name: str, image: int) -> Cards:
    """Cards of extension 1-8 that agree with a file's name."""
    ccd = int(name.split("_c")[1][:2])
    return {"EXTNAME": str(image), "CCD_ID": ccd, "AMP_ID": (image - 1) % 4, "GAIN": 6.0 + image, "READNOI": 9.5}


def with_cards(header: fits.Header, cards: Cards) -> None:
    """Set cards; None removes one."""
    for key, value in cards.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value


def noise(seed: int = 0, shape: tuple[int, int] = SHAPE, overscan: int = OVERSCAN) -> list[np.ndarray]:
    """Pixels of eight images, float32: another level in each, with noise."""
    rng = np.random.default_rng(seed)
    columns = [shape[1]] * 4 + [overscan] * 4
    return [rng.normal(100 + i, 1.5, (shape[0], nx)).astype(np.float32) for i, nx in enumerate(columns)]


def raw_hdus(name: str, images: Sequence[np.ndarray | fits.ImageHDU] | None = None) -> fits.HDUList:
    """The nine HDUs of a raw file."""
    primary = fits.PrimaryHDU()
    with_cards(primary.header, primary_cards(name))
    hdus = [primary]
    for i, image in enumerate(noise() if images is None else images, start=1):
        hdus.append(image if isinstance(image, fits.ImageHDU) else fits.ImageHDU(image))
        with_cards(hdus[-1].header, channel_cards(name, i))
    return fits.HDUList(hdus)


def write_raw(
    folder: Path,
    name: str,
    images: Sequence[np.ndarray | fits.ImageHDU] | None = None,
    *,
    change: Callable[[fits.HDUList], None] | None = None,
    checksum: bool = True,
) -> Path:
    """Write an uncompressed raw file; ``change`` may alter its HDUs first."""
    hdus = raw_hdus(name, images)
    if change is not None:
        change(hdus)
    path = folder / name
    hdus.writeto(path, checksum=checksum, output_verify="silentfix", overwrite=True)
    return path


def find_hdus(content: bytes) -> list[Hdu]:
    """Where the HDUs of a raw file lie."""
    return read_hdus(file_bytes(content), len(content))


def flipped(content: bytes, *offsets: int) -> bytes:
    """The bytes with one bit flipped at each offset."""
    changed = bytearray(content)
    for offset in offsets:
        changed[offset] ^= 0x04
    return bytes(changed)
