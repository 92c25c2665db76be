"""Whoever writes an event asks for its fold, whatever happens to others who ask for the same one."""

import asyncio
import contextlib
import random
import time

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.events import store
from tests.support.streams import make_account, make_stream

SHARDS = 12
SECONDS = 4


class Undone(Exception):
    """A transaction that comes to nothing."""


async def test_no_mark_is_lost_to_a_rollback_of_others(worker_pool: Pool) -> None:
    lost: list[int] = []
    marked = 0
    over_at = time.monotonic() + SECONDS
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), SHARDS, shard_size=1)
        # One in another partition, as transactional mail is.
        other_id = stream.stream_id + (1 << 32)
        await conn.execute(
            """INSERT INTO streams (stream_id, account_id, content, identity, shard_size, bounce_grace)
               VALUES ($1, $2, '{}', '{}', 1, interval '0')""",
            other_id,
            stream.account_id,
        )
        await conn.execute(
            "INSERT INTO folds (stream_id, shard, account_id, open) SELECT $1, n, $2, 0 FROM generate_series(0, $3::integer) n",
            other_id,
            stream.account_id,
            SHARDS - 1,
        )

    async def apply() -> None:
        nonlocal marked
        async with worker_pool.acquire() as conn:
            while time.monotonic() < over_at:
                every = [(stream_id, seq) for stream_id in (stream.stream_id, other_id) for seq in range(1, SHARDS + 1)]
                touched = random.sample(every, random.randint(1, 5))
                with contextlib.suppress(Undone):
                    async with conn.transaction():
                        await store.prepare_staging(conn)
                        await conn.copy_records_to_table("incoming", columns=["stream_id", "seq"], records=touched)
                        await asyncio.sleep(random.random() * 0.01)
                        await store.mark_folds_due(conn)
                        if random.random() < 0.4:
                            raise Undone
                        rows = await conn.fetch(
                            """SELECT shard FROM folds JOIN unnest($1::bigint[], $2::integer[]) AS t(stream_id, shard)
                               USING (stream_id, shard) WHERE due_at IS NULL""",
                            [stream_id for stream_id, _ in touched],
                            [seq - 1 for _, seq in touched],
                        )
                        lost.extend(row["shard"] for row in rows)
                        marked += len(touched)

    async def fold_all() -> None:
        async with worker_pool.acquire() as conn:
            while time.monotonic() < over_at:
                # A fold's locks, and what it leaves behind where nothing is open.
                async with conn.transaction():
                    due = await conn.fetchrow(fold._TAKE_FOLD)
                    await asyncio.sleep(random.random() * 0.01)
                    if due is not None:
                        await conn.execute(
                            "UPDATE folds SET due_at = NULL, folded_at = now() - interval '1 minute' WHERE stream_id = $1 AND shard = $2",
                            due["stream_id"],
                            due["shard"],
                        )

    await asyncio.gather(*(apply() for _ in range(3)), *(fold_all() for _ in range(4)))
    assert marked > 100
    assert lost == []
