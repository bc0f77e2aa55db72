"""One object of a sharded array: written whole, read by chunks, checked without decoding.

The format is zarr's sharding codec (index at the end, pcodec and CRC32C inside), and zarr reads and writes the
same objects. Ours makes an object's bytes so that it is created once, durably and exclusively; and decodes
chunks one by one on the caller's threads: twice the speed of going through zarr's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs.pcodec import PCodec
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

from ztfzarr.errors import StoreError
from ztfzarr.store.objects import Objects

MISSING: Final = 2**64 - 1  # offset and length of a chunk that a shard does not hold
CRC_BYTES: Final = 4
ENTRY_BYTES: Final = 16

Position = tuple[int, ...]


@dataclass(frozen=True)
class ShardFormat:
    """How the shards of an array are laid out: from its metadata, so that old stores stay as they are."""

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: PCodec

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each dimension of a shard."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard, with its checksum."""
        return int(np.prod(self.grid)) * ENTRY_BYTES + CRC_BYTES


def shard_format(metadata: dict[str, Any]) -> ShardFormat:
    """Read the layout of a sharded array from its ``zarr.json``."""
    sharding = metadata["codecs"][0]["configuration"]
    pcodec = sharding["codecs"][0]["configuration"]
    return ShardFormat(
        shard=tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        chunk=tuple(sharding["chunk_shape"]),
        dtype=np.dtype(metadata["data_type"]),
        codec=PCodec(**pcodec),
    )


def encode_shard(form: ShardFormat, values: NDArray[Any], fill: float) -> bytes:
    """Encode the values of one shard, every chunk written, padded with ``fill`` beyond the array's edge.

    Parameters
    ----------
    form : ShardFormat
        The layout.
    values : ndarray
        As many dimensions as the array, each at most as long as the shard.
    fill : scalar
        Fill value of the array.

    Raises
    ------
    ValueError
        If the values do not fit into the shard.
    """
    if values.ndim != len(form.shard) or any(n > s for n, s in zip(values.shape, form.shard, strict=True)):
        raise ValueError(f"values of shape {values.shape}, expected at most {form.shard}")
    chunks = {}
    for position in np.ndindex(form.grid):
        region = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(position, form.chunk, values.shape, strict=True)
        )
        chunks[position] = encode_chunk(form, values[region], fill)
    return join_chunks(form, chunks)


def encode_chunk(form: ShardFormat, values: NDArray[Any], fill: float, config: ChunkConfig | None = None) -> bytes:
    """Encode one chunk, padded with ``fill``, with its checksum.

    Parameters
    ----------
    form : ShardFormat
        The layout.
    values : ndarray
        As many dimensions as the array, each at most as long as the chunk.
    fill : scalar
        Fill value of the array.
    config : ChunkConfig, optional
        Of pcodec, in place of the array's own: what pcodec writes says itself how to read it.
    """
    whole = _padded(values, form.chunk, fill)
    if config is None:
        return _with_crc(bytes(form.codec.encode(whole)))
    return _with_crc(bytes(standalone.simple_compress(whole.reshape(-1), config)))


def join_chunks(form: ShardFormat, chunks: Mapping[Position, bytes]) -> bytes:
    """Make a shard of encoded chunks, in the order of their positions; ValueError if one lacks."""
    lost = next((p for p in np.ndindex(form.grid) if p not in chunks), None)
    if lost is not None:
        raise ValueError(f"chunk {lost} of a shard of {form.grid} is missing: expected all of them")
    index = np.empty((*form.grid, 2), "<u8")
    offset = 0
    for position in np.ndindex(form.grid):
        index[position] = offset, len(chunks[position])
        offset += len(chunks[position])
    return b"".join([*(chunks[p] for p in np.ndindex(form.grid)), _with_crc(index.tobytes())])


def _padded(values: NDArray[Any], shape: tuple[int, ...], fill: float) -> NDArray[Any]:
    if values.shape == shape:
        return np.ascontiguousarray(values)
    chunk = np.full(shape, fill, values.dtype)
    chunk[tuple(slice(n) for n in values.shape)] = values
    return chunk


def _with_crc(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def _without_crc(data: bytes) -> bytes | None:
    """Return the data in front of a checksum; None if the checksum does not hold."""
    plain = data[:-CRC_BYTES]
    whole = len(data) > CRC_BYTES and google_crc32c.value(plain) == int.from_bytes(data[-CRC_BYTES:], "little")
    return plain if whole else None


def read_index(form: ShardFormat, tail: bytes) -> NDArray[np.uint64] | None:
    """Read a shard's index, (*grid, 2: offset, length), from the end of its bytes; None if it is damaged."""
    plain = _without_crc(tail[-form.index_bytes :]) if len(tail) >= form.index_bytes else None
    return None if plain is None else np.frombuffer(plain, "<u8").reshape(*form.grid, 2)


def read_chunks(
    objects: Objects, key: str, form: ShardFormat, positions: Sequence[Position]
) -> dict[Position, bytes] | None:
    """Read the encoded chunks of a shard at some positions of its grid.

    One request where most of the shard is wanted; else one for the index, then one for chunks that lie together.

    Returns
    -------
    dict or None
        Chunks by position, without those that the shard does not hold; None if the object is absent.

    Raises
    ------
    StoreError
        If the index is damaged.
    """
    most = 2 * len(positions) > np.prod(form.grid)
    try:
        data = objects.get(key) if most else objects.get_tail(key, form.index_bytes)
    except FileNotFoundError:
        return None
    index = read_index(form, data)
    if index is None:
        raise StoreError(f"index of {key} is damaged: ztfzarr verify names what is hit")
    places = {p: (int(index[p][0]), int(index[p][1])) for p in positions if index[p][0] != MISSING}
    if most:
        return {p: data[start : start + length] for p, (start, length) in places.items()}
    found = objects.get_ranges(key, list(places.values())) if places else []
    return dict(zip(places, found, strict=True))


def decode_chunk(form: ShardFormat, chunk: bytes, where: Callable[[], str]) -> NDArray[Any]:
    """Decode a chunk, after its checksum; ``where`` names it for the error.

    Raises
    ------
    StoreError
        If the checksum does not hold.
    """
    plain = _without_crc(chunk)
    if plain is None:
        raise StoreError(f"checksum does not hold: {where()}")
    return np.asarray(form.codec.decode(plain)).reshape(form.chunk)


def decode_shard(form: ShardFormat, data: bytes, where: str) -> NDArray[Any]:
    """Decode a shard whole, with its padding: what :func:`encode_shard` got; ``where`` names it for the error.

    Raises
    ------
    StoreError
        If its index or a chunk is missing or damaged.
    """
    index = read_index(form, data)
    if index is None:
        raise StoreError(f"index of {where} is damaged")
    values: NDArray[Any] = np.empty(form.shard, form.dtype)
    for position in np.ndindex(form.grid):
        start, length = (int(n) for n in index[position])
        chunk = decode_chunk(form, data[start : start + length], lambda: where)
        values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(position, form.chunk, strict=True))] = chunk
    return values


def bad_chunks(form: ShardFormat, data: bytes) -> list[Position] | None:
    """Check every checksum of a shard.

    Returns
    -------
    list of tuples, or None
        Positions in the shard's grid of the chunks that are missing or damaged; None if the index is.
    """
    index = read_index(form, data)
    if index is None:
        return None
    places = {position: (int(index[position][0]), int(index[position][1])) for position in np.ndindex(form.grid)}
    return [p for p, (start, length) in places.items() if _without_crc(data[start : start + length]) is None]


def differing_chunks(form: ShardFormat, one: bytes, other: bytes) -> list[Position]:
    """Return the positions whose chunks are whole in both shards, and hold other values."""
    indices = [read_index(form, data) for data in (one, other)]
    if indices[0] is None or indices[1] is None:
        return []
    differing = []
    for position in np.ndindex(form.grid):
        chunks = []
        for index, data in zip(indices, (one, other), strict=True):
            start, length = (int(n) for n in index[position])  # type: ignore[index]
            chunks.append(data[start : start + length])
        if chunks[0] == chunks[1] or any(_without_crc(chunk) is None for chunk in chunks):
            continue
        values = [decode_chunk(form, chunk, lambda: "a chunk").tobytes() for chunk in chunks]
        if values[0] != values[1]:
            differing.append(position)
    return differing


def same_content(form: ShardFormat, one: bytes, other: bytes) -> bool:
    """Say whether two shards hold the same values; their bytes may differ between versions of the codec."""
    if one == other:
        return True
    try:
        return decode_shard(form, one, "one").tobytes() == decode_shard(form, other, "other").tobytes()
    except StoreError:
        return False
