"""The store of transactional mail: what is asked for it, how it is claimed, and how it is read again."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.mail import ADDRESSES_MAX, PRECEDENCE, Mail
from mailrail.emails.model import LeasedShard, Outcome, Round, State
from mailrail.emails.store import WITHDRAWN

# Small, because a shard is folded as a whole while it still fills.
SHARD_SIZE = 500
# Advisory lock (this, account): shared by whoever is writing mails, so that one can wait for all of them to end.
MAILS_LOCK = 0x6D61696C


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about a mail before anything is written: whether sending is held, and which of the domains are
    verified and which of the addresses suppressed. With `has_erased` some of these may belong to people who were erased.
    """

    is_held: bool
    verified_domains: frozenset[str]
    suppressed: frozenset[str]
    has_erased: bool


async def read_standing(conn: Connection, account_id: int, domains: Sequence[str], folded: Sequence[str]) -> Standing:
    """`domains` are those that might cover a sender, `folded` addresses in lower case. The caller is about to write mails,
    and `took_place` can wait for it from now on.
    """
    row = await fetch_one(
        conn,
        """SELECT (SELECT held_at IS NOT NULL FROM installation) AS is_held,
             ARRAY(SELECT domain FROM domains
                   WHERE account_id = $1 AND domain = ANY($2::text[]) AND status = 'verified') AS verified,
             -- Who unsubscribed refused campaigns alone.
             ARRAY(SELECT email_folded FROM suppressions
                   WHERE account_id = $1 AND email_folded = ANY($3::text[]) AND reason <> 'unsubscribe') AS suppressed,
             EXISTS (SELECT FROM suppression_hashes WHERE account_id = $1) AS has_erased,
             pg_advisory_xact_lock_shared($4, hashint8($1))""",
        account_id,
        list(domains),
        list(folded),
        MAILS_LOCK,
    )
    # A database that is still being restored has no row yet.
    return Standing(
        row["is_held"] is not False, frozenset(row["verified"]), frozenset(row["suppressed"]), row["has_erased"]
    )


# —— streams and shards ——————————————————————————————————————————————————————————————————————————————————————————————————


async def open_stream(
    conn: Connection, account_id: int, is_test: bool, identity: str, bounce_grace: timedelta
) -> tuple[int, str]:
    """(stream, identity) of the account's mail of today, UTC; `identity` is used if this mail is its first."""
    found = await conn.fetchrow(
        """SELECT stream_id, identity FROM streams
           WHERE account_id = $1 AND day = (now() AT TIME ZONE 'UTC')::date AND is_test = $2""",
        account_id,
        is_test,
    )
    if found is None:
        await conn.execute(
            """INSERT INTO streams (stream_id, account_id, content, identity, shard_size, bounce_grace, day, is_test)
               VALUES (new_stream_id(1), $1, '', $3, $4, $5, (now() AT TIME ZONE 'UTC')::date, $2)
               ON CONFLICT (account_id, day, is_test) WHERE day IS NOT NULL DO NOTHING""",
            account_id,
            is_test,
            identity,
            SHARD_SIZE,
            bounce_grace,
        )
        return await open_stream(conn, account_id, is_test, identity, bounce_grace)
    return found["stream_id"], found["identity"]


async def open_shard(conn: Connection, account_id: int, stream_id: int, lease_s: float | None) -> LeasedShard:
    """The stream's next range of numbers for this process alone; leased, so that no worker takes it, unless `lease_s` is
    None. No number of it is left to claim by order: its claims and permits name theirs.
    """
    # One process at a time, or two would open the same.
    await conn.execute("SELECT FROM streams WHERE stream_id = $1 AND account_id = $2 FOR UPDATE", stream_id, account_id)
    row = await fetch_one(
        conn,
        """WITH opened AS (
             INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, epoch, lease_id, lease_until)
             SELECT $1, n, $2, 'sending', n * $3 + 1, (n + 1) * $3, (n + 1) * $3 + 1, 1, nextval('lease_ids'),
               clock_timestamp() + make_interval(secs => $4)
             FROM (SELECT coalesce(max(shard) + 1, 0) AS n FROM shards WHERE stream_id = $1) next
             RETURNING stream_id, shard, account_id, lease_id, epoch
           ), folded AS (
             INSERT INTO folds (stream_id, shard, account_id, open) SELECT stream_id, shard, account_id, 0 FROM opened
           )
           SELECT * FROM opened""",
        stream_id,
        account_id,
        SHARD_SIZE,
        lease_s or 0.0,
    )
    return LeasedShard(**row)


async def renew(conn: Connection, shard: LeasedShard, lease_s: float) -> LeasedShard | None:
    """The shard under a lease that holds from now: the same one, or a new one if that ran out and nobody else wanted the
    shard meanwhile. None when somebody does. Keeps the shard's lock.
    """
    row = await conn.fetchrow(
        """WITH mine AS (
             SELECT stream_id, shard, coalesce(lease_id = $3 AND lease_until > clock_timestamp(), false) AS is_live
             FROM shards WHERE stream_id = $1 AND shard = $2 AND state = 'sending'
               AND (lease_id = $3 OR (lease_id IS NULL AND wake_at IS NULL)) FOR UPDATE
           ), renewed AS (
             UPDATE shards s SET lease_until = clock_timestamp() + make_interval(secs => $4),
               epoch = CASE WHEN is_live THEN epoch ELSE epoch + 1 END,
               lease_id = CASE WHEN is_live THEN lease_id ELSE nextval('lease_ids') END
             FROM mine m WHERE s.stream_id = m.stream_id AND s.shard = m.shard
             RETURNING s.stream_id, s.shard, s.account_id, s.lease_id, s.epoch, m.is_live
           ), refold AS (
             -- What the lease before this one left without a result is unknown from now on.
             UPDATE folds f SET due_at = least(f.due_at, now()) FROM renewed r
             WHERE f.stream_id = r.stream_id AND f.shard = r.shard AND NOT r.is_live
           )
           SELECT stream_id, shard, account_id, lease_id, epoch FROM renewed""",
        shard.stream_id,
        shard.shard,
        shard.lease_id,
        lease_s,
    )
    return None if row is None else LeasedShard(**row)


# —— writing —————————————————————————————————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Placed:
    """A mail with its numbers: its addresses are `first_seq` and those behind it. The hold covers those that are `billed`."""

    mail: Mail
    first_seq: int
    hold_id: int | None
    billed: frozenset[str]


async def insert_mails(conn: Connection, account_id: int, stream_id: int, placed: Sequence[Placed]) -> None:
    """The mails, their addresses as the stream's audience, and where their links lead: three statements at most."""
    rows = [(item, n, role, address) for item in placed for n, (role, address) in enumerate(item.mail.addresses)]
    seqs = [item.first_seq + n for item, n, _, _ in rows]
    await conn.execute(
        """INSERT INTO audience (stream_id, seq, account_id, email, hold_id)
           SELECT $1, seq, $2, email, hold_id FROM unnest($3::integer[], $4::text[], $5::bigint[]) AS a(seq, email, hold_id)""",
        stream_id,
        account_id,
        seqs,
        [address for *_, address in rows],
        [item.hold_id if address in item.billed else None for item, _, _, address in rows],
    )
    await conn.execute(
        """INSERT INTO mails (stream_id, seq, account_id, first_seq, role, email_folded, created_at, scheduled_at, sender,
             subject, tags, content)
           SELECT $1, seq, $2, first_seq, role, email_folded, clock_timestamp(), scheduled_at, sender, subject,
             -- A name or value has no line's end.
             CASE WHEN content IS NOT NULL THEN coalesce(string_to_array(tags, E'\\n'), '{}') END, content
           FROM unnest($3::integer[], $4::integer[], $5::text[], $6::text[], $7::timestamptz[], $8::text[], $9::text[],
             $10::text[], $11::bytea[])
             AS m(seq, first_seq, role, email_folded, scheduled_at, sender, subject, tags, content)""",
        stream_id,
        account_id,
        seqs,
        [item.first_seq for item, *_ in rows],
        [role for _, _, role, _ in rows],
        [address.lower() for *_, address in rows],
        [item.mail.scheduled_at for item, *_ in rows],
        # The first row of a mail has what all of them share.
        *(
            [value if n == 0 else None for value, (_, n, _, _) in zip(column, rows, strict=True)]
            for column in (
                [item.mail.sender for item, *_ in rows],
                [item.mail.subject for item, *_ in rows],
                ["\n".join(item.mail.tags) or None for item, *_ in rows],
                [item.mail.content for item, *_ in rows],
            )
        ),
    )
    await _insert_links(conn, account_id, stream_id, [item for item in placed if item.mail.links])


async def _insert_links(conn: Connection, account_id: int, stream_id: int, placed: Sequence[Placed]) -> None:
    if placed:
        await conn.execute(
            """INSERT INTO mail_links (stream_id, first_seq, last_seq, account_id, urls)
               SELECT $1, first_seq, last_seq, $2, ARRAY(SELECT jsonb_array_elements_text(urls::jsonb))
               FROM unnest($3::integer[], $4::integer[], $5::text[]) AS l(first_seq, last_seq, urls)""",
            stream_id,
            account_id,
            [item.first_seq for item in placed],
            [item.first_seq + len(item.mail.addresses) - 1 for item in placed],
            [orjson.dumps(item.mail.links).decode() for item in placed],
        )


async def insert_claim(conn: Connection, shard: LeasedShard, first_seq: int, last_seq: int) -> Round:
    """The first attempt of neighbouring numbers, under the lease that the caller has just renewed."""
    row = await fetch_one(
        conn,
        """INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, lease_until, epoch, attempt, first_seq, last_seq)
           SELECT stream_id, shard, nextval('claim_ids'), account_id, lease_id, lease_until, epoch, 1, $3, $4
           FROM shards WHERE stream_id = $1 AND shard = $2
           RETURNING claim_id, attempt, first_seq, last_seq, seqs""",
        shard.stream_id,
        shard.shard,
        first_seq,
        last_seq,
    )
    return Round(**row)


async def insert_first_permits(conn: Connection, shard: LeasedShard, placed: Sequence[Placed]) -> None:
    """Leaves the first attempt to a worker: at the mail's time, or at once. Wakes the shard for it."""
    await conn.execute(
        """WITH allowed AS (
             INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at)
             SELECT $1, seq, 1, $3, $2, coalesce(due_at, now())
             FROM unnest($4::integer[], $5::timestamptz[]) AS p(seq, due_at) RETURNING due_at
           )
           UPDATE shards SET wake_at = least(wake_at, (SELECT min(due_at) FROM allowed))
           WHERE stream_id = $1 AND shard = $2""",
        shard.stream_id,
        shard.shard,
        shard.account_id,
        [item.first_seq + n for item in placed for n in range(len(item.mail.addresses))],
        [item.mail.scheduled_at for item in placed for _ in item.mail.addresses],
    )


async def took_place(conn: Connection, account_id: int, stream_id: int, first_seq: int) -> bool:
    """Whether the transaction that wrote this mail was committed although its answer was lost. Waits for its end first:
    a statement that did not would not see it.
    """
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1, hashint8($2))", MAILS_LOCK, account_id)
        found: bool = await conn.fetchval(
            "SELECT EXISTS (SELECT FROM mails WHERE stream_id = $1 AND seq = $2)", stream_id, first_seq
        )
    return found


@dataclass(frozen=True, slots=True)
class Answered:
    """What an attempt at one address came to."""

    seq: int
    outcome: Outcome
    ses_message_id: str | None
    error: str | None


async def insert_answers(conn: Connection, shard: LeasedShard, claimed: Round, answers: Sequence[Answered]) -> None:
    """Results of a round, and the batch row that settles an ambiguous commit. The API's role may not COPY."""
    await conn.execute(
        "INSERT INTO result_batches (stream_id, claim_id, part, account_id) VALUES ($1, $2, 0, $3)",
        shard.stream_id,
        claimed.claim_id,
        shard.account_id,
    )
    await conn.execute(
        """INSERT INTO results (stream_id, seq, attempt, outcome, ses_message_id, error, account_id)
           SELECT $1, seq, $2, outcome, ses_message_id, error, $3
           FROM unnest($4::integer[], $5::smallint[], $6::text[], $7::text[]) AS r(seq, outcome, ses_message_id, error)""",
        shard.stream_id,
        claimed.attempt,
        shard.account_id,
        [answer.seq for answer in answers],
        [int(answer.outcome) for answer in answers],
        [answer.ses_message_id for answer in answers],
        [answer.error for answer in answers],
    )


async def insert_played_events(conn: Connection, shard: LeasedShard, seqs: Sequence[int], kinds: Sequence[int]) -> None:
    """What would have come from SES, for mail of a test key."""
    await conn.execute(
        """INSERT INTO events (stream_id, seq, kind, account_id, attempt, at)
           SELECT $1, seq, kind, $2, 1, now() FROM unnest($3::integer[], $4::smallint[]) AS e(seq, kind)""",
        shard.stream_id,
        shard.account_id,
        list(seqs),
        list(kinds),
    )


async def fold_soon(conn: Connection, shard: LeasedShard, interval_s: float) -> None:
    """Asks for a fold, not more often than `interval_s`."""
    await conn.execute(
        """UPDATE folds SET due_at = least(due_at, greatest(clock_timestamp(), folded_at + make_interval(secs => $3)))
           WHERE stream_id = $1 AND shard = $2""",
        shard.stream_id,
        shard.shard,
        interval_s,
    )


# —— reading —————————————————————————————————————————————————————————————————————————————————————————————————————————————


async def read_round(conn: Connection, shard: LeasedShard, claimed: Round) -> bytes:
    """The round's mails as binary COPY rows in the layout that `Sender.submit_mails` takes. An address that was suppressed
    or erased since carries the outcome that says so.
    """
    where = (
        f"a.seq BETWEEN {claimed.first_seq} AND {claimed.last_seq}"
        if claimed.seqs is None
        else f"a.seq = ANY('{{{','.join(map(str, claimed.seqs))}}}'::integer[])"
    )
    rows = io.BytesIO()
    await conn.copy_from_query(
        f"""SELECT a.stream_id, a.seq, {claimed.attempt}::smallint,
              (CASE WHEN a.email = '' THEN {Outcome.SKIPPED_ERASED}
                    WHEN s.email_folded IS NOT NULL THEN {Outcome.SKIPPED_SUPPRESSED}
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
        output=rows,
        format="binary",
    )
    return rows.getvalue()


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
  coalesce((SELECT jsonb_agg(jsonb_build_array(e.kind, e.received_at, e.at, e.detail) ORDER BY coalesce(e.at, e.received_at), e.kind)
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
