"""Which values get which colours."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Limits = tuple[float, float]

CONTRAST: Final = 0.25  # of zscale, as IRAF and DS9 have it
SAMPLES: Final = 20_000


def zscale(values: NDArray[Any]) -> Limits:
    """Return the lowest and highest value to tell apart, by the zscale of IRAF and DS9; NaN has no say."""
    from astropy.visualization import ZScaleInterval

    finite = _finite(values)
    low, high = ZScaleInterval(n_samples=SAMPLES, contrast=CONTRAST).get_limits(finite)
    return _apart(float(low), float(high))


def percentile(values: NDArray[Any], share: float = 99.0) -> Limits:
    """Return the limits between which ``share`` per cent of the finite values are."""
    from astropy.visualization import PercentileInterval

    low, high = PercentileInterval(share).get_limits(_finite(values))
    return _apart(float(low), float(high))


def symmetric(values: NDArray[Any], share: float = 99.0) -> Limits:
    """Return limits about 0 between which ``share`` per cent of the finite values are."""
    high = float(np.percentile(np.abs(_finite(values)), share))
    return _apart(-high, high)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    finite = np.asarray(values)[np.isfinite(values)]
    return finite if finite.size else np.zeros(1)


def _apart(low: float, high: float) -> Limits:
    """Keep limits apart where all values are one."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
