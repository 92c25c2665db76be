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


async def test_a_shard_that_cannot_be_folded_stands_in_nobodys_way(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE folds SET due_at = NULL")
        broken, sound = [await make_stream(conn, await make_account(conn), 1) for _ in range(2)]
        for stream in (broken, sound):
            await add_claim(conn, stream, 0, 1, [1], 1)
            await add_result(conn, stream, 1, 1, Outcome.FAILED)
        # Money that nobody can say where it went: what is released now would be more than was held.
        await conn.execute("UPDATE holds SET captured_micros = amount_micros WHERE id = $1", broken.hold_id)
        await conn.execute("UPDATE folds SET due_at = now() - interval '1 hour' WHERE stream_id = $1", broken.stream_id)
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", sound.stream_id)
        assert await handlers.fold_once(conn)
        assert await handlers.fold_once(conn)
        assert not await handlers.fold_once(conn)
        status = "SELECT status FROM campaigns WHERE stream_id = $1"
        assert await conn.fetchval(status, sound.stream_id) == "completed"
        assert await conn.fetchval(status, broken.stream_id) == "queued"
        later = await conn.fetchval("SELECT due_at > now() FROM folds WHERE stream_id = $1", broken.stream_id)
        assert later, "it is tried again, for when somebody has put it right"
        await conn.execute("UPDATE holds SET captured_micros = 0 WHERE id = $1", broken.hold_id)
