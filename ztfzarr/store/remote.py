"""Stores in object stores, through obstore: S3 and what speaks its language; others as obstore has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore as ObstoreStore
from zarr.abc.store import Store
from zarr.storage import ObjectStore

from ztfzarr.errors import AccessError
from ztfzarr.store.access import reason
from ztfzarr.store.client import make_client
from ztfzarr.store.objects import Entry

Options = tuple[tuple[str, str], ...]


def open_url(url: str, storage_options: Mapping[str, str] | None = None) -> ObstoreStore:
    """Open a prefix of an object store, or a folder of a web server.

    One client a process for each URL and options: it keeps its connections.

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
    return _client(url, tuple(sorted((storage_options or {}).items())))


@cache
def _client(url: str, options: Options) -> ObstoreStore:
    return make_client(url, dict(options))


# A forked process has its parent's clients but not their threads: their answers would never come.
os.register_at_fork(after_in_child=_client.cache_clear)


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
            return bytes(obstore.get(self.store, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return part of an object's bytes."""
        with self._reaching():
            return bytes(obstore.get_range(self.store, key, start=start, length=length))

    def get_tail(self, key: str, length: int) -> bytes:
        """Return the last bytes of an object, by a suffix request."""
        with self._reaching():
            return bytes(obstore.get(self.store, key, options={"range": {"suffix": length}}).bytes())

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole; object stores replace atomically."""
        with self._reaching():
            obstore.put(self.store, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write with ``If-None-Match: *``.

        A request that is repeated because its answer was lost finds the object that it just made.
        """
        with self._reaching():
            try:
                obstore.put(self.store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                with suppress(FileNotFoundError):
                    return self.get(key) == data
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError), self._reaching():
            obstore.delete(self.store, key)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the objects below a prefix."""
        with self._reaching():
            for batch in obstore.list(self.store, prefix):
                for meta in batch:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def children(self, prefix: str) -> list[str]:
        """Return the common prefixes below a prefix."""
        with self._reaching():
            found = obstore.list_with_delimiter(self.store, f"{prefix}/")["common_prefixes"]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def zarr_store(self, *, read_only: bool, path: str = "") -> Store:
        """Return the prefix, or what is below ``path``, as a store of zarr's."""
        client = open_url(f"{self.location}/{path}", self._options) if path else self.store
        return ObjectStore(client, read_only=read_only)
