"""How long a starflat takes, in how much memory, and how right it is, at some numbers of measurements.

    python benchmarks/starflat.py --measurements 3e5 1e6 --errors
    python benchmarks/starflat.py --measurements 3e5 --picture docs/pictures/starflat.png
    python benchmarks/starflat.py --images DIR

Each number is measured in a process of its own. The field is that of the tests: the whole camera, 32 dithers of
0.1 to 1.7 degrees, 3 % of illumination, 1 % of outliers. Memory is that of the process at its most, with the
simulation.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from starfields import catalogue_of, measurements_of, slopes_of, true_nodes, without_plane
from starflat_images import from_images

from ztfzarr.plot.show import rendered
from ztfzarr.plot.starflat import draw_starflat
from ztfzarr.simulate.measurements import StarfieldNight, simulate_starfield
from ztfzarr.starflat.errors import errors
from ztfzarr.starflat.fit import Fit, Settings, fit_starflat
from ztfzarr.starflat.nodes import between_nodes
from ztfzarr.starflat.plane import absorbed, fix_plane
from ztfzarr.starflat.validation import judged
from ztfzarr.store.starflat_variables import BRIGHTNESSES, JOINS

STARS = 12_000 / 146_169  # in the field, a measurement


def peak() -> float:
    """Memory of this process at its most, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def now() -> tuple[float, float]:
    """Read the clock, and the time that this process has had of the processors."""
    return time.perf_counter(), time.process_time()


def since(begun: tuple[float, float]) -> str:
    """Say how long it took, on the clock and of the processors, and the memory of this process at its most."""
    wall, own = (after - before for after, before in zip(now(), begun, strict=True))
    return f"{wall:.0f} s ({own:.0f} s of processors, {peak():.2f} GB)"


def measured(count: float, *, with_errors: bool, picture: Path | None) -> None:
    night = StarfieldNight(stars=round(count * STARS))
    field = simulate_starfield(night)
    m = measurements_of(field)
    before = peak()
    begun = now()
    fit = fit_starflat(m, night.shape, Settings())
    print(f"{len(m):,} measurements: fit {since(begun)}, {before:.2f} GB before", flush=True)
    off = without_plane(fit.delta - true_nodes(night, fit.settings.nodes), fit.settings.nodes)
    pixels = between_nodes(off, (308, 307))
    print(f"  off by {1e3 * np.nanstd(pixels):.2f} mmag rms over pixels, {1e3 * np.nanstd(off):.2f} at nodes")
    print(f"  chi2 {fit.chi2():.3f}, k {fit.extinction:.4f}, {(fit.weight == 0).mean():.1%} left out", flush=True)
    if with_errors:
        judge(fit, night, field, m, picture)


def judge(fit: Fit, night: StarfieldNight, field: Any, m: Any, picture: Path | None) -> None:
    """Time and judge the errors, the plane and the validation."""
    begun = now()
    catalogue, taken = catalogue_of(field), absorbed(fit)
    plane = fix_plane(fit, catalogue, taken)
    found = errors(fit, lambda one: fix_plane(one, catalogue, taken).slopes)
    count = fit.settings.nodes
    off = without_plane(fit.delta - true_nodes(night, count), count)
    sigma = np.sqrt(np.diag(plane.covariance + found.covariance))
    tilt = slopes_of(plane.fit.delta - true_nodes(night, count), count)
    print(f"  errors {since(begun)}: pulls {np.nanstd(off / found.delta):.2f} by jackknife,")
    print(
        f"  {np.nanstd(off / found.delta_formal):.2f} by the noise model; slopes off by {1e3 * tilt} mmag/degree,"
    )
    print(f"  their errors {1e3 * sigma}, pulls {tilt / sigma}", flush=True)
    begun = now()
    results = judged(fit, m, BRIGHTNESSES, JOINS)
    print(f"  validation {since(begun)}: half-sample {results['half_sample']:.3f}", flush=True)
    if picture is not None:
        title = f"a simulated field: {len(m):,} measurements in 32 dithers"
        figure = draw_starflat(page(plane.fit, found, results), title)
        picture.write_bytes(rendered(figure, "png", dpi=80))


def page(fit: Fit, found: Any, results: dict[str, Any]) -> xr.Dataset:
    """Arrange results as a stored starflat of one filter is."""
    cell = ("ccd", "quadrant", "cell_y", "cell_x")
    maps = {"delta": fit.delta, "error": found.delta}
    maps |= {name: results[name] for name in ("residual_before", "residual_after")}
    whole = {name: (cell, value.reshape(16, 4, *fit.settings.nodes)) for name, value in maps.items()}
    lines = {
        f"repeatability_{n}": ("brightness", results[f"repeatability_{n}"])
        for n in ("before", "after", "expected")
    }
    rest = {
        "exposure_residual": ("time", results["exposure_residual"]),
        "ccd_residual": ("ccd", results["ccd_residual"]),
    }
    labels = {"brightness": BRIGHTNESSES, "ccd": np.arange(1, 17), "exposure": ("time", fit.system.exposures)}
    return xr.Dataset(whole | lines | rest, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measurements", type=float, nargs="+", default=[3e5, 1e6])
    parser.add_argument("--errors", action="store_true", help="with errors and validation")
    parser.add_argument("--picture", type=Path, help="PNG to draw of the first")
    parser.add_argument("--images", type=Path, metavar="DIR", help="instead, a night from raw files, made in DIR")
    parser.add_argument("--shape", type=int, nargs=2, default=[385, 384], help="of its quadrants")
    parser.add_argument("--nodes", type=int, default=5, help="of its map along each axis of a quadrant")
    options = parser.parse_args()
    if options.images:
        from_images(options.images, tuple(options.shape), options.nodes)
        return
    if len(options.measurements) == 1:
        measured(
            options.measurements[0], with_errors=options.errors or bool(options.picture), picture=options.picture
        )
        return
    for i, count in enumerate(options.measurements):
        more = ["--errors"] * options.errors
        more += ["--picture", str(options.picture)] if options.picture and not i else []
        subprocess.run([sys.executable, __file__, "--measurements", str(count), *more], check=True)


if __name__ == "__main__":
    main()
