"""Stars through pockets: how skew they are, and what apertures lose; measured by :mod:`pocket`, drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ztfzarr import tables
from ztfzarr.kernels.pocket import Pocket, deferred
from ztfzarr.kernels.pocket_correction import correct, lookup
from ztfzarr.simulate.scene import Stars, made_sky

Image = NDArray[np.float32]

GAIN, READ_NOISE = 5.6, 1.6  # e-/DN, DN
WEIGHT = 1.5  # pixels: sigma of the Gaussian weight of the moments, that of a star 3.5 pixels wide
HALF = 7  # of a stamp
RADIUS = 3.0  # pixels, of apertures
SPACING = 40  # pixels between simulated stars
SKIES = (50.0, 200.0, 800.0)
FLUXES = np.geomspace(500, 5e5, 13)  # the brightest stay below 55 kDN


def pocket_of(ccd: int, quadrant: int) -> Pocket:
    table = tables.pocket()
    return Pocket(*(float(table[name][ccd - 1, quadrant - 1]) for name in Pocket._fields))


def noisy(rng: np.random.Generator, true: Image, pocket: Pocket) -> tuple[Image, Image]:
    """The same light and noise without a pocket and through it."""
    light = (rng.poisson(true * GAIN) / GAIN).astype(np.float32)
    noise = rng.normal(0, READ_NOISE, true.shape).astype(np.float32)
    return light + noise, deferred(light, 30, pocket)[0] + noise


def corrected(image: Image, pocket: Pocket, *, backward: bool = False) -> Image:
    out = np.empty_like(image)
    correct(image, lookup(pocket), backward, out)
    return out


def stamps_at(image: Image, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """Stamps about pixels, less the median of their surroundings."""
    wide = np.arange(-2 * HALF, 2 * HALF + 1)
    cut = image[y[:, None, None] + wide[:, None], x[:, None, None] + wide].astype(np.float64)
    around = np.abs(wide) > HALF + 2
    sky = np.median(cut[:, around[:, None] | around], axis=1)
    return cut[:, HALF:-HALF, HALF:-HALF] - sky[:, None, None]


def skewness(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second and third central moment of each star along x, (star, 2), under a Gaussian weight that follows it."""
    grid = np.arange(-HALF, HALF + 1.0)
    centre = np.zeros((2, len(stamps), 1, 1))
    for _ in range(30):
        dy, dx = grid[:, None] - centre[0], grid - centre[1]
        weighted = stamps * np.exp(-(dx**2 + dy**2) / (2 * WEIGHT**2))
        flux = weighted.sum((1, 2), keepdims=True)
        centre += 2 * np.stack([(weighted * d).sum((1, 2), keepdims=True) for d in (dy, dx)]) / flux
        centre = np.clip(centre, -3, 3)
    dx = grid - centre[1]
    return np.stack([(weighted * dx**n).sum((1, 2)) / flux[:, 0, 0] for n in (2, 3)], axis=1)


def typical_skewness(moments: NDArray[np.float64]) -> float:
    second, third = np.median(moments[np.isfinite(moments).all(axis=1)], axis=0)
    return float(third / second**1.5)


def isolated_stars(image: Image) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Peaks below saturation with none as bright within 20 pixels: row, column, flux within 5 pixels."""
    coarse = ndimage.median_filter(image[::8, ::8], 15)
    above = image - np.kron(coarse, np.ones((8, 8), np.float32))[: image.shape[0], : image.shape[1]]
    smooth = ndimage.gaussian_filter(above, 1.0)
    peak = (smooth == ndimage.maximum_filter(smooth, 41)) & (smooth > 8) & (image < 40_000)
    peak[:20], peak[-20:], peak[:, :20], peak[:, -20:] = False, False, False, False
    y, x = np.nonzero(peak)
    disk = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
    flux = np.array([above[j - 5 : j + 6, i - 5 : i + 6][disk].sum() for j, i in zip(y, x, strict=True)])
    return y, x, flux


def sky_noise(image: Image) -> tuple[float, float]:
    """Sigma (1.4826 MAD) and correlation of neighbours of the pixels within 3 sigma."""
    rest = image[100:-100, 100:-100] - np.median(image)
    sigma = 1.4826 * float(np.median(np.abs(rest)))
    near = np.abs(rest) < 3 * sigma
    both = near[:, 1:] & near[:, :-1]
    return sigma, float((rest[:, 1:] * rest[:, :-1])[both].mean() / (rest[near] ** 2).mean())


def measured(flux: float, sky: float, pocket: Pocket) -> dict[str, tuple[float, float]]:
    """Skewness of stars on a grid, and magnitudes that apertures of 3 pixels are off, before and after."""
    side = 32 * SPACING
    rng = np.random.default_rng(round(flux + sky))
    grid = np.arange(SPACING // 2, side, SPACING)
    y, x = (part.ravel() for part in np.meshgrid(grid, grid, indexing="ij"))
    place = [(part + rng.uniform(-0.5, 0.5, part.size)).astype(np.float32) for part in (x, y)]
    stars = Stars(*place, np.full((3, x.size), flux, np.float32))
    true, image = noisy(rng, made_sky(stars, "zg", np.full((side, side), sky, np.float32), (0, 0)), pocket)
    wanted = _apertures(true, *place)
    return {
        name: (
            typical_skewness(skewness(stamps_at(picture, y, x))),
            -2.5 * np.log10(1 + (_apertures(picture, *place) - wanted).mean() / wanted.mean()),
        )
        for name, picture in {"before": image, "after": corrected(image, pocket)}.items()
    }


def _apertures(image: Image, x: Image, y: Image) -> NDArray[np.float64]:
    """Sums about true positions, less the median of their surroundings."""
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    grid = np.arange(-HALF, HALF + 1)
    off = np.hypot(grid[:, None] + (row - y)[:, None, None], grid + (column - x)[:, None, None])
    return (stamps_at(image, row, column) * np.clip(RADIUS + 0.5 - off, 0, 1)).sum((1, 2))


def draw(path: Path, pockets: dict[str, Pocket]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    print("| skewness / mmag |", " | ".join(f"{flux:,.0f} DN" for flux in FLUXES[::3]), "|")
    print("|---|" + "---|" * len(FLUXES[::3]))
    figure, panels = plt.subplots(2, len(pockets), figsize=(10, 7), sharex=True, sharey="row", squeeze=False)
    for column, (title, pocket) in enumerate(pockets.items()):
        for i, sky in enumerate(SKIES):
            rows = [measured(flux, sky, pocket) for flux in FLUXES]
            _print(f"{title}, {sky:.0f} DN", rows)
            for name, style in {"before": "--", "after": "-"}.items():
                curves = np.array([row[name] for row in rows]).T
                for panel, curve in zip(panels[:, column], (curves[0], 1e3 * curves[1]), strict=True):
                    panel.plot(FLUXES, curve, style, color=f"C{i}", label=f"sky {sky:.0f} DN, {name}")
        panels[0, column].set(title=title, xscale="log")
        panels[1, column].set(xlabel="flux of the star (DN)")
    panels[0, 0].set(ylabel="skewness along x")
    panels[1, 0].set(ylabel=f"magnitudes off in {RADIUS:.0f} px apertures (mmag)")
    for panel in panels.flat:
        panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    panels[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _print(title: str, rows: list[dict[str, tuple[float, float]]]) -> None:
    """Print skewness / mmag of every third flux."""
    for name in ("before", "after"):
        cells = [f"{row[name][0]:.3f} / {1e3 * row[name][1]:.1f}" for row in rows[::3]]
        print("|", " | ".join([f"{title}, {name}", *cells]), "|")
