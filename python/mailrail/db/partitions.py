"""The partitions of the tables that grow with every mail: made before they are needed, dropped when nobody reads them."""

from mailrail.db.pool import Connection


async def make_partitions(conn: Connection) -> int:
    """Sees to it that the weeks and days ahead have theirs; returns how many were missing."""
    made: int = await conn.fetchval("SELECT make_partitions()")
    return made


async def drop_old_notifications(conn: Connection) -> int:
    """Drops the days of raw notifications that are past their keeping; returns how many."""
    dropped: int = await conn.fetchval("SELECT drop_old_notifications()")
    return dropped
