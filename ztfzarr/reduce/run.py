"""Make what a store lacks of a product, or of all of them in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import numpy as np

from ztfzarr.errors import StoreError
from ztfzarr.recipe import Recipe, default_recipe
from ztfzarr.reduce.bias import make_bias
from ztfzarr.reduce.executors import Crew, cluster, threads_for_exposures, threads_for_masters
from ztfzarr.reduce.flat import make_flat
from ztfzarr.reduce.inputs import Inputs, master_inputs
from ztfzarr.reduce.levels import freeze_levels
from ztfzarr.reduce.pocket import make_pocket
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.reduce.science import Shot, make_science, new_task, shots
from ztfzarr.reduce.starflat_map import refuse_twice, starflat_of
from ztfzarr.store.entries import Entry, mark_entries
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.threads import windowed_futures
from ztfzarr.store.versions import Version, existing_version, made, prepare_version

ORDER: Final = ("bias", "flat", "science")
# A mark writes some twenty tables, in half a second.
MARK_ENTRIES: Final = {"bias": 4, "pocket": 16, "flat": 3, "science": 32, "stars": 32}

Make = Callable[[Any], list[Entry]]


def reduce(
    store: StoreLike,
    kinds: Sequence[str] = ORDER,
    *,
    version: str = "v1",
    recipe: Recipe | None = None,
    selection: Selection | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    events: Events | None = None,
) -> list[Report]:
    """Make what a store lacks of some products.

    Parameters
    ----------
    store : path or URL
        Of the store.
    kinds : sequence of str
        Of ``bias``, ``pocket``, ``flat``, ``science``, in this order; by default without ``pocket``.
    version : str
        Version to make or to complete.
    recipe : dict, optional
        From ``read_recipe``; default an existing version's own, else the defaults.
    selection : Selection, optional
        Nights and CCDs; default all.
    workers : int, optional
        Threads; default the number of cores.
    scheduler : str, optional
        Address of a dask.distributed scheduler, whose workers then make the entries.
    events : Events, optional
        For progress.

    Returns
    -------
    list of Report
        One a kind. What failed is refused there, and the rest is done.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference, or two starflats would be applied.
    StoreError
        If there is no such store, it lacks the masters that the recipe names, or there is no such scheduler.
    """
    objects = open_objects(store)
    selection, events = selection or Selection(), events or Events()
    threads = workers or len(os.sched_getaffinity(0))
    masters = version if "bias" in kinds and len(kinds) > 1 else "v1"
    reports = []
    if recipe is not None and "science" in kinds:
        refuse_twice(objects, recipe, version if "flat" in kinds else "")
    for kind in kinds:
        product = prepare_version(objects, kind, version, recipe, default_recipe(masters))
        with _crew(kind, threads, scheduler) as crew:
            make, items = _work(objects, product, selection, crew)
            reports.append(make_product(product, make, items, events, crew))
        if kind == "flat":
            reports[-1].refused += freeze_levels(product, selection)
    return reports


def _crew(kind: str, threads: int, scheduler: str | None) -> AbstractContextManager[Crew]:
    if scheduler is not None:
        return cluster(scheduler)
    return threads_for_exposures(threads) if kind == "science" else threads_for_masters(threads)


def make_product(
    product: Version, make: Make, items: Iterable[Inputs] | Iterable[Shot], events: Events, crew: Crew
) -> Report:
    """Make the entries that a version lacks, each by ``make`` of an item, and mark them."""
    report = Report(product.group)
    done = made(product)
    todo = []
    for item in items:
        if np.all(done[item.row][..., item.ccd - 1]):
            report.there += 1
        else:
            todo.append(item)
    events.step(product.group, len(todo))
    _carry_out(product, make, todo, report, events, crew)
    return report


def _work(
    objects: Objects, product: Version, selection: Selection, crew: Crew
) -> tuple[Make, Iterable[Inputs] | Iterable[Shot]]:
    """Return how an entry is made, and of what."""
    recipe = product.recipe
    if product.kind == "bias":
        return partial(_make_bias, product, crew.threads), master_inputs(objects, product, selection)
    if product.kind == "pocket":
        return partial(make_pocket, product), master_inputs(objects, product, selection)
    if product.kind == "flat":
        bias = existing_version(objects, "bias", recipe["flat"]["bias"])
        starflat_of(objects, recipe, "flat")  # refused once, rather than for each CCD
        return partial(_make_flat, product, bias, crew.threads), master_inputs(objects, product, selection)
    for kind in ("bias", "flat"):
        existing_version(objects, kind, recipe["science"][kind])
    return partial(make_science, new_task(product)), shots(objects, selection)


def _make_bias(version: Version, threads: int, inputs: Inputs) -> list[Entry]:
    return make_bias(version, inputs, threads)


def _make_flat(version: Version, bias: Version, threads: int, inputs: Inputs) -> list[Entry]:
    return make_flat(version, bias, inputs, threads)


def _carry_out(
    product: Version, make: Make, todo: Sequence[Any], report: Report, events: Events, crew: Crew
) -> None:
    """Make entries and mark them in batches; what cannot be made is refused."""
    batch: list[Entry] = []
    futures = windowed_futures(crew.executor, partial(_attempt, make), todo, 2 * crew.hands)
    for item, future in zip(todo, futures, strict=True):
        try:
            outcome = future.result()
        except crew.lost as error:
            outcome = f"its worker died each time ({type(error).__name__})"
        events.done()
        if isinstance(outcome, list):
            batch += outcome
            report.made += 1
        else:
            report.refused.append((f"{product.group} {_name(item)}", outcome))
        if len(batch) >= MARK_ENTRIES[product.kind]:
            mark_entries(product, batch)
            batch = []
    mark_entries(product, batch)


def _attempt(make: Make, item: Any) -> list[Entry] | str:
    """Make an entry, or say why it cannot be made."""
    try:
        return make(item)
    except (ValueError, StoreError) as error:
        return str(error)


def _name(item: Inputs | Shot) -> str:
    """Name what an entry is made of."""
    if isinstance(item, Shot):
        return f"exposure {item.exposure} CCD {item.ccd}"
    return f"{item.night} CCD {item.ccd}"
