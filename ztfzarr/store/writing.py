"""Writing through zarr under a lock: arrays that write every chunk, and work that no interrupt cuts short."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import zarr

from ztfzarr.store.objects import Objects

Result = TypeVar("Result")

# zarr's settings are the process's: of two threads that set and reset them, one would leave its own behind.
_SETTINGS: Final = threading.Lock()


def writable_arrays(objects: Objects, group: str, names: Iterable[str]) -> dict[str, zarr.Array[Any]]:
    """Open arrays of a group for writing, each by its own ``zarr.json``.

    Chunks of fill values are written too: a missing object is always a fault.
    """
    store = objects.zarr_store(read_only=False)
    with _SETTINGS, zarr.config.set({"array.write_empty_chunks": True}):
        return {name: zarr.open_array(store, path=f"{group}/{name}", mode="r+", zarr_format=3) for name in names}


def uninterrupted(act: Callable[[], Result]) -> Result:
    """Run to the end in a thread of its own; an interrupt is raised after that.

    zarr writes in a thread of its own, and goes on with what an interrupted call began: without the lock,
    which the interrupt has released, it would write over what the next holder writes.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ztfzarr-write") as pool:
        return pool.submit(act).result()
