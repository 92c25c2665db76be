"""Symfony Messenger: a message that is handled slowly is delivered again meanwhile."""

import asyncio
import signal
from pathlib import Path

from mailrail.bus import outbox
from mailrail.bus.messages import ShardsReadyV1
from mailrail.worker import ROLES
from tests.support.incidents import QUICK, accepted, assert_each_got_it_once
from tests.support.installation import installed, playing
from tests.support.postgres import Database
from tests.support.waiting import until
from tests.support.workers import working

RECIPIENTS = 80
FROZEN_S = 1.5


async def test_symfony_49394_slow_handler_is_run_twice(database: Database, tmp_path: Path) -> None:
    """#49394: the redelivery timeout ran a slow handler a second time beside the first; customers got several mails.

    A worker is so slow in the middle of its round that its lease ends, while doorbells ring for its shard; a second one
    takes the shard over; then the first goes on. Breaks when taking a shard over starts it over (emails/store.py,
    take_shard).
    """
    patience = QUICK | {"wire_mode": "simple", "round_size": 40, "shard_size": 80, "fence_s": 4.0}
    async with installed(database, tmp_path / "simulator", patience, roles=()) as idle:
        await idle.set_faults(latency_ms=200)
        tenant = await idle.add_sender(RECIPIENTS)
        campaign_id = await idle.send_campaign(tenant)
        async with idle.api.operator.acquire() as conn:
            stream_id = await conn.fetchval("SELECT stream_id FROM streams WHERE account_id = $1", tenant.account_id)

        async def is_under_way() -> bool:
            return accepted(idle) > 0

        async def is_taken_over() -> bool:
            async with idle.api.operator.acquire() as conn:
                await outbox.append(conn, ShardsReadyV1(stream_id, 0))
                leases: int = await conn.fetchval(
                    "SELECT count(DISTINCT lease_id) FROM claims WHERE stream_id = $1", stream_id
                )
            return leases > 1

        with working(idle.settings, tmp_path / "slow", roles="send") as (slow,):
            async with playing(idle.worker, set(ROLES) - {"send", "sweep"}):
                await until(is_under_way, "the first mail")
                slow.send_signal(signal.SIGSTOP)
                async with playing(idle.worker, ("send",)):
                    await asyncio.gather(asyncio.sleep(FROZEN_S), until(is_taken_over, "the second lease"))
                    slow.send_signal(signal.SIGCONT)
                    async with playing(idle.worker, ("sweep",)):
                        await idle.wait_for(tenant, campaign_id, "completed")
        await assert_each_got_it_once(idle, tenant)
