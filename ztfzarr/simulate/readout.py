"""From light to the numbers the camera writes: one function an effect, in the order in which they happen.

Arrays are in stored orientation; what depends on the order of reading goes through
:func:`ztfzarr.geometry.in_read_order`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import in_read_order
from ztfzarr.kernels.pocket import Pocket, deferred

GLOW_LENGTH: Final = 100.0  # columns over which the side glow falls by e: 5 % after 300
GAUSSIAN: Final = 50.0  # electrons from which Poisson noise is drawn as Gaussian
ADC_LIMIT: Final = 65535.0  # DN

# Cosmic rays: tracks of exponentially distributed length (pixels), 800 electrons or so every half pixel.
TRACK_LENGTH, TRACK_STEPS, TRACK_CHARGE = 6.0, 64, 800.0
LAST_COLUMNS: Final = 8  # read last; their charge trails into the overscan

Image = NDArray[np.float32]


def side_glow(rate: float, seconds: float, width: int, quadrant: int) -> Image:
    """Return the glow of the read side of a quadrant, (1, x), DN: exponential from the first-read column.

    Parameters
    ----------
    rate : float
        DN/s in the first-read column.
    seconds : float
        Exposure time.
    width, quadrant : int
        Columns; 1-4.
    """
    glow = np.exp(-np.arange(width, dtype=np.float32) / np.float32(GLOW_LENGTH))
    return in_read_order(np.float32(rate * seconds) * glow[np.newaxis], quadrant)


def shot_noise(signal: Image, gain: float, rng: np.random.Generator) -> Image:
    """Return a signal with its photon noise, drawn in electrons.

    Parameters
    ----------
    signal : float32, DN
        Not negative.
    gain : float
        electron/DN.
    rng : Generator
        Where the noise comes from.

    Returns
    -------
    float32, DN
    """
    electrons = signal * np.float32(gain)
    noisy: Image = electrons + np.sqrt(electrons) * rng.standard_normal(electrons.shape, np.float32)
    few = (electrons > 0) & (electrons < GAUSSIAN)
    noisy[few] = rng.poisson(electrons[few])
    noisy /= np.float32(gain)
    return noisy


def cosmic_rays(
    count: int, shape: tuple[int, int], gain: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], Image]:
    """Draw straight tracks across a quadrant.

    Parameters
    ----------
    count : int
        Tracks.
    shape : (int, int)
        Rows, columns.
    gain : float
        electron/DN.
    rng : Generator
        Where the tracks come from.

    Returns
    -------
    pixel : (n,) int
        Flat index of each deposit; a pixel may come several times.
    charge : (n,) float32
        DN.
    """
    start = rng.uniform(0, 1, (2, count, 1)) * np.reshape(shape, (2, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (count, 1))
    reach = 0.5 * np.arange(TRACK_STEPS)
    y, x = np.floor(start + reach * np.stack([np.sin(angle), np.cos(angle)])).astype(np.intp)
    charge = rng.lognormal(np.log(TRACK_CHARGE), 0.5, (count, TRACK_STEPS)) / gain
    hit = reach < rng.exponential(TRACK_LENGTH, (count, 1)) + 0.5
    hit &= (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return (y * shape[1] + x)[hit], charge[hit].astype(np.float32)


def measured(signal: Image, a: float, b: float) -> Image:
    """Return the DN an amplifier gives for a true signal x / (a x^2 + b x + 1): the x of that signal.

    Parameters
    ----------
    signal : float32, DN
        True.
    a, b : float
        DN^-2 and DN^-1.

    Notes
    -----
    The root that is ``signal`` for a = b = 0, in the form that loses no digits: 2 t / (s + sqrt(s^2 -
    4 a t^2)), s = 1 - b t.
    """
    s = 1 - np.float32(b) * signal
    x: Image = 2 * signal / (s + np.sqrt(s * s - np.float32(4 * a) * signal * signal))
    return x


def row_drift(coefficients: Image, rows: int, quadrant: int) -> Image:
    """Return the level of each row relative to the first read, (y, 1), DN.

    Parameters
    ----------
    coefficients : (power,)
        DN; of the fraction of rows read to the power 1, 2, ...
    rows, quadrant : int
        Rows; 1-4.
    """
    fraction = np.arange(rows) / rows
    drift = sum(c * fraction ** (i + 1) for i, c in enumerate(coefficients))
    return in_read_order(np.asarray(drift, np.float32)[:, np.newaxis], quadrant)


def settling_shape(amplitude: float, shape: tuple[int, int], quadrant: int) -> Image:
    """Return what an unsettled bias has above its overscan, (y, x), DN.

    Parameters
    ----------
    amplitude : float
        DN in the first-read corner, from which it falls along rows and columns.
    shape : (int, int)
        Rows, columns.
    quadrant : int
        1-4.
    """
    rows = np.exp(-np.arange(shape[0]) / (0.4 * shape[0]))
    columns = 0.5 + np.exp(-np.arange(shape[1]) / (0.25 * shape[1]))
    corner = np.outer(amplitude / 1.5 * rows, columns).astype(np.float32)
    return in_read_order(corner, quadrant)


def deferred_charge(charge: Image, fraction: float, length: float, columns: int, quadrant: int) -> Image:
    """Return the trail that the last-read pixels of each row leave in its overscan, (y, columns), DN.

    Parameters
    ----------
    charge : (y, x) float32, DN
        Of the quadrant.
    fraction : float
        Of the mean of the last-read columns that appears in the first overscan column.
    length : float
        Columns over which the trail falls by e.
    columns, quadrant : int
        Overscan columns; 1-4.
    """
    last = in_read_order(charge, quadrant)[:, -LAST_COLUMNS:].mean(axis=1)
    decay = fraction * np.exp(-np.arange(columns) / length)
    return in_read_order(np.outer(last, decay).astype(np.float32), quadrant)


def pocket_effect(charge: Image, pocket: Pocket, columns: int, quadrant: int) -> tuple[Image, Image]:
    """Read a quadrant through the pocket of its serial register.

    Parameters
    ----------
    charge : (y, x) float32, DN
        Of the quadrant.
    pocket : Pocket
        Of the quadrant.
    columns, quadrant : int
        Overscan columns; 1-4.

    Returns
    -------
    image : (y, x) float32, DN
        What is left of each pixel and what came into it from those before.
    trail : (y, columns) float32, DN
        What comes out of the pocket in the overscan.
    """
    image, trail = deferred(in_read_order(charge, quadrant), columns, pocket)
    return in_read_order(image, quadrant), in_read_order(trail, quadrant)


def digitise(level: Image, read_noise: float, rng: np.random.Generator) -> Image:
    """Add read noise and stop at the converter's largest number.

    Parameters
    ----------
    level : float32, DN
        What reaches the amplifier.
    read_noise : float
        DN.
    rng : Generator
        Where the noise comes from.
    """
    noise = np.float32(read_noise) * rng.standard_normal(level.shape, np.float32)
    return np.minimum(level + noise, np.float32(ADC_LIMIT))
