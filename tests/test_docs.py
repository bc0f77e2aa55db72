"""The documentation is true: its code runs, its links lead somewhere, no public name is missing."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from stores import ROOT

import ztfzarr
import ztfzarr.plot

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_every_public_name_is_in_the_reference() -> None:
    listed = set(re.findall(r"autofunction:: (\S+)", (DOCS / "api.md").read_text()))
    names = {f"ztfzarr.{name}" for name in ztfzarr.__all__}
    assert names | {f"ztfzarr.plot.{name}" for name in ztfzarr.plot.__all__} == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://", "#")):
            path, _, anchor = target.partition("#")
            found = page.parent / path
            assert found.exists(), target
            assert not anchor or anchor in anchors(found.read_text()), target


def anchors(text: str) -> set[str]:
    """Anchors of headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_contents() -> None:
    listed = set(re.findall(r"^([\w-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed


def test_a_step_is_added_as_the_page_says(reduced_store: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "night.zarr").symlink_to(reduced_store)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "adding-a-step.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "adding-a-step.md", "exec"), names)
    assert float(names["difference"].mean()) > 0.001


def test_the_architecture_is_drawn_from_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import make_architecture

    assert (DOCS / "architecture.svg").read_text() == make_architecture.drawn()
    sys.modules.pop("make_architecture")


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in text
    assert f"\nlicense: {project['license']}\n" in text
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")
