"""A TCP proxy before PostgreSQL that cuts connections at the worst moment: after a commit was sent, before its answer is passed on.

It reads just enough of the protocol (PostgreSQL manual, Message Formats) to know which bytes of a client commit something: `COMMIT` as
a simple query, and a writing statement outside a transaction at its Sync. Everything else is passed on as it comes.
"""

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
WRITES = re.compile(rb"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s", re.IGNORECASE)
CLAIM = re.compile(rb"\bINSERT\s+INTO\s+(mailrail\.)?claims\b", re.IGNORECASE)
BEGIN = re.compile(rb"\s*(BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
END = re.compile(rb"\s*(COMMIT|ROLLBACK(?!\s+TO)|ABORT|END)\b", re.IGNORECASE)
COMMIT = re.compile(rb"\s*(COMMIT|END)\b", re.IGNORECASE)
# What of a statement is looked at; the claim's INSERT comes late in its text.
TEXT_MAX_BYTES = 8192
HIGH_WATER_BYTES = 1 << 20


@dataclass(slots=True)
class Parser:
    """What a client says. `feed` returns the labels of the commits that end within the bytes."""

    _buffer: bytearray = field(default_factory=bytearray)
    _skip: int = 0
    _started: bool = False
    _in_transaction: bool = False
    _statements: dict[bytes, str] = field(default_factory=dict)
    _portals: dict[bytes, str] = field(default_factory=dict)
    _due: str = ""

    def feed(self, data: bytes) -> list[str]:
        """Takes the next bytes, cut anywhere."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return []
        self._buffer += memoryview(data)[self._skip :]
        self._skip = 0
        commits: list[str] = []
        while (message := self._next()) is not None:
            label = self._hear(*message)
            if label:
                commits.append(label)
        return commits

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._started else 0
        if len(self._buffer) < head + 4:
            return None
        kind = bytes(self._buffer[:head])
        length = int.from_bytes(self._buffer[head : head + 4]) + head
        # The rows of a COPY are not read, so they need not be whole.
        if kind == b"d":
            self._skip = max(length - len(self._buffer), 0)
            del self._buffer[:length]
            return kind, b""
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[head + 4 : min(length, head + 4 + TEXT_MAX_BYTES)])
        del self._buffer[:length]
        return kind, body

    def _hear(self, kind: bytes, body: bytes) -> str:
        match kind:
            case b"":
                self._started = int.from_bytes(body[:4]) not in (SSL_REQUEST, GSS_REQUEST)
            case b"Q":
                return self._hear_query(body.rstrip(b"\0"))
            case b"P":
                name, _, rest = body.partition(b"\0")
                self._statements[name] = _label(rest.partition(b"\0")[0])
            case b"B":
                portal, _, rest = body.partition(b"\0")
                self._portals[portal] = self._statements.get(rest.partition(b"\0")[0], "")
            case b"E" if not self._in_transaction:
                self._due = self._portals.get(body.partition(b"\0")[0], "") or self._due
            case b"S":
                due, self._due = self._due, ""
                return due
        return ""

    def _hear_query(self, text: bytes) -> str:
        if BEGIN.match(text):
            self._in_transaction = True
        elif END.match(text):
            self._in_transaction = False
            return "commit" if COMMIT.match(text) else ""
        elif not self._in_transaction:
            return _label(text)
        return ""


def _label(statement: bytes) -> str:
    """`claim`, `write`, or nothing for a statement that commits nothing."""
    if CLAIM.search(statement):
        return "claim"
    return "write" if WRITES.search(statement) else ""


@dataclass(slots=True)
class Menu:
    """Chances per commit and delays per piece of data; all off by default."""

    cut_before_reply: float = 0.0  # once the server has answered: the commit is certain, the client does not know
    cut_after_sent: float = 0.0  # right after the bytes left: the commit may or may not come about
    delay_ms: float = 0.0  # at most, drawn per piece of data from the server


Report = Callable[..., None]


class Proxy:
    """Listens on loopback and passes on to `port`."""

    def __init__(self, port: int, seed: int, report: Report = lambda point, **facts: None) -> None:
        self.target_port = port
        self.menu = Menu()
        self.cuts: Counter[str] = Counter()
        self.port = 0
        self._report = report
        self._random = random.Random(f"proxy:{seed}")
        self._pairs: set[Pair] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """For the length of a block; its connections are gone after it."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Client(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            await server.wait_closed()

    def cut_all(self) -> None:
        """Resets every connection."""
        for pair in list(self._pairs):
            pair.abort()

    def blackhole_one(self, seconds: float) -> bool:
        """One connection goes dead both ways, and is reset after a while; False when there is none."""
        return self._pick(lambda pair: pair.go_dark(seconds), "blackhole")

    def half_close_one(self) -> bool:
        """The client of one connection is told that the server will say no more, while the server hears nothing of it."""
        return self._pick(lambda pair: pair.half_close(), "half_close")

    def fate(self, label: str) -> str:
        """What happens to the connection at this commit: nothing, `before_reply` or `after_sent`."""
        before, after = (
            self._random.random() < chance for chance in (self.menu.cut_before_reply, self.menu.cut_after_sent)
        )
        return "before_reply" if before else "after_sent" if after else ""

    def delay_s(self) -> float:
        """How long the next piece of data waits."""
        return self._random.uniform(0, self.menu.delay_ms) / 1000 if self.menu.delay_ms else 0.0

    def note(self, what: str, **facts: Any) -> None:
        """Counts a cut and writes it down."""
        self.cuts[what] += 1
        self._report("proxy.cut_after_commit" if what.startswith("cut_") else f"proxy.{what}", how=what, **facts)

    def _pick(self, act: Callable[["Pair"], None], what: str) -> bool:
        lit = [pair for pair in self._pairs if pair.is_lit()]
        if not lit:
            return False
        act(self._random.choice(sorted(lit, key=id)))
        self.note(what)
        return True


class Pair:
    """A client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy, client: asyncio.Transport) -> None:
        self.proxy = proxy
        self.client = client
        self.server: asyncio.Transport | None = None
        self.parser = Parser()
        self.doomed = ""
        self.dark = False
        self.waiting: list[bytes] = []
        proxy._pairs.add(self)

    def is_lit(self) -> bool:
        """Whether it carries anything just now."""
        return self.server is not None and not self.dark

    def from_client(self, data: bytes) -> None:
        """Passes on, and decides at a commit whether the answer will get back."""
        if self.dark:
            return
        commits = self.parser.feed(data)
        if self.server is None:
            self.waiting.append(data)
            return
        self.server.write(data)
        for label in commits if not self.doomed else ():
            fate = self.proxy.fate(label)
            if fate:
                self.doomed = label
                self.proxy.note(f"cut_{fate}", label=label)
                if fate == "after_sent":
                    self.client.abort()
                    # The server still gets what was written, then an orderly end.
                    self.server.close()
                return

    def from_server(self, data: bytes) -> None:
        """Passes on, unless this is the answer that must not arrive."""
        if self.doomed:
            self.abort()
        elif not self.dark:
            delay_s = self.proxy.delay_s()
            if delay_s:
                # Pausing the source keeps the order.
                assert self.server is not None
                self.server.pause_reading()
                asyncio.get_running_loop().call_later(delay_s, self._resume, data)
            else:
                self.client.write(data)

    def _resume(self, data: bytes) -> None:
        if not self.dark and not self.client.is_closing():
            self.client.write(data)
        if self.server is not None and not self.server.is_closing():
            self.server.resume_reading()

    def go_dark(self, seconds: float) -> None:
        """Swallows everything, then resets."""
        self.dark = True
        asyncio.get_running_loop().call_later(seconds, self.abort)

    def half_close(self) -> None:
        """End of file towards the client alone."""
        self.dark = True
        if self.client.can_write_eof() and not self.client.is_closing():
            self.client.write_eof()
        asyncio.get_running_loop().call_later(1.0, self.abort)

    def abort(self) -> None:
        """Resets both ways."""
        self.proxy._pairs.discard(self)
        self.client.abort()
        if self.server is not None:
            self.server.abort()

    def close(self) -> None:
        """Ends both ways once what is under way has left."""
        self.proxy._pairs.discard(self)
        self.client.close()
        if self.server is not None:
            self.server.close()


class Client(asyncio.Protocol):
    """The side that mailrail connects to."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._connecting: asyncio.Task[None] | None = None
        self.pair: Pair | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connects on to the server."""
        # uvloop's transports are none of asyncio's classes.
        client = cast("asyncio.Transport", transport)
        client.set_write_buffer_limits(HIGH_WATER_BYTES)
        self.pair = Pair(self._proxy, client)
        self._connecting = asyncio.get_running_loop().create_task(self._connect(self.pair))

    async def _connect(self, pair: Pair) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: Server(pair), "127.0.0.1", self._proxy.target_port)
        except OSError:
            pair.abort()
            return
        if pair.client.is_closing():
            transport.abort()
            return
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        pair.server = transport
        for data in pair.waiting:
            transport.write(data)
        pair.waiting.clear()

    def data_received(self, data: bytes) -> None:
        """From mailrail."""
        assert self.pair is not None
        self.pair.from_client(data)

    def pause_writing(self) -> None:
        """The client reads slowly: so does the server's side."""
        if self.pair is not None and self.pair.server is not None:
            self.pair.server.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.pair is not None and self.pair.server is not None and not self.pair.server.is_closing():
            self.pair.server.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The server learns of it."""
        assert self.pair is not None
        self.pair.close()


class Server(asyncio.Protocol):
    """The side towards PostgreSQL."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def data_received(self, data: bytes) -> None:
        """From PostgreSQL."""
        self._pair.from_server(data)

    def pause_writing(self) -> None:
        """PostgreSQL reads slowly: so does the client's side."""
        self._pair.client.pause_reading()

    def resume_writing(self) -> None:
        """PostgreSQL has caught up."""
        if not self._pair.client.is_closing():
            self._pair.client.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The client learns of it."""
        self._pair.close()
