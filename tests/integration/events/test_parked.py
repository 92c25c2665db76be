"""What could not be read: it outlives its raw row, and a version that can read it applies it once."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool
from mailrail.events import parked, store
from mailrail.events.handlers import apply_once
from mailrail.events.model import PARKED_KEEP_DAYS, Notification
from tests.support.postgres import SECRET
from tests.support.streams import make_account, make_stream

CODEC = Codec(SECRET.encode())
OLD = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def empty(worker_pool: Pool) -> None:
    """Nothing of another test."""
    async with worker_pool.acquire() as conn:
        for table in ("notifications", "notification_queue", "parked_notifications"):
            await conn.execute(f"DELETE FROM {table}")


async def park(
    conn: Connection, message_id: str, body: str, reason: str = "a type that only a later version reads"
) -> None:
    """What a version before this one left behind, its raw row gone."""
    await conn.execute(
        """INSERT INTO parked_notifications (notification_id, day, message_id, reason, parked_at, topic_arn, body)
           VALUES ((SELECT coalesce(max(notification_id), 0) + 1 FROM parked_notifications), $1::timestamptz::date, $2, $3, $1, 'arn', $4)""",
        OLD,
        message_id,
        reason,
        body,
    )


async def replay(conn: Connection, **only: object) -> tuple[int, int]:
    """All of it, then the applier."""
    options = {"reason": None, "since": None, "most": 10_000} | only
    async with conn.transaction():
        done = await parked.replay(conn, **options)  # type: ignore[arg-type]
    await apply_once(conn, CODEC, Settings())
    return done


async def count(conn: Connection, table: str) -> int:
    """Rows in it."""
    found: int = await conn.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_what_can_be_read_now_is_applied_once(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 1)
        mail = {"tags": {"mr": [CODEC.tag(stream.stream_id, 1, 1)]}}
        body = orjson.dumps({"eventType": "Delivery", "mail": mail}).decode()
        for name in ("one", "one", "two"):
            await park(conn, name, body)
        assert await replay(conn) == (2, 0)
        assert await replay(conn) == (0, 0)
        # And the same by itself, as SNS may repeat it.
        await store.insert_notifications(conn, [Notification("one", "arn", body), Notification("three", "arn", body)])
        await apply_once(conn, CODEC, Settings())
        kinds = await conn.fetch("SELECT kind FROM events WHERE stream_id = $1", stream.stream_id)
        assert [row["kind"] for row in kinds] == [2]
        assert await count(conn, "parked_notifications") == 0


async def test_what_still_cannot_be_read_is_parked_since_it_was_received(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        await park(conn, "odd", "{}")
        for _ in range(2):
            assert (await replay(conn))[0] == 1
            row = await conn.fetchrow("SELECT reason, parked_at, topic_arn, body FROM parked_notifications")
            assert row is not None
            assert tuple(row) == ("no event type", OLD, "arn", "{}")
        assert await count(conn, "notification_queue") == 0


async def test_an_undone_replay_changes_nothing(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        await park(conn, "odd", "{}")
        transaction = conn.transaction()
        await transaction.start()
        assert await parked.replay(conn, None, None, 10) == (1, 0)
        await transaction.rollback()
        assert [
            await count(conn, name) for name in ("parked_notifications", "notifications", "notification_queue")
        ] == [
            1,
            0,
            0,
        ]


async def test_only_what_is_asked_for_is_replayed(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        for number in range(parked.BATCH_MAX + 5):
            await park(conn, f"a{number}", "{}", "a")
        await park(conn, "b", "{}", "b")
        async with conn.transaction():
            assert await parked.replay(conn, "b", None, 10) == (1, 0)
            assert await parked.replay(conn, None, OLD + timedelta(seconds=1), 10) == (0, 0)
            assert await parked.replay(conn, "a", OLD, parked.BATCH_MAX + 1) == (parked.BATCH_MAX + 1, 4)
        assert await count(conn, "notification_queue") == parked.BATCH_MAX + 2


async def test_parked_ones_outlive_their_raw_rows_and_end_some_day(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        await store.insert_notifications(conn, [Notification("odd", "arn", "odd")])
        await apply_once(conn, CODEC, Settings())
        await conn.execute("DELETE FROM notifications")
        [found] = await parked.overview(conn)
        assert (found.count, found.reason, found.sample) == (1, "not the JSON of an SES event", "odd")
        await store.drop_old_parked(conn)
        assert await count(conn, "parked_notifications") == 1
        await conn.execute(
            "UPDATE parked_notifications SET parked_at = now() - make_interval(days => $1)", PARKED_KEEP_DAYS + 1
        )
        await store.drop_old_parked(conn)
        assert await count(conn, "parked_notifications") == 0


async def test_who_is_erased_is_in_no_parked_body(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        await park(conn, "hers", '{"to":"Ann@Example.net"}')
        await park(conn, "his", '{"to":"bob@example.net"}')
        await store.forget_parked(conn, "ann@example.net")
        bodies = await conn.fetch("SELECT body FROM parked_notifications ORDER BY message_id")
        assert [row["body"] for row in bodies] == [None, '{"to":"bob@example.net"}']
        # The row stays and is not read again: it keeps silence from proving anything.
        assert (await replay(conn))[0] == 1
        assert await count(conn, "parked_notifications") == 2
