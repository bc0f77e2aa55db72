"""Starflats: tables alone, of a filter, and of the exposures that it was made from; each written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.store.entries import check_same
from ztfzarr.store.group import array_of
from ztfzarr.store.lock import Lock, lock
from ztfzarr.store.products import FILTERS
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version, made
from ztfzarr.store.writing import uninterrupted, writable_arrays


def mark_starflat(version: Version, band: str, tables: Mapping[str, Any], exposures: NDArray[np.int64]) -> None:
    """Write the tables of a filter, ``present`` last.

    Parameters
    ----------
    version : Version
        From ``prepare_version``.
    band : str
        The filter.
    tables : mapping
        Values of the filter; of tables along time those of ``exposures``.
    exposures : (exposure,) int64
        Numbers of the exposures that it was made from.

    Raises
    ------
    StoreError
        If the filter is made already, or the version was dropped meanwhile.
    """
    with lock(version.objects, f"{version.kind}-{version.name}") as held:
        check_same(version)
        if made(version)[FILTERS.index(band)]:
            raise StoreError(f"{version.group} has {band} already: use another --version")
        uninterrupted(lambda: _write(version, held, band, tables, exposures))


def _write(
    version: Version, held: Lock, band: str, tables: Mapping[str, Any], exposures: NDArray[np.int64]
) -> None:
    rows = _rows(version, exposures)
    tables = {name: v for name, v in tables.items() if name in arrays_of(version.document)}  # it may be older
    arrays = writable_arrays(version.objects, version.group, [*tables, "present"])
    for name, values in tables.items():
        held.check()
        if "time" in arrays_of(version.document)[name]["dimension_names"]:
            dtype = object if name == "exposure_filter" else arrays[name].dtype
            arrays[name].vindex[(rows,)] = np.asarray(values, dtype)
        else:
            arrays[name][FILTERS.index(band)] = values
    held.check()
    arrays["present"][FILTERS.index(band)] = 1


def _rows(version: Version, exposures: NDArray[np.int64]) -> NDArray[np.intp]:
    known = np.asarray(array_of(version.open(), "exposure")[...])
    order = np.argsort(known)
    rows = order[np.minimum(np.searchsorted(known[order], exposures), known.size - 1)]
    lacking = exposures[known[rows] != exposures]
    if lacking.size:
        raise StoreError(f"{version.group} has no row of exposure {lacking[0]}: expected one of the cube's")
    return rows


def read_starflat(version: Version, band: str) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Read the tables of a filter and the numbers of its exposures, as :func:`mark_starflat` takes them."""
    group = version.open()
    filters = _texts(group, "filter")
    used = _texts(group, "exposure_filter") == band
    tables = {}
    for name in version.product.tables:
        if name != "present" and name in group:
            values = np.asarray(array_of(group, name)[...])
            tables[name] = (
                values[used] if "time" in version.product.tables[name].dims else values[band == filters][0]
            )
    return tables, np.asarray(array_of(group, "exposure")[...])[used]


def _texts(group: zarr.Group, name: str) -> NDArray[np.object_]:
    return np.array(np.asarray(array_of(group, name)[...]).tolist(), object)
