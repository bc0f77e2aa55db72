"""Where raw files come from: files, folders, globs and URLs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import obstore

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.hdus import ReadAt, open_bytes
from ztfzarr.store.objects import open_url

SUFFIXES: Final = (".fits", ".fits.fz")


@dataclass(frozen=True)
class Source:
    """A raw file: ``label`` is its path or URL."""

    label: str

    @property
    def name(self) -> str:
        """Name without folders."""
        return self.label.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_url(self) -> bool:
        """Whether it is read through an object store or HTTP."""
        return "://" in self.label

    def read(self) -> bytes:
        """Read the whole file; RefusedError if it cannot be read."""
        with _refusing():
            if not self.is_url:
                return Path(self.label).read_bytes()
            store, key = _open_url(self.label)
            return bytes(obstore.get(store, key).bytes())

    @contextmanager
    def opened(self) -> Iterator[tuple[ReadAt, int]]:
        """Give random access and the size, for a scan of the headers; RefusedError if it cannot be read."""
        with _refusing():
            if self.is_url:
                store, key = _open_url(self.label)
                size = obstore.head(store, key)["size"]
                yield _ranges(store, key, size), size
            else:
                with Path(self.label).open("rb") as file:
                    yield open_bytes(file), os.fstat(file.fileno()).st_size


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn errors of the operating system and of object stores into a refusal of one line."""
    try:
        yield
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror or str(error).splitlines()[0]}") from None
    except obstore.exceptions.BaseError as error:
        raise RefusedError(f"cannot be read: {str(error).splitlines()[0]}") from None


def _open_url(url: str) -> tuple[Any, str]:
    """Open the store of a URL's folder, and return it with the name inside."""
    folder, name = url.rsplit("/", 1)
    return open_url(folder), name


def _ranges(store: Any, key: str, size: int) -> ReadAt:
    """Read ranges of an object; the first request takes what the primary header usually needs."""

    def read_at(offset: int, length: int) -> bytes:
        length = min(length, size - offset)
        return bytes(obstore.get_range(store, key, start=offset, length=length)) if length > 0 else b""

    return read_at


def find_sources(paths: Sequence[str]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Find the raw files that paths name.

    Parameters
    ----------
    paths : sequence of str
        Files, folders (searched through for names in .fits and .fits.fz), globs, URLs of files or, ending in
        a slash, of prefixes.

    Returns
    -------
    sources : list of Source
        Each file once, sorted by name, which is by time.
    refused : list of (path, reason)
        Paths that name nothing.
    """
    found: dict[str, Source] = {}
    refused = []
    for path in paths:
        try:
            labels = list(_labels(path))
        except (RefusedError, OSError, obstore.exceptions.BaseError) as error:
            refused.append((path, str(error).splitlines()[0]))
            continue
        for label in labels:
            found.setdefault(label if "://" in label else os.path.realpath(label), Source(label))
    return sorted(found.values(), key=lambda source: (source.name, source.label)), refused


def _labels(path: str) -> Iterator[str]:
    if "://" in path and not path.startswith("file://"):
        yield from _below_url(path) if path.endswith("/") else [path]
        return
    path = path.removeprefix("file://")
    if Path(path).is_dir():
        yield from _below_folder(path)
    elif Path(path).exists() or not glob.has_magic(path):
        if not os.path.lexists(path):
            raise RefusedError("no such file or folder")
        yield path
    else:
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise RefusedError("no file matches")
        for match in matches:
            yield from _below_folder(match) if Path(match).is_dir() else [match]


def _below_folder(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (str(Path(parent, name)) for name in sorted(names) if name.endswith(SUFFIXES))


def _below_url(url: str) -> Iterator[str]:
    for batch in obstore.list(open_url(url.rstrip("/"))):
        yield from (url + meta["path"] for meta in batch if meta["path"].endswith(SUFFIXES))
