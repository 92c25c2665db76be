"""Every statement on raw notifications and on events."""

import io
from collections.abc import Sequence
from datetime import datetime

from mailrail.db.copy import copy_out
from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.fold import FOLD_INTERVAL_S
from mailrail.emails.model import EventKind, Outcome
from mailrail.emails.reconcile import CANARY_STREAM_ID
from mailrail.events.model import PARKED_KEEP_DAYS, Notification, Parked, Pipeline, QueueDepth, Silence
from mailrail.reputation.model import Tally

# One row a process and this long at most is written about events that came.
HEARD_EVERY_S = 5.0

# What SES tells of a mail that did not reach its mailbox.
UNDELIVERED = (
    EventKind.BOUNCE_PERMANENT,
    EventKind.BOUNCE_TRANSIENT,
    EventKind.REJECT,
    EventKind.RENDERING_FAILURE,
)


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
  at timestamptz, address text, ses_message_id text, detail text, machine text)
  ON COMMIT DELETE ROWS;
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
    return await copy_out(
        conn, "SELECT n.id, n.body FROM taken t JOIN notifications n USING (day, message_id)", format="binary"
    )


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
             INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, ses_message_id, machine, detail)
             SELECT i.stream_id, i.seq, i.kind, i.dedupe, s.account_id, i.attempt, i.at, i.ses_message_id, i.machine,
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
    """Canaries that came back: the way from SES to here is open. Of each is kept whether it was delivered, what hindered that,
    and the event itself, which shows the headers.
    """
    delivered = await conn.fetch(
        """UPDATE canaries c SET seen_at = coalesce(c.seen_at, clock_timestamp()), failure = coalesce(c.failure, heard.failure),
             delivered_at = coalesce(c.delivered_at, CASE WHEN heard.notification_id IS NOT NULL THEN clock_timestamp() END)
           FROM (SELECT seq, max(notification_id) FILTER (WHERE kind = $2) AS notification_id,
                   max(coalesce(detail, 'no reason was given')) FILTER (WHERE kind = ANY($3::smallint[])) AS failure
                 FROM incoming WHERE stream_id = $1 GROUP BY seq) heard
           WHERE c.id = heard.seq RETURNING c.id, heard.notification_id""",
        CANARY_STREAM_ID,
        int(EventKind.DELIVERY),
        [int(kind) for kind in UNDELIVERED],
    )
    for canary in delivered:
        if canary["notification_id"] is not None:
            await conn.execute(
                """UPDATE canaries SET event = (SELECT n.body FROM taken t JOIN notifications n USING (day, message_id)
                                                WHERE n.id = $2) WHERE id = $1""",
                canary["id"],
                canary["notification_id"],
            )


async def count_rendering_failures(conn: Connection) -> dict[int, int]:
    """How many mails of each stream SES could not render, as the staged events tell, less those that it has told before."""
    rows = await conn.fetch(
        """SELECT i.stream_id, count(DISTINCT i.seq)::integer AS failures FROM incoming i
           WHERE i.kind = $1 AND i.stream_id <> $2
             AND NOT EXISTS (SELECT FROM events e WHERE e.stream_id = i.stream_id AND e.seq = i.seq AND e.kind = i.kind)
           GROUP BY i.stream_id ORDER BY i.stream_id""",
        int(EventKind.RENDERING_FAILURE),
        CANARY_STREAM_ID,
    )
    return {row["stream_id"]: row["failures"] for row in rows}


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
             -- What refuses campaigns alone becomes what refuses all mail, and the weightier reason stays whichever came first.
             ON CONFLICT (account_id, email_folded) DO UPDATE SET reason = excluded.reason, stream_id = excluded.stream_id,
                 seq = excluded.seq, detail = excluded.detail
               WHERE x.reason IN ('unsubscribe', 'soft_bounces') OR (x.reason = 'bounce' AND excluded.reason = 'complaint')
           ), settled AS (
             DELETE FROM soft_bounces b USING hit WHERE b.account_id = hit.account_id AND b.email_folded = hit.email_folded
           ), erased AS (
             INSERT INTO suppression_hashes AS x (account_id, email_hash, reason, created_at)
             SELECT account_id, email_hash, reason, now() FROM hit WHERE email_hash IS NOT NULL
             ON CONFLICT (account_id, email_hash) DO UPDATE SET reason = excluded.reason
               WHERE x.reason IN ('unsubscribe', 'soft_bounces') OR (x.reason = 'bounce' AND excluded.reason = 'complaint')
           ), complained AS (
             INSERT INTO consents (account_id, contact_id, status, source, at)
             SELECT c.account_id, c.id, 'unsubscribed', 'complaint', now() FROM hit
             JOIN contacts c ON c.account_id = hit.account_id AND c.email_folded = hit.email_folded
             WHERE hit.kind = $2 AND c.status IN ('subscribed', 'pending', 'bounced')
           )
           UPDATE contacts c SET status = CASE hit.kind WHEN $1 THEN 'bounced' ELSE 'complained' END, updated_at = now()
           FROM hit WHERE c.account_id = hit.account_id AND c.email_folded = hit.email_folded
             AND (c.status IN ('subscribed', 'pending') OR c.status = 'bounced' AND hit.kind = $2)""",
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


# —— whether events come at all ——————————————————————————————————————————————————————————————————————————————————————————

# The first mail that SES accepted after the last event, long enough ago. Where events come there are hardly any claims to look at.
_UNHEARD = f"""
SELECT c.stream_id, r.at FROM claims c JOIN streams t USING (stream_id)
CROSS JOIN LATERAL (
  SELECT r.at FROM unnest(coalesce(c.seqs, ARRAY(SELECT generate_series(c.first_seq, c.last_seq)))) AS claimed(seq)
  JOIN results r ON r.stream_id = c.stream_id AND r.seq = claimed.seq AND r.attempt = c.attempt
    AND r.outcome = {Outcome.ACCEPTED} LIMIT 1
) r
WHERE c.claimed_at > greatest((SELECT heard_at FROM event_pipeline), clock_timestamp() - interval '1 day')
  AND c.claimed_at <= clock_timestamp() - make_interval(secs => $1) AND NOT t.is_test
ORDER BY c.claimed_at LIMIT 1
"""


async def look_for_silence(conn: Connection, interval_s: float, silence_s: float) -> Silence | None:
    """Whether events are missing, if a look is due and nobody else has it; None where they come."""
    taken = await conn.fetchval(
        """UPDATE event_pipeline SET looked_at = clock_timestamp()
           WHERE looked_at IS NULL OR looked_at <= clock_timestamp() - 0.9 * make_interval(secs => $1) RETURNING true""",
        interval_s,
    )
    if not taken:
        return None
    unheard = await conn.fetchrow(_UNHEARD, silence_s)
    since = None if unheard is None else unheard["at"]
    # An event that came meanwhile has the last word.
    silent = await conn.fetchval(
        """UPDATE event_pipeline SET silent_since = $1::timestamptz
           WHERE $1::timestamptz IS NULL OR heard_at IS NULL OR heard_at < $1::timestamptz RETURNING $1::timestamptz IS NOT NULL""",
        since,
    )
    if unheard is None or not silent:
        return None
    wants: bool = await conn.fetchval(
        "SELECT NOT EXISTS (SELECT FROM canaries WHERE sent_at > clock_timestamp() - make_interval(secs => $1))",
        silence_s,
    )
    return Silence(unheard["at"], unheard["stream_id"], wants)


async def read_pipeline(conn: Connection) -> Pipeline:
    """For `mailrail doctor`."""
    row = await fetch_one(
        conn,
        """SELECT heard_at, silent_since, (SELECT max(sent_at) FROM canaries WHERE seen_at IS NULL) AS canary_at,
             (SELECT count(*) FROM parked_notifications)::integer AS parked,
             (SELECT coalesce(sum(dead), 0) FROM event_queues WHERE read_at > clock_timestamp() - interval '10 minutes')::integer AS dead
           FROM event_pipeline""",
    )
    return Pipeline(**row)


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
