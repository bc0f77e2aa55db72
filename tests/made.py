"""Exposures of the simulated camera as Datasets, without files: what ``open_fits`` would give, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

from ztfzarr.geometry import QUADRANTS
from ztfzarr.simulate import Camera, Exposure, raw_ccd, schedule

TYPES = {"b": "bias", "f": "flat", "o": "object"}


def planned(kind: str, *, night: int = 20200801, seed: int = 1, **counts: int) -> list[Exposure]:
    """The exposures of one kind of a night."""
    plan = {"bias": 0, "flats": 0, "science": 0} | counts
    return [e for e in schedule(night, **plan, seed=seed) if e.kind == kind]


def exposed(
    camera: Camera, exposures: Sequence[Exposure], *, sky: np.ndarray | None = None, pocket: bool = False
) -> xr.Dataset:
    """Expose and read every CCD of a camera."""
    shots = [[raw_ccd(camera, e, int(ccd), sky=sky, pocket=pocket) for ccd in camera.ccd] for e in exposures]
    whole = (len(exposures), len(camera.ccd), len(QUADRANTS), *camera.shape)
    return dataset(
        np.array([[shot.images for shot in row] for row in shots], np.float32).reshape(whole),
        np.array([[shot.overscans for shot in row] for row in shots], np.float32),
        camera,
        exposures,
    )


def dataset(raw: np.ndarray, overscan: np.ndarray, camera: Camera, exposures: Sequence[Exposure]) -> xr.Dataset:
    """Pixels (time, ccd, quadrant, y, x) and what the headers say of them."""
    n = len(exposures)
    dims = ("time", "ccd", "quadrant")
    headers: dict[str, Any] = {
        "gain": (dims, np.tile(camera.nominal_gain, (n, 1, 1)), {"units": "electron DN-1"}),
        "read_noise": (dims, np.tile(camera.nominal_read_noise, (n, 1, 1)), {"units": "electron"}),
        "present": (dims[:2], np.ones((n, len(camera.ccd)), np.int8)),
    }
    labels: dict[str, Any] = {
        "time": np.array([e.shutter_open for e in exposures], "datetime64[ns]"),
        "ccd": camera.ccd,
        "quadrant": list(QUADRANTS),
        "y": np.arange(raw.shape[-2]),
        "x": np.arange(raw.shape[-1]),
        "imgtype": ("time", np.array([TYPES[e.kind] for e in exposures])),
        "filter": ("time", np.array([e.filter for e in exposures])),
        "led": ("time", np.array([e.led if e.kind == "f" else -1 for e in exposures])),
    }
    pixels = {
        "raw": ((*dims, "y", "x"), raw, {"units": "DN"}),
        "overscan": ((*dims, "y", "x_overscan"), overscan, {"units": "DN"}),
    }
    return xr.Dataset(pixels | headers, labels)


def truth_of(camera: Camera, name: str) -> xr.DataArray:
    """A map or number of the camera, labelled (ccd, quadrant, ...)."""
    values = getattr(camera, name)
    dims = ("ccd", "quadrant", "y", "x")[: values.ndim]
    return xr.DataArray(values, dims=dims, coords={"ccd": camera.ccd, "quadrant": list(QUADRANTS)})


def tables_only(graph: Any, keys: Any, **_options: Any) -> Any:
    """A dask scheduler for tables of exposures; pixels must wait."""
    results = dask.get(graph, keys)
    assert sum(np.size(part) for part in dask.core.flatten(results)) < 1000, "pixels were computed"
    return results
