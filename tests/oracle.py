"""The reductions once more, in plain float64 numpy, written from the physics and from nothing of ztfzarr."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

TABLES = Path(__file__).parents[1] / "ztfzarr" / "tables"
FILTER_OF_LED = {
    2: "zg",
    3: "zg",
    4: "zg",
    5: "zg",
    7: "zr",
    8: "zr",
    9: "zr",
    10: "zr",
    11: "zi",
    12: "zi",
    13: "zi",
}


def level(
    strip: np.ndarray, quadrant: int, columns: tuple[int, int], degree: int = 3, clip: float = 3.0
) -> np.ndarray:
    """Overscan level of each row; columns count from the first read: stored first for q1, q4, last for q2, q3."""
    strip = np.asarray(strip, float)
    read = strip if quadrant in (1, 4) else strip[:, ::-1]
    profile = np.median(read[:, columns[0] : columns[1]], axis=1)
    rows = np.arange(len(profile))
    used = np.ones(len(profile), bool)
    for _ in range(50):
        fit = np.polynomial.Legendre.fit(rows[used], profile[used], degree, domain=[0, len(rows) - 1])(rows)
        residual = profile - fit
        sigma = 1.4826 * np.median(np.abs(residual[used]))
        kept = used & (np.abs(residual) <= clip * sigma)
        if (kept == used).all():
            break
        used = kept
    return fit


def coefficients(day: str, ccd: int, quadrant: int) -> tuple[float, float]:
    """Non-linearity of a quadrant on a UTC day YYYY-MM-DD."""
    table = "201803" if day < "2019-10-23" else "201910" if day < "2020-04-28" else "202004"
    with (TABLES / f"linearity_{table}.csv").open() as file:
        for row in csv.DictReader(file):
            if (int(row["ccd"]), int(row["quadrant"])) == (ccd, quadrant):
                return float(row["a"]), float(row["b"])
    raise AssertionError


def detrended(
    raw: np.ndarray, strip: np.ndarray, day: str, ccd: int, quadrant: int, columns: tuple[int, int]
) -> np.ndarray:
    x = np.asarray(raw, float) - level(strip, quadrant, columns)[:, None]
    a, b = coefficients(day, ccd, quadrant)
    return x / (a * x**2 + b * x + 1)


def combined(
    stack: np.ndarray, gain: float, read_noise: float, relative: float = 0.0, clip: float = 4.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of what the noise model does not reject, its variance, and the count."""
    median = np.median(stack, axis=0)
    sigma2 = np.maximum(median, 0) / gain + (read_noise / gain) ** 2 + (relative * median) ** 2
    kept = np.abs(stack - median) <= clip * np.sqrt(sigma2)
    count = kept.sum(axis=0)
    return np.where(kept, stack, 0).sum(axis=0) / count, sigma2 / count, count


def master_bias(frames: np.ndarray, gain: np.ndarray, read_noise: np.ndarray) -> np.ndarray:
    """Of detrended frames (time, quadrant, y, x) after the settling, (quadrant, y, x)."""
    return np.stack([combined(frames[:, q], gain[q], read_noise[q])[0] for q in range(4)])


def led_flat(
    frames: np.ndarray, bias: np.ndarray, gain: np.ndarray, read_noise: np.ndarray
) -> tuple[np.ndarray, float]:
    """Normalised flat of a LED, (quadrant, y, x), and its CCD-wide median in DN."""
    frames = frames - bias
    medians = np.median(frames.reshape(len(frames), -1), axis=1)
    frames = frames * (medians.mean() / medians)[:, None, None, None]
    combination = np.stack([combined(frames[:, q], gain[q], read_noise[q], 0.005)[0] for q in range(4)])
    return combination / np.median(combination), float(np.median(combination))
