"""The colour term of stored starflats, taken out of the magnitudes of stars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.starflat.nodes import QUADRANTS, Nodes
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.opening import open_version

if TYPE_CHECKING:
    import pandas as pd


def correct_colour(
    table: pd.DataFrame,
    colour: NDArray[np.floating],
    store: StoreLike,
    *,
    version: str = "v1",
    storage_options: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Take the colour term of a starflat out of magnitudes.

    Parameters
    ----------
    table : DataFrame
        From ``open_stars``: ``filter``, ``ccd``, ``quadrant``, ``x``, ``y``, ``magnitude``, of any rows.
    colour : (row,), mag
        Of each row's star, in the catalogue's colour that the term was fitted with; NaN unknown.
    store : path or URL
        Of the store.
    version : str
        Of the starflat.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    DataFrame
        The table with ``magnitude`` less delta_k (colour - mean colour): as if all stars were of the mean colour
        that the starflat was fitted with. Stars of unknown colour count as such; NaN where the term is not
        determined.

    Raises
    ------
    StoreError
        If the store has no such version, or it has no colour term in a filter of the table.
    ValueError
        If there is not a colour a row.

    Notes
    -----
    delta_k is bilinear between the corners of a quadrant. The map itself (``science.starflat``) is not in it: that
    is of pixels, and holds for stars of the mean colour.
    """
    colour = np.asarray(colour, np.float64)
    if colour.shape != (len(table),):
        raise ValueError(f"{colour.size} colours of {len(table)} rows: expected one a row")
    group = open_version(open_objects(store, storage_options), "starflat", version)
    correction, bands = np.zeros(len(table)), table["filter"].to_numpy()
    for band in np.unique(bands.astype(str)).tolist():
        rows, one = np.flatnonzero(bands == band), group.sel(filter=band)
        mean = float(one.get("mean_colour", np.nan))  # versions made before colours were used have none
        if not np.isfinite(mean):
            raise StoreError(
                f"starflat/{version} of {band} has no colour term: make one with starflat.colour=true"
            )
        off = np.where(np.isfinite(colour[rows]), colour[rows] - mean, 0.0)
        correction[rows] = _term(one, table.iloc[rows]) * off
    return table.assign(magnitude=table["magnitude"].to_numpy() - correction)


def _term(one: xr.Dataset, table: pd.DataFrame) -> NDArray[np.float64]:
    """Return delta_k at the rows' pixels, mag a mag of colour."""
    nodes = Nodes((one.sizes["y"], one.sizes["x"]), (2, 2))
    corners = np.asarray(one["delta_colour"].values, np.float64).reshape(4 * QUADRANTS)
    rcid = 4 * (table["ccd"].to_numpy(np.int64) - 1) + table["quadrant"].to_numpy(np.int64) - 1
    where: Any = nodes.place(rcid, table["y"].to_numpy(), table["x"].to_numpy())
    return np.asarray(sum(corners[node] * share for node, share in nodes.shares(*where)), np.float64)
