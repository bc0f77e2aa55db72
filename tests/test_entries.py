"""Entries of products: rounded, encoded part by part, read by zarr as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ztfzarr.recipe import default_recipe, merged
from ztfzarr.store.entries import create_entry, encode_part, few_bits, fill_entry
from ztfzarr.store.objects import open_objects
from ztfzarr.store.shard import ChunkConfig, encode_chunk, join_chunks, shard_format
from ztfzarr.store.template import arrays_of
from ztfzarr.store.versions import Version, prepare_version

ALL = np.array([0, -0.0, 1e-30, -3.3, 12345.678, 6e4, np.nan, np.inf, -np.inf], np.float32)


def version(store: Path, **settings: float) -> Version:
    recipe = merged(default_recipe(), {"bias": settings})
    return prepare_version(open_objects(store), "bias", "v1", recipe, recipe)


def images(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    bias = rng.normal(0, 3, shape).astype(np.float32)
    bias.ravel()[: ALL.size] = ALL
    return {
        "bias": bias,
        "variance": np.abs(rng.normal(2, 1, shape)).astype(np.float32),
        "count": rng.integers(0, 11, shape).astype(np.int16),
    }


def read(store: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(store, path=f"bias/v1/{name}", mode="r")[0, 1])


@pytest.mark.parametrize("rounding", [0.0, 0.0625])
def test_what_is_written_is_read(store_copy: Path, rounding: float) -> None:
    one = version(store_copy, rounding=rounding)
    shape = tuple(arrays_of(one.document)["bias"]["shape"][2:])
    data = images(shape)
    fill_entry(one, (0, 1), data)
    assert np.array_equal(read(store_copy, "count"), data["count"])
    if rounding == 0:
        assert np.array_equal(read(store_copy, "bias"), data["bias"], equal_nan=True)
        assert np.array_equal(read(store_copy, "variance"), data["variance"])
        return
    finite = np.isfinite(data["bias"])
    expected = np.where(finite, np.rint(data["bias"] * 16) / 16, data["bias"]).astype(np.float32)
    assert np.array_equal(read(store_copy, "bias"), expected, equal_nan=True)
    ratio = read(store_copy, "variance") / data["variance"]
    assert np.abs(ratio - 1).max() <= 2.0**-8
    assert np.abs(ratio - 1).max() > 2.0**-10  # it is rounded


def test_parts_make_the_whole(store_copy: Path) -> None:
    one = version(store_copy, rounding=0.0625)
    shape = tuple(arrays_of(one.document)["bias"]["shape"][2:])
    data = images(shape)
    whole = {name: encode_part(one, name, image) for name, image in data.items()}
    for name, image in data.items():
        parts: dict = {}
        for q in (3, 0, 2, 1):
            parts |= encode_part(one, name, image[q : q + 1], quadrant=q)
        assert parts == whole[name]
    create_entry(one, (0, 1), whole)
    create_entry(one, (0, 1), whole)  # the same content is no conflict


def test_a_chunk_that_is_missing_is_an_error(store_copy: Path) -> None:
    one = version(store_copy)
    form = shard_format(arrays_of(one.document)["bias"])
    chunk = encode_chunk(form, np.zeros(form.chunk, np.float32), np.nan, ChunkConfig(4))
    with pytest.raises(ValueError, match="is missing: expected all of them"):
        join_chunks(form, dict.fromkeys([(0,) * len(form.grid)], chunk))


@given(arrays.arrays(np.float32, 20, elements=st.floats(0, 2.0**100, width=32)))
def test_few_bits(values: np.ndarray) -> None:
    short = few_bits(values)
    normal = values > 1e-37
    assert np.all(np.abs(short[normal].astype(float) / values[normal] - 1) <= 2.0**-8)
    assert np.array_equal(few_bits(short), short)
    assert np.array_equal(few_bits(ALL[-3:]), ALL[-3:], equal_nan=True)
