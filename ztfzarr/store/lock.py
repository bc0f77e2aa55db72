"""A lock made of objects that are only ever created and deleted, never overwritten.

Create-if-absent is the one operation that local disks and object stores offer exclusively (DESIGN §1). Lock
objects are numbered: a stale one is taken over by creating the next number, and a holder checks that no
higher one exists before it writes what readers will see.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ztfzarr.errors import StoreError
from ztfzarr.store.objects import HIDDEN, Entry, Objects

LEASE: Final = 600.0  # seconds; work under the lock takes a few
POLL: Final = 0.2
PATIENCE: Final = 1800.0
STEP_BACK: Final = 10.0  # seconds; who steps back takes two requests


@dataclass(frozen=True)
class Lock:
    """A held lock; :meth:`check` before each write that readers will see."""

    objects: Objects
    key: str
    content: bytes
    deadline: float

    def check(self) -> None:
        """Raise StoreError if another writer has taken the lock over, or the lease has run out.

        A higher number may also be of a writer who found the lock just released and is about to step back.
        """
        give_up = time.monotonic() + STEP_BACK
        while self._is_mine() and time.monotonic() < min(self.deadline, give_up):
            newer = [e for e in _locks(self.objects, self._folder) if e.key > self.key]
            if _live_holder(self.objects, newer, self._folder) is None:
                return
            time.sleep(random.uniform(0, POLL))
        raise StoreError("another writer took over the lock of this store: run the command again")

    def release(self) -> None:
        """Remove the lock object, unless it is another writer's by now: numbers are used again."""
        if self._is_mine():
            self.objects.delete(self.key)

    @property
    def _folder(self) -> str:
        return self.key.rsplit("/", 1)[0]

    def _is_mine(self) -> bool:
        try:
            return self.objects.get(self.key) == self.content
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def lock(
    objects: Objects, name: str, *, waiting: Callable[[str], None] | None = None, patience: float = PATIENCE
) -> Iterator[Lock]:
    """Hold the lock ``name`` of a store, waiting for other holders.

    Parameters
    ----------
    objects : Objects
        The store.
    name : str
        What is locked, such as ``raw``.
    waiting : callable, optional
        Told once who holds the lock, when there is a wait.
    patience : float
        Seconds to wait.

    Raises
    ------
    StoreError
        If the lock is held for longer than ``patience`` by a live holder.
    """
    held = _acquire(objects, f"{HIDDEN}/lock/{name}", waiting, patience)
    try:
        yield held
    finally:
        held.release()


def _acquire(objects: Objects, folder: str, waiting: Callable[[str], None] | None, patience: float) -> Lock:
    give_up = time.monotonic() + patience
    while True:
        started = time.monotonic()
        locks = _locks(objects, folder)
        holder = _live_holder(objects, locks, folder)
        if holder is None:
            number = int(locks[-1].key.rsplit("/", 1)[1]) + 1 if locks else 1
            held = Lock(objects, f"{folder}/{number:012d}", _identity(), started + LEASE)
            if _take(held, folder):
                return held
        elif waiting is not None:
            waiting(holder)
            waiting = None
        if time.monotonic() > give_up:
            raise StoreError(f"the store is locked by {holder or 'other writers'}: waited {patience:.0f} s")
        time.sleep(random.uniform(0, POLL))


def _take(held: Lock, folder: str) -> bool:
    """Create a lock object, then look again: of two who both found the lock free, one at least steps back."""
    try:
        if not held.objects.create(held.key, held.content):
            return False
        others = [entry for entry in _locks(held.objects, folder) if entry.key != held.key]
        if _live_holder(held.objects, others, folder) is not None:
            held.release()
            return False
        for stale in others:
            held.objects.delete(stale.key)
    except BaseException:  # an interrupt must not leave a lock that this live process seems to hold
        with contextlib.suppress(Exception):
            held.release()
        raise
    return True


def _locks(objects: Objects, folder: str) -> list[Entry]:
    return sorted(objects.entries(folder), key=lambda entry: entry.key)


def _identity() -> bytes:
    identity = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    if _machine() is not None:
        identity |= {"machine": _machine(), "start": _start_time(os.getpid())}
    return json.dumps(identity).encode()


def _live_holder(objects: Objects, locks: list[Entry], folder: str) -> str | None:
    """Describe the newest live holder among lock objects; None if there is none."""
    for entry in reversed(locks):
        try:
            identity = _parsed(objects.get(entry.key))
        except FileNotFoundError:
            continue
        if "machine" in identity and identity["machine"] == _machine():
            live = _start_time(identity["pid"]) == identity["start"]
        else:
            live = _store_clock(objects, folder) - entry.modified <= LEASE
        if live:
            return f"process {identity.get('pid')} on {identity.get('host')}"
    return None


def _parsed(content: bytes) -> dict[str, Any]:
    """Parse a lock object; one that is damaged has no identity, and only its lease."""
    try:
        identity = json.loads(content)
    except ValueError:
        return {}
    return identity if isinstance(identity, dict) else {}


@cache
def _machine() -> str | None:
    """Name the running kernel and the process namespace, in which process numbers mean something.

    Not the host's name: containers and cloud machines share names. None where Linux's /proc is not to be had.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Return when a process of this machine started: a number alone may be used again. None if it is dead.

    One that nobody has waited for keeps its entry: for ever, in a container whose first process waits for none.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _store_clock(objects: Objects, folder: str) -> float:
    """Tell the time by the store's own clock, which is the one that dates its objects."""
    probe = f"{folder.replace('/lock/', '/clock/')}/{uuid.uuid4().hex}"
    objects.put(probe, b"")
    try:
        return next(e.modified for e in objects.entries(probe.rsplit("/", 1)[0]) if e.key == probe)
    finally:
        objects.delete(probe)
