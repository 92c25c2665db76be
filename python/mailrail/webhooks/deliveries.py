"""The second half of the store of webhooks: every statement on webhook_messages, webhook_deliveries and webhook_attempts.

Messages of what happened are written by triggers (migration 0010); here are tests, replays, the log and the dispatcher's work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from mailrail.db.pool import Connection, fetch_one
from mailrail.webhooks.model import (
    FAILING_MAX,
    KEPT,
    TEST_TYPE,
    TOTAL_CAP,
    Attempt,
    Delivery,
    DeliveryFilter,
    DeliveryNotFound,
    DeliveryStatus,
    Message,
    ReplayRange,
)

_DELIVERY = "d.id, d.endpoint_id, d.message_id, d.type, d.status, d.attempts, d.due_at, d.created_at, d.ended_at"
_ATTEMPT = "a.attempt, a.at, a.duration_ms, a.http_status, a.error, a.answer"
_MESSAGE = "m.id, m.type, m.at, m.stream_id, m.seq, m.campaign_id, m.contact_id, m.list_id, m.domain_id, m.facts"
# A dispatcher that died gives up what it had after this time, which outlasts any request.
_LEASE = "interval '60 seconds'"
SWEEP_ROWS = 5000

# —— the log ———————————————————————————————————————————————————————————————————————————————————————————————————————————

_FILTERED = """d.account_id = $1 AND d.endpoint_id = $2 AND ($3::text IS NULL OR d.status = $3)
AND ($4::text IS NULL OR d.type = $4)"""


async def read_page(
    conn: Connection,
    account_id: int,
    endpoint_id: int,
    wanted: DeliveryFilter,
    limit: int,
    offset: int,
    after_id: int | None,
) -> list[Delivery]:
    """Newest first."""
    rows = await conn.fetch(
        f"""SELECT {_DELIVERY} FROM webhook_deliveries d
            WHERE {_FILTERED} AND ($5::bigint IS NULL OR d.id < $5) ORDER BY d.id DESC LIMIT $6 OFFSET $7""",
        account_id,
        endpoint_id,
        wanted.status,
        wanted.type,
        after_id,
        limit,
        offset,
    )
    return [Delivery(**row) for row in rows]


async def count(conn: Connection, account_id: int, endpoint_id: int, wanted: DeliveryFilter) -> int:
    """How many there are, counted to one beyond TOTAL_CAP."""
    total: int = await conn.fetchval(
        f"SELECT count(*) FROM (SELECT FROM webhook_deliveries d WHERE {_FILTERED} LIMIT {TOTAL_CAP + 1}) counted",
        account_id,
        endpoint_id,
        wanted.status,
        wanted.type,
    )
    return total


async def read_delivery(
    conn: Connection, account_id: int, delivery_id: int
) -> tuple[Delivery, Message, Sequence[Attempt]]:
    """With what it says and how its attempts went, oldest first. Raises DeliveryNotFound."""
    # In one statement, so that the delivery and its attempts are of the same moment.
    rows = await conn.fetch(
        f"""SELECT {_DELIVERY}, {_ATTEMPT} FROM webhook_deliveries d
            LEFT JOIN webhook_attempts a ON a.delivery_id = d.id AND a.account_id = d.account_id
            WHERE d.id = $1 AND d.account_id = $2 ORDER BY a.attempt""",
        delivery_id,
        account_id,
    )
    if not rows:
        raise DeliveryNotFound
    delivery = Delivery(**{one.name: rows[0][one.name] for one in fields(Delivery)})
    attempts = [Attempt(**{one.name: row[one.name] for one in fields(Attempt)}) for row in rows if row["attempt"]]
    message = await fetch_one(
        conn,
        f"SELECT {_MESSAGE} FROM webhook_messages m WHERE m.id = $1 AND m.account_id = $2",
        delivery.message_id,
        account_id,
    )
    return delivery, Message(**message), attempts


# —— tests and replays —————————————————————————————————————————————————————————————————————————————————————————————————


async def insert_test(conn: Connection, account_id: int, endpoint_id: int) -> Delivery:
    """A message that says nothing, to this endpoint alone."""
    row = await fetch_one(
        conn,
        f"""WITH m AS (
              INSERT INTO webhook_messages (account_id, type, at) VALUES ($1, $3, now()) RETURNING id, type
            )
            INSERT INTO webhook_deliveries AS d (account_id, endpoint_id, message_id, type, due_at)
            SELECT $1, $2, id, type, now() FROM m RETURNING {_DELIVERY}""",
        account_id,
        endpoint_id,
        TEST_TYPE,
    )
    return Delivery(**row)


async def replay(conn: Connection, account_id: int, delivery_id: int) -> Delivery:
    """Due now, and at the begin of its schedule, however it ended. Raises DeliveryNotFound."""
    row = await conn.fetchrow(
        f"""UPDATE webhook_deliveries d SET status = 'pending', step = 0, due_at = now(), ended_at = NULL
            WHERE d.id = $1 AND d.account_id = $2 RETURNING {_DELIVERY}""",
        delivery_id,
        account_id,
    )
    if row is None:
        raise DeliveryNotFound
    return Delivery(**row)


async def replay_range(
    conn: Connection, account_id: int, endpoint_id: int, wanted: ReplayRange, most: int
) -> tuple[int, datetime | None]:
    """The same for up to `most` of an endpoint's deliveries, oldest first. How many, and the moment from which more wait, or
    None. Those that still have tries before them are left to those.
    """
    row = await fetch_one(
        conn,
        """WITH found AS (
             SELECT id, created_at, row_number() OVER (ORDER BY created_at, id) AS place FROM (
               SELECT id, created_at FROM webhook_deliveries
               WHERE account_id = $1 AND endpoint_id = $2 AND created_at >= $3
                 AND ($4::timestamptz IS NULL OR created_at < $4)
                 AND status <> 'pending' AND ($5::text[] IS NULL OR type = ANY($5))
                 AND ($6::text IS NULL OR status = $6)
               ORDER BY created_at, id LIMIT $7 + 1) ordered
           ), replayed AS (
             UPDATE webhook_deliveries d SET status = 'pending', step = 0, due_at = now(), ended_at = NULL
             FROM found f WHERE d.id = f.id AND f.place <= $7 RETURNING d.id
           )
           SELECT (SELECT count(*) FROM replayed) AS replayed,
             (SELECT created_at FROM found WHERE place = $7 + 1) AS more_from""",
        account_id,
        endpoint_id,
        wanted.since,
        wanted.until,
        wanted.types,
        wanted.status,
        most,
    )
    return row["replayed"], row["more_from"]


# —— the dispatcher ————————————————————————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Leased:
    """A delivery that this process is to try now."""

    delivery_id: int
    account_id: int
    endpoint_id: int
    attempt: int
    step: int
    url: str
    secret: bytes
    previous_secret: bytes | None
    previous_until: datetime | None
    leased_at: datetime
    message: Message


# Endpoints are found by leaping from one to the next in the index, so that a long queue costs no more than a short one. Each
# gets its share of what is free; whose turn it is is drawn by lot. A restored backup tells nobody anything until it is released.
_TAKE_DUE = f"""
WITH RECURSIVE waiting AS (
  (SELECT endpoint_id FROM webhook_deliveries WHERE due_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
  UNION ALL
  SELECT (SELECT d.endpoint_id FROM webhook_deliveries d
          WHERE d.due_at IS NOT NULL AND d.endpoint_id > w.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
  FROM waiting w WHERE w.endpoint_id IS NOT NULL
), ready AS (
  SELECT e.id, coalesce(lane.room, $3) AS room
  FROM waiting w JOIN webhook_endpoints e ON e.id = w.endpoint_id AND e.is_active
  LEFT JOIN unnest($1::bigint[], $2::integer[]) AS lane (endpoint_id, room) ON lane.endpoint_id = e.id
  WHERE coalesce(lane.room, $3) > 0 AND NOT EXISTS (SELECT FROM installation WHERE held_at IS NOT NULL)
    AND EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = e.id AND d.due_at <= clock_timestamp())
), served AS (
  SELECT id, least(room, greatest(1, $4::integer / count(*) OVER ())) AS most FROM ready ORDER BY random() LIMIT $4
), taken AS MATERIALIZED (
  SELECT due.id FROM served s CROSS JOIN LATERAL (
    SELECT d.id FROM webhook_deliveries d WHERE d.endpoint_id = s.id AND d.due_at <= clock_timestamp()
    ORDER BY d.due_at LIMIT s.most FOR UPDATE SKIP LOCKED) due
), leased AS (
  UPDATE webhook_deliveries d SET due_at = clock_timestamp() + {_LEASE}, attempts = d.attempts + 1
  FROM taken t WHERE d.id = t.id
  RETURNING d.id, d.account_id, d.endpoint_id, d.message_id, d.attempts, d.step
)
SELECT l.id AS delivery_id, l.account_id, l.endpoint_id, l.attempts AS attempt, l.step, e.url, e.secret, e.previous_secret,
  e.previous_until, clock_timestamp() AS leased_at, {_MESSAGE}
FROM leased l JOIN webhook_endpoints e ON e.id = l.endpoint_id JOIN webhook_messages m ON m.id = l.message_id
"""


async def take_due(conn: Connection, rooms: Mapping[int, int], room_of_others: int, free: int) -> list[Leased]:
    """Leases up to `free` deliveries that are due, of each endpoint as many as there is room for."""
    rows = await conn.fetch(_TAKE_DUE, list(rooms), list(rooms.values()), room_of_others, free)
    return [
        Leased(
            **{name: row[name] for name in Leased.__slots__ if name != "message"},
            message=Message(**{name: row[name] for name in Message.__slots__}),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Tried:
    """What a try came to: `pause_s` until the next one; None where there is none, which `status` explains."""

    delivery_id: int
    endpoint_id: int
    attempt: int
    at: datetime
    duration_ms: int
    http_status: int | None
    error: str | None
    answer: str | None
    status: DeliveryStatus
    pause_s: float | None
    is_gone: bool


# A try that came so late that another dispatcher has the delivery is logged, and changes no more.
_SETTLE = """
WITH tried AS (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::timestamptz[], $5::integer[], $6::smallint[],
                       $7::text[], $8::text[], $9::text[], $10::double precision[])
    AS t (delivery_id, endpoint_id, attempt, at, duration_ms, http_status, error, answer, status, pause_s)
), logged AS (
  INSERT INTO webhook_attempts (delivery_id, attempt, account_id, at, duration_ms, http_status, error, answer)
  SELECT t.delivery_id, t.attempt, d.account_id, t.at, t.duration_ms, t.http_status, t.error, t.answer
  FROM tried t JOIN webhook_deliveries d ON d.id = t.delivery_id
  ON CONFLICT DO NOTHING
), settled AS (
  UPDATE webhook_deliveries d SET status = t.status, step = d.step + 1,
    due_at = clock_timestamp() + make_interval(secs => t.pause_s),
    ended_at = CASE WHEN t.status <> 'pending' THEN clock_timestamp() END
  FROM tried t WHERE d.id = t.delivery_id AND d.attempts = t.attempt AND d.status = 'pending'
), health AS (
  SELECT endpoint_id, bool_or(status = 'delivered') AS is_well FROM tried GROUP BY endpoint_id
)
UPDATE webhook_endpoints e SET failing_since = CASE WHEN NOT h.is_well THEN clock_timestamp() END
FROM health h WHERE e.id = h.endpoint_id AND (e.failing_since IS NULL) <> h.is_well
"""


async def settle(conn: Connection, tried: Sequence[Tried]) -> None:
    """Writes down what a batch of tries came to."""
    await conn.execute(
        _SETTLE,
        [one.delivery_id for one in tried],
        [one.endpoint_id for one in tried],
        [one.attempt for one in tried],
        [one.at for one in tried],
        [one.duration_ms for one in tried],
        [one.http_status for one in tried],
        [one.error for one in tried],
        [one.answer for one in tried],
        [one.status for one in tried],
        [one.pause_s for one in tried],
    )


async def disable(conn: Connection, failed: Sequence[int], gone: Sequence[int]) -> list[int]:
    """Switches off the endpoints that are gone, and those that just failed again after failing for FAILING_MAX; returns
    them. What waits for them has failed, and can be replayed.
    """
    rows = await conn.fetch(
        """WITH disabled AS (
             UPDATE webhook_endpoints e SET is_active = false, disabled_at = now(), updated_at = now(),
               disabled_reason = CASE WHEN e.id = ANY($2::bigint[]) THEN 'It answered 410 Gone.'
                 ELSE 'Every attempt failed since ' || to_char(failing_since, 'YYYY-MM-DD"T"HH24:MI:SS"Z".') END
             WHERE is_active AND (e.id = ANY($2::bigint[])
                                  OR e.id = ANY($1::bigint[]) AND e.failing_since <= now() - $3::interval)
             RETURNING e.id
           ), failed AS (
             UPDATE webhook_deliveries d SET status = 'failed', due_at = NULL, ended_at = now()
             FROM disabled e WHERE d.endpoint_id = e.id AND d.due_at IS NOT NULL
           )
           SELECT id FROM disabled""",
        list(failed),
        list(gone),
        FAILING_MAX,
    )
    return [row["id"] for row in rows]


async def forget(conn: Connection, account_id: int, contact_id: int, email_folded: str) -> None:
    """Takes an erased person out of what was told and out of the answers to it. Reads all that the account was told in KEPT."""
    await conn.execute(
        """WITH blanked AS (
             UPDATE webhook_messages SET contact_id = NULL, facts = '{}'
             WHERE account_id = $1
               AND (contact_id = $2 OR lower(facts->>'to') = $3 OR lower(facts->>'email') = $3) RETURNING id
           )
           UPDATE webhook_attempts a SET answer = NULL
           FROM webhook_deliveries d JOIN blanked b ON b.id = d.message_id WHERE a.delivery_id = d.id""",
        account_id,
        contact_id,
        email_folded,
    )


async def delete_old(conn: Connection) -> int:
    """Deletes up to SWEEP_ROWS messages that are older than KEPT, with their deliveries; returns how many."""
    deleted: int = await conn.fetchval(
        """WITH oldest AS (
             SELECT id, created_at FROM webhook_messages ORDER BY id LIMIT $2
           ), old AS (
             DELETE FROM webhook_messages m USING oldest o
             WHERE m.id = o.id AND o.created_at < now() - $1::interval RETURNING m.id
           ), deliveries AS (
             DELETE FROM webhook_deliveries d USING old WHERE d.message_id = old.id RETURNING d.id
           ), attempts AS (
             DELETE FROM webhook_attempts a USING deliveries d WHERE a.delivery_id = d.id
           )
           SELECT count(*) FROM old""",
        KEPT,
        SWEEP_ROWS,
    )
    return deleted
