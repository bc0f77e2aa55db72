"""Hostile raw files: whole ones in every form of storage, changed at random, each reproducible from its number."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from rawfiles import find_hdus, raw_name
from test_forms import Form, write_form

CARD, BLOCK = 80, 2880
LEFT_TO_ASTROPY = ("fpack -h", "fpack -w", "fpack -t", "fpack -p", "fpack -g -t", "HCOMPRESS", "NOCOMPRESS")
SUMS = (b"CHECKSUM", b"DATASUM ", b"ZHECKSUM", b"ZDATASUM")

# Numbers at which readers of 8, 16, 32 and 64 bits go wrong, and values that are none.
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    9,
    255,
    65535,
    2**15,
    2**24,
    2**28,
    2**31 - 1,
    2**31,
    2**32,
    2**63,
    -(2**31),
    10**69,
]
TEXTS = [
    "NaN", "INF", "1E400", "-1.5D309", "1e", "T", "F", "'text'", "'unclosed", "''", "", "/", "0x10", "1 2",
    "(1, 2)", "'../../etc/passwd'", "'\x1b[2J'", "'a''b'", "+", ".", "9" * 70, "'" + "x" * 67 + "&'", "\xe9", "\0",
]  # fmt: skip
OFTEN = [
    "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS", "TTYPE1", "TFORM1", "TTYPE2",
    "TFORM2", "TTYPE3", "TFORM3", "THEAP", "BSCALE", "BZERO", "BLANK", "ZIMAGE", "ZCMPTYPE", "ZBITPIX", "ZNAXIS",
    "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2", "ZNAME1", "ZVAL1", "ZNAME2", "ZVAL2", "ZQUANTIZ", "ZDITHER0",
    "ZBLANK",
]  # fmt: skip
SELDOM = [
    "SIMPLE", "NAXIS3", "TTYPE4", "TFORM4", "TSCAL1", "TZERO1", "TDIM1", "TNULL1", "EXTEND", "GROUPS", "ZSCALE",
    "ZZERO", "ZMASKCMP", "ZTENSION", "ZPCOUNT", "ZGCOUNT", "ZSIMPLE", "ZEXTEND", "INHERIT", "EXTNAME", "EXTVER",
    "CCD_ID", "AMP_ID", "GAIN", "READNOI", "IMGTYPE", "FILTERID", "FIELDID", "SHUTOPEN", "SHUTCLSD", "EXPTIME",
    "CONTINUE", "HIERARCH", "COMMENT", "END",
]  # fmt: skip
WORDS = {
    "XTENSION": ["'IMAGE'", "'BINTABLE'", "'TABLE'", "'A3DTABLE'", "'FOREIGN'", "'image'"],
    "BITPIX": ["8", "16", "32", "64", "-32", "-64", "-16", "24"],
    "ZBITPIX": ["8", "16", "32", "64", "-32", "-64"],
    "ZCMPTYPE": [
        "'RICE_1'",
        "'RICE_ONE'",
        "'GZIP_1'",
        "'GZIP_2'",
        "'PLIO_1'",
        "'HCOMPRESS_1'",
        "'NOCOMPRESS'",
        "'X'",
    ],
    "ZQUANTIZ": [
        "'NO_DITHER'",
        "'SUBTRACTIVE_DITHER_1'",
        "'SUBTRACTIVE_DITHER_2'",
        "'NONE'",
        "'no_dither'",
        "'X'",
    ],
    "ZDITHER0": ["0", "1", "9999", "10000", "10001", "-1"],
    "ZBLANK": ["-2147483648", "-2147483647", "-2147483646", "0", "100"],
    "BLANK": ["-32768", "0", "100"],
    "BSCALE": ["0", "1", "2", "1E-3", "-1", "1E308"],
    "BZERO": ["0", "32768", "2147483648", "1E308", "-0.1"],
    "ZIMAGE": ["T", "F", "1"],
    "ZVAL1": ["16", "32", "64", "0", "-1"],
    "ZVAL2": ["1", "2", "4", "8", "0"],
    "TFORM1": [
        "'1PB(9)'",
        "'1QB(9)'",
        "'1PI'",
        "'PJ'",
        "'2PB'",
        "'1PX'",
        "'1J'",
        "'1D'",
        "'1PB(999999999)'",
        "'0PB'",
    ],
    "TTYPE1": ["'COMPRESSED_DATA'", "'UNCOMPRESSED_DATA'", "'GZIP_COMPRESSED_DATA'", "'ZSCALE'", "'x'"],
    "TTYPE2": ["'COMPRESSED_DATA'", "'ZBLANK'", "'GZIP_COMPRESSED_DATA'", "'ZZERO'", "'zscale'"],
    "SIMPLE": ["T", "F"],
}


@dataclass
class Part:
    """An HDU: header blocks, and data with their padding."""

    header: bytearray
    data: bytearray

    def cards(self) -> list[bytes]:
        """The cards up to END, without the blanks after it."""
        cards = [bytes(self.header[i : i + CARD]) for i in range(0, len(self.header), CARD)]
        end = next((i for i, card in enumerate(cards) if card.startswith(b"END ")), len(cards))
        return cards[:end]

    def set_cards(self, cards: Sequence[bytes]) -> None:
        text = b"".join([*cards, b"END".ljust(CARD)])
        self.header = bytearray(text.ljust(-(-len(text) // BLOCK) * BLOCK))


@dataclass(frozen=True)
class Seed:
    """A whole raw file."""

    form: Form
    name: str
    parts: list[tuple[bytes, bytes]]

    def copy(self) -> list[Part]:
        return [Part(bytearray(header), bytearray(data)) for header, data in self.parts]


def make_seeds(folder: Path, forms: Sequence[Form]) -> list[Seed]:
    """A file of every form, without checksums: they would refuse nearly all that follows."""
    seeds = []
    for i, form in enumerate(forms):
        path = write_form(form, folder, raw_name(i))
        content = path.read_bytes()
        parts = []
        for hdu in find_hdus(content):
            part = Part(bytearray(hdu.text), bytearray(content[hdu.data_offset : hdu.end]))
            part.set_cards([card for card in part.cards() if card[:8] not in SUMS])
            parts.append((bytes(part.header), bytes(part.data)))
        seeds.append(Seed(form, path.name, parts))
    return seeds


def is_rare(seed: Seed) -> bool:
    """Whether astropy decodes the tiles, which costs another process."""
    return any(option in seed.form.storage for option in LEFT_TO_ASTROPY)


# What is changed


def card(rng: np.random.Generator) -> bytes:
    """A card that may be anything."""
    keyword = str(rng.choice(OFTEN if rng.random() < 0.6 else SELDOM))
    if keyword in WORDS and rng.random() < 0.7:
        value = str(rng.choice(WORDS[keyword]))
    elif rng.random() < 0.6:
        value = str(NUMBERS[rng.integers(len(NUMBERS))])
    else:
        value = TEXTS[rng.integers(len(TEXTS))]
    joint = "= " if rng.random() < 0.9 else str(rng.choice(["  ", "=", "=  =", " ="]))
    return f"{keyword:8}{joint}{value:>20}".encode("latin-1")[:CARD].ljust(CARD)


def changed_card(rng: np.random.Generator, parts: list[Part]) -> None:
    """A card of the header's own given another value, or added."""
    part = one(rng, parts)
    cards, new = part.cards(), card(rng)
    same = [i for i, old in enumerate(cards) if old[:8] == new[:8]]
    if same:
        cards[same[0]] = new
    else:
        cards.insert(int(rng.integers(1, len(cards) + 1)), new)
    part.set_cards(cards)


def extra_card(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    cards = part.cards()
    cards.insert(int(rng.integers(len(cards) + 1)), card(rng))
    part.set_cards(cards)


def removed_card(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    cards = part.cards()
    del cards[int(rng.integers(len(cards)))]
    part.set_cards(cards)


def duplicated_card(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    cards = part.cards()
    again = bytearray(cards[int(rng.integers(len(cards)))])
    if rng.random() < 0.5:
        again[int(rng.integers(10, 30))] = int(rng.integers(48, 58))
    cards.insert(int(rng.integers(len(cards) + 1)), bytes(again))
    part.set_cards(cards)


def swapped_cards(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    cards = part.cards()
    i, j = rng.integers(len(cards), size=2)
    cards[i], cards[j] = cards[j], cards[i]
    part.set_cards(cards)


def digits(rng: np.random.Generator, parts: list[Part]) -> None:
    """A digit of a number of a header changed."""
    header = one(rng, parts).header
    places = [i for i, byte in enumerate(header) if 48 <= byte < 58]
    header[int(rng.choice(places))] = int(rng.choice(list(b"0123456789-.EA '")))


def header_bytes(rng: np.random.Generator, parts: list[Part]) -> None:
    header = one(rng, parts).header
    for place in rng.integers(len(header), size=rng.integers(1, 4)):
        header[place] = int(rng.integers(32, 127) if rng.random() < 0.7 else rng.integers(256))


def many_cards(rng: np.random.Generator, parts: list[Part]) -> None:
    """A long string over many cards, or a header of hundreds of blocks."""
    part = one(rng, parts)
    more = [b"LONG    = 'x&'".ljust(CARD)] + [b"CONTINUE  'y&'".ljust(CARD)] * int(rng.choice([1, 40, 4000, 9000]))
    part.set_cards([*part.cards(), *more])


def cut_header(rng: np.random.Generator, parts: list[Part]) -> None:
    """A header without its END, or with one too early."""
    part = one(rng, parts)
    if rng.random() < 0.5:
        part.header = part.header.replace(b"END".ljust(CARD), b" " * CARD)
    else:
        place = CARD * int(rng.integers(len(part.header) // CARD))
        part.header[place : place + CARD] = b"END".ljust(CARD)


def descriptor(rng: np.random.Generator, parts: list[Part]) -> None:
    """A number of a table, such as where a tile is and how long, or the scale of a row."""
    part = one(rng, parts)
    if len(part.data) < 16:
        return
    width = int(rng.choice([4, 8]))
    table = min(len(part.data), 24 * 24)
    place = width * int(rng.integers(table // width))
    number = NUMBERS[rng.integers(len(NUMBERS))] if rng.random() < 0.7 else int(rng.integers(1, 4000))
    odd = [np.nan, np.inf, 0.0, 1e308, -1.0]
    if width == 8 and rng.random() < 0.4:
        new = np.array(odd[rng.integers(len(odd))], ">f8").tobytes()
    else:
        new = (number % 2 ** (8 * width)).to_bytes(width, "big")
    part.data[place : place + width] = new


def flipped_bits(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    if part.data:
        for place in rng.integers(len(part.data), size=rng.integers(1, 6)):
            part.data[place] ^= 1 << int(rng.integers(8))


def run_of_bytes(rng: np.random.Generator, parts: list[Part]) -> None:
    part = one(rng, parts)
    if part.data:
        length = int(rng.choice([1, 2, 4, 16, 100, 1000]))
        place = int(rng.integers(len(part.data)))
        new = rng.bytes(length) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255, 1]))]) * length
        part.data[place : place + length] = new[: len(part.data) - place]


def length_of_data(rng: np.random.Generator, parts: list[Part]) -> None:
    """Data cut, drawn out, or without a block."""
    part = one(rng, parts)
    size = int(rng.choice([1, 79, BLOCK, 3 * BLOCK]))
    if rng.random() < 0.5:
        part.data = part.data[:-size]
    else:
        part.data += bytes(size)


def hdus(rng: np.random.Generator, parts: list[Part]) -> None:
    """HDUs swapped, dropped, doubled."""
    i, j = rng.integers(len(parts), size=2)
    match int(rng.integers(4)):
        case 0:
            parts[i], parts[j] = parts[j], parts[i]
        case 1:
            del parts[i]
        case 2:
            parts.insert(int(j), Part(parts[i].header[:], parts[i].data[:]))
        case _:
            parts[i].header = parts[j].header[:]


def one(rng: np.random.Generator, parts: list[Part]) -> Part:
    """The HDU that is changed: the primary as often as another; one that has cards."""
    having = [part for part in parts if part.cards()]
    return having[int(rng.integers(len(having)))]


CHANGES: dict[Callable[[np.random.Generator, list[Part]], None], int] = {
    changed_card: 8, extra_card: 3, removed_card: 3, duplicated_card: 2, swapped_cards: 1, digits: 4,
    header_bytes: 2, many_cards: 1, cut_header: 1, descriptor: 6, flipped_bits: 5, run_of_bytes: 4,
    length_of_data: 1, hdus: 1,
}  # fmt: skip


def mutant(number: int, seeds: Sequence[Seed], *, seed: int = 0) -> tuple[str, bytes]:
    """A hostile file: its name and content, always the same for a number."""
    rng = np.random.default_rng([seed, number])
    chosen = seeds[rng.integers(len(seeds))]
    while is_rare(chosen) and rng.random() < 0.5:
        chosen = seeds[rng.integers(len(seeds))]
    parts = chosen.copy()
    weights = np.array(list(CHANGES.values())) / sum(CHANGES.values())
    for change in rng.choice(np.array(list(CHANGES), object), size=1 + (rng.random() < 0.4), p=weights):
        change(rng, parts)
    if rng.random() < 0.05:  # another form's extension
        other = seeds[rng.integers(len(seeds))].copy()
        parts[-1 - int(rng.integers(min(8, len(parts))))] = other[int(rng.integers(1, 9))]
    content = b"".join(bytes(part.header) + bytes(part.data) for part in parts)
    match int(rng.integers(40)):
        case 0:
            content = content[: int(rng.integers(len(content)))]
        case 1:
            content += rng.bytes(int(rng.choice([1, 100, BLOCK])))
        case 2:
            place = int(rng.integers(len(content)))
            content = content[:place] + rng.bytes(int(rng.choice([1, 80, BLOCK]))) + content[place:]
    return chosen.name, content


# What astropy reads


def digest(extension: bytes) -> bytes:
    return hashlib.blake2b(extension, digest_size=16).digest()


def known_images(seeds: Sequence[Seed]) -> dict[bytes, np.ndarray]:
    """What astropy reads of extensions that are not changed: most of a file, and it is slow."""
    known = {}
    for seed in seeds:
        content = b"".join(header + data for header, data in seed.parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(content)) as file:
                for (header, data), hdu in zip(seed.parts[1:], file[1:], strict=True):
                    known[digest(header + data)] = np.asarray(hdu.data).astype(np.float32)
    return known
