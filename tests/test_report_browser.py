"""Reports in a real browser: accessible, fitting, silent, printable, and deaf to hostile texts."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from reports import IMAGE, LINK, MARKUP, NIGHT, SCRIPT, SHOWN, hostile

from ztfzarr.report import index_report, night_report
from ztfzarr.report.run import Around

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")

PHONE, DESKTOP = 360, 1280
# Containers do without Chromium's sandbox, which root may not use, and have a small /dev/shm.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()


@dataclass
class Opened:
    """A page in the browser, what it asked the network for, and what it told the console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(reduced_store: Path, all_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an honest night, one with all kinds of products, a hostile one with them, and its index."""
    folder = tmp_path_factory.mktemp("pages")
    store = hostile(all_kinds, tmp_path_factory.mktemp("hostile"))
    around = Around("2020-07-31", "2020-08-02", "index.html")
    (folder / "night.html").write_bytes(night_report(reduced_store, NIGHT))
    (folder / "kinds.html").write_bytes(night_report(all_kinds, NIGHT, thumbnails=1))
    (folder / "hostile.html").write_bytes(night_report(store, NIGHT, thumbnails=1, around=around))
    (folder / "index.html").write_bytes(index_report(store, ["2020-08-01"]))
    return folder


@pytest.fixture
def open_page(browser: Browser, pages: Path) -> Iterator[Any]:
    contexts = []

    def opening(name: str, width: int = DESKTOP, scheme: str = "light") -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.console.append(message.text))
        opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.console.append(dialog.message))
        opened.page.goto((pages / name).as_uri())
        return opened

    yield opening
    for context in contexts:
        context.close()


def violations(page: Page) -> list[str]:
    """What axe-core finds, of WCAG 2.2 A and AA and of its best practices, with the first place of each."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:120]}" for v in found]


# Each page, width and scheme in the default tests; all of their combinations in the slow ones.
QUICK = {
    ("night.html", DESKTOP, "light"),
    ("kinds.html", PHONE, "light"),
    ("hostile.html", PHONE, "dark"),
    ("index.html", PHONE, "light"),
}
COMBINATIONS = [
    pytest.param(*one, marks=[] if one in QUICK else [pytest.mark.slow])
    for one in itertools.product(
        ["night.html", "kinds.html", "hostile.html", "index.html"], [PHONE, DESKTOP], ["light", "dark"]
    )
]


@pytest.mark.parametrize(("name", "width", "scheme"), COMBINATIONS)
def test_accessible_fitting_and_silent(open_page: Any, name: str, width: int, scheme: str) -> None:
    opened = open_page(name, width, scheme)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.url]


def test_axe_would_find_faults(open_page: Any) -> None:
    page = open_page("night.html").page
    page.evaluate("document.querySelector('h2').style.color = '#ccc'")
    page.evaluate("document.querySelector('main img').removeAttribute('alt')")
    page.evaluate("document.documentElement.removeAttribute('lang')")
    found = {line.partition(":")[0] for line in violations(page)}
    assert {"color-contrast", "html-has-lang", "image-alt"} <= found


def test_tables_scroll_inside_their_own_boxes(open_page: Any) -> None:
    page = open_page("night.html", PHONE).page
    boxes = page.eval_on_selector_all(".scroll", "all => all.map(e => [e.scrollWidth, e.clientWidth, e.tabIndex])")
    assert any(inside > outside for inside, outside, _ in boxes)
    assert all(tab == 0 for *_, tab in boxes)


def test_pictures_are_drawn_and_named(open_page: Any) -> None:
    page = open_page("night.html").page
    images = page.eval_on_selector_all("img", "all => all.map(e => [e.naturalWidth, e.alt])")
    assert len(images) == 2
    assert all(width > 50 and "focal plane, north up" in alt for width, alt in images)
    planes = page.eval_on_selector_all(
        "svg image", "all => all.map(e => [e.getBBox().width, e.parentNode.getAttribute('aria-label')])"
    )
    assert [width > 100 for width, _ in planes] == [True] * 4
    assert page.evaluate(
        """async () => { const i = new Image(); i.src = document.querySelector('svg image').href.baseVal;
        await i.decode(); return i.naturalWidth; }"""
    ) > 100  # fmt: skip


@pytest.mark.parametrize("name", ["night.html", "kinds.html"])
def test_headings_are_in_order_and_the_contents_lead_to_them(open_page: Any, name: str) -> None:
    page = open_page(name).page
    levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(e => +e.tagName[1])")
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    targets = page.eval_on_selector_all("nav.contents a", "all => all.map(e => e.getAttribute('href').slice(1))")
    sections = page.eval_on_selector_all("main > section", "all => all.map(e => e.id)")
    assert targets == sections
    assert {"stars", "starflat", "pocket"} & set(sections) == (
        set() if name == "night.html" else {"stars", "starflat", "pocket"}
    )


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_maps_and_charts_of_a_starflat_are_drawn_and_named(open_page: Any, width: int) -> None:
    page = open_page("kinds.html", width).page
    maps = page.eval_on_selector_all(
        "#starflat svg image",
        "all => all.map(e => [e.getBBox().width, e.parentNode.getAttribute('aria-label'), e.href.baseVal])",
    )
    names = ["map δ", "error of δ, by jackknife", "m − m̃ without the map", "m − m̃ with the map"]
    assert [label for _, label, _ in maps] == [
        f"{name} of starflat/v1 zr, focal plane, north up and east left" for name in names
    ]
    assert all(across > 100 and href.startswith("data:image/webp") for across, _, href in maps)
    charts = page.eval_on_selector_all("#starflat .card svg[role=img]", "all => all.map(e => e.innerHTML.length)")
    assert len(charts) == 4
    assert page.locator("#pocket .card svg[role=img]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_scheme_is_the_readers(open_page: Any, scheme: str) -> None:
    page = open_page("night.html", DESKTOP, scheme).page
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert (light > 200) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_printed_it_is_light_and_whole(open_page: Any, scheme: str) -> None:
    opened = open_page("night.html", DESKTOP, scheme)
    pdf = opened.page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
    opened.page.emulate_media(media="print", color_scheme=scheme)
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.page.is_visible("nav.contents")
    recipe = opened.page.locator("details dl").first
    assert recipe.bounding_box()["height"] > 20  # folded parts are printed


def test_hostile_texts_are_read_not_run(open_page: Any) -> None:
    for name in ("hostile.html", "index.html"):
        opened = open_page(name)
        page = opened.page
        for element in page.query_selector_all("main *:not(details)")[:60]:
            element.dispatch_event("mouseover")
        assert page.evaluate("window.hacked") is None
        assert (
            page.eval_on_selector_all("script, iframe, img[src='x'], [onerror], [onmouseover]", "a => a.length")
            == 0
        )
        text = page.evaluate("document.body.textContent")
        assert SCRIPT in text
        assert IMAGE in text
        assert opened.console == []
    text = open_page("hostile.html").page.evaluate("document.body.textContent")
    assert LINK in text
    assert SHOWN in text
    assert MARKUP in text


def test_the_policy_stops_what_would_get_past_the_escaping(open_page: Any, pages: Path) -> None:
    """The same page with a script and a picture from elsewhere put into its source: neither runs nor loads."""
    html = (pages / "night.html").read_text()
    source = (
        f"<main id=\"content\">{SCRIPT}<img src='http://127.0.0.1:9/x.png' alt='x' onerror='window.hacked = 2'>"
    )
    (pages / "injected.html").write_text(html.replace('<main id="content">', source, 1))
    opened = open_page("injected.html")
    assert opened.page.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in line for line in opened.console) >= 2
