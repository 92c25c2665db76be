"""From facts to states, a shard at a time: rewrites recipient_state and its counts, and settles the money.

The rule is `model.fold`; a property test holds the two together.
"""

from collections.abc import Callable, Sequence

import asyncpg

from mailrail import failpoints
from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.model import EXPIRY, EventKind, Outcome, ShardFold, ShardUnfoldable, State
from mailrail.wallet import service as wallet
from mailrail.wallet.model import Settlement

# Between two folds of a shard, so that a stream of events does not rewrite it again and again.
FOLD_INTERVAL_S = 2.0
# A shard whose fold failed, and with it would fail again at once.
POSTPONED_S = 60.0
# What trying again does not mend.
UNFOLDABLE = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)

_OPEN = "(0, 1, 2, 5)"

_TAKE_FOLD = """
SELECT f.stream_id, f.shard, f.account_id, f.closed_at IS NOT NULL AS was_closed, s.first_seq, s.last_seq,
  h.id AS hold_id, t.bounce_grace, t.campaign_id IS NULL AS is_transactional
FROM folds f
JOIN shards s ON s.stream_id = f.stream_id AND s.shard = f.shard
JOIN streams t ON t.stream_id = f.stream_id
LEFT JOIN LATERAL (SELECT min(id) AS id FROM holds
                   WHERE stream_id = f.stream_id AND t.campaign_id IS NOT NULL) h ON true
WHERE f.due_at <= clock_timestamp() ORDER BY f.due_at LIMIT 1 FOR UPDATE OF f SKIP LOCKED
"""

# A cancelled shard speaks for everybody in it, also for those whom no claim ever named: attempt 0.
_REWRITE_STATES = f"""
WITH this AS MATERIALIZED (
  SELECT epoch, coalesce(lease_until > clock_timestamp(), false) AS leased, state = 'cancelled' AS cancelled, next_seq
  FROM shards WHERE stream_id = $1 AND shard = $2
), claimed AS (
  SELECT seq, max(attempt) AS attempt, bool_or(live) AS live FROM (
    SELECT generate_series(c.first_seq, c.last_seq) AS seq, c.attempt, c.epoch = s.epoch AND s.leased AS live
    FROM claims c, this s WHERE c.stream_id = $1 AND c.shard = $2 AND c.seqs IS NULL
    UNION ALL
    SELECT unnest(c.seqs), c.attempt, c.epoch = s.epoch AND s.leased
    FROM claims c, this s WHERE c.stream_id = $1 AND c.shard = $2 AND c.seqs IS NOT NULL
    UNION ALL
    SELECT generate_series(s.next_seq, $4), 0, false FROM this s WHERE s.cancelled
  ) every_claim GROUP BY seq
), permitted AS (
  SELECT seq, max(attempt) AS attempt FROM permits
  WHERE stream_id = $1 AND shard = $2 AND claim_id IS NULL GROUP BY seq
), outcomes AS (
  SELECT seq, min(at) FILTER (WHERE outcome = {Outcome.ACCEPTED}) AS accepted_at,
    max(ses_message_id) AS ses_message_id, max(at) AS at,
    -- The highest attempt and its highest outcome in one number.
    max(attempt::integer << 8 | outcome) AS last,
    (array_agg(error ORDER BY attempt DESC, outcome DESC))[1] AS error
  FROM results WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 GROUP BY seq
), heard AS (
  SELECT seq, bit_or(1 << kind) AS kinds, max(ses_message_id) AS ses_message_id, min(received_at) AS heard_at,
    max(coalesce(at, received_at)) FILTER (WHERE kind BETWEEN {EventKind.DELIVERY} AND {EventKind.RENDERING_FAILURE}) AS at,
    max(detail) FILTER (WHERE kind BETWEEN {EventKind.BOUNCE_PERMANENT} AND {EventKind.RENDERING_FAILURE}) AS detail
  FROM events WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 GROUP BY seq
), engaged AS (
  SELECT seq, count(*) FILTER (WHERE kind = {EventKind.OPEN} AND machine IS NULL) AS opens,
    count(*) FILTER (WHERE kind = {EventKind.CLICK} AND machine IS NULL) AS clicks,
    count(*) FILTER (WHERE kind = {EventKind.OPEN} AND machine IS NOT NULL) AS machine_opens,
    count(*) FILTER (WHERE kind = {EventKind.CLICK} AND machine IS NOT NULL) AS machine_clicks
  FROM engagement($1, $3, $4) GROUP BY seq
), judged AS (
  SELECT c.seq, c.attempt, o.error, o.last & 255 AS outcome, h.detail, coalesce(h.kinds, 0) AS kinds,
    coalesce(o.ses_message_id, h.ses_message_id) AS ses_message_id, coalesce(h.at, o.at) AS at,
    least(o.accepted_at, h.heard_at) AS proven_at, coalesce(g.opens, 0) AS opens, coalesce(g.clicks, 0) AS clicks,
    coalesce(g.machine_opens, 0) AS machine_opens, coalesce(g.machine_clicks, 0) AS machine_clicks,
    CASE
      WHEN h.kinds & {1 << EventKind.REJECT | 1 << EventKind.RENDERING_FAILURE} <> 0 THEN {State.REJECTED}
      WHEN h.kinds & {1 << EventKind.BOUNCE_PERMANENT} <> 0 THEN {State.BOUNCED}
      WHEN h.kinds & {1 << EventKind.DELIVERY} <> 0 THEN {State.DELIVERED}
      WHEN h.kinds & {1 << EventKind.BOUNCE_TRANSIENT} <> 0 THEN {State.SOFT_BOUNCED}
      WHEN least(o.accepted_at, h.heard_at) <= now() - $6::interval THEN {State.EXPIRED}
      WHEN o.accepted_at IS NOT NULL OR h.kinds <> 0 THEN {State.ACCEPTED}
      WHEN p.attempt > c.attempt OR c.attempt = 0
        THEN CASE WHEN s.cancelled THEN {State.CANCELLED} ELSE {State.PENDING} END
      WHEN o.last IS NULL OR o.last >> 8 <> c.attempt
        THEN CASE WHEN c.live THEN {State.SUBMITTING} ELSE {State.UNKNOWN} END
      ELSE CASE o.last & 255
        WHEN {Outcome.FAILED} THEN {State.FAILED}
        WHEN {Outcome.UNKNOWN} THEN {State.UNKNOWN}
        WHEN {Outcome.UNRESOLVED} THEN {State.UNRESOLVED}
        WHEN {Outcome.CANCELLED} THEN {State.CANCELLED}
        WHEN {Outcome.SKIPPED_SUPPRESSED} THEN {State.SKIPPED}
        WHEN {Outcome.SKIPPED_UNSUBSCRIBED} THEN {State.SKIPPED}
        WHEN {Outcome.SKIPPED_ERASED} THEN {State.SKIPPED}
        WHEN {Outcome.SKIPPED_ADDRESS_CHANGED} THEN {State.SKIPPED}
        ELSE CASE WHEN s.cancelled THEN {State.CANCELLED} ELSE {State.PENDING} END END
    END AS state
  FROM claimed c CROSS JOIN this s
  LEFT JOIN outcomes o USING (seq) LEFT JOIN heard h USING (seq) LEFT JOIN permitted p USING (seq)
  LEFT JOIN engaged g USING (seq)
), told AS (
  SELECT seq, state::smallint AS state, attempt,
    CASE WHEN state IN ({State.SOFT_BOUNCED}, {State.BOUNCED}, {State.REJECTED}) THEN detail
         WHEN state = {State.EXPIRED} THEN 'no word from SES within 72 hours'
         WHEN state = {State.CANCELLED} THEN CASE outcome WHEN {Outcome.CANCELLED} THEN error ELSE 'the campaign was cancelled' END
         WHEN state IN ({State.ACCEPTED}, {State.DELIVERED}) THEN NULL
         ELSE CASE outcome WHEN {Outcome.SKIPPED_SUPPRESSED} THEN coalesce(error, 'suppressed')
           WHEN {Outcome.SKIPPED_UNSUBSCRIBED} THEN 'unsubscribed' WHEN {Outcome.SKIPPED_ERASED} THEN 'erased'
           WHEN {Outcome.SKIPPED_ADDRESS_CHANGED} THEN 'address_changed' ELSE error END END AS reason,
    -- An accepted mail expires by this time.
    ses_message_id, CASE WHEN state = {State.ACCEPTED} THEN proven_at ELSE at END AS at,
    opens::integer AS opens, clicks::integer AS clicks, machine_opens::integer AS machine_opens,
    machine_clicks::integer AS machine_clicks,
    kinds & {1 << EventKind.COMPLAINT} <> 0 AS complained, kinds & {1 << EventKind.UNSUBSCRIBE} <> 0 AS unsubscribed
  FROM judged
), compared AS MATERIALIZED (
  SELECT t.*, r.seq IS NOT NULL AS known FROM told t
  LEFT JOIN recipient_state r ON r.stream_id = $1 AND r.seq BETWEEN $3 AND $4 AND r.seq = t.seq
  WHERE r.seq IS NULL OR (r.state, r.attempt, r.reason, r.ses_message_id, r.opens, r.clicks, r.machine_opens,
    r.machine_clicks, r.complained, r.unsubscribed) IS DISTINCT FROM (t.state, t.attempt, t.reason, t.ses_message_id, t.opens,
    t.clicks, t.machine_opens, t.machine_clicks, t.complained, t.unsubscribed)
), changed AS (
  UPDATE recipient_state r SET state = c.state, attempt = c.attempt, reason = c.reason,
    ses_message_id = c.ses_message_id, at = c.at, opens = c.opens, clicks = c.clicks,
    machine_opens = c.machine_opens, machine_clicks = c.machine_clicks, complained = c.complained, unsubscribed = c.unsubscribed
  FROM compared c WHERE c.known AND r.stream_id = $1 AND r.seq BETWEEN $3 AND $4 AND r.seq = c.seq
)
INSERT INTO recipient_state
  (stream_id, seq, account_id, shard, state, attempt, reason, ses_message_id, at, opens, clicks, machine_opens, machine_clicks,
   complained, unsubscribed)
SELECT $1, seq, $5, $2, state, attempt, reason, ses_message_id, at, opens, clicks, machine_opens, machine_clicks,
  complained, unsubscribed
FROM compared WHERE NOT known
"""

# Charged if and only if a Delivery is among the events, whatever else is. Everything else that is final is released:
# a bounce only after a grace, because the Delivery that it contradicts may be late. The newest hold that covers the
# recipient is the one that settles: the permit's that a retry named, else its own, else the campaign's.
_SETTLE = f"""
WITH delivered AS (
  SELECT seq FROM events WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 AND kind = {EventKind.DELIVERY} GROUP BY seq
), young_bounce AS (
  SELECT seq FROM events WHERE stream_id = $1 AND seq BETWEEN $3 AND $4
    AND kind IN ({EventKind.BOUNCE_PERMANENT}, {EventKind.BOUNCE_TRANSIENT}) AND received_at > now() - $6::interval
  GROUP BY seq
), retried AS (
  SELECT seq, max(hold_id) AS hold_id FROM permits
  WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 AND hold_id IS NOT NULL GROUP BY seq
), due AS (
  SELECT r.seq, coalesce(p.hold_id, a.hold_id, $5) AS hold_id, d.seq IS NOT NULL AS delivered
  FROM recipient_state r
  -- A campaign's recipients have no hold of their own, and its audience need not be read.
  LEFT JOIN (SELECT seq, hold_id FROM audience WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 AND $5::bigint IS NULL) a USING (seq)
  LEFT JOIN delivered d USING (seq) LEFT JOIN young_bounce y USING (seq) LEFT JOIN retried p USING (seq)
  WHERE r.stream_id = $1 AND r.seq BETWEEN $3 AND $4 AND r.state NOT IN {_OPEN}
    AND (d.seq IS NOT NULL OR y.seq IS NULL OR r.state NOT IN ({State.SOFT_BOUNCED}, {State.BOUNCED}))
), settled AS (
  INSERT INTO settlements (stream_id, seq, hold_id, account_id, kind)
  SELECT $1, d.seq, d.hold_id, $2, CASE WHEN d.delivered THEN 'captured' ELSE 'released' END
  FROM due d LEFT JOIN settlements s
    ON s.stream_id = $1 AND s.seq BETWEEN $3 AND $4 AND s.seq = d.seq AND s.hold_id = d.hold_id
  WHERE d.hold_id IS NOT NULL AND s.seq IS NULL
  ON CONFLICT DO NOTHING RETURNING seq, hold_id, kind
)
SELECT hold_id, count(*) FILTER (WHERE kind = 'captured') AS captured,
  count(*) FILTER (WHERE kind = 'released') AS released, min(seq) AS first_seq
FROM settled GROUP BY hold_id ORDER BY hold_id
"""

_REWRITE_COUNTS = f"""
WITH counted AS (
  SELECT state, count(*)::integer AS recipients FROM recipient_state
  WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 GROUP BY state
), gone AS (
  DELETE FROM state_counts c WHERE c.stream_id = $1 AND c.shard = $2
    AND NOT EXISTS (SELECT FROM counted n WHERE n.state = c.state)
), kept AS (
  INSERT INTO state_counts AS c (stream_id, shard, state, account_id, recipients)
  SELECT $1, $2, state, $5, recipients FROM counted
  ON CONFLICT (stream_id, shard, state) DO UPDATE SET recipients = excluded.recipients
  WHERE c.recipients <> excluded.recipients
), flags AS (
  SELECT count(*) FILTER (WHERE opens > 0)::integer AS opened, count(*) FILTER (WHERE clicks > 0)::integer AS clicked,
    count(*) FILTER (WHERE opens = 0 AND machine_opens > 0)::integer AS machine_opened,
    count(*) FILTER (WHERE clicks = 0 AND machine_clicks > 0)::integer AS machine_clicked,
    count(*) FILTER (WHERE complained)::integer AS complained,
    count(*) FILTER (WHERE unsubscribed)::integer AS unsubscribed,
    min(at) FILTER (WHERE state = {State.ACCEPTED}) AS accepted_at
  FROM recipient_state WHERE stream_id = $1 AND seq BETWEEN $3 AND $4
), open AS (
  SELECT ($9::integer - coalesce(sum(recipients) FILTER (WHERE state NOT IN {_OPEN}), 0))::integer AS open FROM counted
), waiting AS (
  -- The next moment at which this shard changes by itself: a bounce's grace or an accepted mail's expiry ends.
  -- Not of those without a state: a restored database gets events of mail that it never claimed.
  SELECT min(b.received_at) + $6::interval AS due_at
  FROM events b JOIN recipient_state r ON r.stream_id = $1 AND r.seq BETWEEN $3 AND $4 AND r.seq = b.seq
  WHERE b.stream_id = $1 AND b.seq BETWEEN $3 AND $4
    AND b.kind IN ({EventKind.BOUNCE_PERMANENT}, {EventKind.BOUNCE_TRANSIENT})
    AND NOT EXISTS (SELECT FROM settlements s WHERE s.stream_id = $1 AND s.seq = b.seq)
)
UPDATE folds f SET folded_at = clock_timestamp(), open = o.open, opened = g.opened, clicked = g.clicked,
  machine_opened = g.machine_opened, machine_clicked = g.machine_clicked,
  complained = g.complained, unsubscribed = g.unsubscribed,
  -- Never at once: a shard that a fold does not change would come again before all others.
  due_at = (SELECT greatest(n.due_at, clock_timestamp() + interval '{FOLD_INTERVAL_S} seconds')
            FROM (SELECT least(CASE WHEN $8 THEN w.due_at END, g.accepted_at + $7::interval) AS due_at) n
            WHERE n.due_at IS NOT NULL),
  closed_at = CASE WHEN o.open = 0 THEN coalesce(f.closed_at, clock_timestamp()) END
FROM open o, flags g, waiting w
WHERE f.stream_id = $1 AND f.shard = $2
RETURNING f.open, coalesce((SELECT recipients FROM counted WHERE state = {State.UNKNOWN}), 0) AS unknown,
  f.unknown_since IS NOT NULL AS had_unknown, f.clicked + f.machine_clicked > 0 AS has_clicks
"""

# Of a campaign, whose links are the same in all its mails. SES's own clicks name an address and no number.
_COUNT_LINKS = f"""
INSERT INTO link_counts AS l
  (stream_id, shard, n, account_id, clicked, clicks, machine_clicks, first_at, last_at)
SELECT $1, $2, detail::integer, $5, count(DISTINCT seq) FILTER (WHERE machine IS NULL),
  count(*) FILTER (WHERE machine IS NULL), count(*) FILTER (WHERE machine IS NOT NULL),
  min(at) FILTER (WHERE machine IS NULL), max(at) FILTER (WHERE machine IS NULL)
FROM engagement($1, $3, $4) WHERE kind = {EventKind.CLICK} AND detail ~ '^[0-9]{{1,9}}$' GROUP BY detail::integer
ON CONFLICT (stream_id, shard, n) DO UPDATE SET clicked = excluded.clicked, clicks = excluded.clicks,
  machine_clicks = excluded.machine_clicks, first_at = excluded.first_at, last_at = excluded.last_at
WHERE (l.clicked, l.clicks, l.machine_clicks, l.first_at, l.last_at) IS DISTINCT FROM
  (excluded.clicked, excluded.clicks, excluded.machine_clicks, excluded.first_at, excluded.last_at)
"""

# Every (seq, attempt) that some claim of the shard names, with the end of that claim's lease: after it no call of the
# claim was begun. Workers of the version before 0002 did not write it; their leases ended within the hour.
CLAIMED_ROWS = """
SELECT generate_series(first_seq, last_seq) AS seq, attempt, claimed_at,
  coalesce(lease_until, claimed_at + interval '1 hour') AS lease_until
FROM claims WHERE stream_id = $1 AND shard = $2 AND seqs IS NULL
UNION ALL
SELECT unnest(seqs), attempt, claimed_at, coalesce(lease_until, claimed_at + interval '1 hour')
FROM claims WHERE stream_id = $1 AND shard = $2 AND seqs IS NOT NULL
"""

_NOTE_UNKNOWN = f"""
UPDATE folds SET unknown_since = (
  SELECT min(c.lease_until) FROM ({CLAIMED_ROWS}) c
  JOIN recipient_state r ON r.stream_id = $1 AND r.seq = c.seq AND r.attempt = c.attempt
  WHERE r.seq BETWEEN $3 AND $4 AND r.state = {State.UNKNOWN})
WHERE stream_id = $1 AND shard = $2
"""

# Only who was tried twice can have been accepted twice, and hardly anybody is: one look at an index tells.
_COUNT_DUPLICATES = f"""
UPDATE folds SET duplicates = (
  SELECT count(*) FROM (
    SELECT seq FROM (
      SELECT seq, attempt FROM results WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 AND outcome = {Outcome.ACCEPTED}
      UNION
      SELECT seq, attempt FROM events WHERE stream_id = $1 AND seq BETWEEN $3 AND $4 AND attempt > 0
    ) accepted GROUP BY seq HAVING count(*) > 1) twice)
WHERE stream_id = $1 AND shard = $2 AND EXISTS (SELECT FROM permits WHERE stream_id = $1 AND seq BETWEEN $3 AND $4)
"""


async def fold_next(conn: Connection, begin: Callable[[], object] = lambda: None) -> ShardFold | None:
    """Folds the shard that waits longest, in the caller's transaction; None when none is due. Calls `begin` once there is one.

    The lock on the fold's row comes first: whatever is committed before it is seen, and whatever comes after marks the
    shard due again. Raises ShardUnfoldable where the facts of that one shard break a rule of the database.
    """
    due = await conn.fetchrow(_TAKE_FOLD)
    if due is None:
        return None
    begin()
    try:
        return await _fold(conn, due)
    except UNFOLDABLE as error:
        raise ShardUnfoldable(due["stream_id"], due["shard"]) from error


async def make_due(conn: Connection, shards: Sequence[tuple[int, int]]) -> None:
    """Asks for a fold of these shards, (stream_id, shard), at once; in order against deadlocks, in the caller's transaction.

    Locks first and writes with the next statement. In a statement that does both, the locking SELECT may lock a row and not
    return it, if it waited for a writer who was rolled back (seen in PostgreSQL 18.6, with rows of two partitions), and that
    fold would never come.
    """
    stream_ids, numbers = [stream_id for stream_id, _ in shards], [shard for _, shard in shards]
    await conn.execute(
        """SELECT FROM folds f JOIN unnest($1::bigint[], $2::integer[]) AS t(stream_id, shard) USING (stream_id, shard)
           ORDER BY f.stream_id, f.shard FOR UPDATE OF f""",
        stream_ids,
        numbers,
    )
    await conn.execute(
        """UPDATE folds f SET due_at = least(f.due_at, now())
           FROM unnest($1::bigint[], $2::integer[]) AS t(stream_id, shard)
           WHERE f.stream_id = t.stream_id AND f.shard = t.shard""",
        stream_ids,
        numbers,
    )


async def postpone(conn: Connection, stream_id: int, shard: int) -> None:
    """Folds the shard later, so that others have their turn first."""
    await conn.execute(
        "UPDATE folds SET due_at = clock_timestamp() + make_interval(secs => $3) WHERE stream_id = $1 AND shard = $2",
        stream_id,
        shard,
        POSTPONED_S,
    )


async def _fold(conn: Connection, due: asyncpg.Record) -> ShardFold:
    stream_id, shard, account_id, hold_id = due["stream_id"], due["shard"], due["account_id"], due["hold_id"]
    span = (due["first_seq"], due["last_seq"])
    # Every input below is one shard's few thousand rows. Partitions of this week have no statistics yet, and a planner
    # that believes in one row would join them row by row, each against all.
    await conn.execute("SET LOCAL enable_nestloop = off")
    await conn.execute(_REWRITE_STATES, stream_id, shard, *span, account_id, EXPIRY)
    settled = await conn.fetch(_SETTLE, stream_id, account_id, *span, hold_id, due["bounce_grace"])
    recipients = due["last_seq"] - due["first_seq"] + 1
    if due["is_transactional"]:
        recipients = await _count_recipients(conn, stream_id, *span)
    counts = await fetch_one(
        conn,
        _REWRITE_COUNTS,
        stream_id,
        shard,
        *span,
        account_id,
        due["bounce_grace"],
        EXPIRY,
        hold_id is not None or due["is_transactional"],
        recipients,
    )
    if counts["unknown"] or counts["had_unknown"]:
        await conn.execute(_NOTE_UNKNOWN, stream_id, shard, *span)
    if counts["has_clicks"] and not due["is_transactional"]:
        await conn.execute(_COUNT_LINKS, stream_id, shard, *span, account_id)
    await conn.execute(_COUNT_DUPLICATES, stream_id, shard, *span)
    failpoints.hit("fold.rewritten", stream_id=stream_id, shard=shard)
    # A recipient settles once per hold, so its number names this batch for ever.
    batches = [
        Settlement(row["hold_id"], row["captured"], row["released"], f"{row['hold_id']}:{row['first_seq']}")
        for row in settled
    ]
    if batches:
        await wallet.settle_all(conn, account_id, batches)
    failpoints.hit("fold.settled", stream_id=stream_id, shard=shard)
    open_count = counts["open"]
    return ShardFold(stream_id, shard, account_id, open_count, open_count == 0 and not due["was_closed"])


async def _count_recipients(conn: Connection, stream_id: int, first_seq: int, last_seq: int) -> int:
    """Of a range whose numbers are not all given out."""
    found: int = await conn.fetchval(
        "SELECT count(*) FROM audience WHERE stream_id = $1 AND seq BETWEEN $2 AND $3", stream_id, first_seq, last_seq
    )
    return found


async def count_unfinished(conn: Connection, stream_id: int) -> int:
    """Recipients of the stream without a final state, counted one by one over the whole audience."""
    unfinished: int = await conn.fetchval(
        f"""SELECT count(*) FROM audience a LEFT JOIN recipient_state r USING (stream_id, seq)
            WHERE a.stream_id = $1 AND (r.state IS NULL OR r.state IN {_OPEN})""",
        stream_id,
    )
    return unfinished


async def is_every_shard_closed(conn: Connection, stream_id: int) -> bool:
    """Whether the last fold of each shard found nothing open."""
    closed: bool = await conn.fetchval(
        "SELECT NOT EXISTS (SELECT FROM folds WHERE stream_id = $1 AND closed_at IS NULL)", stream_id
    )
    return closed
