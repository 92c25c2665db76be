"""Campaigns that wait for their canary: what it is like, what decides, and that there is one decision."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mailrail.campaigns import canary_store
from mailrail.campaigns.canary import Canaries
from mailrail.campaigns.delivery import Delivery, Mode
from mailrail.worker import ROLES, assemble
from tests.support.api import Tenant
from tests.support.installation import Installation, installed, playing
from tests.support.postgres import Database

WITHOUT_RECONCILING = [role for role in ROLES if role != "reconcile"]
WITHOUT_SENDING = [role for role in ROLES if role not in ("send", "reconcile")]


@asynccontextmanager
async def steered(
    database: Database,
    tmp_path: Path,
    roles: list[str] | None = None,
    faults: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Installation]:
    changes = {"slots_canary": "always", "canary_wait_s": 20.0, **settings}
    async with installed(database, tmp_path / "simulator", changes, ROLES if roles is None else roles) as running:
        async with running.api.operator.acquire() as conn:
            # What tests before this one left unsent is none of its business.
            await conn.execute(
                """UPDATE shards SET state = 'cancelled', wake_at = NULL;
                   UPDATE campaigns SET awaits_canary = false;
                   DELETE FROM canaries"""
            )
        await running.set_faults(**(faults or {}))
        yield running


def canaries(installation: Installation) -> list[dict[str, Any]]:
    """The canaries that the simulator accepted."""
    return [
        mail
        for mail in installation.simulator.get("messages?limit=1000")
        if any(to.endswith("@simulator.amazonses.com") for to in mail["to"])
    ]


def sent_by(installation: Installation) -> dict[str, int]:
    """How many mails the simulator accepted each way, canaries included."""
    stats = installation.simulator.get("stats")
    slots, simple = stats["SendBulkEmail"].get("slots", {}), stats["SendEmail"].get("simple", {})
    return {"slots": slots.get("recipients", 0), "simple": simple.get("recipients", 0)}


async def decided(tenant: Tenant, campaign_id: str) -> dict[str, str]:
    """What the API says of the campaign's delivery once no canary is waited for."""
    async with asyncio.timeout(30), tenant.api.operator.acquire() as conn:
        while await conn.fetchval("SELECT awaits_canary FROM campaigns WHERE account_id = $1", tenant.account_id):
            await asyncio.sleep(0.05)
    shown: dict[str, str] = (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["delivery"]
    assert (await tenant.get(f"/v1/mail/campaigns/{campaign_id}")).body["delivery"] == shown
    return shown


async def test_a_canary_that_is_delivered_opens_the_slots(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING) as installation:
        tenant = await installation.add_sender(500)
        campaign_id = await installation.send_campaign(tenant)
        before = (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["delivery"]
        assert before == {"mode": "simple", "reason": "It changes to slots once its canary has been delivered."}
        async with playing(installation.worker, ["reconcile"]):
            told = await decided(tenant, campaign_id)
        assert told["mode"] == "slots", told
        assert "has been delivered" in told["reason"]
        hardest, bare = sorted(canaries(installation), key=lambda mail: len(mail["subject"]))[::-1]
        assert {hardest["mode"], bare["mode"]} == {"slots"}
        assert "\r" not in hardest["subject"]
        assert "{{x}}" in hardest["subject"]
        assert "&lt;b&gt;&amp;amp;" in hardest["html"]
        assert (bare["subject"], hardest["from"]) == ("Hi", "Acme <news@acme.com>")
        assert {header["name"] for header in hardest["headers"]} >= {"List-Unsubscribe", "List-Unsubscribe-Post"}
        async with playing(installation.worker, ["send"]):
            shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["progress"]["delivered"] == 500
        assert (shown["audienceCount"], await installation.audit()) == (500, [])
        assert sent_by(installation) == {"slots": 502, "simple": 0}
        async with installation.api.operator.acquire() as conn:
            captured = await conn.fetchval("SELECT captured_micros FROM holds WHERE account_id = $1", tenant.account_id)
        assert captured == 300 * 500, "canaries cost nothing"


async def test_what_cannot_be_rendered_keeps_the_campaign_simple(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING, {"rendering_failure": 1.0}) as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        async with playing(installation.worker, ["reconcile"]):
            told = await decided(tenant, campaign_id)
        assert told["mode"] == "simple"
        assert "Attribute 'spoiled' is not present in the rendering data" in told["reason"]
        async with playing(installation.worker, ["send"]):
            shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["progress"]["delivered"] == 5
        assert sent_by(installation) == {"slots": 2, "simple": 5}


async def test_a_template_that_is_refused_keeps_the_campaign_simple(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING, {"refuse_bulk": 1.0}) as installation:
        tenant = await installation.add_sender(50)
        campaign_id = await installation.send_campaign(tenant)
        async with playing(installation.worker, ["reconcile"]):
            told = await decided(tenant, campaign_id)
        assert told["mode"] == "simple"
        assert "The canary was refused" in told["reason"]
        assert "unsupported operations" in told["reason"]
        async with playing(installation.worker, ["send"]):
            shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["progress"]["delivered"] == 50
        assert sent_by(installation) == {"slots": 0, "simple": 50}


async def test_events_that_never_come_keep_the_campaign_simple(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING, {"lose_events": 1.0}, canary_wait_s=1.0) as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        async with playing(installation.worker, ["reconcile"]):
            told = await decided(tenant, campaign_id)
        assert told["mode"] == "simple"
        assert "Nothing was heard of the canary for 1 s" in told["reason"]
        assert len(canaries(installation)) == 2


async def test_a_canary_that_is_throttled_goes_again(database: Database, tmp_path: Path) -> None:
    faults = {"bulk_calls_per_s": 1.0}
    patience: dict[str, Any] = {"lease_s": 2.0, "call_timeout_ms": 1000}
    async with steered(database, tmp_path, WITHOUT_SENDING, faults, **patience) as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        async with playing(installation.worker, ["reconcile"]):
            assert (await decided(tenant, campaign_id))["mode"] == "slots"
        assert installation.simulator.get("stats")["throttled_calls"] > 0


@pytest.mark.long
async def test_the_campaign_goes_on_meanwhile_and_changes_in_the_middle(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_RECONCILING, max_send_rate=100.0) as installation:
        tenant = await installation.add_sender(600)
        campaign_id = await installation.send_campaign(tenant)
        async with asyncio.timeout(20):
            while sent_by(installation)["simple"] < 50:
                await asyncio.sleep(0.05)
        async with installation.worker.pool.acquire() as conn:
            stream_id = await conn.fetchval("SELECT stream_id FROM campaigns WHERE account_id = $1", tenant.account_id)
            assert await canary_store.decide(conn, stream_id, Delivery(Mode.SLOTS, "It came back."))
        shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["progress"]["delivered"] == 600
        by = sent_by(installation)
        assert by["simple"] >= 50
        assert by["slots"] >= 100
        assert by["simple"] + by["slots"] == 600
        assert installation.accepted_twice() == 0


async def test_two_workers_send_one_pair_and_decide_once(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING) as installation:
        other = assemble(installation.settings, installation.worker.pool)
        other.sender.set_credentials("mailrail-simulator", "mailrail-simulator-secret", None)
        tenant = await installation.add_sender(300)
        campaign_id = await installation.send_campaign(tenant)
        async with playing(installation.worker, ["reconcile", "send"]), playing(other, ["reconcile", "send"]):
            assert (await decided(tenant, campaign_id))["mode"] == "slots"
            await installation.wait_for(tenant, campaign_id, "completed")
        assert len(canaries(installation)) == 2
        assert installation.accepted_twice() == 0


async def test_another_worker_sends_the_canaries_of_one_that_died(database: Database, tmp_path: Path) -> None:
    patience: dict[str, Any] = {"lease_s": 1.5, "call_timeout_ms": 1000}
    async with steered(database, tmp_path, WITHOUT_SENDING, **patience) as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        async with installation.worker.pool.acquire() as conn:
            dying = await made_and_not_sent(installation)
            assert await canary_store.take_due(conn, 1.5) is None, "they are its own for the length of a lease"
        async with playing(installation.worker, ["reconcile"]):
            assert (await decided(tenant, campaign_id))["mode"] == "slots"
        async with installation.api.operator.acquire() as conn:
            sent = [
                row["id"] for row in await conn.fetch("SELECT id FROM canaries WHERE stream_id IS NOT NULL ORDER BY id")
            ]
        assert sent == dying, "the same canaries, no second pair"
        assert len(canaries(installation)) == 2


async def made_and_not_sent(installation: Installation) -> list[int]:
    """What a worker leaves that is killed between noting its canaries and sending them."""
    worker = installation.worker
    runner = Canaries(worker.pool, worker.sender, worker.limiter, worker.codec, worker.settings)

    async def die(*_: Any) -> None:
        raise ProcessDied

    runner._send = die  # type: ignore[method-assign, assignment]
    with pytest.raises(ProcessDied):
        await runner.send_next()
    async with worker.pool.acquire() as conn:
        return [
            row["id"] for row in await conn.fetch("SELECT id FROM canaries WHERE stream_id IS NOT NULL ORDER BY id")
        ]


class ProcessDied(BaseException):
    """As if by SIGKILL."""


async def test_the_first_decision_stands(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_SENDING) as installation:
        tenant = await installation.add_sender(5)
        await installation.send_campaign(tenant)
        async with installation.worker.pool.acquire() as conn:
            stream_id = await conn.fetchval("SELECT stream_id FROM campaigns WHERE account_id = $1", tenant.account_id)
            assert await canary_store.decide(conn, stream_id, Delivery(Mode.SIMPLE, "first"))
            assert not await canary_store.decide(conn, stream_id, Delivery(Mode.SLOTS, "second"))
            assert await canary_store.read_mode(conn, stream_id) == (Mode.SIMPLE, False)


async def test_a_campaign_that_is_over_waits_for_no_canary(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, WITHOUT_RECONCILING) as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        await installation.wait_for(tenant, campaign_id, "completed")
        async with playing(installation.worker, ["reconcile"]):
            told = await decided(tenant, campaign_id)
        assert told == {"mode": "simple", "reason": "All of it was sent before its canary came back."}
        assert canaries(installation) == []


async def test_with_a_stand_in_slots_wait_for_nothing(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, slots_canary="auto") as installation:
        tenant = await installation.add_sender(5)
        campaign_id = await installation.send_campaign(tenant)
        shown = await installation.wait_for(tenant, campaign_id, "completed")
        assert shown["delivery"] == {"mode": "slots", "reason": "MAILRAIL_WIRE_MODE is slots."}
        assert sent_by(installation) == {"slots": 5, "simple": 0}


@pytest.mark.long
async def test_a_storm_of_rendering_failures_pauses_the_campaign_which_goes_on_by_simple(
    database: Database, tmp_path: Path
) -> None:
    async with steered(database, tmp_path, slots_canary="auto", max_send_rate=100.0) as installation:
        await installation.set_faults(rendering_failure=0.5, seed=5)
        tenant = await installation.add_sender(3000)
        campaign_id = await installation.send_campaign(tenant)
        shown = await installation.wait_for(tenant, campaign_id, "paused")
        assert "could not render them" in shown["reason"]
        assert "resume" in shown["reason"]
        assert shown["delivery"]["mode"] == "simple"
        assert shown["progress"]["open"] > 100, "most of it is still to be sent"
        assert sent_by(installation)["simple"] == 0
        assert (await tenant.post(f"/api/v1/campaigns/{campaign_id}/resume")).status == 200
        async with asyncio.timeout(20):
            while sent_by(installation)["simple"] < 50:
                await asyncio.sleep(0.05)
        assert (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["status"] == "sending", "once is enough"
        assert (await tenant.post(f"/api/v1/campaigns/{campaign_id}/cancel")).status == 200
        assert await installation.audit() == []


async def test_a_few_rendering_failures_are_no_storm(database: Database, tmp_path: Path) -> None:
    async with steered(database, tmp_path, slots_canary="auto") as installation:
        await installation.set_faults(rendering_failure=0.01, seed=6, duplicate_events=0.5)
        tenant = await installation.add_sender(500)
        shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
        assert shown["progress"]["failed"] > 0
        async with installation.api.operator.acquire() as conn:
            counted = await conn.fetchval(
                "SELECT rendering_failures FROM campaigns WHERE account_id = $1", tenant.account_id
            )
        assert counted == shown["progress"]["failed"], "each is counted once, however often it is told"
