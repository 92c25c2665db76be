"""Every statement on what came of the tenants' mail, and on how they stand."""

from collections.abc import Sequence

from mailrail.db.pool import Connection
from mailrail.reputation.model import (
    REPRESENTATIVE_MAILS,
    WINDOW_HOURS,
    WINDOW_MAX_DAYS,
    Figures,
    Level,
    Tally,
    Verdict,
)


async def add(conn: Connection, tallies: Sequence[Tally]) -> None:
    """Counts into the present hour; in one order against deadlocks."""
    await conn.execute(
        """INSERT INTO reputation_hours AS h (account_id, hour, delivered, bounced, soft_bounced, complained)
           SELECT account_id, date_trunc('hour', now()), delivered, bounced, soft_bounced, complained
           FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::integer[], $5::integer[])
             AS t(account_id, delivered, bounced, soft_bounced, complained) ORDER BY account_id
           ON CONFLICT (account_id, hour) DO UPDATE SET delivered = h.delivered + excluded.delivered,
             bounced = h.bounced + excluded.bounced, soft_bounced = h.soft_bounced + excluded.soft_bounced,
             complained = h.complained + excluded.complained""",
        [one.account_id for one in tallies],
        [one.delivered for one in tallies],
        [one.bounced for one in tallies],
        [one.soft_bounced for one in tallies],
        [one.complained for one in tallies],
    )


# An hour belongs to it as long as the hours after it have too little mail to stand for the tenant.
_WINDOW = f"""
WITH hours AS (
  SELECT account_id, hour, delivered, bounced, soft_bounced, complained,
    coalesce(sum(delivered + bounced + soft_bounced) OVER (PARTITION BY account_id ORDER BY hour DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS later
  FROM reputation_hours
  WHERE account_id = ANY($1::bigint[]) AND hour > now() - interval '{WINDOW_MAX_DAYS} days'
)
SELECT account_id, sum(delivered + bounced + soft_bounced)::bigint AS mails, sum(bounced)::bigint AS bounced,
  sum(complained)::bigint AS complained, min(hour) AS since
FROM hours WHERE hour > now() - interval '{WINDOW_HOURS} hours' OR later < {REPRESENTATIVE_MAILS} GROUP BY account_id
"""


async def read_figures(conn: Connection, account_ids: Sequence[int]) -> dict[int, Figures]:
    """What each account is judged by; none of those without any mail."""
    rows = await conn.fetch(_WINDOW, list(account_ids))
    return {row["account_id"]: Figures(row["mails"], row["bounced"], row["complained"], row["since"]) for row in rows}


async def read_verdict(conn: Connection, account_id: int) -> Verdict:
    """How the account stands."""
    row = await conn.fetchrow("SELECT level, reason FROM reputations WHERE account_id = $1", account_id)
    return Verdict(Level.GOOD) if row is None else Verdict(Level(row["level"]), row["reason"])


async def write_verdict(conn: Connection, account_id: int, verdict: Verdict) -> bool:
    """How the account stands from now on; whether that is another level than before."""
    before = await conn.fetchval(
        """INSERT INTO reputations AS r (account_id, level, reason) VALUES ($1, $2, $3)
           ON CONFLICT (account_id) DO UPDATE SET level = excluded.level, reason = excluded.reason,
             since = CASE WHEN r.level = excluded.level THEN r.since ELSE now() END
           RETURNING coalesce(old.level, 'good')""",
        account_id,
        verdict.level,
        verdict.reason,
    )
    return bool(before != verdict.level)


async def read_doubtful(conn: Connection) -> list[int]:
    """Accounts that do not stand well, or that something happened to lately."""
    rows = await conn.fetch(
        """SELECT account_id FROM reputations WHERE level <> 'good'
           UNION SELECT account_id FROM reputation_hours
           WHERE hour > now() - interval '2 hours' AND (bounced > 0 OR complained > 0)
           ORDER BY account_id"""
    )
    return [row["account_id"] for row in rows]


async def forget(conn: Connection, account_id: int) -> None:
    """The account's mail counts from now on alone."""
    await conn.execute("DELETE FROM reputation_hours WHERE account_id = $1", account_id)


async def forget_old(conn: Connection) -> None:
    """Drops what is judged no more."""
    await conn.execute(f"DELETE FROM reputation_hours WHERE hour < now() - interval '{WINDOW_MAX_DAYS + 1} days'")
