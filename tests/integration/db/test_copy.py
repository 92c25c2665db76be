"""COPY out of the database."""

import asyncio

from mailrail.db.copy import copy_out
from mailrail.db.pool import Pool

STEPS = 200
STEP_S = 0.00005


async def test_it_gives_what_the_query_gives(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        lines = await copy_out(conn, "SELECT n, $1 FROM generate_series(1, 3) n", "x", format="csv")
        large = await copy_out(conn, "SELECT repeat('y', 1000) FROM generate_series(1, 5000)", format="csv")
    assert lines == b"1,x\n2,x\n3,x\n"
    assert large == (b"y" * 1000 + b"\n") * 5000


async def test_whoever_is_cancelled_at_any_moment_gives_the_connection_back(worker_pool: Pool) -> None:
    async def copy() -> None:
        async with worker_pool.acquire() as conn, conn.transaction():
            await copy_out(conn, "SELECT repeat('z', 1000) FROM generate_series(1, 20)", format="binary")

    await copy()
    for step in range(STEPS):
        task = asyncio.create_task(copy())
        await asyncio.sleep(step * STEP_S)
        task.cancel()
        _, left = await asyncio.wait([task], timeout=2)
        assert not left, f"cancelled after {step * STEP_S * 1000:g} ms it has not ended"
