"""Processes that may crash without us: each answers questions one after the other, and is replaced when it dies.

Started when first needed, in a second, and kept for the next question.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

READY: Final = b"ready"
M_PERTURB: Final = -6  # of glibc's malloc.h
START_SECONDS: Final = 120.0  # to import astropy: 1 s, on a machine that is busy 10 s

_idle: dict[str, list[subprocess.Popen[bytes]]] = {}


def ask(code: str, question: bytes, seconds: float) -> tuple[bool, bytes]:
    """Send a question to a process and wait for its answer.

    Parameters
    ----------
    code : str
        Python that the process runs; it calls :func:`serve`.
    question : bytes
        As the process expects it.
    seconds : float
        To answer in, once it has started.

    Returns
    -------
    tuple of bool and bytes
        As the function given to :func:`serve` returns them.

    Raises
    ------
    TimeoutError, EOFError
        If it does not answer in time; if it dies.
    """
    process = _taken(code)
    alarm = threading.Timer(seconds, process.kill)
    alarm.start()
    try:
        answer = _answer(process, question)
    except (OSError, EOFError):
        late = not alarm.is_alive()
        _ended(process)
        raise TimeoutError if late else EOFError from None
    finally:
        alarm.cancel()
    _idle.setdefault(code, []).append(process)
    return answer


def _taken(code: str) -> subprocess.Popen[bytes]:
    """Take an idle process that lives, or start one."""
    idle = _idle.setdefault(code, [])
    while idle:
        process = idle.pop()
        if process.poll() is None:
            return process
        _ended(process)
    return _started(code)


def _started(code: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what glibc says of memory that is overwritten
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONMALLOC": "malloc"},
        start_new_session=True,  # so that Ctrl-C is ours alone; it ends with its standard input
    )
    alarm = threading.Timer(START_SECONDS, process.kill)
    alarm.start()
    _pipes(process)[1].read(len(READY))  # or nothing: then the question fails
    alarm.cancel()
    return process


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    return process.stdin, process.stdout  # type: ignore[return-value]


def _answer(process: subprocess.Popen[bytes], question: bytes) -> tuple[bool, bytes]:
    to, back = _pipes(process)
    to.write(question)
    to.flush()
    head = back.read(9)
    if len(head) < 9:
        raise EOFError
    length = int.from_bytes(head[1:], "big")
    body = back.read(length)
    if len(body) < length:
        raise EOFError
    return bool(head[0]), body


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        try:
            pipe.close()
        except BrokenPipeError:  # the part of a question that it did not read
            continue


@atexit.register
def _end_idle() -> None:
    """End the processes that wait."""
    for processes in _idle.values():
        while processes:
            _ended(processes.pop())


# A forked process has the pipes, but they are its parent's.
os.register_at_fork(after_in_child=_idle.clear)


def serve(answer: Callable[[bytes, BinaryIO], tuple[bool, bytes]]) -> None:
    """Answer questions from standard input until it ends: what a process runs.

    Parameters
    ----------
    answer : callable
        Reads one question, of which it is given the first byte, and returns whether it is refused, and the answer.
    """
    source, target = sys.stdin.buffer, sys.stdout.buffer
    target.write(READY)
    target.flush()
    while first := source.read(1):
        refused, body = answer(first, source)
        target.write(bytes([refused]) + len(body).to_bytes(8, "big"))
        target.write(body)
        target.flush()


def fill_memory(byte: int) -> None:
    """Have new memory filled with a byte, where the C library can: what reads it unset then shows."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_PERTURB, byte)


@contextmanager
def bounded(room: int) -> Iterator[None]:
    """Bound the address space to what is in use and ``room`` bytes more, where the system tells its use."""
    status = Path("/proc/self/statm")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if status.exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
