"""Reports of a store as HTML."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Final

import dask

from ztfzarr.errors import StoreError
from ztfzarr.report.index import index_page
from ztfzarr.report.night import Drawing, night_page
from ztfzarr.report.render import rendered, require_extra
from ztfzarr.report.source import dashed, read_products, read_raw
from ztfzarr.store.objects import StoreLike, open_objects

READERS: Final = 2  # quadrants at a time, as for `ztfzarr show`


@dataclass(frozen=True)
class Around:
    """Links of a page that is one of many: the pages of the nights before and after, by name, or none."""

    before: str = ""
    after: str = ""
    index: str = ""


def night_report(
    store: StoreLike,
    night: int,
    *,
    version: str = "v1",
    thumbnails: int = 12,
    around: Around | None = None,
    step: Callable[[str, int], None] = lambda name, total: None,
    done: Callable[[], None] = lambda: None,
) -> bytes:
    """Make the page of a night: one file that loads nothing.

    Parameters
    ----------
    store : path or URL
        Of the store.
    night : int
        YYYYMMDD.
    version : str
        Of the products whose pictures and numbers are shown; all versions are listed.
    thumbnails : int
        Exposures of the sky to show, spread evenly over the night.
    around : Around, optional
        Links to other pages.
    step, done : callable
        Told how many pictures there are, and of each that is drawn.

    Returns
    -------
    bytes
        HTML, UTF-8.

    Raises
    ------
    StoreError
        If there is no such store, or it has no such night.
    ImportError
        Without jinja2, matplotlib or pillow, saying what to install.
    """
    require_extra()
    chosen_nights(store, night, night)
    raw = read_raw(open_objects(store))
    products = read_products(raw.objects)
    with dask.config.set(scheduler="threads", num_workers=READERS):
        page = night_page(raw, products, night, Drawing(version, thumbnails, step, done))
    return rendered("night.html", page=page, around=around or Around(), made=_made())


def index_report(store: StoreLike, pages: Collection[str], *, version: str = "v1") -> bytes:
    """Make the page over all nights of a store; ``pages`` are the nights, as 2020-08-01, that it links to."""
    raw = read_raw(open_objects(store))
    page = index_page(raw, read_products(raw.objects), pages, version)
    return rendered("index.html", page=page, made=_made())


def chosen_nights(store: StoreLike, first: int = 0, last: int = 99999999) -> list[int]:
    """List the nights of a store from ``first`` to ``last``, YYYYMMDD; StoreError if there is none of them."""
    nights = read_raw(open_objects(store)).nights
    chosen = [night for night in nights if first <= night <= last]
    if not chosen:
        there = f"there are {dashed(nights[0])} to {dashed(nights[-1])}" if nights else "there is none yet"
        raise StoreError(
            f"no night {dashed(first)}{'' if first == last else f':{dashed(last)}'} in the cube: {there}"
        )
    return chosen


def around_of(nights: list[int], night: int) -> Around:
    """Return the links of the page of a night among others."""
    place = nights.index(night)
    before = dashed(nights[place - 1]) if place else ""
    after = dashed(nights[place + 1]) if place + 1 < len(nights) else ""
    return Around(before, after, "index.html")


def _made() -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} by ztfzarr {installed('ztfzarr')}"
