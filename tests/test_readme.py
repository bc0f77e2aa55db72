"""The README's Python runs, as written, beside a store such as its demo makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ztfzarr
from ztfzarr.ingest.run import ingest
from ztfzarr.reduce.run import reduce
from ztfzarr.simulate import simulate_night

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    simulate_night(folder / "demo", ccds=(1, 2), shape=(80, 64), bias=13, flats=3, science=3)
    ingest(folder / "demo" / "night.zarr", [folder / "demo" / "raw"])
    assert not any(report.refused for report in reduce(folder / "demo" / "night.zarr"))
    return folder


def test_code_blocks(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["level"].shape == (80, 64)
    assert np.isfinite(names["bias"].bias.values).all()
    assert names["science"]["science"].dtype == np.float32
    assert names["raw"]["raw"].dtype == np.int32


def test_every_command_is_named() -> None:
    from ztfzarr.cli import COMMANDS

    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"`{name}" not in text and f"ztfzarr {name}" not in text] == []


def test_public_names_are_what_they_say() -> None:
    assert all(getattr(ztfzarr, name).__doc__ for name in ztfzarr.__all__)


def test_the_package_shows_what_the_pages_name() -> None:
    """``ztfzarr.<TAB>``, and what is written ``ztfzarr.report.night_report`` after ``import ztfzarr`` alone."""
    code = """
import ztfzarr
shown = {name for name in dir(ztfzarr) if not name.startswith("_")}
assert shown == {*ztfzarr.__all__, "errors", "photometry", "plot", "report", "simulate"}, shown
assert ztfzarr.plot.image and ztfzarr.report.night_report and ztfzarr.errors.StoreError
assert ztfzarr.simulate.illumination_error and ztfzarr.__version__[0].isdigit()
assert not hasattr(ztfzarr, "pot")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
