"""Versions of products as their users see them: lazily indexed, sorted in time."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ztfzarr.store.labelled import open_group
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.versions import existing_version


def open_version(store: StoreLike, kind: str, version: str = "v1") -> xr.Dataset:
    """Open a version of a product.

    Parameters
    ----------
    store : path or URL
        Of the store, or the opened :class:`~ztfzarr.store.objects.Objects`.
    kind : str
        ``bias``, ``flat`` or ``science``.
    version : str
        Its name.

    Returns
    -------
    Dataset
        All its variables, lazily indexed, without dask; sorted by night or time. Pixels mean nothing where
        ``present`` is not 1. Select with integers and slices, or ``.chunk(...)`` first: lists of CCDs or
        quadrants make zarr read a sharded array pixel by pixel, 10 times slower and in five times the memory.

    Raises
    ------
    StoreError
        If the store has no such version.
    """
    found = existing_version(open_objects(store), kind, version)
    dataset = open_group(found.objects, found.group, found.document)
    rows = dataset[found.product.rows].values
    if np.all(rows[1:] >= rows[:-1]):
        return dataset
    return dataset.isel({found.product.rows: np.argsort(rows, kind="stable")})
