"""The bus on Kafka, and logs that are kept for ever.

Whatever Kafka does, nothing here ends a worker: a connection that failed is made anew, topics that are gone are made again,
and messages that were not acknowledged stay in the outbox.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IllegalStateError, KafkaError, TopicAlreadyExistsError

from mailrail.bus.messages import (
    TOPICS,
    BadLetter,
    BusDown,
    Handler,
    Letter,
    NotNow,
    Outage,
    Park,
    UnreadableMessage,
    describe,
)
from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS

log = logging.getLogger(__name__)

# More workers than this share the doorbells no further, and sweep.
DOORBELL_PARTITIONS = 24
# A doorbell that nobody heard by then was answered by a sweep long ago.
DOORBELL_RETENTION_MS = 3_600_000
REPLICAS_MAX = 3
FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}
# Kafka's own limit is 1 MiB with all around it.
ENTRY_MAX_BYTES = 1_000_000

REQUEST_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
JOIN_TIMEOUT_S = 30.0
RETRY_S = 1.0
# How old a client's picture of topics and brokers may be: after a wipe it is all wrong.
METADATA_MAX_AGE_MS = 5_000
# A dead receiver's partitions go to the others after this.
SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 2_000
POLL_MS = 1_000
POLL_MAX = 100
# After as much silence a receiver asks whether there is really nothing to hear.
SILENCE_S = 5.0
TAIL_TIMEOUT_S = 30.0


class TopicGone(KafkaError):  # type: ignore[misc]
    """A topic that was there is no more."""


class Deaf(KafkaError):  # type: ignore[misc]
    """There are messages for a receiver, and it does not get them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a retained topic keeps."""

    key: bytes
    value: bytes


class KafkaBus:
    """Publishes with the acknowledgement of all replicas; receivers of one installation share the messages as one group."""

    sweep_interval_s = 30.0

    def __init__(self, brokers: Sequence[str], prefix: str, park: Park) -> None:
        """`brokers` are `host:port`; `prefix` begins the names of topics and groups."""
        self._brokers = list(brokers)
        self._prefix = prefix
        self._park = park
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()
        # Topics that are certain since the producer was made.
        self._made: set[str] = set()
        # It reports every attempt to reach a dead broker as an error; what matters is said here, once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def publish(self, letters: Sequence[Letter]) -> None:
        """Returns when all replicas in sync have all of them; raises BusDown."""
        await self._send([(self._name(letter.topic), letter.key.encode(), letter.payload) for letter in letters])

    async def append_retained(self, topic: str, key: bytes, value: bytes) -> None:
        """Adds an entry to a topic of one partition that never forgets, and waits until all replicas have it; raises BusDown."""
        if len(key) + len(value) > ENTRY_MAX_BYTES:
            raise ValueError(f"an entry has at most {ENTRY_MAX_BYTES} bytes")
        name = self._name(topic)
        await self._send([(name, key, value)], NewTopic(name, 1, 1, topic_configs=FOR_EVER))

    async def read_tail(self, topic: str, most: int) -> list[Entry]:
        """The last entries of a retained topic, at most so many, oldest first; none where there is no such topic.

        Raises BusDown.
        """
        consumer = AIOKafkaConsumer(enable_auto_commit=False, **self._client_options())
        try:
            async with asyncio.timeout(TAIL_TIMEOUT_S):
                await consumer.start()
                return await _tail(consumer, TopicPartition(self._name(topic), 0), most)
        except Exception as error:  # whatever aiokafka makes of a broken cluster
            raise BusDown(f"Kafka cannot be read ({describe(error)})") from error
        finally:
            await _stop(consumer)

    async def subscribe(self, topic: str, handler: Handler) -> None:
        """Calls `handler` with the messages of this receiver's partitions, and with None after each (re)connect."""
        outage = Outage(log, "bus: Kafka")
        while not is_cancelled():
            try:
                await self._listen(topic, handler, outage)
            except Exception as error:  # noqa: BLE001  # of aiokafka, many kinds while a cluster comes and goes
                outage.goes_on(error)
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Lets the publishing connection go; what was not acknowledged is given up."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            self._made.clear()
            await _abandon(producer)

    # —— sending ——

    async def _send(self, messages: Sequence[tuple[str, bytes, bytes]], *topics: NewTopic) -> None:
        """Raises BusDown: some of the messages may have arrived, some may still do."""
        producer = None
        acknowledged: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                producer = await self._connected(topics)
                for topic, key, value in messages:
                    acknowledged.append(await producer.send(topic, value, key))
                await asyncio.gather(*acknowledged)
        except Exception as error:
            for future in acknowledged:
                future.cancel()
            # Its idempotent retries never end, and after a wipe its topics and sequence numbers are gone.
            if producer is not None and producer is self._producer:
                await self.close()
            raise BusDown(f"Kafka does not take messages ({describe(error)})") from error

    async def _connected(self, topics: Sequence[NewTopic]) -> AIOKafkaProducer:
        """The producer, made at its first use and after each failure, with the topics that this use needs."""
        async with self._connecting:
            if self._producer is None:
                await self._make_topics([*self._doorbells(), *topics])
                producer = AIOKafkaProducer(acks="all", enable_idempotence=True, **self._client_options())
                try:
                    await producer.start()
                except BaseException:
                    await _abandon(producer)
                    raise
                self._producer = producer
            elif any(topic.name not in self._made for topic in topics):
                await self._make_topics(topics)
            return self._producer

    async def _make_topics(self, topics: Sequence[NewTopic]) -> None:
        """Makes the topics that are not there. Never left to the broker, whose defaults are none of ours."""
        admin = AIOKafkaAdminClient(request_timeout_ms=REQUEST_TIMEOUT_MS, bootstrap_servers=self._brokers)
        try:
            await admin.start()
            brokers = len((await admin.describe_cluster())["brokers"])
            for topic in topics:
                topic.replication_factor = min(REPLICAS_MAX, brokers)
            answer = await admin.create_topics(list(topics))
        finally:
            await admin.close()
        # aiokafka does not raise for a topic that was refused.
        for name, code, *words in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise KafkaError(f"topic {name} cannot be made: error {code} {' '.join(map(str, words))}")
            self._made.add(name)

    def _doorbells(self) -> list[NewTopic]:
        return [
            NewTopic(
                self._name(topic), DOORBELL_PARTITIONS, 1, topic_configs={"retention.ms": str(DOORBELL_RETENTION_MS)}
            )
            for topic in TOPICS
        ]

    # —— receiving ——

    async def _listen(self, topic: str, handler: Handler, outage: Outage) -> None:
        """Until something fails."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._make_topics(self._doorbells())
        consumer = AIOKafkaConsumer(
            self._name(topic),
            group_id=self._name(topic),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            **self._client_options(),
        )
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await consumer.start()
            outage.is_over()
            await handler(None)
            heard_at, behind = time.monotonic(), False
            while True:
                records = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_MAX)
                if records:
                    await self._take(consumer, records, topic, handler)
                    heard_at, behind = time.monotonic(), False
                elif behind:
                    raise Deaf
                elif time.monotonic() - heard_at > SILENCE_S:
                    behind = await self._is_behind(consumer, topic)
                    heard_at = time.monotonic()
        finally:
            await _stop(consumer)

    async def _take(
        self, consumer: AIOKafkaConsumer, records: dict[TopicPartition, list[Any]], topic: str, handler: Handler
    ) -> None:
        """Hands the messages over, one after the other, then commits as far as they had their effect."""
        done: dict[TopicPartition, int] = {}
        held_up = False
        for partition, batch in records.items():
            for record in batch:
                if not await self._hand_over(record, topic, handler):
                    held_up = True
                    # Revoked meanwhile: whoever has the partition now gets the message.
                    with contextlib.suppress(IllegalStateError):
                        consumer.seek(partition, record.offset)
                    break
                done[partition] = record.offset + 1
        await _commit(consumer, done)
        if held_up:
            await asyncio.sleep(RETRY_S)

    async def _hand_over(self, record: Any, topic: str, handler: Handler) -> bool:
        """Whether the message has had its effect, which for a bad one is to be parked."""
        payload = record.value or b""
        try:
            await handler(orjson.loads(payload))
        except NotNow:
            return False
        except (orjson.JSONDecodeError, UnreadableMessage) as error:
            reason = f"{type(error).__name__}: {error}"
            try:
                await self._park(BadLetter(topic, payload, reason, record.partition, record.offset))
            except DATABASE_ERRORS:
                return False
            await handler(None)
        return True

    async def _is_behind(self, consumer: AIOKafkaConsumer, topic: str) -> bool:
        """Whether silence is no proof that nothing was said; raises TopicGone where a wipe took the topic away.

        aiokafka notices neither by itself: it waits in peace on a topic that is gone, and its fetching task may end by an
        error of its own (0.14.0: KeyError, when a broker dies in the midst of a request) while the heartbeat goes on.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self._name(topic) not in await consumer.topics():
                raise TopicGone
            mine = consumer.assignment()
            ends = await consumer.end_offsets(mine) if mine else {}
            return any([await consumer.position(partition) < end for partition, end in ends.items()])

    def _name(self, topic: str) -> str:
        return f"{self._prefix}.{topic}"

    def _client_options(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self._brokers,
            "client_id": self._prefix,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        }


async def _commit(consumer: AIOKafkaConsumer, done: dict[TopicPartition, int]) -> None:
    """Partitions that went to others meanwhile are theirs to commit; a commit that fails repeats messages, no more."""
    kept = {partition: offset for partition, offset in done.items() if partition in consumer.assignment()}
    if kept:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await consumer.commit(kept)
        except (KafkaError, TimeoutError) as error:
            log.info("bus: offsets not committed (%s)", describe(error))


async def _tail(consumer: AIOKafkaConsumer, partition: TopicPartition, most: int) -> list[Entry]:
    if partition.topic not in await consumer.topics():
        return []
    consumer.assign([partition])
    end: int = (await consumer.end_offsets([partition]))[partition]
    first: int = (await consumer.beginning_offsets([partition]))[partition]
    at = max(first, end - most)
    consumer.seek(partition, at)
    entries = []
    while at < end:
        for batch in (await consumer.getmany(timeout_ms=POLL_MS)).values():
            entries += [Entry(record.key or b"", record.value or b"") for record in batch if record.offset < end]
            at = batch[-1].offset + 1
    return entries


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Leaves the group, so that its partitions move at once."""
    await _for_a_while(consumer.stop())


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Ends a producer with all that it still holds. Its own `stop` first waits until every message is acknowledged, for ever
    if need be, and there is no public way to give up.
    """
    await _for_a_while(producer._sender.close())  # noqa: SLF001
    await _for_a_while(producer.client.close())
    producer._closed = True  # noqa: SLF001


async def _for_a_while(ending: Coroutine[Any, Any, None]) -> None:
    """Waits for it, but not longer than it takes with a broker that lives; its failure is no news.

    Not by a time-out alone: that one would wait until the cancelled coroutine has let itself be cancelled.
    """
    task = asyncio.create_task(ending)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S)
    task.cancel()
