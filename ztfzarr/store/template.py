"""What groups have in common: variables, codecs, the consolidated ``zarr.json``, and how it grows."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.codecs.numcodecs import PCodec
from zarr.storage import MemoryStore

FORMAT: Final = 1
ROWS: Final = ("time", "night")  # the dimensions that grow
ROW_CHUNK: Final = 65536  # tables: 16 objects at 10^6 exposures, half a megabyte rewritten a batch

# Chunks of pixels, at most: squarish for cutouts, and narrow enough that a row's own slope stays out of the
# statistics of a chunk. Against whole rows (308 x 3072): bias 0.9 % smaller, flats 0.3 %, as fast.
CHUNK: Final = {"y": 616, "x": 512}

# Level 8: 4 is 5 % larger and hardly faster. Delta "auto": none for bias and sky, whose integers are noise about
# each row's own zero; consecutive for flats, whose illumination slopes along a row (none is 26 % larger there).
PIXEL_CODEC: Final[dict[str, Any]] = {"level": 8, "mode_spec": "classic", "delta_spec": "auto"}
FLOAT_CODEC: Final[dict[str, Any]] = {"level": 8, "mode_spec": "auto", "delta_spec": "auto"}


@dataclass(frozen=True)
class Variable:
    """A variable of a group: dimensions, type, fill value, description, chunk length along its rows, bits."""

    dims: tuple[str, ...]
    dtype: str
    fill: Any
    long_name: str
    units: str | None = None
    row_chunk: int = ROW_CHUNK
    flags: Mapping[str, int] | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes in the store."""
        units = {} if self.units is None else {"units": self.units}
        calendar = {"calendar": "proleptic_gregorian"} if "since" in (self.units or "") else {}
        flags: dict[str, Any] = {}
        if self.flags is not None:
            flags = {"flag_masks": list(self.flags.values()), "flag_meanings": " ".join(self.flags)}
        return {"long_name": self.long_name} | units | calendar | flags


def group_document(
    variables: Mapping[str, Variable],
    lengths: Mapping[str, int],
    attributes: Mapping[str, Any],
    *,
    owned: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Make the consolidated ``zarr.json`` of a group, as zarr itself writes it.

    Parameters
    ----------
    variables : mapping
        By name.
    lengths : mapping
        Of each dimension.
    attributes : mapping
        Of the group, beside its format and conventions.
    owned : mapping
        Arrays with one shard an entry, and the dimensions that tell entries apart, which are their first.
    """
    written: dict[str, Any] = {}
    memory = MemoryStore(written)
    for name, variable in variables.items():
        _create(memory, name, variable, lengths, owned.get(name))
    arrays = {
        key.removesuffix("/zarr.json"): json.loads(value.to_bytes())
        for key, value in written.items()
        if key.endswith("/zarr.json")
    }
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"format": FORMAT, "Conventions": "CF-1.11", **attributes},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
    }


def _create(
    memory: MemoryStore,
    name: str,
    variable: Variable,
    lengths: Mapping[str, int],
    entry: tuple[str, ...] | None,
) -> None:
    shape = tuple(lengths[d] for d in variable.dims)
    chunks = tuple(variable.row_chunk if d in ROWS else lengths[d] for d in variable.dims)
    codecs: dict[str, Any] = {"compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    if entry is not None:
        inner, chunks = _owned_chunks(variable.dims, lengths, entry)
        pcodec = PCodec(**(FLOAT_CODEC if variable.dtype.startswith("float") else PIXEL_CODEC))
        codecs = {
            "serializer": ShardingCodec(chunk_shape=inner, codecs=[pcodec, Crc32cCodec()]),
            "compressors": None,
            "filters": None,
        }
    zarr.create_array(
        memory,
        name=name,
        shape=shape,
        chunks=chunks,
        dtype=str if variable.dtype == "str" else variable.dtype,
        fill_value=variable.fill,
        dimension_names=variable.dims,
        attributes=variable.attributes,
        **codecs,
    )


def _owned_chunks(
    dims: tuple[str, ...], lengths: Mapping[str, int], entry: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return chunk and shard of an array with one shard an entry: equal chunks within a quadrant's rows."""
    inner = {d: 1 if d in entry or d == "quadrant" else lengths[d] for d in dims}
    shard = {d: 1 if d in entry else lengths[d] for d in dims}
    for d in CHUNK if "quadrant" in dims else ():
        if d in dims:
            count = -(-lengths[d] // CHUNK[d])
            inner[d] = -(-lengths[d] // count)
            shard[d] = count * inner[d]
    return tuple(inner.values()), tuple(shard.values())


def arrays_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of each array of a consolidated group, by name."""
    arrays: dict[str, dict[str, Any]] = document["consolidated_metadata"]["metadata"]
    return arrays


def dumped(document: dict[str, Any]) -> bytes:
    """Write a ``zarr.json``."""
    return json.dumps(document, indent=1).encode()


def dimension_lengths(document: dict[str, Any]) -> dict[str, int]:
    """Return the length of each dimension of a group."""
    lengths: dict[str, int] = {}
    for array in arrays_of(document).values():
        lengths.update(zip(array["dimension_names"], array["shape"], strict=True))
    return lengths


def resized(document: dict[str, Any], **lengths: int) -> dict[str, Any]:
    """Return the document with some dimensions of all its arrays at new lengths."""
    result = copy.deepcopy(document)
    for array in arrays_of(result).values():
        names = array["dimension_names"]
        array["shape"] = [lengths.get(d, n) for d, n in zip(names, array["shape"], strict=True)]
    return result
