"""What is exported: each CCD of an exposure of the sky, or of a night's masters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr

from ztfzarr.errors import StoreError
from ztfzarr.recipe import Recipe
from ztfzarr.reduce.calibrated import open_science, recipe_of_science
from ztfzarr.reduce.starflat_map import at_pixels
from ztfzarr.store.check import Selection
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.opening import open_version
from ztfzarr.store.versions import find_version

PLANES: Final = ("mask", "variance", "count", "bad", "error")  # beside the image, where a product has them
NODES: Final = ("delta", "error", "error_formal", "count")  # of a starflat, as it was fitted
NUMBERS: Final = ("slope_u", "slope_u_error", "slope_v", "slope_v_error", "extinction", "extinction_error", "chi2",
                  "half_sample", "measurements", "stars")  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A CCD of an exposure or of a master.

    ``labels`` are night, filter and, of science, exposure and field; ``images`` has the image under the name of
    its kind, and its planes, each (quadrant, y, x), lazily indexed. ``made`` is what the store says of how it was
    made, and empty for science that is not stored but computed.
    """

    kind: str
    version: str
    ccd: int
    labels: dict[str, Any]
    images: xr.Dataset
    recipe: Recipe
    software: dict[str, str]
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for messages, as ``science/v1 exposure 20200801169199 CCD 2``."""
        what = f"exposure {self.labels['exposure']}" if "exposure" in self.labels else str(self.labels["night"])
        band = f" {self.labels['filter']}" if self.kind in ("flat", "starflat") else ""
        return f"{self.kind}/{self.version} {what}{band} CCD {self.ccd}"

    @property
    def places(self) -> list[int]:
        """Quadrants, each a file."""
        return [int(quadrant) for quadrant in self.images["quadrant"].values]

    def fields(self, quadrant: int) -> dict[str, Any]:
        """Return what the name of a quadrant's file can be made of."""
        return {**self.labels, "ccd": self.ccd, "quadrant": quadrant, "kind": self.kind, "version": self.version}


def frames(store: StoreLike, kind: str, version: str, selection: Selection) -> list[Frame]:
    """List the frames of a product that a selection has; science that is not stored is computed when it is read.

    Raises
    ------
    StoreError
        If a version of masters is not there, or of science with neither it nor masters to compute it.
    """
    if kind == "starflat":
        return list(_starflats(store, version, selection))
    if kind != "science":
        return list(_stored(store, kind, version, selection))
    found = find_version(open_objects(store), "science", version)
    stored = list(_stored(store, "science", version, selection)) if found is not None else []
    seen = {(frame.labels["exposure"], frame.ccd) for frame in stored}
    wanted = [key for key in _of_the_sky(store, selection) if key not in seen]
    rest = _computed(store, version, wanted) if wanted else []
    return sorted([*stored, *rest], key=lambda frame: (frame.labels["exposure"], frame.ccd))


def _stored(store: StoreLike, kind: str, version: str, selection: Selection) -> Iterator[Frame]:
    dataset = open_version(store, kind, version)
    night = dataset["night"].values
    rows = np.flatnonzero((selection.first_night <= night) & (night <= selection.last_night))
    dataset = dataset.isel({dataset["present"].dims[0]: rows})
    for name in ({*dataset.coords} | {"present", "provenance"}) - {"y", "x"}:
        dataset[name].load()  # once, not entry by entry
    made = (dataset["present"].values == 1) & np.isin(dataset["ccd"].values, selection.ccds)
    for place in np.argwhere(made).tolist():
        one = dataset.isel(dict(zip(dataset["present"].dims, place, strict=True)))
        said = json.loads(str(one["provenance"].values[()]) or "{}")
        yield _frame(kind, version, one, dataset.attrs["recipe"], dataset.attrs["software"], said)


def _starflats(store: StoreLike, version: str, selection: Selection) -> Iterator[Frame]:
    """Yield the maps of the filters whose exposures are of the selected nights, CCD by CCD, as far as they go."""
    dataset = open_version(store, "starflat", version)
    shape = dataset.sizes["y"], dataset.sizes["x"]
    software = dataset.attrs["software"]
    tables = dataset[[*NODES, *NUMBERS, "present", "provenance", "first_night", "last_night"]].load()
    for band in tables["filter"].values[tables["present"].values == 1].tolist():
        one = tables.sel(filter=band)
        first, last = int(one["first_night"]), int(one["last_night"])
        if first <= selection.last_night and last >= selection.first_night:
            labels = {"night": first, "filter": str(band), "field": 0}
            said = json.loads(str(one["provenance"].values[()]) or "{}")
            said["numbers"] = {name: float(one[name]) for name in NUMBERS if np.isfinite(one[name])}
            for ccd in (c for c in selection.ccds if np.isfinite(one["delta"].sel(ccd=c)).any()):
                images = _at_pixels(one[[*NODES]].sel(ccd=ccd), shape)
                yield Frame("starflat", version, ccd, labels, images, dataset.attrs["recipe"], software, said)


def _at_pixels(nodes: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """Evaluate a CCD's map and its error at pixels, lazily, beside what they are at nodes."""
    maps = at_pixels(nodes[["delta", "error"]], shape)
    return maps.rename(delta="starflat").assign({f"node_{name}": nodes[name] for name in NODES})


def _of_the_sky(store: StoreLike, selection: Selection) -> list[tuple[int, int]]:
    """List the exposures of the sky and CCDs that are in the cube."""
    cube = open_cube(store)
    night = cube["night"].values
    wanted = (
        (cube["imgtype"].values == "object") & (selection.first_night <= night) & (night <= selection.last_night)
    )
    present = (cube["present"].values == 1) & wanted[:, None] & np.isin(cube["ccd"].values, selection.ccds)
    exposures = cube["exposure"].values
    return [(int(exposures[t]), c + 1) for t, c in np.argwhere(present).tolist()]


def _computed(store: StoreLike, version: str, wanted: list[tuple[int, int]]) -> Iterator[Frame]:
    science = open_science(store, version=version)
    rows = {int(e): row for row, e in enumerate(science["exposure"].values)}
    recipe = recipe_of_science(open_objects(store), version)
    for exposure, ccd in wanted:
        one = science.isel(time=rows[exposure]).sel(ccd=ccd)
        stored = one if recipe["science"]["variance"] else one.drop_vars("variance")
        yield _frame("science", version, stored, recipe, {}, {})


def _frame(
    kind: str, version: str, one: xr.Dataset, recipe: Recipe, software: dict[str, str], made: dict[str, Any]
) -> Frame:
    labels: dict[str, Any] = {"night": int(one["night"]), "filter": "bi", "field": 0}
    if "filter" in one.coords:
        labels["filter"] = str(one["filter"].values[()])
    if kind == "science":
        labels |= {"exposure": int(one["exposure"]), "field": int(one["field"])}
    images = one[[kind, *(name for name in PLANES if name in one)]]
    return Frame(kind, version, int(one["ccd"]), labels, images, recipe, software, made)


def check_any(found: Sequence[Any], store: StoreLike, kind: str, version: str) -> None:
    """Raise StoreError if there is nothing to export."""
    if not found:
        raise StoreError(f"nothing of {kind}/{version} in {open_objects(store).location} is selected")
