"""Whoever moves money locks in one order: launches, folds, refunds and deposits of an account never wait in a ring."""

import asyncio

from mailrail.db.pool import Connection, Pool
from mailrail.wallet import service as wallet
from mailrail.wallet.model import Settlement
from tests.support.streams import make_account

ROUNDS = 20
FOLDS = 3


async def test_nobody_is_undone_by_a_deadlock(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        await wallet.set_cap(conn, account_id, 10**12)
        first, retried = [
            await wallet.hold(conn, account_id, await new_stream(conn), 300, 2 * ROUNDS * FOLDS) for _ in range(2)
        ]

    async def fold(number: int) -> None:
        """A shard with recipients of both holds, some delivered and some not."""
        for batch in range(ROUNDS):
            settled = [
                Settlement(hold.id, captured, 1 - captured, f"{hold.id}:{number}:{batch}")
                for hold, captured in ((retried, batch % 2), (first, 1 - batch % 2))
            ]
            async with worker_pool.acquire() as conn, conn.transaction():
                await wallet.settle_all(conn, account_id, settled if number else settled[:1])

    async def launch() -> None:
        for _ in range(ROUNDS):
            async with worker_pool.acquire() as conn, conn.transaction():
                await wallet.hold(conn, account_id, await new_stream(conn), 300, 5)

    async def pay() -> None:
        for batch in range(ROUNDS):
            async with worker_pool.acquire() as conn, conn.transaction():
                await wallet.deposit(conn, account_id, 5, f"pay {batch}")

    await asyncio.gather(*(fold(number) for number in range(FOLDS)), launch(), launch(), pay())


async def new_stream(conn: Connection) -> int:
    """A number of this week."""
    return int(await conn.fetchval("SELECT new_stream_id(0)"))
