"""What readers do is gathered, written together and not lost at the end."""

import asyncio

from mailrail.db.pool import Pool
from mailrail.tracking.model import opened
from mailrail.tracking.service import BATCH_MAX, Recorder
from tests.support.streams import make_account, make_stream


async def count(pool: Pool, stream_id: int) -> int:
    """Opens written so far."""
    async with pool.acquire() as conn:
        found: int = await conn.fetchval("SELECT count(*) FROM events WHERE stream_id = $1", stream_id)
    return found


async def test_a_full_batch_is_written_at_once_and_the_rest_at_the_end(api_pool: Pool, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn, conn.transaction():
        stream = await make_stream(conn, await make_account(conn), recipients=BATCH_MAX + 50)
    recorder = Recorder(api_pool)
    for seq in range(1, BATCH_MAX + 51):
        recorder.add(opened(stream.stream_id, seq, at_s=1))
        recorder.add(opened(stream.stream_id, seq, at_s=1))
    await recorder.stop()
    assert await count(worker_pool, stream.stream_id) == BATCH_MAX + 50


async def test_one_stream_without_a_partition_does_not_lose_the_others(api_pool: Pool, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn, conn.transaction():
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, recipients=2)
        gone = 5
        await conn.execute(
            """INSERT INTO streams (stream_id, account_id, content, identity, shard_size, bounce_grace)
               VALUES ($1, $2, '', '', 1, '0')""",
            gone,
            account_id,
        )
    recorder = Recorder(api_pool)
    for stream_id in (gone, stream.stream_id, 6):
        recorder.add(opened(stream_id, 1, at_s=1))
    await recorder.stop()
    assert await count(worker_pool, stream.stream_id) == 1
    assert recorder.dropped == 1


async def test_what_could_not_be_written_waits_for_the_database(
    api_pool: Pool, worker_pool: Pool, superuser_pool: Pool
) -> None:
    async with worker_pool.acquire() as conn, conn.transaction():
        stream = await make_stream(conn, await make_account(conn), recipients=2)
    recorder = Recorder(api_pool)
    async with superuser_pool.acquire() as conn:
        await conn.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'tests api' AND datname = current_database()"""
        )
    recorder.add(opened(stream.stream_id, 1, at_s=1))
    await asyncio.sleep(1)
    await recorder.stop()
    assert await count(worker_pool, stream.stream_id) == 1
