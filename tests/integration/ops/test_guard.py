"""The guard: what counts as a restored backup, what a hold stops, and what a release makes good."""

from pathlib import Path

import pytest

from mailrail.db.pool import Connection, Pool
from mailrail.emails import fold
from mailrail.emails import store as emails
from mailrail.emails.accepted_log import Accepted, FileLog, Released
from mailrail.emails.model import Outcome, State
from mailrail.ops import guard, store
from tests.support.streams import TestStream, make_account, make_stream

LEASE_S = 30.0


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look follows at once."""
    monkeypatch.setattr(guard, "SECOND_LOOK_S", 0.0)


@pytest.fixture(autouse=True)
async def released(worker_pool: Pool) -> None:
    """No test finds what another one held or left to send."""
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE installation SET held_at = NULL, held_reason = NULL, release_mark = NULL")
        await conn.execute("UPDATE shards SET wake_at = NULL, lease_id = NULL, lease_until = NULL")


@pytest.fixture
def log(tmp_path: Path) -> FileLog:
    """A log of its own."""
    return FileLog(tmp_path / "accepted")


@pytest.fixture
async def stream(worker_pool: Pool) -> TestStream:
    """Thirty recipients in three shards."""
    async with worker_pool.acquire() as conn:
        return await make_stream(conn, await make_account(conn), 30, shard_size=10)


async def accepted_round(conn: Connection, span: list[int], *, commit: bool) -> Accepted:
    """The record of a round of the newest stream; with `commit` the database knows its claim and its results."""
    stream_id, account_id = await conn.fetchrow("SELECT stream_id, account_id FROM streams ORDER BY created_at DESC")  # type: ignore[misc]
    claim_id = await conn.fetchval("SELECT nextval('claim_ids')")
    if commit:
        await conn.execute(
            """INSERT INTO claims (stream_id, shard, claim_id, account_id, lease_id, epoch, attempt, first_seq, last_seq)
               VALUES ($1, 0, $2, $3, 1, 1, 1, $4, $5)""",
            stream_id,
            claim_id,
            account_id,
            *span,
        )
    return record(stream_id, account_id, 0, claim_id, span, [span])


def record(
    stream_id: int,
    account_id: int,
    shard: int,
    claim_id: int,
    claimed: list[int],
    accepted: list[list[int]],
    attempt: int = 1,
    unsure: bool = False,
    campaign_id: int | None = None,
) -> Accepted:
    return Accepted(
        "1", account_id, campaign_id, stream_id, shard, claim_id, attempt, [claimed], accepted, unsure, guard.now()
    )


async def test_a_log_that_the_database_knows_holds_nothing(worker_pool: Pool, stream: TestStream, log: FileLog) -> None:
    assert await guard.watch_once(worker_pool, log)
    async with worker_pool.acquire() as conn:
        await log.append(await accepted_round(conn, [1, 5], commit=True))
    assert await guard.watch_once(worker_pool, log)


async def test_a_round_that_the_database_does_not_know_holds_the_installation(
    worker_pool: Pool, stream: TestStream, log: FileLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE shards SET wake_at = now() WHERE stream_id = $1", stream.stream_id)
        lease = await emails.take_shard(conn, LEASE_S)
        assert lease is not None
        await log.append(await accepted_round(conn, [1, 5], commit=True))
        await log.append(await accepted_round(conn, [6, 10], commit=False))
        assert not await guard.watch_once(worker_pool, log)
        hold = await store.read_hold(conn)
        assert hold.held_reason is not None
        assert hold.held_reason.startswith("SES accepted mail that this database does not know: 1 of the last 2 rounds")
        # Within the round: the lease claims nothing more, and no other shard is taken.
        assert await emails.claim_round(conn, lease, 10, LEASE_S) is None
        assert await emails.take_shard(conn, LEASE_S) is None
    assert not await guard.watch_once(worker_pool, log)
    assert caplog.text.count("Nothing is sent until") == 1


async def test_streams_that_retention_dropped_prove_nothing(worker_pool: Pool, log: FileLog) -> None:
    await log.append(record(((2000 * 8) << 32) | 1, 1, 0, 1, [1, 5], [[1, 5]]))
    assert await guard.watch_once(worker_pool, log)


async def test_an_unreadable_log_holds_nothing_and_says_so(
    worker_pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    assert await guard.watch_once(worker_pool, FileLog(tmp_path / "folder"))
    assert "the log of accepted mail cannot be read" in caplog.text


async def state_of(conn: Connection, stream: TestStream) -> dict[int, State]:
    """Folds everything that is due; seq → state of those that have one."""
    await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
    while True:
        async with conn.transaction():
            if await fold.fold_next(conn) is None:
                break
    rows = await conn.fetch("SELECT seq, state FROM recipient_state WHERE stream_id = $1", stream.stream_id)
    return {row["seq"]: State(row["state"]) for row in rows}


async def release(conn: Connection, log: FileLog, repair: bool = True) -> guard.Release:
    """As the command does it."""
    async with conn.transaction():
        return await guard.release(conn, log, repair)


async def test_a_release_makes_good_what_the_log_knows(worker_pool: Pool, stream: TestStream, log: FileLog) -> None:
    """Of the first shard's ten: 1–4 accepted but for 3, 5 and 6 without a record, 7 and 8 unsure, 9 and 10 untouched; 3 was
    accepted at its second attempt. The second shard had one refused.
    """
    of = (stream.stream_id, stream.account_id)
    for item in (
        record(*of, 0, 900_001, [1, 4], [[1, 2], [4, 4]]),
        record(*of, 0, 900_003, [7, 8], [[7, 7]], unsure=True),
        record(*of, 0, 900_004, [3, 3], [[3, 3]], attempt=2),
        record(*of, 1, 900_005, [11, 14], [[11, 13]]),
    ):
        await log.append(item)
    async with worker_pool.acquire() as conn:
        assert not await guard.watch_once(worker_pool, log)
        done = await release(conn, log)
        assert (done.was_held, done.saved, list(done.lost)) == (True, 8, [])
        states = await state_of(conn, stream)
        accepted, unknown = {1, 2, 3, 4, 7, 11, 12, 13}, {5, 6, 8}
        assert {seq for seq, state in states.items() if state is State.ACCEPTED} == accepted
        assert {seq for seq, state in states.items() if state is State.UNKNOWN} == unknown
        assert await claimable(conn, stream) == set(range(1, 31)) - accepted - unknown
        assert await conn.fetchval("SELECT nextval('claim_ids')") > 900_005
    assert await guard.watch_once(worker_pool, log)


async def claimable(conn: Connection, stream: TestStream) -> set[int]:
    """Everybody whom rounds would still be sent to."""
    found: set[int] = set()
    while (lease := await emails.take_shard(conn, LEASE_S)) is not None:
        while (claimed := await emails.claim_round(conn, lease, 100, LEASE_S)) is not None:
            seqs = claimed.seqs or range(claimed.first_seq or 0, (claimed.last_seq or 0) + 1)
            assert not found & set(seqs)
            found |= set(seqs)
        await emails.release_shard(conn, lease)
    return found


async def test_a_permit_from_before_the_backup_is_used_up_by_the_round_after_it(
    worker_pool: Pool, stream: TestStream, log: FileLog
) -> None:
    async with worker_pool.acquire() as conn:
        known = await accepted_round(conn, [1, 10], commit=True)
        await conn.execute("UPDATE shards SET next_seq = 11 WHERE stream_id = $1 AND shard = 0", stream.stream_id)
        await conn.execute(
            """INSERT INTO results (stream_id, seq, attempt, outcome, account_id)
               SELECT $1, seq, 1, CASE WHEN seq = 5 THEN $3 ELSE 1 END, $2 FROM generate_series(1, 10) seq""",
            stream.stream_id,
            stream.account_id,
            int(Outcome.DEFERRED),
        )
        await conn.execute(
            "INSERT INTO result_batches (stream_id, claim_id, part, account_id) VALUES ($1, $2, 0, $3)",
            stream.stream_id,
            known.claim_id,
            stream.account_id,
        )
        await conn.execute(
            """INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at) VALUES ($1, 5, 2, $2, 0, now())""",
            stream.stream_id,
            stream.account_id,
        )
        await log.append(known)
        await log.append(
            record(stream.stream_id, stream.account_id, 0, known.claim_id + 10, [5, 5], [[5, 5]], attempt=2)
        )
        assert not await guard.watch_once(worker_pool, log)
        assert (await release(conn, log)).saved == 1
        assert (await state_of(conn, stream))[5] is State.ACCEPTED
        assert 5 not in await claimable(conn, stream)


async def test_campaigns_that_were_launched_after_the_backup_stand_still(
    worker_pool: Pool, stream: TestStream, log: FileLog
) -> None:
    async with worker_pool.acquire() as conn:
        ids = [
            await conn.fetchval(
                """INSERT INTO campaigns (account_id, name, subject, html, status, scheduled_at)
                   VALUES ($1, 'C', 'S', 'H', $2, now() + $3::integer * interval '1 hour') RETURNING id""",
                stream.account_id,
                status,
                hours,
            )
            for status, hours in (("draft", 0), ("scheduled", 1), ("scheduled", -1), ("scheduled", 1), ("draft", 0))
        ]
        lost = stream.stream_id + 1_000_000
        await log.append(record(lost, stream.account_id, 0, 900_010, [1, 4], [[1, 4]], campaign_id=ids[0]))
        await log.append(record(lost + 1, stream.account_id, 0, 900_011, [1, 4], [[1, 3]], campaign_id=ids[1]))
        assert not await guard.watch_once(worker_pool, log)
        done = await release(conn, log)
        assert [(send.campaign_id, send.accepted) for send in done.lost] == [(ids[0], 4), (ids[1], 3)]
        assert sorted(done.paused) == sorted(ids[:3])
        rows = await conn.fetch("SELECT status FROM campaigns WHERE id = ANY($1::bigint[]) ORDER BY id", ids)
        assert [row["status"] for row in rows] == ["paused", "paused", "paused", "scheduled", "draft"]
    assert await guard.watch_once(worker_pool, log)


async def test_a_release_that_another_backup_forgets_is_missed(
    worker_pool: Pool, stream: TestStream, log: FileLog
) -> None:
    async with worker_pool.acquire() as conn:
        await log.append(await accepted_round(conn, [1, 5], commit=False))
        assert not await guard.watch_once(worker_pool, log)
        await release(conn, log)
        assert isinstance((await log.tail(1))[0], Released)
        assert await guard.watch_once(worker_pool, log)
        # The same backup once more.
        await conn.execute("UPDATE installation SET release_mark = NULL")
        assert not await guard.watch_once(worker_pool, log)
        reason = (await store.read_hold(conn)).held_reason
    assert reason is not None
    assert "this is an older state of it" in reason


async def test_a_release_of_what_is_not_held_does_nothing(worker_pool: Pool, log: FileLog) -> None:
    async with worker_pool.acquire() as conn:
        assert not (await release(conn, log)).was_held
    assert await log.tail(1) == []


async def test_a_release_without_repair_sends_to_everybody(worker_pool: Pool, stream: TestStream, log: FileLog) -> None:
    async with worker_pool.acquire() as conn:
        await log.append(await accepted_round(conn, [1, 5], commit=False))
        assert not await guard.watch_once(worker_pool, log)
        await conn.execute("UPDATE shards SET wake_at = now() WHERE stream_id = $1", stream.stream_id)
        assert (await release(conn, log, repair=False)).saved == 0
        assert await claimable(conn, stream) == set(range(1, 31))


async def test_a_lease_that_slipped_past_the_hold_ends_with_the_next_sweep(
    worker_pool: Pool, stream: TestStream
) -> None:
    async with worker_pool.acquire() as conn:
        shard = await emails.take_shard(conn, LEASE_S)
        assert shard is not None
        # As if `take_shard` had begun before the hold committed and ended after it.
        await conn.execute("UPDATE installation SET held_at = now(), held_reason = 'a test'")
        assert await emails.expire_leases(conn) == 1
        assert await emails.claim_round(conn, shard, 5, LEASE_S) is None
