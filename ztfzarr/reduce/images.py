"""Images of masters as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from ztfzarr.store.group import array_of
from ztfzarr.store.versions import Version

UNITS = {"bias": "DN", "flat": "1"}


def read_master(version: Version, place: tuple[int, ...], names: Iterable[str], ccd: int) -> xr.Dataset:
    """Read images of an entry, each (ccd 1, quadrant, y, x), with labels.

    Parameters
    ----------
    version : Version
        Of kind ``bias`` or ``flat``.
    place : tuple of int
        Indices along the entry dimensions.
    names : iterable of str
        Arrays.
    ccd : int
        Label.
    """
    group = version.open()
    dims = ("ccd", "quadrant", "y", "x")
    variables: dict[str, Any] = {}
    for name in names:
        values = np.asarray(array_of(group, name)[place])[np.newaxis]
        units = {version.kind: UNITS[version.kind], "variance": "DN2" if version.kind == "bias" else "1"}
        variables[name] = (dims, values, {"units": units[name]} if name in units else {})
    labels = {n: np.asarray(array_of(group, n)[...]) for n in ("quadrant", "y", "x")}
    return xr.Dataset(variables, {"ccd": [ccd], **labels})
