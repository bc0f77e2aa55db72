"""The scales of raw files, held from one selection of pixels to the next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

FILES_HELD: Final = 512  # 0.4 MB each at full size: a CCD's night, or a month of its biases


Dither = Callable[[], NDArray[np.int16]]  # gives ``zdither`` (image) of a file, when it has come


@dataclass(frozen=True)
class Scales:
    """What turns the integers of a file into DN: ``zdither`` (image), ``zscale`` and ``zzero`` (image, y)."""

    zdither: NDArray[np.int16]
    zscale: NDArray[np.float64]
    zzero: NDArray[np.float64]


class HeldScales:
    """Scales of the files last read, by opening, row and CCD: blocks of one file share them.

    Only of files that are present, which stay as they are.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[str, int, int], Scales] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int, int]) -> Scales | None:
        """Return what is held of a file, None if nothing is."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def hold(self, key: tuple[str, int, int], scales: Scales) -> None:
        """Hold a file's scales, and let those go that were used longest ago."""
        with self._lock:
            self._held[key] = scales
            while len(self._held) > self._limit:
                self._held.popitem(last=False)


def row_of(table: Future[NDArray[np.int16]], time: int, ccd: int) -> NDArray[np.int16]:
    """Return ``zdither`` (image) of a file, once the table has come; it keeps no table of others."""
    return np.array(table.result()[time, ccd], np.int16)


@cache
def held_scales() -> HeldScales:
    """Hold what the readers of this process share."""
    return HeldScales(FILES_HELD)
