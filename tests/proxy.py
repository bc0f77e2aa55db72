"""A proxy in front of an S3 server that delays requests, or spoils some of them; it counts what passes."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LIMIT = 2**20  # bytes of a header
# Before: the server never sees the request. After: it has done what was asked, and the answer is lost.
FAULTS = ("500", "503", "503 after", "reset", "reset after", "stall", "stall after", "truncate")


@dataclass(frozen=True)
class Request:
    """A request that was answered: method, path, bytes of the answer's body, seconds of a monotonic clock."""

    method: str
    path: str
    size: int
    start: float
    end: float


@dataclass
class Plan:
    """What the proxy does to requests, and what it has seen.

    ``delay`` seconds are added to each request; a fraction ``rate`` is spoilt, evenly among ``faults``; a stall
    lasts ``stall`` seconds. ``log`` has the requests that were answered.
    """

    delay: float = 0.0
    rate: float = 0.0
    faults: tuple[str, ...] = FAULTS
    stall: float = 3.0
    seed: int = 1
    log: list[Request] = field(default_factory=list)
    spoilt: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def fault(self) -> str | None:
        """Draw the fate of a request."""
        fate = self.random.choice(self.faults) if self.random.random() < self.rate else None
        if fate:
            self.spoilt[fate] += 1
        return fate


def in_sequence(log: list[Request]) -> int:
    """Count the round trips: the longest chain of requests of which each began after the one before had ended."""
    count, end = 0, -1.0
    for request in sorted(log, key=lambda one: one.end):
        if request.start >= end:
            count, end = count + 1, request.end
    return count


@contextmanager
def proxied(endpoint: str, plan: Plan) -> Iterator[str]:
    """Run a proxy in front of an endpoint; gives its own endpoint."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    address: list[int] = []

    async def serve() -> None:
        server = await asyncio.start_server(
            lambda r, w: _client(r, w, endpoint, plan), "127.0.0.1", 0, limit=LIMIT
        )
        address.append(server.sockets[0].getsockname()[1])
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def run() -> None:
        with suppress(asyncio.CancelledError):
            await serve()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait(10)
    try:
        yield f"http://127.0.0.1:{address[0]}"
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def _client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: str, plan: Plan) -> None:
    """Pass on the requests of one connection, over one to the server."""
    target = urlsplit(endpoint)
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    try:
        while request := await _message(reader, None):
            server = server or await asyncio.open_connection(target.hostname, target.port, limit=LIMIT)
            if not await _answered(request, server, writer, plan):
                break
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    finally:
        for each in (writer, *([server[1]] if server else [])):
            each.close()


async def _answered(
    request: tuple[bytes, bytes],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    client: asyncio.StreamWriter,
    plan: Plan,
) -> bool:
    """Answer one request; say whether the connection goes on."""
    method, path = request[0].split(b" ", 2)[:2]
    start = time.monotonic()
    fault = plan.fault()
    await asyncio.sleep(plan.delay)
    if fault in (None, "truncate") or fault.endswith("after"):
        server[1].write(b"".join(request))
        await server[1].drain()
        answer = await _message(server[0], method)
        if answer is None:
            return False
    if fault is None:
        # Before the answer goes out: who has it may look into the log at once.
        plan.log.append(Request(method.decode(), path.decode(), len(answer[1]), start, time.monotonic()))
        client.write(b"".join(answer))
        await client.drain()
        return True
    await _spoil(fault, b"".join(answer) if fault == "truncate" else b"", client, plan)
    return False


async def _spoil(fault: str, answer: bytes, client: asyncio.StreamWriter, plan: Plan) -> None:
    if fault[:3] in ("500", "503"):
        client.write(f"HTTP/1.1 {fault[:3]} Spoilt\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await client.drain()
    elif fault.startswith("stall"):
        await asyncio.sleep(plan.stall)
    elif fault == "truncate":
        client.write(answer[: max(1, len(answer) - 1 - plan.random.randrange(min(len(answer) - 1, 2000)))])
        await client.drain()
    else:
        client.transport.abort()


async def _message(reader: asyncio.StreamReader, method: bytes | None) -> tuple[bytes, bytes] | None:
    """Read a request, or the answer to one of ``method``: head and body. None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    status = head.split(b" ", 2)[1] if method else b""
    if method == b"HEAD" or status in (b"204", b"304"):
        return head, b""
    if fields.get(b"transfer-encoding") == b"chunked":
        return head, await _chunks(reader)
    return head, await reader.readexactly(int(fields.get(b"content-length", 0)))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body, as it is."""
    parts = []
    while True:
        size = await reader.readuntil(b"\r\n")
        data = await reader.readexactly(int(size, 16) + 2)
        parts += [size, data]
        if int(size, 16) == 0:
            return b"".join(parts)
