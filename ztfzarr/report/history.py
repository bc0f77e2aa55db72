"""What was made of a night by which versions: counts, recipes, provenance, and what is stale."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ztfzarr.recipe import default_recipe, differences, recipe_for
from ztfzarr.reduce.inputs import master_inputs
from ztfzarr.reduce.listing import ProductNight, superseded
from ztfzarr.reduce.report import Selection
from ztfzarr.report.render import counted
from ztfzarr.report.source import Product, Raw, ranges
from ztfzarr.store.products import FILTERS

GROUPS: Final = 200  # of entries with one provenance that a page names


@dataclass(frozen=True)
class Made:
    """A version: its counts of the night, settings other than the defaults, all settings and software as lines."""

    name: str
    counts: ProductNight | None
    changed: list[tuple[str, str, str]]
    settings: list[tuple[str, str]]
    software: list[tuple[str, str]]


def version_summary(product: Product, counts: Mapping[str, ProductNight]) -> Made:
    """Say what a version is; ``counts`` by its name."""
    recipe = product.recipe
    plain = recipe_for(product.kind, default_recipe(product.version.name))
    software = product.version.document["attributes"].get("software", {})
    return Made(
        product.name,
        counts.get(product.name),
        [(name, _shown(default), _shown(own)) for name, default, own in differences(plain, recipe)],
        list(_settings(recipe, "")),
        [(str(name), str(version)) for name, version in software.items()],
    )


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _settings(recipe: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, value in recipe.items():
        here = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict) and value:
            yield from _settings(value, here)
        else:
            yield here, _shown(value)


@dataclass(frozen=True)
class Origin:
    """Entries of one provenance: exposures used, those dropped by reason, masters, software, when."""

    entries: str
    used: list[str]
    dropped: list[tuple[str, list[str]]]
    masters: list[str]
    software: str
    made: str


def origins(product: Product, raw: Raw, night: int) -> list[Origin]:
    """Say what the entries of a night were made of, together where it is the same; :data:`GROUPS` at most."""
    places = list(_records(product, raw, night))
    groups: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    for label, ccd, record in places:
        same = {k: list(v) if k == "exposures" else v for k, v in record.items() if k not in ("made", "k")}
        groups.setdefault(json.dumps([_kind_of(label, product), same], sort_keys=True), []).append(
            (label, ccd, record)
        )
    return [_origin(product, members) for members in list(groups.values())[:GROUPS]]


def _kind_of(label: str, product: Product) -> str:
    """Keep the filters of flats apart; exposures that share their masters go together."""
    return label if product.kind == "flat" else ""


def _records(product: Product, raw: Raw, night: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the label (filter or exposure), the CCD and the provenance of each entry of a night."""
    if product.rows_are == "filter":
        return  # of many nights
    if product.rows_are == "time":
        rows = product.rows_of(night)
        labels: list[Any] = [str(number) for number in raw["exposure"][rows].tolist()]
        present, texts = product.rows("present", rows), product.rows("provenance", rows)
    else:
        row = product.row_of(night)
        if row is None:
            return
        present, texts = product.table("present")[row], product.rows("provenance", np.array([row]))[0]
        labels = list(FILTERS) if product.kind == "flat" else [""]
        present, texts = (np.atleast_2d(v) for v in (present, texts))
    for i, c in np.argwhere(present == 1).tolist():
        yield labels[i], c + 1, _parsed(texts[i, c])


def _parsed(text: Any) -> dict[str, Any]:
    """Parse a provenance; what is none is shown as it is."""
    try:
        record = json.loads(str(text))
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"software": f"not readable: {str(text)[:80]}"}


def _origin(product: Product, members: list[tuple[str, int, dict[str, Any]]]) -> Origin:
    record = members[0][2]
    dropped: dict[str, list[str]] = {}
    for exposure, why in _mapping(record, "dropped").items():
        dropped.setdefault(str(why), []).append(str(exposure))
    labels = sorted({label for label, _, _ in members})
    what = f"{labels[0]} " if labels[0] else ""
    if product.rows_are == "time":
        what = f"{counted(len(labels), 'exposure')}, "
    times = sorted(str(r.get("made", "")) for _, _, r in members)
    made = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    published = "published from elsewhere, by " if record.get("published") else ""
    return Origin(
        f"{what}CCD {ranges(sorted({ccd for _, ccd, _ in members}))}",
        [str(exposure) for exposure in _mapping(record, "exposures")],
        sorted(dropped.items()),
        [
            *map(str, _mapping(record, "masters").values()),
            *([str(record["science"])] if "science" in record else []),
        ],
        f"{published}ztfzarr {record.get('software', '')}",
        made,
    )


def _mapping(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def stale_lines(product: Product, raw: Raw, night: int) -> list[str]:
    """Name the stale entries of a night, and why they are."""
    if product.kind == "science":
        return list(_stale_science(product, raw, night))
    return list(_stale_masters(product, night)) if product.rows_are == "night" else []


def _stale_masters(product: Product, night: int) -> Iterator[str]:
    row = product.row_of(night)
    if row is None:
        return
    own = int(product.night[row])
    present, had = product.table("present")[row], product.table("inputs")[row]
    groups: dict[tuple[str, int, int], list[int]] = {}
    for inputs in master_inputs(product.version.objects, product.version, Selection(own, own)):
        for i, band in enumerate(FILTERS if product.kind == "flat" else ("",)):
            place = (i, inputs.ccd - 1) if product.kind == "flat" else (inputs.ccd - 1,)
            if inputs.row == row and present[place] == 1 and had[place] != len(inputs.exposures):
                groups.setdefault((band, int(had[place]), len(inputs.exposures)), []).append(inputs.ccd)
    for (band, before, now), ccds in groups.items():
        of = f"{band} " if band else ""
        why = f"made when the cube had {counted(before, 'frame')} for it, now it has {now}"
        yield f"{product.name}: {of}CCD {ranges(ccds)}: {why}"


def _stale_science(product: Product, raw: Raw, night: int) -> Iterator[str]:
    rows = product.rows_of(night)
    if not len(rows):
        return
    made = product.rows("present", rows) == 1
    old = made & superseded(
        product.version.objects, product.version, rows, product.night[rows], raw["filter"][rows]
    )
    ccds = (np.flatnonzero(old.any(axis=0)) + 1).tolist()
    if ccds:
        count = int(old.any(axis=1).sum())
        of, whose = counted(count, "exposure"), "its" if count == 1 else "their"
        yield f"{product.name}: {of}, CCD {ranges(ccds)}: {whose} own night has got sound masters since"
