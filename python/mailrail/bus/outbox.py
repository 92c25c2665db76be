"""From table outbox to the bus: a message exists if and only if the transaction that wrote it committed."""

import asyncio
import logging

from mailrail.bus.messages import Bus, Message
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool

log = logging.getLogger(__name__)

RELAY_INTERVAL_S = 0.1
RELAY_BATCH = 500


async def append(conn: Connection, message: Message) -> None:
    """Queues a message in the caller's transaction."""
    await conn.execute("INSERT INTO outbox (topic, message) VALUES ($1, $2)", message.topic, message.to_wire())


async def relay_once(pool: Pool, bus: Bus) -> int:
    """Publishes what is waiting, each distinct message once; returns how many rows left the outbox.

    Published before the rows go: a crash in between rings a second time, which is harmless.
    """
    async with pool.acquire() as conn, conn.transaction():
        rows = await conn.fetch(
            """SELECT id, topic, message FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED""", RELAY_BATCH
        )
        if not rows:
            return 0
        distinct = {(row["topic"], str(row["message"])): row for row in rows}
        for row in distinct.values():
            await bus.publish(row["topic"], row["message"])
        await conn.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
    return len(rows)


async def relay(pool: Pool, bus: Bus) -> None:
    """Runs until cancelled."""
    while True:
        try:
            moved = await relay_once(pool, bus)
        except DATABASE_ERRORS as error:
            log.warning("relay: %s", type(error).__name__)
            moved = 0
        if moved < RELAY_BATCH:
            await asyncio.sleep(RELAY_INTERVAL_S)
