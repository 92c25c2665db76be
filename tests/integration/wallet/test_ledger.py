"""The ledger's rules hold by constraint, whoever writes."""

import asyncio

import asyncpg
import pytest

from mailrail.db.pool import Pool
from mailrail.wallet import service as wallet
from mailrail.wallet import store
from mailrail.wallet.model import Balance, InsufficientFunds
from tests.support.streams import make_account


async def test_a_deposit_with_the_same_key_moves_money_once(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn, funds_micros=0)
        assert await wallet.deposit(conn, account_id, 5_000, "invoice 1")
        assert not await wallet.deposit(conn, account_id, 5_000, "invoice 1")
        assert await wallet.balance(conn, account_id) == Balance(5_000, 0)
        assert await wallet.audit(conn) == []


async def test_a_hold_beyond_the_balance_leaves_nothing_behind(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn, funds_micros=299)
        with pytest.raises(InsufficientFunds):
            async with conn.transaction():
                await wallet.hold(conn, account_id, 1, 300, 1)
        assert await wallet.balance(conn, account_id) == Balance(299, 0)
        assert await conn.fetchval("SELECT count(*) FROM holds WHERE account_id = $1", account_id) == 0


async def test_a_refused_hold_leaves_its_transaction_as_it_was(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn, funds_micros=600)
        async with conn.transaction():
            with pytest.raises(InsufficientFunds):
                await wallet.hold(conn, account_id, 1, 300, 3)
            await wallet.hold(conn, account_id, 2, 300, 2)
        assert await wallet.balance(conn, account_id) == Balance(0, 600)
        assert await conn.fetchval("SELECT array_agg(stream_id) FROM holds WHERE account_id = $1", account_id) == [2]


async def test_a_hold_cannot_settle_more_than_it_holds(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        stream_id = await conn.fetchval("SELECT ((week_of(now()) * 8) << 32) | 9")
        hold = await wallet.hold(conn, account_id, stream_id, 300, 2)
        await wallet.settle(conn, account_id, hold.id, 1, 0, "a")
        with pytest.raises(asyncpg.CheckViolationError):
            async with conn.transaction():
                await wallet.settle(conn, account_id, hold.id, 1, 1, "b")
        closed = await wallet.settle(conn, account_id, hold.id, 0, 1, "c")
        assert closed.closed_at is not None
        assert (await wallet.balance(conn, account_id)).held_micros == 0
        # Nobody's settlement stands behind these two: the audit must say so.
        assert await wallet.audit(conn) == [f"hold differs from its settlements (id {hold.id})"]
        await conn.execute(
            """INSERT INTO settlements (stream_id, seq, hold_id, account_id, kind)
               SELECT stream_id, seq, $1, $2, kind FROM (SELECT ((week_of(now()) * 8) << 32) | 9 AS stream_id) s,
                 (VALUES (1, 'captured'), (2, 'released')) v(seq, kind)""",
            hold.id,
            account_id,
        )
        assert await wallet.audit(conn) == []


async def test_postings_are_immutable_and_sum_to_zero(worker_pool: Pool, superuser_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("UPDATE postings SET amount_micros = 1")
        transaction = conn.transaction()
        await transaction.start()
        transfer_id = await store.insert_transfer(conn, account_id, "deposit", 10, None, "lopsided")
        await conn.execute(
            """INSERT INTO postings (transfer_id, ledger_account_id, account_id, amount_micros)
               SELECT $1, min(id), $2, 10 FROM ledger_accounts WHERE account_id = $2""",
            transfer_id,
            account_id,
        )
        with pytest.raises(asyncpg.CheckViolationError):
            await transaction.commit()
    async with superuser_pool.acquire() as conn:
        with pytest.raises(asyncpg.RestrictViolationError):
            await conn.execute("UPDATE mailrail.postings SET amount_micros = 1")


async def test_concurrent_holds_never_overdraw(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn, funds_micros=300 * 10)

    async def take(stream_id: int) -> bool:
        async with worker_pool.acquire() as conn:
            try:
                async with conn.transaction():
                    await wallet.hold(conn, account_id, stream_id, 300, 1)
            except InsufficientFunds:
                return False
            return True

    taken = await asyncio.gather(*(take(stream_id) for stream_id in range(25)))
    async with worker_pool.acquire() as conn:
        assert sum(taken) == 10
        assert await wallet.balance(conn, account_id) == Balance(0, 3_000)
        assert await wallet.audit(conn) == []
