"""What could not be read: shown to a person, and put back before the applier once a newer version can read it."""

from datetime import datetime

from mailrail.db.pool import Connection
from mailrail.events import store
from mailrail.events.model import Parked

# Notifications that one statement puts back.
BATCH_MAX = 500


async def overview(conn: Connection) -> list[Parked]:
    """What is parked, by reason, the most first."""
    return await store.read_parked(conn)


async def replay(conn: Connection, reason: str | None, since: datetime | None, most: int) -> tuple[int, int]:
    """Puts up to `most` back, in the caller's transaction; returns how many, and how many are left. What still cannot be read
    is parked again; what can is applied once, however often it is put back.
    """
    replayed = 0
    while replayed < most:
        moved = await store.requeue_parked(conn, reason, since, min(BATCH_MAX, most - replayed))
        if not moved:
            break
        replayed += moved
    return replayed, await store.count_parked(conn, reason, since)
