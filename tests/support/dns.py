"""A name server on a loopback port, UDP and TCP, whose zone is a dictionary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

LENGTH_BYTES = 2


@dataclass
class Zone:
    """(name, type) → values as a zone file has them, names without the period at the end. Names in `silent` get no answer, those
    in `failing` SERVFAIL, those in `truncated` only a hint over UDP.
    """

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    truncated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    asked_by_tcp: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        """For MAILRAIL_DNS."""
        return f"127.0.0.1:{self.port}"

    def publish(self, name: str, kind: str, *values: str) -> None:
        """Sets the records of a name and type; texts without quotes."""
        self.records[name, kind] = [f'"{value}"' if kind == "TXT" else value for value in values]

    def withdraw(self, name: str, kind: str) -> None:
        """Takes them away."""
        self.records.pop((name, kind), None)

    def answer(self, wire: bytes, *, by_tcp: bool = False) -> bytes | None:
        """The answer to a query; None is silence."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, kind = question.name.to_text().rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if by_tcp:
            self.asked_by_tcp.append((name, kind))
        if name in self.silent:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.truncated and not by_tcp:
            response.flags |= dns.flags.TC
        elif values := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, values))
        elif not any(known == name or known.endswith(f".{name}") for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is no subclass of the type that it is documented as.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        answer = self._zone.answer(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def running_dns() -> AsyncIterator[Zone]:
    """The server, listening; the same port for both transports."""
    zone = Zone()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES))
        answer = zone.answer(await reader.readexactly(length), by_tcp=True)
        if answer is not None:
            writer.write(len(answer).to_bytes(LENGTH_BYTES) + answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    zone.port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Udp(zone), local_addr=("127.0.0.1", zone.port)
    )
    try:
        yield zone
    finally:
        transport.close()
        server.close()
        await server.wait_closed()
