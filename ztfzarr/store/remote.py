"""Stores in object stores, through obstore: S3 and what speaks its language; others as obstore has them."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import ObjectStore as ObstoreStore
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer
from zarr.storage import ObjectStore

from ztfzarr.errors import AccessError
from ztfzarr.store.access import lost, reason
from ztfzarr.store.client import LONGEST_WAIT, MAX_RETRIES, RETRY_SECONDS, make_client
from ztfzarr.store.objects import Entry
from ztfzarr.store.threads import together

Result = TypeVar("Result")
CLOUDS: Final = ("AWS_", "AZURE_", "GOOGLE_")
Options = tuple[tuple[str, str], ...]


def open_url(url: str, storage_options: Mapping[str, str] | None = None) -> ObstoreStore:
    """Open a prefix of an object store, or a folder of a web server.

    One client a process for each URL, options and environment: it keeps its connections.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``; gs://, az:// and http:// are passed to obstore.
    storage_options : mapping of str, optional
        As :func:`ztfzarr.store.client.make_client` takes them.

    Raises
    ------
    StoreError
        If the options are not valid.
    """
    told = tuple(item for item in os.environ.items() if item[0].startswith(CLOUDS))
    return _client(url, tuple(sorted((storage_options or {}).items())), told)


@cache
def _client(url: str, options: Options, environment: Options) -> ObstoreStore:
    return make_client(url, dict(options))  # which reads the environment: another one is another client


# A forked process has its parent's clients but not their threads: their answers would never come.
os.register_at_fork(after_in_child=_client.cache_clear)


def again(act: Callable[[], Result]) -> Result:
    """Act, and again where an answer was lost that obstore does not ask for again."""
    started = time.monotonic()
    for tries in itertools.count():
        try:
            return act()
        except GenericError as error:
            if not _worth_another(error, tries, started):
                raise
        time.sleep(_wait(tries))
    raise AssertionError("unreachable")


async def again_async(act: Callable[[], Awaitable[Result]]) -> Result:
    """Act as :func:`again` does, in zarr's event loop."""
    started = time.monotonic()
    for tries in itertools.count():
        try:
            return await act()
        except GenericError as error:
            if not _worth_another(error, tries, started):
                raise
        await asyncio.sleep(_wait(tries))
    raise AssertionError("unreachable")


def _worth_another(error: GenericError, tries: int, started: float) -> bool:
    return tries < MAX_RETRIES and time.monotonic() - started < RETRY_SECONDS and lost(error)


def _wait(tries: int) -> float:
    return random.uniform(0, min(LONGEST_WAIT.total_seconds(), 0.1 * 2**tries))


def listed(store: ObstoreStore, prefix: str | None = None) -> Iterator[Entry]:
    """List the objects below a prefix; a page that was lost is asked for again from where it began."""
    last: str | None = None
    started = time.monotonic()
    for tries in itertools.count():
        try:
            for batch in obstore.list(store, prefix, offset=last):
                for meta in batch:
                    last = meta["path"]
                    yield Entry(last, meta["size"], meta["last_modified"].timestamp())
            return
        except GenericError as error:
            if not _worth_another(error, tries, started):
                raise
        time.sleep(_wait(tries))


class RemoteObjects:
    """A prefix of an object store.

    Faults of the network, of credentials or of the bucket are ``AccessError``, of one line.
    """

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.location = url.rstrip("/")
        self._options = dict(storage_options or {})
        open_url(self.location, self._options)  # options that are not valid are refused here

    @property
    def store(self) -> ObstoreStore:
        """The client of this process."""
        return open_url(self.location, self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the client: each process of a cluster makes its own."""
        return RemoteObjects, (self.location, self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteObjects) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.location, *sorted(self._options.items())))

    def __repr__(self) -> str:
        return f"RemoteObjects({self.location!r})"

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn faults of access into an error of one line, without what a server says of credentials."""
        try:
            yield
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket" in str(error):
                raise AccessError(f"{self.location}: {reason(error)}") from None
            raise
        except AlreadyExistsError:
            raise
        except BaseError as error:
            raise AccessError(f"{self.location}: {reason(error)}") from None

    def get(self, key: str) -> bytes:
        """Return an object's bytes; FileNotFoundError if it is absent."""
        with self._reaching():
            return again(lambda: bytes(obstore.get(self.store, key).bytes()))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of an object's bytes, ten requests at once; obstore joins parts less than 1 MB apart."""
        starts, lengths = ([one[i] for one in ranges] for i in (0, 1))
        with self._reaching():
            found = again(lambda: obstore.get_ranges(self.store, key, starts=starts, lengths=lengths))
        return [bytes(part) for part in found]

    def get_tail(self, key: str, length: int) -> bytes:
        """Return the last bytes of an object, by a suffix request."""
        with self._reaching():
            suffix: Any = {"range": {"suffix": length}}
            return again(lambda: bytes(obstore.get(self.store, key, options=suffix).bytes()))

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole, by one request; object stores replace atomically."""
        with self._reaching():
            again(lambda: obstore.put(self.store, key, data, use_multipart=False))

    def create(self, key: str, data: bytes) -> bool:
        """Write with ``If-None-Match: *``.

        A request that is repeated because its answer was lost finds the object that it just made.
        """
        with self._reaching():
            try:
                again(lambda: obstore.put(self.store, key, data, mode="create", use_multipart=False))
            except AlreadyExistsError:
                with suppress(FileNotFoundError):
                    return self.get(key) == data
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError), self._reaching():
            again(lambda: obstore.delete(self.store, key))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the objects below a prefix."""
        with self._reaching():
            yield from listed(self.store, prefix)

    def children(self, prefix: str) -> list[str]:
        """Return the common prefixes below a prefix."""
        with self._reaching():
            found = again(lambda: obstore.list_with_delimiter(self.store, f"{prefix}/"))["common_prefixes"]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def zarr_store(
        self, *, read_only: bool, path: str = "", first: Mapping[str, bytes | None] | None = None
    ) -> Store:
        """Return the prefix, or what is below ``path``, as a store of zarr's."""
        client = open_url(f"{self.location}/{path}", self._options) if path else self.store
        store = PatientStore(client, read_only=read_only)
        known = first or {}
        asked = [key for key, data in known.items() if data is None]
        found = zip(asked, together(lambda key: self._get_below(path, key), asked), strict=True)
        store.held = {key: data for key, data in (*known.items(), *found) if data is not None}
        return store

    def _get_below(self, path: str, key: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.get(f"{path}/{key}" if path else key)
        return None


class PatientStore(ObjectStore):  # type: ignore[type-arg]
    """zarr's store of obstore's, which asks again where an answer was lost.

    ``held`` are objects that need no asking, of a reader who wants them as they were when it opened the group.
    """

    held: Mapping[str, bytes] = MappingProxyType({})

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out what is held: pickles go to the workers of clusters, one with each task."""
        return {name: value for name, value in super().__getstate__().items() if name != "held"}

    async def get(self, key: str, prototype: Any = None, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object's bytes; None if it is absent."""
        if byte_range is None and key in self.held:
            return prototype.buffer.from_bytes(self.held[key])  # type: ignore[no-any-return]
        return await again_async(lambda: ObjectStore.get(self, key, prototype, byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object whole, by one request."""
        self._check_writable()
        data = value.to_bytes()
        await again_async(lambda: obstore.put_async(self.store, key, data, use_multipart=False))

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await again_async(lambda: ObjectStore.delete(self, key))

    async def exists(self, key: str) -> bool:
        """Say whether there is an object."""
        return await again_async(lambda: ObjectStore.exists(self, key))
