"""Apertures near the joins of quadrants: by quadrants and on the whole CCD, with steps of amplifiers and pockets.

    python benchmarks/joins.py --folder FOLDER --picture docs/joins.png

Simulates a starflat night of two CCDs through pockets, with amplifiers that step by 1 DN from exposure to
exposure, measures it with and without amplifier offsets and pocket correction, and prints how far magnitudes are
off the truth against the distance to the nearest join. With --folder the night is kept, and used again.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pocket_stars import pocket_of
from scipy.spatial import cKDTree

import ztfzarr
from ztfzarr.geometry import CCDS, QUADRANTS, first_pixel, join_distance, joined_ccd
from ztfzarr.ingest.run import ingest
from ztfzarr.kernels.pocket import deferred
from ztfzarr.kernels.pocket_correction import correct, lookup
from ztfzarr.photometry.catalogue import read_catalogue
from ztfzarr.photometry.columns import FLAGS
from ztfzarr.photometry.measure import measure
from ztfzarr.photometry.pixels import prepare
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.reduce.starflat import measurements_of, settings_of, usable
from ztfzarr.reduce.stars import reduce_stars
from ztfzarr.simulate import camera, conditions, dither_stars, illumination_error, schedule, simulate_night
from ztfzarr.simulate.scene import with_stars
from ztfzarr.starflat.fit import fit_starflat
from ztfzarr.starflat.validation import join_means, without_map

NIGHT, FILTER, STEP = 20200801, "zr", 1.0
BINS = np.array([-0.5, 3, 8, 16, 25, 50, 300])  # pixels
BRIGHT, FAINT = (10_000, 60_000), (1_500, 10_000)  # DN, of the star
FAR = 40  # pixels from a join: there apertures hold what they hold
UNFIT = sum(FLAGS[n] for n in ("bad", "spike", "saturated", "suspect", "edge", "blended", "position"))

# Name of the star tables, their science, and what to call them.
TABLES = {
    "v1": ("v1", "quadrant", "quadrants"),
    "v2": ("v1", "ccd", "CCD"),
    "v3": ("v2", "ccd", "CCD, offsets"),
    "v4": ("v3", "ccd", "CCD, pocket"),
    "v5": ("v4", "ccd", "CCD, pocket and offsets"),
}
SCIENCE = {"v1": (False, "v1"), "v2": (True, "v1"), "v3": (False, "v2"), "v4": (True, "v2")}  # offsets, flats


def make(folder: Path, ccds: tuple[int, ...], shape: tuple[int, int], dithers: int) -> Path:
    """Simulate, ingest and reduce: one version of science for each choice, one of star tables."""
    store, exact = folder / "night.zarr", [f"{kind}.rounding=0" for kind in ("bias", "flat", "science")]
    if not store.exists():
        counts = {"bias": 13, "flats": 3, "science": 0, "starflat": dithers}
        simulate_night(
            folder, night=NIGHT, ccds=ccds, shape=shape, **counts, pocket=True, amplifier_step=STEP, workers=2
        )
        raw = sorted((folder / "raw").rglob("*.fits.fz"))
        ingest(store, [path for path in raw if path.name[29] != "f" or f"_{FILTER}_" in path.name])
    reduce(store, ["bias", "flat"], recipe=read_recipe("", exact))
    with_pocket = [*exact, "pocket.correct=auto"]
    reduce(store, ["flat"], version="v2", recipe=read_recipe("", [*with_pocket, "flat.bias=v1"]))
    for version, (offsets, flat) in SCIENCE.items():
        settings = with_pocket if flat == "v2" else exact
        own = ["science.bias=v1", f"science.flat={flat}", f"science.amplifier_offset={str(offsets).lower()}"]
        reduce(store, ["science"], version=version, recipe=read_recipe("", [*settings, *own]))
    catalogue = folder / "truth" / f"{NIGHT}_catalogue.fits"
    for version, (science, apertures, _) in TABLES.items():
        own = [f"stars.science={science}", f"stars.apertures={apertures}"]
        reduce_stars(store, version=version, recipe=read_recipe("", own), catalogue=catalogue)
    return store


def truth(ccds: tuple[int, ...], shape: tuple[int, int], dithers: int) -> pd.DataFrame:
    """Every star of every dither: which, where, and the DN that science should have."""
    made, parts = camera(ccds, shape, 1), []
    for exposure in schedule(NIGHT, bias=13, flats=3, science=0, starflat=dithers, seed=1):
        for ccd in ccds if exposure.dither else ():
            now = conditions(made, exposure, ccd)
            for quadrant in QUADRANTS:
                star = dither_stars(1, exposure, now, ccd, quadrant, shape)
                across, down = ((v + 0.5) / n for v, n in ((star.x, shape[1]), (star.y, shape[0])))
                flux = star.flux * illumination_error(1, exposure.filter, ccd, quadrant, across, down)
                one = {"id": star.id, "true_x": star.x, "true_y": star.y, "true_flux": flux}
                parts.append(pd.DataFrame(one).assign(exposure=exposure.number, ccd=ccd, quadrant=quadrant))
    return pd.concat(parts, ignore_index=True)


def identified(table: pd.DataFrame, known: pd.DataFrame, shape: tuple[int, int]) -> pd.DataFrame:
    """The rows within a pixel of a true star, their distance to a join, and the DN and mmag that they are off.

    The truth is in the place of the star's mean over its dithers, scaled by what apertures hold far from joins.
    """
    parts = []
    groups = dict(list(known.groupby(["exposure", "ccd", "quadrant"])))
    for key, rows in table.groupby(["exposure", "ccd", "quadrant"]):
        mine = groups[key].reset_index(drop=True)
        apart, nearest = cKDTree(mine[["true_x", "true_y"]]).query(rows[["x", "y"]])
        which = mine[["id", "true_flux"]].iloc[nearest].reset_index(drop=True)
        parts.append(rows.reset_index(drop=True).join(which)[apart < 1])
    found = pd.concat(parts, ignore_index=True)
    found = found[(found["flags"] & UNFIT) == 0]
    ratio = found["flux_10"] / found["true_flux"]
    place = join_distance(found["quadrant"], found["x"], found["y"], shape)
    held = np.median(ratio[(place > FAR) & (found["true_flux"] > BRIGHT[0])])
    off, mmag = found["flux_10"] - held * found["true_flux"], -1085.7 * np.log(ratio / held)
    return found.assign(join=place, off=off, mmag=mmag)


def in_bins(found: pd.DataFrame, of: tuple[int, int], name: str) -> tuple[NDArray, ...]:
    """Count, median and scatter (1.4826 MAD) of stars of some fluxes by distance."""
    chosen = found[(found["true_flux"] > of[0]) & (found["true_flux"] < of[1])]
    grouped = chosen[name].groupby(np.digitize(chosen["join"], BINS))
    middle = grouped.median()
    scatter = 1.4826 * grouped.agg(lambda v: np.median(np.abs(v - np.median(v))))
    index = np.arange(1, len(BINS))
    return (
        grouped.size().reindex(index).to_numpy(),
        middle.reindex(index).to_numpy(),
        scatter.reindex(index).to_numpy(),
    )


def lost_charge(distances: list[float], flux: float = 2e4, sky: float = 200.0) -> None:
    """Print what apertures lose of a star beside the last-read columns of all 64 quadrants, in per cent."""
    rows, columns = 61, 120
    parts = [[], []]
    for distance in distances:
        x, y = np.array([columns - 0.5 - distance]), np.array([30.0])
        light = with_stars(np.full((rows, columns), sky, np.float32), x, y, np.array([flux]))
        level = np.full_like(light, sky)
        for when in (0, 1):
            lost = [
                _lost(light, level, pocket_of(c, q), corrected=when == 1) / flux for c in CCDS for q in QUADRANTS
            ]
            parts[when].append(100 * np.array(lost))
    for name, values in zip(("lost", "lost after the correction"), parts, strict=True):
        cells = [f"{np.median(v):.2f} ({v.min():.2f} to {v.max():.2f})" for v in values]
        print("|", " | ".join([f"{name}, %", *cells]), "|")


def _lost(light: NDArray, level: NDArray, pocket: object, *, corrected: bool) -> float:
    """Charge of the star that is not in the image: all of it, whatever the aperture, in DN."""
    total = []
    for image in (light, level):
        seen = deferred(image, 30, pocket)[0]
        if corrected:
            read = seen + np.random.default_rng(1).normal(0, 6, seen.shape).astype(np.float32)
            seen = np.empty_like(read)
            correct(read, lookup(pocket), False, seen)
        total.append(float(seen.sum(dtype=np.float64)))
    return float((light - level).sum(dtype=np.float64)) - (total[0] - total[1])


def moved_by_a_step(distances: list[float]) -> list[float]:
    """Flux in 10 pixels, above the annulus, that a step of 1 DN at a join gives, at distances from it."""
    shape = (80, 80)
    whole = joined_ccd(np.array([1.0, 0.0, 0.0, 1.0], np.float32)[:, None, None] * np.ones(shape, np.float32))
    row, _ = first_pixel(1, shape)
    x = first_pixel(2, shape)[1] - 0.5 - np.array(distances)
    pixels = prepare(whole, np.zeros(whole.shape, np.uint16), np.ones_like(whole))
    return measure(pixels, x, np.full(x.shape, row + 40.0))["flux_10"].tolist()


def report(tables: dict[str, pd.DataFrame], picture: Path | None) -> None:
    print("\n| pixels from the join |", " | ".join(f"{a:g}–{b:g}" for a, b in pairwise(BINS)), "|")
    print("|---|" + "---|" * (len(BINS) - 1))
    lines = {}
    for version, found in tables.items():
        name = TABLES[version][2]
        count, _, scatter = in_bins(found, FAINT, "off")
        number, middle, width = in_bins(found, BRIGHT, "mmag")
        lines[name] = scatter, middle, 1.25 * width / np.sqrt(np.maximum(number, 1))
        _row(f"{name}: faint, stars", count, "{:.0f}")
        _row("scatter, DN", scatter, "{:.0f}")
        _row("bright, stars", number, "{:.0f}")
        _row("m − m_true, mmag", middle, "{:+.1f}")
        _row("its error", lines[name][2], "{:.1f}")
    for name, one, other in (
        ("offsets", "v2", "v3"),
        ("pocket", "v2", "v4"),
        ("offsets after pocket", "v4", "v5"),
    ):
        _row(f"{name} change fluxes by, rms, DN", *changes(tables[one], tables[other]))
    if picture is not None:
        draw(picture, lines)


def changes(one: pd.DataFrame, other: pd.DataFrame) -> tuple[NDArray, str]:
    """Robust rms of the difference of the same stars' fluxes in two tables by distance, DN; noise is common."""
    key = ["exposure", "ccd", "id"]
    both = one.merge(other[[*key, "flux_10"]], on=key, suffixes=("", "_other"))
    off = both["flux_10_other"] - both["flux_10"]
    rms = off.abs().groupby(np.digitize(both["join"], BINS)).quantile(0.68)
    return rms.reindex(np.arange(1, len(BINS))).to_numpy(), "{:.0f}"


def _row(name: str, values: NDArray, form: str) -> None:
    print("|", " | ".join([name, *(form.format(v) if np.isfinite(v) else "–" for v in values)]), "|")


def draw(path: Path, lines: dict[str, tuple[NDArray, NDArray, NDArray]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    place = np.arange(len(BINS) - 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for i, (name, (scatter, middle, error)) in enumerate(lines.items()):
        left.plot(place, scatter, "o-", color=f"C{i}", label=name, markersize=4)
        right.errorbar(place + 0.06 * (i - 2), middle, error, fmt="o-", color=f"C{i}", label=name, markersize=4)
    right.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    left.set(title="stars of 1,500–10,000 DN", ylabel="scatter of the flux about the truth (DN)")
    right.set(title="stars of 10,000–60,000 DN", ylabel="m − m_true (mmag)")
    labels = [f"{max(a, 0):g}–{b:g}" for a, b in pairwise(BINS)]
    for panel in (left, right):
        panel.set_xticks(place, labels, rotation=45)
        panel.set_xlabel("distance to the join (pixels)")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def starflats(store: Path, folder: Path, shape: tuple[int, int]) -> None:
    """Fit starflats, and print m - mean of the star by distance to a join, without and with their maps."""
    known = read_catalogue(folder / "truth" / f"{NIGHT}_catalogue.fits")
    recipe = read_recipe("", ["starflat.nodes=[5, 5]", "starflat.resamples=0"])["starflat"]
    for version, (_, _, name) in TABLES.items():
        table = usable(ztfzarr.match_stars(ztfzarr.open_stars(store, version=version), catalogue=known), recipe)
        measurements = measurements_of(table, recipe["radius"])
        fit = fit_starflat(measurements, shape, settings_of(recipe))
        nodes = int(np.isfinite(fit.delta).sum())
        print(
            f"starflat of {name}: {int((fit.weight > 0).sum())} measurements, {nodes} nodes, chi2 {fit.chi2():.2f}"
        )
        before = without_map(fit.system, fit.weight, np.zeros_like(fit.delta), fit.extinction)
        for when, residual in (("without map", before), ("with map", fit.residual())):
            _row(f"m − m̃, mmag, {when}", 1e3 * join_means(fit, measurements, residual, BINS), "{:+.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the night is made, and kept")
    parser.add_argument("--shape", type=int, nargs=2, default=(400, 340), help="rows, columns of a quadrant")
    parser.add_argument("--ccds", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--dithers", type=int, default=16)
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    options = parser.parse_args()
    distances = [0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    print("| pixels from the join |", " | ".join(f"{d:g}" for d in distances), "|")
    print("|---|" + "---|" * len(distances))
    _row("moved by a step of 1 DN, DN", np.array(moved_by_a_step(distances)), "{:.0f}")
    lost_charge(distances)
    what = tuple(options.ccds), tuple(options.shape), options.dithers
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        store = make(folder, *what)
        known = truth(*what)
        tables = {v: identified(ztfzarr.open_stars(store, version=v), known, what[1]) for v in TABLES}
        report(tables, options.picture)
        starflats(store, folder, what[1])


if __name__ == "__main__":
    main()
