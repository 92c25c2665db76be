"""A launch that is asked for again, at once or after the server died in the middle of it: one hold, and one mail for each."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from tests.support import fleet
from tests.support.postgres import Database
from tests.support.processes import wait_until

RECIPIENTS = 300
TWINS = 200
# Where the server dies → whether the launch was committed by then.
POINTS = {"launch.held": False, "answer.kept": False, "answer.committed": True}
# Of the newest account.
HOLDS = "SELECT count(*) FROM holds WHERE account_id = (SELECT max(id) FROM accounts)"


def draft(settings: Settings, key: str) -> str:
    """The path of a campaign's `send`."""
    status, made = fleet.post(settings, key, "/v1/mail/campaigns", fleet.CAMPAIGN)
    assert status == 201, made
    return f"/v1/mail/campaigns/{made['id']}/send"


async def ask(session: aiohttp.ClientSession, settings: Settings, key: str, path: str) -> tuple[int, bool, Any]:
    """(status, whether it is the answer of before, body) of one launch; all have the same Idempotency-Key."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "launch-1"}
    async with session.post(f"http://127.0.0.1:{settings.port}{path}", headers=headers) as answer:
        return answer.status, "Idempotent-Replayed" in answer.headers, await answer.json()


async def test_two_hundred_at_once_are_one_launch(database: Database, worker_pool: Pool, tmp_path: Path) -> None:
    with fleet.simulated(database, tmp_path, {}) as (settings, simulator), ExitStack() as running:
        running.enter_context(fleet.starting("api", settings, tmp_path))
        # Money for one hold, so that a second one would be refused, too.
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        path = draft(settings, key)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=TWINS)) as session:
            answers = await asyncio.gather(*(ask(session, settings, key, path) for _ in range(TWINS)))
            again = await ask(session, settings, key, path)
        [first] = [body for status, replayed, body in answers if status == 200 and not replayed]
        assert first["status"] == "sending"
        for status, replayed, body in [*answers, again]:
            if replayed:
                assert (status, body) == (200, first)
            elif body is not first:
                assert (status, body["error"]["code"]) == (409, "idempotency_key_in_use")
        assert again[1]
        assert await worker_pool.fetchval(HOLDS) == 1
        running.enter_context(fleet.starting("worker", settings, tmp_path))
        wait_until(lambda: fleet.accepted_count(simulator) >= RECIPIENTS, "all mails")
        fleet.assert_each_got_one(simulator, RECIPIENTS)


@pytest.mark.long
async def test_killed_in_the_middle_and_asked_again_it_is_one_launch(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    with fleet.simulated(database, tmp_path, {}) as (settings, simulator), ExitStack() as running:
        running.enter_context(fleet.starting("worker", settings, tmp_path))
        for point, is_committed in POINTS.items():
            armed = {"MAILRAIL_TEST_FAILPOINTS": orjson.dumps({"points": {point: {"kill": 1.0}}}).decode()}
            key = await fleet.add_sender(worker_pool, RECIPIENTS, f"{point}-{{}}@example.net")
            async with aiohttp.ClientSession() as session:
                with fleet.starting("api", settings, tmp_path, **armed) as doomed:
                    path = draft(settings, key)
                    with pytest.raises(aiohttp.ClientError):
                        await ask(session, settings, key, path)
                    assert doomed.process.wait(10) == -signal.SIGKILL
                assert await worker_pool.fetchval(HOLDS) == int(is_committed)
                with fleet.starting("api", settings, tmp_path):
                    for is_again in (is_committed, True):
                        status, replayed, body = await ask(session, settings, key, path)
                        assert (status, replayed, body["status"]) == (200, is_again, "sending"), (point, body)
            assert await worker_pool.fetchval(HOLDS) == 1
        everybody = RECIPIENTS * len(POINTS)
        wait_until(lambda: fleet.accepted_count(simulator) >= everybody, "all mails")
        fleet.assert_each_got_one(simulator, everybody)
