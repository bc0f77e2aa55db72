"""Kernels of FITS's integers: dithering and Rice coding against plain Python written from FITS 4.0."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from peers import fpack, same_bits

from ztfzarr.ingest.hdus import file_bytes, read_hdus
from ztfzarr.ingest.tiles import columns_of
from ztfzarr.kernels.dither import (
    ABSENT,
    EXACT_ZERO,
    N_RANDOM,
    NULL_ASTROPY,
    NULL_CFITSIO,
    RANDOM,
    decode_rows,
    random_sequence,
)
from ztfzarr.kernels.rice import decode_tiles, encode_tiles

INT32 = st.integers(-(2**31), 2**31 - 1)
DITHERS = st.integers(-N_RANDOM, N_RANDOM)
COORDINATES = st.integers(0, 25_000)
SCALES = st.floats(1e-6, 1e6)
ZEROS = st.floats(-1e6, 1e6)
SPECIAL = (NULL_CFITSIO, NULL_ASTROPY, ABSENT, EXACT_ZERO)


def standard_sequence() -> list[float]:
    """FITS 4.0 Appendix I, in the arithmetic of its C code: doubles, then the number kept as a float."""
    seed, numbers = 1.0, []
    for _ in range(10_000):
        product = 16807.0 * seed
        seed = product - 2147483647.0 * int(product / 2147483647.0)
        numbers.append(float(np.float32(seed / 2147483647.0)))
    assert seed == 1043618065.0
    return numbers


SEQUENCE = standard_sequence()


def numbers_of_row(row: int, zdither0: int) -> list[float]:
    """The random numbers of a row tile, without end (FITS 4.0 §10.2.1)."""
    seed = (row + zdither0 - 1) % 10_000
    position = int(SEQUENCE[seed] * 500)
    while True:
        yield SEQUENCE[position]
        position += 1
        if position == 10_000:
            seed = (seed + 1) % 10_000
            position = int(SEQUENCE[seed] * 500)


def slow_value(integer: int, number: float, scale: float, zero: float, zdither: int) -> np.float32:
    if integer in (NULL_CFITSIO, NULL_ASTROPY, ABSENT):
        return np.float32(np.nan)
    if zdither == 0:
        return np.float32(integer * scale + zero)
    if zdither < 0 and integer == EXACT_ZERO:
        return np.float32(0)
    return np.float32((integer - number + 0.5) * scale + zero)


def slow_decode(
    integers: np.ndarray, zscale: list, zzero: list, zdither: int, row: int, column: int
) -> np.ndarray:
    out = np.empty(integers.shape, np.float32)
    for y, line in enumerate(integers.tolist()):
        if zscale[y] == 0:
            out[y] = integers[y].view(np.float32)
            continue
        numbers = numbers_of_row(row + y, max(abs(zdither), 1))
        for _ in range(column):
            next(numbers)
        out[y] = [slow_value(v, next(numbers), zscale[y], zzero[y], zdither) for v in line]
    return out


def decode(
    integers: np.ndarray, zscale: object, zzero: object, zdither: int, row: int = 0, column: int = 0
) -> np.ndarray:
    """decode_rows on a copy."""
    pixels = np.ascontiguousarray(integers, np.int32).copy()
    rows = len(pixels)
    scales, zeros = (np.broadcast_to(np.asarray(v, np.float64), rows).copy() for v in (zscale, zzero))
    decode_rows(pixels, scales, zeros, zdither, row, column, RANDOM)
    return pixels.view(np.float32)


def some_integers(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Integers as quantised noise, with every special value among them."""
    rng = np.random.default_rng(seed)
    integers = rng.integers(-2000, 2000, shape).astype(np.int32)
    integers[rng.random(shape) < 0.02] = rng.choice(SPECIAL)
    return integers


# The dither


def test_sequence_is_the_standards() -> None:
    assert random_sequence().tolist() == SEQUENCE
    assert RANDOM.dtype == np.float32


def test_first_numbers() -> None:
    """7.8263693e-06 and so on: the numbers that Park and Miller's paper and every FITS reader begin with."""
    assert RANDOM[:3].tolist() == pytest.approx([16807 / 2147483647, 282475249 / 2147483647, 0.7556053], rel=1e-6)


def test_offset_of_a_row_is_the_same_in_float32_and_float64() -> None:
    """CFITSIO multiplies by 500 in one or the other, depending on its version."""
    in_double = (RANDOM.astype(np.float64) * 500).astype(int)
    assert ((RANDOM * np.float32(500)).astype(int) == in_double).all()


@settings(max_examples=150, deadline=None)
@given(
    integers=npst.arrays(np.int32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=INT32),
    scale=SCALES,
    zero=ZEROS,
    zdither=DITHERS,
    row=COORDINATES,
    column=COORDINATES,
)
def test_decodes_as_plain_python(integers, scale, zero, zdither, row, column) -> None:
    scales, zeros = [scale] * len(integers), [zero] * len(integers)
    expected = slow_decode(integers, scales, zeros, zdither, row, column)
    assert same_bits(decode(integers, scales, zeros, zdither, row, column), expected)


@pytest.mark.parametrize("zdither", [0, 1, 4321, 10_000, -1, -10_000])
@pytest.mark.parametrize("shape", [(3, 10_500), (2, 20_700), (10_060, 3)], ids=["wide", "twice", "tall"])
def test_sequence_wraps(shape: tuple[int, int], zdither: int) -> None:
    integers = some_integers(shape)
    rows = slice(max(0, shape[0] - 80), None)  # the slow way only where rows have wrapped
    expected = slow_decode(integers[rows], [0.37] * shape[0], [90.0] * shape[0], zdither, rows.start or 0, 0)
    assert same_bits(decode(integers, 0.37, 90.0, zdither)[rows], expected)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), zdither=DITHERS)
def test_any_rectangle_decodes_as_the_whole(data: st.DataObject, zdither: int) -> None:
    integers = some_integers((30, 10_900), seed=1)
    y0, y1, x0, x1 = (data.draw(st.integers(0, n)) for n in (29, 30, 10_899, 10_900))
    y0, y1, x0, x1 = min(y0, y1), max(y0, y1, 1), min(x0, x1), max(x0, x1, 1)
    whole = decode(integers, np.linspace(0.1, 3, 30), 12.5, zdither)
    part = decode(integers[y0:y1, x0:x1], np.linspace(0.1, 3, 30)[y0:y1], 12.5, zdither, y0, x0)
    assert same_bits(part, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("zdither", [0, 5, -5])
@pytest.mark.parametrize("integer", [NULL_CFITSIO, NULL_ASTROPY, ABSENT])
def test_null_is_nan(integer: int, zdither: int) -> None:
    values = decode(np.array([[3, integer, 4]]), 0.5, 10.0, zdither)
    assert np.isnan(values).tolist() == [[False, True, False]]


@pytest.mark.parametrize(("zdither", "exact"), [(0, False), (5, False), (-5, True)])
def test_exact_zero_is_of_dither_2_alone(zdither: int, exact: bool) -> None:
    value = decode(np.array([[EXACT_ZERO]]), 0.5, 10.0, zdither)[0, 0]
    assert (value == 0) == exact
    assert not np.signbit(value) or not exact


def test_scale_0_keeps_float_bits() -> None:
    floats = np.array([[1.5, -0.0, np.nan, np.inf, 1e-45]], np.float32)
    assert same_bits(decode(floats.view(np.int32), 0.0, 0.0, 7), floats)


def test_rows_have_their_own_scale() -> None:
    integers = some_integers((4, 700), seed=2)
    scales, zeros = [0.5, 0.0, 2.0, 0.25], [1.0, 5.0, -3.0, 1e6]
    assert same_bits(decode(integers, scales, zeros, 77), slow_decode(integers, scales, zeros, 77, 0, 0))


def test_absent_rows_are_nan() -> None:
    assert np.isnan(decode(np.arange(6).reshape(2, 3), np.nan, np.nan, 0)).all()


# Rice coding


def rice_bits(tile: bytes) -> list[int]:
    return [byte >> (7 - i) & 1 for byte in tile for i in range(8)]


def take(bits: list[int], count: int) -> int:
    """Take a number of ``count`` bits from the front."""
    value = int("".join(str(b) for b in bits[:count]) or "0", 2)
    del bits[:count]
    return value


def slow_rice(tile: bytes, pixels: int, block: int, bytepix: int) -> list[int]:
    """Decode a Rice tile, from FITS 4.0 §10.4.1: unsigned pixels of ``bytepix`` bytes."""
    code_bits, raw = {1: (3, 6), 2: (4, 14), 4: (5, 25)}[bytepix]
    bits, modulus, out = rice_bits(tile), 1 << (8 * bytepix), []
    last = take(bits, 8 * bytepix)
    while len(out) < pixels:
        split = take(bits, code_bits) - 1
        for _ in range(min(block, pixels - len(out))):
            if split < 0:
                folded = 0
            elif split == raw:
                folded = take(bits, 8 * bytepix)
            else:
                top = bits.index(1)
                del bits[: top + 1]
                folded = (top << split) + take(bits, split)
            last = (last + (-(folded + 1) // 2 if folded & 1 else folded // 2)) % modulus
            out.append(last)
    assert len(bits) < 8
    return out


def pixels_of(bytepix: int, values: np.ndarray) -> np.ndarray:
    """Wrap integers to what pixels of ``bytepix`` bytes hold in FITS: uint8, int16, int32."""
    return values.astype({1: np.uint8, 2: np.int16, 4: np.int32}[bytepix]).astype(np.int32)


def decoded(heap: np.ndarray, lengths: np.ndarray, nx: int, block: int, bytepix: int) -> tuple[np.ndarray, int]:
    out = np.full((len(lengths), nx), -77, np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    bad = decode_tiles(heap, offsets, np.asarray(lengths, np.int64), out, block=block, bytepix=bytepix)
    return out, bad


def tile_of(pixels: np.ndarray, block: int = 32, bytepix: int = 4) -> np.ndarray:
    """The one tile of a row of pixels."""
    return encode_tiles(np.atleast_2d(pixels), block=block, bytepix=bytepix)[0].copy()


def kinds_of_rows(nx: int = 131) -> np.ndarray:
    """Rows of every character: constant, noise from 1 bit to 32, ramps, steps, extremes."""
    rng = np.random.default_rng(3)
    rows = [np.zeros(nx), np.full(nx, -5), np.arange(nx), -3 * np.arange(nx), np.where(np.arange(nx) > 70, 90, 0)]
    rows += [rng.integers(-(2**bits), 2**bits, nx) for bits in range(32)]
    rows += [np.where(np.arange(nx) % 2, 2**31 - 1, -(2**31)), np.where(np.arange(nx) == 64, 2**31 - 1, 0)]
    return np.array(rows, np.int64).astype(np.int32)


CODINGS = [(block, bytepix) for block in (16, 32) for bytepix in (1, 2, 4)]


@settings(max_examples=200, deadline=None)
@given(
    values=npst.arrays(
        np.int32,
        st.tuples(st.integers(1, 3), st.integers(1, 100)),
        elements=st.one_of(INT32, st.integers(-9, 9), st.just(6)),
        fill=st.just(100),
    ),
    coding=st.sampled_from(CODINGS),
)
def test_rice_decodes_what_it_encodes(values: np.ndarray, coding: tuple[int, int]) -> None:
    block, bytepix = coding
    pixels = pixels_of(bytepix, values)
    heap, lengths = encode_tiles(pixels, block=block, bytepix=bytepix)
    out, bad = decoded(heap, lengths, pixels.shape[1], block, bytepix)
    assert bad == -1
    assert np.array_equal(out, pixels)


@pytest.mark.parametrize(("block", "bytepix"), CODINGS)
def test_rice_tiles_are_the_standards(block: int, bytepix: int) -> None:
    for row in pixels_of(bytepix, kinds_of_rows()):
        standard = slow_rice(tile_of(row, block, bytepix).tobytes(), row.size, block, bytepix)
        assert standard == (row.astype(np.int64) % (1 << (8 * bytepix))).tolist()


def cfitsio_tiles(hdu, content: bytes) -> list[bytes]:
    """The tiles of a compressed image, through the descriptors of its table."""
    table = np.frombuffer(content, np.uint8, hdu.integer("NAXIS1") * hdu.integer("NAXIS2"), hdu.data_offset)
    table = table.reshape(hdu.integer("NAXIS2"), -1)
    first = columns_of(hdu, table.shape[1])["COMPRESSED_DATA"].offset
    places = np.ascontiguousarray(table[:, first : first + 8]).view(">i4")
    heap = hdu.data_offset + table.size
    return [content[heap + start : heap + start + length] for length, start in places.tolist()]


@pytest.mark.fpack
@pytest.mark.parametrize(("bytepix", "dtype"), [(1, np.uint8), (2, np.int16), (4, np.int32)])
def test_rice_tiles_are_cfitsios_byte_for_byte(bytepix: int, dtype: type, tmp_path) -> None:
    pixels = pixels_of(bytepix, kinds_of_rows())
    images = [fits.ImageHDU(pixels[:, ::step].astype(dtype)) for step in (1, 1, 2, 3, 5, 8, 13, 40)]
    path = tmp_path / "image.fits"
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    content = fpack(path, "-r").read_bytes()
    for hdu, image in zip(read_hdus(file_bytes(content), len(content))[1:], images, strict=True):
        theirs = cfitsio_tiles(hdu, content)
        heap, lengths = encode_tiles(image.data.astype(np.int32), block=32, bytepix=bytepix)
        assert heap.tobytes() == b"".join(theirs)
        assert lengths.tolist() == [len(tile) for tile in theirs]


@pytest.mark.parametrize(("block", "bytepix"), CODINGS)
def test_every_truncated_tile_is_refused(block: int, bytepix: int) -> None:
    for row in pixels_of(bytepix, kinds_of_rows(70)):
        tile = tile_of(row, block, bytepix)
        assert decoded(tile, [tile.size], row.size, block, bytepix)[1] == -1
        for length in range(1, tile.size):
            assert decoded(tile, [length], row.size, block, bytepix)[1] == 0, f"{length} of {tile.size} bytes"


def test_tile_with_a_byte_too_many_is_refused() -> None:
    tile = np.append(tile_of(kinds_of_rows()[8]), np.uint8(0))
    assert decoded(tile, [tile.size], 131, 32, 4)[1] == 0


def test_first_bad_row_is_named() -> None:
    pixels = kinds_of_rows()[:9]
    heap, lengths = encode_tiles(pixels, block=32, bytepix=4)
    lengths[6] -= 1
    out, bad = decoded(heap, lengths, 131, 32, 4)
    assert bad == 6
    assert np.array_equal(out[:6], pixels[:6])


def test_row_without_a_tile_is_left_alone() -> None:
    out, bad = decoded(np.zeros(0, np.uint8), [0], 5, 32, 4)
    assert bad == -1
    assert (out == -77).all()


def between(tile: np.ndarray, fill: int, nx: int, coding: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Decode a tile that lies between bytes of another value."""
    heap = np.full(tile.size + 64, fill, np.uint8)
    heap[32:-32] = tile
    out = np.zeros((1, nx), np.int32)
    place = np.array([32]), np.array([tile.size])
    return out, decode_tiles(heap, *place, out, block=coding[0], bytepix=coding[1])


@settings(max_examples=300, deadline=2000)
@given(content=st.binary(min_size=1, max_size=200), coding=st.sampled_from(CODINGS), nx=st.integers(1, 200))
def test_nothing_outside_a_tile_is_read(content: bytes, coding: tuple[int, int], nx: int) -> None:
    """Any bytes as a tile: what lies around it changes neither pixels nor the verdict, and it ends."""
    tile = np.frombuffer(content, np.uint8)
    (one, bad_one), (other, bad_other) = (between(tile, fill, nx, coding) for fill in (0, 255))
    assert bad_one == bad_other
    assert np.array_equal(one, other)


def harmed_tiles(row: np.ndarray, length: int) -> list[tuple[np.ndarray, int]]:
    """Decode a row's tile with ``length`` bytes replaced by others, at every place."""
    tile, results = tile_of(row), []
    rng = np.random.default_rng(6)
    for start in range(tile.size - length):
        harmed = tile.copy()
        harmed[start : start + length] ^= rng.integers(1, 256, length, np.uint8)
        results.append(decoded(harmed, [tile.size], row.size, 32, 4))
    return results


def test_flipped_bit_is_refused_or_changes_a_pixel() -> None:
    """Most flips hit low bits, which are kept as they are: only a checksum sees that the pixel is wrong."""
    row = np.random.default_rng(5).normal(0, 8, 400).astype(np.int32)
    tile = tile_of(row)
    refused = 0
    for bit in range(8 * (tile.size - 1)):
        harmed = tile.copy()
        harmed[bit // 8] ^= 1 << (bit % 8)
        out, bad = decoded(harmed, [tile.size], row.size, 32, 4)
        assert bad == 0 or not np.array_equal(out[0], row)
        refused += bad == 0
    assert refused > 0.15 * 8 * tile.size


def test_damaged_tiles_are_mostly_refused() -> None:
    row = np.random.default_rng(5).normal(0, 8, 400).astype(np.int32)
    bad = [bad for _, bad in harmed_tiles(row, 16)]
    assert np.mean(np.array(bad) == 0) > 0.8


@pytest.mark.parametrize("fill", [0, 255])
def test_long_runs_of_one_bit_end(fill: int) -> None:
    tile = np.full(4_000_000, fill, np.uint8)
    assert decoded(tile, [tile.size], 3072, 32, 4)[1] == 0
