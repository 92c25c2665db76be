"""Every statement on raw notifications and on events."""

import io
from collections.abc import Sequence
from datetime import datetime

from mailrail.db.pool import Connection
from mailrail.emails.fold import FOLD_INTERVAL_S
from mailrail.emails.model import EventKind
from mailrail.emails.reconcile import CANARY_STREAM_ID
from mailrail.events.model import PARKED_KEEP_DAYS, Notification, Parked, QueueDepth
from mailrail.reputation.model import Tally

# One row a process and this long at most is written about events that came.
HEARD_EVERY_S = 5.0


async def insert_notifications(conn: Connection, notifications: Sequence[Notification]) -> int:
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
        [notification.message_id for notification in notifications],
        [notification.topic_arn for notification in notifications],
        [notification.body for notification in notifications],
    )
    return int(status.rpartition(" ")[2])


# The reader took it back, or only a signature failed.
_NO_COMPLAINT = "^(not-spam|auth-failure)(/|$)"

# Session tables: each filled by one statement, read set-wise, emptied with the transaction.
_STAGING = """
CREATE TEMP TABLE IF NOT EXISTS taken (day date, message_id text) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS incoming (
  notification_id bigint, stream_id bigint, seq integer, attempt smallint, kind smallint, dedupe bigint,
  at timestamptz, address text, ses_message_id text, detail text) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS unreadable (notification_id bigint, reason text) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS soft (
  account_id bigint, stream_id bigint, seq integer, at timestamptz, detail text) ON COMMIT DELETE ROWS;
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


async def insert_events(conn: Connection) -> list[Tally]:
    """Adds the staged events to their mails; those of streams that are gone are passed over. Those of the new
    ones that are soft bounces go into table soft. What the new ones say of each account's mail.
    """
    rows = await conn.fetch(
        """WITH added AS (
             INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, ses_message_id, detail)
             SELECT i.stream_id, i.seq, i.kind, i.dedupe, s.account_id, i.attempt, i.at, i.ses_message_id,
               -- Servers quote the address when they refuse it; an erased person's shall not come back by that.
               CASE WHEN i.detail IS NOT NULL AND s.account_id IN (SELECT account_id FROM erasures) AND EXISTS (
                      SELECT FROM audience a WHERE a.stream_id = i.stream_id AND a.seq = i.seq AND a.email_hash IS NOT NULL)
                    THEN NULL ELSE i.detail END
             FROM incoming i JOIN streams s USING (stream_id)
             ON CONFLICT DO NOTHING RETURNING account_id, stream_id, seq, kind, at, detail
           ), softly AS (
             INSERT INTO soft SELECT account_id, stream_id, seq, coalesce(at, now()), detail FROM added WHERE kind = $1
           )
           SELECT account_id, count(*) FILTER (WHERE kind = $2) AS delivered,
             -- What SES did not even try does not count against anybody there.
             count(*) FILTER (WHERE kind = $3 AND coalesce(detail, '') !~ '^Permanent/On[A-Za-z]*SuppressionList') AS bounced,
             count(*) FILTER (WHERE kind = $1) AS soft_bounced,
             count(*) FILTER (WHERE kind = $4 AND coalesce(detail, '') !~ $5) AS complained
           FROM added WHERE kind IN ($1, $2, $3, $4) GROUP BY account_id ORDER BY account_id""",
        int(EventKind.BOUNCE_TRANSIENT),
        int(EventKind.DELIVERY),
        int(EventKind.BOUNCE_PERMANENT),
        int(EventKind.COMPLAINT),
        _NO_COMPLAINT,
    )
    return [Tally(**row) for row in rows]


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
               a.email_hash, i.kind, CASE i.kind WHEN $1 THEN 'bounce' ELSE 'complaint' END AS reason, i.stream_id, i.seq,
               class_of(i.detail) AS detail
             FROM incoming i JOIN audience a USING (stream_id, seq)
             WHERE i.kind = $1 OR (i.kind = $2 AND coalesce(i.detail, '') !~ $3)
             ORDER BY a.account_id, lower(a.email), a.email_hash, i.kind DESC
           ), suppressed AS (
             INSERT INTO suppressions AS x (account_id, email_folded, reason, stream_id, seq, detail)
             SELECT account_id, email_folded, reason, stream_id, seq, detail FROM hit WHERE email_hash IS NULL
             -- What refuses campaigns alone becomes what refuses all mail.
             ON CONFLICT (account_id, email_folded) DO UPDATE SET reason = excluded.reason, stream_id = excluded.stream_id,
               seq = excluded.seq, detail = excluded.detail WHERE x.reason = 'unsubscribe'
           ), settled AS (
             DELETE FROM soft_bounces b USING hit WHERE b.account_id = hit.account_id AND b.email_folded = hit.email_folded
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
        _NO_COMPLAINT,
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


async def note_heard(conn: Connection) -> None:
    """Events come. The row is written now and then, so that appliers seldom meet at it."""
    await conn.execute(
        """UPDATE event_pipeline SET heard_at = clock_timestamp(), silent_since = NULL
           WHERE heard_at IS NULL OR heard_at < clock_timestamp() - make_interval(secs => $1) OR silent_since IS NOT NULL""",
        HEARD_EVERY_S,
    )


async def read_lags(conn: Connection) -> list[tuple[float, int]]:
    """(seconds from SES's time stamp to now, how many staged events) with one decimal, each once."""
    rows = await conn.fetch(
        """SELECT round(extract(epoch FROM clock_timestamp() - at), 1)::double precision AS lag, count(*)::integer AS events
           FROM incoming WHERE at IS NOT NULL GROUP BY 1"""
    )
    return [(row["lag"], row["events"]) for row in rows]


# —— what could not be read —————————————————————————————————————————————————————————————————————————————————————————————


async def park_notifications(conn: Connection) -> None:
    """Keeps what could not be read, with the reason and its body, for a later release or a person. It is parked since it was
    received: one that is read again in vain says nothing about mail sent since.
    """
    await conn.execute(
        """INSERT INTO parked_notifications (notification_id, day, message_id, reason, parked_at, topic_arn, body)
           SELECT n.id, n.day, n.message_id, u.reason, n.received_at, n.topic_arn, n.body
           FROM taken t JOIN notifications n USING (day, message_id) JOIN unreadable u ON u.notification_id = n.id
           ON CONFLICT DO NOTHING"""
    )


async def read_parked(conn: Connection) -> list[Parked]:
    """What is parked, by reason, the most first."""
    rows = await conn.fetch(
        """SELECT reason, count(*)::integer AS count, min(parked_at) AS oldest_at,
             (array_agg(left(body, 1000)) FILTER (WHERE body IS NOT NULL))[1] AS sample
           FROM parked_notifications GROUP BY reason ORDER BY count DESC, reason"""
    )
    return [Parked(**row) for row in rows]


async def requeue_parked(conn: Connection, reason: str | None, since: datetime | None, most: int) -> int:
    """Puts up to `most` parked notifications back before the applier, the oldest first; returns how many.

    They leave the parking with the caller's transaction. One that came today has its raw row still.
    """
    status = await conn.execute(
        """WITH chosen AS (
             DELETE FROM parked_notifications WHERE notification_id = ANY (ARRAY(
               SELECT notification_id FROM parked_notifications
               WHERE body IS NOT NULL AND ($1::text IS NULL OR reason = $1) AND ($2::timestamptz IS NULL OR parked_at >= $2)
               ORDER BY parked_at, notification_id LIMIT $3 FOR UPDATE SKIP LOCKED))
             RETURNING message_id, topic_arn, body, parked_at
           ), restored AS (
             INSERT INTO notifications (message_id, topic_arn, body, received_at)
             SELECT DISTINCT ON (message_id) message_id, topic_arn, body, parked_at FROM chosen ORDER BY message_id
             ON CONFLICT DO NOTHING
           )
           INSERT INTO notification_queue (day, message_id)
           SELECT DISTINCT (now() AT TIME ZONE 'UTC')::date, message_id FROM chosen""",
        reason,
        since,
        most,
    )
    return int(status.rpartition(" ")[2])


async def count_parked(conn: Connection, reason: str | None, since: datetime | None) -> int:
    """How many there are to put back."""
    count: int = await conn.fetchval(
        """SELECT count(*) FROM parked_notifications
           WHERE body IS NOT NULL AND ($1::text IS NULL OR reason = $1) AND ($2::timestamptz IS NULL OR parked_at >= $2)""",
        reason,
        since,
    )
    return count


async def drop_old_parked(conn: Connection) -> None:
    """Gives up what no version could read in its time."""
    await conn.execute(
        "DELETE FROM parked_notifications WHERE parked_at < now() - make_interval(days => $1)", PARKED_KEEP_DAYS
    )


async def forget_parked(conn: Connection, email_folded: str) -> None:
    """Empties what names the address; a longer address that ends with it is emptied, too. The row stays: it says that something
    was not understood, and so keeps silence from proving anything.
    """
    await conn.execute("UPDATE parked_notifications SET body = NULL WHERE strpos(lower(body), $1) > 0", email_folded)


# —— the queue of Amazon SQS ————————————————————————————————————————————————————————————————————————————————————————————


async def is_up(conn: Connection) -> bool:
    """True; raises what `db.pool.DATABASE_ERRORS` lists where the database does not answer."""
    answered: bool = await conn.fetchval("SELECT true")
    return answered


async def save_depth(conn: Connection, name: str, depth: QueueDepth) -> None:
    """What SQS says now."""
    await conn.execute(
        """INSERT INTO event_queues (name, waiting, in_flight, dead) VALUES ($1, $2, $3, $4)
           ON CONFLICT (name) DO UPDATE SET waiting = excluded.waiting, in_flight = excluded.in_flight, dead = excluded.dead,
             read_at = clock_timestamp()""",
        name,
        depth.waiting,
        depth.in_flight,
        depth.dead,
    )
