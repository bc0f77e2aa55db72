"""Make the pictures of docs/pictures.md: a simulated night of all CCDs, made small, and what commands draw of it.

    python docs/make_pictures.py [--folder DIR]

Takes some minutes; with --folder the night is kept, and used again.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import ztfzarr
from ztfzarr.export.stamps import write_stamps
from ztfzarr.ingest.run import ingest
from ztfzarr.masters.mask import bad_pixels
from ztfzarr.plot import mask
from ztfzarr.plot.show import draw, rendered
from ztfzarr.plot.source import Wanted, chosen, subtracted
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.report import night_report
from ztfzarr.simulate import simulate_night
from ztfzarr.store.opening import open_version

HERE = Path(__file__).parent / "pictures"
CCDS = tuple(range(1, 17))
LIMIT = 150_000  # bytes

PICTURES = {
    "science": Wanted("science"),
    "flat": Wanted("flat", filter="zr"),
    "raw-ccd": Wanted("raw", ccd=6),
    "bias-quadrant": Wanted("bias", ccd=6, quadrant=2),
}


def make_night(folder: Path) -> Path:
    store = folder / "night.zarr"
    if not store.exists():
        simulate_night(folder, ccds=CCDS, shape=(308, 256), bias=13, flats=3, science=3)
        ingest(store, [folder / "raw"])
        reduce(store)
        reduce(store, ["bias"], version="v2", recipe=read_recipe("", ["overscan.columns=25:30"]))
    return store


def save(name: str, content: bytes) -> None:
    """Write a PNG with as many colours as leave it small."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if len(buffer.getvalue()) < LIMIT:
            break
    HERE.mkdir(exist_ok=True)
    (HERE / f"{name}.png").write_bytes(buffer.getvalue())
    print(f"{name}.png: {len(buffer.getvalue()) / 1000:.0f} kB, {colours} colours")


def screenshots(page: Path) -> bytes:
    """A report on a desktop, light, and on a phone, dark, side by side; needs Debian's chromium."""
    from playwright.sync_api import sync_playwright

    shots = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme in ((1180, "light"), (360, "dark")):
            one = browser.new_page(
                viewport={"width": width, "height": 1180}, color_scheme=scheme, reduced_motion="reduce"
            )
            one.goto(page.absolute().as_uri())
            if scheme == "dark":
                one.evaluate("document.querySelector('#bias').scrollIntoView()")
            shots.append(Image.open(io.BytesIO(one.screenshot())))
        browser.close()
    sheet = Image.new("RGB", (sum(s.width for s in shots) + 24, 1180), "white")
    for shot, left in zip(shots, (0, shots[0].width + 24), strict=True):
        sheet.paste(shot, (left, 0))
    buffer = io.BytesIO()
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(buffer, "png")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the night is made, and kept")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        store = make_night(folder or Path(scratch))
        for name, wanted in PICTURES.items():
            save(name, rendered(draw(chosen(store, wanted), wanted), "png", dpi=80))
        wanted = Wanted("bias", version="v2")
        save("difference", rendered(draw(subtracted(store, wanted, "v1"), wanted, minus=True), "png", dpi=90))
        save("mask-ccd", rendered(bad_mask(store), "png", dpi=90))
        save("stamps", contact_sheet(store, Path(scratch)))
        page = Path(scratch) / "report.html"
        page.write_bytes(night_report(store, 20200801))
        save("report", screenshots(page))


def bad_mask(store: Path):
    bias = open_version(store, "bias")[["bias", "count"]].isel(night=0).sel(ccd=[6]).load()
    flat = open_version(store, "flat")[["flat", "count"]].isel(night=0).sel(filter="zr", ccd=[6]).load()
    title = "bad pixels\nnight 2020-08-01 · zr · CCD 6"
    return mask(bad_pixels(bias, flat).sel(ccd=6), title=title).figure


def contact_sheet(store: Path, scratch: Path) -> bytes:
    cube = ztfzarr.open_cube(store)
    ra, dec = (float(cube[name][-1]) for name in ("ra", "dec"))
    position = ra + 1.34 / np.cos(np.radians(dec)), dec + 0.65
    list(write_stamps(store, ztfzarr.find(store, *position), scratch / "out", position, 64))
    return (scratch / "out" / "contact-1.png").read_bytes()


if __name__ == "__main__":
    main()
