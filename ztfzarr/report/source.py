"""What a report reads of a store: tables of raw and of the versions, each once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.recipe import Recipe
from ztfzarr.store.group import array_of, existing_document, open_raw, read_table
from ztfzarr.store.objects import Objects
from ztfzarr.store.versions import Version, versions_of

COLUMNS: Final = (
    "exposure", "time", "night", "imgtype", "filter", "led", "field", "exptime", "airmass", "present",
    "source_name",
)  # fmt: skip


@dataclass(frozen=True)
class Raw:
    """The tables of the raw group: by name, each (time, …) as stored."""

    objects: Objects
    tables: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.tables[name]

    @property
    def nights(self) -> list[int]:
        """All nights, sorted."""
        return [int(night) for night in np.unique(self["night"])]

    def rows_of(self, night: int) -> NDArray[np.intp]:
        """Return the rows of a night, sorted by time."""
        rows = np.flatnonzero(self["night"] == night)
        return rows[np.argsort(self["time"][rows], kind="stable")]


def read_raw(objects: Objects) -> Raw:
    """Read the tables of the raw group; StoreError if there is none."""
    existing_document(objects)
    group = open_raw(objects)
    tables = {name: read_table(group, name) for name in COLUMNS}
    # `present` is written last: without it the rest means nothing.
    return Raw(objects, tables | {"present": tables["present"] == 1})


@dataclass(frozen=True)
class Product:
    """A version of a product, with its tables; ``night`` is that of each row."""

    version: Version
    group: Any
    night: NDArray[np.int32]
    _read: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Such as ``bias``."""
        return self.version.kind

    @property
    def rows_are(self) -> str:
        """What entries are of: ``night`` (masters), ``time`` (exposures), or ``filter`` (starflats)."""
        return self.version.product.entry[0]

    @property
    def name(self) -> str:
        """Such as ``bias/v1``."""
        return self.version.group

    @property
    def recipe(self) -> Recipe:
        """The settings that made it."""
        return self.version.recipe

    def table(self, name: str) -> NDArray[Any]:
        """Read a table whole, once: those of masters, which are small."""
        if name not in self._read:
            self._read[name] = np.asarray(array_of(self.group, name)[...])
        return self._read[name]

    def rows(self, name: str, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Read rows of a table, by the span that they lie in: those of exposures may be millions."""
        if not len(rows):
            return np.asarray(array_of(self.group, name)[0:0])
        first, stop = int(rows.min()), int(rows.max()) + 1
        return np.asarray(np.asarray(array_of(self.group, name)[first:stop])[rows - first])

    def row_of(self, night: int) -> int | None:
        """Return the row of the masters of a night: its own, or that of a period with the night in it."""
        own = np.flatnonzero(self.night == night)
        made = (self.table("present") == 1).reshape(len(self.night), -1).any(axis=1)
        if len(own) and made[own[0]]:
            return int(own[0])
        first, last = (
            self.table(name).reshape(len(self.night), -1).max(axis=1) for name in ("first_night", "last_night")
        )
        covering = np.flatnonzero(made & (first <= night) & (last >= night))
        return int(covering[-1]) if len(covering) else None

    def rows_of(self, night: int) -> NDArray[np.intp]:
        """Return the rows of the exposures of a night, as stored."""
        return np.flatnonzero(self.night == night)


def read_products(objects: Objects) -> list[Product]:
    """Open all versions of a store."""
    return [_product(version) for version in versions_of(objects)]


def _product(version: Version) -> Product:
    group = version.open()
    return Product(version, group, np.asarray(array_of(group, "night")[...]))


def dashed(night: int) -> str:
    """Write a night as 2020-08-01."""
    text = f"{night:08d}"
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def ranges(numbers: list[int]) -> str:
    """Write sorted integers as ranges: 1-4, 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)
