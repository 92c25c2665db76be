"""The partitions of the tables that grow with every mail: made before they are needed, dropped when nobody reads them."""

from mailrail.db.pool import Connection


async def make_partitions(conn: Connection) -> None:
    """Sees to it that the weeks and days ahead have theirs; what exists stays."""
    await conn.execute("SELECT make_partitions()")


async def drop_old_notifications(conn: Connection) -> None:
    """Drops the days of raw notifications that are past their keeping."""
    await conn.execute("SELECT drop_old_notifications()")
