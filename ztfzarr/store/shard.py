"""One object of a sharded array: encoded whole by its writer, and checked without decoding.

zarr's own writer goes through the array; ours makes the bytes, so that an object is created once, durably
and exclusively, from one chunk of pixels at a time. The format is zarr's sharding codec (index at the end).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs.pcodec import PCodec
from numpy.typing import NDArray

MISSING: Final = 2**64 - 1  # offset and length of a chunk that a shard does not hold
CRC_BYTES: Final = 4


@dataclass(frozen=True)
class ShardFormat:
    """How the shards of an array are laid out: from its metadata, so that old stores stay as they are."""

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    codec: PCodec

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each dimension of a shard."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))


def shard_format(metadata: dict[str, Any]) -> ShardFormat:
    """Read the layout of a sharded array from its ``zarr.json``."""
    sharding = metadata["codecs"][0]["configuration"]
    pcodec = sharding["codecs"][0]["configuration"]
    return ShardFormat(
        shard=tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        chunk=tuple(sharding["chunk_shape"]),
        codec=PCodec(**pcodec),
    )


def encode_shard(form: ShardFormat, values: NDArray[Any], fill: Any) -> bytes:
    """Encode the values of one shard, every chunk written, padded with ``fill`` beyond the array's edge.

    Parameters
    ----------
    form : ShardFormat
        The layout.
    values : ndarray
        As many dimensions as the array, each at most as long as the shard.
    fill : scalar
        Fill value of the array.
    """
    index = np.full((*form.grid, 2), MISSING, "<u8")
    parts: list[bytes] = []
    offset = 0
    for position in np.ndindex(form.grid):
        region = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(position, form.chunk, values.shape, strict=True)
        )
        chunk = _with_crc(bytes(form.codec.encode(_padded(values[region], form.chunk, fill))))
        index[position] = offset, len(chunk)
        parts.append(chunk)
        offset += len(chunk)
    parts.append(_with_crc(index.tobytes()))
    return b"".join(parts)


def _padded(values: NDArray[Any], shape: tuple[int, ...], fill: Any) -> NDArray[Any]:
    if values.shape == shape:
        return np.ascontiguousarray(values)
    chunk = np.full(shape, fill, values.dtype)
    chunk[tuple(slice(n) for n in values.shape)] = values
    return chunk


def _with_crc(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def bad_chunks(form: ShardFormat, data: bytes) -> list[tuple[int, ...]] | None:
    """Check every checksum of a shard.

    Returns
    -------
    list of tuples, or None
        Positions in the shard's grid of the chunks that are missing or damaged; None if the index is.
    """
    view = memoryview(data)
    size = int(np.prod(form.grid)) * 16
    if len(view) < size + CRC_BYTES or not _crc_holds(view[-size - CRC_BYTES :]):
        return None
    index = np.frombuffer(view[-size - CRC_BYTES : -CRC_BYTES], "<u8").reshape(*form.grid, 2)
    bad = []
    for position in np.ndindex(form.grid):
        offset, length = (int(v) for v in index[position])
        inside = offset + length <= len(view) - size - CRC_BYTES
        if not inside or not _crc_holds(view[offset : offset + length]):
            bad.append(position)
    return bad


def _crc_holds(data: memoryview) -> bool:
    if len(data) <= CRC_BYTES:
        return False
    return bool(google_crc32c.value(bytes(data[:-CRC_BYTES])) == int.from_bytes(data[-CRC_BYTES:], "little"))


def same_content(form: ShardFormat, one: bytes, other: bytes) -> bool:
    """Say whether two shards hold the same values; their bytes may differ between versions of the codec."""
    if one == other:
        return True
    if bad_chunks(form, one) != [] or bad_chunks(form, other) != []:
        return False

    return _decoded(form, one) == _decoded(form, other)


def _decoded(form: ShardFormat, data: bytes) -> list[bytes]:
    size = int(np.prod(form.grid)) * 16
    index = np.frombuffer(data[-size - CRC_BYTES : -CRC_BYTES], "<u8").reshape(-1, 2)
    return [
        np.asarray(form.codec.decode(data[int(o) : int(o + n) - CRC_BYTES])).tobytes() for o, n in index
    ]
