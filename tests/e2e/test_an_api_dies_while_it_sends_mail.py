"""SIGKILL to the API while it sends transactional mail: what was answered goes out, once; what was not may be asked again."""

import asyncio
import signal
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.ses.limiter import name_of
from tests.support import fleet
from tests.support.postgres import Database

PATIENCE = {"lease_s": 3.0, "call_timeout_ms": 1000, "fence_s": 6.0, "event_lag_max_s": 2.0}
# As the fence is shorter than SNS's time-out and pauses, they are too: an event held up for longer would make a second mail.
EVENTS = {"events_timeout_ms": 1000, "events_pause_max_ms": 500}
MAIL = {"from": "you@acme.com", "subject": "Hi", "html": "<p>Hi</p>"}
LANES = 20
SETTLED_WITHIN_S = 90


def armed(point: str) -> dict[str, str]:
    return {"MAILRAIL_TEST_FAILPOINTS": orjson.dumps({"points": {point: {"kill": 1.0}}}).decode()}


async def ask(settings: Settings, key: str, name: str, to: str) -> tuple[int, Any]:
    """One request; (0, None) where the connection broke."""
    url = f"http://127.0.0.1:{settings.port}/api/v1/emails"
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": name}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={**MAIL, "to": to}, headers=headers) as got,
        ):
            return got.status, await got.json()
    except aiohttp.ClientError:
        return 0, None


async def until_polled(pool: Pool, settings: Settings) -> None:
    """SES has told what it grants."""
    polled = "SELECT EXISTS (SELECT FROM send_limits WHERE name = $1 AND polled_at IS NOT NULL)"
    while not await pool.fetchval(polled, name_of(settings)):
        await asyncio.sleep(0.1)


NEWEST = "(SELECT max(id) FROM accounts)"


async def until_settled(pool: Pool, recipients: int) -> None:
    """Every mail of the newest account is delivered, by the folded states."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    count = f"SELECT count(*) FROM recipient_state WHERE state = 8 AND account_id = {NEWEST}"
    while await pool.fetchval(count) < recipients:
        assert time.monotonic() < deadline, await pool.fetch(
            f"SELECT state, count(*) FROM recipient_state WHERE account_id = {NEWEST} GROUP BY state"
        )
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("point", ["mail.committed", "mail.answered", "mail.written"])
async def test_a_mail_whose_api_died_between_its_commits_goes_out_once(
    database: Database, worker_pool: Pool, tmp_path: Path, point: str
) -> None:
    with fleet.simulated(database, tmp_path, PATIENCE, **EVENTS) as (settings, simulator), ExitStack() as running:
        key = await fleet.add_sender(worker_pool, 10)
        running.enter_context(fleet.starting("worker", settings, tmp_path))
        await until_polled(worker_pool, settings)
        with fleet.starting("api", settings, tmp_path, **armed(point)) as doomed:
            assert await ask(settings, key, "one", "a@example.net") == (0, None)
            doomed.process.wait(10)
        running.enter_context(fleet.starting("api", settings, tmp_path))
        deadline = time.monotonic() + 20
        while (answer := await ask(settings, key, "one", "a@example.net"))[0] == 409:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        status, body = answer
        assert (status, body["status"]) == ((200, "sent") if point == "mail.written" else (202, "queued")), body
        await until_settled(worker_pool, 1)
        fleet.assert_each_got_one(simulator, 1)
        assert await worker_pool.fetchval(f"SELECT count(*) FROM mails WHERE account_id = {NEWEST}") == 1


@pytest.mark.long
async def test_killed_under_load_it_loses_nothing_that_it_answered(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    with fleet.simulated(database, tmp_path, PATIENCE, **EVENTS) as (settings, simulator), ExitStack() as running:
        fleet.set_faults(simulator, latency_ms=50)
        key = await fleet.add_sender(worker_pool, 20_000)
        running.enter_context(fleet.starting("worker", settings, tmp_path))
        await until_polled(worker_pool, settings)
        answered: dict[str, str] = {}
        asked: set[str] = set()
        stopping = asyncio.Event()

        async def lane(number: int) -> None:
            """A customer who asks again until it is answered."""
            n = 0
            while not stopping.is_set():
                n += 1
                name = uuid.uuid4().hex
                to = f"l{number}-{n}@example.net"
                asked.add(to)
                while (answer := await ask(settings, key, name, to))[0] not in (200, 202):
                    assert answer[0] in (0, 409, 503), answer
                    await asyncio.sleep(0.1)
                assert answer[1]["id"] not in answered.values()
                answered[to] = answer[1]["id"]

        lanes = [asyncio.create_task(lane(number)) for number in range(LANES)]
        for _ in range(3):
            with fleet.starting("api", settings, tmp_path) as api:
                before = len(answered)
                deadline = time.monotonic() + 30
                while len(answered) < before + 200:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)
                api.end(signal.SIGKILL)
        running.enter_context(fleet.starting("api", settings, tmp_path))
        stopping.set()
        await asyncio.gather(*lanes)
        assert set(answered) == asked
        await until_settled(worker_pool, len(asked))
        fleet.assert_each_got_one(simulator, len(asked))
        assert await worker_pool.fetchval(f"SELECT count(*) FROM mails WHERE account_id = {NEWEST}") == len(asked)
