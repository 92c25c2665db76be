"""A load generator small enough to share a machine with what it measures: prepared requests on kept connections."""

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

END_OF_HEAD = b"\r\n\r\n"
CONTENT_LENGTH = b"content-length: "


@dataclass(slots=True)
class Load:
    """What came back: seconds each answer took, and how many there were of each status."""

    seconds: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.waits_s) / self.seconds

    def wait_ms(self, part: float) -> float:
        """The wait that `part` of the answers did not exceed."""
        return sorted(self.waits_s)[math.ceil(part * len(self.waits_s)) - 1] * 1000


def http_request(method: str, path: str, key: str | None = None, body: bytes = b"") -> bytes:
    """A request as its bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: mailrail\r\n"
    if key:
        head += f"Authorization: Bearer {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def put_load(
    port: int, request: bytes | Iterator[bytes], *, connections: int, seconds: float, every_s: float = 0.0
) -> Load:
    """Sends the request, or one after the other of several, by so many clients, each as soon as it has the answer to the one
    before.

    With `every_s` each has a request due at that pace, one client after the other, and its wait begins when it was due: a
    server that stands still for a while is seen in all of them (no coordinated omission).
    """
    loop, load = asyncio.get_running_loop(), Load()
    requests = itertools.repeat(request) if isinstance(request, bytes) else request
    clients = [
        (await loop.create_connection(lambda: Client(load, requests, every_s), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    begun = time.perf_counter()
    for number, client in enumerate(clients):
        client.start(begun + every_s * number / connections, begun + seconds)
    await asyncio.gather(*(client.done for client in clients))
    load.seconds = time.perf_counter() - begun
    return load


class Client(asyncio.Protocol):
    """One connection. Answers must have a Content-Length; a connection that ends before its time is an error."""

    def __init__(self, load: Load, requests: Iterator[bytes], every_s: float) -> None:
        self._load, self._requests, self._every_s = load, requests, every_s
        self._until = math.inf
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for `start`."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def start(self, first_due_at: float, until: float) -> None:
        """Sends the first request when it is due, and the last before `until`."""
        self._until = until
        asyncio.get_running_loop().call_later(first_due_at - time.perf_counter(), self._send, first_due_at)

    def data_received(self, data: bytes) -> None:
        """Once the answer is whole: notes it and goes on, or ends."""
        self._buffer += data
        head_end = self._buffer.find(END_OF_HEAD)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(CONTENT_LENGTH)
        length = int(head[at + len(CONTENT_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < head_end + len(END_OF_HEAD) + length:
            return
        now = time.perf_counter()
        self._load.waits_s.append(now - self._sent_at)
        self._load.statuses[int(head[9:12])] += 1
        self._buffer = b""
        if now >= self._until:
            self._transport.close()
        elif (due_at := self._sent_at + self._every_s) > now and self._every_s:
            asyncio.get_running_loop().call_later(due_at - now, self._send, due_at)
        else:
            self._send(due_at if self._every_s else now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Done, if it was time."""
        if time.perf_counter() < self._until:
            self.done.set_exception(exc or ConnectionResetError("the server hung up"))
        else:
            self.done.set_result(None)

    def _send(self, due_at: float) -> None:
        self._sent_at = due_at
        self._transport.write(next(self._requests))
