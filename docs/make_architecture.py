"""Draw docs/architecture.svg: layers of imports, as tests/test_imports.py keeps them, and the flow of data.

python docs/make_architecture.py
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
ROWS = 46  # pixels a layer
WHAT = {
    "cli": "commands",
    "export": "FITS files, CCDData, positions",
    "report": "a page a night",
    "plot": "pictures",
    "simulate": "raw nights and their truth",
    "ingest": "FITS to the cube and back",
    "reduce": "from raw to stored versions",
    "store": "objects, lock, raw group, versions",
    "recipe": "the settings that decide pixels",
    "schemas": "what zarr.json must be",
    "schema": "whether it is",
    "photometry": "detection, apertures, WCS, matching",
    "starflat": "fit of maps to stars",
    "steps": "overscan, linearity, pocket",
    "masters": "bias, flat, science, masks",
    "kernels": "compiled loops",
}
FLOW = ("raw FITS", "STORE/raw", "Dataset in DN", "bias, flat, science", "STORE/bias/v1, …", "pictures, FITS, you")
BY = ("ingest", "open_cube", "steps, masters", "reduce", "plot, export")


def layers() -> tuple[tuple[str, ...], ...]:
    """Layers of the package, lowest first, as the test of imports has them."""
    tree = ast.parse((HERE.parent / "tests" / "test_imports.py").read_text())
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(values["LAYERS"])


def box(x: float, y: float, width: float, height: float, title: str, below: str = "") -> str:
    lines = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5"/>']
    middle, text = x + width / 2, escape(title)
    lines.append(f'<text class="name" x="{middle}" y="{y + (15 if below else 23)}">{text}</text>')
    if below:
        lines.append(f'<text class="what" x="{middle}" y="{y + 30}">{escape(below)}</text>')
    return "\n".join(lines)


def drawn() -> str:
    found = layers()
    parts = ['<text class="head" x="390" y="20">imports point down only</text>']
    for row, layer in enumerate(reversed(found)):
        width = 780 / len(layer)
        for i, name in enumerate(layer):
            parts.append(box(i * width + 4, 30 + row * ROWS, width - 8, ROWS - 8, name, WHAT.get(name, "")))
    top = 30 + len(found) * ROWS + 30
    parts.append(f'<text class="head" x="390" y="{top - 8}">data</text>')
    for i, name in enumerate(FLOW):
        x, y = (i % 3) * 275 + 4, top + (i // 3) * 70
        parts.append(box(x, y, 190, 36, name))
        if i < len(BY):
            parts.append(arrow(i, x, y))
    height = top + 125
    style = """
    text { font-family: sans-serif; text-anchor: middle; fill: #222 }
    .name { font-size: 13px; font-weight: bold } .what { font-size: 10.5px } .head { font-size: 14px }
    .by { font-size: 10.5px; font-style: italic } rect { fill: #e8f0f7; stroke: #47708f }
    line { stroke: #47708f; marker-end: url(#tip) } svg { background: #fff }"""
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    tip += '<path d="M0,0 L8,4 L0,8 z" fill="#47708f"/></marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 784 {height}" width="784" height="{height}">'
    title = "<title>Layers of the package and flow of the data</title>"
    return "\n".join([head, title, f"<style>{style}</style><defs>{tip}</defs>", *parts, "</svg>", ""])


def arrow(i: int, x: float, y: float) -> str:
    if i == 2:  # to the row below
        return (
            f'<line x1="{x + 95}" y1="{y + 38}" x2="120" y2="{y + 68}"/>'
            f'<text class="by" x="390" y="{y + 50}">{escape(BY[i])}</text>'
        )
    place = f'x1="{x + 192}" y1="{y + 18}" x2="{x + 271}" y2="{y + 18}"'
    return f'<line {place}/><text class="by" x="{x + 231}" y="{y + 12}">{escape(BY[i])}</text>'


if __name__ == "__main__":
    (HERE / "architecture.svg").write_text(drawn(), "utf-8")
