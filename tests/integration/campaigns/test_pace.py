"""The send loop and the limiter: who gets its turn at a low rate, what the daily quota leaves, and which tokens come back."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailrail.campaigns import handlers
from mailrail.ses import model
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

RATE = 50
DEBT = "tokens = -1e6"


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", max_send_rate=RATE) as running:
        async with running.api.operator.acquire() as conn, asyncio.timeout(10):
            while not await conn.fetchval("SELECT count(*) FROM send_limits WHERE polled_at IS NOT NULL"):
                await asyncio.sleep(0.05)
        yield running
        async with running.api.operator.acquire() as conn:
            await conn.execute("DELETE FROM send_limits")
            await conn.execute(
                "UPDATE shards SET state = 'paused', wake_at = NULL, lease_id = NULL, lease_until = NULL"
            )


async def set_limits(installation: Installation, change: str) -> None:
    """Changes the limiter's row under the feet of its users."""
    async with installation.api.operator.acquire() as conn:
        await conn.execute(f"UPDATE send_limits SET refilled_at = clock_timestamp(), {change}")


async def ask(installation: Installation, question: str, *arguments: object) -> Any:
    async with installation.api.operator.acquire() as conn:
        return await conn.fetchval(question, *arguments)


def accepted(installation: Installation) -> int:
    return int(installation.simulator.get("stats")["accepted"])


async def accept(installation: Installation, recipients: int) -> None:
    async with asyncio.timeout(20):
        while accepted(installation) < recipients:
            await asyncio.sleep(0.05)


async def test_a_tenant_that_comes_later_gets_its_turn_before_the_first_one_is_done(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "TURN_S", 0.5)
    large = await installation.add_sender(20 * RATE)
    large_id = await installation.send_campaign(large)
    await accept(installation, RATE)
    small = await installation.add_sender(RATE // 2)
    await installation.wait_for(small, await installation.send_campaign(small), "completed")
    shown = (await large.get(f"/api/v1/campaigns/{large_id}")).body
    assert shown["status"] == "sending"
    assert shown["progress"]["accepted"] < 10 * RATE


async def test_campaigns_stop_at_the_reserve_of_the_daily_quota_and_go_on_alone(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "CLOSED_PAUSE_S", 0.2)
    await set_limits(installation, "max_24_hour_send = 130")
    tenant = await installation.add_sender(50)
    campaign_id = await installation.send_campaign(tenant)
    await accept(installation, 30)
    await asyncio.sleep(1)
    assert accepted(installation) == 30
    leased = await ask(installation, "SELECT count(*) FROM shards WHERE lease_id IS NOT NULL")
    assert leased == 0, "nobody sits on a shard meanwhile"
    await set_limits(installation, "max_24_hour_send = -1")
    await installation.wait_for(tenant, campaign_id, "completed")
    assert accepted(installation) == 50


async def test_a_slot_without_tokens_lets_its_shard_go(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = installation.worker.send_loop
    await set_limits(installation, DEBT)
    with monkeypatch.context() as short:
        short.setattr(loop, "_settings", dataclasses.replace(installation.settings, lease_s=1.5))
        tenant = await installation.add_sender(10)
        campaign_id = await installation.send_campaign(tenant)
        async with asyncio.timeout(10):
            while await ask(installation, "SELECT epoch FROM shards WHERE account_id = $1", tenant.account_id) < 3:
                await asyncio.sleep(0.05)
    assert accepted(installation) == 0
    assert await ask(installation, "SELECT count(*) FROM claims WHERE account_id = $1", tenant.account_id) == 0
    await set_limits(installation, "tokens = 0")
    await installation.wait_for(tenant, campaign_id, "completed")


async def test_tokens_of_those_who_are_not_written_to_come_back(installation: Installation) -> None:
    await set_limits(installation, DEBT)
    tenant = await installation.add_sender(40)
    campaign_id = await installation.send_campaign(tenant)
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO suppressions (account_id, email_folded, reason)
               SELECT account_id, email_folded, 'bounce' FROM contacts WHERE account_id = $1 ORDER BY id LIMIT 25""",
            tenant.account_id,
        )
    await set_limits(installation, "tokens = 0")
    await installation.wait_for(tenant, campaign_id, "completed")
    assert accepted(installation) == 15
    assert await ask(installation, "SELECT granted FROM send_limits") == 15


async def test_throttling_lowers_the_rate_for_all(installation: Installation) -> None:
    await installation.set_faults(throttle_429=0.3, seed=1)
    tenant = await installation.add_sender(2 * RATE)
    await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert accepted(installation) == 2 * RATE
    assert installation.accepted_twice() == 0
    assert await ask(installation, "SELECT throttles FROM send_limits") > 0
    assert await ask(installation, "SELECT factor FROM send_limits") <= 0.7


async def test_a_daily_quota_that_is_hit_stops_campaigns_until_the_next_poll(
    database: Database, tmp_path: Path
) -> None:
    async with installed(database, tmp_path / "simulator", max_24_hour_send=40) as installation:
        async with asyncio.timeout(10):
            while not await ask(installation, "SELECT count(*) FROM send_limits WHERE polled_at IS NOT NULL"):
                await asyncio.sleep(0.05)
        # As if the figures were wrong: SES has less left than it told.
        await set_limits(installation, "max_24_hour_send = 500")
        tenant = await installation.add_sender(100)
        campaign_id = await installation.send_campaign(tenant)
        async with asyncio.timeout(10):
            while not await ask(installation, "SELECT sent_last_24_hours > 0 FROM send_limits"):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert await ask(installation, "SELECT count(*) FROM shards WHERE lease_id IS NOT NULL") == 0
        assert (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["status"] == "sending"
        assert accepted(installation) <= 40
