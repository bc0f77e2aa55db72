"""The plane of a starflat, which dithers cannot see: from magnitudes of a catalogue, or undetermined.

A plane in u and v added to the map is taken up by the magnitudes of the stars and the zero points, exactly where
dithers are shifts. So the fit holds it at zero, and it shows as a tilt of the fitted magnitudes against those of a
catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.starflat.errors import extinction_error
from ztfzarr.starflat.fit import Fit, star_means
from ztfzarr.starflat.solve import solve
from ztfzarr.starflat.system import new_gauge

Floats = NDArray[np.float64]

FEWEST: Final = 10  # stars of a catalogue
CLIP: Final = 4.0  # sigma: variable stars, and other stars
ROUNDS: Final = 10


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Magnitudes of stars, of the filter or near it: ``star`` labels, ``magnitude`` and ``error``, mag.

    ``colour``, mag, if the catalogue's filter differs: magnitudes may then differ in proportion to it.
    """

    star: NDArray[np.int64]
    magnitude: Floats
    error: Floats
    colour: Floats | None = None


@dataclass(frozen=True, eq=False)
class Plane:
    """Slopes of the map in u and v, mag a degree, with their covariance (2, 2); NaN undetermined.

    ``fit`` has them in its map, zero points and extinction. ``stars`` of the catalogue were used, ``chi2`` is
    theirs by degree of freedom before the errors were scaled by it.
    """

    slopes: Floats
    covariance: Floats
    fit: Fit
    stars: int
    chi2: float

    @property
    def determined(self) -> bool:
        """Whether a catalogue has fixed it."""
        return bool(np.isfinite(self.slopes).all())


def undetermined(fit: Fit) -> Plane:
    """Return the plane of a fit without a catalogue."""
    return Plane(np.full(2, np.nan), np.full((2, 2), np.nan), fit, 0, float("nan"))


@dataclass(frozen=True, eq=False)
class Absorbed:
    """What stars (star, direction) and zero points (exposure, direction) take up of u, v and k's airmass.

    ``extinction_error`` is how well the fit knows k, mag an airmass: two thirds of the errors' time, were it asked
    anew of each fit without some exposures.
    """

    stars: Floats
    zero: Floats
    extinction_error: float


def absorbed(fit: Fit) -> Absorbed:
    """Find what the stars and zero points take up of each direction that the map or k may be wrong by."""
    system = fit.system
    exposed = np.bincount(system.exposure, fit.weight, system.exposures.size) > 0
    gauge = new_gauge(system, np.zeros(system.nodes.total, bool), exposed, fit_extinction=False)
    stars, zero = [], []
    for direction in _directions(fit):
        value = system.predict(direction)
        found, _ = solve(system, gauge, fit.weight, system.gather(fit.weight, value))
        stars.append(star_means(system, fit.weight, value - system.predict(found))[0])
        zero.append(found[system.zero])
    return Absorbed(np.stack(stars, axis=-1), np.stack(zero, axis=-1), extinction_error(fit))


def _directions(fit: Fit) -> list[Floats]:
    """Return planes in u and v over the determined nodes, without their mean, and k."""
    n = fit.system.nodes.total
    free, result = fit.gauge.free[:n], []
    for value in fit.system.nodes.focal_plane():
        direction = np.zeros(fit.system.size)
        direction[:n] = np.where(free, value - value[free].mean(), 0.0)
        result.append(direction)
    airmass = np.zeros(fit.system.size)
    airmass[-1] = 1
    return [*result, airmass]


def fix_plane(fit: Fit, catalogue: Catalogue, taken: Absorbed | None = None) -> Plane:
    """Fix the plane by a catalogue.

    Parameters
    ----------
    fit : Fit
        In the gauge.
    catalogue : Catalogue
        Stars that the fit does not know are left out.
    taken : Absorbed, optional
        From :func:`absorbed`, of this fit or of one of nearly the same measurements.

    Returns
    -------
    Plane
        Undetermined with fewer than :data:`FEWEST` stars.

    Notes
    -----
    m_fit - m_cat = C + b T_u + c T_v + (k_true - k) T_k [+ a colour]: T is what each star takes up of a direction,
    and k is known as well as the fit knows it, no better. Errors are the catalogue's and those of the stars'
    photons, scaled up by the scatter if that is larger.
    """
    taken = taken or absorbed(fit)
    system = fit.system
    mean, weight = star_means(system, fit.weight, system.magnitude - system.predict(fit.parameters))
    known, mine, theirs = np.intersect1d(system.stars, catalogue.star, return_indices=True)
    good = (weight[mine] > 0) & np.isfinite(catalogue.magnitude[theirs]) & (catalogue.error[theirs] >= 0)
    mine, theirs = mine[good], theirs[good]
    if known.size < FEWEST or mine.size < FEWEST:
        return undetermined(fit)
    columns = [np.ones(mine.size), *taken.stars[mine].T]
    if catalogue.colour is not None:
        columns.append(np.nan_to_num(catalogue.colour[theirs] - np.nanmean(catalogue.colour[theirs])))
    variance = catalogue.error[theirs] ** 2 + 1 / weight[mine]
    off = mean[mine] - catalogue.magnitude[theirs]
    found, covariance, used, chi2 = _regressed(np.stack(columns, axis=-1), off, variance, taken.extinction_error)
    tilted = _tilted(fit, found[1:4], taken)
    return Plane(found[1:3], covariance[1:3, 1:3], tilted, used, chi2)


def _regressed(columns: Floats, off: Floats, variance: Floats, error: float) -> tuple[Floats, Floats, int, float]:
    """Regress, with k's own error as its prior, and without what is far off."""
    prior = np.zeros(columns.shape[1])
    prior[3] = 1 / max(error, 1e-6) ** 2
    scale = 1.0
    used = np.abs(off - np.median(off)) < CLIP * np.sqrt(variance + _spread(off) ** 2)
    for _ in range(ROUNDS):
        w = used / variance / scale
        normal = (columns * w[:, np.newaxis]).T @ columns + np.diag(prior)
        covariance = np.asarray(np.linalg.inv(normal), np.float64)
        found = covariance @ (columns.T @ (w * off))
        pull = (off - columns @ found) / np.sqrt(variance)
        chi2 = float((pull[used] ** 2).sum() / max(used.sum() - len(found), 1))
        scale, before = max(chi2, 1.0), used
        used = np.abs(pull) < CLIP * np.sqrt(scale)
        if np.array_equal(used, before):
            break
    return found, covariance, int(used.sum()), chi2


def _spread(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _tilted(fit: Fit, amounts: Floats, taken: Absorbed) -> Fit:
    """Add planes and extinction to the parameters, and take them out of the zero points."""
    parameters = fit.parameters.copy()
    for amount, direction in zip(amounts, _directions(fit), strict=True):
        parameters += amount * direction
    parameters[fit.system.zero] -= taken.zero @ amounts
    return replace(fit, parameters=parameters)
