"""Reports: their numbers and words are the store's, every text is escaped, and nothing is loaded."""

from __future__ import annotations

import base64
import builtins
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nights import ran
from reports import IMAGE, NIGHT, SCRIPT, SHOWN, TURNED, hostile, put

from ztfzarr.errors import StoreError
from ztfzarr.recipe import default_recipe
from ztfzarr.report import index_report, night_report
from ztfzarr.report.arrived import arrived
from ztfzarr.report.charts import Series, chart, spark
from ztfzarr.report.focal import colour, focal_map
from ztfzarr.report.history import origins, stale_lines, version_summary
from ztfzarr.report.lamps import lamps
from ztfzarr.report.measures import Measure
from ztfzarr.report.profiles import overscan_profiles, settling_charts, sky_chart
from ztfzarr.report.quality import flagged_lines, judge, judged_masters, judged_science
from ztfzarr.report.render import counted, visible
from ztfzarr.report.science import exposures, spread_out
from ztfzarr.report.source import Product, Raw, ranges, read_products, read_raw
from ztfzarr.store.objects import LocalObjects
from ztfzarr.store.versions import prepare_version

STRUCTURE = Measure("structure", "structure", "DN", ".2f", "bias.structure")  # threshold 5 DN
RATIO = Measure("read_noise_ratio", "ratio", "", ".3f", "bias.read_noise", 1.0)  # 1 ± 0.05
FREE = Measure("x", "x", "", ".1f")
NONE = Measure("x", "x", "", ".0f", most=0.0)


def test_one_is_singular() -> None:
    assert [counted(n, "CCD") for n in (0, 1, 2000)] == ["0 CCDs", "1 CCD", "2,000 CCDs"]
    assert [counted(n, "bias", "biases") for n in (1, 2)] == ["1 bias", "2 biases"]


@pytest.fixture(scope="module")
def page(reduced_store: Path) -> str:
    return night_report(reduced_store, NIGHT).decode()


@pytest.fixture(scope="module")
def hostile_page(reduced_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    store = hostile(reduced_store, tmp_path_factory.mktemp("hostile"))
    return night_report(store, NIGHT).decode(), index_report(store, ["2020-08-01"]).decode()


def product(store: Path, name: str) -> Product:
    return next(p for p in read_products(LocalObjects(store)) if p.name == name)


def text_of(html: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


# Numbers against thresholds


@pytest.mark.parametrize(
    ("measure", "values", "word", "detail"),
    [
        pytest.param(STRUCTURE, [1, 1, 1, 3.9], "within", "", id="within"),
        pytest.param(STRUCTURE, [1, 1, 1, 4.1], "close", "within 20% of it", id="close"),
        pytest.param(STRUCTURE, [1, 1, 1, 5], "close", "within 20% of it", id="at-the-threshold"),
        pytest.param(STRUCTURE, [1, 1, 5.01, 6], "beyond", "2 of 4", id="beyond"),
        pytest.param(STRUCTURE, [1, 1, 1, np.nan], "no value", "1 of 4", id="nan-is-not-good"),
        pytest.param(STRUCTURE, [1, 1, 9, np.nan], "beyond", "1 of 4", id="beyond-and-nan"),
        pytest.param(RATIO, [1, 1, 1, 0.94], "beyond", "1 of 4", id="below-a-ratio"),
        pytest.param(RATIO, [1, 1, 0.99, 1.03], "within", "", id="within-a-ratio"),
        pytest.param(FREE, [1, 1, 9, np.nan], "no threshold", "1 without a value", id="no-threshold"),
        pytest.param(NONE, [0, 0, 0, 1], "beyond", "1 of 4", id="more-than-none"),
        pytest.param(NONE, [0, 0, 0, 0], "within", "", id="none"),
    ],
)
def test_verdicts(measure: Measure, values: list[float], word: str, detail: str) -> None:
    """Of the CCDs that are made only."""
    numbers = np.full((16, 4), 1e9)
    numbers[2] = values
    made = np.arange(16) == 2
    found = judge(measure, numbers, made, default_recipe(), [numbers], "")
    assert (found.word, found.detail) == (word, detail)


def test_a_threshold_is_the_recipes() -> None:
    recipe = default_recipe()
    recipe["bias"]["structure"] = 0.5
    values = np.ones((16, 4))
    found = judge(STRUCTURE, values, np.ones(16, bool), recipe, [values], "")
    assert (found.word, found.limit, found.setting) == ("beyond", "≤ 0.5 DN", "bias.structure")


def test_the_furthest_quadrant_and_the_trend() -> None:
    values = np.ones((16, 4))
    values[5, 1] = 2.0
    history = [np.full((16, 4), 3.0), np.full((16, 4), np.nan), values]
    found = judge(STRUCTURE, values, np.ones(16, bool), default_recipe(), history, "")
    assert (found.worst, found.median, found.low, found.high) == ("CCD 6 q2", "1.00", "1.00", "2.00")
    assert found.trend is not None
    assert found.trend.text == "medians of the last 2 nights, from 3.00 to 1.00"


def test_numbers_of_the_masters_are_the_stores(reduced_store: Path) -> None:
    bias = product(reduced_store, "bias/v1")
    found = {j.title: j for j in judged_masters(bias, NIGHT, 0)}
    noise = bias.table("read_noise")[0][[1, 10]]
    assert found["read noise"].median == f"{np.median(noise):.3f}"
    assert (found["read noise"].low, found["read noise"].high) == (f"{noise.min():.3f}", f"{noise.max():.3f}")
    beyond = int((np.abs(bias.table("read_noise_ratio")[0][[1, 10]] - 1) > 0.05).sum())
    assert found["read noise, measured / header"].detail == f"{beyond} of 8"
    (line,) = flagged_lines(bias, 0)
    assert line.startswith("read noise: CCD ")
    assert len(re.findall(r"q\d", line)) == beyond


def test_numbers_of_flats_and_science(reduced_store: Path) -> None:
    flat, science = product(reduced_store, "flat/v1"), product(reduced_store, "science/v1")
    groups = [j.group for j in judged_masters(flat, NIGHT, 0)]
    assert [g for g in ("zg", "zi", "zr", "") if g in groups] == ["zg", "zi", "zr", ""]
    scatter = next(j for j in judged_masters(flat, NIGHT, 0) if j.title == "scatter of pixels" and j.group == "zr")
    assert scatter.high == f"{100 * flat.table('scatter')[0, 2][[1, 10]].max():.2f}"
    assert scatter.limit == "≤ 5 %"
    skies = {j.group: j for j in judged_science(science, NIGHT) if j.title == "sky"}
    rows = science.rows_of(NIGHT)
    assert set(skies) == {"zg", "zr"}
    for band, judged in skies.items():
        mine = science.rows("sky", rows)[(science.rows("filter", rows) == band)][:, [1, 10]]
        assert judged.median == f"{np.median(mine[np.isfinite(mine)]):.1f}"


# What came in


def made_up(tmp_path: Path, **tables: Any) -> Raw:
    """Two nights of three CCDs, of which the second lacks things."""
    night = np.array([20200801] * 6 + [20200802] * 6)
    present = np.zeros((12, 16), bool)
    present[:6, :3] = True
    present[6:, :2] = True
    present[9, 1] = False
    defaults: dict[str, Any] = {
        "exposure": np.arange(12) + 100,
        "time": np.arange(12, dtype=np.int64) * 10**9,
        "night": night,
        "imgtype": np.array(["bias", "bias", "flat", "flat", "flat", "object"] * 2, object),
        "filter": np.array(["bi", "bi", "zg", "zg", "zr", "zr"] * 2, object),
        "led": np.array([-1, -1, 2, 2, 7, -1] * 2),
        "present": present,
        "source_name": np.full((12, 16), "", object),
    }
    return Raw(LocalObjects(tmp_path), defaults | tables)


def test_what_is_missing(tmp_path: Path) -> None:
    lines = arrived(made_up(tmp_path), 20200802, []).missing
    assert lines[0] == "CCD 3–16: no file of this night; the night before had CCD 3"
    assert lines[1] == "CCD 2: no file of exposure 109 (flat)"
    assert "LED 3 (zg): no flats" in lines
    assert "LED 7 (zr): no flats" not in lines
    assert not [line for line in lines if line.startswith("filter")]


def test_kinds_lamps_and_filters_that_are_missing(tmp_path: Path) -> None:
    kinds = np.array(["flat", "flat", "flat", "flat", "flat", "object"] * 2, object)
    bands = np.array(["zg", "zg", "zg", "zg", "zg", "zi"] * 2, object)
    raw = made_up(tmp_path, imgtype=kinds, filter=bands, led=np.array([2, 2, 3, 3, 4, -1] * 2))
    lines = arrived(raw, 20200801, []).missing
    assert "no bias exposures" in lines
    assert "LED 4: 1 flat, the others have 2" in lines
    assert "filter zi: exposures of the sky, but no flats of this night" in lines


def test_counts_by_kind_filter_and_lamp(tmp_path: Path) -> None:
    found = arrived(made_up(tmp_path), 20200802, [])
    groups = {(g.kind, g.filter, g.led): (g.exposures, g.files, g.lacking[:3]) for g in found.groups}
    assert groups == {
        ("bias", "", ""): (2, 4, [0, 0, 2]),
        ("flat", "zg", "2"): (2, 3, [0, 1, 2]),
        ("flat", "zr", "7"): (1, 2, [0, 0, 1]),
        ("object", "zr", ""): (1, 2, [0, 0, 1]),
    }
    assert [g.kind for g in found.groups] == ["bias", "flat", "flat", "object"]


def test_too_few_biases(reduced_store: Path, tmp_path: Path) -> None:
    lines = arrived(made_up(tmp_path), 20200801, [product(reduced_store, "bias/v1")]).missing
    assert "2 biases: bias/v1 needs 13, the first of them dropped as they settle" in lines


def test_ranges() -> None:
    assert ranges([1, 2, 3, 5, 7, 8]) == "1–3, 5, 7–8"


# What was made


def test_provenance_of_masters(reduced_store: Path) -> None:
    raw = read_raw(LocalObjects(reduced_store))
    (one,) = origins(product(reduced_store, "bias/v1"), raw, NIGHT)
    assert one.entries == "CCD 2, 11"
    assert len(one.used) == 3
    assert [(why, len(numbers)) for why, numbers in one.dropped] == [("settling", 10)]
    flats = origins(product(reduced_store, "flat/v1"), raw, NIGHT)
    assert {origin.entries.split()[0] for origin in flats} == {"zg", "zi", "zr"}
    assert all(origin.masters == ["bias/v1/20200801"] for origin in flats)
    science = origins(product(reduced_store, "science/v1"), raw, NIGHT)
    assert {"bias/v1/20200801", "flat/v1/20200801"} <= set(science[0].masters)


def test_settings_other_than_the_defaults(reduced_store: Path) -> None:
    made = version_summary(product(reduced_store, "bias/v2"), {})
    assert made.changed == [("overscan.columns", "[5, 25]", "[25, 30]")]
    assert ("bias.skip", "10") in made.settings
    assert "zarr" in dict(made.software)


def test_stale_masters_are_named(reduced_copy: Path) -> None:
    raw = read_raw(LocalObjects(reduced_copy))
    assert stale_lines(product(reduced_copy, "bias/v1"), raw, NIGHT) == []
    put(reduced_copy, "bias/v1/inputs", (0, 10), 11)
    (line,) = stale_lines(product(reduced_copy, "bias/v1"), raw, NIGHT)
    assert line == "bias/v1: CCD 11: made when the cube had 11 frames for it, now it has 13"
    assert line in text_of(night_report(reduced_copy, NIGHT, thumbnails=0).decode())


def test_stale_science_is_named(reduced_copy: Path) -> None:
    put(reduced_copy, "science/v1/bias_night", (slice(None), 1), 20200731)
    flag = product(reduced_copy, "bias/v1").table("flag")
    put(reduced_copy, "bias/v1/flag", ..., np.zeros_like(flag))
    (line,) = stale_lines(product(reduced_copy, "science/v1"), read_raw(LocalObjects(reduced_copy)), NIGHT)
    assert line == "science/v1: 2 exposures, CCD 2: their own night has got sound masters since"


def test_exposures_of_the_sky(reduced_store: Path) -> None:
    raw = read_raw(LocalObjects(reduced_store))
    found = exposures(raw, NIGHT, product(reduced_store, "science/v1"))
    assert [(e.files, e.made) for e in found] == [(2, 2), (2, 2)]
    assert all(e.sky for e in found)
    without = exposures(raw, NIGHT, None)
    assert [(e.made, e.sky, e.word) for e in without] == [(0, "", "not made")] * 2
    assert [e.number for e in spread_out(found, 1)] == [found[0].number]


# Charts


def test_nan_breaks_a_line() -> None:
    made = chart("t", [Series("s", np.arange(5.0), np.array([1, 2, np.nan, 3, 4]))])
    assert made is not None
    assert re.sub(r"[\d. -]+", "", made.series[0].path) == "MLML"


def test_ticks_are_round_and_inside() -> None:
    made = chart("t", [Series("s", np.array([0.0, 3079.0]), np.array([-1.3, 0.7]))])
    assert made is not None
    assert [text for _, text in made.x_ticks] == ["0", "1,000", "2,000", "3,000"]
    assert [text for _, text in made.y_ticks] == ["−1.0", "−0.5", "0.0", "0.5"]
    left, top, width, height = made.box
    assert all(left <= at <= left + width for at, _ in made.x_ticks)
    assert all(top <= at <= top + height for at, _ in made.y_ticks)
    assert made.zero is not None


def test_nothing_to_draw() -> None:
    nothing = np.array([np.nan, np.nan])
    assert chart("t", [Series("s", np.arange(2.0), nothing)]) is None
    assert spark(np.array([1.0]), np.array([1.0]), np.array([1.0]), "") is None
    assert focal_map("t", np.full((16, 4), np.nan), ".2f", "") is None


def test_one_value_has_a_place() -> None:
    made = chart("t", [Series("s", np.array([2.0]), np.array([5.0]))])
    assert made is not None
    assert len(made.series[0].dots) == 1


def test_the_map_is_as_on_the_sky() -> None:
    values = np.arange(64, dtype=float).reshape(16, 4)
    made = focal_map("t", values, ".0f", " DN")
    assert made is not None
    place = {cell.where: cell.box for cell in made.cells}
    assert place["CCD 13 q1"][0] < place["CCD 16 q1"][0]  # east left
    assert place["CCD 13 q1"][1] < place["CCD 1 q1"][1]  # north up
    assert place["CCD 1 q1"][0] < place["CCD 1 q2"][0]
    assert place["CCD 1 q1"][1] < place["CCD 1 q4"][1]
    assert made.number("CCD 2 q3") == "6"


@pytest.mark.parametrize("fraction", np.linspace(0, 1, 21))
def test_numbers_can_be_read_on_their_colour(fraction: float) -> None:
    """WCAG 2.2, 1.4.3: contrast of 4.5 at least."""
    fill, ink = colour(float(fraction), "viridis")
    channels = np.array([int(fill[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    light = float(linear @ [0.2126, 0.7152, 0.0722])
    contrast = 1.05 / (light + 0.05) if ink == "#fff" else (light + 0.05) / 0.05
    assert contrast >= 4.5


def test_profiles_settling_and_lamps(reduced_store: Path) -> None:
    raw, bias = read_raw(LocalObjects(reduced_store)), product(reduced_store, "bias/v1")
    profiles = overscan_profiles(raw, NIGHT, bias.recipe)
    assert profiles is not None
    assert [ccd for ccd, _ in profiles.charts] == [2, 11]
    labels = [[s.label for s in c.series if s.label] if c else [] for _, c in profiles.charts]
    assert labels == [["q1", "q2", "q3", "q4"]] * 2
    settling = settling_charts(bias, 0)
    assert [c.mark[1] for c in settling if c.mark] == ["used from 10"] * 3
    flat = product(reduced_store, "flat/v1")
    found = lamps(flat, 0)
    assert [lamp.led for lamp in found] == [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    relative = flat.table("led_level")[0] / flat.table("led_reference")[0][:, None]
    expected = 100 * (relative[0, 1] / relative[:4, 1].mean() - 1)
    assert found[0].colours[1].text == f"{expected:+.2f}".replace("-", "−")
    assert found[0].colours[0].step is None


# The page


def test_the_page_says_what_the_store_has(page: str) -> None:
    text = text_of(page)
    assert "Night 2020-08-01" in text
    assert "96 files of 2 CCDs" in text
    assert "bias/v1: 2 made, 0 missing" in text
    assert "2 of 2 exposures" in text
    assert "overscan.columns = [25, 30] (default [5, 25])" in text
    assert "10 dropped: settling" in text
    assert "CCD 1, 3–10, 12–16: no file of this night" in text
    assert page.count("data:image/webp;base64,") == 1 + 3 + 2
    assert len(page) < 1_000_000


def test_verdicts_have_words(page: str) -> None:
    badges = re.findall(r'<span class="badge \w+">.*?</svg>([^<]*)</span>', page, re.DOTALL)
    assert badges
    assert all(text.strip() for text in badges)


def test_the_policy_lets_only_the_pages_own_style(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ")[:3] == ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:"]
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_no_page_loads_or_runs_anything(page: str, hostile_page: tuple[str, str]) -> None:
    for html in (page, *hostile_page):
        assert not re.search(r"<(script|iframe|object|embed|base|form|audio|video)\b", html, re.IGNORECASE)
        assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'="[^"]*"', '=""', html), re.IGNORECASE)
        for target in re.findall(r'\b(?:src|href)="([^"]*)"', html):
            assert re.match(r"data:|#|index\.html$|\d{4}-\d\d-\d\d\.html$", target), target
        style = html.partition("</style>")[0]
        assert "url(" not in style
        assert "@import" not in style
        assert 'style="' not in html


def test_hostile_texts_are_texts(hostile_page: tuple[str, str]) -> None:
    night, index = hostile_page
    for html in hostile_page:
        assert SCRIPT not in html
        assert IMAGE not in html
        assert "&lt;script&gt;" in html
        assert "\u202e" not in html
    assert SHOWN in night
    assert "{{ 7 * 7 }}" in night
    assert "not readable: &lt;script&gt;" in night
    assert "&lt;img src=x" in index


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ± σ 中 é", "plain, ± σ 中 é"),
        (TURNED, SHOWN),
        ("\u200b\u2028\ufeff", r"\u200b\u2028\ufeff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_hidden_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_damaged_pixels_are_told(reduced_copy: Path) -> None:
    shutil.rmtree(reduced_copy / "science" / "v1" / "science" / "c")
    for path in (reduced_copy / "bias" / "v1" / "bias" / "c").rglob("0"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:200])
    text = text_of(night_report(reduced_copy, NIGHT).decode())
    assert "No picture of master bias:" in text


def test_raw_alone_has_a_page(night_store: Path) -> None:
    text = text_of(night_report(night_store, NIGHT).decode())
    assert "no bias/v1 holds for this night" in text
    assert "4 biases" not in text
    assert "make it with ztfzarr bias" in text  # science cannot be computed without masters


# Commands


def test_report_of_a_night(reduced_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report.html"
    assert ran("report", reduced_store, "--night", "2020-08-01", "-o", output, "-q", "--thumbnails", "0") == 0
    assert output.read_text().startswith("<!doctype html>")
    assert ran("report", reduced_store, "-o", output, "--json", "--thumbnails", "0") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(output), "nights": ["2020-08-01"], "bytes": output.stat().st_size}


def test_reports_of_all_nights(local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "all"
    assert ran("report", local, "--all", folder) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["2020-08-01.html", "2020-08-02.html", "index.html"]
    index, first = (folder / "index.html").read_text(), (folder / "2020-08-01.html").read_text()
    assert re.findall(r'href="(\d[^"]*)"', index) == ["2020-08-02.html", "2020-08-01.html"]
    assert 'href="2020-08-02.html" rel="next"' in first
    assert 'href="index.html"' in first
    old = (folder / "2020-08-02.html").stat().st_mtime_ns
    assert ran("report", local, "--all", folder, "--night", "2020-08-01", "-q") == 0
    assert (folder / "2020-08-02.html").stat().st_mtime_ns == old
    assert 'href="2020-08-02.html"' in (folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "x.html", "--all", "d"], 2, "-o with --all"),
        (["--json"], 2, "expected -o report.html, or --all DIR"),
        (["--night", "2020-09-01", "-o", "x.html"], 3, "no night 2020-09-01 in the cube: there are 2020-08-01"),
        (["--night", "2020-08-32", "-o", "x.html"], 2, "is no night"),
        (["--thumbnails", "-1", "-o", "x.html"], 2, "--thumbnails"),
    ],
)
def test_wrong_usage(
    night_store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert ran("report", night_store, *arguments) == status
    assert message in capsys.readouterr().err


def test_a_night_of_which_no_science_could_be_made(reduced_store: Path, tmp_path: Path) -> None:
    """As without masters: the version is there, and none of its entries."""
    copy = shutil.copytree(reduced_store, tmp_path / "night.zarr")
    objects = LocalObjects(copy)
    prepare_version(objects, "science", "v9", None, default_recipe())
    one = product(copy, "science/v9")
    assert sky_chart(one, NIGHT, np.zeros(len(one.night))) is None
    assert "science/v9" in text_of(night_report(copy, NIGHT, version="v9", thumbnails=0).decode())


def test_without_jinja2(
    night_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def refusing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)
    assert ran("report", night_store, "-o", tmp_path / "x.html", "-q", "--thumbnails", "0") == 2
    assert "pip install 'ztfzarr[report]'" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_no_such_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store with raw exposures"):
        night_report(tmp_path / "none.zarr", NIGHT)
