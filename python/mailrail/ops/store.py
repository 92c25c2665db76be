"""Every statement of operations: figures, the audit's stamp, and the hold on an installation whose database is not the latest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.emails.accepted_log import Accepted
from mailrail.emails.fold import make_due
from mailrail.emails.model import Outcome


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the whole installation, by the name that `metrics.FIGURES` explains."""

    name: str
    label: str | None
    value: float


async def ping(conn: Connection) -> None:
    """Raises what `db.pool.DATABASE_ERRORS` lists where the database does not answer."""
    await conn.execute("SELECT 1")


async def read_figures(conn: Connection) -> list[Figure]:
    """Sums over all tenants; either login role may read them."""
    rows = await conn.fetch(
        """SELECT name, label, value FROM installation_figures()
           UNION ALL SELECT name, label, value FROM webhook_figures()
           UNION ALL SELECT name, label, value FROM event_figures()"""
    )
    return [Figure(**row) for row in rows]


# —— the audit of the ledger ————————————————————————————————————————————————————————————————————————————————————————————


async def take_audit(conn: Connection, interval_s: float) -> bool:
    """Whether an audit is due and nobody else makes it; if so it is the caller's until the connection goes back."""
    taken: bool | None = await conn.fetchval(
        """SELECT pg_try_advisory_lock(hashtext('mailrail.audit')) FROM installation
           WHERE audited_at IS NULL OR audited_at <= clock_timestamp() - make_interval(secs => $1)""",
        interval_s,
    )
    return taken is True


async def note_audit(conn: Connection, violations: int) -> None:
    """An audit came to its end and found so many."""
    await conn.execute("UPDATE installation SET audited_at = clock_timestamp(), ledger_violations = $1", violations)


async def count_overdue_holds(conn: Connection, age_hours: int) -> tuple[int, int]:
    """(holds, micro-dollars in them) that are open for longer than that."""
    row = await fetch_one(
        conn,
        """SELECT count(*), coalesce(sum(amount_micros - captured_micros - released_micros), 0)::bigint
           FROM holds WHERE closed_at IS NULL AND created_at < now() - make_interval(hours => $1)""",
        age_hours,
    )
    return row[0], row[1]


# —— the hold on an installation ————————————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Hold:
    """Whether nothing is sent, since when and why; and the mark of the last release."""

    held_at: datetime | None
    held_reason: str | None
    release_mark: str | None


async def read_hold(conn: Connection) -> Hold:
    """The installation as it stands."""
    row = await fetch_one(conn, "SELECT held_at, held_reason, release_mark FROM installation")
    return Hold(**row)


async def hold_installation(conn: Connection, reason: str) -> bool:
    """Stops all sending within one round: no shard is leased from now on, and the leases there are claim nothing more.

    False where it was held before. In the caller's transaction.
    """
    status = await conn.execute(
        "UPDATE installation SET held_at = clock_timestamp(), held_reason = $1 WHERE held_at IS NULL", reason
    )
    if status != "UPDATE 1":
        return False
    ended = await conn.fetch(
        """WITH leased AS (
             SELECT stream_id, shard FROM shards WHERE lease_id IS NOT NULL ORDER BY stream_id, shard FOR UPDATE
           )
           UPDATE shards s SET epoch = s.epoch + 1, lease_id = NULL, lease_until = NULL
           FROM leased l WHERE s.stream_id = l.stream_id AND s.shard = l.shard RETURNING s.stream_id, s.shard"""
    )
    await make_due(conn, [(row["stream_id"], row["shard"]) for row in ended])
    return True


async def release_installation(conn: Connection, mark: str) -> None:
    """Sending goes on."""
    await conn.execute("UPDATE installation SET held_at = NULL, held_reason = NULL, release_mark = $1", mark)


async def skip_numbers(conn: Connection) -> None:
    """Leaves a gap in every sequence, for the numbers that a newer state of this database gave away."""
    await conn.execute("SELECT skip_numbers()")


# —— the log of accepted mail against the database ——————————————————————————————————————————————————————————————————————

# Streams whose partition retention dropped prove nothing; those of a week that is still kept must be there.
_KEPT = """r.stream_id >> 35 >= coalesce((
  SELECT min(substring(c.relname FROM '_w([0-9]+)_')::bigint) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'mailrail.claims'::regclass), 0)"""


async def find_unclaimed(conn: Connection, records: Sequence[Accepted]) -> list[int]:
    """Which of the records (by position) have no claim in this database, though it should have."""
    rows = await conn.fetch(
        f"""SELECT r.n::integer - 1 AS n
            FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) WITH ORDINALITY AS r(stream_id, shard, claim_id, n)
            WHERE {_KEPT} AND NOT EXISTS (
              SELECT FROM claims c WHERE c.stream_id = r.stream_id AND c.shard = r.shard AND c.claim_id = r.claim_id)
            ORDER BY r.n""",
        [record.stream_id for record in records],
        [record.shard for record in records],
        [record.claim_id for record in records],
    )
    return [row["n"] for row in rows]


_PREPARE_LOGGED = """
CREATE TEMP TABLE logged (
  account_id bigint, campaign_id bigint, stream_id bigint, shard integer, claim_id bigint, attempt smallint,
  claimed jsonb, accepted jsonb, unsure boolean, at timestamptz
) ON COMMIT DROP
"""


async def prepare_logged(conn: Connection) -> None:
    """Makes the table of log records, for this transaction."""
    await conn.execute(_PREPARE_LOGGED)


async def add_logged(conn: Connection, records: Sequence[dict[str, Any]]) -> None:
    """Puts records into it."""
    await conn.execute(
        """INSERT INTO logged SELECT r.* FROM jsonb_to_recordset($1) AS r(
             account_id bigint, campaign_id bigint, stream_id bigint, shard integer, claim_id bigint, attempt smallint,
             claimed jsonb, accepted jsonb, unsure boolean, at timestamptz)""",
        list(records),
    )


@dataclass(frozen=True, slots=True)
class LostCampaign:
    """A send in the log that the database knows nothing of."""

    campaign_id: int | None
    account_id: int
    stream_id: int
    accepted: int
    first_at: datetime


async def find_lost_campaigns(conn: Connection) -> list[LostCampaign]:
    """Streams of the log that this database has not, with how many recipients SES accepted of each."""
    rows = await conn.fetch(
        f"""SELECT r.campaign_id, r.account_id, r.stream_id, min(r.at) AS first_at,
              sum((SELECT coalesce(sum((a ->> 1)::integer - (a ->> 0)::integer + 1), 0)
                   FROM jsonb_array_elements(r.accepted) a))::bigint AS accepted
            FROM logged r
            WHERE {_KEPT} AND NOT EXISTS (SELECT FROM streams s WHERE s.stream_id = r.stream_id)
            GROUP BY r.campaign_id, r.account_id, r.stream_id ORDER BY min(r.at)"""
    )
    return [LostCampaign(**row) for row in rows]


# Facts that the log knows and the database does not, in an order in which each step stands on those before it.
_REPAIR_STEPS = (
    # Whole rounds that the database has need nothing, and those of streams that it has not can get nothing.
    """DELETE FROM logged r WHERE NOT EXISTS (SELECT FROM streams s WHERE s.stream_id = r.stream_id)
         OR EXISTS (SELECT FROM result_batches b WHERE b.stream_id = r.stream_id AND b.claim_id = r.claim_id)""",
    """CREATE TEMP TABLE logged_seqs ON COMMIT DROP AS
       SELECT r.account_id, r.stream_id, r.shard, r.claim_id, r.attempt, r.unsure, r.at, seq,
         EXISTS (SELECT FROM jsonb_array_elements(r.accepted) a
                 WHERE seq BETWEEN (a ->> 0)::integer AND (a ->> 1)::integer) AS accepted
       FROM logged r, jsonb_array_elements(r.claimed) c, generate_series((c ->> 0)::integer, (c ->> 1)::integer) seq""",
    "ANALYZE logged_seqs",
    # An epoch that no lease ever had: nobody acts for these claims any more.
    """INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, seqs, claimed_at, lease_until)
       SELECT stream_id, shard, claim_id, account_id, 0, -1, attempt, array_agg(seq ORDER BY seq), min(at), min(at)
       FROM logged_seqs GROUP BY stream_id, shard, claim_id, account_id, attempt
       ON CONFLICT DO NOTHING""",
    # First attempts go through a shard from its start to its end. Whom they passed since the backup without a record in
    # the log may have been written to by a worker that died before it could add one: unknown.
    """WITH reached AS (
         SELECT stream_id, shard, account_id, max(seq) AS last_seq, max(at) AS at
         FROM logged_seqs WHERE attempt = 1 GROUP BY stream_id, shard, account_id
       ), gaps AS (
         SELECT r.stream_id, r.shard, r.account_id, r.at, passed.seq
         FROM reached r JOIN shards s USING (stream_id, shard), generate_series(s.next_seq, r.last_seq) AS passed(seq)
         WHERE NOT EXISTS (SELECT FROM logged_seqs l
                           WHERE l.stream_id = r.stream_id AND l.seq = passed.seq AND l.attempt = 1)
       )
       INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, seqs, claimed_at, lease_until)
       SELECT stream_id, shard, nextval('claim_ids'), account_id, 0, -1, 1, array_agg(seq ORDER BY seq), min(at), max(at)
       FROM gaps GROUP BY stream_id, shard, account_id""",
    # Permits that these rounds had used.
    """INSERT INTO permits AS p (stream_id, seq, attempt, account_id, shard, due_at, claim_id)
       SELECT DISTINCT ON (stream_id, seq, attempt) stream_id, seq, attempt, account_id, shard, at, claim_id
       FROM logged_seqs WHERE attempt > 1 ORDER BY stream_id, seq, attempt, claim_id
       ON CONFLICT (stream_id, seq, attempt) DO UPDATE SET claim_id = excluded.claim_id WHERE p.claim_id IS NULL""",
    # Whom SES surely did not take in a round gets the next attempt, unless the log has that one too.
    f"""WITH refused AS (
         INSERT INTO results (stream_id, seq, attempt, outcome, error, at, account_id)
         SELECT stream_id, seq, attempt, {int(Outcome.DEFERRED)}, 'known from the log of accepted mail', at, account_id
         FROM logged_seqs WHERE NOT accepted AND NOT unsure
         ON CONFLICT DO NOTHING
       )
       INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at)
       SELECT stream_id, seq, attempt + 1, account_id, shard, now() FROM logged_seqs WHERE NOT accepted AND NOT unsure
       ON CONFLICT DO NOTHING""",
)

_SAVE_ACCEPTED = f"""
INSERT INTO results (stream_id, seq, attempt, outcome, at, account_id)
SELECT stream_id, seq, attempt, {int(Outcome.ACCEPTED)}, at, account_id FROM logged_seqs WHERE accepted
ON CONFLICT DO NOTHING
"""

_FINISH_STEPS = (
    """INSERT INTO result_batches (stream_id, claim_id, part, account_id)
       SELECT DISTINCT stream_id, claim_id, 0, account_id FROM logged ON CONFLICT DO NOTHING""",
    """WITH touched AS (
         SELECT stream_id, shard, max(seq) FILTER (WHERE attempt = 1) AS last_seq,
           count(*) FILTER (WHERE accepted)::integer AS accepted
         FROM logged_seqs GROUP BY stream_id, shard
       ), moved AS (
         UPDATE shards s SET next_seq = greatest(s.next_seq, t.last_seq + 1), accepted = s.accepted + t.accepted,
           wake_at = CASE WHEN s.state = 'sending' THEN now() END, submitted_at = NULL
         FROM touched t WHERE s.stream_id = t.stream_id AND s.shard = t.shard
       )
       UPDATE folds f SET due_at = now() FROM touched t WHERE f.stream_id = t.stream_id AND f.shard = t.shard""",
)


async def repair(conn: Connection) -> int:
    """Writes the rounds of table logged that this database has not, as facts; returns how many recipients turned out to be
    accepted. In the caller's transaction, after `prepare_logged` and `add_logged`.
    """
    for statement in _REPAIR_STEPS:
        await conn.execute(statement)
    saved = await conn.execute(_SAVE_ACCEPTED)
    for statement in _FINISH_STEPS:
        await conn.execute(statement)
    return int(saved.rpartition(" ")[2])


async def pause_launched(conn: Connection, campaign_ids: Sequence[int], reason: str) -> list[int]:
    """Stops drafts and schedules that were launched once already; returns their ids."""
    rows = await conn.fetch(
        """UPDATE campaigns SET status = 'paused', reason = $2
           WHERE id = ANY($1::bigint[]) AND status IN ('draft', 'scheduled') RETURNING id""",
        list(campaign_ids),
        reason,
    )
    return [row["id"] for row in rows]


async def pause_overdue_schedules(conn: Connection, reason: str) -> list[int]:
    """Stops schedules whose time has passed; returns their ids."""
    rows = await conn.fetch(
        """UPDATE campaigns SET status = 'paused', reason = $1
           WHERE status = 'scheduled' AND scheduled_at <= clock_timestamp() RETURNING id""",
        reason,
    )
    return [row["id"] for row in rows]


# —— backup and restore; all but the first three run as the owner ———————————————————————————————————————————————————————

SCHEMA = "mailrail"
# Where a restore keeps the schema that it replaces, until it has succeeded.
ASIDE = "mailrail_replaced"


async def read_sessions(conn: Connection) -> list[str]:
    """Names of the processes that are connected to this database as one of the login roles."""
    rows = await conn.fetch(
        """SELECT DISTINCT coalesce(nullif(application_name, ''), usename) AS name FROM pg_stat_activity
           WHERE datname = current_database() AND usename IN ('mailrail_api', 'mailrail_worker') ORDER BY 1"""
    )
    return [row["name"] for row in rows]


async def has_schema(conn: Connection, name: str) -> bool:
    """Whether the database has a schema of that name."""
    found: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", name)
    return found


async def read_size(conn: Connection) -> int:
    """Bytes of all tables and indexes."""
    size: int = await conn.fetchval(
        """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
           WHERE relnamespace = 'mailrail'::regnamespace AND relkind IN ('r', 'p')"""
    )
    return size


async def is_unused(conn: Connection) -> bool:
    """Whether the schema was migrated and never used."""
    if not await conn.fetchval("SELECT to_regclass('mailrail.accounts') IS NOT NULL"):
        return True
    unused: bool = await conn.fetchval("SELECT NOT EXISTS (SELECT FROM mailrail.accounts)")
    return unused


async def move_aside(conn: Connection) -> None:
    """Makes room for another schema."""
    await conn.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO {ASIDE}")


async def move_back(conn: Connection) -> None:
    """Undoes `move_aside`, and whatever took its place."""
    await conn.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    await conn.execute(f"ALTER SCHEMA {ASIDE} RENAME TO {SCHEMA}")


async def drop_aside(conn: Connection) -> None:
    """What was replaced is gone for good."""
    await conn.execute(f"DROP SCHEMA IF EXISTS {ASIDE} CASCADE")


async def insert_installation(conn: Connection, row: Mapping[str, str | None]) -> None:
    """The installation of a backup, its values as PostgreSQL's text."""
    await conn.execute(
        "INSERT INTO installation SELECT * FROM jsonb_populate_record(NULL::installation, $1)",
        {"ledger_violations": 0, **row},
    )
