"""A starflat on one page: the map, its error, what stars show before and after it, and how well they repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.plot.axes import INK, dashed
from ztfzarr.starflat.nodes import Nodes
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.opening import open_version

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE: Final = (13.0, 8.2)  # inches
MAPS: Final = (
    ("delta", "map δ", "RdBu_r"),
    ("residual_before", "m − m̃ without the map", "RdBu_r"),
    ("residual_after", "m − m̃ with the map", "RdBu_r"),
    ("error", "error of δ (jackknife)", "viridis"),
)
BEFORE: Final = "#D55E00"
AFTER: Final = "#0072B2"


def starflat_of(store: StoreLike, *, version: str = "v1", band: str | None = None) -> xr.Dataset:
    """Choose a filter's tables of a starflat: the one asked for, else the first that is made.

    Raises
    ------
    StoreError
        If there is none, saying what there is.
    """
    dataset = open_version(open_objects(store), "starflat", version)
    made = dataset["filter"].values[dataset["present"].values == 1].tolist()
    if not made or band not in (None, *made):
        raise StoreError(
            f"no starflat {version} of {band or 'any filter'}: there is {', '.join(made) or 'none yet'}"
        )
    chosen = dataset.sel(filter=band or made[0])
    return chosen.isel(time=np.flatnonzero(chosen["exposure_filter"].values == str(chosen["filter"].values)))


def title_of(dataset: xr.Dataset, version: str) -> str:
    """Say in a line what a starflat is."""
    plane = "undetermined"
    if np.isfinite(dataset["slope_u"]):
        pairs = [[1000 * float(dataset[f"slope_{d}{of}"]) for of in ("", "_error")] for d in "uv"]
        plane = f"({', '.join(f'{slope:.2f} ± {error:.2f}' for slope, error in pairs)}) mmag/degree"
    nights = " to ".join(dict.fromkeys(dashed(int(dataset[n])) for n in ("first_night", "last_night")))
    counts = f"{int(dataset['measurements']):,} measurements of {int(dataset['stars']):,} stars"
    fitted = f"χ²/ν {float(dataset['chi2']):.2f}, half-sample {float(dataset['half_sample']):.2f}"
    k = f"k {float(dataset['extinction']):.3f} ± {float(dataset['extinction_error']):.3f}"
    return (
        f"starflat {version} {dataset['filter'].values[()]} · {nights} · {counts}\nplane {plane} · {k} · {fitted}"
    )


def draw_starflat(dataset: xr.Dataset, title: str) -> Figure:
    """Draw a starflat and its validation, without pyplot and its windows.

    Parameters
    ----------
    dataset : Dataset
        Of one filter, from :func:`starflat_of`.
    title : str
        Of the page.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'ztfzarr[plot]'") from None
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots(2, 3)
    figure.suptitle(title, fontsize=9, color=INK)
    shown = dataset["delta"].values, dataset["residual_before"].values
    largest = 1000 * max(float(np.nanpercentile(np.abs(v), 98)) for v in shown)
    for ax, (name, label, colours) in zip(axes.flat, MAPS, strict=False):
        limits = (-largest, largest) if name != "error" else (0.0, None)
        _focal_plane(ax, 1000 * dataset[name].values, label, colours, limits)
    _repeatability(axes[1, 1], dataset)
    _by_exposure(axes[1, 2], dataset)
    return figure


def _focal_plane(
    ax: Axes, values: NDArray[np.floating], label: str, colours: str, limits: tuple[float, float | None]
) -> None:
    """Draw values at the nodes, (ccd, quadrant, cell_y, cell_x), north up and east left."""
    nodes = Nodes((1, 1), (values.shape[2], values.shape[3]))
    u, v = (w.reshape(values.shape) for w in nodes.focal_plane())
    high = limits[1] if limits[1] is not None else float(np.nanmax(values))
    drawn: Any = None
    for place in np.ndindex(values.shape[:2]):
        if np.isfinite(values[place]).any():
            drawn = ax.pcolormesh(
                u[place], v[place], np.ma.masked_invalid(values[place]), cmap=colours, vmin=limits[0], vmax=high,
                shading="nearest", rasterized=True,
            )  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, label="mmag")
    ax.set(title=label, xlabel="u, degrees to the east", ylabel="v, degrees to the north", aspect="equal")
    ax.invert_xaxis()


def _repeatability(ax: Axes, dataset: xr.Dataset) -> None:
    brightness = dataset["brightness"].values
    for name, colour, style in (("before", BEFORE, "o-"), ("after", AFTER, "o-"), ("expected", INK, "--")):
        label = {"before": "without the map", "after": "with it", "expected": "noise model and floor"}[name]
        ax.plot(brightness, 1000 * dataset[f"repeatability_{name}"], style, color=colour, ms=3, lw=1, label=label)
    ax.set(title="repeatability of stars", xlabel="instrumental magnitude", ylabel="rms, mmag", yscale="log")
    ax.legend(frameon=False, fontsize=7)


def _by_exposure(ax: Axes, dataset: xr.Dataset) -> None:
    order = np.argsort(dataset["exposure"].values)
    number = np.arange(order.size)
    ax.plot(number, 1000 * dataset["exposure_residual"].values[order], "o", color=AFTER, ms=3)
    ax.set(title="rms of m − model: exposures, and CCDs below", xlabel="exposure", ylabel="mmag")
    ax.set_ylim(bottom=0)
    pairs = zip(dataset["ccd"].values.tolist(), dataset["ccd_residual"].values.tolist(), strict=True)
    ccds = [f"{ccd}: {1000 * residual:.1f}" for ccd, residual in pairs if np.isfinite(residual)]
    rows = ["  ".join(ccds[i : i + 6]) for i in range(0, len(ccds), 6)]
    ax.text(0.03, 0.03, "\n".join(rows), transform=ax.transAxes, fontsize=6, color=INK, va="bottom")
