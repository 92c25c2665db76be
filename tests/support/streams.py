"""Accounts, streams and facts written straight into the tables, for tests of what is computed from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mailrail.db.pool import Connection
from mailrail.emails.model import Outcome
from mailrail.wallet import service as wallet


@dataclass(frozen=True, slots=True)
class TestStream:
    """A campaign under way, with `recipients` in shards of `shard_size`."""

    __test__ = False

    stream_id: int
    account_id: int
    hold_id: int
    recipients: int
    shard_size: int


async def make_account(conn: Connection, name: str = "Acme", funds_micros: int = 1_000_000_000) -> int:
    """A funded account."""
    account_id: int = await conn.fetchval("INSERT INTO accounts (name) VALUES ($1) RETURNING id", name)
    await wallet.open_wallet(conn, account_id)
    if funds_micros:
        await wallet.deposit(conn, account_id, funds_micros, f"opening:{account_id}")
    return account_id


async def make_stream(
    conn: Connection,
    account_id: int,
    recipients: int,
    shard_size: int = 1000,
    bounce_grace: timedelta = timedelta(0),
) -> TestStream:
    """A started campaign whose audience is `recipients` new contacts."""
    stream_id: int = await conn.fetchval(
        "SELECT ((week_of(now()) * 8) << 32) | (1000000 + (SELECT count(*) FROM streams))::bigint"
    )
    hold = await wallet.hold(conn, account_id, stream_id, 300, recipients)
    campaign_id = await conn.fetchval(
        """INSERT INTO campaigns (account_id, name, subject, html, status, stream_id, hold_id, audience_count, sent_at)
           VALUES ($1, 'Test', 'Hi', '<p>Hi</p>', 'queued', $2, $3, $4, now()) RETURNING id""",
        account_id,
        stream_id,
        hold.id,
        recipients,
    )
    await conn.execute(
        """INSERT INTO streams (stream_id, account_id, campaign_id, content, identity, shard_size, bounce_grace)
           VALUES ($1, $2, $3, '{}', '{}', $4, $5)""",
        stream_id,
        account_id,
        campaign_id,
        shard_size,
        bounce_grace,
    )
    await conn.execute(
        """WITH c AS (
             INSERT INTO contacts (account_id, email, name)
             SELECT $2, 'p' || $1::bigint || '-' || n || '@example.net', 'Person ' || n FROM generate_series(1, $3::integer) n
             RETURNING id, email
           )
           INSERT INTO audience (stream_id, seq, account_id, contact_id, email)
           SELECT $1, row_number() OVER (ORDER BY id), $2, id, email FROM c""",
        stream_id,
        account_id,
        recipients,
    )
    await conn.execute(
        """INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, wake_at)
           SELECT $1, s, $2, 'sending', s * $4 + 1, least((s + 1) * $4, $3), s * $4 + 1, now()
           FROM generate_series(0, ($3 - 1) / $4) s""",
        stream_id,
        account_id,
        recipients,
        shard_size,
    )
    await conn.execute(
        "INSERT INTO folds (stream_id, shard, account_id, open) "
        "SELECT stream_id, shard, account_id, last_seq - first_seq + 1 FROM shards WHERE stream_id = $1",
        stream_id,
    )
    return TestStream(stream_id, account_id, hold.id, recipients, shard_size)


async def add_result(
    conn: Connection, stream: TestStream, seq: int, attempt: int, outcome: Outcome, ago: timedelta = timedelta(0)
) -> None:
    """What an attempt came to."""
    await conn.execute(
        """INSERT INTO results (stream_id, seq, attempt, outcome, account_id, error, at)
           VALUES ($1, $2, $3, $4, $5, 'why', now() - $6::interval)""",
        stream.stream_id,
        seq,
        attempt,
        int(outcome),
        stream.account_id,
        ago,
    )


async def add_event(
    conn: Connection, stream: TestStream, seq: int, kind: int, dedupe: int = 0, ago: timedelta = timedelta(0)
) -> None:
    """What SES told."""
    await conn.execute(
        """INSERT INTO events (stream_id, seq, kind, dedupe, account_id, attempt, at, received_at)
           VALUES ($1, $2, $3, $4, $5, 1, now() - $6::interval, now() - $6::interval) ON CONFLICT DO NOTHING""",
        stream.stream_id,
        seq,
        kind,
        dedupe,
        stream.account_id,
        ago,
    )


async def add_claim(
    conn: Connection,
    stream: TestStream,
    shard: int,
    attempt: int,
    seqs: Sequence[int],
    epoch: int,
    lease_over: timedelta = timedelta(0),
) -> None:
    """A durable claim, whose lease ended so long ago."""
    await conn.execute(
        """INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, seqs, claimed_at, lease_until)
           VALUES ($1, $2, nextval('claim_ids'), $3, 1, $4, $5, $6, now() - $7::interval - interval '30 seconds',
                   now() - $7::interval)""",
        stream.stream_id,
        shard,
        stream.account_id,
        epoch,
        attempt,
        list(seqs),
        lease_over,
    )


async def add_permit(
    conn: Connection,
    stream: TestStream,
    seq: int,
    attempt: int,
    claim_id: int | None = None,
    hold_id: int | None = None,
) -> None:
    """Leave for one more attempt."""
    await conn.execute(
        """INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at, hold_id, claim_id)
           VALUES ($1, $2, $3, $4, $5, now(), $6, $7)""",
        stream.stream_id,
        seq,
        attempt,
        stream.account_id,
        (seq - 1) // stream.shard_size,
        hold_id,
        claim_id,
    )
