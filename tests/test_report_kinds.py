"""Reports of starflats, star tables and pockets: what the store holds is what the page says."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nights import ran
from reports import NIGHT, put

from ztfzarr import tables
from ztfzarr.report import index_report, night_report
from ztfzarr.report.night import Drawing, NightPage, night_page
from ztfzarr.report.pockets import fitted_pockets
from ztfzarr.report.source import read_products, read_raw
from ztfzarr.report.starflats import _bright, _repeated, starflats
from ztfzarr.store.objects import open_objects
from ztfzarr.store.products import FILTERS


@pytest.fixture
def copy(all_kinds: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(all_kinds, tmp_path / "copy.zarr"))


def page_of(store: Path, version: str = "v1") -> NightPage:
    raw = read_raw(open_objects(store))
    return night_page(raw, read_products(raw.objects), NIGHT, Drawing(version, 0))


@pytest.fixture(scope="module")
def page(all_kinds: Path) -> NightPage:
    return page_of(all_kinds)


def opened(store: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(store / group, chunks=None, zarr_format=3)


def test_stores_without_them_have_no_such_sections(reduced_store: Path) -> None:
    html = night_report(reduced_store, NIGHT, thumbnails=0).decode()
    for name in ("stars", "starflat", "pocket"):
        assert f'id="{name}"' not in html
        assert f'href="#{name}"' not in html


def test_the_numbers_of_a_starflat(all_kinds: Path, page: NightPage) -> None:
    one = opened(all_kinds, "starflat/v1").sel(filter="zr")
    (part,) = page.starflats
    assert (part.name, part.note) == ("starflat/v1 zr", "Of 2020-08-01; the night's science is made without it.")
    said = {number.title: number for number in part.numbers}
    assert said["measurements"].value == f"{int(one['measurements']):,} of {int(one['stars']):,} stars"
    for name, title in (
        ("chi2", "χ²/ν of the fit"),
        ("half_sample", "χ²/ν of even exposures by the map of the odd"),
    ):
        assert said[title].value == f"{float(one[name]):.3f}"
        assert said[title].word == "within"
    assert said["measurements rejected"].value == f"{100 * float(one['rejected']):.2f} %"
    for i, radius in enumerate((6, 12)):
        value = 1000 * float(one["radius_difference"][i])
        assert said[f"map of an aperture of {radius} pixels, rms difference"].value == f"{value:.2f} mmag"
    for axis, where in (("u", "east"), ("v", "north")):
        slope, error = (1000 * float(one[f"slope_{axis}{kind}"]) for kind in ("", "_error"))
        text = f"{slope:.2f}".replace("-", "−")
        assert said[f"slope to the {where}"].value == f"{text} ± {error:.2f} mmag/degree"
    after, expected = (one[f"repeatability_{name}"].values for name in ("after", "expected"))
    first = np.flatnonzero(np.isfinite(after))[:3]
    ratio = np.median(after[first] / expected[first])
    assert said["repeatability of bright stars / expected"].value == f"{ratio:.2f}"


def test_an_undetermined_plane_is_said(all_kinds: Path) -> None:
    (part,) = page_of(all_kinds, "v2").starflats
    said = {number.title: number.value for number in part.numbers}
    assert said["slope to the east"] == said["slope to the north"] == "undetermined"


def test_charts_have_exposures_and_ccds_of_the_filter(all_kinds: Path, page: NightPage) -> None:
    one = opened(all_kinds, "starflat/v1")
    charts = {chart.y_label: chart for chart in page.starflats[0].charts}
    assert list(charts) == [
        "repeatability of stars, mmag",
        "rms of m − model of each exposure, mmag",
        "rms of m − model of each CCD, mmag",
        "mean m − m̃ by distance to a join of quadrants, mmag",
    ]
    exposures, ccds = (charts[name].series[0].dots for name in list(charts)[1:3])
    assert len(exposures) == np.isfinite(one["exposure_residual"].values).sum() == 8
    values = one["ccd_residual"].sel(filter="zr").values
    heights = {round(x): y for x, y in ccds}
    assert len(heights) == np.isfinite(values).sum() == 7
    order = np.argsort(values[np.isfinite(values)])
    assert np.argsort([-y for _, y in sorted(heights.items())], kind="stable").tolist() == order.tolist()


def test_faults_of_a_starflat_are_coloured(copy: Path) -> None:
    place = FILTERS.index("zr")
    for name, value in (("half_sample", 1.5), ("bright_faint", 2.9), ("chi2", np.nan)):
        put(copy, f"starflat/v1/{name}", place, value)
    put(copy, "starflat/v1/radius_difference", (place, 1), 9e-4)
    expected = opened(copy, "starflat/v1")["repeatability_expected"].values[place]
    put(copy, "starflat/v1/repeatability_after", place, 1.3 * expected)
    page = page_of(copy)
    words = {number.title: number.word for number in page.starflats[0].numbers}
    assert words["χ²/ν of even exposures by the map of the odd"] == "beyond"
    assert words["χ² a node, bright minus faint stars"] == "beyond"
    assert words["χ²/ν of the fit"] == "no value"
    assert words["repeatability of bright stars / expected"] == "beyond"
    assert words["map of an aperture of 12 pixels, rms difference"] == "close"
    assert ("starflat zr", "bad") in [verdict[:2] for verdict in page.verdicts]


def test_less_scatter_than_expected_is_no_fault() -> None:
    nan = np.nan
    after, expected = np.array([nan, 2.0, 3.0, 1.0, 9.0]), np.array([1.0, 4.0, 4.0, 4.0, 4.0])
    assert _bright(after, expected) == 0.5
    assert np.isnan(_bright(after, np.full(5, nan)))
    words = [_repeated(ratio).word for ratio in (0.5, 0.97, 1.17, 1.3, nan)]
    assert words == ["within", "within", "close", "beyond", "no value"]


def test_a_starflat_of_another_night_is_shown_if_science_used_it(copy: Path) -> None:
    place = FILTERS.index("zr")
    for name in ("first_night", "last_night"):
        put(copy, f"starflat/v2/{name}", place, 20200715)
    assert page_of(copy, "v2").starflats == []
    assert ran("science", copy, "--version", "v4", "--set", "science.starflat=v2", "-q") == 1  # zg has none
    (used,) = page_of(copy, "v4").starflats
    assert used.name == "starflat/v2 zr"
    assert used.note == "Of 2020-07-15; the night's science is made with it."


def test_a_starflat_that_flats_hold_is_used_by_their_science(all_kinds: Path) -> None:
    products = read_products(open_objects(all_kinds))
    science = next(p for p in products if p.name == "science/v1")
    flat = next(p for p in products if p.name == "flat/v1")
    assert starflats(products, science, NIGHT, "v1")[0].note.endswith("is made without it.")
    flat.recipe["flat"]["starflat"] = "v2"
    noted = {part.name: part.note for part in starflats(products, science, NIGHT, "v1")}
    assert noted["starflat/v2 zr"] == "Of 2020-08-01; the night's science is made with it."
    assert noted["starflat/v1 zr"].endswith("is made without it.")


def test_offsets_of_amplifiers_are_told_where_they_were_subtracted(copy: Path) -> None:
    assert ran("science", copy, "--version", "v5", "--set", "science.amplifier_offset=true", "-q") in (0, 1)
    title = "offset of an amplifier, subtracted"
    assert title in [judged.title for judged in page_of(copy, "v5").science.quality]
    assert title not in [judged.title for judged in page_of(copy).science.quality]


def test_star_tables_are_told_by_their_entries_alone(copy: Path, all_kinds: Path) -> None:
    """Without any table of stars the page is the same: none is read."""
    whole = page_of(copy).stars
    shutil.rmtree(copy / "stars" / "v1" / "table")
    part = page_of(copy).stars
    assert part == whole
    assert part is not None
    group = opened(all_kinds, "stars/v1").sel(ccd=[2, 11])
    made = group.isel(time=np.flatnonzero(group["present"].values.any(axis=1)))
    assert part.made == 4
    assert [c.ccd for c in part.ccds] == [2, 11]
    for i, one in enumerate(part.ccds):
        mine = made.isel(ccd=i)
        assert one.exposures == 2
        assert one.stars == f"{np.median(mine['stars'].values):,.0f}"
        assert one.sources == "none 8"
        assert one.lost == 8
        assert one.few == int(((mine["flag"].values & 2) != 0).sum())
    fwhm = made["fwhm"].isel(ccd=1).values
    assert part.ccds[1].fwhm == f"{np.nanmedian(fwhm):.2f}"


def test_sources_of_the_wcs_are_counted(copy: Path) -> None:
    row = int(np.flatnonzero(opened(copy, "stars/v1")["present"].values[:, 1])[0])
    put(copy, "stars/v1/wcs", (row, 1), [1, 2, 4, 0])
    put(copy, "stars/v1/wcs_rms", (row, 1), [np.nan, np.nan, 0.125, np.nan])
    put(copy, "stars/v1/flag", (row, 1), [0, 0, 0, 1])
    part = page_of(copy).stars
    assert part is not None
    one = part.ccds[0]
    assert one.sources == "header 1, file 1, catalogue 1, none 5"
    assert one.rms == "0.125"
    assert one.lost == 5
    assert "WCS, rms of a coordinate" in [judged.title for judged in part.quality]


def test_pockets_stand_beside_the_tables(all_kinds: Path, page: NightPage) -> None:
    group = opened(all_kinds, "pocket/v1")
    part = page.pocket
    assert part is not None
    assert [one.where for one in part.quadrants] == [f"CCD {c} q{q}" for c in (2, 11) for q in (1, 2, 3, 4)]
    one = part.quadrants[3]
    known = tables.pocket()
    cmax = float(group["cmax"].sel(ccd=2, quadrant=4)[0])
    assert one.parameters[1] == (f"{cmax:.0f}", f"{known['cmax'][1, 3]:.0f}")
    assert one.chi2 == f"{float(group['chi2'].sel(ccd=2, quadrant=4)[0]):.2f}"
    assert one.word == "flagged"
    lost = [q for q in part.quadrants if not q.chi2]
    assert lost
    assert all(q.parameters[0][0] == "" and "no fit: the table's" in q.detail for q in lost)
    words = {judged.title: judged.word for judged in part.quality}
    assert words["trails after flats / table's"] == "beyond"
    assert words["χ² of the fit, per degree of freedom"] == "no value"


def test_the_monitor_is_a_trend_over_the_nights_before(all_kinds: Path) -> None:
    """Two nights before and one after, in which trails grow; the one after is not in it."""
    product = next(p for p in read_products(open_objects(all_kinds)) if p.name == "pocket/v1")
    nights = np.array([20200730, 20200731, NIGHT, 20200802], np.int32)
    longer = replace(product, night=nights, _read={})
    growing = np.arange(4.0)[:, np.newaxis, np.newaxis] * 0.02 + np.ones((4, 16, 4))
    for name in product.version.product.tables:
        table = np.repeat(product.table(name), 4, axis=0)
        there = longer.table("present")[..., np.newaxis] == 1 if name.endswith("_ratio") else None
        longer._read[name] = table if there is None else np.where(there, growing, np.nan)
    part = fitted_pockets(longer, NIGHT)
    assert part is not None
    (monitor,) = part.monitor
    assert [text for _, text in monitor.x_ticks] == ["2020-07-30", "2020-07-31", "2020-08-01"]
    assert [series.label for series in monitor.series] == ["after flats", "after the sky"]
    assert len(re.findall(r"[ML]", monitor.series[0].path)) == 3
    trend = next(judged.trend for judged in part.quality if judged.title.startswith("trails after flats"))
    assert trend is not None
    assert trend.text == "medians of the last 3 nights, from 1.000 to 1.040"
    assert (
        next(judged.word for judged in part.quality if judged.title.startswith("trails after flats")) == "within"
    )


def test_the_index_follows_the_trails(all_kinds: Path) -> None:
    assert "charge trailing into the overscan, over the table" in index_report(all_kinds, []).decode()
