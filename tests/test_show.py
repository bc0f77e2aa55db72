"""Pictures: what is drawn where, and ``ztfzarr show`` as a person meets it."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from xarray.backends import BackendArray
from xarray.core import indexing

import ztfzarr
from ztfzarr import plot
from ztfzarr.cli import main
from ztfzarr.plot import show
from ztfzarr.plot.axes import described
from ztfzarr.plot.mask import bit_shares, flag_meanings
from ztfzarr.plot.source import Wanted, chosen, subtracted
from ztfzarr.plot.stretch import percentile, symmetric, zscale
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.store.objects import open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.versions import prepare_version

CCDS = (2, 11)
SHAPE = (80, 64)


@pytest.fixture(scope="module")
def store(reduced_store: Path) -> Path:
    return reduced_store


@pytest.fixture(autouse=True)
def _quick_and_without_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from matplotlib import pyplot

    matplotlib.use("agg")
    monkeypatch.setattr(show, "DPI", 70)
    yield
    pyplot.close("all")


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


def axes() -> Axes:
    return Figure().add_subplot()


def stored(ccds: bool = False, quadrants: bool = False, star: dict[str, int] | None = None) -> xr.DataArray:
    """Noise about 100 DN, with a bright star if asked for."""
    shape = (3, 4, *SHAPE)
    labels = {"ccd": [1, 6, 16], "quadrant": [1, 2, 3, 4], "y": np.arange(SHAPE[0]), "x": np.arange(SHAPE[1])}
    noise = np.random.default_rng(1).normal(100, 2, shape).astype(np.float32)
    array = xr.DataArray(noise, labels, ("ccd", "quadrant", "y", "x"), "science", {"units": "DN"})
    if star is not None:
        array.loc[star] = 60_000
    array = array if ccds else array.sel(ccd=6)
    return array if quadrants else array.sel(quadrant=3)


def drawn(ax: Axes) -> Any:
    return ax.get_images()[0]


def test_a_quadrant_is_drawn_in_stored_pixels() -> None:
    ax = plot.image(stored(star={"ccd": 6, "quadrant": 3, "y": 70, "x": 5}), ax=axes())
    image = drawn(ax)
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-0.5, SHAPE[1] - 0.5, SHAPE[0] - 0.5, -0.5)  # east left, north up
    row, column = np.unravel_index(np.argmax(image.get_array()), SHAPE)
    assert bottom + (row + 0.5) / SHAPE[0] * (top - bottom) == pytest.approx(70)
    assert left + (column + 0.5) / SHAPE[1] * (right - left) == pytest.approx(5)


@pytest.mark.parametrize(("draw", "corner"), [(plot.image, "left"), (plot.camera_image, "right")])
def test_a_star_in_the_north_eastern_corner(draw: Any, corner: str) -> None:
    """q1 has the north-eastern corner of its CCD, where its stored (0, 0) is."""
    ax = draw(stored(quadrants=True, star={"ccd": 6, "quadrant": 1, "y": 0, "x": 0}), ax=axes())
    pixels = np.asarray(drawn(ax).get_array())
    row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
    assert row == pixels.shape[0] - 1
    assert column == (0 if corner == "left" else pixels.shape[1] - 1)


def test_labels_of_the_focal_plane() -> None:
    ax = plot.image(stored(ccds=True, quadrants=True), ax=axes())
    texts = {t.get_text(): t.get_position() for t in ax.texts if t.get_text().startswith("CCD")}
    assert len(texts) == 16
    # The top row, east left, is 13-16, and the bottom row 1-4.
    assert texts["CCD 13"][0] < texts["CCD 16"][0]
    assert texts["CCD 13"][1] == texts["CCD 16"][1] > texts["CCD 1"][1]
    assert sum(t.get_text() == "q1" for t in ax.texts) == 3  # of the CCDs that there are
    assert np.isfinite(np.asarray(drawn(ax).get_array().filled(np.nan))).sum() == 3 * 4 * SHAPE[0] * SHAPE[1]


def test_units_and_title() -> None:
    array = stored().assign_coords(exposure=20200801169205, filter="zr", time=np.datetime64("2020-08-01T04:03:40"))
    assert described(array) == "science\nexposure 20200801169205 · 2020-08-01 04:03:40 UTC · zr · CCD 6 · q3"
    ax = plot.image(array.assign_attrs(long_name="calibrated counts"), ax=axes())
    assert ax.get_title(loc="left") == "science"
    labels = [child.get_ylabel() for child in ax.child_axes]
    assert labels == ["calibrated counts (DN)"]


def test_one_bright_star_does_not_set_the_stretch() -> None:
    array = stored(star={"ccd": 6, "quadrant": 3, "y": 10, "x": 10})
    low, high = zscale(array.values)
    assert 80 < low < 100 < high < 120
    low, high = percentile(array.values)
    assert 90 < low < 100 < high < 110
    assert symmetric(array.values - 100) == pytest.approx((-2 * 2.576, 2 * 2.576), rel=0.1)
    for limits in (zscale, percentile, symmetric):
        low, high = limits(np.full((4, 4), np.nan))
        assert low < high


def test_differences_are_symmetric_about_zero() -> None:
    low, high = drawn(plot.difference(stored() - 99, ax=axes())).get_clim()
    assert low == -high


def test_only_one_image_can_be_drawn() -> None:
    several = stored().expand_dims(time=3)
    with pytest.raises(ValueError, match="has time of 3: select one"):
        plot.image(several, ax=axes())
    plot.image(several[:1], ax=axes())


class Recording(BackendArray):
    """A focal plane that notes the shape of whatever is read of it."""

    def __init__(self) -> None:
        self.shape = (16, 4, *SHAPE)
        self.dtype = np.dtype(np.float32)
        self.read: list[tuple[int, ...]] = []

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._noted)

    def _noted(self, key: Any) -> np.ndarray:
        values = np.zeros(self.shape, np.float32)[key]
        self.read.append(values.shape)
        return values


def test_a_focal_plane_is_read_quadrant_by_quadrant() -> None:
    source = Recording()
    labels = {"ccd": range(1, 17), "quadrant": range(1, 5), "y": range(SHAPE[0]), "x": range(SHAPE[1])}
    lazy = xr.DataArray(indexing.LazilyIndexedArray(source), labels, ("ccd", "quadrant", "y", "x"))
    plot.image(lazy, ax=axes())
    assert len(source.read) == 64
    assert max(np.prod(shape) for shape in source.read) == SHAPE[0] * SHAPE[1]


def test_without_axes_there_is_a_figure_of_pyplot() -> None:
    from matplotlib import pyplot

    ax = plot.image(stored())
    assert ax.figure.number in pyplot.get_fignums()


def flagged() -> xr.DataArray:
    mask = xr.zeros_like(stored(quadrants=True), dtype=np.uint16)
    mask[:, :, 3] = 1 << 9
    mask[2, 3, 3] |= 1 << 8
    return mask.assign_attrs(flag_masks=[1 << 8, 1 << 9, 1 << 13], flag_meanings="saturated dead suspect")


def test_masks_name_their_flags_with_their_share() -> None:
    ax = plot.mask(flagged(), ax=axes())
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["dead  1.56%", "saturated  < 0.01%"]
    index = np.asarray(drawn(ax).get_array().filled(np.nan))
    assert np.isnan(index).sum() == index.size - 4 * SHAPE[0]
    assert (index == 1).sum() == 1  # the rarer flag shows where both are
    assert flag_meanings(flagged())["dead"] == 512
    assert float(bit_shares(flagged())[9]) == 1 / 64


def test_a_mask_must_say_what_it_means() -> None:
    with pytest.raises(ValueError, match="expected flag_masks"):
        plot.mask(flagged().drop_attrs(), ax=axes())


# What of a store is shown


def test_the_last_that_fits_is_chosen(store: Path) -> None:
    cube = ztfzarr.open_cube(store)
    shown = chosen(store, Wanted("raw"))
    assert shown.array.dims == ("ccd", "quadrant", "y", "x")
    assert shown.array["ccd"].values.tolist() == list(CCDS)
    assert int(shown.array["exposure"]) == cube["exposure"].values[-1]
    assert shown.others == cube.sizes["time"] - 1
    first = int(cube["exposure"].values[0])
    one = chosen(store, Wanted("raw", exposure=first, ccd=11, quadrant=2))
    assert one.others == 0
    assert np.array_equal(one.array.values, cube["raw"].sel(ccd=11, quadrant=2)[0].values)
    assert one.title.startswith(f"raw bias\nexposure {first}")


def test_masters_and_filters(store: Path) -> None:
    flat = open_version(store, "flat")
    shown = chosen(store, Wanted("flat", filter="zr", ccd=2))
    assert np.array_equal(shown.array.values, flat["flat"].sel(filter="zr", ccd=2)[0].values)
    assert "zr" in shown.title
    assert chosen(store, Wanted("flat")).others == 2


def test_science_is_computed_where_it_is_not_stored(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    kept = chosen(copy, Wanted("science", ccd=2))
    pixels = kept.array.values
    shutil.rmtree(copy / "science")
    computed = chosen(copy, Wanted("science", ccd=2))
    assert computed.title.startswith("science v1, computed")
    assert kept.title.startswith("science v1\n")
    np.testing.assert_allclose(pixels, computed.array.values, atol=0.0626)
    mask = chosen(copy, Wanted("mask", ccd=2))
    assert mask.title.startswith("mask of science v1, computed")
    assert np.array_equal(mask.array.values, chosen(store, Wanted("mask", ccd=2)).array.values)


def test_differences_of_versions(store: Path) -> None:
    shown = subtracted(store, Wanted("bias", version="v2"), "v1")
    expected = open_version(store, "bias", "v2")["bias"] - open_version(store, "bias", "v1")["bias"]
    assert np.array_equal(shown.array.values, expected.sel(ccd=list(CCDS))[0].values, equal_nan=True)
    assert shown.title.startswith("bias v2 − v1\n")


# The command


PICTURES = [
    pytest.param(["bias"], id="focal plane"),
    pytest.param(["raw", "--ccd", 2, "--camera"], id="CCD"),
    pytest.param(["flat", "--filter", "zi", "--ccd", 11, "--quadrant", 4, "--median"], id="quadrant"),
    pytest.param(["bias", "--version", "v2", "--minus", "v1", "--ccd", 2], id="difference"),
]


@pytest.mark.parametrize("arguments", PICTURES)
def test_a_picture(store: Path, tmp_path: Path, arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "x.png"
    assert run("show", store, *arguments, "-o", output) == 0
    with Image.open(output) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 250
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 30
    assert capsys.readouterr().out.startswith(f"{output}: {arguments[0]}")
    assert [p.name for p in output.parent.iterdir()] == ["x.png"]


def test_json(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.png"
    assert run("show", store, "flat", "--ccd", 2, "-o", output, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": str(output), "title": ["flat v1", "night 2020-08-01 · zg · CCD 2"], "others": 2}
    assert run("show", store, "flat", "--json") == 2


WRONG = [
    pytest.param(["bias", "-o", "x.txt"], 2, "expected a name that ends in .png", id="suffix"),
    pytest.param(["bias", "--quadrant", 2, "-o", "x.png"], 2, "--quadrant without --ccd", id="quadrant"),
    pytest.param(["raw", "--minus", "v1", "-o", "x.png"], 2, "raw has no versions", id="minus"),
    pytest.param(["bias", "--version", "v7", "-o", "x.png"], 3, "no bias/v7 in", id="version"),
    pytest.param(["mask", "--version", "v7", "-o", "x.png"], 3, "no science/v7 in", id="version of science"),
    pytest.param(
        ["bias", "--ccd", 3, "-o", "x.png"],
        3,
        "no bias v1 of CCD 3: there is night 2020-08-01, CCD 2, 11",
        id="ccd",
    ),
    pytest.param(["raw", "--exposure", 1, "-o", "x.png"], 3, "no raw of exposure 1", id="exposure"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), WRONG)
def test_wrong_usage(
    store: Path, arguments: list[Any], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", store, *arguments) == status
    assert message in capsys.readouterr().err
    assert not Path("x.png").exists()


def test_no_picture_on_a_terminal(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("show", store, "bias") == 2
    assert "name a file, as in -o x.png" in capsys.readouterr().err


def test_to_standard_output(store: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("show", store, "bias", "--ccd", 2, "--quadrant", 1) == 0
    assert capsysbinary.readouterr().out.startswith(b"\x89PNG")


def test_science_without_masters_is_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = open_objects(shutil.copytree(store, tmp_path / "night.zarr"))
    prepare_version(copy, "bias", "v8", None, default_recipe())
    prepare_version(copy, "science", "v9", read_recipe("", ["science.bias=v8"]), default_recipe())
    assert (
        run("show", copy.location, "science", "--version", "v9", "--ccd", 2, "-o", tmp_path / "x.png", "-q") == 3
    )
    assert capsys.readouterr().err == "ztfzarr: no bias/v8 of CCD 2 within 7 days, of the same epoch\n"


def test_without_matplotlib(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert run("show", store, "bias", "-o", tmp_path / "x.png") == 2
    assert "pip install 'ztfzarr[plot]'" in capsys.readouterr().err


# At full size


FULL = """
import numpy as np, xarray as xr
from matplotlib.figure import Figure
from xarray.backends import BackendArray
from xarray.core import indexing
import dask
from ztfzarr import plot

class Sky(BackendArray):
    shape, dtype = (16, 4, 3080, 3072), np.dtype(np.float32)
    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self.read)
    def read(self, key):
        return np.ones([len(np.atleast_1d(np.arange(n)[k])) for n, k in zip(self.shape, key)], np.float32)

labels = {d: np.arange(n) + (d in ("ccd", "quadrant")) for d, n in zip(("ccd", "quadrant", "y", "x"), Sky.shape)}
sky = xr.DataArray(indexing.LazilyIndexedArray(Sky()), labels, tuple(labels))
with dask.config.set(scheduler="threads", num_workers=2):
    ax = plot.image(sky, ax=Figure().add_subplot())
assert np.nanmean(ax.get_images()[0].get_array()) == 1
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]))  # ru_maxrss would count the parent's memory at the fork
"""


@pytest.mark.slow
def test_a_focal_plane_of_full_size_needs_less_than_a_gigabyte() -> None:
    """Of 605 Mpix, 2.4 GB in float32."""
    result = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1_000_000  # kB


# The page about it


def test_the_page_of_pictures(reduced_store: Path) -> None:
    """Its pictures are there and small, and its Python runs."""
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "pictures.md").read_text()
    pages = "".join(path.read_text() for path in docs.glob("*.md"))
    linked = set(re.findall(r"\]\((pictures/[^)]+\.png)\)", pages))
    assert {f"pictures/{p.name}" for p in (docs / "pictures").iterdir()} == linked
    assert all((docs / path).stat().st_size < 150_000 for path in linked)
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1].replace("demo/night.zarr", str(reduced_store))
    names: dict[str, Any] = {}
    exec(code, names)
    assert isinstance(names["ax"], Axes)
