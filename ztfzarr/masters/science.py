"""Science of raw exposures, with its mask and its variance, from masters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from ztfzarr.geometry import LINEARITY_EPOCHS, POCKET_START
from ztfzarr.masters.calibrate import calibrate, calibrated_variance, photon_variance
from ztfzarr.masters.cosmic_rays import find_cosmic_rays
from ztfzarr.masters.frames import matching_master
from ztfzarr.masters.mask import SATURATION, SUSPECT, bad_pixels, science_mask, with_cosmic_rays
from ztfzarr.steps.linearity import linearity_coefficients, linearize, matching
from ztfzarr.steps.overscan import sound_level, subtract_overscan
from ztfzarr.steps.pocket import correct_pocket, pocket_of, sound_level_with_pocket
from ztfzarr.steps.units import bare


def science(
    exposures: xr.Dataset,
    bias: xr.Dataset,
    flat: xr.Dataset,
    *,
    saturation: float = SATURATION,
    suspect: float = SUSPECT,
    cosmic_rays: Mapping[str, float] | None = None,
    gain: xr.DataArray | None = None,
    read_noise: xr.DataArray | None = None,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Calibrate raw exposures of the sky, and say what is wrong with their pixels.

    Parameters
    ----------
    exposures : Dataset
        Raw, from ``open_cube`` or ``open_fits``: of any filters, with all the rows.
    bias : Dataset of ``bias`` (DN), ``count``, each (ccd, quadrant, y, x)
        From ``master_bias``, of at least these CCDs.
    flat : Dataset of ``flat`` (1), ``count``, each (filter, ccd, quadrant, y, x), ``level`` (filter, ccd)
        From ``master_flat``, of at least these filters and CCDs. With a variable ``bad``, as stored flats have it,
        the bad pixels are those; else :func:`~ztfzarr.masters.mask.bad_pixels` finds them.
    saturation, suspect : float
        DN above the overscan, before the non-linearity.
    cosmic_rays : mapping, optional
        Look for cosmic rays, with these settings of :func:`~ztfzarr.masters.cosmic_rays.find_cosmic_rays`, or
        none of them, ``{}``; the mask calls what it finds a spike. Default: do not.
    gain, read_noise : (ccd, quadrant), e-/DN and e-, optional
        For that; default the headers'.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.pocket.detrended_frames`.

    Returns
    -------
    Dataset
        ``science`` float32, DN, and ``mask`` uint16, bits of :data:`~ztfzarr.masters.mask.BITS`, each
        (time, ccd, quadrant, y, x). Lazy if the exposures are.

    Raises
    ------
    ValueError
        If units are wrong, or a master lacks a filter, CCD or quadrant of the exposures.

    Notes
    -----
    S = k (D - B) / F, D detrended, k = 1 / level of the CCD.
    """

    def calibrated(one: xr.Dataset, lamp: xr.Dataset) -> xr.Dataset:
        raw, level, counts = _detrended(one, **(detrending or {}))
        names = ["flat", "level"] + (["bad"] if "bad" in lamp else ["count"])
        dark = _matching(bias[["bias"] if "bad" in lamp else ["bias", "count"]], raw)
        light = _matching(lamp[names], raw)
        image = calibrate(counts, dark["bias"], light["flat"], light["level"])
        bad = light["bad"] if "bad" in light else bad_pixels(dark, light)
        mask = science_mask(raw, level, image, bad, saturation=saturation, suspect=suspect)
        if cosmic_rays is not None:
            noise = _noise(one, raw, gain, read_noise)
            variance = photon_variance(counts, dark["bias"], light["flat"], light["level"], *noise)
            mask = with_cosmic_rays(mask, find_cosmic_rays(image, variance, mask, **cosmic_rays))
        return xr.Dataset({"science": image, "mask": mask})

    return _by_filter(exposures, flat, calibrated)


def science_variance(
    exposures: xr.Dataset,
    bias: xr.Dataset,
    flat: xr.Dataset,
    *,
    gain: xr.DataArray | None = None,
    read_noise: xr.DataArray | None = None,
    detrending: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Predict the variance of :func:`science`.

    Parameters
    ----------
    exposures, bias, flat, detrending
        As of :func:`science`, the masters with ``variance``.
    gain, read_noise : (ccd, quadrant), e-/DN and e-, optional
        Default the headers'.

    Returns
    -------
    (time, ccd, quadrant, y, x) float32, DN2. Lazy if the exposures are.

    Raises
    ------
    ValueError
        As :func:`science`.

    Notes
    -----
    See :func:`~ztfzarr.masters.calibrate.calibrated_variance`. What comes from bias and flat is common to all
    exposures that share them: it does not average down.
    """

    def predicted(one: xr.Dataset, lamp: xr.Dataset) -> xr.Dataset:
        raw, _, counts = _detrended(one, **(detrending or {}))
        dark, light = (
            _matching(bias[["bias", "variance"]], raw),
            _matching(lamp[["flat", "variance", "level"]], raw),
        )
        noise = _noise(one, raw, gain, read_noise)
        return calibrated_variance(counts, dark, light, light["level"], *noise).to_dataset()

    return _by_filter(exposures, flat, predicted)["variance"]


def _noise(
    exposures: xr.Dataset, raw: xr.DataArray, gain: xr.DataArray | None, read_noise: xr.DataArray | None
) -> list[xr.DataArray]:
    """Return gain and read noise as given, or the headers'."""
    return [
        matching_master(exposures[name].mean("time", skipna=True) if given is None else given, raw[0])
        for name, given in (("gain", gain), ("read_noise", read_noise))
    ]


def _matching(masters: xr.Dataset, counts: xr.DataArray) -> xr.Dataset:
    return masters.map(matching_master, keep_attrs=True, counts=counts)


def _detrended(
    exposures: xr.Dataset,
    *,
    epochs: Mapping[str, np.datetime64] = LINEARITY_EPOCHS,
    pocket: str = "off",
    pocket_from: np.datetime64 = POCKET_START,
    pocket_known: xr.Dataset | None = None,
    **overscan: Any,
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return raw counts, their overscan level and the detrended counts."""
    raw = bare(exposures["raw"])
    coefficients = matching(linearity_coefficients(exposures["time"], epochs=epochs), raw)
    parameters = pocket_of(exposures, pocket, pocket_from, pocket_known)
    if not (parameters["cmax"] > 0).any():
        level = sound_level(exposures, **overscan)
        return raw, level, linearize(subtract_overscan(raw, level), coefficients)
    raw = raw.chunk(x=-1) if raw.chunks else raw
    level = sound_level_with_pocket(exposures, coefficients, parameters, **overscan)
    return raw, level, correct_pocket(linearize(subtract_overscan(raw, level), coefficients), parameters)


def _by_filter(
    exposures: xr.Dataset, flat: xr.Dataset, act: Callable[[xr.Dataset, xr.Dataset], xr.Dataset]
) -> xr.Dataset:
    """Act on the exposures of each filter with its flat; the result in the order and with the labels of all."""
    names = exposures["filter"].values
    parts, places = [], []
    for name in sorted(set(names.tolist())):
        chosen = np.flatnonzero(names == name)
        parts.append(act(exposures.isel(time=chosen), _of_filter(flat, name)))
        places.append(chosen)
    whole = parts[0] if len(parts) == 1 else xr.concat(parts, "time", combine_attrs="identical")
    order = np.argsort(np.concatenate(places))
    whole = whole if (np.diff(order) == 1).all() else whole.isel(time=order)
    labels = {k: v for k, v in exposures.coords.items() if "x_overscan" not in v.dims}
    return whole.assign_coords(labels)


def _of_filter(flat: xr.Dataset, name: str) -> xr.Dataset:
    available = np.atleast_1d(flat["filter"].values).tolist()
    if name not in available:
        raise ValueError(f"no master flat of filter {name}: found {', '.join(map(str, available))}")
    return flat.sel(filter=name) if "filter" in flat.dims else flat
