"""Steering a campaign that real workers send: what stops, what goes on, and who pays for what."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Tenant
from tests.support.installation import SETTLE_TIMEOUT_S, Installation, installed
from tests.support.postgres import Database

RECIPIENTS = 600
# Slow enough that a campaign is caught in the middle: rounds of 20 recipients, each a call of 0.2 s.
SLOW = {"round_size": 20, "shards_at_once": 2}


@pytest.fixture
def patience() -> dict[str, Any]:
    return SLOW


async def in_the_middle(installation: Installation, tenant: Tenant) -> str:
    """The path of a campaign of which SES has accepted some mails and not all."""
    await installation.set_faults(latency_ms=200)
    path = f"/api/v1/campaigns/{await installation.send_campaign(tenant)}"
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while accepted(installation) < 40:
            await asyncio.sleep(0.02)
    return path


def accepted(installation: Installation) -> int:
    return int(installation.simulator.get("stats")["accepted"])


async def settled(tenant: Tenant, path: str) -> dict[str, int]:
    """The campaign's progress once nobody is open."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while True:
            progress: dict[str, int] = (await tenant.get(path)).body["progress"]
            if progress["open"] == 0:
                return progress
            await asyncio.sleep(0.1)


async def test_a_pause_lets_the_rounds_under_way_end_and_nothing_more(installation: Installation) -> None:
    tenant = await installation.add_sender(RECIPIENTS)
    path = await in_the_middle(installation, tenant)
    assert (await tenant.post(f"{path}/pause")).status == 200
    at_pause = accepted(installation)
    await asyncio.sleep(1.5)
    stopped = accepted(installation)
    # The rounds that were claimed before the pause, two shards at the most.
    assert stopped - at_pause <= 2 * SLOW["round_size"]
    await asyncio.sleep(1.0)
    assert accepted(installation) == stopped < RECIPIENTS
    await installation.set_faults()
    assert (await tenant.post(f"{path}/resume")).body["status"] == "sending"
    shown = await installation.wait_for(tenant, path.rpartition("/")[2], "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert installation.accepted_twice() == 0
    assert await installation.audit() == []


@pytest.mark.long
async def test_pausing_and_resuming_all_the_time_loses_and_doubles_nobody(installation: Installation) -> None:
    tenant = await installation.add_sender(RECIPIENTS)
    path = await in_the_middle(installation, tenant)
    await installation.set_faults(latency_ms=30, throttle_429=0.1)
    for _ in range(12):
        for verb in ("pause", "resume"):
            assert (await tenant.post(f"{path}/{verb}")).status in (200, 409)  # 409 once it has completed
            await asyncio.sleep(0.1)
    shown = await installation.wait_for(tenant, path.rpartition("/")[2], "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert installation.accepted_twice() == 0
    assert await installation.audit() == []


async def test_a_cancel_pays_for_what_was_sent_and_releases_the_rest(installation: Installation) -> None:
    tenant = await installation.add_sender(RECIPIENTS)
    path = await in_the_middle(installation, tenant)
    assert (await tenant.post(f"{path}/cancel")).body["status"] == "cancelled"
    progress = await settled(tenant, path)
    assert 0 < progress["delivered"] < RECIPIENTS
    assert progress["delivered"] + progress["skipped"] == RECIPIENTS
    assert progress["delivered"] == accepted(installation)
    assert await installation.audit() == []
    async with installation.api.operator.acquire() as conn:
        hold = await conn.fetchrow("SELECT * FROM holds WHERE account_id = $1", tenant.account_id)
    assert hold is not None
    assert hold["captured_micros"] == 300 * progress["delivered"]
    assert hold["released_micros"] == 300 * progress["skipped"]
    assert hold["closed_at"] is not None
    page = (await tenant.get(f"{path}/recipients?state=cancelled&limit=1")).body
    assert page["total"] == progress["skipped"]
    assert page["recipients"][0]["reason"] == "the campaign was cancelled"


async def test_a_schedule_is_sent_by_the_worker_at_its_time(installation: Installation) -> None:
    tenant = await installation.add_sender(20)
    made = await tenant.post("/api/v1/campaigns", {"name": "N", "subject": "S", "content": "<p>x</p>"})
    path = f"/api/v1/campaigns/{made.body['id']}"
    due_at = datetime.now(UTC) + timedelta(seconds=6)
    answer = await tenant.post(f"{path}/launch", {"scheduledAt": due_at.isoformat()})
    assert answer.body["status"] == "scheduled"
    shown = await installation.wait_for(tenant, made.body["id"], "completed")
    assert shown["progress"]["delivered"] == 20
    sent_at = datetime.fromisoformat(shown["sentAt"])
    assert timedelta(seconds=-1) <= sent_at - due_at <= timedelta(seconds=4)


@pytest.mark.long
async def test_those_whose_mail_could_not_be_made_get_it_after_the_mistake_is_mended(
    installation: Installation,
) -> None:
    tenant = await installation.add_sender(RECIPIENTS)
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            """UPDATE contacts SET custom_fields = '{"visits": 1}'
               WHERE account_id = $1 AND right(split_part(email, '@', 1), 1) <> '7'""",
            tenant.account_id,
        )
    body = {"name": "N", "subject": "S", "content": "<p>{{ 1 + visits }}</p>"}
    campaign_id = (await tenant.post("/api/v1/campaigns", body)).body["id"]
    path = f"/api/v1/campaigns/{campaign_id}"
    assert (await tenant.post(f"{path}/launch")).status == 200
    shown = await installation.wait_for(tenant, campaign_id, "completed")
    failed = RECIPIENTS // 10
    assert (shown["progress"]["delivered"], shown["progress"]["failed"]) == (RECIPIENTS - failed, failed)
    page = (await tenant.get(f"{path}/recipients?state=failed&limit=100")).body
    assert (page["total"], len(page["recipients"])) == (failed, failed)
    assert all(one["reason"] and one["attempts"] == 1 for one in page["recipients"])
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            """UPDATE contacts SET custom_fields = '{"visits": 1}' WHERE account_id = $1""", tenant.account_id
        )
    answers = await asyncio.gather(*(tenant.post(f"{path}/retry") for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409]
    shown = await installation.wait_for(tenant, campaign_id, "completed")
    assert (shown["progress"]["delivered"], shown["progress"]["failed"]) == (RECIPIENTS, 0)
    assert accepted(installation) == RECIPIENTS
    assert installation.accepted_twice() == 0
    assert await installation.audit() == []
    async with installation.api.operator.acquire() as conn:
        holds = await conn.fetch(
            """SELECT captured_micros / 300 AS captured, released_micros / 300 AS released, closed_at FROM holds
               WHERE account_id = $1 ORDER BY id""",
            tenant.account_id,
        )
    assert [(hold["captured"], hold["released"]) for hold in holds] == [(RECIPIENTS - failed, failed), (failed, 0)]
    assert all(hold["closed_at"] for hold in holds)


@pytest.mark.long
async def test_what_nobody_knows_is_retried_when_somebody_says_so(database: Database, tmp_path: Path) -> None:
    patience = {"fence_s": 1.0, "lease_s": 2.0, "call_timeout_ms": 1000, "event_lag_max_s": 1.0}
    async with installed(database, tmp_path / "patient", patience) as installation:
        await installation.set_faults(server_error_before=1.0)
        tenant = await installation.add_sender(40)
        async with installation.api.operator.acquire() as conn:
            await conn.execute("UPDATE accounts SET unknown_policy = 'never_resend' WHERE id = $1", tenant.account_id)
        campaign_id = await installation.send_campaign(tenant)
        path = f"/api/v1/campaigns/{campaign_id}"
        await installation.wait_for(tenant, campaign_id, "completed")
        assert (await tenant.get(f"{path}/recipients?state=unresolved&limit=1")).body["total"] == 40
        await installation.set_faults()
        answer = await tenant.post(f"{path}/retry", {"states": ["unresolved"]})
        assert (answer.status, answer.body["retried"]) == (200, 40)
        progress = (await installation.wait_for(tenant, campaign_id, "completed"))["progress"]
        assert progress["delivered"] == accepted(installation) == 40
        assert await installation.audit() == []
