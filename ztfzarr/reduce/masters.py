"""Master biases and flats of a store, night by night and CCD by CCD."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.calibrations import nearest_night, night_noon
from ztfzarr.masters.flat import led_flat, led_medians, led_shares, relative_levels
from ztfzarr.masters.frames import BLOCK
from ztfzarr.masters.selection import settled
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.reduce.settings import bias_settings, flat_settings
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import FILTERS, LEDS
from ztfzarr.store.publish import Entry, Version, fill_entry, made, mark_entries, write_levels
from ztfzarr.store.register import array_of


def make_biases(objects: Objects, version: Version, selection: Selection, events: Events) -> Report:
    """Make the master biases that a version lacks.

    Parameters
    ----------
    objects : Objects
        The store.
    version : Version
        Of kind ``bias``, from ``prepare_version``.
    selection : Selection
        Nights and CCDs; those without biases are passed over.
    events : Events
        For progress.

    Returns
    -------
    Report
        A failure of one night or CCD is refused there, and does not stop the rest.
    """

    def make(night: int, ccd: int, exposures: xr.Dataset) -> list[Entry]:
        master = master_bias(_blocks(exposures), **bias_settings(version.recipe)).compute()
        fill_entry(version, (_row(version, night), ccd - 1), _pixels(master.isel(ccd=0)))
        used = settled(exposures["time"], skip=version.recipe["bias"]["skip"])
        dropped = {str(e): "settling" for e in exposures["exposure"].values[~used].tolist()}
        provenance = _provenance(version, exposures.isel(time=used), dropped, {})
        return [Entry((_row(version, night), ccd - 1), {"provenance": provenance})]

    return _make(objects, version, "bias", selection, events, make)


def make_flats(objects: Objects, version: Version, bias: Version, selection: Selection, events: Events) -> Report:
    """Make the master flats that a version lacks, with the master biases of ``bias``; then freeze CCD levels.

    Parameters and result as :func:`make_biases`.
    """

    def make(night: int, ccd: int, exposures: xr.Dataset) -> list[Entry]:
        near = _nights_made(bias, ccd)
        chosen = nearest_night(night_noon(night), night, near, validity=7.0)
        if chosen is None:
            raise ValueError(f"no master bias of {bias.group} for CCD {ccd} within 7 days")
        provenance = _provenance(version, exposures, {}, {"bias": f"{bias.group}/{chosen}"})
        flats, levels = _filter_flats(exposures, _image(bias, (chosen, ccd)), flat_settings(version.recipe))
        entries = []
        for name, flat in flats.items():
            place = _row(version, night), FILTERS.index(name), ccd - 1
            fill_entry(version, place, flat)
            entries.append(Entry(place, {"provenance": provenance, "led_level": levels}))
        return entries

    report = _make(objects, version, "flat", selection, events, make)
    for night in _night_rows(version):
        if selection.has(night):
            _freeze_levels(version, night)
    return report


def _filter_flats(
    exposures: xr.Dataset, bias: xr.DataArray, settings: dict[str, Any]
) -> tuple[dict[str, dict[str, NDArray[Any]]], NDArray[np.float64]]:
    """Make the flats of a CCD, LED after LED: ``master_flat`` with one LED's frames at a time in memory.

    Returns
    -------
    flats : dict
        By filter: ``flat``, ``variance`` and ``count``, each (quadrant, y, x).
    levels : (led,) float64, DN
        CCD-wide median of each LED's combined flat; NaN for LEDs that are not used.
    """
    leds, weights = settings.pop("leds"), settings.pop("weights")
    missing = sorted(set(leds) - set(exposures["led"].values.tolist()))
    if missing:
        raise ValueError(
            f"no flats of LED {', '.join(map(str, missing))}: name them in flat.without_leds to do without"
        )
    flats: dict[str, dict[str, NDArray[Any]]] = {}
    levels = np.full(len(LEDS), np.nan)
    for led, name in leds.items():
        share = led_shares([k for k, f in leds.items() if f == name], weights)[led]
        frames = exposures.isel(time=np.asarray(exposures["led"].values == led))
        medians = led_medians(frames, bias, overscan=settings["overscan"])
        lamp = led_flat(_blocks(frames), bias, medians=medians, **settings).isel(ccd=0).compute()
        levels[LEDS.index(led)] = lamp["led_level"].item()
        parts = {
            "flat": lamp["flat"].values * np.float32(share),
            "variance": lamp["variance"].values * np.float32(share**2),
            "count": lamp["count"].values,
        }
        flats[name] = {n: flats[name][n] + v for n, v in parts.items()} if name in flats else parts
    return flats, levels


def _freeze_levels(version: Version, night: int) -> None:
    """Keep the level of each CCD against the focal plane's, of the CCDs that the night has."""
    row = _row(version, night)
    group = version.open()
    table = np.asarray(array_of(group, "led_level")[row])
    frozen = np.asarray(array_of(group, "level")[row])
    ccds = np.flatnonzero(np.isfinite(table).any(axis=0))
    if not ccds.size or np.isfinite(frozen).any():
        return
    used = [led for led in LEDS if np.isfinite(table[LEDS.index(led), ccds]).all()]
    leds = {led: name for led, name in flat_settings(version.recipe)["leds"].items() if led in used}
    level = xr.DataArray(table[:, ccds], dims=("led", "ccd"), coords={"led": list(LEDS)})
    relative = relative_levels(level, leds=leds)
    places = {(FILTERS.index(str(f)), int(ccd)): float(relative.sel(filter=f)[i])
              for f in relative["filter"].values for i, ccd in enumerate(ccds)}  # fmt: skip
    write_levels(version, row, places)


Make = Callable[[int, int, xr.Dataset], list[Entry]]


def _make(
    objects: Objects, version: Version, imgtype: str, selection: Selection, events: Events, make: Make
) -> Report:
    """Make what is missing, one night and CCD after the other."""
    report = Report(version.group)
    done = made(version)
    todo = []
    for night, ccd, exposures in _inputs(objects, imgtype, selection):
        row = done[_row(version, night)][..., ccd - 1]
        if np.all(row):
            report.there += 1
        else:
            todo.append((night, ccd, exposures))
    events.step(version.group, len(todo))
    for night, ccd, exposures in todo:
        try:
            mark_entries(version, make(night, ccd, exposures))
            report.made += 1
        except ValueError as error:
            report.refused.append((f"{version.group} {night} CCD {ccd}", str(error)))
        events.done()
    return report


def _inputs(objects: Objects, imgtype: str, selection: Selection) -> Iterator[tuple[int, int, xr.Dataset]]:
    """Give the exposures of a type that are in the cube, by night and CCD."""
    cube = open_cube(objects)
    present = cube["present"].values == 1
    night = cube["night"].values
    of_type = np.asarray(cube["imgtype"].values == imgtype)
    for name in np.unique(night[of_type]).tolist():
        for ccd in selection.ccds if selection.has(name) else ():
            used = of_type & (night == name) & present[:, ccd - 1]
            if used.any():
                yield name, ccd, cube.isel(time=used).sel(ccd=[ccd])


def _blocks(exposures: xr.Dataset) -> xr.Dataset:
    """Chunk pixels as the cube's own chunks, all exposures of a place together; tables stay in memory."""
    tables = exposures.drop_vars(("raw", "overscan")).load()
    raw, overscan = (exposures[name].reset_coords(drop=True) for name in ("raw", "overscan"))
    raw = raw.chunk({"time": -1, "quadrant": 1, **BLOCK})
    return tables.assign(raw=raw, overscan=overscan.chunk({"time": 1}))


def _pixels(master: xr.Dataset) -> dict[str, Any]:
    return {str(name): v.values for name, v in master.data_vars.items() if {"quadrant", "y", "x"} <= set(v.dims)}


def _night_rows(version: Version) -> list[int]:
    return [int(n) for n in np.asarray(array_of(version.open(), "night")[...])]


def _row(version: Version, night: int) -> int:
    return _night_rows(version).index(night)


def _nights_made(version: Version, ccd: int) -> list[int]:
    """Return the nights that have a master of a CCD."""
    return [n for n, here in zip(_night_rows(version), made(version)[..., ccd - 1], strict=True) if np.all(here)]


def _image(version: Version, place: tuple[int, int]) -> xr.DataArray:
    """Read a master bias, (ccd, quadrant, y, x), of a night and CCD."""
    night, ccd = place
    group = version.open()
    values = np.asarray(array_of(group, version.kind)[_row(version, night), ccd - 1])[None]
    coords = {"ccd": [ccd], **{n: np.asarray(array_of(group, n)[...]) for n in ("quadrant", "y", "x")}}
    return xr.DataArray(values, coords, ("ccd", "quadrant", "y", "x"), attrs={"units": "DN"})


def _provenance(version: Version, exposures: xr.Dataset, dropped: dict[str, str], masters: dict[str, str]) -> str:
    """Write down what an entry was made from, as JSON."""
    hashes = exposures["source_sha256"].values.ravel().tolist()
    record = {
        "exposures": dict(zip(map(str, exposures["exposure"].values.tolist()), map(str, hashes), strict=True)),
        "dropped": dropped,
        "masters": masters,
        "software": version.document["attributes"]["software"]["ztfzarr"],
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps(record)
