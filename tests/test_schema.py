"""schemas/raw.json: what the store writes satisfies it, and each wrong document fails with its own message."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ztfzarr.ingest.run import ingest
from ztfzarr.schema import faults
from ztfzarr.schemas import load
from ztfzarr.simulate import simulate_night
from ztfzarr.store.raw import VARIABLES, arrays_of, new_document


@pytest.fixture(scope="module")
def document(night_store: Path) -> dict[str, Any]:
    return json.loads((night_store / "raw" / "zarr.json").read_text())


def test_the_schema_is_valid_2020_12():
    schema = load("raw")
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_pins_every_variable():
    pinned = load("raw")["properties"]["consolidated_metadata"]["properties"]["metadata"]
    assert set(pinned["required"]) == set(pinned["properties"]) == set(VARIABLES)


def test_what_the_store_writes_is_valid(document):
    assert faults(document, "raw") == []


@pytest.mark.parametrize(("shape", "overscan"), [((3080, 3072), 30), ((1, 1), 1), ((617, 513), 7)])
def test_new_groups_of_any_size_are_valid(shape, overscan):
    assert faults(new_document(shape, overscan), "raw") == []


def test_consolidated_copies_are_the_arrays_own_documents(document, night_store):
    for name, array in arrays_of(document).items():
        assert json.loads((night_store / "raw" / name / "zarr.json").read_text()) == array


def put(*path: Any, value: Any) -> Callable[[dict], None]:
    """Put a value at a place of a document."""

    def change(document: dict) -> None:
        place(document, path[:-1])[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        del place(document, path[:-1])[path[-1]]

    return change


def place(document: Any, path: tuple) -> Any:
    """Follow a path from an array, by its name, or from the top."""
    if path and path[0] in VARIABLES:
        document = arrays_of(document)
    for step in path:
        document = document[step]
    return document


SHARDING = ("codecs", 0, "configuration")
RAW_AXES = "['time', 'ccd', 'quadrant', 'y', 'x'] was expected"
WRONG = [
    ("format", put("attributes", "format", value=2), "attributes/format: 1 was expected"),
    ("kind", put("attributes", "kind", value="flat"), "attributes/kind: 'raw' was expected"),
    ("no-conventions", drop("attributes", "Conventions"), "attributes: 'Conventions' is a required"),
    ("zarr-2", put("zarr_format", value=2), "zarr_format: 3 was expected"),
    ("an-array", put("node_type", value="array"), "node_type: 'group' was expected"),
    ("not-consolidated", drop("consolidated_metadata"), "group: 'consolidated_metadata' is a required"),
    ("no-present", lambda d: arrays_of(d).pop("present"), "metadata: 'present' is a required"),
    ("float-pixels", put("raw", "data_type", value="float32"), "raw/data_type: 'int32' was expected"),
    ("absent-is-zero", put("raw", "fill_value", value=0), "raw/fill_value: 2143289344 was expected"),
    ("dither-is-none", put("zdither", "fill_value", value=0), "zdither/fill_value: -32768 was expected"),
    ("fixed-strings", put("filter", "data_type", value="U2"), "filter/data_type: 'string' was expected"),
    ("axes", put("raw", "dimension_names", 0, value="ccd"), f"raw/dimension_names: {RAW_AXES}"),
    ("no-axes", put("raw", "dimension_names", value=None), f"raw/dimension_names: {RAW_AXES}"),
    ("15-ccds", put("gain", "shape", 1, value=15), "gain/shape/1: 16 was expected"),
    ("too-few-axes", put("gain", "shape", value=[18, 16]), "gain/shape: [18, 16] is too short"),
    ("no-checksum", drop("zscale", *SHARDING, "codecs", 1), "zscale/codecs/0/configuration/codecs: "),
    ("no-table-checksum", drop("gain", "codecs", 2), "gain/codecs: "),
    ("other-codec", put("raw", *SHARDING, "codecs", 0, "name", value="blosc"), "'numcodecs.pcodec' was expected"),
    (
        "unsharded",
        put("raw", "codecs", 0, "name", value="bytes"),
        "codecs/0/name: 'sharding_indexed' was expected",
    ),
    ("index-first", put("raw", *SHARDING, "index_location", value="start"), "index_location: 'end' was expected"),
    (
        "two-files-a-shard",
        put("raw", "chunk_grid", "configuration", "chunk_shape", 1, value=2),
        "raw/chunk_grid/configuration/chunk_shape/1: 1 was expected",
    ),
    (
        "units",
        put("gain", "attributes", "units", value="DN"),
        "gain/attributes/units: 'electron DN-1' was expected",
    ),
    ("no-units", drop("time", "attributes", "units"), "time/attributes: 'units' is a required"),
    ("no-long-name", drop("raw", "attributes", "long_name"), "raw/attributes: 'long_name' is a required"),
    ("other-keys", put("raw", "chunk_key_encoding", "name", value="v2"), "raw/chunk_key_encoding: "),
    ("unequal-times", put("night", "shape", 0, value=17), "night: time has length 17, expected 18 as in exposure"),
    ("unequal-rows", put("zscale", "shape", 3, value=71), "zscale: y has length 71, expected 70 as in y"),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*case, id=name) for name, *case in WRONG])
def test_wrong_documents_fail(document, change, message):
    wrong = copy.deepcopy(document)
    change(wrong)
    assert wrong != document
    lines = faults(wrong, "raw")
    assert any(message in line for line in lines), lines
    assert all(len(line) < 400 for line in lines)


EXTRA = {"shape": [18], "data_type": "float32", "dimension_names": ["time"], "attributes": {}}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param(EXTRA, [], id="along-time"),
        pytest.param(EXTRA | {"dimension_names": ["mine"]}, [], id="own-dimension"),
        pytest.param({"shape": [3], "data_type": "int8"}, [], id="no-names"),
        pytest.param(EXTRA | {"dimension_names": [None]}, [], id="none-names"),
        pytest.param({"node_type": "group", "attributes": {}}, [], id="group"),
        pytest.param(
            EXTRA | {"shape": [17]}, ["seeing: time has length 17, expected 18 as in exposure"], id="short"
        ),
    ],
)
def test_extra_variables_are_allowed_if_they_fit(document, extra, expected):
    wider = copy.deepcopy(document)
    arrays_of(wider)["seeing"] = extra
    assert faults(wider, "raw") == expected


def test_metadata_does_not_grow_with_nights(night_store, document, tmp_path, store_copy):
    """Apart from lengths along time: readers of ten years' nights parse what those of one do."""
    simulate_night(tmp_path, night=20210301, ccds=(5,), shape=(70, 96), bias=2, flats=0, science=0)
    assert ingest(store_copy, [tmp_path / "raw"]).ingested == 2
    grown = json.loads((store_copy / "raw" / "zarr.json").read_text())
    assert {n for array in arrays_of(grown).values() for n in array["shape"]} - {20} <= {
        n for array in arrays_of(document).values() for n in array["shape"]
    }
    for one, other in zip(arrays_of(document).values(), arrays_of(grown).values(), strict=True):
        assert [
            20 if d == "time" else n for d, n in zip(one["dimension_names"], one["shape"], strict=True)
        ] == other["shape"]
        one["shape"] = other["shape"]
    assert grown == document
    assert (store_copy / "zarr.json").read_bytes() == (night_store / "zarr.json").read_bytes()
