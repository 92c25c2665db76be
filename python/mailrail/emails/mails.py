"""The store of transactional mail: how it is read again and taken back. What a desk writes is in `desk_store.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mailrail.db.copy import copy_out
from mailrail.db.pool import Connection
from mailrail.emails.mail import ADDRESSES_MAX, PRECEDENCE
from mailrail.emails.model import LeasedShard, Outcome, Round, State
from mailrail.emails.store import LISTED_BY_SES, WITHDRAWN


async def read_round(conn: Connection, shard: LeasedShard, claimed: Round) -> bytes:
    """The round's mails as binary COPY rows in the layout that `Sender.submit_mails` takes. An address that was suppressed
    or erased since carries the outcome that says so.
    """
    where = (
        f"a.seq BETWEEN {claimed.first_seq} AND {claimed.last_seq}"
        if claimed.seqs is None
        else f"a.seq = ANY('{{{','.join(map(str, claimed.seqs))}}}'::integer[])"
    )
    return await copy_out(
        conn,
        f"""SELECT a.stream_id, a.seq, {claimed.attempt}::smallint,
              (CASE WHEN a.email = '' THEN {Outcome.SKIPPED_ERASED}
                    WHEN s.email_folded IS NOT NULL OR {LISTED_BY_SES} THEN {Outcome.SKIPPED_SUPPRESSED}
                    -- Never to be seen here; and if it is, never to be sent.
                    WHEN t.is_test THEN {Outcome.CANCELLED} END)::smallint,
              a.email, f.content
            FROM audience a
            JOIN streams t ON t.stream_id = a.stream_id
            JOIN mails m ON m.stream_id = a.stream_id AND m.seq = a.seq
            JOIN mails f ON f.stream_id = a.stream_id AND f.seq = m.first_seq
            LEFT JOIN suppressions s ON s.account_id = a.account_id AND s.email_folded = lower(a.email)
              AND s.reason <> 'unsubscribe'
            WHERE a.stream_id = {shard.stream_id} AND {where} ORDER BY a.seq""",
        format="binary",
    )


# A mail's last number: they are neighbours.
_LAST_SEQ = f"""(SELECT max(o.seq) FROM mails o WHERE o.stream_id = m.stream_id AND o.first_seq = m.seq
  AND o.seq BETWEEN m.seq AND m.seq + {ADDRESSES_MAX - 1})"""


async def read_mail(conn: Connection, account_id: int, stream_id: int, seq: int) -> Any | None:
    """The mail whose first address has this number; a campaign's recipient as well, who has no content of their own."""
    return await conn.fetchrow(
        f"""SELECT a.stream_id, a.seq, {_LAST_SEQ} AS last_seq, coalesce(m.created_at, c.sent_at) AS created_at, m.scheduled_at,
              coalesce(m.sender, t.identity::jsonb ->> 'from_email') AS sender, coalesce(m.subject, c.subject) AS subject,
              coalesce(m.tags, '{{}}') AS tags, m.content, t.is_test, t.campaign_id
            FROM audience a JOIN streams t ON t.stream_id = a.stream_id
            LEFT JOIN mails m ON m.stream_id = a.stream_id AND m.seq = a.seq
            LEFT JOIN campaigns c ON c.id = t.campaign_id
            WHERE a.stream_id = $2 AND a.seq = $3 AND a.account_id = $1 AND coalesce(m.first_seq, a.seq) = a.seq""",
        account_id,
        stream_id,
        seq,
    )


# The facts about one address, for `model.fold`: what it says is true now, where the stored state is a second old.
_FACTS = """
SELECT a.stream_id, page.first_seq, a.seq, coalesce(m.role, 'to') AS role, a.email,
  coalesce((SELECT jsonb_agg(jsonb_build_array(c.attempt, c.epoch = s.epoch AND coalesce(s.lease_until > clock_timestamp(), false)))
            FROM claims c WHERE c.stream_id = a.stream_id AND c.shard = s.shard
              AND (a.seq BETWEEN c.first_seq AND c.last_seq OR a.seq = ANY(c.seqs))), '[]') AS claims,
  coalesce((SELECT jsonb_agg(jsonb_build_array(r.attempt, r.outcome, r.at, r.ses_message_id, r.error) ORDER BY r.attempt, r.outcome)
            FROM results r WHERE r.stream_id = a.stream_id AND r.seq = a.seq), '[]') AS results,
  coalesce((SELECT jsonb_agg(jsonb_build_array(e.kind, e.received_at, e.at, e.detail, e.machine) ORDER BY coalesce(e.at, e.received_at), e.kind)
            FROM events e WHERE e.stream_id = a.stream_id AND e.seq = a.seq), '[]') AS events,
  ARRAY(SELECT p.attempt FROM permits p WHERE p.stream_id = a.stream_id AND p.seq = a.seq AND p.claim_id IS NULL) AS permits,
  s.state = 'cancelled' AS cancelled, clock_timestamp() AS now
FROM unnest($2::bigint[], $3::integer[], $4::integer[]) AS page(stream_id, first_seq, last_seq)
JOIN audience a ON a.stream_id = page.stream_id AND a.seq BETWEEN page.first_seq AND page.last_seq
LEFT JOIN mails m ON m.stream_id = a.stream_id AND m.seq = a.seq
JOIN streams t ON t.stream_id = a.stream_id
JOIN shards s ON s.stream_id = a.stream_id AND s.shard = (a.seq - 1) / t.shard_size
WHERE a.account_id = $1 ORDER BY a.stream_id, a.seq
"""


async def read_facts(conn: Connection, account_id: int, rows: Sequence[Any]) -> list[Any]:
    """All that is known about the addresses of these mails, which are rows with stream_id, seq and last_seq."""
    return await conn.fetch(
        _FACTS,
        account_id,
        [row["stream_id"] for row in rows],
        [row["seq"] for row in rows],
        [row["last_seq"] or row["seq"] for row in rows],
    )


@dataclass(frozen=True, slots=True)
class MailFilter:
    """What a list of mails is narrowed to; None and empty leave it wide. `states` are those of emails/model.py."""

    states: frozenset[int] = frozenset()
    is_scheduled: bool | None = None
    to: str | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_test: bool = False


# A mail to several is in the state of the address that comes first in PRECEDENCE.
_PAGE_FROM = """
FROM mails m
JOIN streams t ON t.stream_id = m.stream_id AND t.is_test = $8
WHERE m.account_id = $1 AND m.seq = m.first_seq
  AND ($2::smallint[] IS NULL OR ANY_STATE)
  AND ($3::boolean IS NULL OR coalesce(m.scheduled_at > now(), false) = $3)
  AND ($4::text IS NULL OR (m.stream_id, m.seq) IN
       (SELECT o.stream_id, o.first_seq FROM mails o WHERE o.account_id = $1 AND o.email_folded = $4))
  AND ($5::text IS NULL OR $5 = ANY(m.tags))
  AND ($6::timestamptz IS NULL OR m.created_at >= $6) AND ($7::timestamptz IS NULL OR m.created_at < $7)
""".replace(
    "ANY_STATE",
    f"""(SELECT coalesce(r.state, {State.PENDING}) FROM mails o
         LEFT JOIN recipient_state r ON r.stream_id = o.stream_id AND r.seq = o.seq
         WHERE o.stream_id = m.stream_id AND o.first_seq = m.seq AND o.seq BETWEEN m.seq AND m.seq + {ADDRESSES_MAX - 1}
         ORDER BY array_position(ARRAY[{", ".join(map(str, map(int, PRECEDENCE)))}], coalesce(r.state, {State.PENDING})::integer)
         LIMIT 1) = ANY($2)""",
)


def _arguments(account_id: int, wanted: MailFilter) -> tuple[object, ...]:
    return (
        account_id,
        sorted(wanted.states) or None,
        wanted.is_scheduled,
        None if wanted.to is None else wanted.to.lower(),
        wanted.tag,
        wanted.since,
        wanted.until,
        wanted.is_test,
    )


async def read_page(
    conn: Connection, account_id: int, wanted: MailFilter, limit: int, offset: int, after: tuple[int, int] | None
) -> list[Any]:
    """Newest first; `after` goes on behind that mail, else `offset` skips."""
    return await conn.fetch(
        f"""SELECT m.stream_id, m.seq, {_LAST_SEQ} AS last_seq, m.created_at, m.scheduled_at, m.sender, m.subject, m.tags,
              t.is_test, t.campaign_id {_PAGE_FROM}
              AND ($11::bigint IS NULL OR (m.created_at, m.stream_id, m.seq) <
                   (SELECT c.created_at, c.stream_id, c.seq FROM mails c WHERE c.stream_id = $11 AND c.seq = $12))
            ORDER BY m.created_at DESC, m.stream_id DESC, m.seq DESC LIMIT $9 OFFSET $10""",
        *_arguments(account_id, wanted),
        limit,
        offset,
        *(after or (None, None)),
    )


async def count(conn: Connection, account_id: int, wanted: MailFilter, most: int) -> int:
    """How many there are, counted no further than `most`."""
    found: int = await conn.fetchval(
        f"SELECT count(*) FROM (SELECT {_PAGE_FROM} LIMIT $9) counted", *_arguments(account_id, wanted), most
    )
    return found


async def read_campaign_page(
    conn: Connection, account_id: int, campaign_id: int, states: frozenset[int], limit: int, offset: int, after_seq: int
) -> list[Any]:
    """A campaign's mails in the order of their numbers, as rows like those of `read_page`."""
    return await conn.fetch(
        """SELECT a.stream_id, a.seq, a.seq AS last_seq, coalesce(r.at, c.sent_at) AS created_at,
             NULL::timestamptz AS scheduled_at, t.identity::jsonb ->> 'from_email' AS sender, c.subject,
             '{}'::text[] AS tags, false AS is_test, c.id AS campaign_id
           FROM campaigns c JOIN streams t ON t.stream_id = c.stream_id
           JOIN audience a ON a.stream_id = c.stream_id
           LEFT JOIN recipient_state r ON r.stream_id = a.stream_id AND r.seq = a.seq
           WHERE c.id = $2 AND c.account_id = $1 AND a.seq > $6
             AND ($3::smallint[] IS NULL OR coalesce(r.state, 0) = ANY($3))
           ORDER BY a.seq LIMIT $4 OFFSET $5""",
        account_id,
        campaign_id,
        sorted(states) or None,
        limit,
        offset,
        after_seq,
    )


async def count_campaign(conn: Connection, account_id: int, campaign_id: int, states: frozenset[int]) -> int | None:
    """How many mails of the campaign are in the states, by its counters; None for a campaign that is not the account's."""
    found: int | None = await conn.fetchval(
        """SELECT CASE WHEN $3::smallint[] IS NULL THEN coalesce(c.audience_count, 0)
             ELSE coalesce(sum(n.recipients) FILTER (WHERE n.state = ANY($3)), 0)
               + CASE WHEN 0 = ANY($3) THEN coalesce(c.audience_count, 0) - coalesce(sum(n.recipients), 0) ELSE 0 END END
           FROM campaigns c LEFT JOIN state_counts n ON n.stream_id = c.stream_id
           WHERE c.id = $2 AND c.account_id = $1 GROUP BY c.id""",
        account_id,
        campaign_id,
        sorted(states) or None,
    )
    return None if found is None else int(found)


# —— cancelling ——————————————————————————————————————————————————————————————————————————————————————————————————————————


async def cancel(conn: Connection, account_id: int, stream_id: int, first_seq: int) -> bool:
    """Takes back a mail of which no address was claimed yet; False where that is too late. A claim of its own stands for
    the taking back, so that nobody else can have one.
    """
    shard = await conn.fetchrow(
        """SELECT s.stream_id, s.shard, s.epoch FROM shards s JOIN streams t USING (stream_id)
           WHERE s.stream_id = $2 AND s.shard = ($3 - 1) / t.shard_size AND s.account_id = $1 FOR UPDATE OF s""",
        account_id,
        stream_id,
        first_seq,
    )
    if shard is None:
        return False
    permits = await conn.fetch(
        """SELECT m.seq, p.claim_id, p.attempt FROM mails m LEFT JOIN permits p ON p.stream_id = m.stream_id AND p.seq = m.seq
           WHERE m.stream_id = $1 AND m.first_seq = $2 AND m.seq BETWEEN $2 AND $2 + 49""",
        stream_id,
        first_seq,
    )
    if not permits or any(row["attempt"] != 1 or row["claim_id"] is not None for row in permits):
        return False
    seqs = sorted(row["seq"] for row in permits)
    await conn.execute(
        """WITH claimed AS (
             INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, lease_until, epoch, attempt, first_seq, last_seq)
             VALUES ($1, $2, nextval('claim_ids'), $3, nextval('lease_ids'), clock_timestamp(), $4, 1, $5, $6)
           ), cancelled AS (
             INSERT INTO results (stream_id, seq, attempt, outcome, error, account_id)
             SELECT $1, seq, 1, $7, 'cancelled', $3 FROM generate_series($5::integer, $6::integer) AS seq
           ), withdrawn AS (
             UPDATE permits SET claim_id = $8 WHERE stream_id = $1 AND seq BETWEEN $5 AND $6 AND attempt = 1
           )
           UPDATE folds SET due_at = now() WHERE stream_id = $1 AND shard = $2""",
        stream_id,
        shard["shard"],
        account_id,
        shard["epoch"],
        seqs[0],
        seqs[-1],
        int(Outcome.CANCELLED),
        WITHDRAWN,
    )
    return True


async def close_days(conn: Connection) -> None:
    """Ends all streams of days: what comes next gets numbers that no lost mail can have."""
    await conn.execute("UPDATE streams SET day = NULL WHERE day IS NOT NULL")
