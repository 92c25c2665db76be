"""Both buses behind one door, subscribers that keep what they hear, and bytes that no release of ours wrote."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from mailrail.bus.kafka import KafkaBus
from mailrail.bus.messages import Bus, Letter, ShardsReadyV1
from mailrail.bus.parking import Parking
from mailrail.bus.postgres import PostgresBus
from mailrail.db.pool import Pool
from tests.support.kafka import Broker
from tests.support.postgres import Database

HEARD_TIMEOUT_S = 40


class Subscriber:
    """Keeps what it hears. While `before` is set it runs before a message counts as heard."""

    def __init__(self, bus: Bus) -> None:
        self.heard: list[ShardsReadyV1] = []
        self.woken = 0
        self.before: Callable[[], None] | None = None
        self._task = asyncio.create_task(bus.subscribe(ShardsReadyV1.topic, self.handle))

    async def handle(self, wire: Any) -> None:
        """As the send loop does: None wakes, a message is read."""
        if wire is None:
            self.woken += 1
        else:
            message = ShardsReadyV1.from_wire(wire)
            if self.before:
                self.before()
            self.heard.append(message)

    async def until_woken(self, times: int = 1) -> None:
        """Connected, so many times."""
        await self.until(lambda: self.woken >= times)

    async def until_heard(self, *messages: ShardsReadyV1) -> None:
        """All of these, whatever else."""
        await self.until(lambda: set(messages) <= set(self.heard))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Fails in the end."""
        async with asyncio.timeout(HEARD_TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stops listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass
class Station:
    """A bus as an installation has it: any number of processes on one database and, with `broker`, one Kafka."""

    database: Database
    pool: Pool
    broker: Broker | None
    prefix: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    buses: list[Bus] = field(default_factory=list)
    subscribers: list[Subscriber] = field(default_factory=list)

    @property
    def topic(self) -> str:
        """The doorbells' topic, as Kafka knows it."""
        return f"{self.prefix}.{ShardsReadyV1.topic}"

    def bus(self) -> Bus:
        """One process's."""
        bus: Bus
        if self.broker:
            bus = KafkaBus([self.broker.address], self.prefix, Parking(self.pool))
        else:
            bus = PostgresBus(self.database.worker_url, Parking(self.pool))
        self.buses.append(bus)
        return bus

    async def subscriber(self) -> Subscriber:
        """One that is connected."""
        subscriber = Subscriber(self.bus())
        self.subscribers.append(subscriber)
        await subscriber.until_woken()
        return subscriber

    async def send_bytes(self, payload: bytes) -> None:
        """Straight onto the bus."""
        if self.broker:
            producer = AIOKafkaProducer(bootstrap_servers=self.broker.address)
            await producer.start()
            await producer.send_and_wait(self.topic, payload)
            await producer.stop()
            return
        conn = await asyncpg.connect(self.database.worker_url)
        await conn.execute("SELECT pg_notify('mailrail_shards_ready', $1)", payload.decode())
        await conn.close()

    async def parked(self) -> list[tuple[bytes, str]]:
        """Payloads and reasons."""
        async with self.pool.acquire() as conn:
            rows = await conn.fetch("SELECT payload, reason FROM parked_messages ORDER BY id")
        return [(row["payload"], row["reason"]) for row in rows]

    async def committed(self) -> dict[int, int]:
        """Offsets of the doorbells' group by partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address if self.broker else "")
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.topic)
        finally:
            await admin.close()
        return {partition.partition: offset.offset for partition, offset in offsets.items()}

    async def close(self) -> None:
        """Everything that was made."""
        for subscriber in self.subscribers:
            await subscriber.stop()
        for bus in self.buses:
            await bus.close()


def letter(message: ShardsReadyV1) -> Letter:
    """As the relay makes it."""
    return Letter(message.topic, message.key, orjson.dumps(message.to_wire()))
