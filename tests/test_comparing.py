"""Versions of starflats, star tables and pockets, compared: what was changed is what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from kinds import KINDS
from nights import ran
from reports import put

import ztfzarr
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.reduce.comparing import _pairs, without_plane
from ztfzarr.sky import plane_of_pixels
from ztfzarr.store.objects import open_objects
from ztfzarr.store.star_tables import encode_table
from ztfzarr.store.starflat_tables import mark_starflat, read_starflat
from ztfzarr.store.versions import existing_version, prepare_version

SHAPE = (80, 64)


@pytest.fixture
def copy(all_kinds: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(all_kinds, tmp_path / "copy.zarr"))


def compared(capsys: pytest.CaptureFixture[str], store: Path, kind: str, one: str, other: str) -> dict[str, Any]:
    capsys.readouterr()
    assert ran("compare", store, kind, one, other, "--json") == 0
    return json.loads(capsys.readouterr().out)


def plane_at(nodes: tuple[int, int]) -> np.ndarray:
    """3 mmag, 2 a degree to the east and -1 to the north, at nodes: (ccd, quadrant, cell_y, cell_x)."""
    result = np.empty((64, *nodes))
    y, x = np.meshgrid(*(np.linspace(-0.5, n - 0.5, m) for n, m in zip(SHAPE, nodes, strict=True)), indexing="ij")
    for rcid in range(64):
        u, v = plane_of_pixels(rcid, x.ravel(), y.ravel(), SHAPE)
        result[rcid] = (3e-3 + 2e-3 * u - 1e-3 * v).reshape(nodes)
    return result.reshape(16, 4, *nodes)


def other_starflat(store: Path, name: str, nodes: tuple[int, int], change: Any, **numbers: float) -> None:
    """Make a version of starflat v1's tables at other nodes, with a changed map."""
    objects = open_objects(store)
    tables, exposures = read_starflat(existing_version(objects, "starflat", "v1"), "zr")
    old = tables["delta"]
    for table, values in tables.items():
        if np.shape(values) == old.shape:
            tables[table] = np.zeros((16, 4, *nodes), np.asarray(values).dtype)
    tables |= {"delta": change(old)} | numbers
    recipe = read_recipe("", [f"starflat.nodes={list(nodes)}", "starflat.resamples=4", "starflat.minimum=0.2"])
    mark_starflat(prepare_version(objects, "starflat", name, recipe, default_recipe()), "zr", tables, exposures)


def test_a_plane_is_no_difference_and_the_rest_is(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = without_plane(np.where(np.isfinite(delta_of(copy)), np.random.default_rng(1).normal(
        0, 2e-3, (16, 4, 3, 4)), np.nan))  # fmt: skip
    k = read_starflat(existing_version(open_objects(copy), "starflat", "v1"), "zr")[0]
    error = float(k["extinction_error"])
    changed = {"extinction": float(k["extinction"]) + 3 * error * np.sqrt(2)}
    other_starflat(copy, "v3", (3, 4), lambda old: old + plane_at((3, 4)) + noise, **changed)
    found = compared(capsys, copy, "starflat", "v1", "v3")
    whole = found["differences"][0]
    assert (whole["filter"], whole["ccd"], whole["quadrant"]) == ("zr", None, None)
    assert whole["nodes"] == np.isfinite(noise).sum() == 336
    assert whole["rms"] == pytest.approx(np.sqrt(np.nanmean(noise**2)), rel=1e-3)
    assert whole["largest"] == pytest.approx(np.nanmax(np.abs(noise)), rel=1e-3)
    (ccd,) = [d for d in found["differences"] if (d["ccd"], d["quadrant"]) == (7, None)]
    assert ccd["rms"] == pytest.approx(np.sqrt(np.nanmean(noise[6] ** 2)), rel=1e-3)
    (one,) = [d for d in found["differences"] if (d["ccd"], d["quadrant"]) == (11, 2)]
    assert one["rms"] == pytest.approx(np.sqrt(np.nanmean(noise[10, 1] ** 2)), rel=1e-3)
    (number,) = [n for n in found["numbers"] if n["name"] == "extinction"]
    assert number["sigma"] == pytest.approx(3, rel=1e-3)


def delta_of(store: Path) -> np.ndarray:
    group = xr.open_zarr(store / "starflat" / "v1", chunks=None, zarr_format=3)
    return group["delta"].sel(filter="zr").values


def test_maps_of_other_nodes_are_compared_at_the_same_places(copy: Path, capsys: pytest.CaptureFixture) -> None:
    """Twice as many steps between nodes: bilinear between the old ones, it is the same map."""

    def finer(old: np.ndarray) -> np.ndarray:
        array = xr.DataArray(old, dims=("c", "q", "y", "x"), coords={"y": [0, 2, 4], "x": [0, 2, 4, 6]})
        return array.interp(y=np.arange(5), x=np.arange(7)).values + 0.01

    other_starflat(copy, "v3", (5, 7), finer)
    for one, other, nodes in (("v1", "v3", 336), ("v3", "v1", 28 * 35)):
        whole = compared(capsys, copy, "starflat", one, other)["differences"][0]
        assert whole["nodes"] == nodes
        assert whole["largest"] < 1e-6
    assert compared(capsys, copy, "starflat", "v1", "v3")["recipe"] == [
        {"setting": "starflat.nodes", "v1": [3, 4], "v3": [5, 7]}
    ]


def test_a_plane_that_one_has_is_undetermined_in_the_other(
    all_kinds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, all_kinds, "starflat", "v1", "v2")
    slope = next(n for n in found["numbers"] if n["name"] == "slope_u")
    assert slope["one"] == pytest.approx(8e-3, abs=1e-3)
    assert slope["other"] is None
    assert slope["sigma"] is None
    assert ran("compare", all_kinds, "starflat", "v1", "v2") == 0
    out = capsys.readouterr().out
    assert "zr      slope_u" in out
    assert "v2 - v1: maps in mag, without a constant and a plane" in out


def test_stars_are_matched_and_their_magnitudes_compared(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Star tables v2 become those of v1, moved by half a pixel and 20 mmag; every fifth star is another one."""
    table = ztfzarr.open_stars(copy)
    table = table[~table.round({"x": 0, "y": 0}).duplicated(["exposure", "ccd", "quadrant", "x", "y"])]  # blends
    rng = np.random.default_rng(3)
    expected = []
    for (exposure, ccd), rows in table.groupby(["exposure", "ccd"]):
        new = pd.concat(
            [rows.assign(x=rows["x"] + 30 * i, y=1000 * i + rows["y"]) for i in range(6)], ignore_index=True
        )
        changed = new.assign(x=new["x"] + 0.5, magnitude=new["magnitude"] + rng.normal(0.02, 0.01, len(new)))
        lost = np.arange(len(new)) % 5 == 4
        changed.loc[lost, "x"] = changed["x"][lost] + 500
        expected.append(pd.DataFrame({
            "filter": new["filter"].to_numpy(), "magnitude": new["magnitude"].to_numpy(), "lost": lost,
            "off": changed["magnitude"].to_numpy() - new["magnitude"].to_numpy(),
        }))  # fmt: skip
        for version, written in (("v1", new), ("v2", changed)):
            key = copy / "stars" / version / "table" / f"{exposure}_c{ccd:02d}.parquet"
            key.write_bytes(encode_table({name: written[name].to_numpy() for name in table.columns}))
    truth = pd.concat(expected)
    rows = compared(capsys, copy, "stars", "v1", "v2")["differences"]
    for band in ("zg", "zr"):
        mine = truth[truth["filter"] == band]
        whole = next(d for d in rows if d["filter"] == band and d["bright"] is None)
        matched = mine[~mine["lost"]]["off"].to_numpy()
        assert (whole["both"], whole["only_one"], whole["only_other"]) == (
            len(matched), int(mine["lost"].sum()), int(mine["lost"].sum()),
        )  # fmt: skip
        assert whole["both"] > 30
        assert whole["median"] == pytest.approx(np.median(matched), rel=0.01)
        scatter = 1.4826 * np.median(np.abs(matched - np.median(matched)))
        assert whole["sigma"] == pytest.approx(scatter, rel=0.03)
        bins = [d for d in rows if d["filter"] == band and d["bright"] is not None]
        assert sum(d["both"] for d in bins) == whole["both"]
        one = max(bins, key=lambda d: d["both"])
        inside = mine[~mine["lost"] & mine["magnitude"].between(one["bright"], one["faint"], inclusive="left")]
        assert one["both"] == len(inside)
        assert one["median"] == pytest.approx(np.median(inside["off"]), rel=0.03)


def test_pairs_are_each_others_nearest_in_one_quadrant() -> None:
    """Two stars near one, a star of another quadrant at the same pixel, and one that is too far."""

    def table(*stars: tuple[int, float]) -> dict[str, np.ndarray]:
        quadrant, x = (np.array(column) for column in zip(*stars, strict=True))
        return {"quadrant": quadrant, "x": x, "y": np.full(x.size, 20.0)}

    one = table((1, 10.0), (2, 10.0), (3, 50.0), (3, 51.2), (4, 70.0))
    other = table((2, 10.1), (3, 50.9), (4, 72.1))
    assert [pair.tolist() for pair in _pairs(one, other)] == [[1, 3], [0, 1]]
    assert [pair.tolist() for pair in _pairs(other, one)] == [[0, 1], [1, 3]]


def test_the_same_stars_are_equal(all_kinds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = compared(capsys, all_kinds, "stars", "v1", "v1")["differences"]
    whole = [d for d in rows if d["bright"] is None]
    assert sum(d["both"] for d in whole) == len(ztfzarr.open_stars(all_kinds))
    assert {(d["median"], d["sigma"], d["only_one"], d["only_other"]) for d in whole} == {(0, 0, 0, 0)}


def test_pockets_are_compared_in_their_errors(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = xr.open_zarr(copy / "pocket" / "v1", chunks=None, zarr_format=3)
    old = group["cmax"].values[0, 1, 3]
    put(copy, "pocket/v1/cmax_error", (0, 1, 3), 0.03)
    put(copy, "pocket/v2/cmax_error", (0, 1, 3), 0.04)
    put(copy, "pocket/v2/cmax", (0, 1, 3), old * np.exp(0.2))
    rows = compared(capsys, copy, "pocket", "v1", "v2")["differences"]
    assert len(rows) == 8
    (mine,) = [d for d in rows if d["entry"] == "20200801 CCD 2" and d["quadrant"] == 4]
    assert mine["cmax"] == pytest.approx(4, rel=1e-3)
    assert mine["alpha"] == pytest.approx(0, abs=0.5)
    chi2 = group["chi2"].values[0, 1]
    assert mine["chi2_one"] == pytest.approx(chi2[3])
    lost = [d for d in rows if d["entry"] == "20200801 CCD 2" and not np.isfinite(chi2[d["quadrant"] - 1])]
    assert all(d["cmax"] is None for d in lost)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_compared_with_itself(
    all_kinds: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    found = compared(capsys, all_kinds, kind, "v1", "v1")
    assert found["recipe"] == []
    assert found["differences"]
    assert ran("compare", all_kinds, kind, "v1", "v1") == 0
    assert "v1 - v1" in capsys.readouterr().out
