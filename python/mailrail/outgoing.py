"""Requests to hosts that customers name: which addresses they may reach, and the guard that holds them to it.

The guard stands where a socket is made, so it judges the very address that is about to be connected to: a name that says
something else when it is asked again, a literal in the URL and a library's own retry all come by it. No proxy of the
environment is used, no cookie kept and nothing unpacked.
"""

import asyncio
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from mailrail.config import Settings, is_loopback

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

HTTPS_PORT = 443
# Below are the ports of other services, which an HTTP request may harm.
PORT_MIN = 1024
# Names that mean something in one network alone.
PRIVATE_NAMES = (".internal", ".intranet", ".lan", ".corp", ".home", ".private", ".localdomain")
LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
# What Python of our oldest version still takes for global: the relays of 6to4 (RFC 7526), and protocols' own addresses.
NOT_GLOBAL_V4 = tuple(map(ipaddress.IPv4Network, ("192.88.99.0/24", "192.0.0.0/24")))
# Global unicast (RFC 4291) without what hides another address: Teredo and the like (2001::/23), documentation, 6to4.
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
NOT_GLOBAL_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

# The system's resolver blocks a thread for as long as a name's servers are silent. Equal names wait together.
RESOLVER_THREADS = 32
RESOLVED_FOR_S = 10


class AddressRefused(OSError):
    """The host has an address that may not be reached."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The public internet, and what the operator lists beside it. In development, where the installation itself is reachable
    from this machine only, this machine too, so that a newcomer can try.
    """

    networks: tuple[Network, ...] = ()
    is_development: bool = False

    def is_allowed(self, address: str) -> bool:
        """Whether a connection to this address may be made: it is judged as it is about to be used, never by its name."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return is_public(parsed) or self.is_listed(parsed)

    def is_listed(self, address: Any) -> bool:
        """Whether it is of the networks beside the public internet."""
        return any(address in network for network in (*self.networks, *(LOOPBACK if self.is_development else ())))


def public_addresses(settings: Settings) -> AddressPolicy:
    """What everybody can reach; in development this machine, too."""
    return AddressPolicy(is_development=is_loopback(urlsplit(settings.public_url).hostname or ""))


def is_public(address: Any) -> bool:
    """Whether this address, as `ipaddress` has it, is one and the same host for everybody."""
    if isinstance(address, ipaddress.IPv4Address):
        is_listed = any(address in network for network in NOT_GLOBAL_V4)
        return address.is_global and not address.is_multicast and not is_listed
    # An interface's scope is of one machine.
    is_listed = any(address in network for network in NOT_GLOBAL_V6)
    return address in GLOBAL_V6 and not is_listed and address.scope_id is None


class GuardedResolver(AbstractResolver):
    """The system's resolver; a name of which one address is not allowed has none."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "names of others")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of the name. Raises AddressRefused, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, lookup, host, port, family)
        if not all(self._policy.is_allowed(one["host"]) for one in found):
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


def open_session(
    policy: AddressPolicy, resolver: AbstractResolver, *, timeout_s: float, **connector_options: Any
) -> aiohttp.ClientSession:
    """A client all of whose sockets the guard has seen. Whoever opens it closes it, and the resolver."""

    def guarded_socket(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = address_info
        host = f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0])
        if not policy.is_allowed(host):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=proto)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            ttl_dns_cache=RESOLVED_FOR_S,
            socket_factory=guarded_socket,
            ssl=ssl.create_default_context(),
            **connector_options,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        auto_decompress=False,
        trust_env=False,
    )


def words_of(error: BaseException, timeout_s: float, refused: str) -> str:
    """Why no answer came, in words that name no address of ours; `refused` are those for an AddressRefused."""
    for one in _chain(error):
        if isinstance(one, AddressRefused):
            return refused
        if isinstance(one, TimeoutError):
            return f"no answer within {timeout_s:g} s"
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


def is_refusal(error: BaseException) -> bool:
    """Whether the guard stopped it."""
    return any(isinstance(one, AddressRefused) for one in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what it was made of."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(found) < 10:
        found.append(one)
        one = getattr(one, "os_error", None) or one.__cause__ or one.__context__
    return found
