"""A campaign completes when nobody in it is open, whoever died on the way there."""

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome
from mailrail.events import handlers
from tests.support.streams import add_claim, add_event, add_result, make_account, make_stream


async def test_the_sweep_completes_what_a_dead_folder_left(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 3)
        await conn.execute(
            "UPDATE shards SET next_seq = 4, submitted_at = now() WHERE stream_id = $1", stream.stream_id
        )
        await add_claim(conn, stream, 0, 1, [1, 2, 3], 1)
        for seq in (1, 2, 3):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
        for seq in (1, 2):
            await add_event(conn, stream, seq, EventKind.DELIVERY)
        status = "SELECT status FROM campaigns WHERE stream_id = $1"

        async def fold_and_die() -> None:
            await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
            async with conn.transaction():
                await fold.fold_next(conn)

        await fold_and_die()
        await handlers.complete_finished(conn)
        assert await conn.fetchval(status, stream.stream_id) == "queued", "one of them is open"
        await add_event(conn, stream, 3, EventKind.DELIVERY)
        await fold_and_die()
        assert await conn.fetchval(status, stream.stream_id) == "queued"
        await handlers.complete_finished(conn)
        assert await conn.fetchval(status, stream.stream_id) == "completed"
