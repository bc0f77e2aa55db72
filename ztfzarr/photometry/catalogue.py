"""Catalogues of stars: FITS, ECSV, CSV or Parquet files with ra, dec and, better, a magnitude."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from astropy.table import Table
from scipy.spatial import cKDTree

from ztfzarr.errors import RefusedError
from ztfzarr.photometry.matching import directions

# Other names of a column, in order of preference.
NAMES: Final = {
    "ra": ("ra", "raj2000", "ra_icrs", "alpha_j2000", "ramean"),
    "dec": ("dec", "dej2000", "de_icrs", "delta_j2000", "decmean"),
    "id": ("id", "source_id", "objid"),
    "colour": ("colour", "color", "g_r"),
}
FORMATS: Final = {".fits": "fits", ".fit": "fits", ".ecsv": "ascii.ecsv"}
MAGNITUDES: Final = ("mag", "magnitude", "rmag", "rmeanpsfmag", "phot_g_mean_mag")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A catalogue, :func:`read_catalogue`'s, of which parts of the sky are taken quickly."""

    entries: pd.DataFrame

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(directions(self.entries["ra"].to_numpy(), self.entries["dec"].to_numpy()))

    def around(self, ra: float, dec: float, radius: float) -> pd.DataFrame:
        """Return the entries within a radius of a position, degrees."""
        if not np.isfinite(ra + dec) or not len(self.entries):
            return self.entries[:0]
        chord = 2 * np.sin(np.radians(radius) / 2)
        near = self._tree.query_ball_point(directions(np.array([ra]), np.array([dec]))[0], chord)
        return self.entries.iloc[np.sort(np.asarray(near, np.intp))]


def read_catalogue(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a catalogue.

    Parameters
    ----------
    path : path
        ``.parquet``, ``.csv``, ``.ecsv``, or ``.fits`` (its first table); case of names does not matter.

    Returns
    -------
    DataFrame
        ``id`` int64 (the row where it has none), ``ra``, ``dec`` (degrees), ``colour`` where it has one, and
        ``zg``, ``zr``, ``zi`` (magnitudes): those columns, or one ``mag`` for all; NaN where it has neither. Rows
        without a position are left out.

    Raises
    ------
    RefusedError
        If it cannot be read, or has no ``ra`` and ``dec``.
    """
    table = _read(Path(path))
    table.columns = [str(name).lower() for name in table.columns]
    found: dict[str, np.ndarray] = {}
    for name, others in NAMES.items():
        known = next((other for other in others if other in table), None)
        if known is not None:
            found[name] = table[known].to_numpy(np.int64 if name == "id" else np.float64)
    lacking = [name for name in ("ra", "dec") if name not in found]
    if lacking:
        raise RefusedError(f"{path}: no column {lacking[0]}; expected ra, dec (degrees) and mag")
    found.setdefault("id", np.arange(len(table)))
    whole = pd.DataFrame(found | _magnitudes(table))
    return whole[np.isfinite(whole["ra"] + whole["dec"])].reset_index(drop=True)


def _magnitudes(table: pd.DataFrame) -> dict[str, np.ndarray]:
    general = next((name for name in MAGNITUDES if name in table), None)
    found = {}
    for band in ("zg", "zr", "zi"):
        name = band if band in table else general
        found[band] = np.full(len(table), np.nan) if name is None else table[name].to_numpy(np.float64)
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".csv":
            return pd.read_csv(path)
        if path.suffix in FORMATS:
            frame: pd.DataFrame = Table.read(path, format=FORMATS[path.suffix]).to_pandas()
            return frame
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise RefusedError(f"{path}: cannot be read as a catalogue ({str(error).splitlines()[0]})") from None
    raise RefusedError(f"{path}: expected a catalogue in .fits, .ecsv, .csv or .parquet")
