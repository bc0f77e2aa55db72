"""Star tables: a Parquet object an exposure and CCD, in the group of its version, created once.

Parquet because tables of stars have as many rows as there are stars, which no array has room for; pages carry
checksums. Readers need nothing of ours: ``pandas.read_parquet("STORE/stars/v1/table")`` is all of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import StoreError
from ztfzarr.photometry.columns import COLUMNS
from ztfzarr.store.group import array_of
from ztfzarr.store.versions import Version, existing_version

if TYPE_CHECKING:
    import pandas as pd

    from ztfzarr.store.objects import Objects

FOLDER: Final = "table"


def table_key(version: Version, exposure: int, ccd: int) -> str:
    """Return the key of a table."""
    return f"{version.group}/{FOLDER}/{exposure}_c{ccd:02d}.parquet"


def arrow_modules() -> tuple[Any, Any]:
    """Import pyarrow, or say how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise StoreError("star tables need pyarrow: pip install 'ztfzarr[stars]'") from None
    return pyarrow, pyarrow.parquet


def encode_table(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a table as Parquet: columns in their order and types, units among the metadata of each.

    Parameters
    ----------
    columns : mapping of (star,)
        All of :data:`~ztfzarr.photometry.columns.COLUMNS`.
    """
    arrow, parquet = arrow_modules()
    fields, arrays = [], []
    for name, column in COLUMNS.items():
        dtype = arrow.string() if column.dtype == "str" else arrow.from_numpy_dtype(np.dtype(column.dtype))
        about = {"units": column.units, "long_name": column.long_name}
        fields.append(arrow.field(name, dtype, nullable=False, metadata=about))
        arrays.append(arrow.array(np.asarray(columns[name]), dtype))
    sink = io.BytesIO()
    table = arrow.Table.from_arrays(arrays, schema=arrow.schema(fields))
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def decode_table(data: bytes, columns: Sequence[str] | None = None) -> Any:
    """Read Parquet to a table of pyarrow's, every page against its checksum; ValueError if it is damaged."""
    arrow, parquet = arrow_modules()
    try:
        names = None if columns is None else list(columns)
        return parquet.read_table(io.BytesIO(data), columns=names, page_checksum_verification=True)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def create_table(version: Version, exposure: int, ccd: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Create the table of an entry.

    Raises
    ------
    StoreError
        If one is there already with other content.
    """
    key, data = table_key(version, exposure, ccd), encode_table(columns)
    if not version.objects.create(key, data) and not _same(data, version.objects.get(key)):
        raise StoreError(f"{key} is there with other content: an unfinished run with other input left it")


def _same(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        ours, theirs = decode_table(one), decode_table(other)
    except ValueError:
        return False
    # Not equals() of pyarrow, to which NaN, of every star without a position, is not NaN.
    return bool(ours.schema.equals(theirs.schema) and ours.to_pandas().equals(theirs.to_pandas()))


def unreadable() -> str | None:
    """Say what is lacking to read star tables; None if nothing is."""
    try:
        arrow_modules()
    except StoreError as error:
        return str(error)
    return None


def open_tables(
    objects: Objects,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    nights: tuple[int, int] = (0, 99999999),
    ccds: Sequence[int] = tuple(range(1, 17)),
) -> pd.DataFrame:
    """Read the tables of a version that are marked; see ``ztfzarr.open_stars``."""
    arrow, _ = arrow_modules()
    version = existing_version(objects, "stars", name)
    wanted = None if columns is None else list(columns)
    unknown = [column for column in wanted or () if column not in COLUMNS]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r} in star tables: expected some of {', '.join(COLUMNS)}")
    parts = [read_table(version, *entry, wanted) for entry in marked(version, nights, ccds)]
    if not parts:
        empty = {n: np.empty(0, object if c.dtype == "str" else c.dtype) for n, c in COLUMNS.items()}
        parts = [decode_table(encode_table(empty), wanted)]
    frame: pd.DataFrame = arrow.concat_tables(parts).to_pandas()
    return frame


def read_table(version: Version, exposure: int, ccd: int, columns: Sequence[str] | None = None) -> Any:
    """Read the table of an entry, all columns or some, as pyarrow's; StoreError if it is missing or damaged."""
    key = table_key(version, exposure, ccd)
    try:
        return decode_table(version.objects.get(key), columns)
    except FileNotFoundError:
        raise StoreError(f"object {key} is missing") from None
    except ValueError as error:
        raise StoreError(f"{key} is damaged ({error})") from None


def marked(version: Version, nights: tuple[int, int], ccds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """List the exposures and CCDs whose tables are marked, in order of exposures."""
    group = version.open()
    exposure, night, present = (np.asarray(array_of(group, n)[...]) for n in ("exposure", "night", "present"))
    chosen = (night >= nights[0]) & (night <= nights[1])
    for row in np.argsort(exposure, kind="stable").tolist():
        if chosen[row]:
            yield from ((int(exposure[row]), ccd) for ccd in ccds if present[row, ccd - 1] == 1)


def table_fault(version: Version, exposure: int, ccd: int) -> str | None:
    """Say what is wrong with a table: missing, damaged, or without a column; None if nothing is."""
    key = table_key(version, exposure, ccd)
    try:
        table = decode_table(version.objects.get(key))
    except FileNotFoundError:
        return f"object {key} is missing"
    except ValueError as error:
        return f"{key} is damaged ({error})"
    lacking = [name for name in COLUMNS if name not in table.column_names]
    return f"{key} has no column {lacking[0]}" if lacking else None
