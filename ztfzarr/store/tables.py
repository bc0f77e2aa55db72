"""What the tables of the raw group say of files, written under its lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.geometry import N_HDU
from ztfzarr.store.group import read_table
from ztfzarr.store.lock import Lock
from ztfzarr.store.objects import Objects
from ztfzarr.store.raw import DOCUMENT, GROUP, HEADER_BYTES, VARIABLES
from ztfzarr.store.template import arrays_of, dimension_lengths, dumped, resized

if TYPE_CHECKING:
    from ztfzarr.store.register import FilledFile


def with_room_for_headers(
    objects: Objects, held: Lock, document: dict[str, Any], files: Sequence[FilledFile]
) -> None:
    """Lengthen the byte dimension where a header is longer than any before."""
    longest = max(len(h) for f in files for h in f.headers)
    if longest <= dimension_lengths(document)["byte"]:
        return
    document = resized(document, byte=-(-longest // HEADER_BYTES) * HEADER_BYTES)
    held.check()
    objects.put(f"{GROUP}/header/zarr.json", dumped(arrays_of(document)["header"]))
    held.check()
    objects.put(DOCUMENT, dumped(document))


def write_tables(
    arrays: dict[str, zarr.Array[Any]],
    held: Lock,
    files: Sequence[FilledFile],
    time: NDArray[np.int64],
    ccd: NDArray[np.int64],
) -> None:
    """Write what the tables say of files; the lock is checked before each, for a chunk holds others' rows too."""
    for name in ("source_name", "source_size", "source_sha256"):
        field = name.removeprefix("source_")
        values = [getattr(f, field) for f in files]
        dtype = object if VARIABLES[name].dtype == "str" else VARIABLES[name].dtype
        held.check()
        arrays[name].vindex[time, ccd] = np.array(values, dtype)
    for name in ("zdither", "gain", "read_noise"):
        table = np.array([getattr(f, name) for f in files], VARIABLES[name].dtype)
        last = np.arange(table.shape[1])
        held.check()
        arrays[name].vindex[time[:, None], ccd[:, None], last[None, :]] = table
    for row in np.unique(time).tolist():
        mine = [(int(ccd[i]), files[i].headers) for i in np.flatnonzero(time == row).tolist()]
        held.check()
        write_headers(arrays["header"], row, mine, np.asarray(arrays["header"][row]))


def write_headers(
    array: zarr.Array[Any],
    row: int,
    files: Sequence[tuple[int, Sequence[bytes]]],
    block: NDArray[np.uint8],
) -> None:
    """Write the headers of files, each (index of its CCD, blocks of its HDUs), into those of their exposure."""
    block = block.copy()
    for ccd, headers in files:
        block[ccd] = 0
        for hdu, text in enumerate(headers):
            block[ccd, hdu, : len(text)] = np.frombuffer(text, np.uint8)
    array[row] = block


def file_headers(group: zarr.Group, row: int, ccd: int) -> list[bytes]:
    """Return the header blocks of the nine HDUs of a file; StoreError if any is lost or damaged."""
    table = read_table(group, "header", (row, ccd - 1))
    # Without their padding: no FITS header holds a byte 0.
    headers = [table[hdu].tobytes().rstrip(b"\0") for hdu in range(N_HDU)]
    if not all(headers):
        raise StoreError(f"raw/header: header of HDU {headers.index(b'')} is missing")
    return headers
