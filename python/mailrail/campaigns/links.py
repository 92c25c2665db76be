"""Who followed which link: the fourth part of the store of campaigns, which only reads what the folds counted.

A row a shard and link, so that a page costs the same few milliseconds whatever the size of the audience.
"""

from dataclasses import dataclass
from datetime import datetime

from mailrail.db.pool import Connection


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a campaign: how many people followed it, how often they did, how often machines did, and when people did
    first and last.
    """

    n: int
    url: str
    clicked: int
    clicks: int
    machine_clicks: int
    first_at: datetime | None
    last_at: datetime | None


async def read_page(
    conn: Connection, account_id: int, stream_id: int, limit: int, offset: int = 0, after_n: int = 0
) -> list[Link]:
    """In the order in which they stand in the mail; `after_n` goes on behind that one, else `offset` skips."""
    rows = await conn.fetch(
        """WITH page AS (
             SELECT n, url FROM links WHERE stream_id = $1 AND account_id = $2 AND n > $5 ORDER BY n LIMIT $3 OFFSET $4
           )
           SELECT p.n, p.url, coalesce(sum(c.clicked), 0)::integer AS clicked, coalesce(sum(c.clicks), 0)::integer AS clicks,
             coalesce(sum(c.machine_clicks), 0)::integer AS machine_clicks, min(c.first_at) AS first_at, max(c.last_at) AS last_at
           FROM page p LEFT JOIN link_counts c ON c.stream_id = $1 AND c.account_id = $2 AND c.n = p.n
           GROUP BY p.n, p.url ORDER BY p.n""",
        stream_id,
        account_id,
        limit,
        offset,
        after_n,
    )
    return [Link(**row) for row in rows]


async def count(conn: Connection, account_id: int, stream_id: int) -> int:
    """How many links the campaign has."""
    found: int = await conn.fetchval(
        "SELECT count(*) FROM links WHERE stream_id = $1 AND account_id = $2", stream_id, account_id
    )
    return found
