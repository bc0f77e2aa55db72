"""A FITS file as bytes: its header blocks, data and checksums, before any meaning.

Where the HDUs lie is found here, because the header blocks are kept byte for byte, a damaged file must give
one clear line, and a scan of a night must not read the pixels.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.geometry import N_HDU
from ztfzarr.ingest.cards import CARD, card_fields, card_value

BLOCK: Final = 2880
LONGEST_HEADER: Final = 40 * BLOCK  # a raw file's has four; the cube keeps as many bytes of each header

# Cards that say how to read the rest: given twice with different values, readers disagree about the file.
STRUCTURE: Final = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|TFIELDS|(TTYPE|TFORM)\d+|THEAP|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM"
    r"|Z(IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|QUANTIZ|DITHER0|BLANK|SCALE|ZERO)|CCD_ID|AMP_ID"
)

ReadAt = Callable[[int, int], bytes]  # (offset, length) -> bytes, fewer at the end of the file


@dataclass(frozen=True)
class Hdu:
    """Where one HDU lies in its file, and its header.

    ``text`` is the header's blocks as stored, ``cards`` what follows each keyword; ``data_offset`` and
    ``data_size`` are bytes, without padding.
    """

    index: int
    text: bytes
    cards: dict[str, list[bytes]]
    data_offset: int
    data_size: int

    @property
    def start(self) -> int:
        """Offset of the header."""
        return self.data_offset - len(self.text)

    @property
    def padded_size(self) -> int:
        """Bytes of the data unit with its padding."""
        return -(-self.data_size // BLOCK) * BLOCK

    @property
    def end(self) -> int:
        """Offset of the next HDU."""
        return self.data_offset + self.padded_size

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer card, refusing any other type; ``default`` where it is absent."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError(f"HDU {self.index}: {key} = {value!r}, expected an integer")
        return value

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of a card, refusing one that does not parse; ``default`` where it gives none."""
        if key not in self.cards:
            return default
        try:
            value = card_value(self.cards[key][0])
        except ValueError as error:
            raise RefusedError(f"HDU {self.index}: card {key} does not parse: {error}") from None
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        """Return a card that is a number, refusing any other type, or none; ``default`` where it is absent."""
        value = self.value(key) if key in self.cards else default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError(f"HDU {self.index}: {key} = {value!r}, expected a number")
        return float(value)

    def text_value(self, key: str) -> str:
        """Return the text of a card, refusing any other type; "" where it is absent."""
        value = self.value(key, "")
        if not isinstance(value, str):
            raise RefusedError(f"HDU {self.index}: {key} = {value!r}, expected text")
        return value  # without the blanks after it; those before it count (FITS 4.0 §4.2.1.1)


def read_hdus(read_at: ReadAt, size: int) -> list[Hdu]:
    """Find the nine HDUs of a raw file from its headers alone.

    Parameters
    ----------
    read_at : callable
        Gives ``length`` bytes from ``offset``.
    size : int
        Bytes of the file.

    Raises
    ------
    RefusedError
        If the file is empty, not FITS, truncated, or has not exactly nine HDUs.
    """
    if size == 0:
        raise RefusedError("file is empty: expected a FITS file")
    hdus: list[Hdu] = []
    offset = 0
    while offset < size and len(hdus) < N_HDU:
        hdus.append(_read_hdu(read_at, len(hdus), offset))
        offset = hdus[-1].end
        if offset > size:
            raise RefusedError(f"truncated in HDU {len(hdus) - 1}: {size} bytes, expected at least {offset}")
    if len(hdus) < N_HDU:
        raise RefusedError(f"{len(hdus)} HDUs: expected {N_HDU} (primary, 4 quadrants, 4 overscans)")
    if hdus[0].data_size:
        raise RefusedError("the primary HDU holds data: expected a header only")
    if offset != size:
        raise RefusedError(f"{size - offset} bytes after HDU {N_HDU - 1}: expected the end of the file")
    return hdus


def header_hdus(headers: Sequence[bytes]) -> list[Hdu]:
    """Parse header blocks kept from a file; their data offsets are those of that file."""
    hdus: list[Hdu] = []
    offset = 0
    for text in headers:
        read_at = file_bytes(text)
        hdu = _read_hdu(lambda start, length, read=read_at, at=offset: read(start - at, length), len(hdus), offset)  # type: ignore[misc]
        hdus.append(hdu)
        offset = hdu.end
    return hdus


def _read_hdu(read_at: ReadAt, index: int, offset: int) -> Hdu:
    text = _header_blocks(read_at, index, offset)
    hdu = Hdu(index, text, card_fields(text), offset + len(text), 0)
    for keyword, fields in hdu.cards.items():
        if len(set(fields)) > 1 and STRUCTURE.fullmatch(keyword):
            raise RefusedError(f"HDU {index}: {len(fields)} cards {keyword} that differ, expected one")
    return replace(hdu, data_size=_data_size(hdu))


def _header_blocks(read_at: ReadAt, index: int, offset: int) -> bytes:
    """Read blocks up to and including the one with the END card."""
    start = b"SIMPLE  =" if index == 0 else b"XTENSION="
    text = read_at(offset, BLOCK)
    if not text.startswith(start):
        found = f"starts with {text[:8]!r}, expected {start.decode().rstrip('= ')}"
        raise RefusedError(f"not FITS: HDU {index} at byte {offset} {found}")
    while True:
        if len(text) % BLOCK:
            raise RefusedError(f"truncated in the header of HDU {index}, at byte {offset + len(text)}")
        if any(not 32 <= byte < 127 for byte in set(text[-BLOCK:])):
            raise RefusedError(f"header of HDU {index} holds bytes that are no printable ASCII")
        if _ends(index, text[-BLOCK:]):
            return text
        if len(text) > LONGEST_HEADER:
            raise RefusedError(f"header of HDU {index} has no END card")
        more = read_at(offset + len(text), BLOCK)
        if not more:
            raise RefusedError(f"truncated in the header of HDU {index}, at byte {offset + len(text)}")
        text += more


def _ends(index: int, block: bytes) -> bool:
    """Say whether a block holds the END card; RefusedError if anything but blanks follows it."""
    cards = [block[i : i + CARD] for i in range(0, BLOCK, CARD)]
    end = b"END".ljust(CARD)
    if end not in cards:
        return False
    if b"".join(cards[cards.index(end) + 1 :]).strip(b" "):
        raise RefusedError(f"header of HDU {index} goes on after its END card: damaged")
    return True


def _data_size(hdu: Hdu) -> int:
    """Bytes of a data unit (FITS 4.0 eq. 2)."""
    naxis = hdu.integer("NAXIS")
    if not 0 <= naxis <= 999:
        raise RefusedError(f"HDU {hdu.index}: NAXIS = {naxis}, expected 0-999")
    if naxis == 0:
        return 0
    lengths = [hdu.integer(f"NAXIS{i + 1}") for i in range(naxis)]
    bitpix = hdu.integer("BITPIX")
    pcount, gcount = hdu.integer("PCOUNT", 0), hdu.integer("GCOUNT", 1)
    if bitpix not in (8, 16, 32, 64, -32, -64) or pcount < 0 or gcount != 1 or min(lengths) < 0:
        raise RefusedError(f"HDU {hdu.index}: BITPIX {bitpix}, PCOUNT {pcount}, GCOUNT {gcount} do not fit")
    return abs(bitpix) // 8 * (pcount + math.prod(lengths))


def file_bytes(content: bytes | memoryview) -> ReadAt:
    """Read from a file held in memory."""
    view = memoryview(content)
    return lambda offset, length: bytes(view[offset : offset + length])


def open_bytes(file: io.RawIOBase | io.BufferedIOBase) -> ReadAt:
    """Read from an open file."""

    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length) or b""

    return read_at


def has_sums(hdu: Hdu) -> bool:
    """Say whether an HDU carries a checksum."""
    return bool(hdu.value("DATASUM") or hdu.value("CHECKSUM"))


def check_sums(hdu: Hdu, content: memoryview) -> None:
    """Check DATASUM and CHECKSUM where a header has them (FITS 4.0 App. J).

    Raises
    ------
    RefusedError
        Naming the HDU and which of them differs.
    """
    if not has_sums(hdu):
        return
    data = _ones_sum(content[hdu.data_offset : hdu.end])
    datasum = str(hdu.value("DATASUM", "")).strip()
    if datasum and datasum.lstrip("0") != str(data).lstrip("0"):
        raise RefusedError(f"HDU {hdu.index}: DATASUM is {datasum!r} but the data sum to {data}: damaged")
    # 0 and 2^32 - 1 are both zero in ones' complement.
    if hdu.value("CHECKSUM") and (_ones_sum(memoryview(hdu.text)) + data) % 0xFFFFFFFF:
        raise RefusedError(f"HDU {hdu.index}: CHECKSUM does not hold: header or data damaged")


def _ones_sum(data: memoryview) -> int:
    """Sum big-endian 32-bit words in ones' complement."""
    words: NDArray[np.uint32] = np.frombuffer(data, ">u4")
    total = int(words.sum(dtype=np.uint64)) if words.size else 0
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total
