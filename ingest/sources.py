"""Where raw files come from: files, folders, globs and URLs."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import obstore

from ztfzarr.errors import RefusedError, StoreError
from ztfzarr.ingest.hdus import BLOCK, ReadAt, open_bytes
from ztfzarr.store.access import reason
from ztfzarr.store.remote import Options, listed, open_url

SUFFIXES: Final = (".fits", ".fits.fz")
WEB: Final = ("http://", "https://")
READ_AHEAD: Final = 4 * BLOCK  # a primary header, hence nine requests a scan


@dataclass(frozen=True)
class Source:
    """A raw file: ``label`` is its path or URL, ``options`` those of its object store, which are never shown."""

    label: str
    options: Options = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """Name without folders."""
        return self.label.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_url(self) -> bool:
        """Whether it is read through an object store or HTTP."""
        return "://" in self.label

    def stamp(self) -> tuple[int, ...]:
        """Tell a local file from another that takes its path; of a URL nothing is known."""
        if self.is_url:
            return ()
        with _refusing():
            found = Path(self.label).stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> bytes:
        """Read the whole file; RefusedError if it cannot be read."""
        with _refusing():
            if not self.is_url:
                _check_regular(self.label)
                return Path(self.label).read_bytes()
            store, key = _open_url(self.label, self.options)
            return bytes(obstore.get(store, key).bytes())

    @contextmanager
    def opened(self) -> Iterator[tuple[ReadAt, int]]:
        """Give random access and the size, for a scan of the headers; RefusedError if it cannot be read."""
        with _refusing():
            if self.is_url:
                store, key = _open_url(self.label, self.options)
                size = obstore.head(store, key)["size"]
                yield _ranges(store, key, size), size
            else:
                _check_regular(self.label)
                with Path(self.label).open("rb") as file:
                    yield open_bytes(file), os.fstat(file.fileno()).st_size


def _check_regular(path: str) -> None:
    """Refuse a directory, and a pipe, which would keep us waiting for ever."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "pipe or device"
        raise RefusedError(f"cannot be read: is a {kind}, expected a file")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn errors of the operating system and of object stores into a refusal of one line."""
    try:
        yield
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror or reason(error)}") from None
    except obstore.exceptions.BaseError as error:
        raise RefusedError(f"cannot be read: {reason(error)}") from None


def _open_url(url: str, options: Options) -> tuple[Any, str]:
    """Open the store of a URL's folder, and return it with the name inside."""
    folder, name = url.rsplit("/", 1)
    try:
        # What opens an object store is not for web servers.
        return open_url(folder, {} if url.startswith(WEB) else dict(options)), name
    except StoreError as error:  # as of a URL without a host
        raise RefusedError(f"cannot be read: {error}") from None


def _ranges(store: Any, key: str, size: int) -> ReadAt:
    """Read ranges of an object, some ahead; of a web server that gives none, the whole object once."""
    start, held = 0, b""

    def read_at(offset: int, length: int) -> bytes:
        nonlocal start, held
        length = min(length, size - offset)
        if length <= 0:
            return b""
        if not start <= offset <= offset + length <= start + len(held):
            try:
                ahead = min(max(length, READ_AHEAD), size - offset)
                start, held = offset, bytes(obstore.get_range(store, key, start=offset, length=ahead))
            except obstore.exceptions.NotSupportedError:  # as Python's http.server
                start, held = 0, bytes(obstore.get(store, key).bytes())
        return held[offset - start : offset - start + length]

    return read_at


def find_sources(
    paths: Sequence[str], storage_options: Mapping[str, str] | None = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Find the raw files that paths name.

    Parameters
    ----------
    paths : sequence of str
        Files, folders (searched through for names in .fits and .fits.fz), globs, URLs of such files or of
        prefixes.
    storage_options : mapping of str, optional
        Credentials and settings for URLs of object stores; default the environment's.

    Returns
    -------
    sources : list of Source
        Each file once, sorted by name, which is by time.
    refused : list of (path, reason)
        Paths that name nothing.
    """
    options = tuple(sorted((storage_options or {}).items()))
    found: dict[str, Source] = {}
    refused: list[tuple[str, str]] = []
    for path in paths:
        try:
            with _refusing():
                labels = list(_labels(path, options, refused))
        except RefusedError as error:
            refused.append((path, str(error)))
            continue
        for label in labels:
            found.setdefault(label if "://" in label else os.path.realpath(label), Source(label, options))
    return sorted(found.values(), key=lambda source: (source.name, source.label)), refused


def _labels(path: str, options: Options, refused: list[tuple[str, str]]) -> Iterator[str]:
    """Find the files that a path names; folders below it that cannot be read go to ``refused``."""
    if "://" in path and not path.startswith("file://"):
        yield from [path] if path.endswith(SUFFIXES) else _below_url(path, options)
        return
    path = path.removeprefix("file://")
    if _exists(path):
        matches = [path]
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
    else:
        raise RefusedError("no such file or folder")
    if not matches:
        raise RefusedError("no file matches")
    for match in matches:
        yield from _below_folder(match, refused) if _is_folder(match) else [match]


def _exists(path: str) -> bool:
    """Say whether a path names anything, be it a link to nothing."""
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_folder(path: str) -> bool:
    """Say whether to look for files below a path: a directory by the name of a raw file is a bad file."""
    return Path(path).is_dir() and not path.endswith(SUFFIXES)


def _below_folder(folder: str, refused: list[tuple[str, str]]) -> Iterator[str]:
    """Find the raw files below a folder and below linked ones, each folder once: a link may lead to a parent."""
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        refused.append((str(error.filename), f"cannot be read: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        found = sorted(name for name in (*names, *folders) if name.endswith(SUFFIXES))
        folders[:] = sorted(name for name in folders if not name.endswith(SUFFIXES))
        yield from (str(Path(parent, name)) for name in found)


def _below_url(url: str, options: Options) -> Iterator[str]:
    if "*" in url:
        raise RefusedError("globs are of local paths: expected the URL of a file or of a prefix")
    prefix = url.rstrip("/") + "/"
    for entry in listed(_open_url(prefix, options)[0]):
        if entry.key.endswith(SUFFIXES):
            yield prefix + entry.key
