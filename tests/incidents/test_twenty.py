"""Twenty: Delivery and Bounce of one mail at the same time."""

import asyncio
import random

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome, State
from mailrail.wallet import service as wallet
from tests.support.streams import add_claim, add_event, add_result, make_account, make_stream

RECIPIENTS = 100


async def test_twenty_24465_delivery_and_bounce_race(worker_pool: Pool) -> None:
    """twentyhq/twenty #24465: two handlers read the row, each wrote its own verdict, and 43 of 100 bounces were lost.

    Breaks when an event changes a state instead of being added to the facts (emails/fold.py).
    """
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), RECIPIENTS)
        await conn.execute("UPDATE shards SET next_seq = last_seq + 1 WHERE stream_id = $1", stream.stream_id)
        await add_claim(conn, stream, 0, 1, range(1, RECIPIENTS + 1), 1)
        for seq in range(1, RECIPIENTS + 1):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)

    async def tell(kind: EventKind, seed: int) -> None:
        seqs = list(range(1, RECIPIENTS + 1))
        random.Random(seed).shuffle(seqs)
        async with worker_pool.acquire() as conn:
            for told, seq in enumerate(seqs):
                await add_event(conn, stream, seq, kind)
                if told % 10 == 9:
                    await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
                    async with conn.transaction():
                        await fold.fold_next(conn)

    await asyncio.gather(tell(EventKind.DELIVERY, 1), tell(EventKind.BOUNCE_PERMANENT, 2))
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
        async with conn.transaction():
            await fold.fold_next(conn)
        found = await conn.fetch("SELECT state FROM recipient_state WHERE stream_id = $1", stream.stream_id)
        assert [row["state"] for row in found] == [State.BOUNCED] * RECIPIENTS
        assert await wallet.audit(conn) == []
