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
        ``.parquet``, ``.csv``, ``.ecsv``, or ``.fits`` (its first table), the last three also ``.gz``; case of
        names does not matter.

    Returns
    -------
    DataFrame
        ``id`` int64, from 0 on (the row where it has none), ``ra``, ``dec`` (degrees), ``colour`` where it has
        one, and ``zg``, ``zr``, ``zi`` (magnitudes): those columns, or one ``mag`` for all; NaN where it has
        neither. Rows without a position are left out.

    Raises
    ------
    RefusedError
        If it cannot be read, has no ``ra`` and ``dec``, or a column that is used is not numbers; if an ``id`` is
        missing, or that of two stars; if a declination is beyond 90 degrees.
    """
    table = _read(Path(path))
    table.columns = [str(name).lower() for name in table.columns]
    table = table.loc[:, ~table.columns.duplicated()]
    try:
        whole = _columns(table)
    except ValueError as error:
        raise RefusedError(f"{path}: {error}") from None
    return whole[np.isfinite(whole["ra"] + whole["dec"])].reset_index(drop=True)


def _columns(table: pd.DataFrame) -> pd.DataFrame:
    """Take the columns that are used, by any of their names; ValueError if one is lacking or makes no sense."""
    found: dict[str, np.ndarray] = {}
    for name, others in NAMES.items():
        known = next((other for other in others if other in table), None)
        if known is not None:
            found[name] = _identifiers(table[known]) if name == "id" else _numbers(table[known])
    lacking = [name for name in ("ra", "dec") if name not in found]
    if lacking:
        raise ValueError(f"no column {lacking[0]}; expected ra, dec (degrees) and mag")
    beyond = found["dec"][np.abs(found["dec"]) > 90]
    if beyond.size:
        raise ValueError(f"a declination of {beyond[0]:g}: expected degrees")
    found.setdefault("id", np.arange(len(table)))
    whole = pd.DataFrame(found | _magnitudes(table)).drop_duplicates(["id", "ra", "dec"])  # queries overlap
    again = whole["id"][whole["id"].duplicated()]
    if len(again):
        raise ValueError(f"two stars have id {again.iloc[0]}: they would be fitted as one")
    return whole


def _numbers(column: pd.Series) -> np.ndarray:
    """Return a column as float64, NaN where it has no value."""
    try:
        return np.asarray(pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"column {column.name} is not numbers ({why}); degrees and magnitudes are") from None


def _identifiers(column: pd.Series) -> np.ndarray:
    """Return a column as int64, of which -1 is no star."""
    whole = pd.to_numeric(column, errors="coerce")
    if whole.isna().any() or not (whole % 1 == 0).all() or not ((whole >= 0) & (whole < 2**63)).all():
        raise ValueError(f"column {column.name} is not whole numbers from 0 on, one for each star")
    return np.asarray(whole.to_numpy(np.int64))


def _magnitudes(table: pd.DataFrame) -> dict[str, np.ndarray]:
    general = next((name for name in MAGNITUDES if name in table), None)
    found = {}
    for band in ("zg", "zr", "zi"):
        name = band if band in table else general
        found[band] = np.full(len(table), np.nan) if name is None else _numbers(table[name])
    return found


def _read(path: Path) -> pd.DataFrame:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".csv":
            return pd.read_csv(path)
        if suffix in FORMATS:
            frame: pd.DataFrame = Table.read(path, format=FORMATS[suffix]).to_pandas()
            return frame
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise RefusedError(f"{path}: cannot be read as a catalogue ({str(error).splitlines()[0]})") from None
    raise RefusedError(f"{path}: expected a catalogue in .fits, .ecsv, .csv or .parquet")
