"""The bus without a broker, and the outbox that feeds it."""

import asyncio
from typing import Any

import pytest

from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1, UnreadableMessage
from mailrail.bus.postgres import PostgresBus
from mailrail.db.pool import Pool
from tests.support.postgres import Database


class Listener:
    """Collects what one subscriber hears."""

    def __init__(self, bus: PostgresBus) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(bus.subscribe(ShardsReadyV1.topic, self.heard.put_nowait))

    async def next(self) -> Any:
        """The next message, or None where the subscriber was told to look for work."""
        return await asyncio.wait_for(self.heard.get(), 5)

    async def stop(self) -> None:
        """Stops listening."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_committed_message_reaches_every_listener_once(worker_pool: Pool, database: Database) -> None:
    bus = PostgresBus(database.worker_url)
    listeners = [Listener(bus), Listener(bus)]
    assert [await listener.next() for listener in listeners] == [None, None]  # connected: look for work once
    async with worker_pool.acquire() as conn, conn.transaction():
        for _ in range(3):
            await outbox.append(conn, ShardsReadyV1(77))
    assert await outbox.relay_once(worker_pool, bus) == 3
    assert await outbox.relay_once(worker_pool, bus) == 0
    for listener in listeners:
        assert ShardsReadyV1.from_wire(await listener.next()) == ShardsReadyV1(77)
        assert listener.heard.empty()
        await listener.stop()
    await bus.close()


async def test_a_rolled_back_message_never_existed(worker_pool: Pool, database: Database) -> None:
    async with worker_pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await outbox.append(conn, ShardsReadyV1(78))
        await transaction.rollback()
    bus = PostgresBus(database.worker_url)
    assert await outbox.relay_once(worker_pool, bus) == 0


async def test_a_cut_listener_comes_back_and_looks_for_work(
    worker_pool: Pool, superuser_pool: Pool, database: Database
) -> None:
    listener = Listener(PostgresBus(database.worker_url))
    assert await listener.next() is None
    async with superuser_pool.acquire() as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
        )
    assert await listener.next() is None
    await listener.stop()


@pytest.mark.parametrize("wire", [None, {}, {"v": 2, "stream_id": 1}, {"v": 1, "stream_id": "1"}, [1]])
def test_a_message_of_another_version_is_refused(wire: Any) -> None:
    with pytest.raises(UnreadableMessage):
        ShardsReadyV1.from_wire(wire)
