"""The cube as its users see it: DN, lazily indexed, sorted in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ztfzarr.kernels.dither import ABSENT, RANDOM, decode_rows
from ztfzarr.store.objects import Objects, open_objects
from ztfzarr.store.raw import GROUP
from ztfzarr.store.register import existing_document, open_raw

# How raw files are stored, not what they show.
STORAGE: Final = ("zscale", "zzero", "zdither", "header", "image", "hdu")
SMALL: Final = 1_000_000  # pixels; below, handing work to threads costs more than it gains


def open_cube(store: str | os.PathLike[str]) -> xr.Dataset:
    """Open the raw exposures of a store in DN.

    Parameters
    ----------
    store : path or URL
        Of the store.

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
    """
    objects = open_objects(store)
    existing_document(objects)
    group = open_raw(objects)
    dataset = _open_plain(objects).drop_vars(STORAGE, errors="ignore")
    for name, first_image in (("raw", 0), ("overscan", 4)):
        dims = dataset[name].dims
        attributes = {"long_name": f"{dataset[name].attrs['long_name'].split(' as ')[0]}", "units": "DN"}
        data = indexing.LazilyIndexedArray(DecodedArray(group, name, first_image))
        dataset[name] = xr.Variable(dims, data, attributes)
    time = dataset["time"].values
    if np.all(time[1:] >= time[:-1]):
        return dataset
    return dataset.isel(time=np.argsort(time, kind="stable"))


def _open_plain(objects: Objects) -> xr.Dataset:
    # By the group's own path: with group= xarray looks for consolidated metadata of the store's root first.
    location = f"{objects.location.rstrip('/')}/{GROUP}"
    store = open_objects(location).zarr_store(read_only=True)
    return xr.open_zarr(store, chunks=None, consolidated=True, zarr_format=3)


class DecodedArray(BackendArray):
    """An array of FITS integers of the raw group, indexed as the float32 DN they stand for."""

    def __init__(self, group: zarr.Group, name: str, first_image: int) -> None:
        self.group = group
        self.name = name
        self.first_image = first_image
        self.shape = self._array(name).shape
        self.dtype = np.dtype(np.float32)

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._decoded)  # type: ignore[no-any-return]

    def _decoded(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        """Decode an outer selection: a slice, integer or sorted-or-not integers for each dimension."""
        picked = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        out_shape = [len(p) for p, k in zip(picked, key, strict=True) if not _is_integer(k)]
        if any(p.size == 0 for p in picked):
            return np.empty(out_shape, np.float32)
        time, ccd, quadrant, y, x = picked
        rows, columns = _hull(y), _hull(x)
        values = self._decode_block(_selection(time), _selection(ccd), quadrant, rows, columns)
        if (rows.stop - rows.start, columns.stop - columns.start) != (y.size, x.size) or not _ascends(y, x):
            values = values[..., (y - rows.start)[:, None], x - columns.start]
        return values.reshape(out_shape)

    def _decode_block(
        self, time: Any, ccd: Any, quadrant: NDArray[np.int64], rows: slice, columns: slice
    ) -> NDArray[np.float32]:
        images = _selection(quadrant + self.first_image)
        wanted = {
            self.name: (time, ccd, _selection(quadrant), rows, columns),
            "zscale": (time, ccd, images, rows),
            "zzero": (time, ccd, images, rows),
            "zdither": (time, ccd, images),
            "present": (time, ccd),
        }
        # At once, so that an object store is waited for once.
        values = _pool().map(lambda item: _read(self._array(item[0]), item[1]), wanted.items())
        read = dict(zip(wanted, values, strict=True))
        integers = read.pop(self.name)
        integers[read["present"] != 1] = ABSENT
        blocks = list(_images(integers, read["zscale"], read["zzero"], read["zdither"]))
        run = map if integers.size < SMALL else _pool().map
        list(run(lambda block: decode_rows(*block, rows.start, columns.start, RANDOM), blocks))
        return integers.view(np.float32)


def _read(array: zarr.Array[Any], selection: tuple[Any, ...]) -> NDArray[Any]:
    if all(isinstance(s, slice) for s in selection):
        return np.ascontiguousarray(array[selection])
    return np.ascontiguousarray(array.oindex[selection])


def _images(
    integers: NDArray[np.int32], zscale: NDArray[Any], zzero: NDArray[Any], zdither: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], int]]:
    for image in np.ndindex(integers.shape[:3]):
        yield integers[image], zscale[image], zzero[image], int(zdither[image])


def _is_integer(key: Any) -> bool:
    return isinstance(key, int | np.integer)


def _hull(picked: NDArray[np.int64]) -> slice:
    """Return the smallest slice of step 1 that holds the picked indices."""
    return slice(int(picked.min()), int(picked.max()) + 1)


def _ascends(*axes: NDArray[np.int64]) -> bool:
    return all(bool(np.all(np.diff(axis) == 1)) for axis in axes)


def _selection(picked: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return a slice where the indices are consecutive: zarr reads those without fancy indexing."""
    return _hull(picked) if _ascends(picked) else picked


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that read and decode: neither holds the GIL for long."""
    return ThreadPoolExecutor(max_workers=max(4, len(os.sched_getaffinity(0))), thread_name_prefix="ztfzarr")
