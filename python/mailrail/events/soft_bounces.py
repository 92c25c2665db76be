"""The second part of the store of events: addresses that mail comes back from again and again, though never for good.

They are counted by day, in the applier's transaction. The rule is `suppressions.model.is_worn_out`; a property test holds
the two together.
"""

from mailrail.db.pool import Connection
from mailrail.emails.model import EventKind
from mailrail.suppressions.model import SOFT_BOUNCE_DAYS

# What is about the mail, or about how long we let it be tried, says nothing of its address.
_ABOUT_THE_MAIL = "^Transient/(MessageTooLarge|ContentRejected|AttachmentRejected|CustomTimeoutExceeded)"

# An automatic answer comes as a soft bounce of a mail that was delivered.
_SOFTLY = f"""softly AS (
  SELECT s.account_id, lower(a.email) AS email_folded, s.at, s.stream_id, s.seq, class_of(s.detail) AS detail
  FROM soft s JOIN audience a USING (stream_id, seq)
  WHERE a.email_hash IS NULL AND coalesce(s.detail, '') !~ '{_ABOUT_THE_MAIL}' AND NOT EXISTS (
    SELECT FROM events e WHERE e.stream_id = s.stream_id AND e.seq = s.seq AND e.kind = {EventKind.DELIVERY}))"""


async def count(conn: Connection) -> None:
    """Counts the soft bounces of table soft, each as of the day on which it happened."""
    await conn.execute(
        f"""WITH {_SOFTLY}
            INSERT INTO soft_bounces AS b (account_id, email_folded, day, bounces, last_at)
            SELECT account_id, email_folded, (at AT TIME ZONE 'UTC')::date AS day, count(*), max(at) FROM softly
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            ON CONFLICT (account_id, email_folded, day) DO UPDATE
            SET bounces = b.bounces + excluded.bounces, last_at = greatest(b.last_at, excluded.last_at)"""
    )


async def clear_delivered(conn: Connection) -> None:
    """Forgets the soft bounces before a delivery among the staged events. SES names an address as it was sent to, so that
    none of the many deliveries needs a look at the audience.
    """
    await conn.execute(
        f"""WITH over AS (
              SELECT b.account_id, b.email_folded, b.day FROM incoming i JOIN streams s USING (stream_id)
              JOIN soft_bounces b ON b.account_id = s.account_id AND b.email_folded = lower(i.address)
              WHERE i.kind = {EventKind.DELIVERY} AND b.last_at <= coalesce(i.at, now())
              ORDER BY 1, 2, 3 FOR UPDATE OF b
            )
            DELETE FROM soft_bounces b USING over o
            WHERE b.account_id = o.account_id AND b.email_folded = o.email_folded AND b.day = o.day"""
    )


async def suppress(conn: Connection, bounces_min: int, days_min: int) -> None:
    """Suppresses whom of table soft the counts say so; after that they are needed no more."""
    await conn.execute(
        f"""WITH {_SOFTLY}, worn AS (
              SELECT DISTINCT ON (account_id, email_folded) account_id, email_folded, stream_id, seq, detail FROM softly s
              WHERE EXISTS (
                SELECT FROM soft_bounces last
                WHERE last.account_id = s.account_id AND last.email_folded = s.email_folded AND (
                  SELECT sum(b.bounces) >= $1 AND count(*) >= $2 FROM soft_bounces b
                  WHERE b.account_id = s.account_id AND b.email_folded = s.email_folded
                    AND b.day BETWEEN last.day - {SOFT_BOUNCE_DAYS - 1} AND last.day))
              ORDER BY account_id, email_folded, at DESC
            ), suppressed AS (
              INSERT INTO suppressions AS x (account_id, email_folded, reason, stream_id, seq, detail)
              SELECT account_id, email_folded, 'soft_bounces', stream_id, seq, detail FROM worn
              ON CONFLICT (account_id, email_folded) DO UPDATE SET reason = excluded.reason, stream_id = excluded.stream_id,
                seq = excluded.seq, detail = excluded.detail WHERE x.reason = 'unsubscribe'
            ), counted AS (
              DELETE FROM soft_bounces b USING worn w
              WHERE b.account_id = w.account_id AND b.email_folded = w.email_folded
            )
            UPDATE contacts c SET status = 'bounced', updated_at = now() FROM worn w
            WHERE c.account_id = w.account_id AND c.email_folded = w.email_folded
              AND c.status IN ('subscribed', 'pending')""",
        bounces_min,
        days_min,
    )


async def forget_old(conn: Connection) -> None:
    """Drops the counts that no rule can need any more."""
    await conn.execute("DELETE FROM soft_bounces WHERE day < current_date - $1::integer", 2 * SOFT_BOUNCE_DAYS)
