"""What there is of each product, night by night: made, missing, flagged, stale, and its quality in a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.reduce.inputs import Inputs, master_inputs
from ztfzarr.reduce.report import Selection
from ztfzarr.reduce.shelf import open_shelf
from ztfzarr.store.group import array_of, open_raw, read_table
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.versions import Version, find_version, versions_of

MANY: Final = 20_000  # exposures of the sky: of more, sky and noise are not read

# Tables whose range over a night's quadrants says how good a product is: table, name, unit, format.
QUALITY: Final = {
    "bias": (("read_noise", "read noise", " DN", ".2f"), ("structure", "structure", " DN", ".2f")),
    "pocket": (("flat_ratio", "flats / table", "", ".2f"), ("sky_ratio", "sky / table", "", ".2f")),
    "flat": (("scatter", "scatter", "", ".2%"), ("gain", "gain", " e-/DN", ".2f"), ("level", "level", "", ".3f")),
    "science": (("sky", "sky", " DN", ".0f"), ("noise", "noise", " DN", ".1f")),
    "stars": (("fwhm", "fwhm", " px", ".2f"), ("wcs_rms", "WCS", " px", ".2f")),
}


@dataclass(frozen=True)
class ProductNight:
    """A night of a version: entries made, that could be made and are not, flagged, and stale; quality in a line.

    Masters of longer periods stand in the first of their nights. Stale are masters that have got more frames
    since, and science whose own night has got a sound master since.
    """

    group: str
    night: int
    made: int
    missing: int
    flagged: int
    stale: int
    quality: str


def product_nights(store: StoreLike, selection: Selection | None = None) -> list[ProductNight]:
    """List the products of a store.

    Parameters
    ----------
    store : path or URL
        Of the store.
    selection : Selection, optional
        Nights; default all.

    Returns
    -------
    list of ProductNight
        By version, then night.
    """
    objects = open_objects(store)
    selection = selection or Selection()
    found: list[ProductNight] = []
    for version in versions_of(objects):
        listed = LISTED.get(version.kind, _masters)
        found += sorted(listed(objects, version, selection), key=lambda night: night.night)
    return found


def _masters(objects: Objects, version: Version, selection: Selection) -> Iterator[ProductNight]:
    group = version.open()
    tables = _tables(group, ("present", "flag", "inputs"))
    whole: dict[tuple[int, int], list[Inputs]] = {}
    for one in master_inputs(objects, version, selection):
        whole.setdefault((one.row, one.night), []).append(one)
    for (row, night), inputs in whole.items():
        ccds = np.array([i.ccd for i in inputs]) - 1
        present = tables["present"][row][..., ccds] == 1
        flagged = (tables["flag"][row][..., ccds, :] != 0).any(axis=-1) & present
        stale = present & (tables["inputs"][row][..., ccds] != np.array([len(i.exposures) for i in inputs]))
        quality = _quality(group, version.kind, slice(row, row + 1), tables["present"][row] == 1)
        counts = int(present.sum()), int((~present).sum()), int(flagged.sum()), int(stale.sum())
        yield ProductNight(version.group, night, *counts, quality)


def _science(objects: Objects, version: Version, selection: Selection) -> Iterator[ProductNight]:
    raw, group = open_raw(objects), version.open()
    length = array_of(group, "present").shape[0]  # rows that the cube got since are not yet among science's
    nights, imgtype = read_table(raw, "night")[:length], read_table(raw, "imgtype")[:length]
    chosen = np.asarray(imgtype == "object") & (nights >= selection.first) & (nights <= selection.last)
    rows = np.flatnonzero(chosen)
    there = read_table(raw, "present")[rows] == 1
    present = np.asarray(array_of(group, "present")[...])[rows] == 1
    stale = present & superseded(objects, version, rows, nights[rows], read_table(raw, "filter")[rows])
    few = len(rows) <= MANY
    flag = np.asarray(array_of(group, "flag")[...])[rows] if few else np.zeros((*present.shape, 4), np.uint8)
    flagged = present & (flag != 0).any(axis=-1)
    for night in np.unique(nights[rows]).tolist():
        mine = np.flatnonzero(nights[rows] == night)
        span = slice(int(rows[mine[0]]), int(rows[mine[-1]]) + 1)
        within = np.zeros((span.stop - span.start, present.shape[1]), bool)
        within[rows[mine] - span.start] = present[mine]
        quality = _quality(group, "science", span, within) if few else ""
        lost = there[mine] & ~present[mine]
        made, missing, bad, old = (int(v.sum()) for v in (present[mine], lost, flagged[mine], stale[mine]))
        yield ProductNight(version.group, night, made, missing, bad, old, quality)


def _stars(objects: Objects, version: Version, selection: Selection) -> Iterator[ProductNight]:
    """List nights with exposures of the sky; tables are never stale: their science is of one version."""
    raw, group = open_raw(objects), version.open()
    present, flag = (np.asarray(array_of(group, name)[...]) for name in ("present", "flag"))
    length = len(present)
    nights, sky = read_table(raw, "night")[:length], read_table(raw, "imgtype")[:length] == "object"
    there = read_table(raw, "present")[:length] == 1
    for night in np.unique(nights[sky]).tolist():
        if not selection.has(night):
            continue
        rows = np.flatnonzero(np.asarray(sky) & (nights == night))
        made = present[rows] == 1
        flagged = made & (flag[rows] != 0).any(axis=-1)
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        counts = int(made.sum()), int((there[rows] & ~made).sum()), int(flagged.sum()), 0
        yield ProductNight(version.group, night, *counts, _quality(group, "stars", span, made))


def _starflats(_objects: Objects, version: Version, selection: Selection) -> Iterator[ProductNight]:
    """List maps under the first night of their exposures."""
    group = version.open()
    tables = _tables(group, ("present", "filter", "first_night", "delta", "slope_u", "chi2"))
    for i in np.flatnonzero(tables["present"] == 1).tolist():
        night = int(tables["first_night"][i])
        if selection.has(night):
            plane = "plane from the catalogue" if np.isfinite(tables["slope_u"][i]) else "plane undetermined"
            extent = 1000 * (np.nanmax(tables["delta"][i]) - np.nanmin(tables["delta"][i]))
            text = f"{tables['filter'][i]} {extent:.0f} mmag, chi2 {tables['chi2'][i]:.2f}, {plane}"
            yield ProductNight(version.group, night, 1, 0, 0, 0, text)


LISTED: Final = {"science": _science, "stars": _stars, "starflat": _starflats}


def superseded(
    objects: Objects,
    version: Version,
    rows: NDArray[np.int64],
    nights: NDArray[np.int32],
    filters: NDArray[Any],
) -> NDArray[np.bool_]:
    """Say which exposures, (time, ccd), have got a sound master of their own night, and were made with another.

    ``rows`` are theirs as stored, ``nights`` and ``filters`` what raw says of these.
    """
    result = np.zeros((len(nights), 16), bool)
    group = version.open()
    bands = np.array([FILTERS.index(name) if name in FILTERS else 0 for name in filters.tolist()], np.int64)
    for kind in ("bias", "flat"):
        masters = find_version(objects, kind, version.recipe["science"][kind])
        if masters is None or masters.recipe[kind]["period"] != "night":
            continue
        shelf = open_shelf(masters)
        sound = shelf.made & ~shelf.flagged
        index = {int(n): i for i, n in enumerate(shelf.night)}
        row = np.array([index.get(int(n), -1) for n in nights], np.int64)
        own = sound[row] if kind == "bias" else sound[row, bands]
        used = np.asarray(array_of(group, f"{kind}_night")[...])[rows]
        result |= own & (row >= 0)[:, np.newaxis] & (used != nights[:, np.newaxis])
    return result


def _tables(group: zarr.Group, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(array_of(group, name)[...]) for name in names}


def _quality(group: zarr.Group, kind: str, rows: slice, made: NDArray[np.bool_]) -> str:
    """Write the range of each table of quality over the entries that are made."""
    parts = []
    for name, title, unit, form in QUALITY[kind]:
        values = np.asarray(array_of(group, name)[rows], np.float64)
        values = values[np.isfinite(values)]
        if made.any() and values.size:
            low, high = format(values.min(), form), format(values.max(), form)
            parts.append(f"{title} {low}{unit}" if low == high else f"{title} {low}-{high}{unit}")
    return ", ".join(parts)
