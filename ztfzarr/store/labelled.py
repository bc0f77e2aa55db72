"""Groups as xarray opens them, in as few steps of requests as can be."""

from __future__ import annotations

from typing import Any

import xarray as xr

from ztfzarr.store.objects import Objects
from ztfzarr.store.template import arrays_of, dumped


def open_group(
    objects: Objects, group: str, document: dict[str, Any], *, without: tuple[str, ...] = ()
) -> xr.Dataset:
    """Open a group whose ``zarr.json`` has been read; the labels of all its dimensions are asked for together.

    xarray reads them to make its indexes, one after the other. By the group's own path: with ``group=`` it
    looks for consolidated metadata of the store's root first.

    Parameters
    ----------
    objects : Objects
        The store.
    group : str
        Path of the group.
    document : dict
        Its consolidated ``zarr.json``.
    without : tuple of str
        Variables to leave out.

    Returns
    -------
    Dataset
        Lazily indexed, without dask, in the order of the store's rows.
    """
    labels = {name: a for name, a in arrays_of(document).items() if a["dimension_names"] == [name]}
    first: dict[str, bytes | None] = {"zarr.json": dumped(document)}
    for name in labels.keys() - set(without):
        (length,), (chunk,) = labels[name]["shape"], labels[name]["chunk_grid"]["configuration"]["chunk_shape"]
        first |= dict.fromkeys(f"{name}/c/{i}" for i in range(-(-length // chunk)))
    store = objects.zarr_store(read_only=True, path=group, first=first)
    dataset: xr.Dataset = xr.open_zarr(
        store, chunks=None, consolidated=True, zarr_format=3, drop_variables=without
    )
    return dataset
