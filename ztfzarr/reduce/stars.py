"""Star tables of a store: science measured quadrant by quadrant, one entry an exposure and CCD."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ztfzarr.photometry.catalogue import read_catalogue
from ztfzarr.photometry.detect import sep_module
from ztfzarr.photometry.wcs_files import read_wcs_files
from ztfzarr.recipe import Recipe, default_recipe
from ztfzarr.reduce.executors import cluster, threads_for_exposures
from ztfzarr.reduce.report import Events, Report, Selection
from ztfzarr.reduce.run import make_product
from ztfzarr.reduce.science import shots
from ztfzarr.reduce.star_entries import StarTask, make_stars
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.star_tables import arrow_modules, open_tables
from ztfzarr.store.versions import prepare_version

if TYPE_CHECKING:
    import pandas as pd

Paths = Sequence[str | os.PathLike[str]]


def reduce_stars(
    store: StoreLike,
    *,
    version: str = "v1",
    recipe: Recipe | None = None,
    selection: Selection | None = None,
    catalogue: str | os.PathLike[str] | None = None,
    wcs: Paths = (),
    workers: int | None = None,
    scheduler: str | None = None,
    events: Events | None = None,
) -> Report:
    """Make the star tables that a store lacks.

    Parameters
    ----------
    store : path or URL
        Of the store, with raw exposures and masters.
    version : str
        Version to make or to complete.
    recipe : dict, optional
        From ``read_recipe``; default an existing version's own, else the defaults.
    selection : Selection, optional
        Nights and CCDs; default all.
    catalogue : path, optional
        Stars to fit where quadrants look that have no WCS, and to name stars by.
    wcs : sequence of paths, optional
        IPAC's science images or their headers, for the WCS of quadrants; files or folders.
    workers : int, optional
        Threads; default the number of cores.
    scheduler : str, optional
        Address of a dask.distributed scheduler, whose workers must see the store and the files.
    events : Events, optional
        For progress.

    Returns
    -------
    Report
        What failed is refused there, and the rest is done.

    Raises
    ------
    RecipeError
        If the version exists with another recipe, naming each difference.
    RefusedError
        If the catalogue or a file with a WCS cannot be read.
    StoreError
        If there is no such store, it lacks the masters, or sep or pyarrow are not installed.
    """
    require_extra()
    objects = open_objects(store)
    if catalogue is not None:
        read_catalogue(catalogue)  # refused before anything is written
    files = tuple(os.fspath(path) for path in wcs)
    read_wcs_files(files)
    product = prepare_version(objects, "stars", version, recipe, default_recipe())
    task = StarTask(objects, version, None if catalogue is None else os.fspath(catalogue), files)
    crew = (
        threads_for_exposures(workers or len(os.sched_getaffinity(0))) if scheduler is None else cluster(scheduler)
    )
    with crew as hands:
        items = shots(objects, selection or Selection())
        return make_product(product, partial(make_stars, task), items, events or Events(), hands)


def require_extra() -> None:
    """Raise StoreError, saying what to install, without sep and pyarrow: once, not exposure by exposure."""
    sep_module()
    arrow_modules()


def open_stars(
    store: StoreLike,
    *,
    version: str = "v1",
    columns: Sequence[str] | None = None,
    nights: tuple[int, int] = (0, 99999999),
    ccds: Sequence[int] = tuple(range(1, 17)),
    storage_options: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Read the star tables of a store.

    Parameters
    ----------
    store : path or URL
        Of the store.
    version : str
        Of the tables.
    columns : sequence of str, optional
        Default all of ``ztfzarr.photometry.columns.COLUMNS``.
    nights : (int, int)
        First and last, YYYYMMDD.
    ccds : sequence of int
        CCDs.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    DataFrame
        A row a star and exposure, by exposure, CCD, quadrant, brightest first. pandas, because stars are rows to
        select, group and join, and xarray brings it already.

    Raises
    ------
    StoreError
        If there is no such version, or a table is missing or damaged.
    ValueError
        If there is no such column.
    """
    objects = open_objects(store, storage_options)
    return open_tables(objects, version, columns=columns, nights=nights, ccds=ccds)
