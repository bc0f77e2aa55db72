"""Science without storing it: each selection computed from raw and masters when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ztfzarr.kernels.pixels import calibrate
from ztfzarr.masters.calibrations import nearest_night
from ztfzarr.recipe import Recipe, default_recipe, recipe_for
from ztfzarr.reduce.settings import overscan_settings
from ztfzarr.steps.linearity import linearity_coefficients, linearize, matching
from ztfzarr.steps.overscan import overscan_flag, overscan_level, overscan_profile, subtract_overscan
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.publish import Version, existing_version, find_version
from ztfzarr.store.register import array_of


@dataclass(frozen=True)
class Choice:
    """The masters of an exposure and CCD: rows along night, and k = 1 / relative level of the CCD."""

    bias_night: int
    flat_night: int
    k: float


class Calibrator:
    """What turns raw exposures of a store into science: the cube, versions of masters, and a recipe.

    Parameters
    ----------
    cube : Dataset
        From ``open_cube``.
    bias, flat : Version
        Masters.
    recipe : dict
        Sections ``overscan``, ``linearity``, ``science``.
    """

    def __init__(self, cube: xr.Dataset, bias: Version, flat: Version, recipe: Recipe) -> None:
        self.cube = cube
        self.recipe = recipe
        self.bias, self.flat = bias.open(), flat.open()
        self.names = bias.group, flat.group
        coordinates = {name: cube[name].values for name in ("time", "night", "filter", "imgtype")}
        self.time, self.night, self.filter, self.imgtype = coordinates.values()
        self.present = cube["present"].values == 1

    @cached_property
    def _nights(self) -> tuple[list[int], list[int]]:
        bias, flat = (np.asarray(array_of(group, "night")[...]).tolist() for group in (self.bias, self.flat))
        return bias, flat

    @cached_property
    def _made(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
        """Biases by (night, ccd); flats and levels by (night, filter, ccd)."""
        bias, flat = (np.asarray(array_of(group, "present")[...]) == 1 for group in (self.bias, self.flat))
        return bias, flat, np.asarray(array_of(self.flat, "level")[...], np.float64)

    def choose(self, time: int, ccd: int) -> Choice:
        """Choose the masters of an exposure, by index, and CCD, by label.

        Raises
        ------
        ValueError
            If there is none within the recipe's validity.
        """
        settings = self.recipe["science"]
        borders = [
            np.datetime64(day, "us")
            for day in (*self.recipe["linearity"]["from"][1:], self.recipe["pocket"]["from"])
        ]
        limits: dict[str, Any] = {
            "validity": settings["validity"],
            "borders": () if settings["across_epochs"] else borders,
        }
        bias, flat, level = self._made
        band = FILTERS.index(str(self.filter[time]))
        rows = []
        for name, nights, has in (
            (self.names[0], self._nights[0], bias[:, ccd - 1]),
            (self.names[1], self._nights[1], flat[:, band, ccd - 1] & np.isfinite(level[:, band, ccd - 1])),
        ):
            available = [n for n, here in zip(nights, has, strict=True) if here]
            chosen = nearest_night(self.time[time], int(self.night[time]), available, **limits)
            if chosen is None:
                what = f"{name} of CCD {ccd}" + ("" if name.startswith("bias") else f", {FILTERS[band]}")
                raise ValueError(f"no {what} within {settings['validity']} days, of the same epoch")
            rows.append(nights.index(chosen))
        return Choice(rows[0], rows[1], 1.0 / float(level[rows[1], band, ccd - 1]))

    def names_of(self, choice: Choice) -> dict[str, str]:
        """Name the masters of a choice, as in ``bias/v1/20200801``."""
        bias, flat = self._nights
        return {
            "bias": f"{self.names[0]}/{bias[choice.bias_night]}",
            "flat": f"{self.names[1]}/{flat[choice.flat_night]}",
        }

    def pixels(
        self, time: int, ccd: int, quadrant: NDArray[Any], y: NDArray[Any], x: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Calibrate part of an exposure: indices of quadrants, rows and columns; (quadrant, y, x) float32, DN.

        A quadrant whose overscan failed, is saturated or jumps has no level, and is NaN.
        """
        choice = self.choose(time, ccd)
        one = self.cube.isel(time=[time]).sel(ccd=[ccd]).isel(quadrant=quadrant)
        fit = overscan_level(overscan_profile(one["overscan"], **self._columns), **self._fit)
        level = fit["level"].where(overscan_flag(fit) == 0).assign_attrs(units="DN")
        counts = one["raw"].isel(y=y, x=x).drop_vars(("y", "x")).reset_coords(drop=True)
        plain = level.isel(y=y).drop_vars("y").reset_coords(drop=True)
        linear = linearize(subtract_overscan(counts, plain), matching(linearity_coefficients(one["time"]), counts))
        band = FILTERS.index(str(self.filter[time]))
        bias = _part(self.bias, "bias", (choice.bias_night, ccd - 1), quadrant, y, x)
        flat = _part(self.flat, "flat", (choice.flat_night, band, ccd - 1), quadrant, y, x)
        return np.asarray(calibrate(linear.values[0, 0], bias, flat, np.float32(choice.k)))

    @cached_property
    def _columns(self) -> dict[str, Any]:
        return {n: v for n, v in overscan_settings(self.recipe).items() if n.startswith("columns")}

    @cached_property
    def _fit(self) -> dict[str, Any]:
        return {n: v for n, v in overscan_settings(self.recipe).items() if not n.startswith("columns")}


def _part(
    group: zarr.Group, name: str, place: tuple[int, ...], quadrant: NDArray[Any], y: NDArray[Any], x: NDArray[Any]
) -> NDArray[np.float32]:
    """Read part of a master image: the rectangle that holds the indices, then these."""
    rows, columns = (slice(int(i.min()), int(i.max()) + 1) for i in (y, x))
    region: tuple[Any, ...] = (*place, slice(None), rows, columns)
    image = np.asarray(array_of(group, name)[region])
    return np.ascontiguousarray(image[np.ix_(quadrant, y - rows.start, x - columns.start)])


class ScienceArray(BackendArray):
    """Science of the cube's exposures, computed when it is indexed; NaN where there is no file."""

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator
        self.shape = calibrator.cube["raw"].shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[np.float32]:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._picked)  # type: ignore[no-any-return]

    def _picked(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        time, ccd, *image = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True))
        out = np.full([len(time), len(ccd), *map(len, image)], np.nan, np.float32)
        for place in np.ndindex(out.shape[:2]) if out.size else ():
            t, c = int(time[place[0]]), int(ccd[place[1]])
            if self.calibrator.present[t, c]:
                out[place] = self.calibrator.pixels(t, c + 1, *image)
        kept = [n for n, k in zip(out.shape, key, strict=True) if not isinstance(k, int | np.integer)]
        return out.reshape(kept)


def open_science(
    store: StoreLike, *, version: str = "v1", storage_options: Mapping[str, str] | None = None
) -> xr.Dataset:
    """Open science computed from raw and masters as it is asked for, whether or not the version is stored.

    Parameters
    ----------
    store : path or URL
        Of the store.
    version : str
        Whose recipe to follow; the defaults' if the store has no such version of science.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Returns
    -------
    Dataset
        ``science`` (time, ccd, quadrant, y, x) float32, DN, of the exposures of the sky, sorted by time; NaN where
        a file is absent. Equal to the stored version before its rounding. Lazily indexed, without dask.

    Raises
    ------
    StoreError
        If the store lacks the versions of the masters.
    ValueError
        When pixels are asked for that no master calibrates.
    """
    objects = open_objects(store, storage_options)
    stored = find_version(objects, "science", version)
    recipe = recipe_for("science", default_recipe()) if stored is None else stored.recipe
    cube = open_cube(objects)
    cube = cube.isel(time=np.flatnonzero(cube["imgtype"].values == "object"))
    return calibrated(cube, recipe, objects)


def calibrated(cube: xr.Dataset, recipe: Recipe, objects: Any) -> xr.Dataset:
    """Replace raw and overscan of exposures by science, lazily."""
    bias = existing_version(objects, "bias", recipe["science"]["bias"])
    flat = existing_version(objects, "flat", recipe["science"]["flat"])
    data = indexing.LazilyIndexedArray(ScienceArray(Calibrator(cube, bias, flat, recipe)))
    attributes = {"long_name": "calibrated counts", "units": "DN"}
    science = xr.Variable(cube["raw"].dims, data, attributes)
    return cube.drop_vars(("raw", "overscan", "x_overscan")).assign(science=science)
