"""Pocket effect: charge that trails along rows into later pixels and into the overscan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr import tables
from ztfzarr.geometry import CCDS, FIRST_READ_COLUMN_LAST, POCKET_START, QUADRANTS, stored_columns
from ztfzarr.kernels.pocket import Pocket
from ztfzarr.kernels.pocket_correction import correct, lookup, release
from ztfzarr.kernels.row_sky import FEWEST
from ztfzarr.steps.linearity import linearize, matching
from ztfzarr.steps.overscan import overscan_flag, overscan_level, overscan_profile, subtract_overscan
from ztfzarr.steps.units import bare, require_labels, require_units

SETTINGS: Final = ("off", "auto", "on")
PARAMETERS: Final = ("alpha", "cmax", "beta", "nmax")
PASSES: Final = 2  # of level and pocket: of 8 DN in columns [5, 10) the first leaves 0.08, the second 0.02
TAIL: Final = 256  # last-read columns that decide what is left in the pocket: it forgets a sky of 20 DN within 40


def pocket_applies(
    time: xr.DataArray,
    setting: str = "auto",
    first_day: np.datetime64 = POCKET_START,
    *,
    imgtype: xr.DataArray | None = None,
) -> xr.DataArray:
    """Say which exposures are to be corrected for the pocket effect.

    Parameters
    ----------
    time : (time) datetime64
        Of the exposures, UTC.
    setting : str
        ``off``, ``on``, or ``auto``: from ``first_day`` on.
    first_day : datetime64
        First UTC day with the read-out that defers charge.
    imgtype : (time) str, optional
        Kinds of exposures: bias frames are never corrected.

    Returns
    -------
    (time) bool

    Raises
    ------
    ValueError
        If the setting is unknown.
    """
    if setting not in SETTINGS:
        raise ValueError(f"pocket.correct = {setting!r}: expected one of {', '.join(SETTINGS)}")
    since = first_day.astype("datetime64[D]")
    named = {"off": np.zeros(time.shape, bool), "on": np.ones(time.shape, bool), "auto": time.values >= since}
    applies = named[setting] if imgtype is None else named[setting] & (imgtype.values != "bias")
    return xr.DataArray(applies, {"time": time.values}, ("time",), "applies", {"long_name": "pocket is corrected"})


def pocket_parameters(applies: xr.DataArray, known: xr.Dataset | None = None) -> xr.Dataset:
    """Look up the pocket of each quadrant.

    Parameters
    ----------
    applies : (time) bool
        Which exposures have one: :func:`pocket_applies`.
    known : Dataset of ``alpha``, ``cmax``, ``beta``, ``nmax``, each (ccd, quadrant), optional
        Fitted, as ``fit_pocket`` returns them; default the table's, of all 64 quadrants.

    Returns
    -------
    Dataset
        ``alpha``, ``beta`` (1), ``cmax`` and ``nmax`` (DN), each (time, ccd, quadrant) float64; ``cmax`` 0 where
        there is no pocket.

    Notes
    -----
    "Default model (v0.1)" of N. Regnault's ztfsensors.
    """
    pocket = (_table() if known is None else known[list(PARAMETERS)]).expand_dims(time=applies["time"].values)
    attributes = pocket["cmax"].attrs
    return pocket.assign(cmax=pocket["cmax"].where(applies, 0.0).assign_attrs(attributes))


def _table() -> xr.Dataset:
    known = tables.pocket()
    of_quadrants = {
        name: (("ccd", "quadrant"), known[name], {"units": units, "long_name": f"pocket {name}"})
        for name, units in zip(PARAMETERS, ("1", "DN", "1", "DN"), strict=True)
    }
    return xr.Dataset(of_quadrants, {"ccd": list(CCDS), "quadrant": list(QUADRANTS)})


def pocket_of(
    exposures: xr.Dataset,
    setting: str = "auto",
    first_day: np.datetime64 = POCKET_START,
    known: xr.Dataset | None = None,
) -> xr.Dataset:
    """Return the pocket parameters of exposures, with ``cmax`` 0 where ``setting`` or their kind says not to."""
    applies = pocket_applies(exposures["time"], setting, first_day, imgtype=exposures["imgtype"])
    return pocket_parameters(applies, known)


def correct_pocket(counts: xr.DataArray, parameters: xr.Dataset) -> xr.DataArray:
    """Give deferred charge back to the pixels that it belongs to.

    Parameters
    ----------
    counts : (..., ccd, quadrant, y, x) float32, DN
        Overscan-subtracted linear counts, whole rows: not chunked along ``x``.
    parameters : Dataset of ``alpha``, ``cmax``, ``beta``, ``nmax``, each (..., ccd, quadrant)
        Of :func:`pocket_parameters`, or fitted, of at least the CCDs and quadrants of ``counts``.

    Returns
    -------
    (..., ccd, quadrant, y, x) float32, DN. Lazy if ``counts`` is.

    Raises
    ------
    ValueError
        If units are not DN, a time, CCD or quadrant of ``counts`` has no parameters, or rows are shorter than
        eight pixels.

    Notes
    -----
    Per row, in read order: out - f(p) + t(n, p), p <- p - f + t, with the pocket of
    :mod:`ztfzarr.kernels.pocket` and n denoised: the local sky, or, in stars, the exact root. Charge that stays in
    the pocket after the last column is given back too.
    """
    require_units(counts, "DN")
    require_labels(counts, "ccd", "quadrant")
    if counts.sizes["x"] < FEWEST:
        raise ValueError(f"rows of {counts.sizes['x']} pixels: expected {FEWEST} or more")
    result = xr.apply_ufunc(
        _corrected,
        counts.transpose(..., "y", "x"),
        *_of_quadrants(parameters, counts),
        input_core_dims=[["x"], *[[]] * 5],
        output_core_dims=[["x"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        join="exact",
        keep_attrs=False,
    )
    return result.transpose(*counts.dims).assign_attrs(units="DN", long_name="counts without deferred charge")


def release_overscan(overscan: xr.DataArray, counts: xr.DataArray, parameters: xr.Dataset) -> xr.DataArray:
    """Take deferred charge out of overscans.

    Parameters
    ----------
    overscan : (..., ccd, quadrant, y, x_overscan) float32, DN
        As read.
    counts : (..., ccd, quadrant, y, x) float32, DN
        Overscan-subtracted linear counts of the same rows, of the last-read columns at least: :func:`last_read`.
        Not chunked along ``x``.
    parameters : Dataset
        See :func:`correct_pocket`.

    Returns
    -------
    (..., ccd, quadrant, y, x_overscan) float32, DN. Lazy if ``overscan`` is.

    Raises
    ------
    ValueError
        If units are not DN, or times, CCDs, quadrants or rows differ.

    Notes
    -----
    No charge comes into the overscan, so nothing is solved: out - f(p), p <- p - f. The non-linearity of the few
    DN that are released is left out.
    """
    require_units(overscan, "DN")
    require_units(counts, "DN")
    require_labels(counts, "ccd", "quadrant")
    result = xr.apply_ufunc(
        _released,
        overscan.transpose(..., "y", "x_overscan"),
        counts.transpose(..., "y", "x"),
        *_of_quadrants(parameters, counts),
        input_core_dims=[["x_overscan"], ["x"], *[[]] * 5],
        output_core_dims=[["x_overscan"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        join="exact",
        keep_attrs=False,
    )
    named = result.transpose(*overscan.dims)
    return named.assign_attrs(units="DN", long_name="overscan without deferred charge")


def last_read(counts: xr.DataArray, columns: int = TAIL) -> xr.DataArray:
    """Select the columns of each quadrant that are read last, as stored, without their labels.

    Parameters
    ----------
    counts : (..., quadrant, y, x)
        Of one quadrant, with its label, or several.
    columns : int
        All, if there are fewer.
    """
    width = counts.sizes["x"]
    first = max(width - columns, 0)
    plain = counts.drop_vars("x", errors="ignore")
    if "quadrant" not in plain.dims:
        return plain.isel(x=stored_columns(int(plain["quadrant"]), first, width, width))
    parts = [plain.sel(quadrant=[q]).isel(x=stored_columns(q, first, width, width)) for q in _labels(plain)]
    return xr.concat(parts, "quadrant").transpose(*counts.dims).assign_attrs(counts.attrs)


def in_read_order_columns(strips: xr.DataArray) -> xr.DataArray:
    """Return overscans (..., quadrant, y, x_overscan) with their first-read column first, in every quadrant."""
    backward = strips["quadrant"].isin(list(FIRST_READ_COLUMN_LAST)).reset_coords(drop=True)
    plain = strips.drop_vars("x_overscan", errors="ignore")
    return plain.where(~backward, plain.isel(x_overscan=slice(None, None, -1))).assign_attrs(strips.attrs)


def overscan_level_with_pocket(
    raw: xr.DataArray,
    overscan: xr.DataArray,
    coefficients: xr.Dataset,
    parameters: xr.Dataset,
    *,
    fit: dict[str, Any] | None = None,
    **profile: Any,
) -> xr.Dataset:
    """Find the overscan level of exposures whose last pixels trail into their overscans.

    Parameters
    ----------
    raw : (..., ccd, quadrant, y, x) float32, DN
        As read; only the last-read 256 columns are used.
    overscan : (..., ccd, quadrant, y, x_overscan) float32, DN
        All its rows and columns, as stored; not chunked along them.
    coefficients : Dataset
        Of the non-linearity: :func:`~ztfzarr.steps.linearity.linearity_coefficients`.
    parameters : Dataset
        See :func:`correct_pocket`.
    fit : dict, optional
        ``degree``, ``clip`` of :func:`~ztfzarr.steps.overscan.overscan_level`.
    **profile
        ``columns``, ``columns_of_ccd`` of :func:`~ztfzarr.steps.overscan.overscan_profile`.

    Returns
    -------
    Dataset
        As of :func:`~ztfzarr.steps.overscan.overscan_level`. Lazy if the exposures are.

    Notes
    -----
    The level decides the charge of the last pixels, and that what is released into the overscan: two passes.
    """
    tail = last_read(raw)
    tail = tail.chunk(x=-1) if tail.chunks else tail
    smooth = overscan_level(overscan_profile(overscan, **profile), **(fit or {}))
    for _ in range(PASSES):
        linear = linearize(subtract_overscan(tail, smooth["level"]), coefficients)
        strips = release_overscan(overscan, linear, parameters)
        strips = strips.chunk(y=-1) if strips.chunks else strips
        smooth = overscan_level(overscan_profile(strips, **profile), **(fit or {}))
    return smooth


def sound_level_with_pocket(
    exposures: xr.Dataset,
    coefficients: xr.Dataset,
    parameters: xr.Dataset,
    **overscan: Any,
) -> xr.DataArray:
    """Return the overscan level of raw exposures freed of trailing charge, NaN where it is not sound.

    Parameters
    ----------
    exposures : Dataset
        ``raw`` and ``overscan``, with all the rows, and the last-read columns at least.
    coefficients, parameters : Dataset
        See :func:`overscan_level_with_pocket`.
    **overscan
        As of :func:`~ztfzarr.steps.overscan.sound_level`.

    Returns
    -------
    (time, ccd, quadrant, y) float32, DN. Lazy if the exposures are.
    """
    raw, strips = (bare(exposures[name]) for name in ("raw", "overscan"))
    strips = strips.chunk(y=-1, x_overscan=-1) if strips.chunks else strips
    fit: dict[str, Any] = {name: overscan.pop(name) for name in ("degree", "clip") if name in overscan}
    limits = {name: overscan.pop(name) for name in ("highest", "step") if name in overscan}
    smooth = overscan_level_with_pocket(raw, strips, coefficients, parameters, fit=fit, **overscan)
    return smooth["level"].where(overscan_flag(smooth, **limits) == 0).assign_attrs(smooth["level"].attrs)


def _labels(counts: xr.DataArray) -> list[int]:
    return [int(q) for q in np.atleast_1d(counts["quadrant"].values)]


def _of_quadrants(parameters: xr.Dataset, counts: xr.DataArray) -> list[xr.DataArray]:
    """Return the read direction of the quadrants of ``counts``, and their parameters, in DN."""
    matched = matching(parameters, counts, "pocket parameters")
    for name in ("cmax", "nmax"):
        require_units(matched[name], "DN")
    backward = counts["quadrant"].isin(list(FIRST_READ_COLUMN_LAST)).reset_coords(drop=True)
    return [backward, *(matched[name] for name in PARAMETERS)]


def _quadrants(
    lead: tuple[int, ...], backward: NDArray[np.bool_], *parameters: NDArray[np.float64]
) -> Iterator[tuple[tuple[int, ...], bool, Pocket]]:
    """Yield index, direction and pocket of each image; what they are drawn from has a last dimension, of rows."""
    wide = [np.broadcast_to(v, (*lead, 1))[..., 0] for v in (backward, *parameters)]
    for image in np.ndindex(lead):
        yield image, bool(wide[0][image]), Pocket(*(float(v[image]) for v in wide[1:]))


def _corrected(counts: NDArray[np.float32], *of_quadrants: NDArray[Any]) -> NDArray[np.float32]:
    out = np.array(counts, np.float32)
    for image, backward, pocket in _quadrants(counts.shape[:-2], *of_quadrants):
        if pocket.cmax > 0:
            correct(np.ascontiguousarray(counts[image], np.float32), lookup(pocket), backward, out[image])
    return out


def _released(
    overscan: NDArray[np.float32], counts: NDArray[np.float32], *of_quadrants: NDArray[Any]
) -> NDArray[np.float32]:
    out = np.array(overscan, np.float32)
    for image, backward, pocket in _quadrants(counts.shape[:-2], *of_quadrants):
        if pocket.cmax > 0:
            look, tail = lookup(pocket), np.ascontiguousarray(counts[image], np.float32)
            charge = correct(tail, look, backward, np.empty_like(tail))
            release(np.ascontiguousarray(overscan[image], np.float32), charge, look, backward, out[image])
    return out
