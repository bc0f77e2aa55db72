"""Versions made before a setting existed: it has its default there, for every command and reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import zarr
from test_products import call, opened

import ztfzarr
from ztfzarr.recipe import completed, default_recipe, recipe_for
from ztfzarr.reduce.listing import product_nights
from ztfzarr.reduce.versions import compare
from ztfzarr.store.objects import open_objects
from ztfzarr.store.versions import existing_version

LATER = {
    "bias": {"bias": ["structure", "read_noise"], "overscan": ["step"]},
    "flat": {"pocket": ["fit", "validity", "across_epochs"], "flat": ["ccds"]},
    "science": {
        "pocket": ["fit", "validity", "across_epochs"],
        "science": ["starflat", "cosmic_rays", "sigclip", "sigfrac", "objlim", "flagged", "saturation"],
    },
}


@pytest.fixture(scope="module")
def old(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store as if its versions had been made before those settings existed. Never changed: copy it."""
    store = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("old") / "old.zarr"))
    for kind, sections in LATER.items():
        path = store / kind / "v1" / "zarr.json"
        document = json.loads(path.read_text())
        for section, names in sections.items():
            for name in names:
                del document["attributes"]["recipe"][section][name]
        path.write_text(json.dumps(document))
    return store


@pytest.fixture
def copy(old: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "copy.zarr"))


def stored_recipe(store: Path, kind: str) -> dict[str, Any]:
    return json.loads((store / kind / "v1" / "zarr.json").read_text())["attributes"]["recipe"]


def test_a_recipe_is_completed_and_nothing_else(old: Path, reduced_store: Path) -> None:
    for kind in LATER:
        lacking, whole = (stored_recipe(store, kind) for store in (old, reduced_store))
        assert lacking != whole
        assert completed(kind, lacking) == whole
        assert existing_version(open_objects(old), kind, "v1").recipe == whole
    assert completed("bias", {"bias": {"skip": 3}, "later": 1})["bias"]["skip"] == 3
    assert completed("bias", {"later": 1}) == recipe_for("bias", default_recipe()) | {"later": 1}


def lost(store: Path) -> tuple[Path, bytes]:
    """Unmake an entry of science; its largest object, as it was."""
    group = zarr.open_group(str(store / "science" / "v1"), mode="r+", use_consolidated=False)
    row, ccd = map(int, np.argwhere(group["present"][...] == 1)[0])
    group["present"][row, ccd] = 0
    path = store / "science" / "v1" / "science" / "c" / str(row) / str(ccd) / "0" / "0" / "0"
    before = path.read_bytes()
    for name in ("science", "mask", "variance"):
        (store / "science" / "v1" / name / "c" / str(row) / str(ccd) / "0" / "0" / "0").unlink()
    return path, before


@pytest.mark.parametrize("given", ["nothing", "today's recipe"])
def test_it_is_completed(copy: Path, tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, before = lost(copy)
    file = tmp_path / "today.toml"
    file.write_text((stores.ROOT / "ztfzarr" / "recipe" / "default.toml").read_text())
    recipe = ["--recipe", file, "--set", "science.variance=true"] if given != "nothing" else []
    assert call("science", copy, *recipe, "-q") == 0, capsys.readouterr().err
    assert path.read_bytes() == before
    assert "sigclip" not in stored_recipe(copy, "science")["science"]


def test_other_settings_are_refused_by_name(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "--set",
        "science.variance=true",
        "--set",
        "science.cosmic_rays=lacosmic",
        "--set",
        "science.objlim=5",
    ]
    assert call("science", copy, *asked, "-q") == 2
    said = capsys.readouterr().err
    assert "science/v1 has science.cosmic_rays 'off', you asked 'lacosmic'" in said
    assert "science.objlim 12.0, you asked 5: use another --version" in said
    assert "None" not in said


def test_compare_and_info_name_what_differs(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, _ = compare(old, "bias", "v1", "v2")
    assert settings == [("overscan.columns", [5, 25], [25, 30])]
    assert call("info", old) == 0
    lines = capsys.readouterr().out.splitlines()
    (bias,) = [line for line in lines if "bias/v1" in line and "made" in line]
    assert bias.endswith("default recipe")
    (science,) = [line for line in lines if "science/v1" in line and "made" in line]
    assert science.endswith("; science.variance = True")


def test_listing_is_as_before(old: Path, reduced_store: Path) -> None:
    assert list(product_nights(old)) == list(product_nights(reduced_store))


def test_repair(copy: Path) -> None:
    path = next((copy / "science" / "v1" / "science" / "c").rglob("0/0/0"))
    before = path.read_bytes()
    stores.flip(path, len(before) // 3)
    assert call("repair", copy, "-q") == 0
    assert path.read_bytes() == before


def test_open_science(old: Path) -> None:
    stored, computed = opened(old, "science/v1"), ztfzarr.open_science(old)
    stored = stored.isel(time=(stored["imgtype"] == "object").values).sortby("time")
    assert np.array_equal(stored["mask"].values, computed["mask"].values)
