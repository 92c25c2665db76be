"""What a bad reputation stops, and how it ends."""

from pathlib import Path

import pytest

from mailrail.accounts.model import Scope
from mailrail.campaigns.reputation import judge_and_pause
from mailrail.config import Settings
from mailrail.reputation import service
from mailrail.reputation.model import Tally
from tests.support.api import Answer, Tenant
from tests.support.campaigns import draft, launched
from tests.support.installation import Installation, installed, send_campaign
from tests.support.postgres import Database

SETTINGS = Settings()
BODY = {"from": "news@acme.com", "to": "ann@example.com", "subject": "Hi", "text": "Hi"}


async def suffer(tenant: Tenant, bounced: int) -> None:
    """So many of 1000 mails bounce, and the tenant is judged."""
    async with tenant.api.operator.acquire() as conn:
        await service.count(conn, [Tally(tenant.account_id, 1000 - bounced, bounced, 0, 0)])
        await judge_and_pause(conn, [tenant.account_id], SETTINGS)


async def release(tenant: Tenant) -> None:
    async with tenant.api.operator.acquire() as conn, conn.transaction():
        await service.release(conn, tenant.account_id)


async def shown(tenant: Tenant) -> Answer:
    answer = await tenant.get("/api/v1/account/reputation")
    assert answer.status == 200, answer.body
    return answer


async def test_a_new_tenant_stands_well(tenant: Tenant) -> None:
    body = (await shown(tenant)).body
    assert (body["level"], body["reason"], body["mails"], body["countedSince"]) == ("good", None, 0, None)
    assert [one["level"] for one in body["thresholds"]] == ["mail_stopped", "campaigns_stopped", "warning"]


async def test_a_warning_stops_nothing(tenant: Tenant) -> None:
    path = await launched(tenant)
    await suffer(tenant, 30)
    body = (await tenant.get("/v1/mail/account/reputation")).body
    assert (body["level"], body["mails"], body["bounced"], body["bouncePercent"]) == ("warning", 1000, 30, 3.0)
    assert (await tenant.get(path)).body["status"] == "sending"
    assert (await tenant.post(f"{await draft(tenant)}/launch")).status == 200


async def test_campaigns_pause_and_none_starts_until_the_operator_releases(tenant: Tenant, stranger: Tenant) -> None:
    path, waiting, theirs = await launched(tenant), await draft(tenant), await launched(stranger)
    await suffer(tenant, 40)
    paused = (await tenant.get(path)).body
    assert paused["status"] == "paused"
    assert "40 of the last 1,000 mails bounced" in paused["reason"]
    for refused in (
        await tenant.post(f"{waiting}/launch"),
        await tenant.post(f"{path}/resume"),
    ):
        assert (refused.status, refused.code) == (409, "reputation_stopped")
        assert "40 of the last 1,000" in refused.body["error"]["message"]
    rehearsed = (await tenant.post(f"{waiting}/dry-run")).body
    assert "reputation_stopped" in [one["code"] for one in rehearsed["problems"]]
    # Transactional mail goes on, and so does everybody else.
    assert (await tenant.post("/api/v1/emails", BODY)).status in (200, 202)
    assert (await stranger.get(theirs)).body["status"] == "sending"
    await release(tenant)
    assert (await shown(tenant)).body["level"] == "good"
    assert (await tenant.post(f"{path}/resume")).body["status"] == "sending"
    assert (await tenant.post(f"{waiting}/launch")).status == 200


async def test_from_the_second_threshold_on_nothing_goes(tenant: Tenant) -> None:
    await tenant.verify_domain()
    await suffer(tenant, 80)
    refused = await tenant.post("/api/v1/emails", BODY)
    assert (refused.status, refused.code) == (409, "reputation_stopped")
    test_key = await tenant.new_key((Scope.FULL,), is_test=True)
    played = await tenant.api.call("POST", "/api/v1/emails", test_key, json=BODY)
    assert played.status == 200, "mail of a test key reaches nobody"


# —— with mail on its way ————————————————————————————————————————————————————————————————————————————————————————————————

RECIPIENTS = 4000
SENDS_PER_SECOND = 250


@pytest.mark.parametrize("bad", ["bounce", "complaint"])
async def test_ten_in_a_hundred_bad_addresses_pause_a_campaign_within_a_thousand(
    database: Database, tmp_path: Path, bad: str
) -> None:
    async with installed(
        database, tmp_path / "simulator", max_send_rate=float(SENDS_PER_SECOND), burst_seconds=0.5
    ) as installation:
        tenant = await installation.add_sender(RECIPIENTS)
        await spoil(installation, tenant, bad)
        campaign_id = await send_campaign(tenant)
        paused = await installation.wait_for(tenant, campaign_id, "paused")
        accepted = int(installation.simulator.get("stats")["accepted"])
        assert SETTINGS.reputation_mails_min <= accepted <= 1000
        assert {"bounce": "bounced for good", "complaint": "called spam"}[bad] in paused["reason"]
        refused = await tenant.post(f"/api/v1/campaigns/{campaign_id}/resume")
        assert (refused.status, refused.code) == (409, "reputation_stopped")


async def spoil(installation: Installation, tenant: Tenant, bad: str) -> None:
    """Every tenth contact is one of Amazon's addresses that bounce or complain."""
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            """UPDATE contacts SET email = $2::text || '+' || id || '@simulator.amazonses.com'
               WHERE account_id = $1 AND id % 10 = 0""",
            tenant.account_id,
            bad,
        )
