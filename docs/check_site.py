"""Check the built site: it loads nothing from a network, and every public name and command is in the reference.

python docs/check_site.py build/docs
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
from sphinx.util.inventory import InventoryFile

import ztfzarr
import ztfzarr.plot
from ztfzarr.cli import cli

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
RELATED = {"next", "prev", "search", "index", "canonical"}  # links that browsers do not fetch


class Loads(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.add(given.get("id") or "")
        if tag in LOADING and not RELATED & set((given.get("rel") or "").split()):
            self.found.append(given.get(LOADING[tag]) or "")


def fetched(site: Path) -> list[str]:
    """Files of a site that load something from elsewhere, and what."""
    found = []
    for page in site.rglob("*.html"):
        loads = Loads(page.read_text("utf-8")).found
        found += [f"{page}: {url}" for url in loads if re.match(r"(https?:)?//", url)]
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text("utf-8"))
        found += [f"{sheet}: {url}" for url in urls]
    return found


def commands(group: click.Group, path: str) -> list[str]:
    """Every command below a group, by what one types."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append(f"{path} {name}")
        found += commands(command, f"{path} {name}") if isinstance(command, click.Group) else []
    return found


def missing(site: Path) -> list[str]:
    """Public names and commands that the reference lacks."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    known = {name for kind in inventory.data.values() for name in kind}
    names = [f"ztfzarr.{name}" for name in ztfzarr.__all__]
    names += [f"ztfzarr.plot.{name}" for name in ztfzarr.plot.__all__]
    anchors = Loads((site / "commands.html").read_text("utf-8")).anchors
    lost = [name for name in names if name not in known]
    return lost + [name for name in commands(cli, "ztfzarr") if name.replace(" ", "-") not in anchors]


def main() -> int:
    site = Path(sys.argv[1])
    faults = [f"loaded from elsewhere: {line}" for line in fetched(site)]
    faults += [f"not in the reference: {name}" for name in missing(site)]
    print("\n".join(faults) or "the site loads nothing from elsewhere; every public name and command is in it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
