"""The statements of tracking: functions of the owner, since a reader's request knows no tenant."""

import time
from collections.abc import Sequence

from mailrail.db.pool import Connection
from mailrail.tracking.model import Engagement


async def read_link(conn: Connection, stream_id: int, link: int) -> str | None:
    """Where the link of a stream leads."""
    url: str | None = await conn.fetchval("SELECT link_target($1, $2)", stream_id, link)
    return url


async def read_mail_link(conn: Connection, stream_id: int, seq: int, link: int) -> str | None:
    """Where the link of a transactional mail leads."""
    url: str | None = await conn.fetchval("SELECT mail_link_target($1, $2, $3)", stream_id, seq, link)
    return url


async def record(conn: Connection, batch: Sequence[Engagement]) -> int:
    """Writes what readers did; returns how much of it was new. What belongs to dropped streams is passed over."""
    # The times are ours, the clock is the database's: it is told how long ago.
    now_s = time.time()
    recorded: int = await conn.fetchval(
        "SELECT record_engagement($1, $2, $3, $4, $5, $6, $7)",
        [item.stream_id for item in batch],
        [item.seq for item in batch],
        [int(item.kind) for item in batch],
        [item.dedupe for item in batch],
        [item.detail for item in batch],
        [item.machine for item in batch],
        [0 if item.at_s is None else int((now_s - item.at_s) * 1000) for item in batch],
    )
    return recorded
