"""The cube as its users see it: DN, lazily indexed, sorted in time."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr
from xarray.core import indexing

from ztfzarr.store.decoded import DecodedArray
from ztfzarr.store.group import existing_document
from ztfzarr.store.labelled import open_group
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.raw import DATA, GROUP
from ztfzarr.store.template import arrays_of

# How raw files are stored, not what they show.
STORAGE: Final = ("zscale", "zzero", "zdither", "header", "image", "hdu")


def open_cube(store: StoreLike, *, storage_options: Mapping[str, str] | None = None) -> xr.Dataset:
    """Open the raw exposures of a store in DN.

    Parameters
    ----------
    store : path or URL
        Of the store.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    Dataset
        ``raw`` (time, ccd, quadrant, y, x) and ``overscan`` (time, ccd, quadrant, y, x_overscan), float32, DN,
        NaN where a file is absent; ``present``, ``gain``, ``read_noise`` and the names of the files; the
        coordinates of the exposures. Sorted by time. Nothing but the times is read, and no dask graph is
        made: select first, then ``.chunk(...)``.

    Raises
    ------
    StoreError
        If there is no such store, or it is of another format.
    AccessError
        If it cannot be reached, or does not let us in.
    """
    objects = open_objects(store, storage_options)
    document = existing_document(objects)
    arrays, dataset = arrays_of(document), open_group(objects, GROUP, document, without=STORAGE)
    opening = uuid.uuid4().hex
    for name, first_image in (("raw", 0), ("overscan", 4)):
        attributes = {"long_name": DATA[name].long_name.split(" as ")[0], "units": "DN"}
        decoded = DecodedArray(objects, arrays, name, first_image, dataset.sizes["time"], opening)
        data = indexing.LazilyIndexedArray(decoded)
        dataset[name] = xr.Variable(DATA[name].dims, data, attributes)
    time = dataset["time"].values
    if np.all(time[1:] >= time[:-1]):
        return dataset
    return dataset.isel(time=np.argsort(time, kind="stable"))
