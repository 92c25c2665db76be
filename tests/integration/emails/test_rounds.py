"""Lease, claim, read, write down: what a worker may do to a shard, and what it may not any more."""

import asyncio
import struct
from dataclasses import replace

import pytest

from mailrail.db.pool import Connection, Pool
from mailrail.emails import store
from mailrail.emails.model import ATTEMPTS_MAX, LeasedShard, Outcome, Round
from tests.support.streams import TestStream, make_account, make_stream

LEASE_S = 30.0
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def outcomes(stream: TestStream, rows: list[tuple[int, int, Outcome]]) -> bytes:
    """What the core hands back for (seq, attempt, outcome)."""
    encoded = [SIGNATURE]
    for seq, attempt, outcome in rows:
        encoded.append(struct.pack(">hiqiiihih", 7, 8, stream.stream_id, 4, seq, 2, attempt, 2, outcome))
        encoded.append(struct.pack(">iiiq", -1, -1, 8, stream.account_id))
    return b"".join([*encoded, b"\xff\xff"])


async def lease_next(conn: Connection) -> LeasedShard:
    shard = await store.take_shard(conn, LEASE_S)
    assert shard is not None
    return shard


async def claim(conn: Connection, shard: LeasedShard, recipients: int = 4) -> Round:
    claimed = await store.claim_round(conn, shard, recipients, LEASE_S)
    assert claimed is not None
    return claimed


@pytest.fixture
async def stream(worker_pool: Pool) -> TestStream:
    async with worker_pool.acquire() as conn:
        await conn.execute(
            "UPDATE shards SET wake_at = NULL, lease_id = NULL, lease_until = NULL"
        )  # other tests' shards sleep
        return await make_stream(conn, await make_account(conn), 10, shard_size=10)


async def test_rounds_cover_a_shard_once(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        spans = [(r.first_seq, r.last_seq) for r in [await claim(conn, shard) for _ in range(3)]]
        assert spans == [(1, 4), (5, 8), (9, 10)]
        assert await store.claim_round(conn, shard, 4, LEASE_S) is None
        assert await store.release_shard(conn, shard)
        assert await store.take_shard(conn, LEASE_S) is None


async def test_a_leased_shard_is_nobody_elses(worker_pool: Pool, stream: TestStream) -> None:
    async def take() -> LeasedShard | None:
        async with worker_pool.acquire() as conn:
            return await store.take_shard(conn, LEASE_S)

    taken = await asyncio.gather(*(take() for _ in range(8)))
    assert len([shard for shard in taken if shard is not None]) == 1


async def test_a_zombie_claims_nothing(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        zombie = await lease_next(conn)
        await claim(conn, zombie)
        await conn.execute("UPDATE shards SET lease_until = now() - interval '1 second'")
        heir = await lease_next(conn)
        assert heir.epoch == zombie.epoch + 1
        assert await store.claim_round(conn, zombie, 4, LEASE_S) is None
        assert not await store.release_shard(conn, zombie)
        assert (await claim(conn, heir)).first_seq == 5


async def test_a_paused_shard_gives_no_claim(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        await conn.execute("UPDATE shards SET state = 'paused' WHERE stream_id = $1", stream.stream_id)
        assert await store.claim_round(conn, shard, 4, LEASE_S) is None
        assert not await store.release_shard(conn, shard)


async def test_only_surely_unaccepted_ones_get_another_attempt(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        claimed = await claim(conn, shard, 10)
        told = {1: Outcome.NOT_WRITTEN, 2: Outcome.DEFERRED, 3: Outcome.UNKNOWN, 4: Outcome.HALTED}
        rows = [(seq, 1, told.get(seq, Outcome.ACCEPTED)) for seq in range(1, 11)]
        async with conn.transaction():
            await store.insert_results(conn, shard, claimed, outcomes(stream, rows))
            await store.permit_retries(conn, shard, claimed)
        assert await store.has_result_batch(conn, shard, claimed)
        again = await claim(conn, shard)
        assert (again.attempt, again.seqs) == (2, [1])  # unwritten: at once
        assert not await store.release_shard(conn, shard)  # the others wait for their pause
        await conn.execute("UPDATE permits SET due_at = now()")
        await conn.execute("UPDATE shards SET wake_at = now() WHERE stream_id = $1", stream.stream_id)
        heir = await lease_next(conn)
        assert (await claim(conn, heir)).seqs == [2, 4]
        assert await store.claim_round(conn, heir, 4, LEASE_S) is None


async def test_a_round_reads_todays_consent_for_the_frozen_address(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        ids = [
            row["contact_id"]
            for row in await conn.fetch(
                "SELECT contact_id FROM audience WHERE stream_id = $1 ORDER BY seq", stream.stream_id
            )
        ]
        await conn.execute("UPDATE contacts SET status = 'unsubscribed' WHERE id = $1", ids[0])
        await conn.execute("UPDATE contacts SET email = 'new-' || email WHERE id = $1", ids[1])
        await conn.execute("DELETE FROM contacts WHERE id = $1", ids[2])
        await conn.execute(
            "INSERT INTO suppressions (account_id, email_folded, reason) "
            "SELECT account_id, email_folded, 'bounce' FROM contacts WHERE id = $1",
            ids[3],
        )
        shard = await lease_next(conn)
        claimed = await claim(conn, shard, 10)
        rows = await store.read_round(conn, shard, claimed, [])
    skips = [
        Outcome.SKIPPED_UNSUBSCRIBED,
        Outcome.SKIPPED_ADDRESS_CHANGED,
        Outcome.SKIPPED_ERASED,
        Outcome.SKIPPED_SUPPRESSED,
    ]
    assert read_skips(rows) == {seq: skips[seq - 1] if seq <= 4 else None for seq in range(1, 11)}


def read_skips(rows: bytes) -> dict[int, int | None]:
    """seq → skip of binary COPY rows whose first and third fields they are."""
    found: dict[int, int | None] = {}
    at = len(SIGNATURE)
    while (fields := struct.unpack_from(">h", rows, at)[0]) != -1:
        at += 2
        values = []
        for _ in range(fields):
            (length,) = struct.unpack_from(">i", rows, at)
            values.append(None if length == -1 else rows[at + 4 : at + 4 + length])
            at += 4 + max(length, 0)
        assert values[0] is not None
        found[int.from_bytes(values[0])] = None if values[2] is None else int.from_bytes(values[2])
    return found


async def test_a_dead_lease_leaves_its_claims_unknown(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        await claim(conn, shard)
        await conn.execute("UPDATE shards SET lease_until = now() - interval '1 second'")
        assert await store.expire_leases(conn) == 1
        due = await conn.fetchval(
            "SELECT due_at <= clock_timestamp() FROM folds WHERE stream_id = $1", stream.stream_id
        )
    assert due


async def test_a_claim_whose_commit_went_unanswered_is_found(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        first = await claim(conn, shard)
        assert await store.find_claim(conn, shard, 0) == (first, True)
        assert await store.find_claim(conn, shard, first.claim_id) == (None, True)
        second = await claim(conn, shard)
        assert await store.find_claim(conn, shard, first.claim_id) == (second, True)
        await conn.execute("UPDATE shards SET state = 'paused' WHERE stream_id = $1", stream.stream_id)
        assert await store.find_claim(conn, shard, first.claim_id) == (second, False)
        await conn.execute("UPDATE shards SET state = 'sending' WHERE stream_id = $1", stream.stream_id)
        await conn.execute("UPDATE shards SET lease_until = now() - interval '1 second'")
        assert await store.find_claim(conn, shard, first.claim_id) == (second, False)


async def test_who_is_refused_ten_thousand_times_has_failed(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        claimed = replace(await claim(conn, shard, 10), attempt=ATTEMPTS_MAX)
        told = {3: Outcome.DEFERRED, 4: Outcome.HALTED}
        rows = [(seq, ATTEMPTS_MAX, told.get(seq, Outcome.ACCEPTED)) for seq in range(1, 11)]
        async with conn.transaction():
            await store.insert_results(conn, shard, claimed, outcomes(stream, rows))
            await store.permit_retries(conn, shard, claimed)
        permits = await conn.fetch("SELECT seq FROM permits WHERE stream_id = $1", stream.stream_id)
        assert [row["seq"] for row in permits] == [4], "resuming a halted campaign is a person's decision"
        failed = await conn.fetch(
            "SELECT seq, error FROM results WHERE stream_id = $1 AND outcome = $2",
            stream.stream_id,
            int(Outcome.FAILED),
        )
    assert [tuple(row) for row in failed] == [(3, "given up after 10000 attempts")]


async def test_the_look_up_waits_for_a_commit_under_way(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn, worker_pool.acquire() as other:
        shard = await lease_next(conn)
        open_claim = conn.transaction()
        await open_claim.start()
        claimed = await claim(conn, shard)
        looking = asyncio.create_task(store.find_claim(other, shard, 0))
        await asyncio.sleep(0.2)
        assert not looking.done()
        await open_claim.commit()
        assert await looking == (claimed, True)


async def test_a_round_that_was_never_called_is_given_back_whole(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease_next(conn)
        claimed = await claim(conn, shard)
        async with conn.transaction():
            await store.withdraw_round(conn, shard, claimed, "why")
        await claim(conn, shard, 10)
        again = await claim(conn, shard)
        assert (again.attempt, again.seqs) == (2, [1, 2, 3, 4])
        async with conn.transaction():
            await store.withdraw_round(conn, shard, again, "why")
        assert (await claim(conn, shard)).attempt == 3


async def test_late_outcomes_wake_a_shard_that_went_to_sleep_without_them(
    worker_pool: Pool, stream: TestStream
) -> None:
    async with worker_pool.acquire() as conn:
        zombie = await lease_next(conn)
        claimed = await claim(conn, zombie, 10)
        await conn.execute("UPDATE shards SET lease_until = now() - interval '1 second'")
        assert await store.expire_leases(conn) == 1
        heir = await lease_next(conn)
        assert await store.release_shard(conn, heir)
        await conn.execute("UPDATE folds SET due_at = NULL")
        rows = [(seq, 1, Outcome.DEFERRED if seq == 3 else Outcome.ACCEPTED) for seq in range(1, 11)]
        async with conn.transaction():
            await store.insert_results(conn, zombie, claimed, outcomes(stream, rows))
            await store.add_progress(conn, zombie, {Outcome.ACCEPTED: 9, Outcome.DEFERRED: 1})
            await store.permit_retries(conn, zombie, claimed)
        assert await conn.fetchval("SELECT due_at <= now() FROM folds WHERE stream_id = $1", stream.stream_id)
        await conn.execute("UPDATE permits SET due_at = now()")
        await conn.execute("UPDATE shards SET wake_at = now() WHERE wake_at IS NOT NULL")
        assert (await claim(conn, await lease_next(conn))).seqs == [3]


async def test_a_tenant_with_less_under_way_is_seen_waiting(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        first = await lease_next(conn)
        assert not await store.is_poorer_tenant_waiting(conn, first)
        await make_stream(conn, stream.account_id, 10, shard_size=5)
        assert not await store.is_poorer_tenant_waiting(conn, first), "another campaign of its own tenant is none"
        other = await make_account(conn, "Other")
        await make_stream(conn, other, 30, shard_size=10)
        assert await store.is_poorer_tenant_waiting(conn, first)
        theirs = await lease_next(conn)
        assert theirs.account_id == other
        assert not await store.is_poorer_tenant_waiting(conn, first), "both have as much under way"
        second = await lease_next(conn)
        assert second.account_id == stream.account_id
        assert await store.is_poorer_tenant_waiting(conn, second), "letting go would leave them even"
