"""Tables of the camera, copied into the package with their sources.

linearity_201803, _201910, _202004.csv
    a (DN^-2), b (DN^-1) of each quadrant; true = x / (a x^2 + b x + 1), x the overscan-subtracted DN.
    ZTF camera team: R. Smith 2018-03-28; S. Kaye 2019-09-27; S. Kaye 2020-04-27; compiled by F. Masci
    (IPAC); distributed with ztfimg (BSD-3-Clause).
pocket_v0.1.csv
    alpha, cmax (DN), beta, nmax (DN) of each quadrant: "default model (v0.1)", N. Regnault's ztfsensors.
quadrant_corners.csv
    Corners of each quadrant on the sky, degrees from the optical axis: ztfquery's quadrant layout.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@cache
def _columns(file: str) -> dict[str, NDArray[np.float64]]:
    lines = (files(__package__) / file).read_text().splitlines()
    rows = list(csv.DictReader(lines))
    numeric = [name for name in rows[0] if name != "amp"]
    return {name: np.array([float(row[name]) for row in rows]) for name in numeric}


def _per_quadrant(file: str, name: str) -> NDArray[np.float64]:
    table = _columns(file)
    values = np.full((16, 4), np.nan)
    values[table["ccd"].astype(int) - 1, table["quadrant"].astype(int) - 1] = table[name]
    if np.isnan(values).any():
        raise ValueError(f"{file}: expected a value of {name} for each of 16 CCDs x 4 quadrants")
    return values


def linearity(epoch: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a (DN^-2) and b (DN^-1), each (16 ccd, 4 quadrant), of a table: "201803", "201910", "202004"."""
    file = f"linearity_{epoch}.csv"
    return _per_quadrant(file, "a"), _per_quadrant(file, "b")


def pocket() -> dict[str, NDArray[np.float64]]:
    """Return alpha, cmax (DN), beta and nmax (DN), each (16 ccd, 4 quadrant)."""
    return {name: _per_quadrant("pocket_v0.1.csv", name) for name in ("alpha", "cmax", "beta", "nmax")}


def quadrant_corners() -> NDArray[np.float64]:
    """Return the corners of each quadrant, (64 rcid, 4 corner, 2: to the east, to the north), degrees.

    Some tables have the other sign east-west; this one agrees with the header of a real exposure.
    """
    table = _columns("quadrant_corners.csv")
    corners = np.stack([table["ew_deg"], table["ns_deg"]], axis=-1)
    return corners.reshape(64, 4, 2)[np.argsort(table["rcid"][::4])]
