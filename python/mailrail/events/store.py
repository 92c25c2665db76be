"""Every statement on raw notifications and on events."""

import io
from collections.abc import Sequence

from mailrail.db.pool import Connection
from mailrail.emails.fold import FOLD_INTERVAL_S
from mailrail.emails.model import EventKind
from mailrail.emails.reconcile import CANARY_STREAM_ID


async def insert_notifications(
    conn: Connection, message_ids: Sequence[str], topic_arns: Sequence[str], bodies: Sequence[str]
) -> int:
    """Stores raw notifications and queues the new ones; returns how many were new. A repeat within a day is dropped
    here, a later one where it is applied.
    """
    status = await conn.execute(
        """WITH stored AS (
             INSERT INTO notifications (message_id, topic_arn, body)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
             ON CONFLICT DO NOTHING RETURNING day, message_id
           )
           INSERT INTO notification_queue (day, message_id) SELECT day, message_id FROM stored""",
        list(message_ids),
        list(topic_arns),
        list(bodies),
    )
    return int(status.rpartition(" ")[2])


# Session tables: each filled by one statement, read set-wise, emptied with the transaction.
_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS taken (day date, message_id text) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS incoming (
  notification_id bigint, stream_id bigint, seq integer, attempt smallint, kind smallint, dedupe bigint,
  at timestamptz, address text, ses_message_id text, detail text, machine text)
  ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS unreadable (notification_id bigint, reason text) ON COMMIT DELETE ROWS;
-- Every join here goes from a few staged rows into a large indexed table; without statistics on either, the planner
-- would rather read the large one whole.
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off
"""


async def prepare_staging(conn: Connection) -> None:
    """Makes this session's staging tables, and sets how the caller's transaction joins them."""
    await conn.execute(_STAGING)


async def take_notifications(conn: Connection, most: int) -> int:
    """Takes up to `most` notifications off the queue into table taken; returns how many.

    They leave the queue with the caller's transaction: a crash before its commit puts them back.
    """
    status = await conn.execute(
        """WITH gone AS (
             DELETE FROM notification_queue
             WHERE ctid = ANY (ARRAY(SELECT ctid FROM notification_queue LIMIT $1 FOR UPDATE SKIP LOCKED))
             RETURNING day, message_id
           )
           INSERT INTO taken SELECT day, message_id FROM gone""",
        most,
    )
    return int(status.rpartition(" ")[2])


async def read_taken(conn: Connection) -> bytes:
    """The taken notifications as binary COPY rows (id, body)."""
    rows = io.BytesIO()
    await conn.copy_from_query(
        "SELECT n.id, n.body FROM taken t JOIN notifications n USING (day, message_id)", output=rows, format="binary"
    )
    return rows.getvalue()


async def stage(conn: Connection, events: bytes, parked: bytes) -> None:
    """Takes what the core parsed, as binary COPY rows."""
    await conn.copy_to_table("incoming", source=io.BytesIO(events), format="binary")
    await conn.copy_to_table("unreadable", source=io.BytesIO(parked), format="binary")


async def insert_events(conn: Connection) -> None:
    """Adds the staged events to their mails; those of streams that are gone are passed over."""
    await conn.execute(
        """INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, ses_message_id, machine, detail)
           SELECT i.stream_id, i.seq, i.kind, i.dedupe, s.account_id, i.attempt, i.at, i.ses_message_id, i.machine,
             -- Servers quote the address when they refuse it; an erased person's shall not come back by that.
             CASE WHEN i.detail IS NOT NULL AND s.account_id IN (SELECT account_id FROM erasures) AND EXISTS (
                    SELECT FROM audience a WHERE a.stream_id = i.stream_id AND a.seq = i.seq AND a.email_hash IS NOT NULL)
                  THEN NULL ELSE i.detail END
           FROM incoming i JOIN streams s USING (stream_id)
           ON CONFLICT DO NOTHING"""
    )


async def note_canaries(conn: Connection) -> None:
    """Canaries that came back: the way from SES to here is open."""
    await conn.execute(
        """UPDATE canaries c SET seen_at = clock_timestamp() FROM incoming i
           WHERE i.stream_id = $1 AND c.id = i.seq AND c.seen_at IS NULL""",
        CANARY_STREAM_ID,
    )


async def suppress_addresses(conn: Connection) -> None:
    """A permanent bounce or a complaint ends mail to the address for its tenant: the frozen address, not the contact's
    present one. A complaint that says the mail was no spam, or that only authentication failed, does not.
    """
    await conn.execute(
        """WITH hit AS (
             SELECT DISTINCT ON (a.account_id, lower(a.email), a.email_hash) a.account_id, lower(a.email) AS email_folded,
               a.email_hash, i.kind, CASE i.kind WHEN $1 THEN 'bounce' ELSE 'complaint' END AS reason
             FROM incoming i JOIN audience a USING (stream_id, seq)
             WHERE i.kind = $1 OR (i.kind = $2 AND coalesce(i.detail, '') !~ '^(not-spam|auth-failure)(/|$)')
             ORDER BY a.account_id, lower(a.email), a.email_hash, i.kind DESC
           ), suppressed AS (
             INSERT INTO suppressions AS x (account_id, email_folded, reason)
             SELECT account_id, email_folded, reason FROM hit WHERE email_hash IS NULL
             -- What refuses campaigns alone becomes what refuses all mail.
             ON CONFLICT (account_id, email_folded) DO UPDATE SET reason = excluded.reason WHERE x.reason = 'unsubscribe'
           ), erased AS (
             INSERT INTO suppression_hashes AS x (account_id, email_hash, reason, created_at)
             SELECT account_id, email_hash, reason, now() FROM hit WHERE email_hash IS NOT NULL
             ON CONFLICT (account_id, email_hash) DO UPDATE SET reason = excluded.reason WHERE x.reason = 'unsubscribe'
           ), complained AS (
             INSERT INTO consents (account_id, contact_id, status, source, at)
             SELECT c.account_id, c.id, 'unsubscribed', 'complaint', now() FROM hit
             JOIN contacts c ON c.account_id = hit.account_id AND c.email_folded = hit.email_folded
             WHERE hit.kind = $2 AND c.status IN ('subscribed', 'pending')
           )
           UPDATE contacts c SET status = CASE hit.kind WHEN $1 THEN 'bounced' ELSE 'complained' END, updated_at = now()
           FROM hit WHERE c.account_id = hit.account_id AND c.email_folded = hit.email_folded
             AND c.status IN ('subscribed', 'pending')""",
        int(EventKind.BOUNCE_PERMANENT),
        int(EventKind.COMPLAINT),
    )


# Shards that the staged events touch.
_TOUCHED = """(SELECT DISTINCT i.stream_id, (i.seq - 1) / s.shard_size AS shard FROM incoming i JOIN streams s USING (stream_id))"""


async def mark_folds_due(conn: Connection) -> None:
    """Asks for a fold of each shard touched, in order against deadlocks, and not more often than it is worth.

    Locks first and writes with the next statement, as `fold.make_due` does and for its reason.
    """
    await conn.execute(
        f"""SELECT FROM folds f JOIN {_TOUCHED} t USING (stream_id, shard)
            ORDER BY f.stream_id, f.shard FOR UPDATE OF f"""
    )
    await conn.execute(
        f"""UPDATE folds f SET due_at = least(f.due_at,
              greatest(clock_timestamp(), f.folded_at + make_interval(secs => $1)))
            FROM {_TOUCHED} t WHERE f.stream_id = t.stream_id AND f.shard = t.shard""",
        FOLD_INTERVAL_S,
    )


async def park_notifications(conn: Connection) -> None:
    """Keeps what could not be read, with the reason, for a later release or a person."""
    await conn.execute(
        """INSERT INTO parked_notifications (notification_id, day, message_id, reason)
           SELECT u.notification_id, n.day, n.message_id, u.reason
           FROM unreadable u JOIN notifications n ON n.id = u.notification_id
           WHERE n.day >= current_date - 8
           ON CONFLICT DO NOTHING"""
    )
