"""Errors of a starflat: by what changes without some of the exposures, and by the noise model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.starflat.fit import Fit
from ztfzarr.starflat.nodes import QUADRANTS
from ztfzarr.starflat.solve import Precondition, preconditioner, solve

Floats = NDArray[np.float64]

ACCURACY: Final = 1e-4  # of solutions whose spread is an error


@dataclass(frozen=True, eq=False)
class Errors:
    """Standard errors of the map (64 rcid, node_y, node_x), the zero points (exposure) and k, mag; NaN unknown.

    ``colour`` is that of the colour term (64 rcid, 2, 2), by jackknife.

    ``delta`` is by jackknife over exposures; ``delta_formal``, ``zero`` and ``extinction`` by the noise model: a
    fit without an exposure says nothing of its zero point.
    ``covariance`` is the jackknife's of what :func:`errors` was given to measure.
    """

    delta: Floats
    delta_formal: Floats
    zero: Floats
    extinction: float
    covariance: Floats
    colour: Floats


def errors(fit: Fit, measure: Callable[[Fit], Floats] | None = None) -> Errors:
    """Estimate the errors of a fit.

    Parameters
    ----------
    fit : Fit
        Its settings say how many ``resamples`` are made.
    measure : callable, optional
        Returns numbers of a fit, such as the slopes of its plane, whose jackknife covariance is wanted too.

    Returns
    -------
    Errors
        Those by jackknife NaN with fewer than two exposures or resamples.

    Notes
    -----
    Jackknife: the exposures in G groups, G fits without one of them; (G - 1) / G x the sum of squares about their
    mean. What all exposures share, such as the errors of a catalogue, is not in it. By the noise model: the same
    fit of noise alone, drawn ``resamples`` times, which leaves out what the prior on smoothness hides.
    """
    ready = preconditioner(fit.system, fit.gauge, fit.weight)
    rows, extra = [], []
    for one in _without(fit, ready):
        rows.append(one.parameters)
        extra.append(measure(one) if measure is not None else np.empty(0))
    groups = len(rows)
    scale = np.sqrt(groups - 1) if groups > 1 else np.nan
    spread = scale * np.std(rows, axis=0) if groups > 1 else np.full(fit.system.size, np.nan)
    off = np.array(extra) - np.mean(extra, axis=0) if groups > 1 else np.full((1, 0), np.nan)
    noise = [_of_noise(fit, ready, seed) for seed in range(fit.settings.resamples)]
    formal = np.sqrt(np.mean(np.square(noise), axis=0)) if noise else np.full(fit.system.size, np.nan)
    return Errors(
        _map(fit, spread), _map(fit, formal), formal[fit.system.zero], extinction_error(fit, ready),
        scale**2 * (off.T @ off) / max(groups, 1), fit.at_corners(spread),
    )  # fmt: skip


def _map(fit: Fit, values: Floats) -> Floats:
    n = fit.system.nodes.total
    return np.where(fit.gauge.free[:n], values[:n], np.nan).reshape(QUADRANTS, *fit.system.nodes.count)


def _without(fit: Fit, ready: Precondition) -> Iterator[Fit]:
    """Fit again without each group of exposures; groups are every G-th, so that they are alike."""
    system = fit.system
    exposed = np.unique(system.exposure[fit.weight > 0])
    groups = min(fit.settings.resamples, exposed.size)
    if groups < 2:
        return
    group = np.zeros(system.exposures.size, np.int64)
    group[exposed] = np.arange(exposed.size) % groups
    for g in range(groups):
        weight = np.where(group[system.exposure] == g, 0.0, fit.weight)
        fixed = np.zeros(system.size)
        fixed[-1] = fit.settings.extinction or 0.0
        right = system.gather(weight, system.magnitude - system.predict(fixed))
        start = fit.parameters - fixed
        found, _ = solve(system, fit.gauge, weight, right, precondition=ready, start=start, tolerance=ACCURACY)
        yield replace(fit, parameters=found + fixed, weight=weight)


def _of_noise(fit: Fit, ready: Precondition, seed: int) -> Floats:
    """Fit noise of the noise model."""
    noise = np.random.default_rng(seed).standard_normal(fit.weight.size)
    value = np.divide(noise, np.sqrt(fit.weight), out=np.zeros_like(noise), where=fit.weight > 0)
    right = fit.system.gather(fit.weight, value)
    return solve(fit.system, fit.gauge, fit.weight, right, precondition=ready, tolerance=ACCURACY)[0]


def extinction_error(fit: Fit, ready: Precondition | None = None) -> float:
    """Return the standard error of k by the noise model, mag an airmass; 0 if k was given."""
    if not fit.gauge.free[-1]:
        return 0.0
    unit = np.zeros(fit.system.size)
    unit[-1] = 1
    found, _ = solve(fit.system, fit.gauge, fit.weight, unit, precondition=ready, tolerance=ACCURACY)
    return float(np.sqrt(found[-1]))
