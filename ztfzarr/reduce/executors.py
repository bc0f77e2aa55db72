"""Where entries are made: in threads of this process, or on the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

RETRIES: Final = 5  # of a task whose worker died


@dataclass(frozen=True)
class Crew:
    """Who makes entries.

    ``executor`` runs them, ``hands`` at a time; each may use ``threads`` within. ``lost`` are the errors of an
    entry whose workers died again and again.
    """

    executor: Executor
    hands: int
    threads: int
    lost: tuple[type[BaseException], ...] = ()


@contextmanager
def threads_for_masters(workers: int) -> Iterator[Crew]:
    """Make one master at a time, in parts in ``workers`` threads: memory holds one."""
    with ThreadPoolExecutor(1) as pool:
        yield Crew(pool, 1, workers)


@contextmanager
def threads_for_exposures(workers: int) -> Iterator[Crew]:
    """Make an exposure in each of ``workers`` threads."""
    with ThreadPoolExecutor(workers, thread_name_prefix="ztfzarr-exposure") as pool:
        yield Crew(pool, workers, 1)


@contextmanager
def cluster(address: str) -> Iterator[Crew]:
    """Make entries on the workers of a dask.distributed cluster; those of workers that die are made again.

    Parameters
    ----------
    address : str
        Of its scheduler, ``tcp://host:8786``. Workers must see the store at the same location.

    Raises
    ------
    StoreError
        If there is no such scheduler, or dask.distributed is not installed.
    """
    from ztfzarr.errors import StoreError

    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise StoreError("--scheduler needs dask.distributed: pip install 'ztfzarr[distributed]'") from None
    try:
        client: Any = Client(address, timeout="10s")
    except (OSError, ValueError) as error:  # ValueError: no address
        raise StoreError(f"no scheduler at {address}: {str(error).splitlines()[0]}") from None
    with client:
        hands = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        yield Crew(client.get_executor(retries=RETRIES), 2 * hands, 1, (KilledWorker,))
