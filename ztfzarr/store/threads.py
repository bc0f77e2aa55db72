"""Work in threads, with a bounded number of results waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Act on all items at once, each in a thread of its own: for few that wait for a store."""
    with ThreadPoolExecutor(max(1, len(items)), thread_name_prefix="ztfzarr-together") as pool:
        return list(pool.map(act, items))


def windowed(pool: Executor, act: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Map in the threads of a pool, results in order, at most ``ahead`` under way or waiting.

    ``pool.map`` takes all the items at once: the results of quick work pile up where the caller is slow, and
    millions of items are millions of futures.
    """
    for future in windowed_futures(pool, act, items, ahead):
        yield future.result()


def windowed_futures(
    pool: Executor, act: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Future[Result]]:
    """Submit to a pool as :func:`windowed` does; the futures in order, for the caller to take what they raise."""
    return in_flight(lambda item: pool.submit(act, item), items, ahead)


def in_flight(
    begin: Callable[[Item], Future[Result]], items: Iterable[Item], ahead: int
) -> Iterator[Future[Result]]:
    """Begin work on items; the futures in order, at most ``ahead`` under way or waiting."""
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(under_way) >= ahead:
                yield under_way.popleft()
            under_way.append(begin(item))
        while under_way:
            yield under_way.popleft()
    finally:
        for future in under_way:
            future.cancel()
