"""Quadrants, CCDs and the focal plane joined as they lie on the sky."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.geometry import CCD_LAYOUT, CCDS, FOCAL_PLANE, FULL_SHAPE, GAP_X, GAP_Y, QUADRANTS
from ztfzarr.steps.units import require_labels

Layout = Sequence[Sequence[int]]
Rows = list[list[xr.Variable]]

GAPS: Final = {"y": GAP_Y / FULL_SHAPE[0], "x": GAP_X / FULL_SHAPE[1]}  # of a quadrant; scale with its size


def mosaic(image: xr.DataArray) -> xr.DataArray:
    """Join quadrants north up, east left, as a chart shows the sky.

    Parameters
    ----------
    image : (..., [ccd], [quadrant], y, x)
        Stored orientation. Without ``quadrant`` it is a quadrant, without ``ccd`` a CCD, with both the focal
        plane, in which CCDs and quadrants that ``image`` lacks stay empty.

    Returns
    -------
    (..., north, west)
        Row 0 is the southern edge and column 0 the eastern: drawn with row 0 at the bottom, a CCD is q1 q2 over
        q4 q3 and the focal plane's top row 13 14 15 16. ``north`` and ``west`` count pixels from the corner,
        ``y`` and ``x`` along them are the stored rows and columns. Gaps, where ``y`` and ``x`` are NaN, hold
        NaN, or 0 in integers. Lazy if ``image`` is chunked.

    Raises
    ------
    ValueError
        If CCDs or quadrants have no labels, or others than 1-16 and 1-4.

    Notes
    -----
    Stored row 0 is the northern edge of a quadrant and stored column 0 the eastern: CD matrix of the real
    quadrant. Gaps are 488 x 672 of 3072 x 3080 pixels; sources differ by up to 30.
    """
    return _joined(image, "west")


def camera_mosaic(image: xr.DataArray) -> xr.DataArray:
    """Join quadrants north up, **east right**, as the camera's drawings show it.

    A CCD is q2 q1 over q3 q4 and the top row 16 15 14 13; dimensions are ``north`` and ``east``, counted from the
    south-western corner. Otherwise as :func:`mosaic`.
    """
    return _joined(image, "east")


def _joined(image: xr.DataArray, across: str) -> xr.DataArray:
    check_labels(image)
    step = {d: _step(image, d) for d in ("y", "x")}
    parts = {
        tuple(image[d].values[i] for d, i in place.items()): _turned(image.variable.isel(place), across)
        for place in _places(image)
    }
    blank = xr.full_like(next(iter(parts.values())), _nothing(image.dtype))
    data = _focal_plane(image, lambda *key: parts.get(key, blank), across)
    made = xr.DataArray(data, name=image.name, attrs=image.attrs)
    scalars = {n: c for n, c in image.coords.items() if not c.ndim}
    ends = {"north": ("y", True), across: ("x", across == "east")}
    for dim, (stored, runs_back) in ends.items():
        made[dim] = (np.arange(made.sizes[dim]) + 0.5) * step[stored] - 0.5
        made[dim].attrs = {"long_name": f"pixels to the {dim}"}
        made = made.assign_coords({stored: (dim, _stored_labels(image, stored, runs_back))})
    return made.assign_coords(scalars)


def check_labels(image: xr.DataArray) -> None:
    """Raise ValueError unless an image has the dimensions and labels of the camera."""
    missing = {"y", "x"} - set(image.dims) | ({"quadrant"} - set(image.dims) if "ccd" in image.dims else set())
    if missing:
        raise ValueError(f"{image.name or 'image'} has no dimension {', '.join(sorted(missing))}: {image.dims}")
    require_labels(image, "ccd", "quadrant")
    for dim, known in (("ccd", CCDS), ("quadrant", QUADRANTS)):
        labels = image[dim].values.tolist() if dim in image.dims else []
        if set(labels) - set(known) or len(set(labels)) < len(labels):
            raise ValueError(f"{dim} {labels}: expected labels from {known[0]} to {known[-1]}, each once")


def _places(image: xr.DataArray) -> list[dict[str, int]]:
    dims = [d for d in ("ccd", "quadrant") if d in image.dims]
    return [dict(zip(dims, place, strict=True)) for place in np.ndindex(*(image.sizes[d] for d in dims))]


def _turned(quadrant: xr.Variable, across: str) -> xr.Variable:
    """Turn a stored quadrant so that rows run north and columns as named."""
    back = slice(None, None, -1)
    turned = quadrant.isel(y=back, x=back) if across == "east" else quadrant.isel(y=back)
    ordered = turned.transpose(..., "y", "x")
    return xr.Variable((*ordered.dims[:-2], "north", across), ordered.data)


def _nothing(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else 0


def _focal_plane(image: xr.DataArray, part: Callable[..., xr.Variable], across: str) -> xr.Variable:
    """Join the parts that an image has: one, those of a CCD, or those of all CCDs."""
    if "quadrant" not in image.dims:
        return part()
    if "ccd" not in image.dims:
        return _grid(_rows(CCD_LAYOUT, across, part), {}, across)
    ccds = _rows(
        FOCAL_PLANE, across, lambda ccd: _grid(_rows(CCD_LAYOUT, across, lambda q: part(ccd, q)), {}, across)
    )
    gaps = {"north": gap(image, "y"), across: gap(image, "x")}
    return _grid(ccds, gaps, across)


def _rows(layout: Layout, across: str, part: Callable[..., xr.Variable]) -> Rows:
    """Arrange parts from south to north; layouts are drawn north up, east right."""
    order = slice(None, None, 1 if across == "east" else -1)
    return [[part(label) for label in row[order]] for row in layout[::-1]]


def _grid(rows: Rows, gaps: dict[str, int], across: str) -> xr.Variable:
    return _strip([_strip(row, across, gaps.get(across, 0)) for row in rows], "north", gaps.get("north", 0))


def _strip(parts: list[xr.Variable], dim: str, width: int) -> xr.Variable:
    """Join parts along a dimension, with gaps between them."""
    if not width:
        return _concatenated(parts, dim)
    empty = xr.full_like(parts[0].isel({dim: slice(0, width)}), _nothing(parts[0].dtype))
    between = [piece for part in parts for piece in (empty, part)]
    return _concatenated(between[1:], dim)


def _concatenated(parts: list[xr.Variable], dim: str) -> xr.Variable:
    joined: xr.Variable = xr.Variable.concat(parts, dim)  # type: ignore[no-untyped-call]
    return joined


def gap(image: xr.DataArray, stored: str) -> int:
    """Return the gap between CCDs along ``y`` or ``x``, in the image's own (binned) pixels."""
    return round(image.sizes[stored] * GAPS[stored])


def _step(image: xr.DataArray, dim: str) -> float:
    """Return the stored pixels that a pixel of the image stands for."""
    labels = image[dim].values if dim in image.coords else np.arange(image.sizes[dim])
    return float(labels[-1] - labels[0]) / (len(labels) - 1) if len(labels) > 1 else 1.0


def _stored_labels(image: xr.DataArray, dim: str, runs_back: bool) -> NDArray[np.float64]:
    """Lay the stored labels along the mosaic, NaN in gaps."""
    own = np.asarray(image[dim].values if dim in image.coords else np.arange(image.sizes[dim]), np.float64)
    ccd = np.tile(own[::-1] if runs_back else own, 2 if "quadrant" in image.dims else 1)
    if "ccd" not in image.dims:
        return ccd
    nothing = np.full(gap(image, dim), np.nan)
    return np.concatenate([ccd, *(part for _ in range(len(FOCAL_PLANE) - 1) for part in (nothing, ccd))])


def quadrant_boxes(image: xr.DataArray, across: str) -> dict[tuple[int, ...], tuple[float, float, float, float]]:
    """Say where quadrants lie in a mosaic: left, bottom, width, height in unbinned pixels.

    Keys are (ccd, quadrant), (quadrant,) or (), for all the places there are, also those that ``image`` lacks.
    """
    width, height = (image.sizes[d] * _step(image, d) for d in ("x", "y"))
    if "quadrant" not in image.dims:
        return {(): (-0.5, -0.5, width, height)}
    quadrants = {(q,): (i * width, j * height) for q, i, j in _cells(CCD_LAYOUT, across)}
    if "ccd" not in image.dims:
        return {q: (x - 0.5, y - 0.5, width, height) for q, (x, y) in quadrants.items()}
    pitch = [(2 * image.sizes[d] + gap(image, d)) * _step(image, d) for d in ("x", "y")]
    return {
        (ccd, *q): (i * pitch[0] + x - 0.5, j * pitch[1] + y - 0.5, width, height)
        for ccd, i, j in _cells(FOCAL_PLANE, across)
        for q, (x, y) in quadrants.items()
    }


def _cells(layout: Layout, across: str) -> list[tuple[int, int, int]]:
    """Return the labels of a layout, each with its column and row from the bottom left."""
    rows = [row[:: 1 if across == "east" else -1] for row in layout[::-1]]
    return [(label, i, j) for j, row in enumerate(rows) for i, label in enumerate(row)]
