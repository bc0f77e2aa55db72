"""Headers of raw files, from the blocks that the cube keeps byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zarr
from astropy.io import fits

from ztfzarr.errors import StoreError
from ztfzarr.geometry import CCDS, N_HDU
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.store.objects import StoreLike, open_objects
from ztfzarr.store.register import existing_document, open_raw, read_table
from ztfzarr.store.tables import file_headers as file_headers


def header(
    store: StoreLike, exposure: int, ccd: int, hdu: int = 0, *, storage_options: Mapping[str, str] | None = None
) -> fits.Header:
    """Return a header of a raw file in the cube, with all its cards.

    Parameters
    ----------
    store : path or URL
        Of the store.
    exposure : int
        Exposure number, YYYYMMDDFFFFFF.
    ccd : int
        1-16.
    hdu : int
        0 the primary, 1-4 the quadrants, 5-8 their overscans. Extensions of compressed files have the header
        of their table, as in the file.
    storage_options : mapping of str, optional
        Credentials and settings of an object store, by obstore's names; default the environment's.

    Raises
    ------
    StoreError
        If the cube has no such file, or its headers are lost or damaged.
    """
    objects = open_objects(store, storage_options)
    existing_document(objects)
    if ccd not in CCDS or not 0 <= hdu < N_HDU:
        raise StoreError(f"no CCD {ccd}, HDU {hdu}: expected 1-16 and 0-8")
    group = open_raw(objects)
    row = row_of(group, exposure)
    if read_table(group, "present", (row, ccd - 1)) != 1:
        raise StoreError(f"exposure {exposure} has no file of CCD {ccd} in {objects.location}")
    return parsed_header(file_headers(group, row, ccd)[hdu])


def parsed_header(blocks: bytes) -> fits.Header:
    """Parse header blocks with astropy, without its warnings of odd cards."""
    with quiet_astropy():
        return fits.Header.fromstring(blocks)


def row_of(group: zarr.Group, exposure: int) -> int:
    """Return the row of an exposure along time; StoreError if it is not registered."""
    rows = np.flatnonzero(read_table(group, "exposure") == exposure)
    if not rows.size:
        raise StoreError(f"no exposure {exposure} in the cube")
    return int(rows[0])
