"""What only a broker can do to us: groups, offsets, crashes, wipes, and topics that are kept."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from mailrail.bus import outbox
from mailrail.bus.kafka import FOR_EVER, KafkaBus
from mailrail.bus.messages import BusDown, ShardsReadyV1
from mailrail.bus.parking import Parking
from mailrail.db.pool import Pool
from tests.support.bus import Station, Subscriber, letter
from tests.support.kafka import Broker
from tests.support.postgres import Database

# A receiver that prints what it hears and never comes to an end with it.
STUCK_RECEIVER = """
import asyncio, sys
from mailrail.bus.kafka import KafkaBus

async def handle(wire):
    print("heard" if wire else "woken", flush=True)
    if wire:
        await asyncio.Event().wait()

async def park(letter): ...

asyncio.run(KafkaBus([sys.argv[1]], sys.argv[2], park).subscribe("shards_ready", handle))
"""


@pytest.fixture
async def station(database: Database, worker_pool: Pool, broker: Broker) -> AsyncIterator[Station]:
    """Kafka with topics of the test's own."""
    running = Station(database, worker_pool, broker)
    yield running
    await running.close()


async def publish_until_heard(station: Station, *messages: ShardsReadyV1) -> None:
    """For receivers that may still be sharing out the partitions."""
    subscribers = station.subscribers
    bus = station.bus()
    await bus.publish([letter(message) for message in messages])
    for subscriber in subscribers[-1:]:
        await subscriber.until(lambda: set(messages) <= {heard for one in subscribers for heard in one.heard})


@pytest.mark.long
async def test_a_message_whose_receiver_died_over_it_goes_to_another(station: Station) -> None:
    assert station.broker is not None
    command = [sys.executable, "-c", STUCK_RECEIVER, station.broker.address, station.prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as receiver:  # noqa: ASYNC220  # it is awaited in threads
        assert receiver.stdout is not None
        try:
            assert await asyncio.to_thread(receiver.stdout.readline) == b"woken\n"
            message = ShardsReadyV1(11, 3)
            await station.bus().publish([letter(message)])
            assert await asyncio.to_thread(receiver.stdout.readline) == b"heard\n"
            assert not any(offset > 0 for offset in (await station.committed()).values())
        finally:
            os.kill(receiver.pid, signal.SIGKILL)
    heir = await station.subscriber()
    await heir.until_heard(message)
    async with asyncio.timeout(10):
        while not any(offset > 0 for offset in (await station.committed()).values()):
            await asyncio.sleep(0.1)


async def test_receivers_that_come_and_go_share_all_messages(station: Station) -> None:
    first = await station.subscriber()
    second = await station.subscriber()
    messages = [ShardsReadyV1(stream, 0) for stream in range(1, 101)]
    bus = station.bus()
    await bus.publish([letter(message) for message in messages])
    await first.until(lambda: set(first.heard) | set(second.heard) >= set(messages))
    await second.stop()
    later = [ShardsReadyV1(stream, 1) for stream in range(1, 101)]
    await bus.publish([letter(message) for message in later])
    await first.until_heard(*later)


@pytest.mark.parametrize("end", ["kill", "wipe"])
@pytest.mark.long
async def test_messages_flow_again_after_the_broker_lost_its_life_or_all(station: Station, end: str) -> None:
    assert station.broker is not None
    subscriber = await station.subscriber()
    relay = asyncio.create_task(outbox.relay(station.pool, station.bus()))
    try:
        for round_ in range(1, 3):
            async with station.pool.acquire() as conn:
                await outbox.append(conn, ShardsReadyV1(round_, 0))
            await subscriber.until_heard(ShardsReadyV1(round_, 0))
            if end == "kill":
                station.broker.restart()
            else:
                station.broker.wipe()
        async with station.pool.acquire() as conn:
            await outbox.append(conn, ShardsReadyV1(99, 0))
        await subscriber.until_heard(ShardsReadyV1(99, 0))
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)


@pytest.mark.long
async def test_a_receiver_may_start_before_the_broker(station: Station) -> None:
    assert station.broker is not None
    station.broker.kill()
    subscriber = Subscriber(station.bus())
    station.subscribers.append(subscriber)
    await asyncio.sleep(1.5)
    assert subscriber.woken == 0
    station.broker.start()
    await subscriber.until_woken()
    await publish_until_heard(station, ShardsReadyV1(4, 4))


async def test_retained_entries_come_back_newest_last(station: Station) -> None:
    bus = station.bus()
    assert isinstance(bus, KafkaBus)
    assert await bus.read_tail("accepted", 10) == []
    await asyncio.gather(*(bus.append_retained("accepted", b"k", b"%d" % n) for n in range(20)))
    await bus.append_retained("accepted", b"last", b"x" * 900_000)
    tail = await bus.read_tail("accepted", 5)
    assert len(tail) == 5
    assert (tail[-1].key, len(tail[-1].value)) == (b"last", 900_000)
    everything = await bus.read_tail("accepted", 1000)
    assert {entry.value for entry in everything[:-1]} == {b"%d" % n for n in range(20)}
    with pytest.raises(ValueError, match="at most"):
        await bus.append_retained("accepted", b"", b"x" * 2_000_000)


@pytest.mark.long
async def test_a_retained_topic_has_no_end_and_survives_a_crash(station: Station) -> None:
    assert station.broker is not None
    bus = station.bus()
    assert isinstance(bus, KafkaBus)
    await bus.append_retained("accepted", b"a", b"1")
    station.broker.restart()
    assert [entry.value for entry in await bus.read_tail("accepted", 9)] == [b"1"]
    await bus.append_retained("accepted", b"a", b"2")
    assert [entry.value for entry in await bus.read_tail("accepted", 9)] == [b"1", b"2"]
    admin = AIOKafkaAdminClient(bootstrap_servers=station.broker.address)
    await admin.start()
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, f"{station.prefix}.accepted")])
    await admin.close()
    config = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert {name: config[name] for name in FOR_EVER} == FOR_EVER


async def test_what_is_kept_cannot_be_read_while_the_broker_is_away(station: Station) -> None:
    assert station.broker is not None
    bus = station.bus()
    assert isinstance(bus, KafkaBus)
    station.broker.kill()
    with pytest.raises(BusDown):
        await bus.read_tail("accepted", 1)
    with pytest.raises(BusDown):
        await bus.append_retained("accepted", b"a", b"1")


async def test_a_bad_message_waits_while_it_cannot_be_parked(station: Station) -> None:
    """A database that is away must not lose the evidence, and the offset does not move on."""
    parked: list[object] = []

    class Failing(Parking):
        async def __call__(self, bad: object) -> None:
            if not parked:
                parked.append(bad)
                raise OSError("the database is away")
            parked.append(bad)

    await (await station.subscriber()).stop()  # makes the topic
    assert station.broker is not None
    bus = KafkaBus([station.broker.address], station.prefix, Failing(station.pool))
    station.buses.append(bus)
    woken = asyncio.Event()

    async def handle(wire: object) -> None:
        woken.set()
        ShardsReadyV1.from_wire(wire or {"v": 1, "stream_id": 1, "shard": 1})

    listening = asyncio.create_task(bus.subscribe(ShardsReadyV1.topic, handle))
    await asyncio.wait_for(woken.wait(), 30)
    await station.send_bytes(b"garbage")
    async with asyncio.timeout(20):
        while len(parked) < 2:
            await asyncio.sleep(0.1)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert len(parked) == 2
