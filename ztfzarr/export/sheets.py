"""What is exported as tables: the stars of an exposure and CCD, the fitted pockets of a night."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import QUADRANTS, rcid
from ztfzarr.photometry.columns import COLUMNS, FLAGS
from ztfzarr.recipe import Recipe
from ztfzarr.store.check import Selection
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.products import PRODUCTS
from ztfzarr.store.star_tables import marked, read_table
from ztfzarr.store.versions import Version, existing_version

POCKET_LEFT_OUT: Final = ("present", "provenance", "inputs", "first_night", "last_night")  # of a CCD


@dataclass(frozen=True)
class SheetColumn:
    """A column: values, unit as the store writes it, and what it is."""

    values: NDArray[Any]
    units: str
    long_name: str


@dataclass(frozen=True)
class Sheet:
    """A table of a product: its labels, columns when they are asked for, and what the bits of its flags mean.

    ``made`` is what the store says of how it was made.
    """

    kind: str
    version: str
    labels: dict[str, Any]
    columns: Callable[[], dict[str, SheetColumn]]
    flags: dict[str, int]
    recipe: Recipe
    software: dict[str, str]
    made: dict[str, Any] = field(default_factory=dict)
    ccd: int | None = None

    @property
    def name(self) -> str:
        """Name for messages, as ``stars/v1 exposure 20200801169199 CCD 2``."""
        what = f"exposure {self.labels['exposure']}" if "exposure" in self.labels else str(self.labels["night"])
        return f"{self.kind}/{self.version} {what}" + (f" CCD {self.ccd}" if self.ccd else "")

    @property
    def places(self) -> list[int]:
        """One file."""
        return [0]

    def fields(self, _place: int) -> dict[str, Any]:
        """Return what the name of the file can be made of."""
        ccd = {"ccd": self.ccd} if self.ccd else {}
        return {**self.labels, **ccd, "kind": self.kind, "version": self.version}


def sheets(store: StoreLike, kind: str, version: str, selection: Selection) -> list[Sheet]:
    """List the tables of a version of ``stars`` or ``pocket`` that a selection has; StoreError without it."""
    found = existing_version(open_objects(store), kind, version)
    return list(_stars(found, selection) if kind == "stars" else _pockets(found, selection))


def _stars(version: Version, selection: Selection) -> Iterator[Sheet]:
    group = version.open()
    names = ("exposure", "night", "filter", "field", "provenance")
    tables = {name: np.asarray(array_of(group, name)[...]) for name in names}
    rows = {int(exposure): row for row, exposure in enumerate(tables["exposure"].tolist())}
    for exposure, ccd in marked(version, (selection.first_night, selection.last_night), selection.ccds):
        row = rows[exposure]
        labels: dict[str, Any] = {name: int(tables[name][row]) for name in ("exposure", "night", "field")}
        labels["filter"] = str(tables["filter"][row])
        yield _sheet(version, labels, partial(_star_columns, version, exposure, ccd), FLAGS,
                     tables["provenance"][row, ccd - 1], ccd)  # fmt: skip


def _star_columns(version: Version, exposure: int, ccd: int) -> dict[str, SheetColumn]:
    table = read_table(version, exposure, ccd, list(COLUMNS))
    about = {name: (column.units, column.long_name) for name, column in COLUMNS.items()}
    about["flags"] = ("", "bits as in BIT00, BIT01...")
    return {name: SheetColumn(np.asarray(table[name]), *about[name]) for name in COLUMNS}


def _pockets(version: Version, selection: Selection) -> Iterator[Sheet]:
    group = version.open()
    night, present = (np.asarray(array_of(group, name)[...]) for name in ("night", "present"))
    provenance = array_of(group, "provenance")
    for row in np.argsort(night, kind="stable").tolist():
        ccds = [ccd for ccd in selection.ccds if present[row, ccd - 1] == 1]
        if ccds and selection.first_night <= night[row] <= selection.last_night:
            columns = partial(_pocket_columns, version, row, ccds)
            flags = dict(PRODUCTS["pocket"].tables["flag"].flags or {})
            said = np.asarray(provenance[row])[ccds[0] - 1]
            yield _sheet(version, {"night": int(night[row]), "ccds": ccds}, columns, flags, said)


def _pocket_columns(version: Version, row: int, ccds: list[int]) -> dict[str, SheetColumn]:
    group = version.open()
    places = [(ccd, quadrant) for ccd in ccds for quadrant in QUADRANTS]
    found = {
        "ccd": SheetColumn(np.array([ccd for ccd, _ in places], np.int16), "", "CCD 1-16"),
        "quadrant": SheetColumn(np.array([q for _, q in places], np.int16), "", "quadrant 1-4 of the CCD"),
        "rcid": SheetColumn(np.array([rcid(*place) for place in places], np.int16), "", "read-out channel 0-63"),
    }
    for name, variable in PRODUCTS["pocket"].tables.items():
        if name not in POCKET_LEFT_OUT:
            values = np.asarray(array_of(group, name)[row])[[ccd - 1 for ccd in ccds]].ravel()
            found[name] = SheetColumn(values, variable.units or "", variable.long_name)
    return found


def _sheet(
    version: Version, labels: dict[str, Any], columns: Callable[[], dict[str, SheetColumn]], flags: dict[str, int],
    said: Any, ccd: int | None = None,
) -> Sheet:  # fmt: skip
    software = version.document["attributes"].get("software", {})
    made = json.loads(str(said) or "{}")
    return Sheet(version.kind, version.name, labels, columns, flags, version.recipe, software, made, ccd)
