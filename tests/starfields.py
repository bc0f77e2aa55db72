"""Starflat nights at the level of measurements, fitted, beside their truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ztfzarr.simulate.measurements import Starfield, StarfieldNight, simulate_starfield
from ztfzarr.starflat.fit import Fit, Settings, fit_starflat
from ztfzarr.starflat.measurements import Measurements
from ztfzarr.starflat.nodes import Nodes
from ztfzarr.starflat.plane import Catalogue

FEW = Settings(nodes=(4, 4), resamples=12)


def measurements_of(field: Starfield, *, colours: bool = False) -> Measurements:
    c = field.columns
    names = ("star", "exposure", "rcid", "x", "y", "magnitude", "magnitude_error", "slope")
    return Measurements(*(c[name] for name in names), c["colour"] if colours else None)


def true_nodes(night: StarfieldNight, count: tuple[int, int]) -> np.ndarray:
    """The truth at the nodes, with its constant and plane."""
    nodes = Nodes(night.shape, count)
    u, v = nodes.focal_plane()
    y, x = (np.tile(w.ravel(), 64) for w in np.meshgrid(nodes.y, nodes.x, indexing="ij"))
    rcid = np.repeat(np.arange(64), count[0] * count[1])
    return night.illumination(rcid, x, y, u, v).reshape(64, *count)


def without_plane(values: np.ndarray, count: tuple[int, int]) -> np.ndarray:
    """Take a constant and planes out of values at the nodes, where they are finite."""
    directions = np.stack([np.ones(64 * count[0] * count[1]), *Nodes((3080, 3072), count).focal_plane()], axis=-1)
    flat = values.ravel()
    good = np.isfinite(flat)
    return (flat - directions @ np.linalg.lstsq(directions[good], flat[good])[0]).reshape(values.shape)


def slopes_of(values: np.ndarray, count: tuple[int, int]) -> np.ndarray:
    directions = np.stack([np.ones(64 * count[0] * count[1]), *Nodes((3080, 3072), count).focal_plane()], axis=-1)
    good = np.isfinite(values.ravel())
    return np.linalg.lstsq(directions[good], values.ravel()[good])[0][1:]


def catalogue_of(field: Starfield, *, error: float = 0.02, seed: int = 5) -> Catalogue:
    rng = np.random.default_rng(seed)
    star = np.arange(field.star_magnitude.size)
    return Catalogue(star, field.star_magnitude + rng.normal(0, error, star.size), np.full(star.size, error))


@dataclass(frozen=True)
class Fitted:
    night: StarfieldNight
    field: Starfield
    fit: Fit

    @property
    def count(self) -> tuple[int, int]:
        return self.fit.settings.nodes

    @property
    def truth(self) -> np.ndarray:
        return true_nodes(self.night, self.count)

    def off(self, delta: np.ndarray) -> np.ndarray:
        """What a map at the nodes is off by, but for constant and plane, mag."""
        return without_plane(delta - self.truth, self.count)


@cache
def fitted(settings: Settings = FEW, **night: Any) -> Fitted:
    made = replace(StarfieldNight(stars=6000), **night)
    field = simulate_starfield(made)
    return Fitted(made, field, fit_starflat(measurements_of(field), made.shape, settings))
