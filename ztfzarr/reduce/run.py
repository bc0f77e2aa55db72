"""Make what a store lacks of a product, or of all of them in their order."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ztfzarr.recipe import Recipe, default_recipe
from ztfzarr.reduce.masters import make_biases, make_flats
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.reduce.science import make_science
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.publish import existing_version, prepare_version

ORDER = ("bias", "flat", "science")


def reduce(
    store: StoreLike,
    kinds: Sequence[str] = ORDER,
    *,
    version: str = "v1",
    recipe: Recipe | None = None,
    selection: Selection | None = None,
    workers: int | None = None,
    events: Events | None = None,
) -> list[Report]:
    """Make what a store lacks of some products.

    Parameters
    ----------
    store : path or URL
        Of the store.
    kinds : sequence of str
        Of ``bias``, ``flat``, ``science``, in this order.
    version : str
        Version to make or to complete.
    recipe : dict, optional
        From ``read_recipe``; default an existing version's own, else the defaults.
    selection : Selection, optional
        Nights and CCDs; default all.
    workers : int, optional
        Threads; default the number of cores.
    events : Events, optional
        For progress.

    Returns
    -------
    list of Report
        One a kind. What failed is refused there, and the rest is done.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference.
    StoreError
        If there is no such store, or it lacks the masters that the recipe names.
    """
    import dask

    objects = open_objects(store)
    selection, events = selection or Selection(), events or Events()
    threads = workers or len(os.sched_getaffinity(0))
    masters = version if "bias" in kinds and len(kinds) > 1 else "v1"
    reports = []
    with dask.config.set(scheduler="threads", num_workers=threads):
        for kind in kinds:
            made = prepare_version(objects, kind, version, recipe, default_recipe(masters))
            if kind == "bias":
                reports.append(make_biases(objects, made, selection, events))
            elif kind == "flat":
                bias = existing_version(objects, "bias", made.recipe["flat"]["bias"])
                reports.append(make_flats(objects, made, bias, selection, events))
            else:
                reports.append(make_science(objects, made, selection, events, workers=threads))
    return reports
