"""What every bus promises, tested on each of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mailrail.bus import outbox
from mailrail.bus.messages import BusDown, NotNow, ShardsReadyV1, UnreadableMessage
from mailrail.bus.parking import PAYLOAD_MAX_BYTES, count_parked
from mailrail.db.pool import Pool
from tests.support.bus import Station, letter
from tests.support.postgres import Database

GARBAGE = [b"not json", b"[1, 2", b'{"v": 9, "stream_id": 1, "shard": 0}', b'"hello"', b"{}", b""]


@pytest.fixture(params=["postgres", "kafka"])
async def station(request: pytest.FixtureRequest, database: Database, worker_pool: Pool) -> AsyncIterator[Station]:
    """Each bus in turn."""
    async with worker_pool.acquire() as conn:
        await conn.execute("DELETE FROM outbox")
        await conn.execute("DELETE FROM parked_messages")
    broker = request.getfixturevalue("broker") if request.param == "kafka" else None
    running = Station(database, worker_pool, broker)
    yield running
    await running.close()


async def waiting(pool: Pool) -> int:
    """Rows of the outbox."""
    async with pool.acquire() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM outbox")
    return count


async def test_a_committed_message_arrives_once_and_leaves_the_outbox(station: Station) -> None:
    subscriber = await station.subscriber()
    bus = station.bus()
    async with station.pool.acquire() as conn, conn.transaction():
        for _ in range(3):
            await outbox.append(conn, ShardsReadyV1(77, 1))
    assert await outbox.relay_once(station.pool, bus) == 3
    assert await outbox.relay_once(station.pool, bus) == 0
    await subscriber.until_heard(ShardsReadyV1(77, 1))
    assert await outbox.relay_once(station.pool, bus) == 0
    await asyncio.sleep(0.5)
    assert subscriber.heard == [ShardsReadyV1(77, 1)]


async def test_a_rolled_back_message_never_existed(station: Station) -> None:
    async with station.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await outbox.append(conn, ShardsReadyV1(78, 0))
        await transaction.rollback()
    assert await outbox.relay_once(station.pool, station.bus()) == 0


async def test_two_receivers_both_do_something_about_many_messages(station: Station) -> None:
    first, second = await station.subscriber(), await station.subscriber()
    messages = {ShardsReadyV1(stream, 0) for stream in range(100, 150)}
    bus = station.bus()
    async with asyncio.timeout(20):
        while not first.heard or not second.heard:  # a group on Kafka may still be sharing out its partitions
            await bus.publish([letter(message) for message in messages])
            await asyncio.sleep(0.3)
    for receiver in (first, second):
        assert set(receiver.heard) <= messages
    await first.until(lambda: set(first.heard) | set(second.heard) == messages)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_parked_once_and_the_next_message_arrives(station: Station, garbage: bytes) -> None:
    receivers = [await station.subscriber(), await station.subscriber()]
    before = sum(receiver.woken for receiver in receivers)
    await station.send_bytes(garbage)
    good = ShardsReadyV1(5, 5)
    bus = station.bus()
    async with asyncio.timeout(20):
        while not any(good in receiver.heard for receiver in receivers) or not await station.parked():
            await bus.publish([letter(good)])
            await asyncio.sleep(0.2)
    await asyncio.sleep(0.3)
    ((payload, reason),) = await station.parked()
    assert payload == garbage
    assert reason.startswith(("JSONDecodeError", "UnreadableMessage"))
    async with station.pool.acquire() as conn:
        assert await count_parked(conn) == 1
    # Whatever it was to say: somebody looks for work.
    assert sum(receiver.woken for receiver in receivers) > before


async def test_what_nobody_can_act_on_comes_again_or_is_left_to_the_sweep(station: Station) -> None:
    subscriber = await station.subscriber()
    refusals = iter([True, True, False])

    def refuse() -> None:
        if next(refusals, False):
            raise NotNow

    subscriber.before = refuse
    for _ in range(3):
        await station.bus().publish([letter(ShardsReadyV1(9, 9))])
    await subscriber.until_heard(ShardsReadyV1(9, 9))
    assert await station.parked() == []


async def test_a_row_that_no_bus_can_carry_is_parked_and_the_rest_goes_on(station: Station) -> None:
    subscriber = await station.subscriber()
    async with station.pool.acquire() as conn:
        await conn.execute(
            "INSERT INTO outbox (topic, message) VALUES ('shards_ready', jsonb_build_object('long', repeat('x', 100000)))"
        )
        await conn.execute("""INSERT INTO outbox (topic, message) VALUES ('of_a_later_release', '{"v": 1}')""")
        await outbox.append(conn, ShardsReadyV1(6, 6))
    assert await outbox.relay_once(station.pool, station.bus()) == 2
    await subscriber.until_heard(ShardsReadyV1(6, 6))
    ((payload, reason),) = await station.parked()
    assert len(payload) == PAYLOAD_MAX_BYTES
    assert "longer than" in reason
    assert await waiting(station.pool) == 1  # the release that wrote it has a relay for it


async def test_the_relay_outlives_an_outage_of_its_connection(
    station: Station, superuser_pool: Pool, database: Database
) -> None:
    """For Kafka the broker dies; for PostgreSQL its sessions do, the receiver's and the publisher's."""
    subscriber = await station.subscriber()
    relay = asyncio.create_task(outbox.relay(station.pool, station.bus()))
    try:
        async with station.pool.acquire() as conn:
            await outbox.append(conn, ShardsReadyV1(1, 1))
        await subscriber.until_heard(ShardsReadyV1(1, 1))
        if station.broker:
            station.broker.kill()
        else:
            async with superuser_pool.acquire() as conn:
                await conn.execute(
                    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%') AND pid <> pg_backend_pid()"""
                )
        async with station.pool.acquire() as conn:
            await outbox.append(conn, ShardsReadyV1(2, 2))
        if station.broker:
            await asyncio.sleep(1)
            assert await waiting(station.pool) == 1
            station.broker.start()
            await subscriber.until_heard(ShardsReadyV1(2, 2))
        else:
            await subscriber.until_woken(2)
        async with asyncio.timeout(20):
            while await waiting(station.pool):
                await asyncio.sleep(0.1)
        assert not relay.done()
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)


async def test_close_is_clean_and_quick(station: Station) -> None:
    subscriber = await station.subscriber()
    bus = station.bus()
    await bus.publish([letter(ShardsReadyV1(3, 3))])
    await subscriber.until_heard(ShardsReadyV1(3, 3))
    begun = time.monotonic()
    await subscriber.stop()
    await station.close()
    assert time.monotonic() - begun < 5
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task for task in others if "aiokafka" in repr(task.get_coro())] == []


async def test_a_bus_that_is_away_says_so(station: Station) -> None:
    if station.broker:
        station.broker.kill()
        bus = station.bus()
    else:
        from mailrail.bus.postgres import PostgresBus

        async def park(_: Any) -> None: ...

        bus = PostgresBus("postgresql://nobody@127.0.0.1:1/none", park)
    begun = time.monotonic()
    with pytest.raises(BusDown):
        await bus.publish([letter(ShardsReadyV1(3, 3))])
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "wire",
    [
        None,
        {},
        {"v": 2, "stream_id": 1, "shard": 1},
        {"v": 1, "stream_id": "1", "shard": 1},
        {"v": 1, "stream_id": 1},
        [1],
    ],
)
def test_a_message_of_another_version_is_refused(wire: Any) -> None:
    with pytest.raises(UnreadableMessage):
        ShardsReadyV1.from_wire(wire)
