"""The statements of a desk of the mailroom. Each of its two commits is a handful of them, however many mails it has: between
two round trips the one thread of the API answers others, so that each costs a mail milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from uuid import UUID

import orjson

from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.mail import Mail
from mailrail.emails.model import EventKind, LeasedShard, Outcome, Round

# Small, because a shard is folded as a whole while it still fills.
SHARD_SIZE = 500
LEASED = tuple(each.name for each in fields(LeasedShard))
# Advisory lock (this, account): shared by whoever is writing mails, so that one can wait for all of them to end.
MAILS_LOCK = 0x6D61696C


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about mails before anything is written: whether sending is held, which of the domains are verified, and what
    they let be known of their mail, which of the addresses are suppressed and why, or not to be tracked, why the account may send
    nothing, and the shard under a lease that holds from now, if it is still to be had. With `has_erased` some of the addresses may be suppressed that are known by their hash alone.
    """

    is_held: bool
    verified_domains: frozenset[str]
    suppressed: Mapping[str, str]
    without_opens: frozenset[str]
    without_clicks: frozenset[str]
    untracked: frozenset[str]
    has_erased: bool
    stopped_because: str | None
    renewed: LeasedShard | None


# The shard's lease: the same one, or a new one if that ran out and nobody else wanted the shard meanwhile. Its lock is
# the first of the transaction, and `took_place` can wait for the other from now on.
_LOOK = """
WITH mine AS (
  SELECT coalesce(lease_id = $6 AND lease_until > clock_timestamp(), false) AS is_live
  FROM shards WHERE stream_id = $4 AND shard = $5 AND state = 'sending'
    AND (lease_id = $6 OR (lease_id IS NULL AND wake_at IS NULL)) FOR UPDATE
), renewed AS (
  UPDATE shards s SET lease_until = clock_timestamp() + make_interval(secs => $7),
    epoch = CASE WHEN is_live THEN epoch ELSE epoch + 1 END,
    lease_id = CASE WHEN is_live THEN lease_id ELSE nextval('lease_ids') END
  FROM mine WHERE s.stream_id = $4 AND s.shard = $5
  RETURNING s.stream_id, s.shard, s.account_id, s.lease_id, s.epoch, is_live
), refold AS (
  -- What the lease before this one left without a result is unknown from now on.
  UPDATE folds f SET due_at = least(f.due_at, now()) FROM renewed
  WHERE f.stream_id = $4 AND f.shard = $5 AND NOT is_live
)
SELECT (SELECT held_at IS NOT NULL FROM installation) AS is_held,
  ARRAY(SELECT domain FROM domains
        WHERE account_id = $1 AND domain = ANY($2::text[]) AND status = 'verified') AS verified,
  ARRAY(SELECT domain FROM domains WHERE account_id = $1 AND domain = ANY($2::text[]) AND NOT track_opens) AS without_opens,
  ARRAY(SELECT domain FROM domains WHERE account_id = $1 AND domain = ANY($2::text[]) AND NOT track_clicks) AS without_clicks,
  ARRAY(SELECT email_folded FROM contacts
        WHERE account_id = $1 AND NOT tracking AND email_folded = ANY($3::text[])) AS untracked,
  -- Who unsubscribed refused campaigns alone.
  coalesce((SELECT jsonb_object_agg(l, 'ses') FROM listed_by_ses($3::text[]) l), '{}')
    || coalesce((SELECT jsonb_object_agg(email_folded, reason) FROM suppressions
                 WHERE account_id = $1 AND email_folded = ANY($3::text[]) AND reason <> 'unsubscribe'), '{}') AS suppressed,
  EXISTS (SELECT FROM suppression_hashes WHERE account_id = $1) AS has_erased,
  (SELECT reason FROM reputations WHERE account_id = $1 AND level = 'mail_stopped') AS stopped_because,
  pg_advisory_xact_lock_shared($8, hashint8($1)),
  r.stream_id, r.shard, r.account_id, r.lease_id, r.epoch
FROM (SELECT) AS one LEFT JOIN renewed r ON true
"""


async def look(
    conn: Connection,
    account_id: int,
    domains: Sequence[str],
    folded: Sequence[str],
    shard: LeasedShard | None,
    lease_s: float,
) -> Standing:
    """`domains` are those that might cover a sender, `folded` addresses in lower case, `shard` is the one in use. Keeps the
    shard's lock; the caller is about to write mails.
    """
    row = await fetch_one(
        conn,
        _LOOK,
        account_id,
        list(domains),
        list(folded),
        None if shard is None else shard.stream_id,
        None if shard is None else shard.shard,
        None if shard is None else shard.lease_id,
        lease_s,
        MAILS_LOCK,
    )
    renewed = None if row["shard"] is None else LeasedShard(**{name: row[name] for name in LEASED})
    # A database that is still being restored has no row yet.
    return Standing(
        row["is_held"] is not False,
        frozenset(row["verified"]),
        row["suppressed"],
        frozenset(row["without_opens"]),
        frozenset(row["without_clicks"]),
        frozenset(row["untracked"]),
        row["has_erased"],
        row["stopped_because"],
        renewed,
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


async def open_shard(
    conn: Connection, account_id: int, stream_id: int, lease_s: float | None
) -> tuple[LeasedShard, UUID]:
    """The stream's next range of numbers for this process alone, and what `took_place` knows this opening by; leased, so that no
    worker takes it, unless `lease_s` is None. No number of it is left to claim by order: its claims and permits name theirs.
    """
    # One process at a time, or two would open the same.
    await conn.execute("SELECT FROM streams WHERE stream_id = $1 AND account_id = $2 FOR UPDATE", stream_id, account_id)
    row = await fetch_one(
        conn,
        """WITH opened AS (
             INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, epoch, lease_id, lease_until,
               opening_id)
             SELECT $1, n, $2, 'sending', n * $3 + 1, (n + 1) * $3, (n + 1) * $3 + 1, 1, nextval('lease_ids'),
               clock_timestamp() + make_interval(secs => $4), gen_random_uuid()
             FROM (SELECT coalesce(max(shard) + 1, 0) AS n FROM shards WHERE stream_id = $1) next
             RETURNING stream_id, shard, account_id, lease_id, epoch, opening_id
           ), folded AS (
             INSERT INTO folds (stream_id, shard, account_id, open) SELECT stream_id, shard, account_id, 0 FROM opened
           )
           SELECT * FROM opened""",
        stream_id,
        account_id,
        SHARD_SIZE,
        lease_s or 0.0,
    )
    return LeasedShard(**{name: row[name] for name in LEASED}), row["opening_id"]


# —— the first commit ————————————————————————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Placed:
    """A mail with its numbers: its addresses are `first_seq` and those behind it. The hold covers those that are `billed`."""

    mail: Mail
    first_seq: int
    hold_id: int | None
    billed: frozenset[str]

    @property
    def last_seq(self) -> int:
        """The number of its last address."""
        return self.first_seq + len(self.mail.addresses) - 1


# A row of `mail` is one address; the first of each mail has what all of them share. A claim is the first attempt of
# neighbouring numbers, under the lease that `look` or `open_shard` made.
_WRITE_MAILS = """
WITH mail AS (
  SELECT * FROM unnest($3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::timestamptz[],
    $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[])
    AS m(seq, first_seq, role, email, email_folded, hold_id, scheduled_at, sender, subject, tags, urls, content)
), addressed AS (
  INSERT INTO audience (stream_id, seq, account_id, email, hold_id) SELECT $1, seq, $2, email, hold_id FROM mail
), written AS (
  INSERT INTO mails (stream_id, seq, account_id, first_seq, role, email_folded, created_at, scheduled_at, sender, subject,
    tags, content)
  SELECT $1, seq, $2, first_seq, role, email_folded, clock_timestamp(), scheduled_at, sender, subject,
    -- A name or value has no line's end.
    CASE WHEN content IS NOT NULL THEN coalesce(string_to_array(tags, E'\\n'), '{}') END, content FROM mail
), linked AS (
  INSERT INTO mail_links (stream_id, first_seq, last_seq, account_id, urls)
  SELECT $1, first_seq, max(seq), $2, ARRAY(SELECT jsonb_array_elements_text(max(urls)::jsonb)) FROM mail
  GROUP BY first_seq HAVING max(urls) IS NOT NULL
)
INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, lease_until, epoch, attempt, first_seq, last_seq)
SELECT stream_id, shard, nextval('claim_ids'), account_id, lease_id, lease_until, epoch, 1, $16, $17
FROM shards WHERE stream_id = $1 AND shard = $15
RETURNING claim_id, attempt, first_seq, last_seq, seqs
"""


async def write_mails(
    conn: Connection,
    account_id: int,
    stream_id: int,
    placed: Sequence[Placed],
    claimed: Sequence[Placed],
    shard: LeasedShard | None,
) -> Round | None:
    """The mails, their addresses as the stream's audience, where their links lead, and the claim of those among them that are
    sent from here, all of one `shard`: None where there are none.
    """
    rows = [(item, n, role, address) for item in placed for n, (role, address) in enumerate(item.mail.addresses)]
    shared = [item.mail if n == 0 else None for item, n, _, _ in rows]
    row = await conn.fetchrow(
        _WRITE_MAILS,
        stream_id,
        account_id,
        [item.first_seq + n for item, n, _, _ in rows],
        [item.first_seq for item, *_ in rows],
        [role for _, _, role, _ in rows],
        [address for *_, address in rows],
        [address.lower() for *_, address in rows],
        [item.hold_id if address in item.billed else None for item, _, _, address in rows],
        [item.mail.scheduled_at for item, *_ in rows],
        [mail and mail.sender for mail in shared],
        [mail and mail.subject for mail in shared],
        [mail and ("\n".join(mail.tags) or None) for mail in shared],
        [orjson.dumps(mail.links).decode() if mail and mail.links else None for mail in shared],
        [mail and mail.content for mail in shared],
        shard.shard if shard is not None and claimed else None,
        claimed[0].first_seq if claimed else None,
        max((item.last_seq for item in claimed), default=None),
    )
    return None if row is None else Round(**row)


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


async def took_place(conn: Connection, shard: LeasedShard, opening_id: UUID, first_seq: int) -> bool:
    """Whether the transaction that wrote this mail was committed although its answer was lost. Waits for its end first:
    a statement that did not would not see it. The number alone proves nothing: where the opening of the shard was undone,
    another process may have opened it since, and given the number to a mail of its own.
    """
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1, hashint8($2))", MAILS_LOCK, shard.account_id)
        found: bool = await conn.fetchval(
            """SELECT EXISTS (SELECT FROM shards s JOIN mails m ON m.stream_id = s.stream_id AND m.seq = $4
                              WHERE s.stream_id = $1 AND s.shard = $2 AND s.opening_id = $3)""",
            shard.stream_id,
            shard.shard,
            opening_id,
            first_seq,
        )
    return found


# —— the second commit ———————————————————————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Answered:
    """What an attempt at one address came to."""

    seq: int
    outcome: Outcome
    ses_message_id: str | None
    error: str | None


# The batch row settles an ambiguous commit. Then the shard: a claim that waits for its lock sees the results. What comes
# after the lease was lost asks for its fold at once, since no release will; else there is one now and then.
_WRITE_ANSWERS = """
WITH batch AS (
  INSERT INTO result_batches (stream_id, claim_id, part, account_id) VALUES ($1, $3, 0, $4)
  ON CONFLICT DO NOTHING RETURNING claim_id
), told AS (
  INSERT INTO results (stream_id, seq, attempt, outcome, ses_message_id, error, account_id)
  SELECT $1, seq, $5, outcome, ses_message_id, error, $4
  FROM batch, unnest($6::integer[], $7::smallint[], $8::text[], $9::text[]) AS r(seq, outcome, ses_message_id, error)
), counted AS (
  UPDATE shards SET accepted = accepted + $10, failed = failed + $11, skipped = skipped + $12, unknown = unknown + $13
  FROM batch WHERE stream_id = $1 AND shard = $2 RETURNING lease_id IS DISTINCT FROM $14 AS is_late
), refold AS (
  UPDATE folds f SET due_at = least(f.due_at, CASE WHEN c.is_late THEN now()
    ELSE greatest(clock_timestamp(), f.folded_at + make_interval(secs => $15)) END)
  FROM counted c WHERE f.stream_id = $1 AND f.shard = $2
)
SELECT EXISTS (SELECT FROM batch)
"""


async def write_answers(
    conn: Connection,
    shard: LeasedShard,
    claimed: Round,
    answers: Sequence[Answered],
    counts: Mapping[Outcome, int],
    fold_interval_s: float,
) -> bool:
    """Results of a round, what the shard shows of them, and a fold within the interval. False where a commit whose answer was
    lost wrote them before. Keeps the shard's lock.
    """
    written: bool = await conn.fetchval(
        _WRITE_ANSWERS,
        shard.stream_id,
        shard.shard,
        claimed.claim_id,
        shard.account_id,
        claimed.attempt,
        [answer.seq for answer in answers],
        [int(answer.outcome) for answer in answers],
        [answer.ses_message_id for answer in answers],
        [answer.error for answer in answers],
        counts.get(Outcome.ACCEPTED, 0),
        counts.get(Outcome.FAILED, 0),
        counts.get(Outcome.SKIPPED_SUPPRESSED, 0),
        counts.get(Outcome.UNKNOWN, 0),
        shard.lease_id,
        fold_interval_s,
    )
    return written


async def insert_played_events(conn: Connection, shard: LeasedShard, played: Sequence[tuple[int, EventKind]]) -> None:
    """What would have come from SES, for mail of a test key: (number, kind)."""
    await conn.execute(
        """INSERT INTO events (stream_id, seq, kind, account_id, attempt, at)
           SELECT $1, seq, kind, $2, 1, now() FROM unnest($3::integer[], $4::smallint[]) AS e(seq, kind)""",
        shard.stream_id,
        shard.account_id,
        [seq for seq, _ in played],
        [int(kind) for _, kind in played],
    )
