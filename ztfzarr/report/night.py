"""All that a page says of a night."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.plot.source import Wanted
from ztfzarr.recipe import default_recipe
from ztfzarr.reduce.listing import ProductNight, product_nights
from ztfzarr.reduce.report import Selection
from ztfzarr.report.arrived import Arrived, arrived
from ztfzarr.report.charts import Chart
from ztfzarr.report.focal import FocalMap, focal_map
from ztfzarr.report.history import Made, Origin, origins, stale_lines, version_summary
from ztfzarr.report.lamps import Lamp, lamps, waiting
from ztfzarr.report.pictures import LARGE, SMALL, Picture, picture
from ztfzarr.report.pockets import PocketPart, fitted_pockets
from ztfzarr.report.profiles import Profiles, overscan_profiles, settling_charts, sky_chart
from ztfzarr.report.quality import Judged, flagged_lines, judged_masters, judged_science
from ztfzarr.report.render import counted
from ztfzarr.report.science import Exposure, exposures, seconds_of_day, spread_out
from ztfzarr.report.source import Product, Raw, dashed
from ztfzarr.report.starflats import StarflatPart, starflats
from ztfzarr.report.stars import StarsPart, star_tables, stars_verdict
from ztfzarr.store.products import FILTERS

MASTERS: Final = 1 + len(FILTERS)  # pictures of them at most

Other = StarsPart | StarflatPart | PocketPart | None


@dataclass(frozen=True)
class Section:
    """A product of a night: its version, pictures, numbers, and what is flagged and stale."""

    name: str
    note: str
    counts: ProductNight | None
    pictures: list[Picture]
    quality: list[Judged]
    flagged: list[str]


@dataclass(frozen=True)
class NightPage:
    """All that a page shows."""

    night: str
    version: str
    location: str
    arrived: Arrived
    bias: Section
    flat: Section
    science: Section
    profiles: Profiles | None
    settling: list[Chart]
    lamps: list[Lamp]
    lamps_note: str
    maps: list[FocalMap]
    sky: Chart | None
    exposures: list[Exposure]
    stars: StarsPart | None
    starflats: list[StarflatPart]
    pocket: PocketPart | None
    stale: list[str]
    versions: list[Made]
    origins: list[tuple[str, list[Origin]]]
    verdicts: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Drawing:
    """How much to draw: the version, how many exposures, and whom to tell of the pictures."""

    version: str = "v1"
    thumbnails: int = 12
    step: Callable[[str, int], None] = lambda name, total: None
    done: Callable[[], None] = lambda: None


def night_page(raw: Raw, products: list[Product], night: int, drawing: Drawing) -> NightPage:
    """Gather what a page shows of a night.

    Parameters
    ----------
    raw, products
        From ``read_raw`` and ``read_products``.
    night : int
        YYYYMMDD, one that raw has.
    drawing : Drawing
        Version and pictures.
    """
    counted = product_nights(raw.objects, Selection(night, night))
    counts = {one.group: one for one in counted}
    chosen = {p.kind: p for p in products if p.version.name == drawing.version}
    listed = exposures(raw, night, chosen.get("science"))
    drawing.step("pictures", min(len(listed), drawing.thumbnails) + MASTERS)
    sections = {
        kind: _section(raw, chosen.get(kind), kind, night, counts, listed, drawing)
        for kind in ("bias", "flat", "science")
    }
    came = arrived(raw, night, [p for p in products if p.version.name == drawing.version])
    stale = [line for product in products for line in stale_lines(product, raw, night)]
    recipe = chosen["bias"].recipe if "bias" in chosen else default_recipe()
    stars, pocket = star_tables(chosen.get("stars"), night), fitted_pockets(chosen.get("pocket"), night)
    maps = starflats(products, chosen.get("science"), night, drawing.version)
    bias_row, flat_row = (_row(chosen.get(kind), night) for kind in ("bias", "flat"))
    return NightPage(
        night=dashed(night),
        version=drawing.version,
        location=raw.objects.location,
        arrived=came,
        bias=sections["bias"],
        flat=sections["flat"],
        science=sections["science"],
        profiles=overscan_profiles(raw, night, recipe),
        settling=settling_charts(chosen["bias"], bias_row) if bias_row is not None else [],
        lamps=lamps(chosen["flat"], flat_row) if flat_row is not None else [],
        lamps_note=waiting(chosen["flat"], flat_row) if flat_row is not None else "",
        maps=list(_maps(chosen, bias_row, flat_row)),
        sky=_sky(raw, chosen.get("science"), night),
        exposures=listed,
        stars=stars,
        starflats=maps,
        pocket=pocket,
        stale=stale,
        versions=[version_summary(product, counts) for product in products],
        origins=[(p.name, origins(p, raw, night)) for p in products if p.version.name == drawing.version],
        verdicts=list(_verdicts(came, sections, stale, [stars, *maps, pocket])),
    )


def _row(product: Product | None, night: int) -> int | None:
    return None if product is None else product.row_of(night)


def _section(
    raw: Raw, product: Product | None, kind: str, night: int, counts: Mapping[str, ProductNight],
    listed: list[Exposure], drawing: Drawing,
) -> Section:  # fmt: skip
    name = f"{kind}/{drawing.version}"
    if kind == "science":
        shown = spread_out(listed, drawing.thumbnails)
        pictures = [
            _drawn(raw, _sky_wanted(e, night, drawing), f"{e.filter}, {e.time} UTC", SMALL, drawing) for e in shown
        ]
        quality = list(judged_science(product, night)) if product is not None else []
        note = "" if product is not None else f"{name} is not stored: pictures are computed from raw and masters"
        return Section(name, note, counts.get(name), pictures, quality, [])
    row = _row(product, night)
    if product is None or row is None:
        return Section(name, f"no {name} holds for this night", counts.get(name), [], [], [])
    own = int(product.night[row])
    note = "" if own == night else f"the master of a longer period, which stands in night {dashed(own)}"
    wanted = (
        [Wanted(kind, drawing.version, (own, own))] if kind == "bias" else list(_flats(product, row, own, drawing))
    )
    pictures = [_drawn(raw, one, one.filter or "master bias", LARGE, drawing) for one in wanted]
    return Section(
        name, note, counts.get(name), pictures, judged_masters(product, night, row), flagged_lines(product, row)
    )


def _sky_wanted(exposure: Exposure, night: int, drawing: Drawing) -> Wanted:
    return Wanted("science", drawing.version, (night, night), exposure=exposure.number)


def _flats(product: Product, row: int, night: int, drawing: Drawing) -> Iterator[Wanted]:
    for i, band in enumerate(FILTERS):
        if (product.table("present")[row, i] == 1).any():
            yield Wanted("flat", drawing.version, (night, night), filter=band)


def _drawn(raw: Raw, wanted: Wanted, title: str, pixels: int, drawing: Drawing) -> Picture:
    made = picture(raw.objects, wanted, title, pixels)
    drawing.done()
    return made


def _maps(chosen: dict[str, Product], bias_row: int | None, flat_row: int | None) -> Iterator[FocalMap]:
    found: list[FocalMap | None] = []
    if bias_row is not None:
        found.append(focal_map("read noise", _numbers(chosen["bias"], "read_noise", bias_row), ".2f", " DN"))
    if flat_row is not None:
        found.append(focal_map("gain", _numbers(chosen["flat"], "gain", flat_row), ".2f", " e⁻/DN"))
    yield from (one for one in found if one is not None)


def _numbers(product: Product, name: str, row: int) -> Any:
    return product.table(name)[row].astype(np.float64)


def _sky(raw: Raw, science: Product | None, night: int) -> Chart | None:
    if science is None or not len(science.rows_of(night)):
        return None
    return sky_chart(science, night, seconds_of_day(raw, science.rows_of(night), night))


def _verdicts(
    came: Arrived, sections: Mapping[str, Section], stale: list[str], others: Sequence[Other]
) -> Iterator[tuple[str, str, str]]:
    """Sum up: what, a word of ok, close, bad or none, and the text beside it."""
    refused = len(came.refused) + came.more_refused
    lost = len(came.missing)
    yield (
        "came in",
        "bad" if refused else "close" if lost else "ok",
        f"{counted(came.files, 'file')}, {refused} refused, {counted(lost, 'gap')}",
    )
    for kind, section in sections.items():
        counts = section.counts
        if counts is None or not counts.made + counts.missing:
            yield kind, "none", "none of this night"
            continue
        beyond = sum(judged.word in ("beyond", "no value") for judged in section.quality)
        word = "bad" if beyond or counts.flagged else "close" if counts.missing else "ok"
        yield kind, word, f"{counts.made} made, {counts.missing} missing, {counts.flagged} flagged"
    yield from (_verdict_of(other) for other in others if other is not None)
    yield "stale", "close" if stale else "ok", f"{counted(len(stale), 'group')} of entries" if stale else "nothing"


def _verdict_of(part: StarsPart | StarflatPart | PocketPart) -> tuple[str, str, str]:
    """Sum up a product without pictures of pixels."""
    if isinstance(part, StarsPart):
        return "stars", *stars_verdict(part)
    if isinstance(part, StarflatPart):
        beyond = sum(number.word in ("beyond", "no value") for number in part.numbers)
        return f"starflat {part.band}", "bad" if beyond else "ok", f"{part.measured}, {beyond} beyond a threshold"
    flagged = sum(one.word == "flagged" for one in part.quadrants)
    return "pockets", "bad" if flagged else "ok", f"{counted(len(part.quadrants), 'quadrant')}, {flagged} flagged"
