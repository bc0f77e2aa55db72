"""Imports point down only: kernels know no xarray, steps no zarr, and only ingest and simulate know FITS."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each layer may import itself and those above it in this list (DESIGN §4).
LAYERS = (
    ("errors", "geometry", "horizon", "tables", "sky"),
    ("kernels",),
    ("steps", "masters", "starflat"),
    ("photometry",),
    ("schemas", "schema", "recipe"),
    ("store",),
    ("simulate", "ingest", "reduce"),
    ("plot",),
    ("export", "report"),
    ("cli",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
BESIDE = {"simulate", "ingest", "reduce"}
FORBIDDEN = {
    "reduce": {"astropy"},
    "sky": {"xarray", "zarr", "astropy", "dask"},
    "geometry": {"xarray", "zarr", "astropy", "dask"},
    "kernels": {"xarray", "zarr", "astropy", "dask"},
    "steps": {"zarr", "astropy", "pathlib", "os"},
    "masters": {"zarr", "astropy", "pathlib", "os"},
    "starflat": {"xarray", "zarr", "astropy", "dask", "pathlib", "os"},
    "photometry": {"zarr", "xarray"},
    "horizon": {"xarray", "zarr", "astropy", "dask"},
    "store": {"astropy"},
    "plot": {"zarr"},
    "report": {"zarr", "astropy"},
    "cli": {"astropy", "zarr", "xarray", "numba", "matplotlib"},
}


def modules() -> list[tuple[str, Path]]:
    found = [(path.relative_to(ROOT / "ztfzarr"), path) for path in sorted((ROOT / "ztfzarr").rglob("*.py"))]
    for folder in ("ingest", "schemas"):
        found += [(Path(folder, path.name), path) for path in sorted((ROOT / folder).glob("*.py"))]
    return [
        (relative.with_suffix("").as_posix(), path) for relative, path in found if "__pycache__" not in path.parts
    ]


def imported(path: Path) -> Iterator[str]:
    """Every module imported anywhere in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize(("name", "path"), [pytest.param(n, p, id=n) for n, p in modules() if n != "__init__"])
def test_imports_point_down(name: str, path: Path) -> None:
    layer = name.split("/")[0]
    assert layer in RANK, f"{name} belongs to no layer"
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "ztfzarr" and len(parts) > 1:
            assert RANK[parts[1]] <= RANK[layer], f"{name} imports {module} from above"
            assert layer == parts[1] or {layer, parts[1]} - BESIDE, f"{name} imports {module} from beside"
        assert parts[0] not in FORBIDDEN.get(layer, set()), f"{name} imports {module}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    source = tmp_path / "low.py"
    source.write_text("def f():\n    from ztfzarr.cli import main\n")
    assert [RANK[m.split(".")[1]] > RANK["kernels"] for m in imported(source)] == [True]


def test_there_are_modules_to_check() -> None:
    layers = {name.split("/")[0] for name, _ in modules()} - {"__init__"}
    assert layers == set(RANK)
