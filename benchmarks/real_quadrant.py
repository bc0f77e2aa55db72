"""Photometry of a real science quadrant against photutils and sep, and its noise against what the header predicts.

    pip install photutils
    python benchmarks/real_quadrant.py --image SCIIMG.fits.fz --mask MSKIMG.fits.fz

The files are IPAC's. Positions are ours; apertures and backgrounds are theirs: of photutils the clipped median of
an annulus, of sep its map of the sky. Prints Markdown; docs/photometry.md holds a run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np
import sep
from astropy.io import fits
from astropy.stats import SigmaClip
from numpy.typing import NDArray
from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture
from scipy.ndimage import binary_dilation

from ztfzarr.masters.mask import BITS, IPAC
from ztfzarr.photometry.columns import FLAGS, RADII
from ztfzarr.photometry.detect import detect
from ztfzarr.photometry.measure import ANNULUS, Columns, measure
from ztfzarr.photometry.pixels import Pixels, prepare
from ztfzarr.photometry.quadrant import quadrant_stars

Floats = NDArray[np.float64]

SPOILT: Final = np.uint16(sum(bit for name, bit in FLAGS.items() if name not in ("neighbour", "no_wcs")))
ALONE: Final = np.uint16(sum(bit for name, bit in FLAGS.items() if name != "no_wcs"))
MMAG: Final = 1086.0
EMPTY: Final = 2000  # apertures on the sky


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True, help="science image of a quadrant")
    parser.add_argument("--mask", type=Path, required=True, help="its mask image")
    options = parser.parse_args()
    science, header = image_of(options.image)
    mask = our_bits(image_of(options.mask)[0])
    gain, noise = float(header["GAIN"]), float(header["READNOI"])
    variance = (np.maximum(science, 0) / gain + (noise / gain) ** 2).astype(np.float32)
    pixels, stars = prepare(science, mask, variance), quadrant_stars(science, mask, variance)
    print(f"{stars['x'].size} stars, of which {np.mean(stars['flags'] & SPOILT == 0):.0%} without flags\n")
    compare_fluxes(pixels, stars)
    compare_noise(pixels)


def image_of(path: Path) -> tuple[NDArray[Any], fits.Header]:
    """Return the image of a file, and its header."""
    with fits.open(path) as hdus:
        hdu = next(hdu for hdu in hdus if hdu.data is not None)
        return np.ascontiguousarray(hdu.data.astype(hdu.data.dtype.newbyteorder("="))), hdu.header


def our_bits(mask: NDArray[Any]) -> NDArray[np.uint16]:
    """Keep those of IPAC's bits that ours mean too."""
    shared = sum(1 << bit for name, bit in BITS.items() if IPAC.get(name) == bit)
    return (mask.astype(np.int32) & shared).astype(np.uint16)


def compare_fluxes(pixels: Pixels, stars: Columns) -> None:
    """Print by how much fluxes of others differ from ours, of stars of three ranges of brightness."""
    good = (stars["flags"] & ALONE == 0) & (stars["flux_10"] > 1000)
    x, y = stars["x"][good], stars["y"][good]
    fluxes = {"photutils": by_photutils(pixels, x, y), "sep": by_sep(pixels, x, y)}
    bright = stars["flux_10"][good]
    print(
        f"{good.sum()} stars without flags, above 1,000 DN: median and scatter (1.48 MAD), mmag; scatter, sigma\n"
    )
    print(
        "| radius | sums alone, largest | "
        + " | ".join(f"{n} > {c:,} DN" for n in fluxes for c in (1000, 10_000))
        + " |"
    )
    print("|---|---|" + "---|" * 4)
    for radius in RADII:
        ours, error = (stars[f"{name}_{radius}"][good] for name in ("flux", "flux_error"))
        background = np.pi * radius**2 * stars["background"][good]
        cells = [f"{np.abs(fluxes['photutils'][radius][1] / (ours + background) - 1).max():.0e}"]
        for found in fluxes.values():
            theirs = found[radius][0]
            for least in (1000, 10_000):
                some = bright > least
                off = (theirs / ours - 1)[some]
                pull = ((theirs - ours) / error)[some]
                cells.append(f"{-MMAG * np.median(off):+.2f} ± {MMAG * mad(off):.2f}; {mad(pull):.2f}")
        print(f"| {radius} | " + " | ".join(cells) + " |")
    print()


def mad(values: Floats) -> float:
    """Return the scatter, by the median of absolute deviations."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def by_photutils(pixels: Pixels, x: Floats, y: Floats) -> dict[int, tuple[Floats, Floats]]:
    """Return fluxes above the clipped median of annuli, and sums alone, by radius."""
    places = np.column_stack([x, y])
    around = ApertureStats(
        pixels.data, CircularAnnulus(places, *ANNULUS), sigma_clip=SigmaClip(3.0), mask=pixels.lost
    )
    found = {}
    for radius in RADII:
        aperture = CircularAperture(places, radius)
        total = np.asarray(aperture.do_photometry(pixels.data, method="exact")[0])
        found[radius] = total - aperture.area * around.median, total
    return found


def by_sep(pixels: Pixels, x: Floats, y: Floats) -> dict[int, tuple[Floats, Floats]]:
    """Return fluxes above sep's own map of the background, and sums alone, by radius."""
    back = sep.Background(pixels.data, mask=pixels.lost, bw=64, bh=64)
    sums = {r: sep.sum_circle(pixels.data - back.back(), x, y, r, subpix=0)[0] for r in RADII}
    return {r: (value, value) for r, value in sums.items()}


def compare_noise(pixels: Pixels) -> None:
    """Print the noise of sky pixels and of empty apertures over what the variance predicts."""
    found = detect(pixels)
    busy = binary_dilation(found.stars, iterations=6) | pixels.lost | (pixels.mask != 0)
    flat, free = pixels.data - found.sky, ~busy
    measured, predicted = mad(flat[free]), float(np.sqrt(np.median(pixels.noise[free])))
    print(f"sky {np.median(pixels.data[free]):.0f} DN, {free.mean():.0%} of the pixels: sigma {measured:.2f} DN,")
    print(f"by gain and read noise {predicted:.2f}: variance {measured**2 / predicted**2 - 1:+.1%}\n")
    rng = np.random.default_rng(1)
    height, width = flat.shape
    x, y = rng.uniform(30, width - 30, 40 * EMPTY), rng.uniform(30, height - 30, 40 * EMPTY)
    empty = sep.sum_circle(busy.astype(np.float32), x, y, 12.5, subpix=0)[0] == 0
    x, y = x[empty][:EMPTY], y[empty][:EMPTY]
    sums = measure(pixels, x, y, stars=found.stars)
    print(
        f"| {x.size} empty apertures, radius | " + " | ".join(map(str, RADII)) + " |\n|---|" + "---|" * len(RADII)
    )
    ratio = [mad(sums[f"flux_{r}"]) / np.median(sums[f"flux_error_{r}"]) for r in RADII]
    print("| scatter / predicted error | " + " | ".join(f"{v:.2f}" for v in ratio) + " |")
    print(
        "| the same, errors scaled to the sky's | "
        + " | ".join(f"{v * predicted / measured:.2f}" for v in ratio)
        + " |"
    )


if __name__ == "__main__":
    main()
