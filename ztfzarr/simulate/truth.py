"""The truth beside the files: what a reduction should find, as a Zarr group that xarray opens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from astropy.table import Table
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

from ztfzarr.geometry import FILTER_IDS, QUADRANTS
from ztfzarr.simulate.camera import LEDS, SOURCES, Camera
from ztfzarr.simulate.camera import camera as make_camera
from ztfzarr.simulate.conditions import Conditions, conditions, with_amplifier_steps
from ztfzarr.simulate.focal_plane import TERMS, coordinates
from ztfzarr.simulate.quantities import quantities
from ztfzarr.simulate.scene import Stars, sky_window, stars
from ztfzarr.simulate.schedule import Exposure
from ztfzarr.simulate.starfield import EXTINCTION, NODES, ZERO_POINT, Catalogue, illumination_error


def truth(
    camera: Camera,
    exposures: Sequence[Exposure],
    *,
    sky: NDArray[np.float32] | None = None,
    amplifier_step: float = 0.0,
) -> xr.Dataset:
    """Collect everything the model draws for a camera and a night.

    Parameters
    ----------
    camera : Camera
        Of the CCDs wanted.
    exposures : sequence of Exposure
        The night.
    sky : (y, x) float32, DN, optional
        The image of the sky that was exposed instead of made stars.
    amplifier_step : float
        DN; see :func:`~ztfzarr.simulate.detector.raw_ccd`.

    Returns
    -------
    Dataset
        Maps and numbers of each quadrant, values of each exposure; of each field the stars, or where in the
        image of the sky a quadrant looks; with units.
    """
    fields = sorted({e.field for e in exposures if not e.dither} - {0})
    parts = [_of_camera(camera), _of_focal_plane(camera)]
    if fields:
        parts.append(_of_stars(camera, fields) if sky is None else _of_windows(camera, fields, sky))
    if any(e.dither for e in exposures):
        parts.append(_of_starflat(camera))
    if exposures:
        parts.append(_of_exposures(camera, exposures, amplifier_step))
    attrs = {"title": "truth of a simulated night of ZTF", "seed": camera.seed}
    return xr.merge(parts, compat="equals", join="exact").assign_attrs(attrs)


def write_truth(
    path: Path,
    ccds: Sequence[int],
    shape: tuple[int, int],
    seed: int,
    exposures: Sequence[Exposure],
    *,
    sky: NDArray[np.float32] | None = None,
    colour_term: float = 0.0,
    amplifier_step: float = 0.0,
) -> None:
    """Write the truth of a night, CCD after CCD: memory holds the maps of one.

    Parameters
    ----------
    path : Path
        A Zarr group, replaced if it exists.
    ccds, shape, seed
        Of the camera.
    exposures : sequence of Exposure
        The night.
    sky, amplifier_step
        See :func:`truth`.
    colour_term : float
        Of the starflat's stars, kept among the attributes.
    """
    for i, ccd in enumerate(ccds):
        one = truth(make_camera([ccd], shape, seed), exposures, sky=sky, amplifier_step=amplifier_step)
        one = one.assign_attrs(colour_term=colour_term) if any(e.dither for e in exposures) else one
        if i == 0:
            one.to_zarr(path, mode="w", zarr_format=3, consolidated=False)
        else:
            of_ccd = one.drop_vars([name for name in one.variables if "ccd" not in one[name].dims])
            of_ccd.to_zarr(path, append_dim="ccd", zarr_format=3, consolidated=False)
    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 leaves consolidated metadata open; xarray reads them.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(path)


def write_catalogue(path: Path, stars: Catalogue) -> None:
    """Write the catalogue of a field: id, ra, dec (degrees), zg, zr, zi (magnitudes), colour (g - r)."""
    columns = {"id": np.arange(stars.ra.size), "ra": stars.ra, "dec": stars.dec, "colour": stars.colour}
    Table(columns | dict(zip(FILTER_IDS.values(), stars.magnitude, strict=True))).write(path, overwrite=True)


def _of_starflat(camera: Camera) -> xr.Dataset:
    """Collect the error of illumination on nodes, from edge to edge of quadrants, zero points and extinction."""
    node, filters = np.linspace(0, 1, NODES), list(FILTER_IDS.values())
    where = [(int(c), q) for c in camera.ccd for q in QUADRANTS]
    maps = [[illumination_error(camera.seed, f, *w, node, node[:, np.newaxis]) for w in where] for f in filters]
    error = np.reshape(maps, (len(filters), len(camera.ccd), len(QUADRANTS), NODES, NODES))
    part = {"units": "1", "long_name": "part of the quadrant from its first stored edge; pixel = part n - 0.5"}
    dims = ("filter", "ccd", "quadrant", "node_y", "node_x")
    of_error = {"units": "1", "long_name": "light of the sky relative to what dome flats tell"}
    names = {"zero_point": ZERO_POINT, "extinction": EXTINCTION}
    units = {"zero_point": "mag", "extinction": "mag per airmass"}
    numbers = {n: ("filter", [values[f] for f in filters], {"units": units[n]}) for n, values in names.items()}
    return xr.Dataset(
        {"illumination_error": (dims, error, of_error), **numbers},
        {"filter": np.array(filters, object), "node_y": ("node_y", node, part), "node_x": ("node_x", node, part)},
    )


def _of_camera(camera: Camera) -> xr.Dataset:
    arrays = {
        name: (what.dims.split(), getattr(camera, name), what.attrs) for name, what in quantities(Camera).items()
    }
    labels = {
        "quadrant": np.array(QUADRANTS),
        "power": np.arange(1, camera.drift.shape[-1] + 1),
        "led": np.array(LEDS),
        "source": np.array(SOURCES, object),
        "term": np.array(TERMS, object),
    }
    return xr.Dataset(arrays, labels).set_coords("ccd")


def _of_focal_plane(camera: Camera) -> xr.Dataset:
    plane = [[coordinates(int(ccd), q, camera.shape) for q in QUADRANTS] for ccd in camera.ccd]
    u, v = (np.array([[place[i] for place in row] for row in plane]) for i in (0, 1))
    of_u = {"units": "1", "long_name": "place in the focal plane, west -1 to east 1"}
    of_v = {"units": "1", "long_name": "place in the focal plane, north -1 to south 1"}
    return xr.Dataset({"u": (("ccd", "quadrant", "x"), u, of_u), "v": (("ccd", "quadrant", "y"), v, of_v)})


def _of_exposures(camera: Camera, exposures: Sequence[Exposure], amplifier_step: float) -> xr.Dataset:
    def of(exposure: Exposure, ccd: int) -> Conditions:
        return with_amplifier_steps(conditions(camera, exposure, ccd), camera, exposure, ccd, amplifier_step)

    table = [[of(e, int(ccd)) for ccd in camera.ccd] for e in exposures]
    arrays = {
        name: (("time", "ccd", *what.dims.split()), _stack(table, name), what.attrs)
        for name, what in quantities(Conditions).items()
    }
    time = np.array([e.shutter_open for e in exposures], "datetime64[us]")
    number = ("time", np.array([e.number for e in exposures]), {"long_name": "filefracday, YYYYMMDDFFFFFF"})
    made = xr.Dataset(arrays, {"time": time, "exposure": number})
    made.time.encoding = {"units": "microseconds since 1970-01-01", "dtype": "int64"}
    return made


def _stack(table: list[list[Conditions]], name: str) -> np.ndarray[Any, Any]:
    values = np.array([[getattr(now, name) for now in row] for row in table])
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _of_windows(camera: Camera, fields: list[int], sky: NDArray[np.float32]) -> xr.Dataset:
    shape = sky.shape[0], sky.shape[1]
    corner = np.array(
        [[[sky_window(camera.seed, f, int(c), q, shape) for q in QUADRANTS] for c in camera.ccd] for f in fields]
    )
    dims = ("field", "ccd", "quadrant")
    row, column = (
        {"units": "pixel", "long_name": f"{axis} of the sky's image on stored pixel (0, 0), at perfect pointing"}
        for axis in ("row", "column")
    )
    return xr.Dataset(
        {"sky_row": (dims, corner[..., 0], row), "sky_column": (dims, corner[..., 1], column)}, {"field": fields}
    )


def _of_stars(camera: Camera, fields: list[int]) -> xr.Dataset:
    dims, pixel = ("field", "ccd", "quadrant", "star"), {"units": "pixel", "long_name": "stored, 0-based"}
    x, y, flux = (_star_table(camera, fields, name) for name in ("x", "y", "flux"))
    light = {"units": "DN", "long_name": "total flux before illumination and response"}
    return xr.Dataset(
        {"star_x": (dims, x, pixel), "star_y": (dims, y, pixel)}
        | {"star_flux": ((*dims[:-1], "filter", "star"), flux, light)},
        {"field": fields, "filter": np.array(list(FILTER_IDS.values()), object)},
    )


def _star_table(camera: Camera, fields: list[int], name: str) -> np.ndarray[Any, Any]:
    def of(field: int, ccd: int, quadrant: int) -> Stars:
        return stars(camera.seed, field, ccd, quadrant, camera.shape)

    return np.array([[[getattr(of(f, int(c), q), name) for q in QUADRANTS] for c in camera.ccd] for f in fields])
