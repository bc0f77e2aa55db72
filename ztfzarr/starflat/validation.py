"""What a starflat is worth: residuals with and without it, halves against each other, other apertures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import join_distance
from ztfzarr.starflat.errors import errors
from ztfzarr.starflat.fit import Fit, Settings, fit_starflat, residuals, star_means
from ztfzarr.starflat.measurements import Measurements
from ztfzarr.starflat.nodes import QUADRANTS
from ztfzarr.starflat.solve import solve
from ztfzarr.starflat.system import System, new_gauge

Floats = NDArray[np.float64]

DRAWS: Final = 10  # of noise, for the errors of two maps whose difference is judged by one number


def without_map(system: System, weight: Floats, delta: Floats, extinction: float) -> Floats:
    """Return the residuals of measurements from a given map and k: stars and zero points alone are fitted.

    Parameters
    ----------
    system : System
        The measurements.
    weight : (measurement,)
        Inverse variances.
    delta : (64, node_y, node_x)
        The map, mag; zeros for none.
    extinction : float
        mag an airmass.
    """
    fixed = np.zeros(system.size)
    fixed[: system.nodes.total], fixed[-1] = delta.ravel(), extinction
    exposed = np.bincount(system.exposure, weight, system.exposures.size) > 0
    gauge = new_gauge(system, np.zeros(system.nodes.total, bool), exposed, fit_extinction=False)
    right = system.gather(weight, system.magnitude - system.predict(fixed))
    return residuals(system, fixed + solve(system, gauge, weight, right)[0], weight)


def cell_means(system: System, weight: Floats, residual: Floats) -> Floats:
    """Return the weighted mean of the residuals nearest to each node, (64, node_y, node_x); NaN of none."""
    nearest = system.node + np.rint(system.across).astype(np.int32)
    nearest += np.rint(system.along).astype(np.int32) * system.nodes.count[1]
    return _means(nearest, system.nodes.total, weight, residual).reshape(QUADRANTS, *system.nodes.count)


def _means(index: NDArray[np.integer], size: int, weight: Floats, value: Floats) -> Floats:
    total = np.bincount(index, weight, size)
    summed = np.bincount(index, weight * np.nan_to_num(value), size)
    means = np.full(size, np.nan)
    np.divide(summed, total, out=means, where=total > 0)
    return means


def rms_by(index: NDArray[np.integer], size: int, kept: NDArray[np.bool_], residual: Floats) -> Floats:
    """Return the rms of the kept residuals of each index; NaN of none."""
    return np.sqrt(_means(index, size, kept.astype(np.float64), residual**2))


def repeatability(fit: Fit, residual: Floats, brightness: Floats) -> tuple[Floats, Floats]:
    """Return the scatter of stars' magnitudes, and what the noise model says, in bins of magnitude.

    Parameters
    ----------
    fit : Fit
        For stars and weights.
    residual : (measurement,)
        m - model.
    brightness : (bin,)
        Middles of the bins, instrumental magnitude, evenly spaced.

    Returns
    -------
    scatter, expected : (bin,)
        mag; residuals are scaled up by what their star's mean takes from them. NaN in bins of fewer than 20.
    """
    system, kept = fit.system, fit.weight > 0
    mean, total = star_means(system, fit.weight, system.magnitude)
    left = 1 - fit.weight / np.where(total > 0, total, 1)[system.star]
    step = brightness[1] - brightness[0]
    bins = np.rint((np.nan_to_num(mean[system.star], nan=99) - brightness[0]) / step).astype(np.int64)
    good = kept & (left > 0.01) & (bins >= 0) & (bins < brightness.size)
    scaled = np.where(good, residual / np.sqrt(np.maximum(left, 0.01)), 0.0)
    variance = np.divide(1, fit.weight, out=np.zeros_like(fit.weight), where=kept)
    index = np.where(good, bins, 0)
    few = np.bincount(index, good, brightness.size) < 20
    found = rms_by(index, brightness.size, good, scaled), rms_by(index, brightness.size, good, np.sqrt(variance))
    return np.where(few, np.nan, found[0]), np.where(few, np.nan, found[1])


def join_means(fit: Fit, measurements: Measurements, residual: Floats, edges: Floats) -> Floats:
    """Return the mean residual by distance to the nearest join of quadrants, (bin,); NaN of fewer than 20.

    Parameters
    ----------
    fit, measurements
        The fit, and what it was fitted to.
    residual : (measurement,)
        Of the sorted measurements.
    edges : (bin + 1,)
        Of the bins, pixels from the middle of the last row or column before the join.
    """
    m = measurements.take(fit.system.order)
    index = np.digitize(join_distance(m.rcid % 4 + 1, m.x, m.y, fit.system.nodes.shape), edges)
    few = np.bincount(index, fit.weight > 0, edges.size + 1) < 20
    means = np.where(few, np.nan, _means(index, edges.size + 1, fit.weight, residual))
    return np.asarray(means[1:-1], np.float64)


def kept_of(fit: Fit, measurements: Measurements) -> Measurements:
    """Return the measurements that a fit kept."""
    return measurements.take(np.sort(fit.system.order[fit.weight > 0]))


def half_samples(kept: Measurements, shape: tuple[int, int], settings: Settings) -> dict[str, Any]:
    """Fit odd exposures, and judge even ones by the map.

    Returns
    -------
    dict
        ``half_difference`` (64, node_y, node_x), map of odd minus that of even exposures; ``half_sample`` chi
        squared by degree of freedom of the even by the map of the odd, ``half_sample_before`` without a map.
    """
    number = np.unique(kept.exposure, return_inverse=True)[1]
    halves = [kept.take(number % 2 == parity) for parity in (1, 0)]
    odd, even = (fit_starflat(half, shape, settings) for half in halves)
    system, chi2 = even.system, []
    weight = np.where(np.isfinite(_at(system, odd.delta)), even.weight, 0.0)
    for delta in (np.nan_to_num(odd.delta), np.zeros_like(odd.delta)):
        off = without_map(system, weight, delta, odd.extinction)
        freedom = (weight > 0).sum() - np.unique(system.star[weight > 0]).size - system.exposures.size
        chi2.append(float((weight * np.nan_to_num(off) ** 2).sum() / max(freedom, 1)))
    return {
        "half_difference": odd.delta - even.delta,
        "half_sample": chi2[0],
        "half_sample_before": chi2[1],
    }


def _at(system: System, delta: Floats) -> Floats:
    """Evaluate a map at measurements; NaN beside nodes that are NaN."""
    result, flat = np.zeros(system.star.size), delta.ravel()
    for node, share in system.nodes.shares(system.node, system.across, system.along):
        result += np.where(share > 0, flat[node] * share, 0.0)
    return result


def bright_against_faint(kept: Measurements, shape: tuple[int, int], settings: Settings) -> float:
    """Return chi squared by node of the map of bright stars less that of faint ones, by their formal errors."""
    faint = kept.error > np.median(kept.error)
    draws = replace(settings, resamples=DRAWS)
    fits = [fit_starflat(kept.take(which), shape, draws) for which in (~faint, faint)]
    variance = sum(errors(fit).delta_formal ** 2 for fit in fits)
    return float(np.nanmean((fits[0].delta - fits[1].delta) ** 2 / variance))


def judged(fit: Fit, measurements: Measurements, brightness: Floats, joins: Floats) -> dict[str, Any]:
    """Judge a fit by its own measurements and by halves of them.

    Returns
    -------
    dict
        ``residual_before``, ``residual_after``, ``half_difference`` (64, node_y, node_x),
        ``repeatability_before``, ``_after``, ``_expected`` (bin), ``ccd_residual`` (16), ``exposure_residual``
        (exposure), ``join_before``, ``join_after`` (join), mag; ``half_sample``, ``half_sample_before``,
        ``bright_faint``, chi squared.
    """
    system, weight, kept = fit.system, fit.weight, fit.weight > 0
    after = fit.residual()
    before = without_map(system, weight, np.zeros_like(fit.delta), fit.extinction)
    mine = kept_of(fit, measurements)
    scatter, expected = repeatability(fit, after, brightness)
    return {
        "residual_before": cell_means(system, weight, before),
        "residual_after": cell_means(system, weight, after),
        "repeatability_before": repeatability(fit, before, brightness)[0],
        "repeatability_after": scatter,
        "repeatability_expected": expected,
        "ccd_residual": rms_by(system.rcid // 4, 16, kept, after),
        "exposure_residual": rms_by(system.exposure, system.exposures.size, kept, after),
        "join_before": join_means(fit, measurements, before, joins),
        "join_after": join_means(fit, measurements, after, joins),
        "bright_faint": bright_against_faint(mine, system.nodes.shape, fit.settings),
    } | half_samples(mine, system.nodes.shape, fit.settings)
