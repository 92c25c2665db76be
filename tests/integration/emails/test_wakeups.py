"""A permit that is written while its shard goes to sleep, or is woken, must not be slept through.

Each statement here waits for a lock while another transaction writes a permit: what it read before it waited is stale.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from mailrail.campaigns import store as campaigns
from mailrail.db.pool import Connection, Pool
from mailrail.emails import store
from mailrail.emails.model import LeasedShard, Outcome
from tests.support.streams import TestStream, add_permit, add_result, make_account, make_stream

LEASE_S = 30.0


@pytest.fixture
async def stream(worker_pool: Pool) -> TestStream:
    """One shard of which everybody has been claimed."""
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE shards SET wake_at = NULL, lease_id = NULL, lease_until = NULL")
        return await make_stream(conn, await make_account(conn), 5)


async def lease(conn: Connection) -> LeasedShard:
    shard = await store.take_shard(conn, LEASE_S)
    assert shard is not None
    claimed = await store.claim_round(conn, shard, 5, LEASE_S)
    assert claimed is not None
    return shard


async def while_a_permit_is_written(
    pool: Pool, stream: TestStream, act: Callable[[Connection], Awaitable[object]]
) -> None:
    """Begins `act` after the shard was locked by whoever writes a permit, and before that is committed."""
    async with pool.acquire() as writer, pool.acquire() as conn:
        permitting = writer.transaction()
        await permitting.start()
        await writer.execute("SELECT FROM shards WHERE stream_id = $1 FOR UPDATE", stream.stream_id)
        acting = asyncio.ensure_future(act(conn))
        await asyncio.sleep(0.2)
        assert not acting.done()
        await add_permit(writer, stream, 3, 2)
        await writer.execute("UPDATE shards SET wake_at = least(wake_at, now()) WHERE stream_id = $1", stream.stream_id)
        await permitting.commit()
        await acting


async def wake_at(conn: Connection, stream: TestStream) -> datetime | None:
    woken: datetime | None = await conn.fetchval("SELECT wake_at FROM shards WHERE stream_id = $1", stream.stream_id)
    return woken


async def test_a_permit_written_while_its_shard_is_released_wakes_it(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease(conn)
        await while_a_permit_is_written(worker_pool, stream, lambda other: store.release_shard(other, shard))
        assert await wake_at(conn, stream) is not None
        again = await store.take_shard(conn, LEASE_S)
        assert again is not None
        claimed = await store.claim_round(conn, again, 5, LEASE_S)
        assert claimed is not None
        assert claimed.seqs == [3]


async def test_a_permit_written_while_its_campaign_is_resumed_wakes_it(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await lease(conn)
        async with conn.transaction():
            await campaigns.set_shard_states(conn, stream.stream_id, "paused")
        await store.release_shard(conn, shard)

        async def resume(other: Connection) -> None:
            async with other.transaction():
                await campaigns.set_shard_states(other, stream.stream_id, "sending")

        await while_a_permit_is_written(worker_pool, stream, resume)
        assert await wake_at(conn, stream) is not None


async def test_a_proof_written_while_the_permit_is_claimed_withdraws_it(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as zombie, worker_pool.acquire() as heir:
        await lease(zombie)
        await add_permit(zombie, stream, 3, 2)
        await zombie.execute("UPDATE shards SET lease_until = now() - interval '1 second'")
        shard = await store.take_shard(heir, LEASE_S)
        assert shard is not None
        writing = zombie.transaction()
        await writing.start()
        await add_result(zombie, stream, 3, 1, Outcome.ACCEPTED)
        await store.lock_shard(zombie, shard)  # as add_progress does
        claiming = asyncio.ensure_future(store.claim_round(heir, shard, 5, LEASE_S))
        await asyncio.sleep(0.2)
        assert not claiming.done()
        await writing.commit()
        assert await claiming is None


async def test_a_late_refusal_does_not_reopen_who_was_given_up(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        shard = await store.take_shard(conn, LEASE_S)
        assert shard is not None
        claimed = await store.claim_round(conn, shard, 5, LEASE_S)
        assert claimed is not None
        await add_result(conn, stream, 3, 1, Outcome.UNRESOLVED)
        async with conn.transaction():
            await store.withdraw_round(conn, shard, claimed, "the worker slept through its fence")
        permitted = await conn.fetch("SELECT seq FROM permits WHERE stream_id = $1 ORDER BY seq", stream.stream_id)
        assert [row["seq"] for row in permitted] == [1, 2, 4, 5]
