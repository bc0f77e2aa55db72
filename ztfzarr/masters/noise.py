"""Gain and read noise of the amplifiers, from differences of LED flats and of biases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from ztfzarr.geometry import LED_FILTERS
from ztfzarr.masters.frames import CLIP, Frames, matching_master
from ztfzarr.masters.pairs import clipped_mean, pair_differences
from ztfzarr.masters.pocket import detrended_frames
from ztfzarr.masters.selection import SKIP, require_frames, settled
from ztfzarr.steps.units import require_units

FAINT: Final = 0.1  # of the median level: segments below it say nothing about the gain


def read_noise(
    exposures: xr.Dataset, *, skip: int = SKIP, clip: float = CLIP, detrending: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Measure the read noise from differences of consecutive biases.

    Parameters
    ----------
    exposures : Dataset
        Raw biases, from ``open_cube`` or ``open_fits``: any CCDs and quadrants, with all the rows.
    skip : int
        Biases left out at the start of each uninterrupted run, in time, while the level settles.
    clip : float
        In sigma: of the pixels of a column, then of the variances of columns.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.pocket.detrended_frames`.

    Returns
    -------
    Dataset
        ``read_noise`` and its standard ``error``, each (ccd, quadrant) float64, **DN**; NaN without two frames.
        Lazy if the exposures are.

    Raises
    ------
    ValueError
        If an exposure is no bias, or a CCD has fewer than two frames.

    Notes
    -----
    read noise^2 = var(x1 - x2) / 2, in columns of 308 rows, whose means are taken off. What the clip takes from a
    normal distribution is given back.
    """
    _require_type(exposures, "bias")
    used = settled(exposures["time"], skip=skip)
    require_frames(exposures, used, 2, f"read noise after the first {skip} of each run")
    return frames_read_noise(detrended_frames(in_time(exposures.isel(time=used)), **(detrending or {})), clip=clip)


def frames_read_noise(frames: Frames, *, clip: float = CLIP) -> xr.Dataset:
    """Measure the read noise from differences of consecutive frames, in time: :func:`read_noise` of any rows.

    Parameters
    ----------
    frames : Frames
        Biases, settled.
    clip : float
        As of :func:`read_noise`.

    Returns
    -------
    Dataset
        As of :func:`read_noise`.
    """
    pairs = pair_differences(frames, scaled=False, clip=clip)
    square, error = clipped_mean(0.5 * pairs["variance"], pairs["count"], clip)
    noise = square**0.5
    return xr.Dataset(
        {
            "read_noise": noise.assign_attrs(units="DN", long_name="read noise, from pairs of biases"),
            "error": (error / (2 * noise)).assign_attrs(units="DN", long_name="standard error of the read noise"),
        }
    )


def gain(
    exposures: xr.Dataset,
    bias: xr.DataArray,
    noise: xr.DataArray,
    *,
    leds: Iterable[int] = tuple(LED_FILTERS),
    quantisation: xr.DataArray | None = None,
    clip: float = CLIP,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Measure the gain by photon transfer, from differences of consecutive flats of a LED.

    Parameters
    ----------
    exposures : Dataset
        Raw LED flats, from ``open_cube`` or ``open_fits``, with all the quadrants and rows of their CCDs.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias of at least these CCDs.
    noise : (ccd, quadrant), DN
        Read noise, of :func:`read_noise`.
    leds : iterable of int
        LEDs to measure with; each must be among the exposures.
    quantisation : (time, ccd, quadrant), DN2, optional
        Variance of the exposures' pixels by the steps of their integers; default none.
    clip : float
        In sigma: of the pixels of a column, then of the columns.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.pocket.detrended_frames`.

    Returns
    -------
    Dataset
        ``gain`` and its standard ``error``, each (ccd, quadrant) float64, electron/DN; ``led_gain`` and
        ``led_error`` (led, ccd, quadrant): their differences show what the model leaves out. Lazy if the
        exposures are.

    Raises
    ------
    ValueError
        If an exposure is no flat, a LED is missing, a CCD has fewer than two frames of one, or the bias lacks a
        CCD.

    Notes
    -----
    Each pair x1, x2 of levels m1, m2 is multiplied to m = (m1 + m2)/2, column by column in 308 rows: response and
    drift cancel. Then var(x1 - x2) = m^2 [(1/m1 + 1/m2)/gain + (read noise^2 + q) (1/m1^2 + 1/m2^2)], q the
    quantisation's variance. 1/gain is what is averaged: it is linear in the variance.

    fpack's step is a quarter of a row's scatter, which in flats is mostly the pixels' response: in simulated ones,
    whose rows scatter by 0.8 %, q is 6.7 % of the photons' variance, and without it the gain 7 % too low.

    Charge that pushes charge away (brighter-fatter) takes some per cent from the variance of real flats at 30 to
    40 kDN, and the gain comes out as much too high: compare ``led_gain`` with the LEDs' levels.
    """
    _require_type(exposures, "flat")
    require_units(noise, "DN")
    led = list(leds)
    single = [_led_gain(exposures, one, bias, noise, quantisation, clip, detrending or {}) for one in led]
    return combined_gain(xr.concat(single, xr.DataArray(led, dims="led", name="led")))


def combined_gain(each: xr.Dataset) -> xr.Dataset:
    """Average the gains of LEDs.

    Parameters
    ----------
    each : Dataset
        ``inverse`` (1/gain) and its ``error``, each (led, ccd, quadrant), of :func:`frames_gain`.

    Returns
    -------
    Dataset
        As of :func:`gain`.
    """
    weight = (1.0 / each["error"] ** 2).fillna(0.0)
    total = weight.sum("led")
    inverse = (weight * each["inverse"].fillna(0.0)).sum("led") / total.where(total > 0)
    found: dict[str, tuple[xr.DataArray, str]] = {
        "gain": (1.0 / inverse, "gain, from pairs of flats"),
        "error": (1.0 / (total**0.5 * inverse**2), "standard error of the gain"),
        "led_gain": (1.0 / each["inverse"], "gain, from pairs of flats of one LED"),
        "led_error": (each["error"] / each["inverse"] ** 2, "standard error of the gain from one LED"),
    }
    return xr.Dataset({k: v.assign_attrs(units="electron DN-1", long_name=name) for k, (v, name) in found.items()})


def _led_gain(
    exposures: xr.Dataset,
    led: int,
    bias: xr.DataArray,
    noise: xr.DataArray,
    quantisation: xr.DataArray | None,
    clip: float,
    detrending: Mapping[str, Any],
) -> xr.Dataset:
    """Return 1/gain and its error, (ccd, quadrant), from one LED."""
    used = np.asarray(exposures["led"].values == led)
    if not used.any():
        raise ValueError(f"no flats of LED {led}: found {sorted(set(exposures['led'].values.tolist()))}")
    require_frames(exposures, used, 2, f"gain from flats of LED {led}")
    frames = detrended_frames(in_time(exposures.isel(time=used)), **detrending)
    steps = None if quantisation is None else quantisation.isel(time=used).mean("time")
    return frames_gain(frames, matching_master(bias, frames.counts), noise, quantisation=steps, clip=clip)


def frames_gain(
    frames: Frames,
    offset: xr.DataArray,
    noise: xr.DataArray,
    *,
    quantisation: xr.DataArray | None = None,
    clip: float = CLIP,
) -> xr.Dataset:
    """Measure 1/gain and its error, each (ccd, quadrant), from consecutive frames of one LED, of any rows.

    Parameters
    ----------
    frames : Frames
        Flats of the LED, in time.
    offset : (ccd, quadrant, y, x) float32, DN
        Master bias, of the frames' own CCDs, quadrants and rows.
    noise : (ccd, quadrant), DN
        Read noise.
    quantisation : (ccd, quadrant), DN2, optional
        Mean variance of the frames' pixels by the steps of their integers; default none.
    clip : float
        As of :func:`gain`.

    Returns
    -------
    Dataset
        ``inverse`` and ``error``, DN/electron.
    """
    pairs = pair_differences(frames, offset=offset, scaled=True, clip=clip)
    first, second = pairs["levels"].isel(frame=0), pairs["levels"].isel(frame=1)
    dims = ["segment", "x", "pair"]
    whole = first.chunk(dict.fromkeys(dims, -1)) if first.chunks else first
    lit = first > FAINT * whole.median(dims)
    first, second = first.where(lit), second.where(lit)
    common = 0.5 * (first + second)
    square = noise**2 if quantisation is None else noise**2 + quantisation
    square = square.reset_coords(drop=True)
    photons = pairs["variance"] - square * common**2 * (1 / first**2 + 1 / second**2)
    value, error = clipped_mean(photons / (common**2 * (1 / first + 1 / second)), pairs["count"], clip)
    return xr.Dataset({"inverse": value, "error": error})


def measured_noise(
    biases: xr.Dataset,
    flats: xr.Dataset,
    bias: xr.DataArray,
    *,
    skip: int = SKIP,
    leds: Iterable[int] = tuple(LED_FILTERS),
    quantisation: xr.DataArray | None = None,
    clip: float = CLIP,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Measure gain and read noise, in the units of the headers that they can stand for.

    Parameters
    ----------
    biases, flats, bias, skip, leds, quantisation, clip, detrending
        See :func:`read_noise` and :func:`gain`.

    Returns
    -------
    Dataset
        ``gain``, ``gain_error`` (electron/DN), ``read_noise``, ``read_noise_error`` (electron), each
        (ccd, quadrant) float64. Lazy if the exposures are.
    """
    dark = read_noise(biases, skip=skip, clip=clip, detrending=detrending)
    light = gain(
        flats, bias, dark["read_noise"], leds=leds, quantisation=quantisation, clip=clip, detrending=detrending
    )
    electrons = {"read_noise": dark["read_noise"], "read_noise_error": dark["error"]}
    return xr.Dataset(
        {"gain": light["gain"], "gain_error": light["error"]}
        | {k: (v * light["gain"]).assign_attrs(v.attrs, units="electron") for k, v in electrons.items()}
    )


def header_ratio(measured: xr.Dataset, exposures: xr.Dataset) -> xr.Dataset:
    """Compare measured gain and read noise with those in the headers.

    Parameters
    ----------
    measured : Dataset
        ``gain`` (electron/DN) and ``read_noise`` (electron), of :func:`measured_noise`.
    exposures : Dataset
        ``gain`` and ``read_noise`` of the headers, (time, ccd, quadrant), of the same CCDs and quadrants.

    Returns
    -------
    Dataset
        ``gain`` and ``read_noise``, each (ccd, quadrant): measured / header.

    Raises
    ------
    ValueError
        If units, CCDs or quadrants differ.
    """
    ratios = {}
    for name, units in (("gain", "electron DN-1"), ("read_noise", "electron")):
        require_units(measured[name], units)
        require_units(exposures[name], units)
        nominal = exposures[name].astype(np.float64).mean("time", skipna=True)
        one, two = xr.align(measured[name], nominal, join="exact")
        ratios[name] = (one / two).assign_attrs(units="1", long_name=f"{name}: measured / header")
    return xr.Dataset(ratios)


def _require_type(exposures: xr.Dataset, imgtype: str) -> None:
    others = set(exposures["imgtype"].values.tolist()) - {imgtype}
    if others:
        raise ValueError(f"exposures of type {', '.join(sorted(map(str, others)))}: expected {imgtype} only")


def in_time(exposures: xr.Dataset) -> xr.Dataset:
    """Sort exposures by time; those that are sorted stay as they are."""
    order = np.argsort(exposures["time"].values, kind="stable")
    return exposures if (np.diff(order) == 1).all() else exposures.isel(time=order)
