"""A starflat night from raw files to the map: what ``benchmarks/starflat.py --images DIR`` runs.

All 16 CCDs, 32 dithers of 0.1 to 1.85 degrees, with biases and flats of their own, through the commands that a
user has. What DIR holds already is not made again; times are of what was made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from starfields import slopes_of, without_plane

import ztfzarr
from ztfzarr.geometry import QUADRANTS
from ztfzarr.photometry.columns import FLAGS
from ztfzarr.recipe import default_recipe, read_recipe
from ztfzarr.simulate import camera, conditions, dither_stars, illumination_error, schedule
from ztfzarr.simulate.camera import LEDS, SOURCES
from ztfzarr.simulate.focal_plane import illumination
from ztfzarr.simulate.starfield import EXTINCTION
from ztfzarr.starflat.nodes import Nodes, between_nodes
from ztfzarr.store.objects import open_objects
from ztfzarr.store.versions import prepare_version

Floats = NDArray[np.float64]

NIGHT: Final = 20200801
COUNTS: Final = {"bias": 13, "flats": 3, "science": 0, "starflat": 32}
BAND: Final = "zr"
CCDS: Final = tuple(range(1, 17))
ALONE: Final = 36  # pixels: no light of another star in the annulus
MMAG: Final = 1e3
MAG: Final = 2.5 / np.log(10)
PLACE: Final = ["exposure", "ccd", "quadrant"]
REJECTED: Final = sum(bit for name, bit in FLAGS.items() if name not in ("neighbour", "background", "no_wcs"))


def from_images(folder: Path, shape: tuple[int, int], nodes: int) -> None:
    """Make the night, its starflats with and without a catalogue, and print what came out."""
    store, catalogue = folder / "night.zarr", folder / "truth" / f"{NIGHT}_catalogue.fits"
    counts = [word for name, count in COUNTS.items() for word in (f"--{name}", str(count))]
    size = f"{shape[0]}x{shape[1]}"
    if not catalogue.exists():
        command("simulate", folder, "--ccds", "1-16", "--shape", size, *counts)
    command("ingest", store, folder / "raw")
    command("bias", store)
    command("flat", store)
    # Science is not stored: the version says how stars compute what they need of it.
    recipe = read_recipe("", ["science.noise=measured"])
    prepare_version(open_objects(store), "science", "v1", recipe, default_recipe())
    command("stars", store, "--catalogue", catalogue)
    settings = ("--set", f"starflat.nodes=[{nodes}, {nodes}]")
    known = ("--catalogue", catalogue)
    command("starflat", store, *settings, *known)
    command("starflat", store, *settings, "--version", "v2")
    given = ("--set", f"starflat.extinction={EXTINCTION[BAND]}")
    command("starflat", store, *settings, *known, "--version", "v3", *given)
    judge(store, shape)


def command(*words: object) -> None:
    """Run a command of ztfzarr's; print its time and its memory at its most, of its largest process."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ztfzarr.cli", *map(str, words), "-q"])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ztfzarr {words[0]} failed")
    took = time.perf_counter() - begun
    print(f"  {words[0]:9} {took:6.0f} s {used.ru_maxrss / 1e6:5.2f} GB", flush=True)


def judge(store: Path, shape: tuple[int, int]) -> None:
    """Compare maps, zero points and fluxes with the truth."""
    stars = ztfzarr.open_stars(store)
    print(f"{len(stars):,} rows of stars, {np.mean(stars['star'] >= 0):.1%} of them named")
    for version in ("v1", "v2", "v3"):
        one = xr.open_zarr(store / "starflat" / version, chunks=None, zarr_format=3).sel(filter=BAND)
        print(f"starflat/{version}: {int(one['measurements']):,} measurements of {int(one['stars']):,} stars")
        judge_map(one, shape)
        judge_zero_points(one)
        judge_stars(one)
    judge_fluxes(stars, shape)


def judge_map(one: xr.Dataset, shape: tuple[int, int]) -> None:
    """Print what a map is off by, and how much of the true one is in it."""
    delta = one["delta"].values.reshape(64, *one["delta"].shape[-2:])
    count = delta.shape[1:]
    for name, truth in (("put in", true_map(count)), ("that flats leave", left_by_flats(count))):
        off, flat = without_plane(delta - truth, count), without_plane(truth, count)
        good = np.isfinite(off)
        rms, nodes = (MMAG * np.nanstd(values) for values in (between_nodes(off, shape), off))
        part = (without_plane(delta, count)[good] @ flat[good]) / (flat[good] @ flat[good])
        print(f"  map {name}: {MMAG * np.ptp(truth):.1f} mmag, {MMAG * flat.std():.2f} rms but for its plane;")
        print(f"    off by {rms:.2f} mmag rms, {nodes:.2f} at nodes; {part:.1%} of it is there")
        if np.isfinite(one["slope_u"]):
            judge_plane(one, delta - truth, shape)
    print(f"  k {float(one['extinction']):.3f} +- {float(one['extinction_error']):.3f}")


def judge_plane(one: xr.Dataset, miss: Floats, shape: tuple[int, int]) -> None:
    """Print what a map is off by with its plane, and by its plane."""
    count = miss.shape[1:]
    (u, v), slopes = Nodes(shape, count).focal_plane(), slopes_of(miss, count)
    tilt, rms = np.std(u * slopes[0] + v * slopes[1]), np.nanstd(between_nodes(miss, shape))
    errors = np.array([float(one[f"slope_{axis}_error"]) for axis in "uv"])
    print(f"    with its plane by {MMAG * rms:.2f}; tilt {MMAG * tilt:.2f} mmag rms, by slopes of")
    print(f"    {np.round(MMAG * slopes, 2)} mmag a degree, their errors {np.round(MMAG * errors, 2)}")


def true_map(count: tuple[int, int]) -> Floats:
    """The error of illumination at the nodes, mag."""
    y, x = (np.linspace(0, 1, n) for n in count)
    maps = [illumination_error(1, BAND, ccd, q, x, y[:, np.newaxis]) for ccd in CCDS for q in QUADRANTS]
    return -MAG * np.log(np.array(maps))


def left_by_flats(count: tuple[int, int]) -> Floats:
    """What stars are fainter by after the flats: with it, what the average of LEDs of other slopes leaves."""
    made = camera(CCDS, (64, 64), 1)
    leds = [SOURCES.index(f"led{led:02d}") for led in LEDS if ztfzarr.geometry.LED_FILTERS[led] == BAND]
    sky = made.illumination[leds].mean(axis=0)
    lamps, lit = [], []
    for c, ccd in enumerate(CCDS):
        for q in QUADRANTS:
            u, v = edge_coordinates(ccd, q, count)
            lamps.append([illumination(made.illumination[led], u, v) * made.throughput[led, c] for led in leds])
            lit.append(illumination(sky, u, v) * made.throughput[SOURCES.index(BAND), c])
    lamp = np.array(lamps, float).reshape(16, 4, len(leds), *count)
    gain = (5.6 / made.gain)[:, :, np.newaxis, np.newaxis, np.newaxis]
    level = np.median(np.moveaxis(lamp * gain, 2, 0).reshape(len(leds), 16, -1), axis=-1)  # (led, ccd)
    flat = (lamp / level.T[:, np.newaxis, :, np.newaxis, np.newaxis]).mean(axis=2)
    r = (level / np.median(level, axis=1, keepdims=True)).mean(axis=0)
    science = np.array(lit).reshape(16, 4, *count) / flat / r[:, np.newaxis, np.newaxis, np.newaxis]
    return true_map(count) - MAG * np.log(science.reshape(64, *count))


def edge_coordinates(ccd: int, quadrant: int, count: tuple[int, int]) -> tuple[Floats, Floats]:
    """Place nodes, from edge to edge of a quadrant, where ``coordinates`` places pixels."""
    u, v = ztfzarr.simulate.coordinates(ccd, quadrant, (1000, 1000))
    return tuple(
        np.interp(np.linspace(-0.5, 999.5, n), np.arange(1000), w.astype(float))
        for w, n in ((u, count[1]), (v, count[0]))
    )


def judge_zero_points(one: xr.Dataset) -> None:
    """Compare zero points with the transparency and the air of each exposure."""
    truth = {e.number: conditions(camera([1], (64, 64), 1), e, 1).transparency for e in planned()}
    used = np.isfinite(one["zero_point"].values)
    numbers, airmass = one["exposure"].values[used], one["airmass"].values[used] if "airmass" in one else 0
    zero, error = one["zero_point"].values[used], one["zero_point_error"].values[used]
    true = -MAG * np.log([truth[n] for n in numbers]) + EXTINCTION[BAND] * airmass
    off = zero - true - np.mean(zero - true)
    pulls = np.std(off / error)
    print(f"  zero points of {MMAG * np.ptp(true):.0f} mmag: off by {MMAG * off.std():.2f} rms, pulls {pulls:.2f}")


def planned() -> list[Any]:
    """Plan the dithers of the night again."""
    return [e for e in schedule(NIGHT, **COUNTS, seed=1) if e.dither]


def judge_stars(one: xr.Dataset) -> None:
    """Print how bright stars repeat, before and after, against their noise."""
    before, after, expected = (one[f"repeatability_{n}"].values for n in ("before", "after", "expected"))
    for i in np.flatnonzero(np.isfinite(expected) & (expected < 0.015)):
        values = ", ".join(f"{MMAG * v[i]:.1f}" for v in (before, after, expected))
        ratio = after[i] / expected[i]
        print(f"  {float(one['brightness'][i]):6.2f} mag: before, after, expected {values} mmag: {ratio:.2f}")
    numbers = ("chi2", "half_sample", "half_sample_before", "bright_faint", "rejected")
    print("  " + ", ".join(f"{name} {float(one[name]):.3f}" for name in numbers))


def judge_fluxes(stars: pd.DataFrame, shape: tuple[int, int]) -> None:
    """Print chi2 / nu of unflagged fluxes about those of true stars, by brightness."""
    good = stars[(stars["flags"] & REJECTED == 0) & (stars["star"] >= 0)]
    joined = good.merge(true_fluxes(shape), on=[*PLACE, "star"])
    for name, some in {"all": joined, f"alone within {ALONE} pixels": joined[joined["alone"]]}.items():
        for low, high in ((3e3, 6e3), (6e3, 2e4), (2e4, 1e5), (1e5, 1e6)):
            pull = pulls_of(some[some["true"].between(low, high)])
            near = np.abs(pull) < 4
            chi2 = f"chi2/nu {np.mean(pull[near] ** 2):.3f} of {near.sum():,}"
            print(f"  {name}, {low:.0e} to {high:.0e} DN: {chi2}, {np.mean(~near):.1%} beyond 4 sigma")


def pulls_of(some: pd.DataFrame) -> Floats:
    """Return fluxes over true ones about the mean of their quadrant and exposure, in units of their errors."""
    ratio = (some["flux_10"] / some["true"]).to_numpy()
    some, ratio = some[np.abs(ratio - np.median(ratio)) < 0.2], ratio[np.abs(ratio - np.median(ratio)) < 0.2]
    weight = ((some["true"] / some["flux_error_10"]) ** 2).to_numpy()
    group = some.groupby(PLACE).ngroup().to_numpy()
    total = np.bincount(group, weight)
    mean = np.bincount(group, weight * ratio) / total
    left = 1 - weight / total[group]
    several = left > 0.3
    return ((ratio - mean[group]) * np.sqrt(weight / np.maximum(left, 0.3)))[several]


def true_fluxes(shape: tuple[int, int]) -> pd.DataFrame:
    """Every star of every dither, with its light through the air and the error of illumination, DN."""
    one, parts = camera([1], (64, 64), 1), []
    for exposure in planned():
        now = conditions(one, exposure, 1)
        for ccd in CCDS:
            for quadrant in QUADRANTS:
                star = dither_stars(1, exposure, now, ccd, quadrant, shape)
                across, down = ((v + 0.5) / n for v, n in ((star.x, shape[1]), (star.y, shape[0])))
                light = star.flux * illumination_error(1, exposure.filter, ccd, quadrant, across, down)
                place = {"exposure": exposure.number, "ccd": ccd, "quadrant": quadrant}
                places = np.column_stack([star.x, star.y])
                alone = cKDTree(places).query(places, 2)[0][:, 1] > ALONE
                parts.append(pd.DataFrame({"star": star.id, "true": light, "alone": alone}).assign(**place))
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    judge(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])))
