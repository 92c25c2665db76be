"""Five hundred clients that send their head, send their body or read their answer as slowly as they may: the others do not notice."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrail.db.pool import Pool
from mailrail.web.admission import BODY_MAX_BYTES
from tests.support.api import running_api
from tests.support.fleet import starting
from tests.support.load import Load, http_request, put_load
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import peak_memory_bytes

pytestmark = [pytest.mark.load, pytest.mark.timeout(180)]

SLOW = 500
# What others may ask meanwhile: far from what the server can do, so that waiting shows what the slow ones cost.
CONNECTIONS = 8
EVERY_S = 0.05
SECONDS = 8.0
SLOWER_MAX = 2.0
ATTEMPTS = 3
MEMORY_MAX_BYTES = 120 * 1024 * 1024
# Until all are connected and have sent what they send at once.
SETTLE_S = 4.0
READ_ANSWERS = 40
RECEIVE_BUFFER_BYTES = 4096
REQUEST_TIMEOUT_S = 10
CHECK_INTERVAL_S = 5


class Slow:
    """Slow clients, by what they are slow at."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._heads = {
            "head": b"GET /api/v1/lists HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            "body": (
                f"POST /api/v1/lists HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {BODY_MAX_BYTES}\r\n\r\n"
            ).encode(),
            # Answers enough to fill the buffers between here and there, none of which is read.
            "read": b"GET /docs/errors HTTP/1.1\r\nHost: x\r\n\r\n" * READ_ANSWERS,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All of them, connected, for the length of the block."""
        kinds = list(self._heads)
        clients = [asyncio.create_task(self._stay(kinds[number % len(kinds)])) for number in range(SLOW)]
        await asyncio.sleep(SETTLE_S)
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _stay(self, kind: str) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
        try:
            writer.write(self._heads[kind])
            if kind == "read":
                await asyncio.sleep(3600)
            while not reader.at_eof() and not writer.is_closing():
                await asyncio.sleep(1)
                writer.write(b"x")
        finally:
            writer.transport.abort()


@pytest.mark.long
async def test_slow_clients_cost_the_others_nothing(database: Database, worker_pool: Pool, tmp_path: Path) -> None:
    settings = database.settings(port=free_port())
    async with running_api(database.settings(), worker_pool) as api:
        tenant = await api.add_tenant()
    request = http_request("GET", "/api/v1/lists", tenant.key)

    async def others() -> Load:
        load = await put_load(settings.port, request, connections=CONNECTIONS, seconds=SECONDS, every_s=EVERY_S)
        assert set(load.statuses) == {200}
        return load

    with starting("api", settings, tmp_path) as server:
        before = beside = await others()
        # The machine has other work: what it does to a p99 goes away, what slow clients do stays.
        for _ in range(ATTEMPTS):
            before = await others()
            async with Slow(settings.port, tenant.key).running():
                beside = await others()
            if beside.wait_ms(0.99) <= SLOWER_MAX * before.wait_ms(0.99):
                break
        memory = peak_memory_bytes(server.pid)
    print(
        f"\np50 {before.wait_ms(0.5):.1f} → {beside.wait_ms(0.5):.1f} ms, p99 {before.wait_ms(0.99):.1f} → "
        f"{beside.wait_ms(0.99):.1f} ms, {before.per_second:.0f} → {beside.per_second:.0f} requests/s, "
        f"server's peak {memory / 2**20:.0f} MiB"
    )
    assert beside.wait_ms(0.99) <= SLOWER_MAX * before.wait_ms(0.99)
    assert memory <= MEMORY_MAX_BYTES


@pytest.mark.long
async def test_who_sends_a_head_byte_by_byte_is_hung_up_on(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    settings = database.settings(port=free_port())
    with starting("api", settings, tmp_path):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        begun = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.2)
            assert time.monotonic() - begun < REQUEST_TIMEOUT_S + 2 * CHECK_INTERVAL_S
        writer.close()
    assert (await answer).startswith(b"HTTP/1.1 408")
