"""Symfony Messenger: a message that is handled slowly is delivered again meanwhile."""

import asyncio
from pathlib import Path

from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from tests.support.incidents import QUICK, WAIT_S, accepted, assert_each_got_it_once, mails
from tests.support.installation import installed, playing
from tests.support.postgres import Database
from tests.support.workers import working


async def test_symfony_49394_slow_handler_is_run_twice(database: Database, tmp_path: Path) -> None:
    """#49394: the redelivery timeout ran a slow handler a second time beside the first; customers got several mails.

    Here doorbells are repeated all the while, and each round takes longer than its lease, so that two workers take the
    shard from each other. Breaks when a call is written without a look at the lease (ses/mod.rs).
    """
    slow = QUICK | {"wire_mode": "simple", "round_size": 60, "fence_s": 2.0}
    async with installed(database, tmp_path / "simulator", slow, roles=()) as idle:
        await idle.set_faults(latency_ms=350)
        tenant = await idle.add_sender(60)
        campaign_id = await idle.send_campaign(tenant)
        async with idle.api.operator.acquire() as conn:
            stream_id = await conn.fetchval("SELECT stream_id FROM streams WHERE account_id = $1", tenant.account_id)
        with working(idle.settings, tmp_path / "second", roles="send"):
            async with playing(idle.worker), asyncio.timeout(WAIT_S):
                while accepted(idle) < 60:
                    async with idle.api.operator.acquire() as conn:
                        await outbox.append(conn, ShardsReadyV1(stream_id, 0))
                    await asyncio.sleep(0.1)
                await idle.set_faults()
                await idle.wait_for(tenant, campaign_id, "completed")
        await assert_each_got_it_once(idle, tenant)
        async with idle.api.operator.acquire() as conn:
            assert await conn.fetchval("SELECT max(epoch) FROM shards WHERE stream_id = $1", stream_id) > 1
            assert await conn.fetchval("SELECT count(*) FROM permits WHERE stream_id = $1", stream_id) > 0
        assert len(mails(idle)) == 60
