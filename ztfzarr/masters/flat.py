"""Master flats: LED by LED, normalised CCD by CCD, and the relative level of the CCDs kept beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import LED_FILTERS
from ztfzarr.kernels.median import calibrated_median
from ztfzarr.masters.frames import CLIP, Frames, combine_frames, matching_master
from ztfzarr.masters.pocket import detrended_frames
from ztfzarr.masters.selection import MINIMUM, night_of_frames, require_frames
from ztfzarr.steps.units import require_units

RELATIVE_NOISE: Final = 0.005  # of the noise model of flats: what scaling to a common level leaves


def master_flat(
    exposures: xr.Dataset,
    bias: xr.Dataset,
    *,
    weights: Mapping[int, float] | None = None,
    leds: Mapping[int, str] = LED_FILTERS,
    minimum: int = MINIMUM,
    method: str = "noise",
    clip: float = CLIP,
    relative: float = RELATIVE_NOISE,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Combine LED flats into one master flat for each filter.

    Parameters
    ----------
    exposures : Dataset
        Raw LED flats, from ``open_cube`` or ``open_fits``: any CCDs, each with all its quadrants and rows.
    bias : Dataset of ``bias`` (ccd, quadrant, y, x) float32, DN
        From ``master_bias``, of at least these CCDs.
    weights : mapping, optional
        Of LEDs in the flat of their filter; 1 for those not named.
    leds : mapping
        LEDs that a flat is made of, and their filters. All of them must be among the exposures: to do without
        one, leave it out here.
    minimum : int
        Frames a LED that each CCD must have.
    method, clip, relative
        See :func:`~ztfzarr.masters.frames.combine_frames`.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.pocket.detrended_frames`.

    Returns
    -------
    Dataset
        Labelled ``night``. ``flat`` and ``variance`` (1) float32, ``count`` int16, each (filter, ccd, quadrant, y,
        x); ``led_level`` (led, ccd), DN: N_ccd(LED), the CCD-wide median of a LED's combined flat; ``level``
        (filter, ccd): that of the CCD against the others here, see :func:`relative_levels`. Lazy if the exposures
        are.

    Raises
    ------
    ValueError
        If an exposure is no flat, a LED is missing, a CCD has too few frames, or the bias lacks a CCD.

    Notes
    -----
    A LED's frames, minus bias, are scaled to their mean CCD-wide median and combined; divided by N_ccd(LED),
    the median over the four quadrants together, so that their gain ratios stay in the flat; LEDs are averaged
    with their weights. CCD levels: :func:`relative_levels`.
    """
    found = set(exposures["led"].values.tolist())
    missing = sorted(set(leds) - found)
    if missing:
        raise ValueError(f"no flats of LED {', '.join(map(str, missing))}: found {sorted(found)}")
    others = set(exposures["imgtype"].values.tolist()) - {"flat"}
    if others:
        raise ValueError(f"exposures of type {', '.join(sorted(map(str, others)))}: expected flat only")
    settings: dict[str, Any] = {"minimum": minimum, "method": method, "clip": clip, "relative": relative}
    settings["detrending"] = detrending
    of_led = {led: exposures.isel(time=np.asarray(exposures["led"].values == led)) for led in leds}
    lamps = {led: led_flat(of_led[led], bias["bias"], **settings) for led in leds}
    filters = sorted(set(leds.values()))
    flats = [_weighted({k: lamps[k] for k, f in leds.items() if f == name}, weights or {}) for name in filters]
    result = xr.concat(flats, xr.DataArray(np.array(filters), dims="filter", name="filter"))
    led_level = xr.concat(
        [lamps[led]["led_level"] for led in leds], xr.DataArray(list(leds), dims="led", name="led")
    )
    result = result.assign(led_level=led_level, level=_levels(led_level, leds))
    return _described(result).assign_coords(night_of_frames(exposures))


def _levels(led_level: xr.DataArray, leds: Mapping[int, str]) -> xr.DataArray:
    """Return the relative levels of the CCDs, (filter, ccd), or (filter) of a single one."""
    whole = led_level if "ccd" in led_level.dims else led_level.expand_dims("ccd")
    level = relative_levels(whole.chunk(ccd=-1) if whole.chunks else whole, leds=leds)
    return level if "ccd" in led_level.dims else level.isel(ccd=0)


def _described(result: xr.Dataset) -> xr.Dataset:
    names = {
        "flat": ("1", "master flat"),
        "variance": ("1", "variance of the master flat, by the noise model"),
        "count": ("1", "frames kept, of all LEDs"),
        "led_level": ("DN", "CCD-wide median of the LED's combined flat"),
        "level": ("1", "level of the CCD against that of the focal plane"),
    }
    for name, (units, long_name) in names.items():
        result[name].attrs = {"units": units, "long_name": long_name}
    return result


def with_starflat(flat: xr.Dataset, delta: xr.DataArray) -> xr.Dataset:
    """Multiply a master flat by a starflat, so that science which is divided by it is even for stars.

    Parameters
    ----------
    flat : Dataset of ``flat`` and ``variance`` (1), each (..., ccd, quadrant, y, x)
        Of one filter, from :func:`master_flat` or a stored version.
    delta : (ccd, quadrant, y, x) float32, mag
        From ``ztfzarr.starflat_map``, of that filter and at least these CCDs.

    Returns
    -------
    Dataset
        The same, ``flat`` times 10^(-0.4 delta) and ``variance`` times its square; NaN where the map is not
        determined. ``level`` is that of the lamps still. Lazy if either is.

    Raises
    ------
    ValueError
        If the flat is of several filters or of another, the map lacks a CCD, units are wrong, or the flat has a
        starflat in it already.

    Notes
    -----
    Stars were measured on science that was divided by ``level`` too. So it stays, whatever the map says of a whole
    CCD: the medians of CCDs are then 10^(-0.4 delta) of their middles, no longer 1.
    """
    require_units(flat["flat"], "1")
    require_units(delta, "mag")
    _require_one_filter(flat, delta)
    if flat["flat"].attrs.get("starflat"):
        raise ValueError("the flat has a starflat in it already: expected one without")
    matched = matching_master(delta.rename("starflat"), flat["flat"])
    factor = xr.apply_ufunc(flat_factor, matched, dask="parallelized", output_dtypes=[np.float32])
    scaled = {name: _times(flat[name], factor**power) for name, power in (("flat", 1), ("variance", 2))}
    scaled["flat"].attrs["starflat"] = "10^(-0.4 delta) is in it"
    return flat.assign(scaled)


def _times(image: xr.DataArray, factor: xr.DataArray) -> xr.DataArray:
    product = xr.apply_ufunc(np.multiply, image, factor, join="exact", dask="allowed")
    return product.transpose(*image.dims).assign_attrs(image.attrs)


def _require_one_filter(flat: xr.Dataset, delta: xr.DataArray) -> None:
    found, wanted = (
        np.atleast_1d(v["filter"].values).tolist() if "filter" in v.coords else [] for v in (flat, delta)
    )
    if "filter" in flat.dims or (found and wanted and found != wanted):
        raise ValueError(
            f"a flat of {', '.join(found)} and a starflat of {', '.join(wanted)}: expected one filter"
        )


def flat_factor(delta: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a flat is multiplied by where stars appear fainter by delta: 10^(-0.4 delta), float32."""
    return np.asarray(np.exp(np.float32(-0.4 * np.log(10)) * delta), np.float32)


def led_flat(
    exposures: xr.Dataset,
    bias: xr.DataArray,
    *,
    minimum: int = MINIMUM,
    method: str = "noise",
    clip: float = CLIP,
    relative: float = RELATIVE_NOISE,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Combine the flats of one LED and normalise them by their CCD-wide median.

    Parameters
    ----------
    exposures : Dataset
        Raw flats of the LED.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias.
    minimum, method, clip, relative, detrending
        See :func:`master_flat`.

    Returns
    -------
    Dataset
        ``flat`` and ``variance`` (1) float32, ``count`` int16, each (ccd, quadrant, y, x); ``led_level`` (ccd)
        in DN.
    """
    leds = ", ".join(map(str, sorted(set(exposures["led"].values.tolist()))))
    require_frames(exposures, np.ones(exposures.sizes["time"], bool), minimum, f"flats of LED {leds}")
    frames = detrended_frames(exposures, **(detrending or {}))
    offset = matching_master(bias, frames.counts)
    levels = frame_medians(frames, offset)
    scale = levels.mean("time", skipna=True) / levels
    combined = combine_frames(frames, offset=offset, scale=scale, relative=relative, method=method, clip=clip)
    level = ccd_median(combined["mean"])
    unit = (1.0 / level).astype(np.float32)
    return xr.Dataset(
        {
            "flat": combined["mean"] * unit,
            "variance": combined["variance"] * unit**2,
            "count": combined["count"],
            "led_level": level,
        }
    )


def _weighted(lamps: Mapping[int, xr.Dataset], weights: Mapping[int, float]) -> xr.Dataset:
    """Average normalised LED flats of a filter with their weights."""
    shares = led_shares(list(lamps), weights)
    flat = sum(lamp["flat"] * np.float32(shares[led]) for led, lamp in lamps.items())
    variance = sum(lamp["variance"] * np.float32(shares[led] ** 2) for led, lamp in lamps.items())
    count = sum(lamp["count"] for lamp in lamps.values())
    return xr.Dataset({"flat": flat, "variance": variance, "count": count})


def led_shares(leds: Sequence[int], weights: Mapping[int, float]) -> dict[int, float]:
    """Return the share of each LED of a filter in its flat; they add up to 1."""
    total = sum(weights.get(led, 1.0) for led in leds)
    return {led: weights.get(led, 1.0) / total for led in leds}


def frame_medians(frames: Frames, offset: xr.DataArray) -> xr.DataArray:
    """Return the CCD-wide median of each frame, minus bias.

    Parameters
    ----------
    frames : Frames
        With all the quadrants of their CCDs.
    offset : (ccd, quadrant, y, x) float32, DN
        Master bias.

    Returns
    -------
    (time, ccd) float64, DN: over the four quadrants together; NaN where there is no file, or the overscan of any
        of them failed: without a quadrant it would be another level.
    """
    pixels = ["quadrant", "y", "x"]
    whole: Any = dict.fromkeys(pixels, -1)
    counts, bias, level = frames.counts, offset, frames.level
    if counts.chunks:
        counts, bias = counts.chunk({**whole, "time": 1}), bias.chunk(whole)
        level = level.chunk({"quadrant": -1, "y": -1, "time": 1})
    return xr.apply_ufunc(
        _medians,
        counts,
        level,
        frames.a,
        frames.b,
        bias,
        input_core_dims=[pixels, pixels[:2], pixels[:1], pixels[:1], pixels],
        dask="parallelized",
        output_dtypes=[np.float64],
        join="exact",
        keep_attrs=False,
    ).assign_attrs(units="DN")


def _medians(
    counts: NDArray[np.float32],
    level: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> NDArray[np.float64]:
    lead = counts.shape[:-3]
    values = [(counts, 3), (level, 2), (a, 1), (b, 1), (offset, 3)]
    wide = [np.broadcast_to(v, (*lead, *v.shape[v.ndim - core :])) for v, core in values]
    out = np.empty(lead)
    for frame in np.ndindex(lead):
        whole = np.isfinite(wide[1][frame]).all()
        out[frame] = calibrated_median(*(np.ascontiguousarray(v[frame]) for v in wide)) if whole else np.nan
    return out


def ccd_median(image: xr.DataArray) -> xr.DataArray:
    """Return the median of each CCD, over its four quadrants together.

    Parameters
    ----------
    image : (..., ccd, quadrant, y, x) float32

    Returns
    -------
    (..., ccd) float64, in the image's units.
    """
    whole = image.chunk({"quadrant": -1, "y": -1, "x": -1}) if image.chunks else image
    return xr.apply_ufunc(
        _plain_medians,
        whole,
        input_core_dims=[["quadrant", "y", "x"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        keep_attrs=True,
    )


def _plain_medians(image: NDArray[np.float32]) -> NDArray[np.float64]:
    quadrants, rows = image.shape[-3:-1]
    nothing = np.zeros((quadrants, rows), np.float32), np.zeros(quadrants, np.float32)
    level, coefficient = nothing
    zero = np.broadcast_to(np.float32(0), image.shape[-3:])
    out = np.empty(image.shape[:-3])
    for ccd in np.ndindex(out.shape):
        out[ccd] = calibrated_median(np.ascontiguousarray(image[ccd]), level, coefficient, coefficient, zero)
    return out


def relative_levels(led_level: xr.DataArray, *, leds: Mapping[int, str] = LED_FILTERS) -> xr.DataArray:
    """Return the level of each CCD against the focal plane's, by filter.

    Parameters
    ----------
    led_level : (led, ccd), DN
        Of :func:`master_flat`, of all the CCDs that are to come out level.
    leds : mapping
        LEDs and their filters.

    Returns
    -------
    (filter, ccd) float64
        r = mean over the filter's LEDs of N_ccd(LED) / median over CCDs of N(LED). Science is divided by it, so
        that a uniformly lit focal plane comes out uniform. LEDs weigh equally, in level as in pixels.
    """
    return level_against(led_level, led_level.median("ccd"), leds=leds)


def level_against(
    led_level: xr.DataArray, reference: xr.DataArray, *, leds: Mapping[int, str] = LED_FILTERS
) -> xr.DataArray:
    """Return the level of each CCD against that of a reference, by filter.

    Parameters
    ----------
    led_level : (led, ccd), DN
        Of :func:`master_flat`.
    reference : (led), DN
        Median of the LED's levels over the CCDs that others are compared with.
    leds : mapping
        LEDs and their filters.

    Returns
    -------
    (filter, ccd) float64
        Mean over the filter's LEDs of level / reference.
    """
    return xr.concat(list(_by_filter(led_level / reference, leds)), "filter")


def _by_filter(relative: xr.DataArray, leds: Mapping[int, str]) -> Iterator[xr.DataArray]:
    for name in sorted(set(leds.values())):
        members = [led for led, filter_name in leds.items() if filter_name == name]
        yield relative.sel(led=members).mean("led").assign_coords(filter=name)
