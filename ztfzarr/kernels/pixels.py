"""Arithmetic of single pixels, as ufuncs: one pass over memory, no temporaries, the GIL released by numpy."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

F = "float32"


@numba.vectorize([f"{F}({F}, {F}, {F})"], cache=True)
def linearize(x: np.float32, a: np.float32, b: np.float32) -> np.float32:
    """Return x / (a x^2 + b x + 1)."""
    return x / ((a * x + b) * x + np.float32(1))


@numba.vectorize([f"{F}({F}, {F}, {F}, {F})"], cache=True)
def calibrate(counts: np.float32, bias: np.float32, flat: np.float32, k: np.float32) -> np.float32:
    """Return k (counts - bias) / flat; NaN where the flat is 0, as that of a dead pixel may be once rounded."""
    return k * (counts - bias) / flat if flat != 0 else np.float32(np.nan)


@numba.vectorize([f"{F}({', '.join([F] * 8)})"], cache=True)
def calibrated_variance(
    counts: np.float32,
    bias: np.float32,
    bias_variance: np.float32,
    flat: np.float32,
    flat_variance: np.float32,
    k: np.float32,
    gain: np.float32,
    read_noise: np.float32,
) -> np.float32:
    """Return k^2 [max(D, 0)/gain + (read_noise/gain)^2 + var(bias) + (D/F)^2 var(F)] / F^2, D = counts - bias."""
    if flat == 0:
        return np.float32(np.nan)
    signal = counts - bias
    own = max(signal, np.float32(0)) / gain + (read_noise / gain) ** 2 + bias_variance
    return k * k * (own + (signal / flat) ** 2 * flat_variance) / (flat * flat)


def own_variance(counts: Any, bias: Any, flat: Any, k: Any, gain: Any, read_noise: Any) -> Any:
    """Return :func:`calibrated_variance` of a pixel's own photons and reading, without that of the masters."""
    none = np.float32(0)
    return calibrated_variance(counts, bias, none, flat, none, k, gain, read_noise)


@numba.vectorize([f"uint16({F}, {F}, {F}, {F}, {F})"], cache=True)
def exposure_flags(
    raw: np.float32, level: np.float32, science: np.float32, saturation: np.float32, suspect: np.float32
) -> np.uint16:
    """Return the bits of :mod:`ztfzarr.masters.mask` that a pixel has from its exposure; NaN compares as false."""
    counts = raw - level
    bits = 0
    if counts >= saturation:
        bits |= 1 << 8
    elif counts >= suspect:
        bits |= 1 << 13
    if not np.isfinite(science):
        bits |= 1 << 10
    if np.isnan(raw):
        bits |= 1 << 14
    elif np.isnan(level):
        bits |= 1 << 15
    return np.uint16(bits)
