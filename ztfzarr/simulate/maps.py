"""Fixed patterns of a quadrant: bias structure, pixel response, bad columns."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import in_read_order

GOOD, LOW, DEAD, HOT = range(4)
MODES: Final = 6


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], rms: float) -> NDArray[np.float32]:
    """Draw a map that varies over a good part of its width: a few plane waves of up to two periods.

    A sum of outer products by einsum, not by BLAS, whose result may depend on its number of threads.
    """
    cycles = rng.uniform(0.3, 2.0, (2, MODES, 1)) * rng.choice([-1, 1], (2, MODES, 1))
    phase = rng.uniform(0, 2 * np.pi, (MODES, 1))
    along_y = (2 * np.pi * cycles[0] * np.linspace(0, 1, shape[0]) + phase).astype(np.float32)
    along_x = (2 * np.pi * cycles[1] * np.linspace(0, 1, shape[1])).astype(np.float32)
    rows = np.concatenate([np.cos(along_y), -np.sin(along_y)]) * np.float32(rms * np.sqrt(2 / MODES))
    columns = np.concatenate([np.cos(along_x), np.sin(along_x)])
    field: NDArray[np.float32] = np.einsum("ky,kx->yx", rows, columns)
    return field


def bias_structure(rng: np.random.Generator, shape: tuple[int, int], quadrant: int) -> NDArray[np.float32]:
    """Draw what a settled bias frame shows above its overscan, DN.

    Notes
    -----
    A smooth field (0.5 DN rms), steps from column to column (0.2) and pixel to pixel (0.15), and a rise
    of 2-4 DN towards the first-read columns.
    """
    structure = smooth_field(rng, shape, 0.5)
    structure += rng.normal(0, 0.2, shape[1]).astype(np.float32)
    structure += np.float32(0.15) * rng.standard_normal(shape, np.float32)
    first_columns = rng.uniform(2, 4) * np.exp(-np.arange(shape[1]) / 20)
    in_read_order(structure, quadrant)[...] += first_columns.astype(np.float32)
    return structure


def bad_columns(rng: np.random.Generator, width: int) -> NDArray[np.uint8]:
    """Choose the bad columns of a quadrant: two of low response, one dead, one hot.

    Returns
    -------
    (x,) uint8
        GOOD 0, LOW 1, DEAD 2, HOT 3.
    """
    bad = np.full(width, GOOD, np.uint8)
    bad[rng.choice(width, 4, replace=False)] = (LOW, LOW, DEAD, HOT)
    return bad


def response(rng: np.random.Generator, shape: tuple[int, int], bad: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Draw the relative response of each pixel: 1 ± 1 % smooth ± 0.8 % a pixel, bad columns less."""
    pixels = 1 + smooth_field(rng, shape, 0.01)
    pixels += np.float32(0.008) * rng.standard_normal(shape, np.float32)
    pixels[:, bad == LOW] *= rng.uniform(0.3, 0.7, np.count_nonzero(bad == LOW)).astype(np.float32)
    pixels[:, bad == DEAD] = 0
    return pixels


def dark_current(rng: np.random.Generator, bad: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Draw the dark current of each column, DN/s: only hot columns have any."""
    return np.where(bad == HOT, rng.uniform(5, 30, bad.size), 0).astype(np.float32)
