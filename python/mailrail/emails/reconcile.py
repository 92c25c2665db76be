"""What becomes of sends without an answer and without an event: sent again once silence proves that they were not accepted,
or given up as unresolved. The third part of the store of emails; all by the database's clock.

A send is ripe when its lease has been over for the fence: by then SES takes its signature no more, whatever worker still
has it. What silence proves is judged by `model.Watermark`.
"""

from datetime import datetime
from typing import Any

import asyncpg
import orjson

from mailrail import failpoints
from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.fold import CLAIMED_ROWS
from mailrail.emails.model import (
    NEIGHBOUR_SPAN,
    NEIGHBOURS_MAX,
    EventKind,
    Outcome,
    Patience,
    Reconciled,
    State,
    Watermark,
)

# Canaries have a stream of their own that no partition has: week 0 of a kind that sends nothing else.
CANARY_STREAM_ID = 7 << 32 | 1

# Both rows or none, and never waiting: fold and send loop lock them in the other order.
_TAKE_RIPE = """
SELECT f.stream_id, f.shard, f.account_id, f.unknown_since, s.first_seq, s.last_seq,
  s.state = 'cancelled' OR t.is_test OR a.unknown_policy = 'never_resend' AS never_resend,
  t.campaign_id IS NULL AS is_transactional,
  t.identity::jsonb ->> 'configuration_set' AS configuration_set
FROM folds f
JOIN shards s ON s.stream_id = f.stream_id AND s.shard = f.shard
JOIN streams t ON t.stream_id = f.stream_id
JOIN accounts a ON a.id = f.account_id
WHERE f.unknown_since <= clock_timestamp() - $1::interval
  AND (f.reconcile_at IS NULL OR f.reconcile_at <= clock_timestamp())
  -- A restored backup has lost events: its silence proves nothing before a person has looked.
  AND EXISTS (SELECT FROM installation WHERE held_at IS NULL)
ORDER BY f.unknown_since LIMIT 1 FOR UPDATE OF f, s SKIP LOCKED
"""

# The shard's unknown recipients whose fence has passed, among them only those near in time to the oldest: they share its
# neighbours. The state may be older than the newest facts, so the facts are asked.
_RIPE = f"""
SELECT c.seq, c.attempt, c.claimed_at, c.lease_until FROM ({CLAIMED_ROWS}) c
JOIN recipient_state r ON r.stream_id = $1 AND r.seq = c.seq AND r.attempt = c.attempt AND r.state = {State.UNKNOWN}
WHERE c.lease_until <= least(clock_timestamp() - $3::interval, $4::timestamptz + $5::interval)
  AND NOT EXISTS (SELECT FROM events e WHERE e.stream_id = $1 AND e.seq = c.seq)
  AND NOT EXISTS (SELECT FROM results d WHERE d.stream_id = $1 AND d.seq = c.seq
                  AND (d.outcome = {Outcome.ACCEPTED} OR d.attempt = c.attempt AND d.outcome <> {Outcome.UNKNOWN}))
"""

_READ_SPAN = f"""
SELECT count(*) AS recipients, min(claimed_at) AS first_claimed_at, max(lease_until) AS last_lease_until,
  min(lease_until) <= clock_timestamp() - $6::interval AS has_too_old
FROM ({_RIPE}) ripe
"""

_PERMIT = f"""
WITH allowed AS (
  INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at)
  SELECT $1, seq, attempt + 1, $6, $2, now() FROM ({_RIPE}) ripe ON CONFLICT DO NOTHING RETURNING seq
), woken AS (
  UPDATE shards SET wake_at = least(wake_at, now())
  WHERE stream_id = $1 AND shard = $2 AND EXISTS (SELECT FROM allowed)
)
SELECT count(*) FROM allowed
"""

_GIVE_UP = f"""
WITH given_up AS (
  INSERT INTO results (stream_id, seq, attempt, outcome, error, account_id)
  SELECT $1, seq, attempt, {Outcome.UNRESOLVED}, $7, $6 FROM ({_RIPE}) ripe
  WHERE $8::interval IS NULL OR lease_until <= clock_timestamp() - $8::interval
  ON CONFLICT DO NOTHING RETURNING seq
)
SELECT count(*) FROM given_up
"""

# The accepted sends nearest in time to the ripe ones, of all streams with the same configuration set, that are old enough
# to have been heard of. Two thirds of the shortest fence that Amazon is given are 10 minutes (`config.AWS_FENCE_MIN_S`): by then a
# signature is dead, were the clock that made it 5 minutes fast, so a canary that is sent later was sent after SES could last have
# accepted a ripe one.
_READ_WATERMARK = f"""
WITH silence AS (
  SELECT greatest(clock_timestamp() - $4::timestamptz - $5::interval, interval '0') AS within
), backlog AS (
  SELECT coalesce(clock_timestamp() - min(queued_at), interval '0') AS lag,
    (count(*) FILTER (WHERE queued_at <= $4::timestamptz + $6::interval))::integer AS unread
  FROM notification_queue
), near AS (
  SELECT c.stream_id, c.attempt, c.claimed_at, c.first_seq, c.last_seq, c.seqs FROM claims c JOIN streams t USING (stream_id)
  WHERE c.claimed_at BETWEEN $1::timestamptz - $3::interval AND $1::timestamptz + $3::interval
    AND t.identity::jsonb ->> 'configuration_set' IS NOT DISTINCT FROM $2::text
  ORDER BY abs(extract(epoch FROM c.claimed_at - $1::timestamptz)) LIMIT {NEIGHBOURS_MAX}
), sent AS (
  SELECT r.stream_id, r.seq, n.claimed_at FROM near n
  CROSS JOIN LATERAL unnest(coalesce(n.seqs, ARRAY(SELECT generate_series(n.first_seq, n.last_seq)))) AS claimed(seq)
  JOIN results r ON r.stream_id = n.stream_id AND r.seq = claimed.seq AND r.attempt = n.attempt
    AND r.outcome = {Outcome.ACCEPTED} AND r.at <= clock_timestamp() - $5::interval
  ORDER BY abs(extract(epoch FROM r.at - $1::timestamptz)) LIMIT {NEIGHBOURS_MAX}
)
SELECT count(sent.seq) AS neighbours,
  count(sent.seq) FILTER (WHERE EXISTS (
    SELECT FROM events e WHERE e.stream_id = sent.stream_id AND e.seq = sent.seq
      AND e.kind BETWEEN {EventKind.SEND} AND {EventKind.DELIVERY_DELAY}
      AND e.received_at <= sent.claimed_at + silence.within)) AS heard,
  silence.within, backlog.lag, backlog.unread,
  EXISTS (SELECT FROM canaries WHERE configuration_set = coalesce($2::text, '')
          AND sent_at > $4::timestamptz + $6::interval * 2 / 3 AND seen_at IS NOT NULL) AS canary_returned,
  (SELECT count(*) FROM parked_notifications WHERE parked_at >= $1::timestamptz)::integer AS parked,
  (SELECT coalesce(sum(dead), 0) FROM event_queues WHERE read_at > clock_timestamp() - interval '10 minutes')::integer AS dead
FROM silence CROSS JOIN backlog LEFT JOIN sent ON true GROUP BY silence.within, backlog.lag, backlog.unread
"""


async def reconcile_next(conn: Connection, patience: Patience) -> Reconciled | None:
    """Settles the ripe unknowns of the shard that waits longest, in the caller's transaction; None when none is ripe."""
    due = await conn.fetchrow(_TAKE_RIPE, patience.fence)
    if due is None:
        return None
    # As in a fold: a shard's few thousand rows joined with each other, in partitions without statistics.
    await conn.execute("SET LOCAL enable_nestloop = off")
    max_age = patience.mail_max_age if due["is_transactional"] else patience.unknown_max_age
    span = await fetch_one(conn, _READ_SPAN, *_ripe(due, patience), max_age)
    if not span["recipients"]:
        # Their events came since the last fold, or their permits were written and not yet claimed.
        await _look_again(conn, due, "a newer fold", patience)
        return Reconciled(due["stream_id"], due["shard"])
    if due["never_resend"]:
        return await _give_up(conn, due, patience, None)
    watermark = await _read_watermark(conn, due, span["first_claimed_at"], span["last_lease_until"], patience)
    waiting_for = watermark.waiting_for(patience.event_lag_max)
    if waiting_for is None:
        return await _permit(conn, due, patience)
    if span["has_too_old"]:
        return await _give_up(conn, due, patience, max_age)
    await _look_again(conn, due, waiting_for, patience)
    wants_canary = not watermark.canary_returned and await _wants_canary(conn, due["configuration_set"], patience)
    return Reconciled(
        due["stream_id"],
        due["shard"],
        waiting_for=waiting_for,
        canary_for=due["stream_id"] if wants_canary else None,
    )


def _ripe(due: asyncpg.Record, patience: Patience) -> tuple[object, ...]:
    return due["stream_id"], due["shard"], patience.fence, due["unknown_since"], NEIGHBOUR_SPAN


async def _permit(conn: Connection, due: asyncpg.Record, patience: Patience) -> Reconciled:
    permitted: int = await conn.fetchval(_PERMIT, *_ripe(due, patience), due["account_id"])
    failpoints.hit("reconcile.permitted", stream_id=due["stream_id"], shard=due["shard"], recipients=permitted)
    await outbox.append(conn, ShardsReadyV1(due["stream_id"], due["shard"]))
    await _fold_again(conn, due)
    return Reconciled(due["stream_id"], due["shard"], permitted=permitted)


async def _give_up(conn: Connection, due: asyncpg.Record, patience: Patience, older_than: object) -> Reconciled:
    reason = "SES did not say whether it accepted this mail"
    given_up: int = await conn.fetchval(_GIVE_UP, *_ripe(due, patience), due["account_id"], reason, older_than)
    await _fold_again(conn, due)
    return Reconciled(due["stream_id"], due["shard"], given_up=given_up)


async def _fold_again(conn: Connection, due: asyncpg.Record) -> None:
    await conn.execute(
        """UPDATE folds SET due_at = now(), waiting_for = NULL, reconcile_at = clock_timestamp() + interval '1 second'
           WHERE stream_id = $1 AND shard = $2""",
        due["stream_id"],
        due["shard"],
    )


async def _look_again(conn: Connection, due: asyncpg.Record, waiting_for: str, patience: Patience) -> None:
    await conn.execute(
        """UPDATE folds SET due_at = least(due_at, now()), waiting_for = $3, reconcile_at = clock_timestamp() + $4::interval
           WHERE stream_id = $1 AND shard = $2""",
        due["stream_id"],
        due["shard"],
        waiting_for,
        patience.recheck,
    )


async def _read_watermark(
    conn: Connection, due: asyncpg.Record, claimed_at: datetime, lease_until: datetime, patience: Patience
) -> Watermark:
    # This one goes from a few claims into tables of all streams, row by row.
    await conn.execute("SET LOCAL enable_nestloop = on")
    row = await fetch_one(
        conn,
        _READ_WATERMARK,
        claimed_at,
        due["configuration_set"],
        NEIGHBOUR_SPAN,
        lease_until,
        patience.event_lag_max,
        patience.fence,
    )
    await conn.execute("SET LOCAL enable_nestloop = off")
    return Watermark(**row)


# —— canaries ———————————————————————————————————————————————————————————————————————————————————————————————————————————


async def _wants_canary(conn: Connection, configuration_set: str | None, patience: Patience) -> bool:
    """Whether none is on its way."""
    waiting: bool = await conn.fetchval(
        """SELECT EXISTS (SELECT FROM canaries WHERE configuration_set = coalesce($1::text, '') AND seen_at IS NULL
                          AND sent_at > clock_timestamp() - $2::interval)""",
        configuration_set,
        patience.event_lag_max,
    )
    return not waiting


async def insert_canary(conn: Connection, configuration_set: str | None) -> int:
    """Notes that one is about to be sent; returns its number, which its tag carries as seq."""
    number: int = await conn.fetchval(
        "INSERT INTO canaries (configuration_set) VALUES (coalesce($1::text, '')) RETURNING id", configuration_set
    )
    return number


async def read_heard(conn: Connection, number: int) -> tuple[bool, str | None, str | None]:
    """Of a canary: whether it was delivered, what hindered that, and the event of its delivery as SES sent it."""
    row = await fetch_one(
        conn, "SELECT delivered_at IS NOT NULL AS delivered, failure, event FROM canaries WHERE id = $1", number
    )
    return row["delivered"], row["failure"], row["event"]


async def read_identity(conn: Connection, stream_id: int) -> dict[str, Any]:
    """Who sends the stream, as the core takes it."""
    identity: str = await conn.fetchval("SELECT identity FROM streams WHERE stream_id = $1", stream_id)
    found: dict[str, Any] = orjson.loads(identity)
    return found


async def drop_old_canaries(conn: Connection, patience: Patience) -> None:
    """Forgets those that nothing can wait for any more."""
    await conn.execute(
        "DELETE FROM canaries WHERE sent_at < clock_timestamp() - 2 * ($1::interval + $2::interval)",
        patience.fence,
        patience.unknown_max_age,
    )
