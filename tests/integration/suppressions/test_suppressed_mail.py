"""Mail to suppressed addresses, against a simulator that keeps a list as SES does."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailrail.ses.clients import client
from mailrail.suppressions.handlers import SesList, copy_list
from tests.support.api import Tenant
from tests.support.installation import Installation, add_sender, installed, playing, send_campaign
from tests.support.people import suppress, suppressions
from tests.support.postgres import Database
from tests.support.waiting import until

ANN = "ann@example.net"
MAIL = {"from": "news@acme.com", "subject": "Hi", "text": "Hi"}


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(
        database,
        tmp_path / "simulator",
        {"ses_list_interval_s": 0.0},
        bouncing_domains=["bounces.example"],
        complaining_domains=["complains.example"],
    ) as running:
        yield running


async def reached(installation: Installation, tenant: Tenant, *addresses: str) -> dict[str, tuple[str, str | None]]:
    """Address → state and reason, once a campaign to these contacts is over."""
    async with installation.api.operator.acquire() as conn:
        await conn.execute("DELETE FROM contacts WHERE account_id = $1", tenant.account_id)
        await conn.execute(
            "INSERT INTO contacts (account_id, email, first_name) SELECT $1, unnest($2::text[]), 'Ann'",
            tenant.account_id,
            list(addresses),
        )
    campaign_id = await send_campaign(tenant)
    await installation.wait_for(tenant, campaign_id, "completed")
    page = await tenant.get(f"/api/v1/campaigns/{campaign_id}/recipients")
    return {one["email"]: (one["state"], one["reason"]) for one in page.body["recipients"]}


async def sent(tenant: Tenant, address: str) -> dict[str, Any]:
    """The one recipient of a transactional mail."""
    made = await tenant.post("/api/v1/emails/batch", {"emails": [{**MAIL, "to": address}]})
    assert made.status == 200, made.body
    detail = (await tenant.get(f"/api/v1/emails/{made.body['results'][0]['id']}")).body
    recipient: dict[str, Any] = detail["email"]["recipients"][0]
    return recipient


async def test_what_bounces_for_real_is_on_both_lists_until_it_is_lifted(installation: Installation) -> None:
    tenant = await installation.add_sender(10)
    ses, gone = client(installation.settings, "sesv2"), "gone@bounces.example"
    found = await reached(installation, tenant, gone, "angry@complains.example", ANN)
    assert found[gone][0] == "bounced"
    assert (await suppressions(tenant)) == {gone: "bounce", "angry@complains.example": "complaint"}
    listed = ses.list_suppressed_destinations()["SuppressedDestinationSummaries"]
    assert {one["EmailAddress"]: one["Reason"] for one in listed} == {
        gone: "BOUNCE",
        "angry@complains.example": "COMPLAINT",
    }
    lifted = await tenant.delete(f"/api/v1/suppressions/{gone}")
    assert lifted.body["sesAsked"] is True
    await SesList(installation.worker.pool, installation.settings, 0.0).look()
    left = ses.list_suppressed_destinations()["SuppressedDestinationSummaries"]
    assert gone not in {one["EmailAddress"] for one in left}


async def test_ses_takes_mail_to_its_list_and_lets_it_bounce(installation: Installation) -> None:
    """What happens to what is not copied yet: nobody's reputation suffers, and the tenant learns of it."""
    tenant = await installation.add_sender(10)
    client(installation.settings, "sesv2").put_suppressed_destination(EmailAddress=ANN.title(), Reason="BOUNCE")
    found = await reached(installation, tenant, ANN)
    state, reason = found[ANN]
    assert state == "bounced"
    assert reason is not None
    assert reason.startswith("Permanent/OnAccountSuppressionList")
    assert (
        (await tenant.get(f"/api/v1/suppressions/{ANN}"))
        .body["detail"]
        .startswith("Permanent/OnAccountSuppressionList")
    )
    shown = (await tenant.get("/api/v1/account/reputation")).body
    assert (shown["mails"], shown["bounced"]) == (0, 0)


@pytest.mark.parametrize("reason", ["bounce", "soft_bounces", "complaint", "manual", "imported"])
async def test_a_claim_skips_whom_something_suppresses_by_then_and_tells_why(
    database: Database, tmp_path: Path, reason: str
) -> None:
    async with installed(database, tmp_path / "simulator", roles=()) as installation:
        tenant = await add_sender(installation.api, 2)
        campaign_id = await send_campaign(tenant)
        # After the audience is frozen, before any worker claims.
        await suppress(tenant, "p1@example.net", reason)
        async with playing(installation.worker):
            await installation.wait_for(tenant, campaign_id, "completed")
        page = await tenant.get(f"/api/v1/campaigns/{campaign_id}/recipients")
        skipped, delivered = page.body["recipients"]
        assert (skipped["email"], skipped["state"], skipped["reason"]) == (
            "p1@example.net",
            "skipped",
            f"suppressed: {reason}",
        )
        assert delivered["state"] == "delivered"
        assert installation.simulator.messages("p1@example.net") == []


@pytest.mark.parametrize("reason", ["bounce", "manual"])
async def test_transactional_mail_skips_them_when_it_is_taken_and_when_a_worker_sends_it(
    database: Database, tmp_path: Path, reason: str
) -> None:
    async with installed(database, tmp_path / "simulator", roles=()) as installation:
        tenant = await add_sender(installation.api, 10)
        later = {"scheduledAt": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
        left = await tenant.post("/api/v1/emails", {**MAIL, "to": ANN, **later})
        assert left.status == 202, left.body
        await suppress(tenant, ANN, reason)
        recipient = await sent(tenant, ANN)
        assert (recipient["status"], recipient["reason"]) == ("suppressed", f"suppressed: {reason}")
        async with playing(installation.worker):
            await until(lambda: is_skipped(tenant, left.body["id"], reason), "the worker")
        assert installation.simulator.messages(ANN) == []


async def is_skipped(tenant: Tenant, email_id: str, reason: str) -> bool:
    shown = (await tenant.get(f"/api/v1/emails/{email_id}")).body["email"]["recipients"][0]
    return (shown["status"], shown["reason"]) == ("suppressed", f"suppressed: {reason}")


async def test_an_address_on_the_list_of_ses_is_skipped(installation: Installation) -> None:
    tenant = await installation.add_sender(10)
    client(installation.settings, "sesv2").put_suppressed_destination(EmailAddress=ANN.title(), Reason="BOUNCE")
    async with installation.api.operator.acquire() as conn:
        await copy_list(conn, installation.settings, 0.0, whole=True)
    found = await reached(installation, tenant, ANN, "bob@example.net")
    assert found == {ANN: ("skipped", "suppressed: ses"), "bob@example.net": ("delivered", None)}
    assert (await sent(tenant, ANN))["reason"] == "suppressed: ses"
    assert installation.simulator.messages(ANN) == []
    assert await suppressions(tenant) == {}, "it is no fact of this tenant"
    assert (await tenant.delete(f"/api/v1/suppressions/{ANN}")).body == {
        "id": None,
        "email": ANN,
        "deleted": True,
        "sesAsked": True,
    }
