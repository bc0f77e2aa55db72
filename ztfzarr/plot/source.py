"""What to show of a store: one entry of raw, of a master or of science, by the labels that users know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.plot.axes import dashed, described
from ztfzarr.plot.image import by_quadrant
from ztfzarr.reduce.calibrated import open_science
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.versions import find_version

KINDS: Final = ("raw", "bias", "flat", "science", "mask")


@dataclass(frozen=True)
class Wanted:
    """What is asked for: a kind and version, and labels that narrow it down; the last that fits is shown.

    ``nights`` are the first and last, YYYYMMDD; ``ccd`` None is the focal plane, ``quadrant`` None the CCD.
    """

    kind: str
    version: str = "v1"
    nights: tuple[int, int] = (0, 99999999)
    exposure: int | None = None
    filter: str | None = None
    ccd: int | None = None
    quadrant: int | None = None


@dataclass(frozen=True)
class Shown:
    """One image, chunked by quadrant; its title; and ``others``, how many more entries fit."""

    array: xr.DataArray
    title: str
    others: int


def chosen(store: StoreLike, wanted: Wanted) -> Shown:
    """Choose an image of a store.

    Raises
    ------
    StoreError
        If nothing fits, saying what there is.
    """
    dataset, variable, name = _opened(store, wanted)
    array, others = _entry(dataset, variable, wanted, name)
    line = described(array).partition("\n")[2]
    head = f"raw {array['imgtype'].values[()]}" if wanted.kind == "raw" else name
    return Shown(array, f"{head}\n{line}", others)


def subtracted(store: StoreLike, wanted: Wanted, version: str) -> Shown:
    """Choose an image, and subtract the same of another version."""
    one = chosen(store, wanted)
    labels = {n: c.values[()] for n, c in one.array.coords.items() if not c.ndim}
    same: dict[str, Any] = {"exposure": int(labels["exposure"])} if "exposure" in labels else {}
    night = int(labels["night"])
    same |= {"nights": (night, night)} | ({"filter": str(labels["filter"])} if wanted.kind == "flat" else {})
    other = chosen(store, replace(wanted, version=version, **same))
    mine, yours = xr.align(one.array, other.array.reset_coords(drop=True), join="inner")
    array = (mine - yours).assign_attrs(one.array.attrs).rename(one.array.name)
    array.attrs["long_name"] = f"{wanted.version} − {version}"
    line = one.title.partition("\n")[2]
    return Shown(array, f"{wanted.kind} {wanted.version} − {version}\n{line}", one.others)


def _opened(store: StoreLike, wanted: Wanted) -> tuple[xr.Dataset, str, str]:
    """Open the group that has what is wanted: Dataset, variable, and a name for the title."""
    name = f"{wanted.kind} {wanted.version}"
    if wanted.kind == "raw":
        return open_cube(store), "raw", "raw"
    if wanted.kind in ("bias", "flat"):
        return open_version(store, wanted.kind, wanted.version), wanted.kind, name
    name = name if wanted.kind == "science" else f"mask of science {wanted.version}"
    if find_version(open_objects(store), "science", wanted.version) is not None:
        stored = open_version(store, "science", wanted.version)
        if rows_of(stored, wanted).size:
            return stored, wanted.kind, name
    return open_science(store, version=wanted.version), wanted.kind, f"{name}, computed"


def _entry(dataset: xr.Dataset, variable: str, wanted: Wanted, name: str) -> tuple[xr.DataArray, int]:
    """Pick the last entry that fits, with the CCDs that it has."""
    rows = rows_of(dataset, wanted)
    if not rows.size:
        raise StoreError(f"no {name} of {_asked(wanted)}: {_there(dataset)}")
    dim = "night" if "night" in dataset.dims else "time"
    one = dataset.isel({dim: int(rows[-1])})
    others = len(rows) - 1
    if "filter" in one.dims:
        made = one["filter"].values[(_made(one, wanted)).any(axis=-1)].tolist()
        one, others = one.sel(filter=wanted.filter or made[0]), others + len(made) - 1
    present = one["ccd"].values[_made(one, wanted)].tolist()
    # Chunked first: zarr reads lists of CCDs of a sharded array pixel by pixel, 10 times slower than slices.
    image = by_quadrant(one[variable]).sel(ccd=present)
    if wanted.ccd is not None:
        image = image.sel(ccd=wanted.ccd)
    return (image if wanted.quadrant is None else image.sel(quadrant=wanted.quadrant)), others


def rows_of(dataset: xr.Dataset, wanted: Wanted) -> NDArray[np.intp]:
    """Return the rows of a group that have what is wanted."""
    dim = "night" if "night" in dataset.dims else "time"
    night = dataset["night"].values
    fits = (night >= wanted.nights[0]) & (night <= wanted.nights[1])
    if dim == "time":
        fits &= (dataset["exposure"].values == wanted.exposure) if wanted.exposure is not None else True
        fits &= (dataset["filter"].values == wanted.filter) if wanted.filter is not None else True
    made = _made(dataset, wanted)
    return np.flatnonzero(fits & made.reshape(len(made), -1).any(axis=1))


def _made(dataset: xr.Dataset, wanted: Wanted) -> NDArray[np.bool_]:
    """Say what is made, (..., ccd), of the CCD and filter that are wanted."""
    present = dataset["present"]
    made = np.asarray(present.values == 1)
    if wanted.ccd is not None:
        made = made & (dataset["ccd"].values == wanted.ccd)
    if wanted.filter is not None and "filter" in present.dims:
        made = made & (dataset["filter"].values == wanted.filter)[:, None]
    return made


def _asked(wanted: Wanted) -> str:
    first, last = wanted.nights
    night = [] if (first, last) == (0, 99999999) else [dashed(first) if first == last else f"{first}:{last}"]
    parts = [
        *night,
        *([f"exposure {wanted.exposure}"] if wanted.exposure is not None else []),
        *([str(wanted.filter)] if wanted.filter is not None else []),
        *([f"CCD {wanted.ccd}"] if wanted.ccd is not None else []),
    ]
    return ", ".join(parts) or "anything"


def _there(dataset: xr.Dataset) -> str:
    """Say what a group has, for whoever asked for something else."""
    made = np.asarray(dataset["present"].values == 1)
    rows = made.reshape(len(made), -1).any(axis=1)
    if not rows.any():
        return "nothing is made yet"
    nights = np.unique(dataset["night"].values[rows])
    ccds = np.flatnonzero(made.reshape(-1, made.shape[-1]).any(axis=0)) + 1
    span = dashed(int(nights[0])) + ("" if len(nights) == 1 else f" to {dashed(int(nights[-1]))}")
    return f"there is night {span}, CCD {_listed(ccds.tolist())}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
