"""Lists of CCDs: what the docs give as fast ways is the same; our own arrays take a list as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ztfzarr
from ztfzarr.store.lazy import LazyArray

CCDS = [11, 2]


def test_the_fast_ways_give_what_a_list_gives(reduced_store: Path) -> None:
    science = xr.open_zarr(f"{reduced_store}/science/v1", chunks=None, zarr_format=3).science
    expected = science.sel(ccd=CCDS).values
    assert np.isfinite(expected).any()
    loaded = science.sel(ccd=slice(2, 11)).load().sel(ccd=CCDS)
    assert np.array_equal(loaded.values, expected, equal_nan=True)
    chunked = science.chunk(time=1, ccd=1).sel(ccd=CCDS)
    assert np.array_equal(chunked.values, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["raw", "science"])
def test_our_arrays_read_a_list_at_once(reduced_store: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    opened = ztfzarr.open_cube(reduced_store) if name == "raw" else ztfzarr.open_science(reduced_store)
    one_by_one = np.stack([opened[name].sel(ccd=c).values for c in CCDS], axis=1)
    read: list[list[int]] = []
    picked = LazyArray._picked

    def noted(self: LazyArray, key: tuple) -> np.ndarray:
        read.append([np.size(k) for k in key if not isinstance(k, slice)])
        return picked(self, key)

    monkeypatch.setattr(LazyArray, "_picked", noted)
    assert np.array_equal(opened[name].sel(ccd=CCDS).values, one_by_one, equal_nan=True)
    assert [2] in read
