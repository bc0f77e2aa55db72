"""What the tests of the store share: the truth by astropy, the plain decoder of the docs, and harm to objects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from astropy.io import fits

from ztfzarr.geometry import CCDS

ROOT = Path(__file__).parents[1]


def exposure_of(path: Path) -> int:
    return int(path.name[4:18])


def ccd_of(path: Path) -> int:
    return int(re.search(r"_c(\d\d)_", path.name)[1])


def astropy_images(path: Path) -> list[np.ndarray]:
    """The eight images of a raw file as astropy returns them: four quadrants, four overscans."""
    with fits.open(path) as file:
        return [np.asarray(hdu.data, np.float32) for hdu in file[1:]]


def astropy_cube(paths: Iterable[Path]) -> SimpleNamespace:
    """``raw`` and ``overscan`` (time, ccd, quadrant, y, x) of files as open_cube must give them; ``exposure``."""
    images = {(exposure_of(p), ccd_of(p)): astropy_images(p) for p in paths}
    exposures = sorted({exposure for exposure, _ in images})
    first = next(iter(images.values()))
    shapes = [(len(exposures), len(CCDS), 4, *first[i].shape) for i in (0, 4)]
    raw, overscan = (np.full(shape, np.nan, np.float32) for shape in shapes)
    for (exposure, ccd), data in images.items():
        raw[exposures.index(exposure), ccd - 1] = data[:4]
        overscan[exposures.index(exposure), ccd - 1] = data[4:]
    return SimpleNamespace(raw=raw, overscan=overscan, exposure=exposures)


def plain_decoder_source() -> str:
    """The decoder that docs/data-model.md gives to those who have nothing of ours."""
    text = (ROOT / "docs" / "data-model.md").read_text()
    return re.search(r"<!-- plain decoder -->\n```python\n(.*?)```", text, re.DOTALL)[1]


def plain_decoder() -> SimpleNamespace:
    names: dict = {}
    exec(plain_decoder_source(), names)
    return SimpleNamespace(decode=names["decode"], image=names["image"])


def shard(store: Path, name: str, row: int, ccd: int) -> Path:
    """The object that a file owns in an array."""
    zeros = 3 if name in ("raw", "overscan") else 2
    return store / "raw" / name / "c" / str(row) / str(ccd - 1) / "/".join("0" * zeros)


def flip(path: Path, offset: int) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def contents(store: Path) -> dict[str, bytes]:
    """Every object of a store that readers may see."""
    paths = [p for p in store.rglob("*") if p.is_file()]
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in paths if ".ztfzarr" not in p.parts}
