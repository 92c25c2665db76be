"""Single mails are accepted within a second while the same account's campaign of 100,000 uses up what SES grants.

A mail is accepted when its answer says that it was sent, or that it is queued. Each is due at its time, however long the one
before takes, so a server that stands still for a while is seen in all mails of that while.
"""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.wallet import service as wallet
from tests.support import fleet
from tests.support.load import Load, http_request, put_load
from tests.support.postgres import Database
from tests.support.processes import wait_until

pytestmark = [pytest.mark.load, pytest.mark.timeout(280)]

RECIPIENTS = 100_000
RATE = 1000
# Twenty mails a second.
CONNECTIONS = 10
EVERY_S = 0.5
SECONDS = 25.0
# The machine has other work: what it does to a p99 goes away.
ATTEMPTS = 3
ACCEPTED_P99_MAX_MS = 1000
QUOTA_USED_MIN = 0.9
MAIL = {
    "to": "user@example.com",
    "from": "orders@acme.com",
    "subject": "Your order",
    "html": "<p>It is on its way.</p>",
}
SIZES = {"round_size": Settings().round_size, "shard_size": Settings().shard_size}


@pytest.mark.long
async def test_a_mail_is_accepted_within_a_second_while_a_campaign_runs(
    database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    with (
        fleet.simulated(database, tmp_path, SIZES, max_send_rate=RATE) as (settings, simulator),
        ExitStack() as running,
    ):
        running.enter_context(fleet.starting("api", settings, tmp_path))
        running.enter_context(fleet.starting("worker", settings, tmp_path))
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        async with worker_pool.acquire() as conn, conn.transaction():
            account_id = await conn.fetchval("SELECT max(id) FROM accounts")
            await wallet.deposit(conn, account_id, 300 * RECIPIENTS, "for mail")
        fleet.send_campaign(settings, key)
        wait_until(lambda: fleet.accepted_count(simulator) > RATE, "the campaign's first seconds")
        request = http_request("POST", "/api/v1/emails", key, orjson.dumps(MAIL))
        load, used = Load(), 0.0
        for _ in range(ATTEMPTS):
            before = fleet.accepted_count(simulator)
            load = await put_load(settings.port, request, connections=CONNECTIONS, seconds=SECONDS, every_s=EVERY_S)
            used = (await asyncio.to_thread(fleet.accepted_count, simulator) - before) / (RATE * load.seconds)
            if load.wait_ms(0.99) <= ACCEPTED_P99_MAX_MS and used >= QUOTA_USED_MIN:
                break
        print(
            f"\n{len(load.waits_s)} mails in {load.seconds:.0f} s: p50 {load.wait_ms(0.5):.0f} ms, p99 {load.wait_ms(0.99):.0f} ms,"
            f" max {load.wait_ms(1):.0f} ms, {load.statuses[200]} sent at once; {used:.1%} of the quota used"
        )
        assert set(load.statuses) <= {200, 202}, load.statuses
        assert load.wait_ms(0.99) <= ACCEPTED_P99_MAX_MS
        assert used >= QUOTA_USED_MIN
        assert simulator.get("duplicates")["count"] == 0
