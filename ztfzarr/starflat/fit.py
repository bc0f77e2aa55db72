"""The fit of a starflat: which measurements and nodes count, iterated, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.starflat.measurements import Measurements
from ztfzarr.starflat.nodes import QUADRANTS, Nodes
from ztfzarr.starflat.selection import determined, linked, near_median
from ztfzarr.starflat.solve import preconditioner, solve
from ztfzarr.starflat.system import Gauge, System, new_gauge, new_system

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDS: Final = 12  # of rejection; four or five are needed


@dataclass(frozen=True)
class Settings:
    """How to fit.

    ``nodes`` in y and x of a quadrant; ``floor`` mag, added in quadrature to errors; ``clip`` sigma of the noise
    model; ``smoothness`` sigma of the map's second differences between nodes, mag, 0 for none; ``extinction`` mag
    an airmass, None to fit it; ``minimum`` sum of bilinear weights that a node needs; ``resamples`` of the errors.
    """

    nodes: tuple[int, int] = (15, 15)
    floor: float = 0.005
    clip: float = 5.0
    smoothness: float = 0.001
    extinction: float | None = None
    minimum: float = 1.0
    resamples: int = 20


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted starflat, in the gauge.

    Parameters
    ----------
    system, gauge : System, Gauge
        What was solved.
    settings : Settings
        How.
    parameters : (parameter,)
        The solution.
    weight : (measurement,)
        Inverse variances, floor included, of the sorted measurements; 0 rejected or not usable.
    dropped : tuple of int
        Channels with measurements that no star links to the others.
    iterations : int
        Of the last solution.
    effective : float
        Parameters beside the stars that the measurements determine: fewer than there are, for the map is smooth.
    """

    system: System
    gauge: Gauge
    settings: Settings
    parameters: Floats
    weight: Floats
    dropped: tuple[int, ...]
    iterations: int
    effective: float

    @property
    def delta(self) -> Floats:
        """The map at its nodes, (64 rcid, node_y, node_x), mag; NaN where it is not determined."""
        n = self.system.nodes.total
        grid = np.where(self.gauge.free[:n], self.parameters[:n], np.nan)
        return grid.reshape(QUADRANTS, *self.system.nodes.count)

    @property
    def colour(self) -> Floats:
        """The colour term at the corners of quadrants, (64 rcid, 2, 2), mag a mag of colour; NaN without."""
        return self.at_corners(self.parameters)

    @property
    def count(self) -> NDArray[np.int64]:
        """Kept measurements that bear on each node, (64 rcid, node_y, node_x)."""
        return self.system.bearing(self.weight > 0)[1].reshape(QUADRANTS, *self.system.nodes.count)

    @property
    def zero(self) -> Floats:
        """Zero points of ``system.exposures``, mag: their mean is 0."""
        return self.parameters[self.system.zero]

    @property
    def extinction(self) -> float:
        """The extinction, mag an airmass."""
        return float(self.parameters[-1])

    def at_corners(self, values: Floats) -> Floats:
        """Return those of (parameter,) that are the colour term's, (64 rcid, 2, 2); NaN not determined."""
        corners, where = np.full(4 * QUADRANTS, np.nan), self.system.corners
        if self.system.with_colour:
            corners[:] = np.where(self.gauge.free[where], values[where], np.nan)
        return corners.reshape(QUADRANTS, 2, 2)

    def residual(self) -> Floats:
        """Return m - model of the sorted measurements, mag; NaN where the star has no other."""
        return residuals(self.system, self.parameters, self.weight)

    def chi2(self) -> float:
        """Return chi squared by degree of freedom, stars and all."""
        kept = self.weight > 0
        unknown = np.unique(self.system.star[kept]).size + self.effective
        return float((self.weight * np.nan_to_num(self.residual()) ** 2).sum() / max(kept.sum() - unknown, 1.0))


def star_means(system: System, weight: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Return the weighted mean of each star's values, NaN without weight, and its weight."""
    total = np.bincount(system.star, weight, system.stars.size)
    means = np.full(total.size, np.nan)
    np.divide(np.bincount(system.star, weight * value, system.stars.size), total, out=means, where=total > 0)
    return means, np.asarray(total, np.float64)


def residuals(system: System, parameters: Floats, weight: Floats) -> Floats:
    """Return magnitudes minus parameters minus the star, of all measurements; NaN of stars without weight."""
    value = system.magnitude - system.predict(parameters)
    return value - star_means(system, weight, value)[0][system.star]


def fit_starflat(measurements: Measurements, shape: tuple[int, int], settings: Settings | None = None) -> Fit:
    """Fit the map, zero points and extinction to the stars of a filter.

    Parameters
    ----------
    measurements : Measurements
        In any order.
    shape : (int, int)
        Rows and columns of a quadrant.
    settings : Settings, optional
        How.

    Returns
    -------
    Fit
        In the gauge: sum(delta) = sum(delta u) = sum(delta v) = 0 over the nodes that are determined, and
        sum(dk) = 0 over the corners.

    Raises
    ------
    ValueError
        If no two quadrants have stars in common.

    Notes
    -----
    m = m_star + zp_exp + k (X - X_exp) + delta(u, v) + dk (colour - mean colour), least squares by the noise model
    error^2 + floor^2, without what lies further than ``clip`` of its sigma from the model, iterated.
    """
    settings = settings or Settings()
    system = new_system(measurements, Nodes(shape, settings.nodes), smoothness=settings.smoothness)
    inverse = 1 / (system.error**2 + settings.floor**2)
    kept, dropped = linked(system, near_median(system))
    fit = _solved(system, settings, inverse, kept, None)
    for _ in range(ROUNDS):
        before = kept
        kept, more = linked(system, _inlying(fit, inverse))
        dropped |= more
        if np.array_equal(kept, before):
            break
        fit = _solved(system, settings, inverse, kept, fit)
    return replace(fit, dropped=tuple(sorted(dropped)), effective=_effective(fit))


def _effective(fit: Fit) -> float:
    """Estimate the trace of S^-1 A^T W A by one draw of noise: good to sqrt(2 / trace)."""
    noise = np.random.default_rng(0).standard_normal(fit.weight.size)
    value = np.divide(noise, np.sqrt(fit.weight), out=np.zeros_like(noise), where=fit.weight > 0)
    right = fit.system.gather(fit.weight, value)
    return float(solve(fit.system, fit.gauge, fit.weight, right, tolerance=1e-4)[0] @ right)


def _inlying(fit: Fit, inverse: Floats) -> Mask:
    """Say which measurements, kept so far or not, lie within the noise model of what the others of a star say."""
    star_weight = star_means(fit.system, fit.weight, fit.system.magnitude)[1][fit.system.star]
    share = np.divide(inverse, star_weight, out=np.full(inverse.size, np.inf), where=star_weight > 0)
    variance = np.where(fit.weight > 0, 1 - share, 1 + share) / inverse
    within = np.abs(fit.residual()) < fit.settings.clip * np.sqrt(np.maximum(variance, 1e-3 / inverse))
    alone = (fit.weight > 0) & (share > 0.999)
    return np.asarray(within | alone)


def _solved(system: System, settings: Settings, inverse: Floats, kept: Mask, before: Fit | None) -> Fit:
    """Solve with the kept measurements."""
    nodes, within = determined(system, kept, settings.minimum)
    weight = np.where(within, inverse, 0.0)
    exposed = np.bincount(system.exposure, weight, system.exposures.size) > 0
    gauge = new_gauge(system, nodes, exposed, fit_extinction=settings.extinction is None)
    fixed = np.zeros(system.size)
    fixed[-1] = settings.extinction or 0.0
    right = system.gather(weight, system.magnitude - system.predict(fixed))
    start = None if before is None else before.parameters
    ready = preconditioner(system, gauge, weight)
    parameters, iterations = solve(system, gauge, weight, right, precondition=ready, start=start)
    return Fit(system, gauge, settings, parameters + fixed, weight, (), iterations, 0.0)
