"""Stamps of a position: FITS files, and a contact sheet."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.export.headers import UNITS
from ztfzarr.plot.sheet import contact_sheet
from ztfzarr.reduce.calibrated import open_science
from ztfzarr.store.files import plain_name, write_file
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.threads import together, windowed
from ztfzarr.store.versions import find_version

PLANES: Final = ("mask", "variance")
AT_ONCE: Final = 16  # stamps that are cut together: they wait for a store


@dataclass(frozen=True)
class Stamp:
    """A stamp, stored orientation: ``images`` has science, and mask and variance where there are such, (y, x)."""

    match: xr.Dataset
    images: xr.Dataset

    @property
    def name(self) -> str:
        """Name of its file, without suffix; RefusedError if the store's names are not to be trusted."""
        m = self.match
        plain_name(str(m["filter"].values[()]), f"filter of exposure {int(m.exposure)}")
        return f"stamp_{int(m.exposure)}_{m['filter'].values[()]}_c{int(m.ccd):02d}_q{int(m.quadrant)}"


def stamps(
    store: StoreLike, matches: xr.Dataset, size: int, *, version: str = "v1"
) -> Iterator[Stamp | tuple[str, str]]:
    """Cut a square of science about each match.

    Parameters
    ----------
    store : path or URL
        Of the store.
    matches : Dataset
        From :func:`ztfzarr.find`.
    size : int
        Pixels of a side.
    version : str
        Of science; exposures of which it is not stored are computed.

    Yields
    ------
    Stamp
        ``size`` x ``size`` pixels about x, y; beyond the quadrant's edge NaN.
    (str, str)
        What could not be cut, and why.
    """
    sources = _Sources(store, version)

    def stamp(number: int) -> Stamp | tuple[str, str]:
        match = matches.isel(match=number)
        try:
            return Stamp(match, _cut(sources.frame(match), match, size))
        except (ValueError, StoreError) as error:
            return f"exposure {int(match.exposure)} CCD {int(match.ccd)}", str(error)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ztfzarr-stamps") as pool:
        yield from windowed(pool, stamp, range(matches.sizes["match"]), AT_ONCE)


class _Sources:
    """Science of a store: the stored version, and what is computed."""

    def __init__(self, store: StoreLike, version: str) -> None:
        self.stored = None
        if find_version(open_objects(store), "science", version) is not None:
            self.stored = open_version(store, "science", version)
            self.rows = _rows(self.stored)
            self.present = self.stored["present"].values == 1
        self.place = store, version
        self._opening = threading.Lock()

    @cached_property
    def computed(self) -> xr.Dataset:
        """What is computed, opened when it is needed first."""
        return open_science(self.place[0], version=self.place[1])

    def frame(self, match: xr.Dataset) -> xr.Dataset:
        """Open the quadrant that a match is in."""
        exposure, ccd = int(match.exposure), int(match.ccd)
        row = self.rows.get(exposure) if self.stored is not None else None
        if self.stored is not None and row is not None and self.present[row, ccd - 1]:
            dataset = self.stored
        else:
            with self._opening:
                dataset = self.computed
            row = _rows(dataset)[exposure]
        names = ["science", *(name for name in PLANES if name in dataset)]
        one = dataset[names].isel(time=row).sel(ccd=ccd, quadrant=int(match.quadrant))
        return one.reset_coords(drop=True)  # twenty, which would be read with each plane


def _rows(dataset: xr.Dataset) -> dict[int, int]:
    return {int(e): row for row, e in enumerate(dataset["exposure"].values)}


def _cut(frame: xr.Dataset, match: xr.Dataset, size: int) -> xr.Dataset:
    """Cut a square, padded with NaN, or 0 in masks, where it leaves the quadrant."""
    first = {d: round(float(match[d])) - size // 2 for d in ("y", "x")}
    inside = {d: slice(max(f, 0), max(f + size, 0)) for d, f in first.items()}
    part = frame.isel(inside)
    images = together(lambda name: part[name].load(), [*part])
    part = part.assign(dict(zip(part, images, strict=True)))
    whole = {d: f + np.arange(size) for d, f in first.items()}
    return part.reindex(whole, fill_value={name: np.nan if name != "mask" else 0 for name in part})


def stamp_content(stamp: Stamp, position: tuple[float, float], version: str) -> bytes:
    """Make the bytes of the FITS file of a stamp."""
    header = fits.Header(_cards(stamp, position, version))
    hdus: list[Any] = [fits.PrimaryHDU(stamp.images["science"].values, header)]
    for name in PLANES:
        if name in stamp.images:
            hdus.append(fits.ImageHDU(stamp.images[name].values, name=name.upper()))
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer, checksum=True)
    return buffer.getvalue()


def _cards(stamp: Stamp, position: tuple[float, float], version: str) -> list[tuple[str, Any, str]]:
    m, images = stamp.match, stamp.images
    return [
        ("EXPNUM", int(m.exposure), "exposure, YYYYMMDDFFFFFF"),
        ("DATE-OBS", str(m.time.values.astype("datetime64[ms]")), "opening of the shutter, UTC"),
        ("EXPTIME", float(m.exptime), "s"),
        ("BAND", str(m["filter"].values[()]), "filter"),
        ("FIELDID", int(m.field), "ZTF field"),
        ("CCD", int(m.ccd), "CCD 1-16"),
        ("QUADRANT", int(m.quadrant), "quadrant 1-4"),
        ("PRODVERS", version, "version of science"),
        ("BUNIT", UNITS.get(str(images["science"].attrs.get("units")), "adu"), "unit of the image"),
        ("RA_POS", position[0], "position looked for, degrees"),
        ("DEC_POS", position[1], "position looked for, degrees"),
        ("X_POS", float(m.x), "its stored column, 0-based"),
        ("Y_POS", float(m.y), "its stored row, 0-based"),
        ("POSERR", float(m.uncertainty), "uncertainty of both, pixels"),
        ("X_FIRST", int(images["x"][0]), "stored column of this image's first, 0-based"),
        ("Y_FIRST", int(images["y"][0]), "stored row of this image's first, 0-based"),
    ]


def write_stamps(
    store: StoreLike,
    matches: xr.Dataset,
    directory: str | os.PathLike[str],
    position: tuple[float, float],
    size: int,
    *,
    version: str = "v1",
) -> Iterator[str | tuple[str, str]]:
    """Write the stamps of matches, and a contact sheet of them all.

    Yields
    ------
    str
        Each file that is written: ``stamp_<exposure>_<filter>_c<ccd>_q<quadrant>.fits``, then
        ``contact-<n>.png``, 100 stamps each, in order of time.
    (str, str)
        What could not be cut, and why.
    """
    done: list[Stamp] = []
    for stamp in stamps(store, matches, size, version=version):
        if isinstance(stamp, tuple):
            yield stamp
            continue
        try:
            path = Path(directory, f"{stamp.name}.fits")
        except RefusedError as error:
            yield f"exposure {int(stamp.match.exposure)} CCD {int(stamp.match.ccd)}", str(error)
            continue
        write_file(path, stamp_content(stamp, position, version))
        done.append(stamp)
        yield str(path)
    yield from _sheets(done, Path(directory), position, version)


SHEET: Final = 100


def _sheets(done: list[Stamp], directory: Path, position: tuple[float, float], version: str) -> Iterator[str]:
    for number, first in enumerate(range(0, len(done), SHEET), start=1):
        some = done[first : first + SHEET]
        images = [stamp.images["science"] for stamp in some]
        title = f"science {version} at {position[0]:.5f} {position[1]:+.5f}"
        path = directory / f"contact-{number}.png"
        write_file(path, contact_sheet(images, [_label(stamp.match) for stamp in some], title, _places(some)))
        yield str(path)


def _label(match: xr.Dataset) -> str:
    time = str(match.time.values.astype("datetime64[m]")).replace("T", " ")
    return f"{time} {match['filter'].values[()]}\nCCD {int(match.ccd)} q{int(match.quadrant)}"


def _places(some: list[Stamp]) -> NDArray[np.float64]:
    return np.array([[float(s.match.x), float(s.match.y), float(s.match.uncertainty)] for s in some])
