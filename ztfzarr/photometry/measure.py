"""Stars at given positions: windowed positions, apertures, local background, shapes and flags."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.masters.mask import MASKS
from ztfzarr.photometry.columns import FLAGS, MAIN, RADII
from ztfzarr.photometry.detect import Floats, Image, sep_module, without_lost

ANNULUS: Final = (15.0, 25.0)  # pixels
GROWN: Final = 2  # pixels by which stars are masked beyond their detected edges
LEAST: Final = 0.25  # of the annulus
ASTRAY: Final = 2.0  # pixels
STAMP: Final = 7  # pixels on each side, for shapes
WEIGHT: Final = 2.0  # pixels: sigma of the Gaussian weight of shapes
TO_SIGMA: Final = 2.3548

FLAG_OF_MASK: Final = {
    "bad": ("low_response", "high_response", "noisy", "dead", "nan", "hot", "no_data", "no_calibration"),
    "spike": ("spike",),
    "saturated": ("saturated",),
    "suspect": ("suspect",),
}

Columns = dict[str, NDArray[Any]]


def measure(
    science: Image,
    mask: NDArray[np.uint16],
    variance: Image,
    x: Floats,
    y: Floats,
    *,
    stars: NDArray[np.bool_] | None = None,
    annulus: tuple[float, float] = ANNULUS,
) -> Columns:
    """Measure what is at given positions.

    Parameters
    ----------
    science, mask, variance : (y, x)
        Of a quadrant: DN, bits of ``ztfzarr.masters.mask.MASKS``, DN2 with photon noise.
    x, y : (star,)
        Stored pixels, 0-based.
    stars : (y, x) bool, optional
        Pixels with stars, which no background is taken from.
    annulus : (float, float)
        Radii of the local background, pixels.

    Returns
    -------
    dict of (star,)
        ``flux_3`` … ``flux_12`` and their errors, ``background``, ``background_error``, ``fwhm``, and the
        ``flags`` that pixels and edges give.

    Notes
    -----
    flux = sum of pixels - area x background; its variance is the sum of the variances and, of the background,
    area^2 x that of the annulus's mean. Apertures are exact circles.
    """
    data, lost = without_lost(science, mask)
    noise, _ = without_lost(variance, np.where(np.isfinite(variance), mask, MASKS["nan"]).astype(np.uint16))
    found = _background(data, noise, lost, x, y, stars, annulus)
    for radius in RADII:
        total, power, area = (_sum(image, x, y, float(radius)) for image in (data, noise, None))
        found[f"flux_{radius}"] = total - area * found["background"]
        found[f"flux_error_{radius}"] = np.sqrt(power + (area * found["background_error"]) ** 2)
    found["fwhm"] = _fwhm(data, x, y, found["background"])
    found["flags"] = found["flags"] | _flags(mask, x, y)
    return found


def _sum(image: Image | None, x: Floats, y: Floats, radius: float) -> Any:
    """Sum circles exactly; without an image, return their area."""
    if image is None:
        return np.full(x.shape, np.pi * radius**2)
    return sep_module().sum_circle(image, x, y, radius, subpix=0)[0]


def _background(
    data: Image, noise: Image, lost: NDArray[np.bool_], x: Floats, y: Floats,
    stars: NDArray[np.bool_] | None, annulus: tuple[float, float],
) -> Columns:  # fmt: skip
    """Average the pixels of the annulus that are sky."""
    sky = ~lost if stars is None else ~(lost | grown(stars))
    ring = (*annulus,)
    whole = np.pi * (annulus[1] ** 2 - annulus[0] ** 2)
    images = (np.where(sky, image, 0).astype(np.float32) for image in (data, noise))
    total, power, area = (
        sep_module().sum_circann(image, x, y, *ring, subpix=0)[0] for image in (*images, sky.astype(np.float32))
    )
    enough = area > LEAST * whole
    safe = np.maximum(area, 1)
    general = float(np.median(data[sky])) if sky.any() else np.nan
    return {
        "background": np.where(area >= 1, total / safe, general),
        "background_error": np.where(area >= 1, np.sqrt(power) / safe, np.nan),
        "flags": np.where(enough, 0, FLAGS["background"]).astype(np.uint16),
    }


def grown(stars: NDArray[np.bool_], pixels: int = GROWN) -> NDArray[np.bool_]:
    """Extend the pixels of stars along rows, then along columns."""
    wide = stars
    for axis in (0, 1):
        found = wide.copy()
        for step in range(1, pixels + 1):
            ahead, behind = (np.roll(wide, s, axis) for s in (step, -step))
            edge: list[Any] = [slice(None)] * 2
            edge[axis] = slice(0, step)
            ahead[tuple(edge)] = False
            edge[axis] = slice(-step, None)
            behind[tuple(edge)] = False
            found |= ahead | behind
        wide = found
    return wide


def _flags(mask: NDArray[np.uint16], x: Floats, y: Floats) -> NDArray[np.uint16]:
    """Say what the main aperture meets: bits of the mask, and the edges of the quadrant."""
    height, width = mask.shape
    inside = (x >= MAIN - 0.5) & (y >= MAIN - 0.5) & (x <= width - 0.5 - MAIN) & (y <= height - 0.5 - MAIN)
    flags = np.where(inside, 0, FLAGS["edge"]).astype(np.uint16)
    for name, bits in FLAG_OF_MASK.items():
        hit = (mask & sum(MASKS[bit] for bit in bits)) != 0
        if hit.any():
            meets = _sum(hit.astype(np.float32), x, y, float(MAIN)) > 0
            flags |= np.where(meets, FLAGS[name], 0).astype(np.uint16)
    return flags


def _fwhm(data: Image, x: Floats, y: Floats, background: Floats) -> Floats:
    """Return twice the radius of half of the light, which of a Gaussian is the full width at half maximum."""
    level = np.float32(np.nanmedian(background)) if background.size else np.float32(0)
    limits = np.full(x.shape, float(MAIN))
    radius, flag = sep_module().flux_radius(data - level, x, y, limits, 0.5, subpix=5)
    return np.where(np.asarray(flag) == 0, 2 * np.asarray(radius), np.nan)


def windowed(
    data: Image, noise: Image, x: Floats, y: Floats, fwhm: float
) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.uint16]]:
    """Refine positions under a Gaussian window.

    Parameters
    ----------
    data, noise : (y, x)
        DN above the sky; DN2.
    x, y : (star,)
        First guess, pixels.
    fwhm : float
        Of stars, pixels.

    Returns
    -------
    x, y, x_error, y_error : (star,) float64, pixels
    flags : (star,) uint16
        Bit ``position`` where the window wandered off.

    Notes
    -----
    SExtractor's XWIN_IMAGE and its error, 4 sum(w^2 var dx^2) / sum(w I)^2.
    """
    sigma = fwhm / TO_SIGMA
    wx, wy, flag = sep_module().winpos(data, x, y, sigma)
    astray = (np.hypot(wx - x, wy - y) > ASTRAY) | ~np.isfinite(wx + wy) | (np.asarray(flag) != 0)
    x, y = np.where(astray, x, wx), np.where(astray, y, wy)
    light, dx, dy = stamps(data, x, y)
    power, _, _ = stamps(noise, x, y)
    weight = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    total = (weight * light).sum((1, 2))
    errors = (2 * np.sqrt((weight**2 * power * d**2).sum((1, 2))) / np.abs(total) for d in (dx, dy))
    return x, y, *errors, np.where(astray, FLAGS["position"], 0).astype(np.uint16)


def stamps(image: Image, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Cut squares about positions: pixels (star, dy, dx), 0 beyond the edges, and their offsets along x and y."""
    step = np.arange(-STAMP, STAMP + 1)
    column = np.rint(x).astype(np.int64)[:, None, None] + step
    row = np.rint(y).astype(np.int64)[:, None, None] + step[:, None]
    inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
    cut = image[np.clip(row, 0, image.shape[0] - 1), np.clip(column, 0, image.shape[1] - 1)]
    return np.where(inside, cut, 0).astype(np.float64), column - x[:, None, None], row - y[:, None, None]


def skewness(data: Image, x: Floats, y: Floats) -> Floats:
    """Return the third central moment along x over the second to the power 3/2, (star,), under a weight.

    Parameters
    ----------
    data : (y, x)
        DN above the sky.
    x, y : (star,)
        Windowed positions, pixels.
    """
    light, dx, dy = stamps(data, x, y)
    weighted = light * np.exp(-(dx**2 + dy**2) / (2 * WEIGHT**2))
    second, third = ((weighted * dx**n).sum((1, 2)) / weighted.sum((1, 2)) for n in (2, 3))
    return np.where(second > 0, third / np.where(second > 0, second, 1) ** 1.5, np.nan)
