"""Each recipient settles once: captured on its Delivery, released otherwise, and the hold closes with the last."""

from datetime import timedelta

from mailrail.db.pool import Connection, Pool
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome
from mailrail.wallet import service as wallet
from tests.support.streams import TestStream, add_claim, add_event, add_result, make_account, make_stream


async def fold_all(conn: Connection, stream: TestStream) -> None:
    await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
    while True:
        async with conn.transaction():
            if await fold.fold_next(conn) is None:
                return


async def test_delivered_is_captured_and_the_rest_released(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn, funds_micros=10_000)
        stream = await make_stream(conn, account_id, 6, shard_size=4)
        await add_claim(conn, stream, 0, 1, [1, 2, 3, 4], 1)
        await add_claim(conn, stream, 1, 1, [5, 6], 1)
        for seq in (1, 2, 3, 4):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
        await add_result(conn, stream, 5, 1, Outcome.FAILED)
        await add_result(conn, stream, 6, 1, Outcome.SKIPPED_UNSUBSCRIBED)
        await add_event(conn, stream, 1, EventKind.DELIVERY)
        await add_event(conn, stream, 2, EventKind.DELIVERY)
        await add_event(conn, stream, 2, EventKind.BOUNCE_PERMANENT)
        await add_event(conn, stream, 3, EventKind.BOUNCE_PERMANENT)
        await fold_all(conn, stream)
        before = await wallet.get_hold(conn, account_id, stream.hold_id)
        await add_event(conn, stream, 4, EventKind.RENDERING_FAILURE)
        await fold_all(conn, stream)
        after = await wallet.get_hold(conn, account_id, stream.hold_id)
        balance = await wallet.balance(conn, account_id)
        assert await wallet.audit(conn) == []
    assert (before.captured_micros, before.released_micros, before.closed_at) == (600, 900, None)
    assert (after.captured_micros, after.released_micros) == (600, 1200)
    assert after.closed_at is not None
    assert (balance.available_micros, balance.held_micros) == (9_400, 0)


async def test_a_bounce_waits_for_a_delivery_that_may_be_late(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, 2, bounce_grace=timedelta(hours=1))
        await add_claim(conn, stream, 0, 1, [1, 2], 1)
        for seq in (1, 2):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
            await add_event(conn, stream, seq, EventKind.BOUNCE_TRANSIENT, dedupe=7)
        await fold_all(conn, stream)
        hold = await wallet.get_hold(conn, account_id, stream.hold_id)
        assert (hold.captured_micros, hold.released_micros) == (0, 0)
        due_at = await conn.fetchval(
            "SELECT due_at > now() + interval '50 minutes' FROM folds WHERE stream_id = $1", stream.stream_id
        )
        assert due_at, "the fold wakes by itself when the grace ends"
        await add_event(conn, stream, 1, EventKind.DELIVERY)
        await fold_all(conn, stream)
        hold = await wallet.get_hold(conn, account_id, stream.hold_id)
        assert (hold.captured_micros, hold.released_micros) == (300, 0)


async def test_a_delivery_after_the_release_is_not_charged(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, 1)
        await add_claim(conn, stream, 0, 1, [1], 1)
        await add_result(conn, stream, 1, 1, Outcome.FAILED)
        await fold_all(conn, stream)
        await add_event(conn, stream, 1, EventKind.DELIVERY)
        await fold_all(conn, stream)
        hold = await wallet.get_hold(conn, account_id, stream.hold_id)
        state = await conn.fetchval("SELECT state FROM recipient_state WHERE stream_id = $1", stream.stream_id)
        assert await wallet.audit(conn) == []
    assert (hold.captured_micros, hold.released_micros) == (0, 300)
    assert state == 8
