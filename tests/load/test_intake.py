"""Signed notifications as fast as they come, each twice, while the API is killed once: what got a 200 is stored once and applied.
`benches/bench_intake.py` measures the rate.
"""

import asyncio
import contextlib
import signal
from pathlib import Path

import orjson
import pytest

from mailrail._core import Codec
from mailrail.config import SIMULATOR_TOPIC_ARN
from mailrail.db.pool import Pool
from tests.support.fleet import starting
from tests.support.full import FULL
from tests.support.ports import free_port
from tests.support.postgres import SECRET, Database
from tests.support.sns import certified, post_all, post_request
from tests.support.streams import make_account, make_stream
from tests.support.waiting import until
from tests.support.workers import working

pytestmark = [pytest.mark.load, pytest.mark.timeout(180)]

ENVELOPES = 20_000 if FULL else 1_500
CONNECTIONS = 32


async def test_nothing_that_was_taken_is_lost_when_the_api_is_killed(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    with certified() as authority:
        settings = database.settings(
            port=free_port(),
            sns_topics=(SIMULATOR_TOPIC_ARN,),
            sns_cert_hosts=(authority.host,),
            sns_ca_file=authority.write(tmp_path / "authority.pem"),
        )
        codec = Codec(SECRET.encode())
        async with worker_pool.acquire() as conn:
            stream = await make_stream(conn, await make_account(conn), ENVELOPES)
        requests = []
        for seq in range(1, ENVELOPES + 1):
            mail = {"tags": {"mr": [codec.tag(stream.stream_id, seq, 1)]}}
            event = orjson.dumps({"eventType": "Send", "mail": mail}).decode()
            requests.append(post_request(authority.envelope(f"m{seq}", event)))
        with contextlib.ExitStack() as running:
            api = running.enter_context(starting("api", settings, tmp_path))
            posting = asyncio.create_task(post_all([settings.port], requests, CONNECTIONS))

            async def has_begun() -> bool:
                async with worker_pool.acquire() as conn:
                    return bool(await conn.fetchval("SELECT count(*) > $1 FROM notifications", ENVELOPES // 4))

            await until(has_begun, "a part of them")
            await asyncio.to_thread(api.end, signal.SIGKILL)
            assert not posting.done()
            await asyncio.to_thread(lambda: running.enter_context(starting("api", settings, tmp_path)))
            posted = await posting
        assert set(posted.statuses) == {200}
        assert posted.lost > 0
        assert posted.taken == set(range(ENVELOPES))
        async with worker_pool.acquire() as conn:
            assert await conn.fetchval("SELECT count(*) FROM notifications") == ENVELOPES

            async def is_applied() -> bool:
                return not await conn.fetchval("SELECT EXISTS (SELECT FROM notification_queue)")

            with working(settings, tmp_path / "worker", roles="apply"):
                await until(is_applied, "the end of the applier", 60)
            assert (
                await conn.fetchval("SELECT count(*) FROM events WHERE stream_id = $1", stream.stream_id) == ENVELOPES
            )
