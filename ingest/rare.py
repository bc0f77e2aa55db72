"""Pixel forms that are left to astropy.

Its compiled decoders trust their input: of 600 mutated small files, one HCOMPRESS tile made astropy 8.0 write
outside its memory and end the interpreter. Tiles for them without a checksum that holds are therefore
decoded in a process of their own.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.hdus import Hdu, check_sums, has_sums
from ztfzarr.ingest.tiles import algorithm, check_tiles

COMPILED: Final = frozenset({"RICE_1", "RICE_ONE", "PLIO_1", "HCOMPRESS_1"})
PRIMARY: Final = fits.PrimaryHDU().header.tostring().encode()
CHILD: Final = "from ztfzarr.ingest.rare import decode_standard_input as run; run()"
CHILD_SECONDS: Final = 30  # and one more a megabyte; a full-size file takes 3 s
CHILD_BYTES: Final = 8 * 2**30  # of address space
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
    dangerous = [hdu for hdu in hdus if algorithm(hdu) in COMPILED and not has_sums(hdu)]
    for hdu in dangerous:
        check_tiles(hdu, content)
    if dangerous:
        return _in_a_process(hdus, content)
    with quiet_astropy():
        return [_image(content[hdu.start : hdu.end], hdu.index) for hdu in hdus]


def _image(extension: bytes | memoryview, index: int) -> Image:
    """Read one extension, header and data, that has ``index`` in its file."""
    try:
        with fits.open(io.BytesIO(PRIMARY + bytes(extension)), memmap=False) as file:
            data = np.asarray(file[1].data)
    except Exception as error:  # astropy names no set of errors for damaged files; any is a refusal
        raise RefusedError(f"HDU {index}: astropy cannot read the image ({error})".splitlines()[0]) from None
    if data.dtype.kind not in "iuf":
        raise RefusedError(f"HDU {index}: holds no image of numbers")
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _in_a_process(hdus: Sequence[Hdu], content: memoryview) -> list[Image]:
    """Read images in a process of their own, which may crash, hang or ask for too much memory."""
    sent = b"".join([_number(len(hdus)), *(_message(hdu, content) for hdu in hdus)])
    command = [sys.executable, "-P", "-c", CHILD]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    where = "HDU " + "-".join(str(i) for i in sorted({hdus[0].index, hdus[-1].index}))
    seconds = CHILD_SECONDS + len(sent) / 1e6
    try:
        done = subprocess.run(command, input=sent, capture_output=True, timeout=seconds, env=paths)
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{where}: astropy did not come to an end within {seconds:.0f} s: damaged") from None
    if done.returncode:
        refusal = done.stderr.decode(errors="replace").strip().splitlines()
        known = refusal and refusal[-1].startswith("HDU ")
        raise RefusedError(refusal[-1] if known else f"{where}: astropy crashed on a tile: damaged")
    received = io.BytesIO(done.stdout)
    return [np.load(received, allow_pickle=False) for _ in hdus]


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _message(hdu: Hdu, content: memoryview) -> bytes:
    extension = content[hdu.start : hdu.end]
    return _number(hdu.index) + _number(len(extension)) + bytes(extension)


def decode_standard_input() -> None:
    """Read extensions from standard input, write their images to standard output: what the process runs."""
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_BYTES, CHILD_BYTES))
    warnings.simplefilter("ignore")
    source = sys.stdin.buffer
    try:
        for _ in range(int.from_bytes(source.read(8), "big")):
            index, length = (int.from_bytes(source.read(8), "big") for _ in range(2))
            np.save(sys.stdout.buffer, _image(source.read(length), index))
    except RefusedError as error:
        sys.exit(str(error))
