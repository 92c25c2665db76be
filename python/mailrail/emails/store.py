"""A round's statements: lease, claim, read, write down. All clocks are the database's.

Numbers go into COPY statements as text because COPY takes no parameters; they are Python integers, never input.
"""

import io
import random
from collections.abc import Mapping, Sequence

from mailrail.db.copy import copy_out
from mailrail.db.pool import Connection
from mailrail.emails.fold import make_due
from mailrail.emails.model import ATTEMPTS_MAX, RETRYABLE, LeasedShard, Outcome, Round, retry_pause_s

# permits.claim_id of a permit that nobody may use any more.
WITHDRAWN = 0

RESULT_COLUMNS = ("stream_id", "seq", "attempt", "outcome", "ses_message_id", "error", "account_id")

# SES takes mail to these addresses, has it paid, and does not deliver it.
LISTED_BY_SES = "EXISTS (SELECT FROM ses_suppressions l WHERE l.email_folded = lower(a.email))"

_BUSY = """
WITH busy AS (
  SELECT account_id, count(*) AS leased FROM shards
  WHERE wake_at IS NOT NULL AND lease_until > clock_timestamp() GROUP BY account_id
)"""

# Transactional mail comes first, then tenants with fewer shards under way: a large campaign never starves a small one.
_TAKE_SHARD = f"""{_BUSY}, next AS (
  SELECT s.stream_id, s.shard FROM shards s LEFT JOIN busy b USING (account_id)
  WHERE s.wake_at <= clock_timestamp() AND s.state = 'sending'
    AND (s.lease_until IS NULL OR s.lease_until <= clock_timestamp())
    -- A restored backup sends nothing until a person has looked; one that is still being restored has no row yet.
    AND EXISTS (SELECT FROM installation WHERE held_at IS NULL)
  ORDER BY kind_of(s.stream_id) DESC, coalesce(b.leased, 0), s.wake_at, s.stream_id, s.shard
  LIMIT 1 FOR UPDATE OF s SKIP LOCKED
), taken AS (
  UPDATE shards s SET epoch = s.epoch + 1, lease_id = nextval('lease_ids'),
    lease_until = clock_timestamp() + make_interval(secs => $1)
  FROM next n WHERE s.stream_id = n.stream_id AND s.shard = n.shard
  RETURNING s.stream_id, s.shard, s.account_id, s.lease_id, s.epoch
), refold AS (
  -- What the lease before this one left without a result is unknown from now on.
  UPDATE folds f SET due_at = least(f.due_at, now()) FROM taken t
  WHERE f.stream_id = t.stream_id AND f.shard = t.shard AND t.epoch > 1
)
SELECT * FROM taken
"""


async def take_shard(conn: Connection, lease_s: float) -> LeasedShard | None:
    """Leases the next shard that has something to send; None when there is none."""
    row = await conn.fetchrow(_TAKE_SHARD, lease_s)
    return LeasedShard(**row) if row else None


async def is_poorer_tenant_waiting(conn: Connection, lease: LeasedShard) -> bool:
    """Whether another tenant has a shard to send and, once this lease were let go, no more under way than its tenant."""
    found: bool = await conn.fetchval(
        f"""{_BUSY}
           SELECT EXISTS (
             SELECT FROM shards s LEFT JOIN busy b USING (account_id)
             WHERE s.wake_at <= clock_timestamp() AND s.state = 'sending' AND s.account_id <> $1
               AND (s.lease_until IS NULL OR s.lease_until <= clock_timestamp())
               AND coalesce(b.leased, 0) < (SELECT leased FROM busy WHERE account_id = $1))""",
        lease.account_id,
    )
    return found


async def seconds_to_next_shard(conn: Connection) -> float | None:
    """When a shard next falls due or loses its lease; None without any, 0 or less for one that may be taken now."""
    seconds: float | None = await conn.fetchval(
        """SELECT extract(epoch FROM min(greatest(wake_at, lease_until)) - clock_timestamp())::float8
           FROM shards WHERE wake_at IS NOT NULL AND state = 'sending'"""
    )
    return seconds


_CLAIM_FIRST_ATTEMPTS = """
WITH claimed AS (
  UPDATE shards SET next_seq = least(next_seq + $4, last_seq + 1),
    lease_until = clock_timestamp() + make_interval(secs => $5)
  WHERE stream_id = $1 AND shard = $2 AND lease_id = $3 AND lease_until > clock_timestamp()
    AND state = 'sending' AND next_seq <= last_seq
  RETURNING account_id, lease_id, epoch, lease_until, old.next_seq AS first_seq, new.next_seq - 1 AS last_seq
)
INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, lease_until, epoch, attempt, first_seq, last_seq)
SELECT $1, $2, nextval('claim_ids'), account_id, lease_id, lease_until, epoch, 1, first_seq, last_seq FROM claimed
RETURNING claim_id, attempt, first_seq, last_seq, seqs
"""

# Silence was taken for refusal when the permit was written; if a proof of acceptance came since, the permit is withdrawn.
_CLAIM_PERMITS = f"""
WITH held AS (
  UPDATE shards SET lease_until = clock_timestamp() + make_interval(secs => $5)
  WHERE stream_id = $1 AND shard = $2 AND lease_id = $3 AND lease_until > clock_timestamp() AND state = 'sending'
  RETURNING account_id, lease_id, epoch, lease_until
), due AS (
  SELECT p.seq, p.attempt,
    EXISTS (SELECT FROM results r WHERE r.stream_id = $1 AND r.seq = p.seq AND r.outcome = {Outcome.ACCEPTED})
    OR EXISTS (SELECT FROM events e WHERE e.stream_id = $1 AND e.seq = p.seq) AS accepted
  FROM permits p, held
  WHERE p.stream_id = $1 AND p.shard = $2 AND p.claim_id IS NULL AND p.due_at <= clock_timestamp()
    AND p.attempt = (SELECT min(f.attempt) FROM permits f WHERE f.stream_id = $1 AND f.shard = $2
                     AND f.claim_id IS NULL AND f.due_at <= clock_timestamp())
  ORDER BY p.seq LIMIT $4 FOR UPDATE OF p
), round AS (
  SELECT nextval('claim_ids') AS claim_id, min(attempt) AS attempt, array_agg(seq ORDER BY seq) AS seqs
  FROM due WHERE NOT accepted HAVING count(*) > 0
), used AS (
  UPDATE permits p SET claim_id = CASE WHEN d.accepted THEN {WITHDRAWN} ELSE r.claim_id END
  FROM due d LEFT JOIN round r ON true
  WHERE p.stream_id = $1 AND p.seq = d.seq AND p.attempt = d.attempt
)
INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, lease_until, epoch, attempt, seqs)
SELECT $1, $2, r.claim_id, h.account_id, h.lease_id, h.lease_until, h.epoch, r.attempt, r.seqs FROM round r, held h
RETURNING claim_id, attempt, first_seq, last_seq, seqs
"""


async def claim_round(conn: Connection, lease: LeasedShard, recipients: int, lease_s: float) -> Round | None:
    """Claims up to `recipients` and renews the lease. Durable when it returns, and nothing may be sent before that.

    None when the lease is lost, the campaign stands still, or nothing is due.
    """
    values = (lease.stream_id, lease.shard, lease.lease_id, recipients, lease_s)
    row = await conn.fetchrow(_CLAIM_FIRST_ATTEMPTS, *values)
    if row is None:
        async with conn.transaction():
            # A proof that is being written holds this lock, and a claim that waited for it would not see it.
            await lock_shard(conn, lease)
            row = await conn.fetchrow(_CLAIM_PERMITS, *values)
    return Round(**row) if row else None


async def lock_shard(conn: Connection, lease: LeasedShard) -> None:
    """Waits in the caller's transaction for whoever writes to the shard, so that the next statement sees what they wrote:
    one that waits itself reads all other tables as they were before.
    """
    await conn.execute(
        "SELECT FROM shards WHERE stream_id = $1 AND shard = $2 FOR UPDATE", lease.stream_id, lease.shard
    )


async def find_claim(conn: Connection, lease: LeasedShard, after_claim_id: int) -> tuple[Round | None, bool]:
    """The claim behind `after_claim_id` whose commit went unanswered, if it took place, and whether it may still be sent:
    the lease holds and the campaign runs.

    Waits for the shard's row first, and so for a commit that is still under way; the claim is looked up only then,
    because a statement that waited would not see it. Renews nothing.
    """
    async with conn.transaction():
        held = await conn.fetchval(
            """SELECT lease_id IS NOT DISTINCT FROM $3 AND coalesce(lease_until > clock_timestamp(), false)
                 AND state = 'sending'
               FROM shards WHERE stream_id = $1 AND shard = $2 FOR UPDATE""",
            lease.stream_id,
            lease.shard,
            lease.lease_id,
        )
        row = await conn.fetchrow(
            """SELECT claim_id, attempt, first_seq, last_seq, seqs FROM claims
               WHERE stream_id = $1 AND shard = $2 AND lease_id = $3 AND claim_id > $4 ORDER BY claim_id DESC LIMIT 1""",
            lease.stream_id,
            lease.shard,
            lease.lease_id,
            after_claim_id,
        )
    return (Round(**row) if row else None), bool(held)


async def withdraw_round(conn: Connection, lease: LeasedShard, claimed: Round, reason: str) -> None:
    """Says of a claimed round that no call of it was ever begun: its recipients may be claimed again at once."""
    await lock_shard(conn, lease)
    await insert_result_batch(conn, lease, claimed)
    await conn.execute(
        """INSERT INTO results (stream_id, seq, attempt, outcome, error, account_id)
           SELECT $1, seq, $2, $3, $4, $5
           FROM unnest(coalesce($6::integer[], ARRAY(SELECT generate_series($7::integer, $8::integer)))) AS seq""",
        lease.stream_id,
        claimed.attempt,
        int(Outcome.NOT_WRITTEN),
        reason,
        lease.account_id,
        claimed.seqs,
        claimed.first_seq,
        claimed.last_seq,
    )
    await permit_retries(conn, lease, claimed)


async def read_round(conn: Connection, lease: LeasedShard, claimed: Round, list_ids: Sequence[int]) -> bytes:
    """The round's recipients as binary COPY rows in the layout that `Sender.submit` takes.

    The address is the frozen one; name, fields, consent and suppression are today's. A recipient who is not to be
    written to any more carries the outcome that says why.
    """
    where = (
        f"a.seq BETWEEN {claimed.first_seq} AND {claimed.last_seq}"
        if claimed.seqs is None
        else f"a.seq = ANY('{{{','.join(map(str, claimed.seqs))}}}'::integer[])"
    )
    member = (
        "NOT EXISTS (SELECT FROM list_members m WHERE m.contact_id = c.id AND m.status = 'subscribed' "
        f"AND m.list_id = ANY('{{{','.join(map(str, list_ids))}}}'::bigint[]))"
        if list_ids
        else "false"
    )
    return await copy_out(
        conn,
        f"""SELECT a.seq, {claimed.attempt}::smallint,
              (CASE WHEN c.id IS NULL THEN {Outcome.SKIPPED_ERASED}
                    WHEN c.email_folded <> lower(a.email) THEN {Outcome.SKIPPED_ADDRESS_CHANGED}
                    WHEN s.email_folded IS NOT NULL OR c.status IN ('bounced', 'complained') OR {LISTED_BY_SES}
                      THEN {Outcome.SKIPPED_SUPPRESSED}
                    WHEN c.status <> 'subscribed' OR {member} THEN {Outcome.SKIPPED_UNSUBSCRIBED} END)::smallint,
              a.contact_id, a.email, c.name, c.first_name, c.last_name, c.custom_fields, c.tracking
            FROM audience a
            LEFT JOIN contacts c ON c.id = a.contact_id AND c.account_id = a.account_id
            LEFT JOIN suppressions s ON s.account_id = a.account_id AND s.email_folded = lower(a.email)
            WHERE a.stream_id = {lease.stream_id} AND {where} ORDER BY a.seq""",
        format="binary",
    )


async def name_suppressions(conn: Connection, lease: LeasedShard, claimed: Round) -> None:
    """Notes why those of a round were suppressed whom `read_round` marked so; in the transaction of its results."""
    await conn.execute(
        f"""UPDATE results r SET error = 'suppressed: ' || coalesce(s.reason,
              CASE c.status WHEN 'bounced' THEN 'bounce' WHEN 'complained' THEN 'complaint' END,
              CASE WHEN {LISTED_BY_SES} THEN 'ses' END)
            FROM audience a
            LEFT JOIN contacts c ON c.id = a.contact_id AND c.account_id = a.account_id
            LEFT JOIN suppressions s ON s.account_id = a.account_id AND s.email_folded = lower(a.email)
            WHERE r.stream_id = $1 AND r.attempt = $2 AND r.outcome = $3 AND (r.seq BETWEEN $4 AND $5 OR r.seq = ANY($6::integer[]))
              AND a.stream_id = r.stream_id AND a.seq = r.seq""",
        lease.stream_id,
        claimed.attempt,
        int(Outcome.SKIPPED_SUPPRESSED),
        claimed.first_seq,
        claimed.last_seq,
        claimed.seqs,
    )


async def has_result_batch(conn: Connection, lease: LeasedShard, claimed: Round) -> bool:
    """Whether a commit whose answer was lost took place."""
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM result_batches WHERE stream_id = $1 AND claim_id = $2 AND part = 0)",
        lease.stream_id,
        claimed.claim_id,
    )
    return found


async def insert_results(conn: Connection, lease: LeasedShard, claimed: Round, outcomes: bytes) -> None:
    """Writes a round's outcomes as the core encoded them, and the batch row that settles an ambiguous commit."""
    await insert_result_batch(conn, lease, claimed)
    await conn.copy_to_table(
        "results", schema_name="mailrail", source=io.BytesIO(outcomes), columns=RESULT_COLUMNS, format="binary"
    )


async def insert_result_batch(conn: Connection, lease: LeasedShard, claimed: Round) -> None:
    """Marks the round's outcomes as written; a second time is a unique violation."""
    await conn.execute(
        "INSERT INTO result_batches (stream_id, claim_id, part, account_id) VALUES ($1, $2, 0, $3)",
        lease.stream_id,
        claimed.claim_id,
        lease.account_id,
    )


async def add_progress(conn: Connection, lease: LeasedShard, counts: Mapping[int, int]) -> None:
    """Adds a round's counts to what the shard shows while it is sent. Outcomes that come after the lease was lost are as
    true as any, and ask for a fold themselves, since no release will.
    """
    await conn.execute(
        """WITH added AS (
             UPDATE shards SET accepted = accepted + $3, failed = failed + $4, skipped = skipped + $5,
               unknown = unknown + $6
             WHERE stream_id = $1 AND shard = $2 RETURNING lease_id IS DISTINCT FROM $7 AS late
           )
           UPDATE folds f SET due_at = least(f.due_at, now()) FROM added a
           WHERE f.stream_id = $1 AND f.shard = $2 AND a.late""",
        lease.stream_id,
        lease.shard,
        counts.get(Outcome.ACCEPTED, 0),
        counts.get(Outcome.FAILED, 0),
        sum(n for code, n in counts.items() if Outcome.SKIPPED_SUPPRESSED <= code <= Outcome.SKIPPED_ADDRESS_CHANGED),
        counts.get(Outcome.UNKNOWN, 0),
        lease.lease_id,
    )


async def permit_retries(conn: Connection, lease: LeasedShard, claimed: Round) -> None:
    """Lets those of the round that were surely not accepted try again: unwritten ones at once, the others after a
    pause that doubles up to half a minute. The jitter is the round's, so that its recipients stay together in calls.
    After ATTEMPTS_MAX they have failed instead, but for those whose whole campaign was halted, which a person resumes.

    The caller holds the shard's lock. Who was given up as unresolved meanwhile stays so: it is final, and settled.
    """
    tireless = claimed.attempt < ATTEMPTS_MAX
    if not tireless:
        await _give_up_retrying(conn, lease, claimed)
    pause_s = retry_pause_s(claimed.attempt) * random.uniform(0.5, 1.0)  # noqa: S311
    await conn.execute(
        """WITH allowed AS (
             INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at)
             SELECT r.stream_id, r.seq, r.attempt + 1, $4, $2,
               now() + CASE r.outcome WHEN $6 THEN interval '0' ELSE make_interval(secs => $10) END
             FROM results r
             WHERE r.stream_id = $1 AND r.attempt = $3 AND r.outcome = ANY($5::smallint[])
               AND (r.seq BETWEEN $7 AND $8 OR r.seq = ANY($9::integer[]))
               AND NOT EXISTS (SELECT FROM results g WHERE g.stream_id = $1 AND g.seq = r.seq AND g.attempt = $3
                               AND g.outcome = $11)
             ON CONFLICT DO NOTHING RETURNING due_at
           )
           -- The lease may have been lost meanwhile, and the shard been put to sleep by whoever had it next.
           UPDATE shards SET wake_at = least(wake_at, (SELECT min(due_at) FROM allowed))
           WHERE stream_id = $1 AND shard = $2""",
        lease.stream_id,
        lease.shard,
        claimed.attempt,
        lease.account_id,
        [int(outcome) for outcome in RETRYABLE if tireless or outcome is Outcome.HALTED],
        int(Outcome.NOT_WRITTEN),
        claimed.first_seq,
        claimed.last_seq,
        claimed.seqs,
        pause_s,
        int(Outcome.UNRESOLVED),
    )


async def _give_up_retrying(conn: Connection, lease: LeasedShard, claimed: Round) -> None:
    """A failure beside the last refusal outranks it."""
    await conn.execute(
        """INSERT INTO results (stream_id, seq, attempt, outcome, error, account_id)
           SELECT stream_id, seq, attempt, $5, 'given up after ' || attempt || ' attempts', $4 FROM results
           WHERE stream_id = $1 AND attempt = $2 AND outcome = ANY($3::smallint[])
             AND (seq BETWEEN $6 AND $7 OR seq = ANY($8::integer[]))
           ON CONFLICT DO NOTHING""",
        lease.stream_id,
        claimed.attempt,
        [int(Outcome.NOT_WRITTEN), int(Outcome.DEFERRED)],
        lease.account_id,
        int(Outcome.FAILED),
        claimed.first_seq,
        claimed.last_seq,
        claimed.seqs,
    )


# Lets the lease go. With everything handed over the shard sleeps, or wakes for its next permit.
_RELEASE_SHARD = """
WITH released AS (
  UPDATE shards s SET lease_id = NULL, lease_until = NULL,
    wake_at = CASE WHEN s.state <> 'sending' THEN NULL WHEN s.next_seq <= s.last_seq THEN now() ELSE p.due_at END,
    submitted_at = CASE WHEN s.next_seq > s.last_seq AND p.due_at IS NULL
                   THEN coalesce(s.submitted_at, clock_timestamp()) ELSE s.submitted_at END
  FROM (SELECT min(due_at) AS due_at FROM permits
        WHERE stream_id = $1 AND shard = $2 AND claim_id IS NULL) p
  WHERE s.stream_id = $1 AND s.shard = $2 AND s.lease_id = $3
  RETURNING s.submitted_at IS NOT NULL AS submitted
), refold AS (
  UPDATE folds f SET due_at = now() FROM released WHERE f.stream_id = $1 AND f.shard = $2
)
SELECT submitted FROM released
"""


async def release_shard(conn: Connection, lease: LeasedShard) -> bool:
    """Ends the lease; True when every recipient of the shard has been handed over."""
    async with conn.transaction():
        # Else a permit that is being written would be slept through: it wakes the shard, and this puts it to sleep again.
        await lock_shard(conn, lease)
        return bool(await conn.fetchval(_RELEASE_SHARD, lease.stream_id, lease.shard, lease.lease_id))


async def expire_leases(conn: Connection) -> int:
    """Ends leases whose holder fell silent, so that their open claims show as unknown; returns how many.

    All leases while the installation is held: one may have been taken by a statement that began before the hold.
    """
    async with conn.transaction():
        rows = await conn.fetch(
            # In order and without waiting for a shard: whoever pauses or cancels a campaign locks many of them, too.
            """WITH silent AS (
                 SELECT stream_id, shard FROM shards WHERE lease_id IS NOT NULL
                   AND (lease_until <= clock_timestamp() OR EXISTS (SELECT FROM installation WHERE held_at IS NOT NULL))
                 ORDER BY stream_id, shard FOR UPDATE SKIP LOCKED
               )
               UPDATE shards s SET epoch = s.epoch + 1, lease_id = NULL, lease_until = NULL
               FROM silent t WHERE s.stream_id = t.stream_id AND s.shard = t.shard RETURNING s.stream_id, s.shard"""
        )
        if rows:
            await make_due(conn, [(row["stream_id"], row["shard"]) for row in rows])
    return len(rows)


async def system_identifier(conn: Connection) -> str:
    """Tells one PostgreSQL cluster from another; replicas have their primary's."""
    found: str = await conn.fetchval("SELECT system_identifier::text FROM pg_control_system()")
    return found
