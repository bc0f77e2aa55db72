"""Science of a store, written to a version."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from ztfzarr.errors import StoreError
from ztfzarr.reduce.calibrated import Calibrator
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import Objects
from ztfzarr.store.publish import Entry, Version, existing_version, fill_entry, made, mark_entries
from ztfzarr.store.register import open_raw, read_table
from ztfzarr.store.threads import windowed

MARK_ENTRIES: Final = 32


def make_science(
    objects: Objects, version: Version, selection: Selection, events: Events, *, workers: int
) -> Report:
    """Make the science that a version lacks.

    Parameters
    ----------
    objects : Objects
        The store.
    version : Version
        Of kind ``science``, from ``prepare_version``.
    selection : Selection
        Nights and CCDs.
    events : Events
        For progress.
    workers : int
        Exposures at a time.

    Returns
    -------
    Report
        Exposures that no master calibrates are refused there, and do not stop the rest.
    """
    report = Report(version.group)
    cube = open_cube(objects)
    rows = {int(e): row for row, e in enumerate(read_table(open_raw(objects), "exposure"))}
    settings = version.recipe["science"]
    bias, flat = (existing_version(objects, kind, settings[kind]) for kind in ("bias", "flat"))
    calibrator = Calibrator(cube, bias, flat, version.recipe)
    done = made(version)
    wanted = np.asarray(calibrator.imgtype == "object")
    wanted &= (calibrator.night >= selection.first) & (calibrator.night <= selection.last)
    todo = []
    for t, c in np.argwhere(calibrator.present & wanted[:, None]).tolist():
        row = rows[int(cube["exposure"].values[t])]
        if c + 1 not in selection.ccds:
            continue
        if done[row, c]:
            report.there += 1
        else:
            todo.append((t, c + 1, row))
    events.step(version.group, len(todo))

    def make(item: tuple[int, int, int]) -> Entry | tuple[str, str]:
        t, ccd, row = item
        try:
            pixels = calibrator.pixels(t, ccd, *(np.arange(n) for n in cube["raw"].shape[2:]))
            fill_entry(version, (row, ccd - 1), {"science": pixels})
        except (ValueError, StoreError) as error:
            return f"{version.group} exposure {cube['exposure'].values[t]} CCD {ccd}", str(error)
        return Entry((row, ccd - 1), {"provenance": _provenance(version, calibrator, t, ccd)})

    batch: list[Entry] = []
    with ThreadPoolExecutor(workers) as pool:
        for outcome in windowed(pool, make, todo, 2 * workers):
            events.done()
            if isinstance(outcome, Entry):
                batch.append(outcome)
                report.made += 1
            else:
                report.refused.append(outcome)
            if len(batch) >= MARK_ENTRIES:
                mark_entries(version, batch)
                batch = []
    mark_entries(version, batch)
    return report


def _provenance(version: Version, calibrator: Calibrator, t: int, ccd: int) -> str:
    choice = calibrator.choose(t, ccd)
    record = {
        "masters": calibrator.names_of(choice),
        "k": choice.k,
        "software": version.document["attributes"]["software"]["ztfzarr"],
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps(record)
