"""Events by way of SQS: stored before they are deleted, whatever fails in between; against moto, by Amazon's own SDK."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from mailrail import failpoints
from mailrail._core import Codec
from mailrail.config import SIMULATOR_TOPIC_ARN, Settings
from mailrail.db.pool import Pool
from mailrail.events import queue as pulling
from mailrail.events.handlers import apply_once
from mailrail.events.queue import Puller, read_message
from mailrail.ops.store import read_figures
from tests.support.postgres import SECRET, Database
from tests.support.sqs import Queue, amazon, make_queue
from tests.support.waiting import until
from tests.support.workers import environment, working

TOPICS = frozenset({SIMULATOR_TOPIC_ARN})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where SNS and SQS are."""
    with amazon() as address:
        yield address


@pytest.fixture
def settings(database: Database, endpoint: str) -> Settings:
    """With a queue of the test's own."""
    return database.settings(
        aws_endpoint=endpoint, event_queue=f"events-{uuid.uuid4().hex[:8]}", sns_topics=(SIMULATOR_TOPIC_ARN,)
    )


@pytest.fixture(autouse=True)
async def empty(worker_pool: Pool) -> None:
    """No notifications of another test."""
    async with worker_pool.acquire() as conn:
        for table in ("notifications", "notification_queue", "parked_notifications", "event_queues"):
            await conn.execute(f"DELETE FROM {table}")


@contextlib.asynccontextmanager
async def pulled(pool: Pool, settings: Settings) -> AsyncIterator[None]:
    """Role `pull` for the length of a block."""
    task = asyncio.create_task(Puller(pool, settings).run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def stored(pool: Pool) -> dict[str, tuple[str, str]]:
    """Id → (topic, body) of what is stored; queued for the applier once each."""
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await conn.fetch("SELECT message_id, topic_arn, body FROM notifications")
        queued = await conn.fetch("SELECT message_id FROM notification_queue ORDER BY 1")
    assert [row["message_id"] for row in queued] == sorted(row["message_id"] for row in rows)
    return {row["message_id"]: (row["topic_arn"], row["body"]) for row in rows}


async def gone(queue: Queue) -> None:
    """Returns once everything is deleted."""

    async def is_empty() -> bool:
        return await asyncio.to_thread(queue.depth) == 0

    await until(is_empty, "an empty queue")


def envelope(message_id: str, text: str, topic_arn: str = SIMULATOR_TOPIC_ARN) -> str:
    """As SNS puts it into a queue."""
    return orjson.dumps(
        {"Type": "Notification", "MessageId": message_id, "TopicArn": topic_arn, "Message": text}
    ).decode()


async def test_what_is_published_is_stored_once_and_deleted(worker_pool: Pool, settings: Settings) -> None:
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN)
    texts = [f'{{"eventType":"Send","n":{n},"x":"grün"}}' for n in range(35)]
    expected = {queue.publish(text): (SIMULATOR_TOPIC_ARN, text) for text in texts}
    queue.send(envelope(next(iter(expected)), texts[0]))
    async with pulled(worker_pool, settings):
        await gone(queue)
        assert await stored(worker_pool) == expected


async def test_raw_delivery_and_a_url_do_as_well(worker_pool: Pool, settings: Settings) -> None:
    queue = make_queue(settings, settings.event_queue, f"{SIMULATOR_TOPIC_ARN}-raw", raw=True)
    queue.publish('{"eventType":"Send"}')
    async with pulled(worker_pool, replace(settings, event_queue=queue.url)):
        await gone(queue)
    assert list((await stored(worker_pool)).values()) == [("", '{"eventType":"Send"}')]


async def test_odd_messages_are_parked_and_block_nobody(worker_pool: Pool, settings: Settings) -> None:
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN)
    foreign = envelope("foreign", "{}", "arn:aws:sns:us-east-1:123456789012:other")
    odd = [
        "not json",
        "[]",
        '{"Type":"Notification"}',
        foreign,
        envelope("x" * 3000, "an id that no index holds"),
        envelope("\t", "an id of nothing"),
        envelope("nul", "a\0b"),
        "[" * 100_000,
    ]
    for body in odd:
        queue.send(body)
    good = queue.publish("{}")
    async with pulled(worker_pool, settings):
        await gone(queue)
    found = await stored(worker_pool)
    assert len(found) == len(odd) + 1
    assert found[good] == (SIMULATOR_TOPIC_ARN, "{}")
    assert found["nul"] == (SIMULATOR_TOPIC_ARN, "ab")
    async with worker_pool.acquire() as conn:
        await apply_once(conn, Codec(SECRET.encode()), settings)
        reason, body = await conn.fetchrow(  # type: ignore[misc]
            "SELECT reason, body FROM parked_notifications WHERE body LIKE '%other%'"
        )
        assert await conn.fetchval("SELECT count(*) FROM parked_notifications") == len(odd) + 1
    assert (reason, body) == ("from an SNS topic that MAILRAIL_SNS_TOPICS does not name", foreign)


def test_half_a_character_is_no_obstacle() -> None:
    body = envelope("m", "a half b").replace("half", "\\ud800")
    for text in (body, "a\ud800b\0"):
        read = read_message({"MessageId": "own", "Body": text}, TOPICS)
        assert read.body.encode()
        assert "\0" not in read.body


@pytest.mark.long
async def test_nothing_is_deleted_while_the_database_is_away(
    worker_pool: Pool, superuser_pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "RETRY_MAX_S", 1.0)
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN, visibility_s=1, receives_max=4)
    async with pulled(worker_pool, settings), superuser_pool.acquire() as superuser:
        await gone(queue)
        await superuser.execute("ALTER ROLE mailrail_worker NOLOGIN")
        try:
            await superuser.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE usename = 'mailrail_worker' AND datname = current_database()"""
            )
            published = {queue.publish("{}") for _ in range(5)}
            # Each receive costs a message one of its four lives, and a second is enough for another.
            await asyncio.sleep(6)
            assert await asyncio.to_thread(queue.depth) == 5
        finally:
            await superuser.execute("ALTER ROLE mailrail_worker LOGIN")
        await gone(queue)
    assert set(await stored(worker_pool)) == published


async def test_the_end_leaves_no_message_between_two_states(
    worker_pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine is.
    monkeypatch.setattr("mailrail.events.queue.DRAIN_S", 30.0)
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN)
    for start in range(0, 200, 10):
        entries = [{"Id": str(n), "MessageBody": envelope(f"m{start + n}", "{}")} for n in range(10)]
        queue.sqs.send_message_batch(QueueUrl=queue.url, Entries=entries)
    async with pulled(worker_pool, settings):

        async def has_begun() -> bool:
            return len(await stored(worker_pool)) >= 30

        await until(has_begun, "the first messages")
    assert len(await stored(worker_pool)) + await asyncio.to_thread(queue.depth) == 200


@pytest.mark.long
async def test_a_worker_killed_between_commit_and_delete_loses_and_doubles_nothing(
    worker_pool: Pool, settings: Settings, tmp_path: Path
) -> None:
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN, visibility_s=2)
    published = {queue.publish("{}") for _ in range(25)}
    menu = orjson.dumps({"points": {"pull.stored": {"kill": 1.0}}}).decode()
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mailrail", "worker", "--roles", "pull"],
        env=environment(settings) | {failpoints.FAILPOINTS: menu},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    before = await stored(worker_pool)
    assert 0 < len(before) <= 25
    assert await asyncio.to_thread(queue.depth) == 25
    with working(settings, tmp_path, roles="pull"):
        await gone(queue)
    assert set(await stored(worker_pool)) == published


async def test_a_queue_that_is_not_there_yet_is_waited_for(worker_pool: Pool, settings: Settings) -> None:
    async with pulled(worker_pool, settings):
        await asyncio.sleep(0.5)
        queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN)
        published = queue.publish("{}")
        await gone(queue)
    assert set(await stored(worker_pool)) == {published}


async def test_depths_are_told(worker_pool: Pool, settings: Settings) -> None:
    queue = make_queue(settings, settings.event_queue, SIMULATOR_TOPIC_ARN, receives_max=5)
    dead_url = queue.sqs.get_queue_url(QueueName=f"{settings.event_queue}-dead")["QueueUrl"]
    for _ in range(3):
        queue.sqs.send_message(QueueUrl=dead_url, MessageBody="{}")
    async with pulled(worker_pool, settings), worker_pool.acquire() as conn:

        async def is_told() -> bool:
            return bool(await conn.fetchval("SELECT EXISTS (SELECT FROM event_queues)"))

        await until(is_told, "the depth")
        figures = {(figure.name, figure.label): figure.value for figure in await read_figures(conn)}
    assert figures["event_queue_dead", settings.event_queue] == 3
    assert figures["event_queue_waiting", settings.event_queue] == 0
