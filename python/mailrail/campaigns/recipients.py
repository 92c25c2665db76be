"""Who got a campaign, who did not and why: the second part of the store, which only reads.

Counters say which shards have anybody of the wanted states, so that a rare state costs a few shards whatever the size of
the audience. A recipient without a row was never claimed and is pending.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailrail.campaigns.model import GROUPS
from mailrail.db.copy import copy_out
from mailrail.db.pool import Connection
from mailrail.emails.model import State

# What a filter may name: each state, and the groups of the statistics, which win where a word is both.
WORDS: dict[str, frozenset[State]] = {
    **{state.name.lower(): frozenset((state,)) for state in State},
    **{word: frozenset(states) for word, states in GROUPS.items()},
}
EVERY_STATE = frozenset(State)

CSV_COLUMNS = ("email", "state", "reason", "attempts", "message_id", "updated_at", "opens", "clicks")
CSV_HEADER = ",".join(f'"{column}"' for column in CSV_COLUMNS).encode() + b"\n"
# Recipients whom one statement of an export visits: some 1.5 MB of CSV at the most.
SLICE = 10_000


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a campaign; `at` is when the fact came that decided the state."""

    seq: int
    email: str
    contact_id: int | None
    state: State
    reason: str | None
    attempts: int
    ses_message_id: str | None
    at: datetime | None
    opens: int
    clicks: int
    machine_opens: int
    machine_clicks: int
    complained: bool
    unsubscribed: bool


# Shards with how many of their recipients are in the states $3.
_COUNTED = f"""
counted AS (
  SELECT s.shard, s.first_seq, s.last_seq, (coalesce(sum(c.recipients) FILTER (WHERE c.state = ANY($3::smallint[])), 0)
    + CASE WHEN {State.PENDING} = ANY($3::smallint[]) THEN s.last_seq - s.first_seq + 1 - coalesce(sum(c.recipients), 0)
      ELSE 0 END)::bigint AS matching
  FROM shards s LEFT JOIN state_counts c ON c.stream_id = $1 AND c.shard = s.shard
  WHERE s.stream_id = $1 AND s.account_id = $2 GROUP BY s.shard, s.first_seq, s.last_seq
)"""

_COLUMNS = f"""a.seq, a.email, a.contact_id, coalesce(r.state, {State.PENDING}) AS state, r.reason,
coalesce(r.attempt, 0) AS attempts, r.ses_message_id, r.at, coalesce(r.opens, 0) AS opens, coalesce(r.clicks, 0) AS clicks,
coalesce(r.machine_opens, 0) AS machine_opens, coalesce(r.machine_clicks, 0) AS machine_clicks,
coalesce(r.complained, false) AS complained, coalesce(r.unsubscribed, false) AS unsubscribed"""


def _source(states: Iterable[State], wanted: str, first: str, last: str) -> str:
    """FROM and WHERE for the recipients first..last in the wanted states. The pending have no row in recipient_state; for
    all others it is the smaller table to begin with.
    """
    if State.PENDING in states:
        return f"""FROM audience a LEFT JOIN recipient_state r
          ON r.stream_id = a.stream_id AND r.seq = a.seq AND r.seq BETWEEN {first} AND {last}
        WHERE a.stream_id = $1 AND a.account_id = $2 AND a.seq BETWEEN {first} AND {last}
          AND coalesce(r.state, {State.PENDING}) = ANY({wanted})"""
    return f"""FROM recipient_state r JOIN audience a ON a.stream_id = r.stream_id AND a.seq = r.seq
        WHERE r.stream_id = $1 AND r.account_id = $2 AND r.seq BETWEEN {first} AND {last} AND r.state = ANY({wanted})"""


async def count(conn: Connection, account_id: int, stream_id: int, states: Iterable[State]) -> int:
    """How many are in the states, from counters."""
    total: int = await conn.fetchval(
        f"WITH {_COUNTED} SELECT coalesce(sum(matching), 0)::bigint FROM counted", stream_id, account_id, _codes(states)
    )
    return total


async def read_page(
    conn: Connection,
    account_id: int,
    stream_id: int,
    states: Iterable[State],
    limit: int,
    offset: int = 0,
    after_seq: int = 0,
) -> list[Recipient]:
    """In the order of their numbers; `after_seq` goes on behind that one, `offset` skips by counters. Visits the shards
    that the page can come from and no other.
    """
    states = frozenset(states)
    rows = await conn.fetch(
        f"""WITH {_COUNTED}, ahead AS (
              -- Of the shard in which the cursor stands, nobody knows how many are left: it is visited and not counted on.
              SELECT greatest(first_seq, $6::integer + 1) AS first_seq, last_seq, matching,
                CASE WHEN first_seq > $6 THEN matching ELSE 0 END AS sure
              FROM counted WHERE matching > 0 AND last_seq > $6
            ), placed AS (
              SELECT *, sum(sure) OVER (ORDER BY first_seq) - sure AS before FROM ahead
            ), near AS (
              SELECT * FROM placed WHERE before < $4::integer + $5::integer AND ($5 = 0 OR before + matching > $5)
            )
            SELECT found.* FROM near n CROSS JOIN LATERAL (
              SELECT {_COLUMNS} {_source(states, "$3::smallint[]", "n.first_seq", "n.last_seq")}
              ORDER BY a.seq LIMIT $4 + $5
            ) found ORDER BY seq LIMIT $4 OFFSET $5 - coalesce((SELECT min(before) FROM near WHERE $5 > 0), 0)::bigint""",
        stream_id,
        account_id,
        _codes(states),
        limit,
        offset,
        after_seq,
    )
    return [Recipient(**{**row, "state": State(row["state"])}) for row in rows]


async def read_slices(
    conn: Connection, account_id: int, stream_id: int, states: Iterable[State]
) -> list[tuple[int, int]]:
    """Ranges of at most SLICE recipients that together hold everybody in the states."""
    rows = await conn.fetch(
        f"""WITH {_COUNTED}
            SELECT first, least(first + {SLICE} - 1, last_seq) AS last
            FROM counted, generate_series(first_seq, last_seq, {SLICE}) AS first
            WHERE matching > 0 ORDER BY first""",
        stream_id,
        account_id,
        _codes(states),
    )
    return [(row["first"], row["last"]) for row in rows]


async def read_csv(
    conn: Connection, account_id: int, stream_id: int, states: Iterable[State], first_seq: int, last_seq: int
) -> bytes:
    """Lines of CSV_COLUMNS for one range, made by PostgreSQL: all fields quoted, times in UTC.

    A text that a spreadsheet would take for a formula has `'` before it (OWASP, CSV Injection).
    """
    states = frozenset(states)
    words = " ".join(f"WHEN {state} THEN '{state.name.lower()}'" for state in State)
    wanted = f"'{{{','.join(str(code) for code in _codes(states))}}}'::smallint[]"
    source = _source(states, wanted, str(first_seq), str(last_seq))
    return await copy_out(
        conn,
        f"""SELECT {_defused("a.email")}, CASE coalesce(r.state, {State.PENDING}) {words} END, {_defused("r.reason")},
              coalesce(r.attempt, 0), {_defused("r.ses_message_id")},
              coalesce(to_char(r.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ''), coalesce(r.opens, 0),
              coalesce(r.clicks, 0)
            {source.replace("$1", str(stream_id)).replace("$2", str(account_id))} ORDER BY a.seq""",
        format="csv",
        force_quote=True,
    )


def _defused(column: str) -> str:
    return f"CASE WHEN {column} ~ '^[-=+@\\t\\r]' THEN '''' ELSE '' END || coalesce({column}, '')"


def _codes(states: Iterable[State]) -> Sequence[int]:
    return sorted(int(state) for state in states)
