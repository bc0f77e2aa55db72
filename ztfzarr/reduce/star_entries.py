"""The stars of an exposure and CCD: measured, placed on the sky, written and described."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ztfzarr import horizon
from ztfzarr.geometry import QUADRANTS, rcid
from ztfzarr.photometry.catalogue import Catalogue, read_catalogue
from ztfzarr.photometry.columns import COLUMNS, FLAGS
from ztfzarr.photometry.matching import nearest_entries
from ztfzarr.photometry.measure import Columns
from ztfzarr.photometry.quadrant import ccd_stars, quadrant_stars
from ztfzarr.photometry.wcs import Sky, fit_sky, header_sky
from ztfzarr.photometry.wcs_files import read_wcs_files
from ztfzarr.reduce.provenance import stars_provenance
from ztfzarr.reduce.science import Shot
from ztfzarr.reduce.science_images import ScienceImages
from ztfzarr.sky import from_tangent_plane, pixels_of, plane_of_pixels
from ztfzarr.store.entries import Entry
from ztfzarr.store.group import open_raw
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import PRODUCTS, WCS
from ztfzarr.store.star_tables import create_table
from ztfzarr.store.tables import file_headers
from ztfzarr.store.versions import Version, existing_version

QUALITY: Final = PRODUCTS["stars"].tables["flag"].flags or {}
AROUND: Final = 0.8  # degrees from the middle of a quadrant: half its diagonal is 0.61, and 6' around
POINTED: Final = ("ra", "dec", "airmass", "exptime", "time")


@dataclass(frozen=True)
class StarTask:
    """What a run's exposures share: store, version, paths of a catalogue and of WCS files, a name of its own."""

    objects: Objects
    version: str
    catalogue: str | None = None
    wcs: tuple[str, ...] = ()
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What is opened once a process."""

    version: Version
    images: ScienceImages
    catalogue: Catalogue | None
    headers: dict[tuple[int, int, int], str]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns of a quadrant."""
        return self.images.cube.sizes["y"], self.images.cube.sizes["x"]

    def entries(self, shot: Shot, quadrant: int) -> pd.DataFrame | None:
        """Return the part of the catalogue that a quadrant may see; None without a catalogue."""
        if self.catalogue is None:
            return None
        rows, columns = self.shape
        u, v = plane_of_pixels(rcid(shot.ccd, quadrant), (columns - 1) / 2, (rows - 1) / 2, self.shape)
        pointing = (self.images.cube[name].values[shot.index] for name in ("ra", "dec"))
        ra, dec = from_tangent_plane(u, v, *pointing)
        return self.catalogue.around(float(ra), float(dec), AROUND)


@dataclass(frozen=True)
class _Found:
    """Where a quadrant looks, and from what source that is; why not, if it is not known."""

    sky: Sky | None
    source: str = ""
    reason: str = ""


@lru_cache(maxsize=1)
def _bench(task: StarTask) -> _Bench:
    version = existing_version(task.objects, "stars", task.version)
    images = ScienceImages(task.objects, version.recipe["stars"]["science"])
    catalogue = None if task.catalogue is None else Catalogue(read_catalogue(task.catalogue))
    return _Bench(version, images, catalogue, read_wcs_files(task.wcs))


def make_stars(task: StarTask, shot: Shot) -> list[Entry]:
    """Measure the stars of an exposure and CCD, and create their table.

    Parameters
    ----------
    task : StarTask
        What the run shares.
    shot : Shot
        The exposure and CCD.

    Returns
    -------
    list of Entry
        To be marked.

    Raises
    ------
    ValueError
        If no master calibrates it.
    StoreError
        If another table is there already.
    """
    bench = _bench(task)
    settings = bench.version.recipe["stars"]
    headers = file_headers(open_raw(task.objects), shot.row, shot.ccd)
    parts, found = [], []
    for quadrant, columns in zip(QUADRANTS, _measured(bench, shot), strict=True):
        entries = bench.entries(shot, quadrant)
        found.append(_sky(bench, shot, quadrant, columns, headers[quadrant], entries))
        placed = _placed(bench, shot, quadrant, columns, found[-1].sky)
        parts.append(placed | {"star": _named(bench, placed, found[-1].sky, entries)})
    table = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    create_table(bench.version, shot.exposure, shot.ccd, table)
    stored = bench.images.is_stored(shot)
    provenance = stars_provenance(bench.version, stored, [f.reason for f in found], bench.catalogue is not None)
    tables = _quality(parts, found, int(settings["fewest"])) | {"provenance": provenance}
    return [Entry((shot.row, shot.ccd - 1), tables)]


def _measured(bench: _Bench, shot: Shot) -> Iterator[Columns]:
    """Measure the quadrants of an exposure and CCD: one after the other, or all together on the CCD."""
    settings = bench.version.recipe["stars"]
    how = {name: settings[name] for name in ("threshold", "pixels", "mesh")} | {"annulus": (*settings["annulus"],)}
    images = (bench.images.read(shot, quadrant) for quadrant in QUADRANTS)
    if settings["apertures"] == "quadrant":
        yield from (quadrant_stars(*image, **how) for image in images)
    else:
        yield from ccd_stars(*(np.stack(image) for image in zip(*images, strict=True)), **how)


def _exposure(bench: _Bench, shot: Shot) -> dict[str, Any]:
    cube = bench.images.cube
    return {name: cube[name].values[shot.index] for name in POINTED}


def _sky(
    bench: _Bench, shot: Shot, quadrant: int, columns: Columns, blocks: bytes, entries: pd.DataFrame | None
) -> _Found:
    """Find where a quadrant looks: by the raw header, else by a file, else by the catalogue."""
    key = (shot.exposure, shot.ccd, quadrant)
    for source, text in (("header", blocks), ("file", bench.headers.get(key))):
        known = None if text is None else header_sky(text)
        if known is not None:
            return _Found(known, source)
    if entries is None:
        return _Found(None, "", "no WCS and no catalogue")
    now = _exposure(bench, shot)
    band = str(bench.images.cube["filter"].values[shot.index])
    ra, dec, magnitude = (entries[name].to_numpy(np.float64) for name in ("ra", "dec", band))
    good = (columns["flags"] & FLAGS["bad"]) == 0
    x, y, flux = (columns[name][good] for name in ("x", "y", "flux_5"))
    pointing = float(now["ra"]), float(now["dec"])
    try:
        sky = fit_sky(x, y, flux, (ra, dec, magnitude), pointing, rcid(shot.ccd, quadrant), bench.shape)
    except ValueError as error:
        return _Found(None, "", str(error))
    return _Found(sky, "catalogue")


def _placed(bench: _Bench, shot: Shot, quadrant: int, columns: Columns, sky: Sky | None) -> Columns:
    """Add what the pixels do not tell: which exposure, where on the sky, through how much air."""
    now = _exposure(bench, shot)
    if not now["exptime"] > 0:
        raise ValueError(f"its exposure time is {now['exptime']} s: expected more than 0")
    count = columns["x"].size
    u, v = plane_of_pixels(rcid(shot.ccd, quadrant), columns["x"], columns["y"], bench.shape)
    pointing = float(now["ra"]), float(now["dec"])
    near = from_tangent_plane(u, v, *pointing)
    ra, dec = (np.full(count, np.nan),) * 2 if sky is None else sky.world(columns["x"], columns["y"])
    middle = now["time"] + np.timedelta64(round(float(now["exptime"]) * 500), "ms")
    direction = near if sky is None else (ra, dec)
    altitude = horizon.horizontal(direction[0], direction[1], middle)[1]
    scalars = {
        "exposure": shot.exposure,
        "night": int(bench.images.cube["night"].values[shot.index]),
        "filter": str(bench.images.cube["filter"].values[shot.index]),
        "ccd": shot.ccd,
        "quadrant": quadrant,
        "pointing_ra": pointing[0],
        "pointing_dec": pointing[1],
        "exposure_airmass": float(now["airmass"]),
    }
    placed = columns | {name: np.full(count, value) for name, value in scalars.items()}
    placed |= {"u": u, "v": v, "ra": ra, "dec": dec, "airmass": horizon.airmass(altitude)}
    placed["magnitude"] = columns["magnitude"] + 2.5 * np.log10(float(now["exptime"]))
    placed["flags"] = columns["flags"] | np.uint16(FLAGS["no_wcs"] if sky is None else 0)
    return placed


def _named(bench: _Bench, placed: Columns, sky: Sky | None, entries: pd.DataFrame | None) -> NDArray[np.int64]:
    """Say which entries of the catalogue stars are; -1 none."""
    if entries is None or sky is None:
        return np.full(placed["x"].size, -1, np.int64)
    limit = bench.version.recipe["stars"]["match"] / pixels_of(1 / 3600, bench.shape)
    return nearest_entries(placed["ra"], placed["dec"], entries, limit)


def _quality(parts: list[Columns], found: list[_Found], fewest: int) -> dict[str, Any]:
    counts = np.array([part["x"].size for part in parts], np.int32)
    no_wcs = np.array([f.sky is None for f in found])
    flag = np.where(no_wcs, QUALITY["no_wcs"], 0) | np.where(counts < fewest, QUALITY["few_stars"], 0)
    return {
        "stars": counts,
        "fwhm": np.array([_median_fwhm(part) for part in parts], np.float32),
        "wcs": np.array([WCS.get(f.source, 0) for f in found], np.uint8),
        "wcs_stars": np.array([0 if f.sky is None else f.sky.stars for f in found], np.int32),
        "wcs_rms": np.array([np.nan if f.sky is None else f.sky.rms for f in found], np.float32),
        "flag": flag.astype(np.uint8),
    }


def _median_fwhm(part: Columns) -> float:
    good = part["fwhm"][(part["flags"] | FLAGS["no_wcs"]) == FLAGS["no_wcs"]]
    good = good[np.isfinite(good)]
    return float(np.median(good)) if good.size else float("nan")
