"""No packet goes to a forbidden side, whatever a URL says and whatever its name resolves to.

127.0.0.2 is on the operator's list here, 127.0.0.1 and ::1 are not: both sides have real listeners, which count.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from mailrail import outgoing
from mailrail.webhooks.destinations import Destinations
from mailrail.webhooks.transport import Reply, Transport

ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.1"
REFUSED = "the host's address is not one that webhooks may reach"
DESTINATIONS = Destinations(networks=(ipaddress.ip_network(f"{ALLOWED}/32"),))


@dataclass
class Sides:
    """How many connections each side saw, at the same port; the allowed side sends everybody to the forbidden one."""

    port: int
    allowed: int = 0
    forbidden: int = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if writer.get_extra_info("sockname")[0] == ALLOWED:
            self.allowed += 1
            location = f"Location: http://{FORBIDDEN}:{self.port}/\r\n"
            writer.write(f"HTTP/1.1 302 Found\r\n{location}Connection: close\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            self.forbidden += 1
        writer.close()


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    """Listening on all addresses of this machine, of both families."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("::", 0))
    port = listener.getsockname()[1]
    found = Sides(port)
    servers = [
        await asyncio.start_server(found.take, sock=listener),
        await asyncio.start_server(found.take, "0.0.0.0", port),
    ]
    yield found
    for server in servers:
        server.close()


@pytest.fixture
def proxies(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names a proxy, on the forbidden side."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{FORBIDDEN}:{sides.port}")


class Names:
    """A resolver's answers: for each name a list of answers, of which each question takes the next; the last one stays."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.left = {name: list(several) for name, several in answers.items()}
        self.asked = 0

    def lookup(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """As `outgoing.lookup`."""
        self.asked += 1
        several = self.left[host.removesuffix(".example")]
        answer = several.pop(0) if len(several) > 1 else several[0]
        return [result(host, port, address) for address in answer]


def result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)


@asynccontextmanager
async def sending(names: Names, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Transport]:
    """A transport whose names are those, and which asks anew for each request."""
    monkeypatch.setattr(outgoing, "lookup", names.lookup)
    monkeypatch.setattr(outgoing, "RESOLVED_FOR_S", 0)
    async with Transport(DESTINATIONS) as running:
        yield running


async def post(running: Transport, url: str) -> Reply:
    return await asyncio.wait_for(running.post(url, b"{}", {"Content-Type": "application/json"}), 5)


# Hosts in a URL that mean this machine, a metadata service or a private network to somebody.
HOSTS = [
    "127.0.0.1",
    "127.0.0.3",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "ip6-localhost",
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[2001:db8::1]",
    "[ff02::1]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "169.254.170.2",
    "100.100.100.200",
    "100.64.0.1",
    "10.0.0.1",
    "10.1",
    "172.16.0.1",
    "192.168.0.1",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "127.0.0.2@127.0.0.1",
    "127.0.0.2%2f@127.0.0.1",
]


@pytest.mark.parametrize("host", HOSTS)
async def test_no_spelling_reaches_the_forbidden_side(host: str, sides: Sides, proxies: None) -> None:
    async with Transport(DESTINATIONS) as running:
        for scheme in ("http", "https"):
            reply = await post(running, f"{scheme}://{host}:{sides.port}/")
            assert reply.http_status is None
            # Words that come before any packet, and none that come after one.
            assert reply.error in (REFUSED, "the host's name is not known", "the answer is not HTTP"), reply
    assert (sides.allowed, sides.forbidden) == (0, 0)


@pytest.mark.parametrize(
    "addresses",
    [
        [FORBIDDEN],
        ["::1"],
        [ALLOWED, FORBIDDEN],
        [FORBIDDEN, ALLOWED],
        [ALLOWED, "::1"],
        [ALLOWED, "169.254.169.254"],
        ["::ffff:127.0.0.2"],
        ["::ffff:127.0.0.1"],
        ["fe80::1%1"],
        ["0.0.0.0"],
        ["10.0.0.1", ALLOWED],
    ],
)
async def test_a_name_with_one_forbidden_address_has_none(
    addresses: list[str], sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(Names(mixed=[addresses]), monkeypatch) as running:
        assert (await post(running, f"http://mixed.example:{sides.port}/")).error == REFUSED
    assert (sides.allowed, sides.forbidden) == (0, 0)


async def test_a_name_that_changes_its_mind_is_asked_and_judged_again(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(rebinding=[[ALLOWED], [FORBIDDEN], [ALLOWED], ["::1"], [FORBIDDEN]])
    async with sending(names, monkeypatch) as running:
        replies = [await post(running, f"http://rebinding.example:{sides.port}/") for _ in range(5)]
    assert [reply.http_status or reply.error for reply in replies] == [302, REFUSED, 302, REFUSED, REFUSED]
    assert names.asked == 5
    assert (sides.allowed, sides.forbidden) == (2, 0)


async def test_a_redirect_and_a_proxy_lead_nowhere(
    sides: Sides, proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sending(Names(moved=[[ALLOWED]]), monkeypatch) as running:
        assert (await post(running, f"http://moved.example:{sides.port}/")).http_status == 302
        assert (await post(running, f"http://{ALLOWED}:{sides.port}/")).http_status == 302
    assert (sides.allowed, sides.forbidden) == (2, 0)


class Credulous(AbstractResolver):
    """A resolver without a guard of its own."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The forbidden side, whatever the name."""
        return [result(host, port, FORBIDDEN), result(host, port, "::1")]

    async def close(self) -> None:
        """Nothing to do."""


async def test_the_socket_is_the_second_wall(sides: Sides) -> None:
    async with Transport(DESTINATIONS, Credulous()) as running:
        assert (await post(running, f"http://anything.example:{sides.port}/")).error == REFUSED
    assert (sides.allowed, sides.forbidden) == (0, 0)


async def test_the_listeners_do_count(sides: Sides) -> None:
    for host in (ALLOWED, FORBIDDEN, "::1"):
        _, writer = await asyncio.open_connection(host, sides.port)
        await writer.drain()
        writer.close()
    await asyncio.sleep(0.1)
    assert (sides.allowed, sides.forbidden) == (1, 2)
