"""Quadrants with known stars, without camera or files: what photometry is judged by."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ztfzarr.photometry.pixels import Pixels, prepare
from ztfzarr.simulate.scene import with_stars

GAIN, READ_NOISE = 5.6, 1.6  # e-/DN, DN


def field(
    flux: float | np.ndarray, sky: float, *, shape: tuple[int, int] = (840, 840), step: int = 60, seed: int = 1
) -> SimpleNamespace:
    """Stars of given fluxes on a grid, each anywhere within a pixel; ``light`` is them alone, without noise."""
    rng = np.random.default_rng(seed)
    y, x = (axis.ravel() for axis in np.mgrid[step // 2 : shape[0] : step, step // 2 : shape[1] : step])
    x, y = (axis + rng.uniform(-0.5, 0.5, axis.size) for axis in (x, y))
    flux = np.broadcast_to(np.asarray(flux, float), x.shape)
    light = with_stars(np.zeros(shape, np.float32), x, y, flux)
    return SimpleNamespace(x=x, y=y, flux=flux, light=light, sky=sky, rng=rng)


def images(one: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An exposure of a field: science with photon and read noise, an empty mask, its variance as predicted."""
    counts = one.rng.poisson((one.light + one.sky) * GAIN) / GAIN + one.rng.normal(0, READ_NOISE, one.light.shape)
    variance = np.maximum(counts, 0) / GAIN + READ_NOISE**2
    return counts.astype(np.float32), np.zeros(counts.shape, np.uint16), variance.astype(np.float32)


def without_noise(one: SimpleNamespace) -> Pixels:
    """The light alone: apertures on it are what noisy ones must find."""
    return prepare(one.light, np.zeros(one.light.shape, np.uint16), np.ones(one.light.shape, np.float32))
