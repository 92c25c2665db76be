"""Twilio: charged, not written down, charged again."""

import asyncio

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome
from mailrail.wallet import service as wallet
from tests.support.streams import add_claim, add_event, add_result, make_account, make_stream

RECIPIENTS = 50


class Crash(Exception):
    """The process ends before its commit."""


async def test_twilio_2013_charged_before_the_balance_was_written(worker_pool: Pool) -> None:
    """2013: the card was charged, the balance could not be written, and the job tried again, and again.

    Charge, balance and state are one transaction here, and its key names the recipients. Breaks when a settlement has no
    key per recipient and hold, or the transfer is posted outside the fold's transaction (emails/fold.py).
    """
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, RECIPIENTS)
        await conn.execute("UPDATE shards SET next_seq = last_seq + 1 WHERE stream_id = $1", stream.stream_id)
        await add_claim(conn, stream, 0, 1, range(1, RECIPIENTS + 1), 1)
        for seq in range(1, RECIPIENTS + 1):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
            await add_event(conn, stream, seq, EventKind.DELIVERY)

    async def fold_once(*, crash: bool) -> None:
        async with worker_pool.acquire() as conn:
            await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
            try:
                async with conn.transaction():
                    await fold.fold_next(conn)
                    if crash:
                        raise Crash
            except Crash:
                pass

    for _ in range(3):
        await fold_once(crash=True)
    async with worker_pool.acquire() as conn:
        assert (await wallet.get_hold(conn, account_id, stream.hold_id)).captured_micros == 0
    await asyncio.gather(*(fold_once(crash=False) for _ in range(5)))
    async with worker_pool.acquire() as conn:
        hold = await wallet.get_hold(conn, account_id, stream.hold_id)
        assert (hold.captured_micros, hold.released_micros) == (RECIPIENTS * 300, 0)
        assert await wallet.audit(conn) == []
