"""From table outbox to the bus: a message exists if and only if the transaction that wrote it committed."""

import asyncio
import logging

import orjson

from mailrail import failpoints
from mailrail.bus import parking
from mailrail.bus.messages import TOPICS, BadLetter, Bus, BusDown, Letter, Message, Outage
from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool

log = logging.getLogger(__name__)

# Also the pace of the embedded bus: at most one NOTIFY per campaign in this time.
RELAY_INTERVAL_S = 0.1
RELAY_RETRY_S = 1.0
RELAY_BATCH = 1000
# What fits a NOTIFY (PostgreSQL: less than 8000 bytes), on every bus, so that both carry the same messages.
PAYLOAD_MAX_BYTES = 7_900


async def append(conn: Connection, message: Message) -> None:
    """Queues a message in the caller's transaction."""
    await conn.execute(
        "INSERT INTO outbox (topic, key, message) VALUES ($1, $2, $3)", message.topic, message.key, message.to_wire()
    )


async def relay_once(pool: Pool, bus: Bus) -> int:
    """Publishes what is waiting, each distinct message once; returns how many rows left the outbox. Raises BusDown.

    The rows go when the bus has acknowledged all of them: a crash in between rings a second time, which is harmless.
    A row that no bus can carry is parked, and the others go on.
    """
    async with pool.acquire() as conn, conn.transaction():
        rows = await conn.fetch(
            """SELECT id, topic, key, message FROM outbox WHERE topic = ANY($1::text[])
               ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED""",
            TOPICS,
            RELAY_BATCH,
        )
        if not rows:
            return 0
        with failpoints.span("message", rows=len(rows)):
            failpoints.hit("relay.read", rows=len(rows))
            letters = {Letter(row["topic"], row["key"], orjson.dumps(row["message"])) for row in rows}
            too_long = {letter for letter in letters if len(letter.payload) > PAYLOAD_MAX_BYTES}
            for letter in too_long:
                await parking.park(
                    conn, BadLetter(letter.topic, letter.payload, f"longer than {PAYLOAD_MAX_BYTES} bytes")
                )
            await bus.publish(sorted(letters - too_long, key=lambda letter: letter.key))
            failpoints.hit("relay.published", rows=len(rows))
            await conn.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
            failpoints.hit("relay.deleted", rows=len(rows))
    return len(rows)


async def relay(pool: Pool, bus: Bus) -> None:
    """Runs until cancelled; what cannot be published stays in the outbox and is tried again."""
    outage = Outage(log, "relay")
    while not is_cancelled():
        try:
            await relay_once(pool, bus)
            outage.is_over()
            await asyncio.sleep(RELAY_INTERVAL_S)
        except (BusDown, *DATABASE_ERRORS) as error:
            outage.goes_on(error)
            await asyncio.sleep(RELAY_RETRY_S)
