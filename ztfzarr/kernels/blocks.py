"""Blocks of an image: medians are what varies slowly, whatever single pixels do; means and flags make it small."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def block_medians(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the median of the finite pixels of each block, (block_y, block_x) float32; NaN of none.

    Parameters
    ----------
    image : (y, x) float32
        Cut into blocks as equal as can be; no pixel is left over.
    height, width : int
        Of a block, about.
    """
    ny, nx = image.shape
    rows, columns = max(round(ny / height), 1), max(round(nx / width), 1)
    out = np.empty((rows, columns), np.float32)
    values = np.empty((ny // rows + 1) * (nx // columns + 1), np.float32)
    for i in range(rows):
        for j in range(columns):
            n = 0
            for y in range(i * ny // rows, (i + 1) * ny // rows):
                for x in range(j * nx // columns, (j + 1) * nx // columns):
                    if np.isfinite(image[y, x]):
                        values[n] = image[y, x]
                        n += 1
            out[i, j] = np.median(values[:n]) if n > 0 else np.nan
    return out


@numba.njit(nogil=True, cache=True)
def block_means(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the mean of the finite pixels of each block of :func:`block_medians`; NaN of none."""
    ny, nx = image.shape
    rows, columns = max(round(ny / height), 1), max(round(nx / width), 1)
    out = np.empty((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            total, n = 0.0, 0
            for y in range(i * ny // rows, (i + 1) * ny // rows):
                for x in range(j * nx // columns, (j + 1) * nx // columns):
                    if np.isfinite(image[y, x]):
                        total += image[y, x]
                        n += 1
            out[i, j] = total / n if n > 0 else np.nan
    return out


@numba.njit(nogil=True, cache=True)
def block_flags(mask: NDArray[np.uint16], height: int, width: int) -> NDArray[np.uint16]:
    """Return the bits that any pixel of each block of :func:`block_medians` has."""
    ny, nx = mask.shape
    rows, columns = max(round(ny / height), 1), max(round(nx / width), 1)
    out = np.zeros((rows, columns), np.uint16)
    for i in range(rows):
        for j in range(columns):
            for y in range(i * ny // rows, (i + 1) * ny // rows):
                for x in range(j * nx // columns, (j + 1) * nx // columns):
                    out[i, j] |= mask[y, x]
    return out


def spread(blocks: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Give each pixel of an image of ``shape`` the value of its block, of :func:`block_medians`."""
    (rows, columns), (ny, nx) = blocks.shape, shape
    heights, widths = np.diff(np.arange(rows + 1) * ny // rows), np.diff(np.arange(columns + 1) * nx // columns)
    return np.repeat(np.repeat(blocks, heights, axis=0), widths, axis=1)
