"""What only a connection to PostgreSQL can do to the embedded bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from mailrail.bus import postgres
from mailrail.bus.messages import BusDown, ShardsReadyV1
from mailrail.bus.parking import Parking
from mailrail.bus.postgres import PostgresBus
from mailrail.db.pool import Pool
from tests.support.bus import letter
from tests.support.postgres import Database


class Wire:
    """Connections to the database that fall silent and stay open when they are told to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._connections = 0
        self.silent_up_to = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        self._connections += 1
        number = self._connections
        server = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(self._pump(number, reader, server[1]), self._pump(number, server[0], writer))
        finally:
            writer.close()
            server[1].close()

    def fall_silent(self) -> None:
        """Nothing goes through any connection that there is by now."""
        self.silent_up_to = self._connections

    async def _pump(self, number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if number > self.silent_up_to:
                target.write(data)
        target.close()


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the server of the URL, and the URL by way of it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    wire = Wire(parts.hostname, parts.port)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield wire, urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))
    server.close()


async def test_a_publisher_that_fell_silent_is_replaced(
    database: Database, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PUBLISH_TIMEOUT_S", 0.5)
    async with wired(database.worker_url) as (wire, url):
        bus = PostgresBus(url, Parking(worker_pool))
        letters = [letter(ShardsReadyV1(1, 0))]
        await bus.publish(letters)
        wire.fall_silent()
        with pytest.raises(BusDown):
            await bus.publish(letters)
        await bus.publish(letters)
        await bus.close()
