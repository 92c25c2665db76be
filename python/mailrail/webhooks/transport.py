"""The one way by which a webhook leaves: a POST to an address that was looked at.

The guard stands where a socket is made, so it judges the very address that is about to be connected to: a name that says
something else when it is asked again, a literal in the URL and a library's own retry all come by it. No redirect is
followed, no proxy of the environment used, no cookie kept, nothing unpacked, and of the answer only a beginning is read.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from mailrail.webhooks.destinations import Destinations
from mailrail.webhooks.model import ANSWER_MAX_BYTES, TIMEOUT_S

CONNECTIONS_MAX = 1000
# The system's resolver blocks a thread for as long as a name's servers are silent. Equal names wait together.
RESOLVER_THREADS = 32
RESOLVED_FOR_S = 10
# Node.js closes idle connections after 5 s; ours end before, so that no request meets the end.
IDLE_S = 4.0


class AddressRefused(OSError):
    """The host has an address that webhooks may not reach."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a POST: a status and the beginning of the answer, or why there was none."""

    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    answer: str | None = None
    retry_after_s: float | None = None


class GuardedResolver(AbstractResolver):
    """The system's resolver; a name of which one address is not allowed has none."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of the name. Raises AddressRefused, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, lookup, host, port, family)
        if not all(self._destinations.is_allowed(one["host"]) for one in found):
            raise AddressRefused
        return found

    async def close(self) -> None:
        """Lets go of the threads; one that still waits for a name ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """The system's own word. Blocks."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [
        ResolveResult(
            hostname=host,
            # With its scope, if it has one, which the guard then sees.
            host=f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0]),
            port=port,
            family=found_family,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, proto, _, address in found
    ]


class Transport:
    """Sends webhooks for a process; one for all endpoints, whose connections it keeps for a while."""

    def __init__(self, destinations: Destinations, resolver: AbstractResolver | None = None) -> None:
        self._destinations = destinations
        self._resolver = resolver or GuardedResolver(destinations)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=CONNECTIONS_MAX,
                resolver=self._resolver,
                ttl_dns_cache=RESOLVED_FOR_S,
                keepalive_timeout=IDLE_S,
                socket_factory=self._guarded_socket,
                ssl=ssl.create_default_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> "Transport":
        """Open since it was made."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cuts off what is under way."""
        await self._http.close()
        await self._resolver.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Never raises for what an endpoint does or is."""
        begun_s = time.monotonic()
        try:
            async with self._http.post(
                url, data=body, headers={**headers, "Accept-Encoding": "identity"}, allow_redirects=False
            ) as response:
                return Reply(
                    duration_ms=_since_ms(begun_s),
                    http_status=response.status,
                    answer=await _beginning(response),
                    retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Reply(duration_ms=_since_ms(begun_s), error=words_of(error))

    def _guarded_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = address_info
        host = f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0])
        if not self._destinations.is_allowed(host):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=proto)


def words_of(error: BaseException) -> str:
    """Why no answer came, in words that name no address of ours."""
    for one in _chain(error):
        if isinstance(one, AddressRefused):
            return "the host's address is not one that webhooks may reach"
        if isinstance(one, TimeoutError):
            return f"no answer within {TIMEOUT_S:g} s"
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return "no TLS connection could be made"
        if isinstance(one, socket.gaierror):
            return "the host's name is not known"
        if isinstance(one, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(one, ConnectionResetError | aiohttp.ServerDisconnectedError):
            return "the connection was cut before an answer"
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return "no connection could be made"
    return "the answer is not HTTP"


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what it was made of."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(found) < 10:
        found.append(one)
        one = getattr(one, "os_error", None) or one.__cause__ or one.__context__
    return found


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """The first bytes of the answer as text that PostgreSQL takes."""
    read = b""
    # The status is the receipt, whatever becomes of the rest; leaving the block cuts a connection that has more to say.
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        while len(read) < ANSWER_MAX_BYTES and (more := await response.content.read(ANSWER_MAX_BYTES - len(read))):
            read += more
    return read.decode(errors="replace").replace("\0", "�")


def _retry_after_s(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, section 10.2.3); None for anything else."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _since_ms(begun_s: float) -> int:
    return int((time.monotonic() - begun_s) * 1000)
