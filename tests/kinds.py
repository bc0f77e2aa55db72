"""A small store with every kind of product."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from nights import ran

import ztfzarr

KINDS = ("bias", "pocket", "flat", "science", "stars", "starflat")


@pytest.fixture(scope="session")
def all_kinds(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reduced store, and v2 of all kinds but flat; starflat v1 has a plane, v2 none. Never changed."""
    path = Path(shutil.copytree(reduced_store, tmp_path_factory.mktemp("kinds") / "night.zarr"))
    assert ran("science", path, "--version", "v2", "--set", "science.bias=v2", "-q") == 0
    for version, sky in (("v1", "20"), ("v2", "25")):
        settings = ["--set", f"pocket_fit.lowest={sky}", "--set", "pocket_fit.minimum=4"]
        assert ran("pocket", "fit", path, "--version", version, *settings, "-q") == 0
    for version, threshold in (("v1", "3"), ("v2", "6")):
        settings = ["--set", f"stars.threshold={threshold}", "--set", f"stars.science={version}"]
        assert ran("stars", path, "--version", version, *settings, "-q") == 0
    add_starflats(path)
    return path


def add_starflats(path: Path) -> None:
    """Fit starflats to simulated measurements, of zr, in the first exposures of a store."""
    from test_starflat_store import NIGHT, SHAPE, catalogue_of, table_of, version_of

    from ztfzarr.reduce.starflat import starflat_of_table
    from ztfzarr.simulate.measurements import simulate_starfield
    from ztfzarr.store.starflat_tables import mark_starflat

    field = simulate_starfield(NIGHT)
    exposures = np.sort(ztfzarr.open_cube(path)["exposure"].values)[: NIGHT.dithers]
    for name, known in (("v1", catalogue_of(field)), ("v2", None)):
        version = version_of(path, name)
        tables, used = starflat_of_table(version, "zr", table_of(field, exposures), known, SHAPE)
        mark_starflat(version, "zr", tables, used)
