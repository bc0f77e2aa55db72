"""Pixel forms that are left to astropy.

Its compiled decoders trust their input: of 600 mutated small files, one HCOMPRESS tile made astropy 8.0 write
outside its memory and end the interpreter, and a tile of GZIP may grow to any size. That a checksum holds says
nothing of who made the file. Tiles are therefore decoded in a process of their own.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.ingest import apart
from ztfzarr.ingest.hdus import Hdu, check_sums, has_sums
from ztfzarr.ingest.tiles import algorithm, check_tiles

COMPILED: Final = frozenset({"RICE_1", "RICE_ONE", "PLIO_1", "HCOMPRESS_1"})
PRIMARY: Final = fits.PrimaryHDU().header.tostring().encode()
CHILD: Final = "from ztfzarr.ingest.rare import decode_standard_input as run; run()"
CHILD_SECONDS: Final = 4.0  # and one more a megabyte; a full-size file, 27 MB, takes 3 s
CHILD_BYTES: Final = 2**28  # of address space beyond what it starts with
PIXEL_BYTES: Final = 40  # and for each pixel: astropy holds them as int64 and float64 for a while
_ONE_AT_A_TIME: Final = threading.Lock()

Image = NDArray[np.generic]


@contextmanager
def quiet_astropy() -> Iterator[None]:
    """Keep astropy's warnings of odd headers and tiles from our users."""
    # Filters of warnings belong to the process, not to a thread: one thread at a time.
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def astropy_images(hdus: Sequence[Hdu], content: memoryview) -> list[Image]:
    """Read images with astropy: values as its users get them, native byte order.

    Parameters
    ----------
    hdus : sequence of Hdu
        Image extensions of the file.
    content : memoryview
        The whole file.

    Raises
    ------
    RefusedError
        If astropy cannot read one, or a checksum does not hold.
    """
    for hdu in hdus:
        check_sums(hdu, content)
    tiled = [hdu for hdu in hdus if hdu.value("ZIMAGE") is not None]
    for hdu in tiled:
        if algorithm(hdu) == "PLIO_1" or (algorithm(hdu) in COMPILED and not has_sums(hdu)):
            check_tiles(hdu, content)
    if tiled:
        return _in_a_process(hdus, content)
    with quiet_astropy():
        return [_image(content[hdu.start : hdu.end], hdu.index) for hdu in hdus]


def _image(extension: bytes | memoryview, index: int) -> Image:
    """Read one extension, header and data, that has ``index`` in its file."""
    try:
        with fits.open(io.BytesIO(PRIMARY + bytes(extension)), memmap=False) as file:
            data = np.asarray(file[1].data)
    except Exception as error:  # astropy names no set of errors for damaged files; any is a refusal
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedError(f"HDU {index}: astropy cannot read the image ({why[:100]})") from None
    if data.dtype.kind not in "iuf":
        raise RefusedError(f"HDU {index}: holds no image of numbers")
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _in_a_process(hdus: Sequence[Hdu], content: memoryview) -> list[Image]:
    """Read images in another process, which may crash, hang or ask for too much memory."""
    pixels = max(hdu.integer("ZNAXIS1", 0) * hdu.integer("ZNAXIS2", 0) for hdu in hdus)
    extensions = [(hdu.index, content[hdu.start : hdu.end]) for hdu in hdus]
    parts = [_number(CHILD_BYTES + PIXEL_BYTES * pixels), _number(len(hdus))]
    for index, extension in extensions:
        parts += [_number(index), _number(len(extension)), bytes(extension)]
    seconds = CHILD_SECONDS + sum(map(len, parts)) / 1e6
    where = "HDU " + "-".join(str(i) for i in sorted({hdus[0].index, hdus[-1].index}))
    try:
        refused, answer = apart.ask(CHILD, b"".join(parts), seconds)
    except TimeoutError:
        raise RefusedError(f"{where}: astropy did not come to an end within {seconds:.0f} s: damaged") from None
    except EOFError:
        raise RefusedError(f"{where}: astropy crashed on a tile: damaged") from None
    if refused:
        raise RefusedError(answer.decode())
    received = io.BytesIO(answer)
    return [np.load(received, allow_pickle=False) for _ in hdus]


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def decode_standard_input() -> None:
    """Read extensions from standard input, write their images to standard output: what the process runs."""
    warnings.simplefilter("ignore")
    apart.serve(_answered)


def _answered(first: bytes, source: BinaryIO) -> tuple[bool, bytes]:
    """Decode the extensions of one question."""
    room = int.from_bytes(first + source.read(7), "big")
    count = int.from_bytes(source.read(8), "big")
    extensions = []
    for _ in range(count):
        index, length = (int.from_bytes(source.read(8), "big") for _ in range(2))
        extensions.append((index, source.read(length)))
    answer = io.BytesIO()
    try:
        with apart.bounded(room):
            for index, extension in extensions:
                np.save(answer, _sound_image(extension, index))
    except RefusedError as error:
        return True, str(error).encode()
    return False, answer.getvalue()


def _sound_image(extension: bytes, index: int) -> Image:
    """Read an image twice, into memory that holds other things: a short tile of PLIO leaves it as it was."""
    images = []
    for filling in (0x55, 0xAA):
        apart.fill_memory(filling)
        images.append(_image(extension, index))
    if images[0].tobytes() != images[1].tobytes():
        raise RefusedError(f"HDU {index}: a tile that does not hold all its pixels: damaged")
    return images[0]
