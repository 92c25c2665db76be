"""Silence where events should be: noticed, told, and tried out by a canary."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from mailrail import doctor
from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool
from mailrail.emails.model import Outcome
from mailrail.events import store
from mailrail.events.handlers import apply_once
from mailrail.events.model import Notification, Pipeline, Silence
from tests.support.postgres import SECRET
from tests.support.streams import TestStream, add_claim, add_result, make_account, make_stream

SILENCE_S = 600.0
LONG_AGO = timedelta(minutes=20)


@pytest.fixture
async def conn(worker_pool: Pool) -> AsyncIterator[Connection]:
    """A database that knows of no mail and of no event."""
    async with worker_pool.acquire() as connection:
        await connection.execute("DELETE FROM claims")
        await connection.execute("DELETE FROM canaries")
        await connection.execute("UPDATE event_pipeline SET heard_at = NULL, silent_since = NULL, looked_at = NULL")
        yield connection


async def sent(conn: Connection, ago: timedelta = LONG_AGO, outcome: Outcome = Outcome.ACCEPTED) -> TestStream:
    """A mail of which we have this answer for so long."""
    stream = await make_stream(conn, await make_account(conn), 1)
    await add_claim(conn, stream, 0, 1, [1], 1, lease_over=ago)
    await add_result(conn, stream, 1, 1, outcome, ago)
    return stream


async def look(conn: Connection) -> Silence | None:
    """A look that is due."""
    await conn.execute("UPDATE event_pipeline SET looked_at = NULL")
    return await store.look_for_silence(conn, 30, SILENCE_S)


async def test_accepted_mail_and_no_event_is_silence_until_one_comes(conn: Connection) -> None:
    stream = await sent(conn)
    silence = await look(conn)
    assert silence is not None
    assert (silence.stream_id, silence.wants_canary) == (stream.stream_id, True)
    assert (await store.read_pipeline(conn)).silent_since == silence.since
    # Nobody else looks at once, and one canary is enough.
    assert await store.look_for_silence(conn, 30, SILENCE_S) is None
    await conn.execute("INSERT INTO canaries (configuration_set) VALUES ('')")
    again = await look(conn)
    assert again is not None
    assert not again.wants_canary
    tag = Codec(SECRET.encode()).tag(stream.stream_id, 1, 1)
    body = '{"eventType":"Send","mail":{"tags":{"mr":["%s"]}}}' % tag  # noqa: UP031  # braces
    await store.insert_notifications(conn, [Notification("m", "arn", body)])
    await apply_once(conn, Codec(SECRET.encode()), Settings())
    assert (await store.read_pipeline(conn)).silent_since is None
    assert await look(conn) is None


async def test_what_proves_nothing_is_no_silence(conn: Connection) -> None:
    assert await look(conn) is None
    await sent(conn, timedelta(minutes=5))
    await sent(conn, LONG_AGO, Outcome.UNKNOWN)
    await sent(conn, timedelta(days=2))
    played = await sent(conn)
    await conn.execute("UPDATE streams SET is_test = true WHERE stream_id = $1", played.stream_id)
    assert await look(conn) is None
    await sent(conn)
    await conn.execute("UPDATE event_pipeline SET heard_at = now() - interval '10 minutes'")
    assert await look(conn) is None


def test_doctor_says_what_to_do() -> None:
    well = Pipeline(heard_at=None, silent_since=None, canary_at=None, parked=0, dead=0)
    assert list(doctor.event_findings(well)) == []


async def test_doctor_tells_of_silence_dead_letters_and_parked_ones(conn: Connection) -> None:
    await sent(conn)
    await look(conn)
    await conn.execute("INSERT INTO canaries (configuration_set) VALUES ('')")
    await conn.execute("INSERT INTO event_queues (name, waiting, in_flight, dead) VALUES ('events', 0, 0, 3)")
    await conn.execute(
        "INSERT INTO parked_notifications (notification_id, day, message_id, reason) VALUES (1, current_date, 'p', 'odd')"
    )
    silent, dead, parked = doctor.event_findings(await store.read_pipeline(conn))
    assert (silent.good, dead.good, parked.good) == (False, False, True)
    assert "the canary sent at" in silent.remedy
    assert "doctor --aws" in silent.remedy
    assert "3 messages in the dead-letter queue" in dead.what
    assert "start-message-move-task" in dead.remedy
    assert "1 notifications parked unread" in parked.what
