"""Figures of the pocket effect: noise, level, rate, overscan, fit; stars in simulation and in a real quadrant.

    python benchmarks/pocket.py [--real FITS CCD QUADRANT] [--figure docs/pocket.png]

``--real`` takes a science quadrant of IPAC's (``ztf_…_c13_o_q3_sciimg.fits``), which still has the effect. The
figure needs ``pip install "ztfzarr[figures]"``. Prints Markdown; docs/pocket.md holds a run.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage

from ztfzarr import tables
from ztfzarr.geometry import CCDS, FIRST_READ_COLUMN_LAST, QUADRANTS
from ztfzarr.kernels.pocket import Pocket, deferred, restored
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", nargs=3, metavar=("FITS", "CCD", "QUADRANT"), help="science quadrant of IPAC's")
    parser.add_argument("--figure", type=Path, help="where to draw simulated stars, as PNG")
    arguments = parser.parse_args()
    report_noise()
    report_lookup()
    if arguments.real:
        path, ccd, quadrant = arguments.real
        report_real(Path(path), int(ccd), int(quadrant))
    if arguments.figure:
        draw(arguments.figure, {"CCD 6 q1": pocket_of(6, 1), "CCD 13 q3": pocket_of(13, 3)})


def pocket_of(ccd: int, quadrant: int) -> Pocket:
    table = tables.pocket()
    return Pocket(*(float(table[name][ccd - 1, quadrant - 1]) for name in Pocket._fields))


POCKETS = [pocket_of(ccd, q) for ccd in CCDS for q in QUADRANTS]


def noisy(rng: np.random.Generator, true: Image, pocket: Pocket) -> tuple[Image, Image]:
    """The same light and noise without a pocket and through it."""
    light = (rng.poisson(true * GAIN) / GAIN).astype(np.float32)
    noise = rng.normal(0, READ_NOISE, true.shape).astype(np.float32)
    return light + noise, deferred(light, 30, pocket)[0] + noise


def corrected(image: Image, pocket: Pocket, *, backward: bool = False) -> Image:
    out = np.empty_like(image)
    correct(image, lookup(pocket), backward, out)
    return out


def lag_one(image: Image) -> float:
    rest = image - image.mean()
    return float((rest[:, 1:] * rest[:, :-1]).mean() / rest.var())


# Sky


def report_noise() -> None:
    """Even sky through all 64 pockets: the worst of them."""
    print(
        "| sky DN | sigma after/before, median | worst | exact inverse, worst | level bias DN | lag 1 | Mpix/s |"
    )
    print("|---|---|---|---|---|---|---|")
    for sky in (20, 50, 100, 200, 500, 1000, 38_000):
        rows = np.array([_even_sky(sky, pocket) for pocket in POCKETS])
        median, worst = np.median(rows, axis=0), np.abs(rows).max(axis=0)
        cells = (f"{median[0]:.4f}", f"{worst[0]:.4f}", f"{worst[1]:.2f}", f"{worst[2]:.4f}", f"{worst[3]:.4f}")
        print("|", " | ".join((f"{sky:,}", *cells, f"{1 / median[4]:.0f}")), "|")
    print()


def _even_sky(sky: float, pocket: Pocket) -> tuple[float, float, float, float, float]:
    true, image = noisy(np.random.default_rng(1), np.full((300, 3072), sky, np.float32), pocket)
    corrected(image[:2].copy(), pocket)
    start = time.perf_counter()
    after = corrected(image, pocket)
    seconds = (time.perf_counter() - start) / image.size * 1e6
    exact = restored(image[:40].astype(np.float64), pocket)[0][:, 64:]
    true, image, after = true[:, 64:], image[:, 64:], after[:, 64:]
    ratio, bias = after.std() / image.std(), after.mean(dtype=float) - true.mean(dtype=float)
    return ratio, exact.std() / image[:40].std(), bias, lag_one(after) - lag_one(image), seconds


def report_lookup() -> None:
    """Noiseless stars on sky, where every star is seen: what the look-up costs in accuracy."""
    rng = np.random.default_rng(2)
    worst, square, count = 0.0, 0.0, 0
    for pocket in POCKETS:
        true = np.full((20, 3072), 200.0)
        true[rng.uniform(size=true.shape) < 0.02] += 10 ** rng.uniform(1, 4.7)
        error = corrected(deferred(true, 1, pocket)[0].astype(np.float32), pocket) - true
        worst, square, count = (
            max(worst, float(np.abs(error).max())),
            square + (error**2).sum(),
            count + error.size,
        )
    print(f"Look-up instead of powers: rms {np.sqrt(square / count):.5f} DN, worst pixel {worst:.4f} DN\n")


# Stars


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


# A real quadrant


def report_real(path: Path, ccd: int, quadrant: int) -> None:
    """Skewness of stars against flux before and after; noise of the sky."""
    with fits.open(path) as hdus:
        image = next(np.array(hdu.data, np.float32) for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] == 2)
    pocket, backward = pocket_of(ccd, quadrant), quadrant in FIRST_READ_COLUMN_LAST
    step = -1 if backward else 1
    y, x, flux = isolated_stars(image)
    edges = np.array([1, 2, 4, 8, 16, 32, 64, 128, 300]) * 1e3
    print(f"{path.name}: {len(flux)} isolated stars; skewness along x by flux (kDN)\n")
    print(
        "|",
        " | ".join(["", *(f"{a / 1e3:g}–{b / 1e3:g}" for a, b in pairwise(edges))]),
        end="",
    )
    print(" | spread > 2 kDN | sky σ | lag 1 |\n|" + "---|" * (len(edges) + 3))
    pictures = {
        "before": image,
        "corrected": corrected(image, pocket, backward=backward),
        "exact inverse": restored(image[:, ::step].astype(np.float64), pocket)[0][:, ::step],
        "read the other way": corrected(image, pocket, backward=not backward),
    }
    for name, picture in pictures.items():
        moments = skewness(stamps_at(picture, y, x))
        bins = [typical_skewness(moments[(flux >= a) & (flux < b)]) for a, b in pairwise(edges)]
        cells = [f"{g:.3f}" for g in bins] + [f"{np.ptp(bins[1:]):.3f}"]
        sigma, lag = sky_noise(picture)
        print("|", " | ".join([name, *cells, f"{sigma:.3f}", f"{lag:.4f}"]), "|")
    print()


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


# Simulated stars


def measured(flux: float, sky: float, pocket: Pocket) -> dict[str, tuple[float, float]]:
    """Skewness of stars on a grid, and magnitudes that apertures of 3 pixels are off: through a pocket, corrected."""
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


if __name__ == "__main__":
    main()
