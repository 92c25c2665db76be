"""The row of `send_limits` that all processes share. Its lock puts their statements in order, its clock is the database's.
And what a probe found out about the account that it is of.
"""

from dataclasses import dataclass, fields

import asyncpg

from mailrail.db.pool import Connection
from mailrail.ses.answers import Answer, Question, Verdict
from mailrail.ses.control import SesAccount
from mailrail.ses.model import (
    BURST_S,
    DEBT_MAX_S,
    DECREASE,
    RECOVERY_PER_S,
    RESERVE_MIN,
    RESERVE_SHARE,
    SLICE_S,
    THROTTLE_PAUSE_S,
    UNPOLLED,
    Limits,
)

# The locked row as of now. The clock is read once the lock is held, so that the row's time never runs backwards.
# Commits are not waited for: others queue for this row, and a crash of the database forgets a few tokens at most.
# $1 names the row; $2 overrides its rate unless it is null.
_PRESENT = f"""
WITH held AS (
  SELECT l.* FROM (SELECT set_config('synchronous_commit', 'off', true)) unhurried, send_limits l
  WHERE l.name = $1 FOR UPDATE OF l
), timed AS (
  SELECT h.*, clock_timestamp() AS at FROM held h
), paced AS (
  SELECT t.*, part, coalesce($2::float8, max_send_rate) * part AS rate
  FROM timed t, LATERAL (SELECT least(1, factor + {RECOVERY_PER_S} * coalesce(
    greatest(0, extract(epoch FROM at - throttled_at)::float8), 'Infinity')) AS part) f
), present AS (
  SELECT p.*, greatest(1, rate * {BURST_S}) AS burst,
    tokens + rate * greatest(0, extract(epoch FROM at - refilled_at)::float8) AS level,
    CASE WHEN max_24_hour_send < 0 THEN 'Infinity' ELSE max_24_hour_send END AS day_quota,
    CASE WHEN max_24_hour_send < 0 THEN 'Infinity'
         ELSE max_24_hour_send - sent_last_24_hours - (granted - granted_at_poll) END AS day_left,
    polled_at IS NOT NULL AND sending_enabled AND coalesce(rate > 0, false) AS usable
  FROM paced p
)"""
_LIMITS = (
    "polled_at IS NOT NULL AS polled, sending_enabled AS enabled, rate, tokens_left AS tokens, day_left, day_quota"
)

# $3 tokens are asked for, $4 come back and go in first. Less than a slice is not worth a round: it is all or nothing.
_GRANT = f"""{_PRESENT}, asked AS (
  SELECT p.*, least(burst, level + $4::bigint) AS filled, floor(least($3::float8, greatest(1, rate * {SLICE_S}),
    day_left - CASE WHEN max_24_hour_send < 0 THEN 0
                    ELSE greatest(max_24_hour_send * {RESERVE_SHARE}, {RESERVE_MIN}) END)) AS wanted
  FROM present p
), decided AS (
  SELECT a.*, given, filled - given AS tokens_left
  FROM asked a, LATERAL (SELECT CASE WHEN usable AND wanted >= 1 AND filled >= wanted THEN wanted ELSE 0 END AS given) g
), written AS (
  UPDATE send_limits l SET tokens = tokens_left, refilled_at = at, granted = l.granted + given::bigint - $4
  FROM decided d WHERE l.name = d.name AND (given > 0 OR $4 > 0)
)
SELECT given::integer, greatest(wanted, 0)::integer AS wanted, {_LIMITS} FROM decided
"""

# $3 tokens for mail that may not wait for its turn: below zero they are owed, and whoever took them pays by waiting.
_TAKE = f"""{_PRESENT}, decided AS (
  SELECT p.*, least(burst, level) - CASE WHEN taken THEN $3::bigint ELSE 0 END AS tokens_left, taken
  FROM present p, LATERAL (SELECT usable AND day_left >= $3 AND level > -rate * {DEBT_MAX_S} AS taken) t
), written AS (
  UPDATE send_limits l SET tokens = tokens_left, refilled_at = at, granted = l.granted + $3
  FROM decided d WHERE l.name = d.name AND taken
)
SELECT taken, {_LIMITS} FROM decided
"""

# $3 recipients were refused for their rate. SES's bucket is empty then, so ours is too.
_THROTTLED = f"""{_PRESENT}, decided AS (
  SELECT p.*, coalesce(extract(epoch FROM at - throttled_at) >= {THROTTLE_PAUSE_S}, true) AS lower
  FROM present p
)
UPDATE send_limits l SET throttles = l.throttles + $3::bigint,
  factor = CASE WHEN lower THEN part * {DECREASE} ELSE l.factor END,
  throttled_at = CASE WHEN lower THEN at ELSE l.throttled_at END,
  tokens = least(burst, level, CASE WHEN lower THEN 0 ELSE burst END), refilled_at = at
FROM decided d WHERE l.name = d.name
RETURNING l.factor
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a campaign got, what it would have got with enough tokens there, and the figures after it."""

    given: int
    wanted: int
    limits: Limits


async def grant(conn: Connection, name: str, rate: float | None, most: int, returned: int) -> Grant:
    """Puts `returned` tokens back, then takes a slice of at most `most`, or nothing; none of it waits."""
    row = await conn.fetchrow(_GRANT, name, rate, most, returned)
    return Grant(row["given"], row["wanted"], _limits(row)) if row else Grant(0, most, UNPOLLED)


async def take(conn: Connection, name: str, rate: float | None, recipients: int) -> tuple[bool, Limits]:
    """Takes tokens for all of them, into debt if need be; False when it took none."""
    row = await conn.fetchrow(_TAKE, name, rate, recipients)
    return (row["taken"], _limits(row)) if row else (False, UNPOLLED)


async def throttled(conn: Connection, name: str, rate: float | None, recipients: int) -> float | None:
    """Counts refused recipients and lowers the rate, at most once a second; returns the part of it that is left."""
    factor: float | None = await conn.fetchval(_THROTTLED, name, rate, recipients)
    return factor


async def use_up_day(conn: Connection, name: str) -> None:
    """Nothing is left of the day, whatever the last poll said; the next one tells again."""
    await conn.execute(
        """UPDATE send_limits SET sent_last_24_hours =
             greatest(sent_last_24_hours, max_24_hour_send - (granted - granted_at_poll))
           WHERE name = $1""",
        name,
    )


async def add(conn: Connection, name: str) -> None:
    """The row, if there is none yet; its first poll is due at once."""
    await conn.execute("INSERT INTO send_limits (name) VALUES ($1) ON CONFLICT DO NOTHING", name)


async def begin_poll(conn: Connection, name: str, retry_s: float) -> int | None:
    """Makes the caller the one who polls, if a poll is due; returns the tokens granted so far, for `end_poll`. Without that
    the next one is due in `retry_s`: the caller may have ended.
    """
    granted: int | None = await conn.fetchval(
        """UPDATE send_limits SET poll_at = clock_timestamp() + make_interval(secs => $2)
           WHERE name = $1 AND poll_at <= clock_timestamp() RETURNING granted""",
        name,
        retry_s,
    )
    return granted


async def end_poll(conn: Connection, name: str, account: SesAccount, granted: int, interval_s: float) -> None:
    """Writes down what SES said; what was granted since the poll began it may not have counted. The next is due in
    `interval_s`.
    """
    await conn.execute(
        """UPDATE send_limits SET max_send_rate = $2, max_24_hour_send = $3, sent_last_24_hours = $4,
             sending_enabled = $5, granted_at_poll = $6, polled_at = clock_timestamp(),
             poll_at = clock_timestamp() + make_interval(secs => $7)
           WHERE name = $1""",
        name,
        account.max_send_rate,
        account.max_24_hour_send,
        account.sent_last_24_hours,
        account.sending_enabled,
        granted,
        interval_s,
    )


async def read_max_send_rate(conn: Connection, name: str) -> float:
    """The recipients a second that SES grants, 0 before it has said so."""
    rate: float | None = await conn.fetchval("SELECT max_send_rate FROM send_limits WHERE name = $1", name)
    return rate or 0.0


# —— what a probe found out ————————————————————————————————————————————————————————————————————————————————————————————


async def write_answer(conn: Connection, name: str, answer: Answer) -> None:
    """In the place of an earlier answer to the question."""
    await conn.execute(
        """INSERT INTO ses_answers (name, question, answer, value, detail) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (name, question) DO UPDATE SET answer = excluded.answer, value = excluded.value,
             detail = excluded.detail, asked_at = excluded.asked_at""",
        name,
        answer.question,
        answer.verdict,
        answer.value,
        answer.detail,
    )


async def read_answers(conn: Connection, name: str) -> dict[Question, Answer]:
    """All that was ever asked of this account and region; a question that a later version asks is passed over."""
    rows = await conn.fetch(
        "SELECT question, answer, value, detail, asked_at FROM ses_answers WHERE name = $1 AND question = ANY($2::text[])",
        name,
        list(Question),
    )
    return {
        Question(row["question"]): Answer(
            Question(row["question"]), Verdict(row["answer"]), row["detail"], row["value"], row["asked_at"]
        )
        for row in rows
    }


def _limits(row: asyncpg.Record) -> Limits:
    return Limits(**{column.name: row[column.name] for column in fields(Limits)})
