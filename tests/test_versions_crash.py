"""A version is what its recipe says, whoever dies while it is dropped, made or marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from ztfzarr.errors import StoreError
from ztfzarr.recipe import default_recipe, merged
from ztfzarr.reduce.versions import drop
from ztfzarr.store.entries import Entry, fill_entry, mark_entries
from ztfzarr.store.objects import LocalObjects, open_objects
from ztfzarr.store.versions import Version, find_version, made, prepare_version

OTHER = merged(default_recipe(), {"bias": {"rounding": 0.5}})
PLACE = (0, 1)


def prepared(store: Path, recipe: dict | None = None) -> Version:
    return prepare_version(open_objects(store), "bias", "v1", recipe, default_recipe())


def pixels(level: float) -> dict[str, np.ndarray]:
    image = np.full((4, 70, 96), level, np.float32)
    return {"bias": image, "variance": image, "count": np.full(image.shape, 10, np.int16)}


def make(version: Version, level: float) -> None:
    fill_entry(version, PLACE, pixels(level))
    mark_entries(version, [Entry(PLACE, {"provenance": "{}"})])


class Died(BaseException):
    pass


@pytest.mark.parametrize("deleted", [1, 2, 5, 15])
def test_a_drop_that_was_cut_short_leaves_nothing_to_the_next_recipe(store_copy, monkeypatch, deleted):
    make(prepared(store_copy), 100.0)
    count = []

    def delete(self, key):
        if key.startswith("bias/") and len(count) == deleted:
            raise Died
        count.append(key)
        real_delete(self, key)

    real_delete = LocalObjects.delete
    with monkeypatch.context() as patch:
        patch.setattr(LocalObjects, "delete", delete)
        with pytest.raises(Died):
            drop(store_copy, "bias", "v1")
    assert find_version(open_objects(store_copy), "bias", "v1") is None
    version = prepared(store_copy, OTHER)
    assert not made(version).any()
    make(version, 200.0)
    assert np.asarray(zarr.open_group(store_copy, path="bias/v1", mode="r")["bias"][PLACE]).max() == 200.0


def test_a_version_that_was_dropped_meanwhile_is_not_marked(store_copy):
    version = prepared(store_copy)
    fill_entry(version, PLACE, pixels(100.0))
    drop(store_copy, "bias", "v1")
    with pytest.raises(StoreError, match="was dropped while"):
        mark_entries(version, [Entry(PLACE, {"provenance": "{}"})])
    other = prepared(store_copy, OTHER)
    with pytest.raises(StoreError, match="was dropped while"):
        mark_entries(version, [Entry(PLACE, {"provenance": "{}"})])
    assert not made(other).any()


def test_pixels_of_another_shape_are_refused(store_copy):
    with pytest.raises(StoreError, match=r"bias/v1/bias: pixels of shape \(4, 69, 96\), expected \(4, 70, 96\)"):
        fill_entry(prepared(store_copy), PLACE, {name: values[:, :69] for name, values in pixels(1.0).items()})


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_document_is_named(store_copy, text):
    prepared(store_copy)
    (store_copy / "bias/v1/zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"bias/v1/zarr\.json is damaged"):
        prepared(store_copy)
