"""Figures of the pocket effect: noise, level, rate, overscan, fit; stars in simulation and in a real quadrant.

    python benchmarks/pocket.py [--real FITS CCD QUADRANT] [--figure docs/pocket.png]

``--real`` takes a science quadrant of IPAC's (``ztf_…_c13_o_q3_sciimg.fits``), which still has the effect. The
figure needs ``pip install "ztfzarr[figures]"``. Prints Markdown; docs/pocket.md holds a run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from pocket_stars import (
    GAIN,
    READ_NOISE,
    Image,
    corrected,
    draw,
    isolated_stars,
    noisy,
    pocket_of,
    skewness,
    sky_noise,
    stamps_at,
    typical_skewness,
)

from ztfzarr.geometry import (
    CCDS,
    FIRST_READ_COLUMN_LAST,
    FULL_OVERSCAN,
    FULL_SHAPE,
    QUADRANTS,
    in_read_order,
)
from ztfzarr.kernels.pocket import Pocket, deferred, restored
from ztfzarr.masters.frames import calibrated_frames, combine_frames
from ztfzarr.masters.pocket import frames_without_pocket, pocket_trail
from ztfzarr.masters.pocket_fit import fit_pocket
from ztfzarr.steps.linearity import linearity_coefficients
from ztfzarr.steps.overscan import overscan_level, overscan_profile
from ztfzarr.steps.pocket import overscan_level_with_pocket, pocket_applies, pocket_parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", nargs=3, metavar=("FITS", "CCD", "QUADRANT"), help="science quadrant of IPAC's")
    parser.add_argument("--figure", type=Path, help="where to draw simulated stars, as PNG")
    arguments = parser.parse_args()
    report_noise()
    report_lookup()
    report_overscan()
    report_fit()
    report_frames()
    if arguments.real:
        path, ccd, quadrant = arguments.real
        report_real(Path(path), int(ccd), int(quadrant))
    if arguments.figure:
        draw(arguments.figure, {"CCD 6 q1": pocket_of(6, 1), "CCD 13 q3": pocket_of(13, 3)})


POCKETS = [pocket_of(ccd, q) for ccd in CCDS for q in QUADRANTS]


def lag_one(image: Image) -> float:
    rest = image - image.mean()
    return float((rest[:, 1:] * rest[:, :-1]).mean() / rest.var())


# Sky


def report_noise() -> None:
    """Even sky through all 64 pockets: the worst of them."""
    print("| sky DN | sigma after/before, median | worst | exact, worst | level bias DN | lag 1 | Mpix/CPU s |")
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
    start = time.process_time()
    after = corrected(image, pocket)
    seconds = (time.process_time() - start) / image.size * 1e6
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


# Overscan, trails, frames


def exposures(levels: Sequence[float], ccd: int, *, width: int = 280, count: int = 1) -> xr.Dataset:
    """Even light through the four pockets of a CCD, full height, level 100 DN, amplifiers all but linear."""
    rng, lights = np.random.default_rng(3), np.repeat(levels, count)
    raw = np.empty((len(lights), 1, 4, FULL_SHAPE[0], width), np.float32)
    overscan = np.empty((len(lights), 1, 4, FULL_SHAPE[0], FULL_OVERSCAN), np.float32)
    for t, q in np.ndindex(len(lights), 4):
        light = rng.poisson(np.full(raw.shape[-2:], lights[t] * GAIN, np.float32)) / GAIN
        pieces = deferred(light, FULL_OVERSCAN, pocket_of(ccd, q + 1))
        for whole, piece in zip((raw, overscan), pieces, strict=True):
            whole[t, 0, q] = 100 + in_read_order(piece + rng.normal(0, READ_NOISE, piece.shape), q + 1)
    headers = {"gain": GAIN, "read_noise": GAIN * READ_NOISE}
    dims = ("time", "ccd", "quadrant")
    return xr.Dataset(
        {
            "raw": ((*dims, "y", "x"), raw, {"units": "DN"}),
            "overscan": ((*dims, "y", "x_overscan"), overscan, {"units": "DN"}),
            **{name: (dims, np.full(raw.shape[:3], value)) for name, value in headers.items()},
        },
        {
            "time": np.datetime64("2020-08-01", "ns") + np.arange(len(lights)) * np.timedelta64(60, "s"),
            "ccd": [ccd],
            "quadrant": list(QUADRANTS),
        },
    )


def report_overscan() -> None:
    """Level of CCD 6's overscans, which is 100 DN: worst quadrant."""
    ranges = ((5, 25), (5, 10), (20, 30), (25, 30))
    print(
        "| overscan level, CCD 6, DN off: plain / with pocket |", " | ".join(f"[{a}, {b})" for a, b in ranges), "|"
    )
    print("|---|" + "---|" * len(ranges))
    for sky in (100, 200, 1000, 38_000):
        data = exposures([sky], 6)
        settings = linearity_coefficients(data["time"]), pocket_parameters(pocket_applies(data["time"]))
        cells = []
        for columns in ranges:
            plain = overscan_level(overscan_profile(data["overscan"], columns=columns))
            freed = overscan_level_with_pocket(data["raw"], data["overscan"], *settings, columns=columns)
            off = (np.abs(fit["level"].mean("y") - 100).max() for fit in (plain, freed))
            cells.append(" / ".join(f"{float(value):.2f}" for value in off))
        print("|", " | ".join([f"sky {sky:,} DN", *cells]), "|")
    print()


def report_fit() -> None:
    """Parameters recovered from two exposures at each of fourteen levels."""
    levels = (30, 60, 100, 150, 200, 300, 500, 900, 2000, 6000, 30e3, 33e3, 36e3, 40e3)
    print("| fit ÷ truth − 1, worst of four quadrants | alpha | cmax | beta | nmax |\n|---|---|---|---|---|")
    for ccd in (1, 6, 13):
        parts = [pocket_trail(exposures([level], ccd, width=128, count=2)) for level in levels]
        trails = xr.concat([part.assign_coords(time=[2 * i, 2 * i + 1]) for i, part in enumerate(parts)], "time")
        found, truth = fit_pocket(trails), np.array([pocket_of(ccd, q) for q in QUADRANTS])
        off = [np.abs(found[name].values[0] / truth[:, i] - 1).max() for i, name in enumerate(Pocket._fields)]
        print("|", " | ".join([f"CCD {ccd}", *(f"{100 * value:.2f} %" for value in off)]), "|")
    print()


def report_frames() -> None:
    """A full CCD of five flats, combined with and without pocket, two threads."""
    data = exposures([36_000], 6, width=FULL_SHAPE[1]).isel(time=[0] * 5).chunk(time=1, quadrant=1)
    data = data.assign_coords(time=data["time"].values + np.arange(5) * np.timedelta64(60, "s"))
    parameters = pocket_parameters(pocket_applies(data["time"]))
    mpix = data["raw"].size / 1e6
    made = {"overscan, linearity, combine": calibrated_frames(data)}
    made["the same with pocket"] = frames_without_pocket(data, parameters)
    print(
        "| five full frames of a CCD in memory, two threads | CPU seconds | Mpix per CPU second |\n|---|---|---|"
    )
    for name, frames in made.items():
        lazy = combine_frames(frames, relative=0.005)["mean"].mean()
        start = time.process_time()
        lazy.compute(scheduler="threads", num_workers=2)
        seconds = time.process_time() - start
        print(f"| {name} | {seconds:.1f} | {mpix / seconds:.0f} |")
    print()


# A real quadrant


def pocket_in_electrons(pocket: Pocket) -> Pocket:
    """Return the pocket of which the table would give electrons, in DN."""
    return Pocket(pocket.alpha, pocket.cmax / GAIN, pocket.beta, pocket.nmax / GAIN)


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
        "parameters as electrons": corrected(image, pocket_in_electrons(pocket), backward=backward),
    }
    for name, picture in pictures.items():
        moments = skewness(stamps_at(picture, y, x))
        bins = [typical_skewness(moments[(flux >= a) & (flux < b)]) for a, b in pairwise(edges)]
        cells = [f"{g:.3f}" for g in bins] + [f"{np.ptp(bins[1:]):.3f}"]
        sigma, lag = sky_noise(picture)
        print("|", " | ".join([name, *cells, f"{sigma:.3f}", f"{lag:.4f}"]), "|")
    print()


if __name__ == "__main__":
    main()
