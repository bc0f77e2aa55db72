"""Science of a store, written to a version: one entry an exposure and CCD."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import QUADRANTS
from ztfzarr.masters.bits import MASKS
from ztfzarr.masters.quality import science_quality
from ztfzarr.reduce.calibrator import Calibrator, Choice, Images
from ztfzarr.reduce.parts import parts_of, sampled
from ztfzarr.reduce.provenance import science_provenance
from ztfzarr.reduce.report import Selection
from ztfzarr.reduce.starflat_map import starflat_of
from ztfzarr.reduce.where import Where
from ztfzarr.store.cube import open_cube
from ztfzarr.store.entries import Entry, create_entry, encode_part
from ztfzarr.store.group import open_raw, read_table
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import AMPLIFIER_OFFSET, PRODUCTS, table_variables
from ztfzarr.store.shard import Position
from ztfzarr.store.versions import Version, existing_version

STRIDE: Final = 16  # which rows tell sky and noise: half a million pixels of a quadrant


@dataclass(frozen=True)
class Shot:
    """An exposure and CCD to calibrate: its row along time as stored, its index sorted by time, and its number."""

    row: int
    index: int
    exposure: int
    ccd: int


def shots(objects: Objects, selection: Selection) -> Iterator[Shot]:
    """List the exposures of the sky in the cube, CCD by CCD and filter by filter: those that share masters."""
    group = open_raw(objects)
    tables = {n: read_table(group, n) for n in ("exposure", "time", "night", "imgtype", "filter", "present")}
    index = np.empty(len(tables["time"]), np.int64)
    index[np.argsort(tables["time"], kind="stable")] = np.arange(len(index))
    wanted = np.asarray(tables["imgtype"] == "object")
    wanted &= (tables["night"] >= selection.first) & (tables["night"] <= selection.last)
    rows = np.flatnonzero(wanted)
    rows = rows[np.lexsort((index[rows], tables["filter"][rows].astype("U2"), tables["night"][rows]))]
    for ccd in selection.ccds:
        for row in rows[tables["present"][rows, ccd - 1] == 1].tolist():
            yield Shot(row, int(index[row]), int(tables["exposure"][row]), ccd)


@dataclass(frozen=True)
class Sample:
    """Some rows of a part of an exposure: ``science`` and ``mask``, each (y, x)."""

    quadrant: int
    science: NDArray[np.float32]
    mask: NDArray[np.uint16]
    spikes: int  # in all its rows


@dataclass(frozen=True)
class Task:
    """What the exposures of a run share: the store, the version of science, and a name for this run alone."""

    objects: Objects
    version: str
    run: str


def new_task(version: Version) -> Task:
    """Name a run that makes entries of a version."""
    return Task(version.objects, version.name, uuid.uuid4().hex)


@lru_cache(maxsize=1)
def _opened(task: Task) -> tuple[Version, Calibrator, HeldImages]:
    """Open once a process what a task needs."""
    version = existing_version(task.objects, "science", task.version)
    masters = [existing_version(task.objects, kind, version.recipe["science"][kind]) for kind in ("bias", "flat")]
    calibrator = Calibrator(
        open_cube(task.objects),
        masters[0],
        masters[1],
        version.recipe,
        starflat_of(task.objects, version.recipe, "science"),
    )
    return version, calibrator, HeldImages(calibrator, tuple(version.pixels))


def make_science(task: Task, shot: Shot) -> list[Entry]:
    """Calibrate an exposure and CCD, and create its objects.

    Parameters
    ----------
    task : Task
        From :func:`new_task`.
    shot : Shot
        What to calibrate.

    Returns
    -------
    list of Entry
        To be marked.

    Raises
    ------
    ValueError
        If no master calibrates it.
    """
    version, calibrator, held = _opened(task)
    choice = calibrator.choose(shot.index, shot.ccd)
    fit = calibrator.overscan(shot.index, shot.ccd)
    images = held.get(choice)
    level = fit["level"].values
    offsets = calibrator.offset(shot.index, choice, level, lambda where: _parts(images, where))
    offset = None if offsets is None else offsets[0]
    chunks: dict[str, dict[Position, bytes]] = {name: {} for name in version.pixels}
    rows: list[Sample] = []

    for part in parts_of(version, 1):
        where = Where(*(np.arange(s.start, s.stop) for s in part.region))
        names = tuple(version.pixels)
        box = calibrator.needed(where, names).box
        some = {name: image[box] for name, image in images.items()}
        found = calibrator.apply(shot.index, choice, where, level[part.region[:1]], some, names, offset)
        place = {"quadrant": part.quadrant, "y": part.y.start, "x": part.x.start}
        for name, image in found.items():
            chunks[name] |= encode_part(version, name, image, **place)
        science, mask = (sampled(found[name][0], STRIDE) for name in ("science", "mask"))
        rows.append(Sample(part.quadrant, science, mask, _spikes(found["mask"])))

    create_entry(version, (shot.row, shot.ccd - 1), chunks)
    tables = (
        _quality(rows, fit, choice)
        | _cosmic_rays(version, rows)
        | {
            "bias_night": int(calibrator.shelves["bias"].night[choice.bias_row]),
            "flat_night": int(calibrator.shelves["flat"].night[choice.flat_row]),
            "provenance": science_provenance(version, calibrator.names_of(choice), choice.k, offset),
        }
    )
    if offsets is not None:
        tables |= dict(zip(AMPLIFIER_OFFSET, offsets, strict=True))
    return [Entry((shot.row, shot.ccd - 1), tables)]


def _parts(images: Images, where: Where) -> Images:
    """Take part of whole images."""
    return {name: image[np.ix_(where.quadrant, where.y, where.x)] for name, image in images.items()}


def _quality(rows: list[Sample], fit: xr.Dataset, choice: Choice) -> dict[str, Any]:
    """Judge an exposure by a sample of its rows, its overscans and its masters."""
    quadrants = range(fit.sizes["quadrant"])
    science, mask = (_stacked(rows, name, quadrants) for name in ("science", "mask"))
    judged = science_quality(science.assign_attrs(units="DN"), mask=mask, stride=1)
    flags = PRODUCTS["science"].tables["flag"].flags or {}
    flag = judged["flag"].values.astype(np.uint8)  # no_sky and negative are the first bits of both
    flag |= np.where(fit["flag"].values != 0, flags["overscan"], 0).astype(np.uint8)
    flag |= np.uint8(flags["bias"] * choice.bias_flagged + flags["flat"] * choice.flat_flagged)
    return {
        "sky": judged["sky"].values,
        "noise": judged["noise"].values,
        "flag": flag,
        "overscan_mean": fit["level"].mean("y").values,
        "overscan_rms": fit["rms"].values,
        "overscan_step": fit["step"].values,
    }


def _spikes(mask: NDArray[np.uint16]) -> int:
    return int(np.count_nonzero(mask & np.uint16(MASKS["spike"])))


def _cosmic_rays(version: Version, rows: list[Sample]) -> dict[str, Any]:
    """Count the pixels that cosmic rays may have hit, of each quadrant, if the version looks for them."""
    if "cosmic_rays" not in table_variables("science", version.recipe):
        return {}
    counts = np.zeros(len(QUADRANTS), np.int32)
    np.add.at(counts, [r.quadrant for r in rows], [r.spikes for r in rows])
    return {"cosmic_rays": counts}


def _stacked(rows: list[Sample], name: str, quadrants: range) -> xr.DataArray:
    images = [np.concatenate([getattr(r, name) for r in rows if r.quadrant == q]) for q in quadrants]
    return xr.DataArray(np.stack(images), dims=("quadrant", "y", "x"))


class HeldImages:
    """Whole images of masters, read once for all the exposures that share them; two CCDs or filters are held."""

    def __init__(self, calibrator: Calibrator, names: tuple[str, ...]) -> None:
        self._calibrator = calibrator
        self._names = names
        self._where = Where(*map(np.arange, calibrator.cube["raw"].shape[2:]))
        self._held: OrderedDict[tuple[tuple[int, ...], ...], Images] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, choice: Choice) -> Images:
        """Return the masters of a choice; other threads that want them wait for the one that reads."""
        key = choice.place("bias"), choice.place("flat")
        with self._lock:
            if key not in self._held:
                while len(self._held) > 1:
                    self._held.popitem(last=False)
                self._held[key] = self._calibrator.images(choice, self._names, self._where)
            self._held.move_to_end(key)
            return self._held[key]
