"""Products of a store written as FITS files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from astropy.io import fits

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.export.fits import file_content, table_content
from ztfzarr.export.frames import Frame, check_any, frames
from ztfzarr.export.headers import identity, raw_headers
from ztfzarr.export.names import TEMPLATES, check_template, file_name
from ztfzarr.export.sheets import Sheet, sheets
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.store.check import Selection
from ztfzarr.store.files import write_file
from ztfzarr.store.objects import StoreLike
from ztfzarr.store.threads import windowed

SHEETS: Final = ("stars", "pocket")  # kinds that are written as tables


@dataclass
class Report:
    """Files written and found there, by path, and frames or files refused as (name, reason)."""

    written: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the report for JSON."""
        refused = [{"name": name, "reason": reason} for name, reason in self.refused]
        return {"written": self.written, "there": self.there, "refused": refused}


@dataclass(frozen=True)
class Events:
    """Whom to tell: a step's name and number of CCDs; each CCD done."""

    step: Callable[[str, int], None] = lambda name, total: None
    done: Callable[[], None] = lambda: None


def export(
    store: StoreLike,
    kind: str,
    directory: str | os.PathLike[str],
    *,
    version: str = "v1",
    selection: Selection | None = None,
    name: str | None = None,
    compress: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    events: Events | None = None,
) -> Report:
    """Write a product of a store as FITS files, one a quadrant.

    Parameters
    ----------
    store : path or URL
        Of the store.
    kind : str
        ``science``, ``bias``, ``flat`` or ``starflat``, one file a quadrant; ``stars``, one a table; ``pocket``,
        one a night.
    directory : path
        Gets the files; made if need be.
    version : str
        Of the product. Science that is not stored is computed, with the same pixels.
    selection : Selection, optional
        Nights and CCDs; default all.
    name : str, optional
        Template of the file names, with the fields exposure, field, filter, night, ccd, quadrant, kind, version.
    compress : bool
        Tile-compressed as by fpack, without loss; ``.fz`` is added to the names.
    overwrite : bool
        Replace files of other pixels; without it they are refused. Files of the same are left as they are.
    workers : int, optional
        CCDs at a time; default 2, which take 0.7 GB.
    events : Events, optional
        For progress.

    Raises
    ------
    StoreError
        If there is nothing to export.
    RefusedError
        If the template has unknown fields or gives two files one name, or tables are to be compressed.
    """
    if compress and kind in SHEETS:
        raise RefusedError(f"{kind} are tables, which are not compressed: leave out --compress")
    listed = sheets if kind in SHEETS else frames
    found: Sequence[Frame | Sheet] = listed(store, kind, version, selection or Selection())
    check_any(found, store, kind, version)
    template, events = name or TEMPLATES[kind], events or Events()
    check_template(template, found)
    events.step(f"export {kind}", len(found))
    job = _Job(store, Path(directory), template, compress, overwrite)
    report = Report()
    with ThreadPoolExecutor(workers or 2) as pool:
        for one in windowed(pool, job.write, found, 2 * (workers or 2)):
            report.written += one.written
            report.there += one.there
            report.refused += one.refused
            events.done()
    return report


@dataclass(frozen=True)
class _Job:
    """Where and how frames are written."""

    store: StoreLike
    directory: Path
    template: str
    compress: bool
    overwrite: bool

    def write(self, frame: Frame | Sheet) -> Report:
        """Write the quadrants of a frame, or a table, that are not there yet."""
        report = Report()
        wanted: list[tuple[int, Path]] = []
        for quadrant in frame.places:
            path = self.directory / file_name(self.template, frame, quadrant, compress=self.compress)
            if path.exists() and not path.is_file():
                report.refused.append((str(path), "is there and is no file"))
            elif self.overwrite or not path.exists():
                wanted.append((quadrant, path))
            elif _written_version(path) == identity(frame):
                report.there.append(str(path))
            else:
                report.refused.append(
                    (
                        str(path),
                        "exists, of another version or made otherwise: name another folder, or --overwrite",
                    )
                )
        try:
            for path in self._write_files(frame, wanted):
                report.written.append(str(path))
        except (ValueError, StoreError) as error:
            report.refused.append((frame.name, str(error)))
        return report

    def _write_files(self, frame: Frame | Sheet, wanted: list[tuple[int, Path]]) -> Iterator[Path]:
        if isinstance(frame, Sheet):
            for _, path in wanted:
                write_file(path, table_content(frame))
                yield path
        else:
            yield from self._write_quadrants(frame, wanted)

    def _write_quadrants(self, frame: Frame, wanted: list[tuple[int, Path]]) -> Iterator[Path]:
        raw = raw_headers(self.store, frame) if wanted and frame.kind == "science" else []
        for quadrant, path in wanted:
            # One by one: zarr reads lists of quadrants of a sharded array pixel by pixel, 10 times slower.
            images = frame.images.sel(quadrant=quadrant).load()
            write_file(path, file_content(frame, quadrant, raw, images, compress=self.compress))
            yield path


def _written_version(path: Path) -> str:
    """Return what an exported file says of its pixels; "" if it is none, or cut short."""
    try:
        with quiet_astropy(), fits.open(path) as file:
            return next((str(hdu.header["EXPVERS"]) for hdu in file[:2] if "EXPVERS" in hdu.header), "")
    except (OSError, ValueError, IndexError):
        return ""
