"""Messages that this release cannot read, kept with the reason for whoever looks into it; no receiver sees them again."""

import logging

from mailrail.bus.messages import BadLetter
from mailrail.db.pool import Connection, Pool

log = logging.getLogger(__name__)

PAYLOAD_MAX_BYTES = 64 * 1024
REASON_MAX_CHARS = 500


async def park(conn: Connection, letter: BadLetter) -> None:
    """Keeps a message once, however many receivers bring it. Needs a transaction.

    A broker's message is known by its place. One that came by NOTIFY has none, and all listeners get it at the same time:
    the same bytes within a minute are one message.
    """
    # A statement of its own, so that the next one sees what the holder before us committed.
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"parked {letter.topic}")
    done = await conn.execute(
        """INSERT INTO parked_messages (topic, partition, "offset", payload, reason)
           SELECT $1, $2, $3, $4, $5
           WHERE $3::bigint IS NOT NULL OR NOT EXISTS (
             SELECT FROM parked_messages
             WHERE topic = $1 AND "offset" IS NULL AND payload = $4 AND parked_at > now() - interval '1 minute')
           ON CONFLICT DO NOTHING""",
        letter.topic,
        letter.partition,
        letter.offset,
        letter.payload[:PAYLOAD_MAX_BYTES],
        letter.reason[:REASON_MAX_CHARS],
    )
    if done == "INSERT 0 1":
        log.warning("bus: a message on %s is parked: %s", letter.topic, letter.reason[:REASON_MAX_CHARS])


async def count_parked(conn: Connection) -> int:
    """How many are kept."""
    count: int = await conn.fetchval("SELECT count(*) FROM parked_messages")
    return count


class Parking:
    """Parks on a connection of the pool's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, letter: BadLetter) -> None:
        """Raises DATABASE_ERRORS."""
        async with self._pool.acquire() as conn, conn.transaction():
            await park(conn, letter)
