"""Stored starflats as they are used: the map at every pixel, and what it multiplies flats by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import RecipeError, StoreError
from ztfzarr.masters.flat import flat_factor
from ztfzarr.recipe import Recipe
from ztfzarr.starflat.nodes import between_nodes
from ztfzarr.store.group import array_of
from ztfzarr.store.objects import Objects, StoreLike, open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.products import FILTERS
from ztfzarr.store.versions import Version, existing_version, find_version, made

OFF: Final = "off"


class Starflat:
    """The maps of a version: what flats of a filter and CCD are multiplied by.

    Parameters
    ----------
    version : Version
        Of kind ``starflat``.
    """

    def __init__(self, version: Version) -> None:
        self._group = version.group
        self._made = made(version)
        group = version.open()
        self._delta = np.asarray(array_of(group, "delta")[...])
        self._shape = (array_of(group, "y").shape[0], array_of(group, "x").shape[0])

    def name(self, band: str) -> str:
        """Name the map of a filter, as in ``starflat/v1/zr``."""
        return f"{self._group}/{band}"

    def factor(
        self, band: int, ccd: int, quadrant: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return 10^(-0.4 delta) at pixels, (quadrant, y, x) float32; NaN where the map is not determined.

        Parameters
        ----------
        band : int
            Index of the filter.
        ccd : int
            Label.
        quadrant, y, x : indices
            Of the pixels.

        Raises
        ------
        ValueError
            If there is no map of the filter.
        """
        if not self._made[band]:
            raise ValueError(f"no {self._group} of {FILTERS[band]}: make it with ztfzarr starflat")
        nodes = self._delta[band, ccd - 1, quadrant]
        return flat_factor(between_nodes(nodes, self._shape, rows=y, columns=x))

    def lacking(self, bands: Iterable[int]) -> list[str]:
        """Return the filters, of those with these indices, that have no map."""
        return [FILTERS[band] for band in bands if not self._made[band]]


def starflat_of(objects: Objects, recipe: Recipe, kind: str) -> Starflat | None:
    """Open the starflat that a recipe of science or flats names; None if it names none.

    Raises
    ------
    RecipeError
        If the flats of science have one already.
    StoreError
        If the store has no such version.
    """
    name = recipe[kind]["starflat"]
    if name == OFF:
        return None
    if kind == "science":
        refuse_twice(objects, recipe)
    return Starflat(existing_version(objects, "starflat", name))


def refuse_twice(objects: Objects, recipe: Recipe, flats: str = "") -> None:
    """Raise RecipeError if science would have a starflat from its recipe and another from its flats.

    Parameters
    ----------
    objects : Objects
        The store.
    recipe : dict
        Of science; where the version of flats that it names is ``flats``, theirs too.
    flats : str
        A version of flats that is not made yet.
    """
    name, flat = recipe["science"]["starflat"], recipe["science"]["flat"]
    if name == OFF:
        return
    known = None if flat == flats else find_version(objects, "flat", flat)
    if flat != flats and known is None:
        return  # and there will be no science either
    within = (recipe if known is None else known.recipe)["flat"]["starflat"]
    if within != OFF:
        raise RecipeError(
            f"science.starflat is {name}, and flat/{flat} has starflat/{within} in it already (flat.starflat): "
            "expected one of them to be off"
        )


def starflat_map(
    store: StoreLike,
    filter: str,
    *,
    version: str = "v1",
    storage_options: Mapping[str, str] | None = None,
) -> xr.DataArray:
    """Evaluate a starflat at every pixel.

    Parameters
    ----------
    store : path or URL
        Of the store.
    filter : str
        zg, zr or zi.
    version : str
        Of the starflat.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    (ccd, quadrant, y, x) float32, mag
        delta: stars appear fainter by it. ``flat * 10 ** (-0.4 * delta)`` is the flat that makes stars equal.
        Lazy, a chunk a quadrant; NaN beside nodes that are not determined.

    Raises
    ------
    StoreError
        If the store has no such version, or it has no map of the filter.

    Notes
    -----
    Bilinear between the nodes of a quadrant, never across its edges. delta holds what pixels gain by their area:
    fluxes of point sources are right after it, and a sky of even surface brightness is then not flat.
    """
    dataset = open_version(open_objects(store, storage_options), "starflat", version)
    if filter not in FILTERS or not int(dataset["present"].sel(filter=filter)):
        raise StoreError(f"no starflat/{version} of {filter}: make it with ztfzarr starflat")
    delta = at_pixels(dataset[["delta"]].sel(filter=filter), (dataset.sizes["y"], dataset.sizes["x"]))["delta"]
    return delta.assign_coords({d: dataset[d] for d in ("y", "x")})


def at_pixels(nodes: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """Evaluate maps at every pixel, lazily, a chunk a quadrant.

    Parameters
    ----------
    nodes : Dataset of (..., quadrant, cell_y, cell_x)
    shape : (int, int)
        Rows and columns of a quadrant.

    Returns
    -------
    Dataset of (..., quadrant, y, x) float32
    """
    maps: xr.Dataset = xr.apply_ufunc(
        between_nodes, nodes.chunk({d: 1 for d in ("ccd", "quadrant") if d in nodes.dims}),
        kwargs={"shape": shape}, input_core_dims=[["cell_y", "cell_x"]], output_core_dims=[["y", "x"]],
        dask="parallelized", output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": dict(zip("yx", shape, strict=True))}, keep_attrs=True,
    )  # fmt: skip
    return maps
