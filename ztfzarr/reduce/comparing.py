"""Star tables, starflats and fitted pockets of two versions side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ztfzarr.geometry import CCDS
from ztfzarr.masters.numbers import MAD_TO_SIGMA
from ztfzarr.starflat.nodes import Nodes
from ztfzarr.steps.pocket import PARAMETERS
from ztfzarr.store.check_products import entry_name, labels_of
from ztfzarr.store.group import array_of
from ztfzarr.store.products import FILTERS
from ztfzarr.store.star_tables import marked, read_table
from ztfzarr.store.starflat_tables import read_starflat
from ztfzarr.store.versions import Version, made

NEAR: Final = 2.0  # pixels within which two detections in one image are the same star
EVERY: Final = (0, 99999999)
NUMBERS: Final = (
    "slope_u", "slope_v", "extinction", "chi2", "half_sample", "bright_faint", "measurements", "stars",
    "catalogue_stars", "rejected",
)  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MapDifference:
    """What the maps of two starflats differ by, mag: over the focal plane, a CCD, or a quadrant of it.

    ``ccd`` and ``quadrant`` are None where it is over all of them. A constant and a plane, fitted over all
    ``nodes`` that both have, are taken out before: ``rms`` and ``largest`` (absolute) are of what is left.
    """

    filter: str
    ccd: int | None
    quadrant: int | None
    nodes: int
    rms: float
    largest: float


@dataclass(frozen=True)
class NumberDifference:
    """A number of two starflats, NaN where undetermined; ``sigma`` is the second minus the first by its error."""

    filter: str
    name: str
    one: float
    other: float
    sigma: float


@dataclass(frozen=True)
class StarDifference:
    """What two star tables say of the same stars, of a filter and of magnitudes from ``bright`` to ``faint``.

    ``median`` and ``sigma`` (robust) are of the second magnitude minus the first, of ``both``; ``only_one`` and
    ``only_other`` have no partner within 2 pixels. Without limits of magnitude it is of all stars.
    """

    filter: str
    bright: float | None
    faint: float | None
    both: int
    median: float
    sigma: float
    only_one: int
    only_other: int


@dataclass(frozen=True)
class PocketDifference:
    """Fitted pockets of a quadrant: second minus first in their joint errors, of logarithms; and each fit's chi2.

    NaN where one of them has no fit but the table's pocket.
    """

    entry: str
    quadrant: int
    alpha: float
    cmax: float
    beta: float
    nmax: float
    chi2_one: float
    chi2_other: float


def starflat_numbers(one: Version, other: Version) -> Iterator[NumberDifference]:
    """Compare the numbers of the filters that both versions have."""
    for band in _both_filters(one, other):
        tables = [read_starflat(version, band)[0] for version in (one, other)]
        for name in NUMBERS:
            before, after = (float(found[name]) for found in tables)
            joint = np.hypot.reduce([float(found.get(f"{name}_error", np.nan)) for found in tables])
            sigma = (after - before) / float(joint) if joint > 0 else float("nan")
            yield NumberDifference(band, name, before, after, sigma)


def starflat_maps(one: Version, other: Version) -> Iterator[MapDifference]:
    """Compare the maps of the filters that both versions have, whole, by CCD and by quadrant."""
    for band in _both_filters(one, other):
        maps = [np.asarray(read_starflat(version, band)[0]["delta"], np.float64) for version in (one, other)]
        off = without_plane(_at_nodes_of(maps[1], maps[0]) - maps[0])
        yield _map_difference(band, None, None, off)
        for ccd in np.flatnonzero(np.isfinite(off).any(axis=(1, 2, 3))).tolist():
            yield _map_difference(band, ccd + 1, None, off[ccd])
            for quadrant in np.flatnonzero(np.isfinite(off[ccd]).any(axis=(1, 2))).tolist():
                yield _map_difference(band, ccd + 1, quadrant + 1, off[ccd, quadrant])


def _both_filters(one: Version, other: Version) -> list[str]:
    both = made(one) & made(other)
    return [FILTERS[i] for i in np.flatnonzero(both).tolist()]


def _at_nodes_of(values: Floats, like: Floats) -> Floats:
    """Interpolate a map to the nodes of another; NaN beside nodes that are NaN."""
    if values.shape == like.shape:
        return values
    for axis in (2, 3):
        values = _along(values, axis, like.shape[axis])
    return values


def _along(values: Floats, axis: int, count: int) -> Floats:
    """Interpolate linearly to ``count`` places along an axis, from its first to its last."""
    place = np.linspace(0, values.shape[axis] - 1, count)
    before = np.minimum(place.astype(int), values.shape[axis] - 2)
    share = np.expand_dims(place - before, tuple(range(1, values.ndim - axis)))
    low, high = np.take(values, before, axis), np.take(values, before + 1, axis)
    # Where a place is on a node, the other may be NaN.
    mixed: Floats = np.where(share == 0, low, np.where(share == 1, high, low + share * (high - low)))
    return mixed


def without_plane(values: Floats) -> Floats:
    """Take a constant and a plane in u and v out of values at nodes, (ccd, quadrant, cell_y, cell_x)."""
    good = np.isfinite(values)
    u, v = (w.reshape(values.shape) for w in Nodes((1, 1), values.shape[2:]).focal_plane())
    columns = np.stack([np.ones(values.shape), u, v], axis=-1)
    if good.sum() < columns.shape[-1]:
        return values
    left: Floats = values - columns @ np.linalg.lstsq(columns[good], values[good])[0]
    return left


def _map_difference(band: str, ccd: int | None, quadrant: int | None, off: Floats) -> MapDifference:
    values = off[np.isfinite(off)]
    rms = float(np.sqrt(np.mean(values**2))) if values.size else float("nan")
    largest = float(np.abs(values).max()) if values.size else float("nan")
    return MapDifference(band, ccd, quadrant, values.size, rms, largest)


BRIGHTEST, FAINTEST, WIDTH = -25, 0, 1  # mag: edges and width of the bins of brightness
FINE: Final = 1e-5  # mag: differences far above it are told apart to half a per cent, below it to 5e-8 mag
STEPS: Final = 200
MOST: Final = round(STEPS * np.arcsinh(10 / FINE))  # 10 mag


class _Counts:
    """Differences of magnitudes by brightness, counted: memory does not grow with the number of stars."""

    def __init__(self) -> None:
        bins = (FAINTEST - BRIGHTEST) // WIDTH + 1  # the last: no magnitude, or beyond
        self.differences = np.zeros((bins, 2 * MOST + 1), np.int64)
        self.alone = np.zeros((2, bins), np.int64)

    def add(self, one: Floats, other: Floats) -> None:
        """Count stars that both tables have."""
        off = other - one
        known = np.isfinite(off)
        place = np.rint(STEPS * np.arcsinh(off[known] / FINE)).clip(-MOST, MOST).astype(int) + MOST
        np.add.at(self.differences, (_brightness(one[known]), place), 1)

    def add_alone(self, which: int, magnitude: Floats) -> None:
        """Count stars that only one table has."""
        self.alone[which] += np.bincount(_brightness(magnitude), minlength=self.alone.shape[1])

    def rows(self, band: str) -> Iterator[StarDifference]:
        """Yield all stars, then the bins that have any."""
        yield self._row(band, None, None, self.differences.sum(axis=0), self.alone.sum(axis=1))
        for i in np.flatnonzero(self.differences.any(axis=1) | self.alone.any(axis=0)).tolist():
            bright = float(BRIGHTEST + i * WIDTH)
            if bright < FAINTEST:
                yield self._row(band, bright, bright + WIDTH, self.differences[i], self.alone[:, i])

    def _row(
        self, band: str, bright: float | None, faint: float | None, counts: NDArray[np.int64], alone: Any
    ) -> StarDifference:
        values = FINE * np.sinh(np.arange(-MOST, MOST + 1) / STEPS)
        median = _median(values, counts)
        sigma = MAD_TO_SIGMA * _median(np.abs(values - median), counts)
        return StarDifference(band, bright, faint, int(counts.sum()), median, sigma, *map(int, alone))


def _brightness(magnitude: Floats) -> NDArray[np.int64]:
    """Return the bin of each magnitude."""
    last = (FAINTEST - BRIGHTEST) // WIDTH
    place = np.floor((np.nan_to_num(magnitude, nan=FAINTEST) - BRIGHTEST) / WIDTH)
    return np.where((place < 0) | (place > last), last, place).astype(np.int64)


def _median(values: Floats, counts: NDArray[np.int64]) -> float:
    """Return the median of values that were counted; NaN of none."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(counts[order])
    if not total[-1]:
        return float("nan")
    middle = [values[order][np.searchsorted(total, rank, side="right")] for rank in _middle(int(total[-1]))]
    return float(np.mean(middle))


def _middle(count: int) -> tuple[int, int]:
    return (count - 1) // 2, count // 2


def star_differences(one: Version, other: Version) -> Iterator[StarDifference]:
    """Compare the stars of the entries that both versions have, filter by filter; one entry at a time is read."""
    counts: dict[str, _Counts] = {}
    both = set(marked(other, EVERY, CCDS))
    for exposure, ccd in marked(one, EVERY, CCDS):
        if (exposure, ccd) in both:
            tables = [_columns(version, exposure, ccd) for version in (one, other)]
            band = next((str(t["filter"][0]) for t in tables if t["filter"].size), None)
            if band is not None:
                _count(counts.setdefault(band, _Counts()), *tables)
    for band in sorted(counts):
        yield from counts[band].rows(band)


def _columns(version: Version, exposure: int, ccd: int) -> dict[str, NDArray[Any]]:
    table = read_table(version, exposure, ccd, ("filter", "quadrant", "x", "y", "magnitude"))
    return {name: np.asarray(table[name]) for name in table.column_names}


def _count(counts: _Counts, one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    """Match the stars of an image: each with its nearest, if they are each other's."""
    mine, yours = _pairs(one, other)
    counts.add(one["magnitude"][mine], other["magnitude"][yours])
    for which, (table, matched) in enumerate(((one, mine), (other, yours))):
        counts.add_alone(which, np.delete(table["magnitude"], matched))


def _pairs(
    one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    # Quadrants lie so far apart in a third direction that none of their stars is near another's.
    places = [np.stack([t["x"], t["y"], 1e6 * t["quadrant"]], axis=-1).astype(np.float64) for t in (one, other)]
    if not len(places[0]) or not len(places[1]):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    apart, nearest = cKDTree(places[1]).query(places[0], distance_upper_bound=NEAR)
    back = cKDTree(places[0]).query(places[1])[1]
    near = np.flatnonzero(np.isfinite(apart))
    mine = near[back[nearest[near]] == near]
    return mine, nearest[mine]


def pocket_differences(one: Version, other: Version) -> Iterator[PocketDifference]:
    """Compare the pockets of each quadrant of the entries that both versions have."""
    names = [*PARAMETERS, *(f"{name}_error" for name in PARAMETERS), "chi2"]
    tables = [
        {name: np.asarray(array_of(group, name)[...], np.float64) for name in names}
        for group in (one.open(), other.open())
    ]
    rows = min(made(one).shape[0], made(other).shape[0])
    labels = labels_of(one)
    for place in map(tuple, np.argwhere(made(one)[:rows] & made(other)[:rows]).tolist()):
        for quadrant in range(tables[0]["chi2"].shape[-1]):
            at = (*place, quadrant)
            sigmas = [_in_errors(*(t[name][at] for t in tables), *(t[f"{name}_error"][at] for t in tables))
                      for name in PARAMETERS]  # fmt: skip
            chi2 = (float(t["chi2"][at]) for t in tables)
            yield PocketDifference(entry_name(one, place, labels), quadrant + 1, *sigmas, *chi2)


def _in_errors(one: float, other: float, error: float, other_error: float) -> float:
    """Return the difference of logarithms by their joint error; NaN without a fit."""
    joint = float(np.hypot(error, other_error))
    difference = float(np.log(other / one))
    return difference / joint if joint > 0 else float("nan")
