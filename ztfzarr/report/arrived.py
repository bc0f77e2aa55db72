"""What came in of a night, and what is missing against what the night otherwise has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import CCDS, LED_FILTERS
from ztfzarr.report.render import counted
from ztfzarr.report.source import Product, Raw, ranges
from ztfzarr.store.refused import UNKNOWN, Refused, refused_files

KINDS: Final = ("bias", "flat", "object")
NAMED: Final = 200  # refused files that a page names


@dataclass(frozen=True)
class Came:
    """Exposures of a kind, filter and LED: how many, files, and of each CCD how many lack its file."""

    kind: str
    filter: str
    led: str
    exposures: int
    files: int
    lacking: list[int]


@dataclass(frozen=True)
class RefusedFile:
    """A refused file: when first, and whether its place in the cube is filled by now."""

    path: str
    reason: str
    when: str
    state: str


@dataclass(frozen=True)
class Arrived:
    """Exposures by kind, filter and LED; lines of what is missing; refused files, and how many more."""

    exposures: int
    files: int
    ccds: list[int]
    first: str
    last: str
    groups: list[Came]
    missing: list[str]
    refused: list[RefusedFile]
    more_refused: int


def arrived(raw: Raw, night: int, products: list[Product]) -> Arrived:
    """Say what came in of a night; ``products`` say which LEDs and how many biases they need."""
    rows = raw.rows_of(night)
    present = raw["present"][rows]
    seen = np.asarray(present.any(axis=0))
    times = np.datetime_as_string(raw["time"][rows].astype("datetime64[us]"), "s")
    refused, more = _refused(raw, night)
    return Arrived(
        exposures=len(rows),
        files=int(present.sum()),
        ccds=[ccd for ccd, here in zip(CCDS, seen.tolist(), strict=True) if here],
        first=str(times[0]).replace("T", " "),
        last=str(times[-1]).replace("T", " "),
        groups=list(_groups(raw, rows)),
        missing=list(_missing(raw, night, rows, seen, products)),
        refused=refused[:NAMED],
        more_refused=more + max(len(refused) - NAMED, 0),
    )


def _groups(raw: Raw, rows: NDArray[np.intp]) -> Iterator[Came]:
    keys = list(zip(*(raw[name][rows].tolist() for name in ("imgtype", "filter", "led")), strict=True))
    order = {kind: i for i, kind in enumerate(KINDS)}
    for key in sorted(set(keys), key=lambda k: (order.get(k[0], len(order)), k)):
        mine = rows[[k == key for k in keys]]
        present = raw["present"][mine]
        lacking = len(mine) - present.sum(axis=0)
        kind, band, led = key
        yield Came(
            kind, "" if kind == "bias" else band, str(led) if led >= 0 else "", len(mine), int(present.sum()),
            lacking.tolist(),
        )  # fmt: skip


def _missing(
    raw: Raw, night: int, rows: NDArray[np.intp], seen: NDArray[np.bool_], products: list[Product]
) -> Iterator[str]:
    """Say in a line each what is not there."""
    imgtype, band, led = (raw[name][rows] for name in ("imgtype", "filter", "led"))
    lost = [ccd for ccd, here in zip(CCDS, seen.tolist(), strict=True) if not here]
    if lost:
        yield f"CCD {ranges(lost)}: no file of this night{_before(raw, night, lost)}"
    yield from _holes(raw, rows, seen)
    for kind in KINDS:
        if not (imgtype == kind).any():
            yield f"no {kind} exposures"
    yield from _lamps(led[imgtype == "flat"], products)
    lit = set(band[imgtype == "flat"].tolist())
    for name in sorted(set(band[imgtype == "object"].tolist()) - lit):
        yield f"filter {name}: exposures of the sky, but no flats of this night"
    yield from _biases(int((imgtype == "bias").sum()), products)


def _before(raw: Raw, night: int, ccds: list[int]) -> str:
    """Say whether the night before had CCDs."""
    earlier = [n for n in raw.nights if n < night]
    if not earlier:
        return ""
    had = raw["present"][raw["night"] == earlier[-1]].any(axis=0)
    here = [ccd for ccd in ccds if had[ccd - 1]]
    return f"; the night before had CCD {ranges(here)}" if here else ", nor of the night before"


def _holes(raw: Raw, rows: NDArray[np.intp], seen: NDArray[np.bool_]) -> Iterator[str]:
    """Name exposures that lack files of CCDs that the night has, together where they lack the same."""
    absent = ~raw["present"][rows] & seen
    groups: dict[tuple[int, ...], list[Any]] = {}
    for row, lacks in zip(rows.tolist(), absent, strict=True):
        if lacks.any():
            groups.setdefault(tuple((np.flatnonzero(lacks) + 1).tolist()), []).append(row)
    for ccds, found in groups.items():
        named = ", ".join(f"{raw['exposure'][r]} ({raw['imgtype'][r]})" for r in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        yield f"CCD {ranges(list(ccds))}: no file of exposure {named}{more}"


def _lamps(led: NDArray[np.int16], products: list[Product]) -> Iterator[str]:
    if not len(led):
        return
    counts = Counter(led.tolist())
    without = {n for p in products if p.kind == "flat" for n in p.recipe["flat"]["without_leds"]}
    for number, band in LED_FILTERS.items():
        if number not in counts:
            yield f"LED {number} ({band}): no flats" + (
                ", and the recipe does without" if number in without else ""
            )
    usual = Counter(counts.values()).most_common(1)[0][0]
    for number, count in sorted(counts.items()):
        if count < usual:
            yield f"LED {number}: {counted(count, 'flat')}, the others have {usual}"


def _biases(count: int, products: list[Product]) -> Iterator[str]:
    for product in products:
        if product.kind == "bias" and count and product.recipe["bias"]["period"] == "night":
            needed = product.recipe["bias"]["skip"] + product.recipe["bias"]["minimum"]
            if count < needed:
                came = counted(count, "bias", "biases")
                yield f"{came}: {product.name} needs {needed}, the first of them dropped as they settle"


def _refused(raw: Raw, night: int) -> tuple[list[RefusedFile], int]:
    kept = refused_files(raw.objects, night)
    names = set(raw["source_name"][raw["night"] == night][raw["present"][raw["night"] == night]].tolist())
    return [_refused_file(file, when, names) for file, when in kept.files.items()], kept.more


def _refused_file(file: Refused, when: str, names: set[str]) -> RefusedFile:
    name = file.path.rstrip("/").rsplit("/", 1)[-1]
    return RefusedFile(
        file.path, file.reason, when, "a file of this name is in the cube" if name in names else "not in the cube"
    )


def refused_unknown(raw: Raw) -> tuple[list[RefusedFile], int]:
    """Return the refused files whose names tell no night, and how many more there are."""
    kept = refused_files(raw.objects, UNKNOWN)
    files = [_refused_file(file, when, set()) for file, when in kept.files.items()]
    return files[:NAMED], kept.more + max(len(files) - NAMED, 0)
