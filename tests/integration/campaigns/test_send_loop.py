"""The send loop against a simulator that misbehaves: who may get the mail again, and who may not."""

import asyncio
from pathlib import Path

import pytest

from mailrail.emails.model import State
from tests.support.installation import Installation, installed
from tests.support.postgres import Database
from tests.support.streams import make_account, make_stream

RECIPIENTS = 500


async def test_every_recipient_is_delivered_once_and_charged_once(installation: Installation) -> None:
    tenant = await installation.add_sender(RECIPIENTS)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert shown["progress"]["open"] == 0
    assert installation.simulator.get("stats")["accepted"] == RECIPIENTS
    assert installation.accepted_twice() == 0
    assert await installation.audit() == []
    async with installation.api.operator.acquire() as conn:
        hold = await conn.fetchrow("SELECT * FROM holds WHERE account_id = $1", tenant.account_id)
    assert hold is not None
    assert (hold["captured_micros"], hold["released_micros"]) == (300 * RECIPIENTS, 0)
    assert hold["closed_at"] is not None


async def test_throttled_calls_are_tried_again(installation: Installation) -> None:
    await installation.set_faults(throttle_429=0.3, seed=1)
    tenant = await installation.add_sender(RECIPIENTS)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert installation.accepted_twice() == 0
    async with installation.api.operator.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM permits WHERE account_id = $1", tenant.account_id) > 0


async def test_a_lost_answer_settles_by_its_event_and_is_not_sent_again(installation: Installation) -> None:
    await installation.set_faults(server_error_after_accept=0.3, drop_reply_after_accept=0.3, seed=2)
    tenant = await installation.add_sender(RECIPIENTS)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert installation.simulator.get("stats")["accepted"] == RECIPIENTS
    assert installation.accepted_twice() == 0
    async with installation.api.operator.acquire() as conn:
        unknown = await conn.fetchval("SELECT sum(unknown) FROM shards WHERE account_id = $1", tenant.account_id)
    assert unknown > 0


async def test_an_unknown_outcome_without_event_stays_open_and_visible(installation: Installation) -> None:
    await installation.set_faults(server_error_before=1.0)
    tenant = await installation.add_sender(20)
    campaign_id = await installation.send_campaign(tenant)
    async with installation.api.operator.acquire() as conn, asyncio.timeout(10):
        while (
            await conn.fetchval(
                "SELECT count(*) FROM recipient_state WHERE account_id = $1 AND state = $2",
                tenant.account_id,
                int(State.UNKNOWN),
            )
            < 20
        ):
            pass
    shown = await tenant.get(f"/api/v1/campaigns/{campaign_id}")
    assert shown.body["status"] == "sending"
    assert shown.body["progress"]["open"] == 20
    assert installation.simulator.get("stats")["accepted"] == 0


@pytest.mark.long
async def test_what_ses_never_accepted_is_sent_again_once_silence_proves_it(database: Database, tmp_path: Path) -> None:
    patience = {"fence_s": 1.0, "lease_s": 2.0, "call_timeout_ms": 1000, "event_lag_max_s": 1.0}
    async with installed(database, tmp_path / "simulator", patience) as installation:
        await installation.set_faults(server_error_before=0.2, drop_request=0.2, seed=4)
        tenant = await installation.add_sender(RECIPIENTS)
        campaign_id = await installation.send_campaign(tenant)
        shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["progress"]["delivered"] == RECIPIENTS
        assert installation.accepted_twice() == 0
        assert await installation.audit() == []
        async with installation.api.operator.acquire() as conn:
            assert await conn.fetchval("SELECT count(*) FROM canaries WHERE seen_at IS NOT NULL") > 0
            assert await conn.fetchval("SELECT sum(duplicates) FROM folds") == 0


async def test_doubled_and_reordered_events_change_nothing(installation: Installation) -> None:
    await installation.set_faults(duplicate_events=0.5, reorder_events=0.5, seed=3)
    tenant = await installation.add_sender(RECIPIENTS)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == RECIPIENTS
    assert await installation.audit() == []


async def test_a_refusal_of_the_whole_campaign_pauses_it(database: Database, tmp_path: Path) -> None:
    async with installed(database, tmp_path / "other", verified_identities=["other.example"]) as installation:
        tenant = await installation.add_sender(100)
        shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "paused")
        assert "Amazon SES refused" in shown["reason"]
        assert shown["progress"]["open"] == 100
        assert installation.simulator.get("stats")["accepted"] == 0


async def test_an_event_of_a_hard_bounce_suppresses_the_address(installation: Installation) -> None:
    tenant = await installation.add_sender(1)
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE contacts SET email = 'bounce+1@simulator.amazonses.com' WHERE account_id = $1", tenant.account_id
        )
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["bounced"] == 1
    async with installation.api.operator.acquire() as conn:
        assert await conn.fetchval("SELECT status FROM contacts WHERE account_id = $1", tenant.account_id) == "bounced"
        reason = await conn.fetchval("SELECT reason FROM suppressions WHERE account_id = $1", tenant.account_id)
    assert reason == "bounce"


async def test_a_campaign_that_the_core_cannot_read_is_paused_and_others_go_on(installation: Installation) -> None:
    async with installation.api.operator.acquire() as conn:
        broken = await make_stream(conn, await make_account(conn), 5)  # its content is an empty object
    tenant = await installation.add_sender(5)
    await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    async with installation.api.operator.acquire() as conn, asyncio.timeout(10):
        row = None
        while row is None or row["status"] != "paused":
            row = await conn.fetchrow("SELECT status, reason FROM campaigns WHERE stream_id = $1", broken.stream_id)
            await asyncio.sleep(0.05)
    assert "The send core cannot send this campaign" in row["reason"]
