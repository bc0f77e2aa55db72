"""Arrays that are read when they are indexed, axis by axis, in any order."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

Indices = NDArray[np.int64]


class LazyArray(BackendArray):
    """An array of any ``shape`` for xarray's lazy indexing; a subclass reads outer selections of it.

    ``opening`` names an opening of a store, or of files, unlike any other's. Dask names its arrays by the state
    of this object: a result that a cluster keeps must not stand for the same selection of a cube that has grown.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32, opening: str | None = None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.opening = opening or uuid.uuid4().hex

    @abstractmethod
    def read_into(self, values: NDArray[Any], picked: list[Indices]) -> None:
        """Fill ``values``, which is not empty, with what the indices along each dimension pick."""

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self._picked(key.tuple)  # xarray's adapter copies to reverse, and fails on slice(5, 5, -1)
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._picked)  # type: ignore[no-any-return]

    def _picked(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Read an outer selection: a slice, an integer or integers in any order for each dimension."""
        picked = [_indices(k, n) for n, k in zip(self.shape, key, strict=True)]
        values = np.empty([p.size for p in picked], self.dtype)
        if values.size:
            self.read_into(values, picked)
        kept = [p.size for p, k in zip(picked, key, strict=True) if not isinstance(k, int | np.integer)]
        return values.reshape(kept)


def _indices(key: Any, length: int) -> Indices:
    """Return the indices along a dimension that a key of xarray's picks.

    Its slices are normalised; in some versions (2026.1) a reversed one ends at -1, as a range does, not at None.
    """
    if isinstance(key, slice) and key.stop == -1 and (key.step or 1) < 0:
        key = slice(key.start, None, key.step)
    return np.atleast_1d(np.arange(length)[key])
