"""Headers of raw files, from the blocks that the cube keeps byte for byte."""

from __future__ import annotations

import os

import numpy as np
import zarr
from astropy.io import fits

from ztfzarr.errors import StoreError
from ztfzarr.geometry import CCDS, N_HDU
from ztfzarr.ingest.rare import quiet_astropy
from ztfzarr.store.objects import open_objects
from ztfzarr.store.register import existing_document, open_raw, read_table


def header(store: str | os.PathLike[str], exposure: int, ccd: int, hdu: int = 0) -> fits.Header:
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

    Raises
    ------
    StoreError
        If the cube has no such file, or its headers are lost or damaged.
    """
    objects = open_objects(store)
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


def file_headers(group: zarr.Group, row: int, ccd: int) -> list[bytes]:
    """Return the header blocks of the nine HDUs of a file; StoreError if any is lost or damaged."""
    table = read_table(group, "header", (row, ccd - 1))
    # Without their padding: no FITS header holds a byte 0.
    headers = [table[hdu].tobytes().rstrip(b"\0") for hdu in range(N_HDU)]
    if not all(headers):
        raise StoreError(f"raw/header: header of HDU {headers.index(b'')} is missing")
    return headers
