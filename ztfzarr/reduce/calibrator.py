"""What turns raw exposures of a store into science: masters chosen, read, and applied to any part of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.kernels.cosmic_rays import REACH
from ztfzarr.kernels.pixels import calibrate, calibrated_variance, exposure_flags, linearize, own_variance
from ztfzarr.masters.bits import MASKS
from ztfzarr.masters.cosmic_rays import candidates
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.amplifier_offsets import measured_offsets
from ztfzarr.reduce.fitted_pockets import FittedPockets
from ztfzarr.reduce.settings import cosmic_ray_settings, epochs, overscan_settings, pocket_settings
from ztfzarr.reduce.shelf import Shelf, open_shelf
from ztfzarr.reduce.starflat_map import Starflat
from ztfzarr.reduce.where import Where
from ztfzarr.steps.linearity import linearity_coefficients
from ztfzarr.steps.overscan import overscan_flag, overscan_level, overscan_profile
from ztfzarr.steps.pocket import correct_pocket, overscan_level_with_pocket, pocket_of
from ztfzarr.store.group import array_of
from ztfzarr.store.products import FILTERS
from ztfzarr.store.threads import together
from ztfzarr.store.versions import Version

KINDS: Final = ("bias", "flat")

# Images of masters that each result needs, as (kind, array).
BASE: Final = (("bias", "bias"), ("flat", "flat"))
NEEDS: Final = {
    "science": BASE,
    "own_mask": (*BASE, ("flat", "bad")),
    "mask": (*BASE, ("flat", "bad")),
    "variance": (*BASE, ("bias", "variance"), ("flat", "variance")),
}

# What a starflat multiplies, and by which power of its factor.
FLATS: Final = {("flat", "flat"): 1, ("flat", "variance"): 2}

OFFSET_OF: Final = ("science", "own_mask")  # what tells the offsets of amplifiers

Images = Mapping[tuple[str, str], NDArray[Any]]


@dataclass(frozen=True)
class Choice:
    """The masters of an exposure and CCD.

    Rows along night, the index of the filter, k = 1 / level of the CCD, which are flagged, the pockets' name.
    """

    ccd: int
    bias_row: int
    flat_row: int
    band: int
    k: float
    bias_flagged: bool
    flat_flagged: bool
    pocket: str = ""

    def place(self, kind: str) -> tuple[int, ...]:
        """Return the place of the master of a kind."""
        return (self.bias_row, self.ccd - 1) if kind == "bias" else (self.flat_row, self.band, self.ccd - 1)


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
    starflat : Starflat, optional
        What multiplies the flats.
    """

    def __init__(
        self, cube: xr.Dataset, bias: Version, flat: Version, recipe: Recipe, starflat: Starflat | None = None
    ) -> None:
        self.cube = cube
        self.recipe = recipe
        self.starflat = starflat
        self.groups = dict(zip(KINDS, together(Version.open, (bias, flat)), strict=True))
        self._versions = bias, flat
        self.time, self.night, self.filter, self.imgtype, present = together(
            lambda name: cube[name].values, ("time", "night", "filter", "imgtype", "present")
        )
        self.present = present == 1

    @cached_property
    def shelves(self) -> dict[str, Shelf]:
        """Masters to choose from."""
        return dict(zip(KINDS, together(open_shelf, self._versions), strict=True))

    def choose(self, time: int, ccd: int) -> Choice:
        """Choose the masters of an exposure, by index, and CCD, by label.

        Raises
        ------
        RefusedError
            If there is none within the recipe's validity.
        """
        band = FILTERS.index(str(self.filter[time]))
        places: dict[str, tuple[int, ...]] = {"bias": (ccd - 1,), "flat": (band, ccd - 1)}
        rows, flagged = {}, {}
        for kind, place in places.items():
            shelf = self.shelves[kind]
            chosen = shelf.choose(self.time[time], int(self.night[time]), place, self.recipe, "science")
            if chosen is None:
                what = f"{shelf.group} of CCD {ccd}" + ("" if kind == "bias" else f", {FILTERS[band]}")
                raise RefusedError(
                    f"no {what} within {self.recipe['science']['validity']} days, of the same epoch"
                )
            rows[kind], flagged[kind] = chosen
        k = 1.0 / float(self.shelves["flat"].level[rows["flat"], band, ccd - 1])
        _, pocket = self._pocket(time, ccd)
        return Choice(ccd, rows["bias"], rows["flat"], band, k, flagged["bias"], flagged["flat"], pocket)

    def names_of(self, choice: Choice) -> dict[str, str]:
        """Name the masters of a choice, as in ``bias/v1/20200801``."""
        rows = {"bias": choice.bias_row, "flat": choice.flat_row}
        names = {kind: self.shelves[kind].name(row) for kind, row in rows.items()}
        names |= {"pocket": choice.pocket} if choice.pocket else {}
        return names if self.starflat is None else names | {"starflat": self.starflat.name(FILTERS[choice.band])}

    def overscan(self, time: int, ccd: int) -> xr.Dataset:
        """Fit the overscans of an exposure: ``level`` (quadrant, y), …, and ``flag`` (quadrant).

        A quadrant whose overscan failed, is saturated or jumps has no level: it is NaN.
        """
        settings = overscan_settings(self.recipe)
        profile = {name: settings.pop(name) for name in ("columns", "columns_of_ccd")}
        limits = {name: settings.pop(name) for name in ("highest", "step")}
        one = self.cube[["raw", "overscan"]].isel(time=[time]).sel(ccd=[ccd]).reset_coords(drop=True)
        pocket, _ = self._pocket(time, ccd)
        if pocket is None:
            fit = overscan_level(overscan_profile(one["overscan"], **profile), **settings)
        else:
            found = linearity_coefficients(self.cube["time"][[time]], epochs=epochs(self.recipe))
            arrays = one["raw"], one["overscan"], found, pocket
            fit = overscan_level_with_pocket(*arrays, fit=settings, **profile)
        fit = fit.isel(time=0, drop=True)
        flag = overscan_flag(fit, **limits)
        return fit.assign(level=fit["level"].where(flag == 0), flag=flag).isel(ccd=0)

    def images(self, choice: Choice, names: Iterable[str], where: Where) -> dict[tuple[str, str], NDArray[Any]]:
        """Read the parts of masters that results need, each (quadrant, y, x)."""
        needed = sorted({image for name in names for image in NEEDS[name]})
        return dict(zip(needed, together(lambda image: self.image(image, choice, where), needed), strict=True))

    def image(self, image: tuple[str, str], choice: Choice, where: Where) -> NDArray[Any]:
        """Read part of a master's image: the box that holds the indices, then these; (quadrant, y, x)."""
        kind, name = image
        indices, hulls = (where.quadrant, where.y, where.x), where.box
        region: tuple[Any, ...] = (*choice.place(kind), *hulls)
        whole = np.asarray(array_of(self.groups[kind], name)[region])
        part = np.ascontiguousarray(whole[np.ix_(*(i - h.start for i, h in zip(indices, hulls, strict=True)))])
        if self.starflat is None or image not in FLATS:
            return part
        factor = self.starflat.factor(choice.band, choice.ccd, where.quadrant, where.y, where.x)
        return part * factor ** FLATS[image]

    def needed(self, where: Where, names: Iterable[str]) -> Where:
        """Return the part of an exposure that decides about a part of results: for cosmic rays, more."""
        if "mask" not in names or self._cosmic_rays is None:
            return where
        return where.around(REACH, self.cube["raw"].shape[3:])

    def apply(
        self,
        time: int,
        choice: Choice,
        where: Where,
        level: NDArray[np.float32],
        images: Images,
        names: Iterable[str],
        offset: NDArray[np.float64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Calibrate part of an exposure.

        Parameters
        ----------
        time : int
            Index of the exposure.
        choice : Choice
            Of its masters.
        where : Where
            The part.
        level : (quadrant, y) float32, DN
            Overscan level of the quadrants of the part, all rows.
        images : mapping of (quadrant, y, x)
            The parts of masters, of :meth:`images`, where :meth:`needed` says.
        names : iterable of str
            Of ``science`` (float32, DN), ``mask`` and, without cosmic rays, ``own_mask`` (uint16), ``variance``
            (float32, DN2).
        offset : (all four quadrants,), DN, optional
            Of :meth:`offset`, to be subtracted; NaN: nothing.

        Returns
        -------
        dict of (quadrant, y, x)
        """
        box = self.needed(where, names)
        results = self._applied(time, choice, box, level[:, box.y], images, names, offset)
        if box is not where:
            results = {name: where.within(image, box) for name, image in results.items()}
        return results

    def _applied(
        self,
        time: int,
        choice: Choice,
        where: Where,
        level: NDArray[np.float32],
        images: Images,
        names: Iterable[str],
        offset: NDArray[np.float64] | None,
    ) -> dict[str, NDArray[Any]]:
        """Calibrate all that is needed of an exposure."""
        ccd = choice.ccd - 1
        pocket, _ = self._pocket(time, choice.ccd)
        columns: Any = where.x if pocket is None else slice(None)  # the pocket needs whole rows
        raw = self.cube["raw"][time, ccd].isel(quadrant=where.quadrant, y=where.y, x=columns).values
        low, a, b = level[:, :, np.newaxis], *self._linearity(time, ccd, where)
        linear = linearize(raw - low, a, b)
        if pocket is not None:
            linear = _without_pocket(linear, choice.ccd, where, pocket)[:, :, where.x]
            raw = raw[:, :, where.x]
        bias, flat, k = images["bias", "bias"], images["flat", "flat"], np.float32(choice.k)
        if offset is not None:
            level_off = np.nan_to_num(offset[where.quadrant]).astype(np.float32)[:, np.newaxis, np.newaxis]
            linear = linear - level_off * flat / k  # before the flat: its noise is not that of light
        results: dict[str, NDArray[Any]] = {"science": calibrate(linear, bias, flat, k)}
        if "mask" in names or "own_mask" in names:
            limits = (np.float32(self.recipe["science"][name]) for name in ("saturation", "suspect"))
            mask = exposure_flags(raw, low, results["science"], *limits) | images["flat", "bad"]
            results["mask"] = results["own_mask"] = mask
        if "mask" in names and self._cosmic_rays is not None:
            variance = own_variance(linear, bias, flat, k, *self._noise(time, choice, where))
            results["mask"] = mask | _spikes(results["science"], variance, mask, self._cosmic_rays)
        if "variance" in names:
            noise = self._noise(time, choice, where)
            masters = bias, images["bias", "variance"], flat, images["flat", "variance"]
            results["variance"] = calibrated_variance(linear, *masters, k, *noise)
        return {name: results[name] for name in names}

    @cached_property
    def _cosmic_rays(self) -> dict[str, float] | None:
        return cosmic_ray_settings(self.recipe)

    def _pocket(self, time: int, ccd: int) -> tuple[xr.Dataset | None, str]:
        """Return the pockets of an exposure, None where they are not to be corrected, and the name of a fit."""
        settings = pocket_settings(self.recipe)
        if settings["setting"] == "off":
            return None, ""
        exposure = self.cube[["time", "imgtype"]].isel(time=[time])
        if not (pocket_of(exposure, **settings)["cmax"] > 0).any():
            return None, ""
        if self._fitted is None:
            return pocket_of(exposure, **settings), ""
        known, name = self._fitted.choose(self.time[time], int(self.night[time]), ccd, self.recipe)
        return pocket_of(exposure, known=known, **settings), name

    @cached_property
    def _fitted(self) -> FittedPockets | None:
        name = self.recipe["pocket"]["fit"]
        return FittedPockets(self._versions[0].objects, name) if name else None

    def _linearity(self, time: int, ccd: int, where: Where) -> list[NDArray[np.float32]]:
        found = linearity_coefficients(self.cube["time"][[time]], epochs=epochs(self.recipe))
        return [found[name].values[0, ccd, where.quadrant][:, np.newaxis, np.newaxis] for name in ("a", "b")]

    def _noise(self, time: int, choice: Choice, where: Where) -> list[NDArray[np.float32]]:
        """Gain (e-/DN) and read noise (e-) of the quadrants, as the recipe says: the header's, or measured."""
        if self.recipe["science"]["noise"] == "header":
            pair = [self.cube[name].values[time, choice.ccd - 1] for name in ("gain", "read_noise")]
        else:
            gain = np.asarray(array_of(self.groups["flat"], "gain")[(choice.flat_row, choice.ccd - 1)])
            noise = np.asarray(array_of(self.groups["bias"], "read_noise")[(choice.bias_row, choice.ccd - 1)])
            pair = [gain, noise * gain]
        if not np.isfinite(pair).all():
            raise ValueError(f"CCD {choice.ccd} has no {self.recipe['science']['noise']} gain and read noise")
        return [v[where.quadrant].astype(np.float32)[:, np.newaxis, np.newaxis] for v in pair]

    def pixels(
        self, time: int, choice: Choice, where: Where, name: str, images: Callable[[], Images]
    ) -> NDArray[Any]:
        """Calibrate part of an exposure, by index, with the masters of a choice, when they have come."""
        level = self.overscan(time, choice.ccd)["level"].values
        found = None if name == "mask" and self._cosmic_rays is None else self.offset(time, choice, level)
        offset = None if found is None else found[0]
        return self.apply(time, choice, where, level[where.quadrant], images(), (name,), offset)[name]

    def offset(
        self,
        time: int,
        choice: Choice,
        level: NDArray[np.float32],
        read: Callable[[Where], Images] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Measure the amplifiers' offsets of an exposure and CCD from strips along the joins of its quadrants.

        Parameters
        ----------
        time : int
            Index of the exposure.
        choice : Choice
            Of its masters.
        level : (quadrant, y) float32, DN
            Overscan level of the CCD.
        read : callable, optional
            Gives parts of the masters' images; default they are read from the store.

        Returns
        -------
        (quadrant,), (quadrant,) or None
            Offsets and their errors, DN, of :func:`~ztfzarr.steps.amplifier_offset.amplifier_offset`; None where
            the recipe does not ask for them.
        """
        if not self.recipe["science"]["amplifier_offset"]:
            return None

        def calibrated(where: Where) -> list[NDArray[Any]]:
            images = self.images(choice, OFFSET_OF, where) if read is None else read(where)
            found = self.apply(time, choice, where, level[where.quadrant], images, OFFSET_OF)
            return [found[name][0] for name in OFFSET_OF]

        rows, columns = self.cube["raw"].shape[3:]
        return measured_offsets(calibrated, (rows, columns))


def _spikes(
    science: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.uint16],
    settings: dict[str, float],
) -> NDArray[np.uint16]:
    """Find the cosmic rays of quadrants, each (quadrant, y, x): the mask's bit."""
    found = [candidates(s, v, m, **settings) for s, v, m in zip(science, variance, mask, strict=True)]
    return np.array(found, np.uint16) * np.uint16(MASKS["spike"])


def _without_pocket(
    linear: NDArray[np.float32], ccd: int, where: Where, pocket: xr.Dataset
) -> NDArray[np.float32]:
    """Give deferred charge back to whole rows (quadrant, y, x)."""
    labels = {"time": pocket["time"].values, "ccd": [ccd], "quadrant": where.quadrant + 1}
    counts = xr.DataArray(linear[np.newaxis, np.newaxis], labels, ("time", "ccd", "quadrant", "y", "x"))
    corrected = correct_pocket(counts.assign_attrs(units="DN"), pocket)
    return np.asarray(corrected.values[0, 0])
