"""Transactional mail through the API, a real worker and the simulator."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailrail.accounts import service as accounts
from tests.support.api import Answer, Tenant
from tests.support.installation import Installation
from tests.support.waiting import until

MAIL = {
    "to": "user@example.com",
    "from": "you@acme.com",
    "subject": "Welcome!",
    "html": "<h1>Hello!</h1><p>Welcome aboard.</p>",
    "tags": {"type": "welcome"},
}
QUICK = {"lease_s": 2.0, "call_timeout_ms": 600, "fence_s": 1.0, "event_lag_max_s": 1.0}


@pytest.fixture
def patience() -> dict[str, Any]:
    return QUICK


async def shown(tenant: Tenant, email_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await tenant.get(f"/api/v1/emails/{email_id}")).body
    return found


async def until_status(tenant: Tenant, email_id: str, status: str) -> dict[str, Any]:
    async def is_there() -> bool:
        return bool((await shown(tenant, email_id))["email"]["status"] == status)

    await until(is_there, f"{status} of {(await shown(tenant, email_id))['email']}")
    return await shown(tenant, email_id)


def mails_to(installation: Installation) -> Counter[str]:
    return Counter(installation.simulator.accepted())


async def wallet_of(installation: Installation, tenant: Tenant) -> dict[str, int]:
    async with installation.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT kind, balance_micros FROM ledger_accounts WHERE account_id = $1", tenant.account_id
        )
    return {row["kind"]: row["balance_micros"] for row in rows}


async def send(
    tenant: Tenant, headers: dict[str, str] | None = None, *, sender: str = "you@acme.com", **changes: Any
) -> Answer:
    body = {**MAIL, "from": sender, **changes}
    return await tenant.api.call("POST", "/api/v1/emails", tenant.key, json=body, headers=headers or {})


async def test_a_mail_is_sent_delivered_and_paid_once(installation: Installation, tenant: Tenant) -> None:
    sent = await send(tenant)
    assert (sent.status, sent.body["status"]) == (200, "sent"), sent.body
    assert sent.body["messageId"]
    [mail] = installation.simulator.messages("user@example.com")
    assert mail["subject"] == "Welcome!"
    assert "Welcome aboard." in mail["html"]
    told = await until_status(tenant, sent.body["id"], "delivered")
    assert [event["type"] for event in told["events"]] == ["sent", "delivered"]
    assert told["email"]["messageId"] == sent.body["messageId"]

    async def is_listed() -> bool:
        return bool((await tenant.get("/api/v1/emails?status=sent")).body["emails"])

    await until(is_listed, "the fold")
    listed = (await tenant.get("/api/v1/emails?limit=20&status=sent")).body
    assert [mail["id"] for mail in listed["emails"]] == [sent.body["id"]]
    assert (listed["total"], listed["page"], listed["pages"]) == (1, 1, 1)
    assert listed["emails"][0]["tags"] == {"type": "welcome"}

    async def is_paid() -> bool:
        return (await wallet_of(installation, tenant))["revenue"] == 300

    await until(is_paid, "the capture")
    assert (await wallet_of(installation, tenant))["held"] == 0
    assert await installation.audit() == []


async def test_everybody_gets_a_copy_and_bcc_is_not_shown(installation: Installation, tenant: Tenant) -> None:
    sent = await send(
        tenant,
        to=["Ann <ann@example.com>", "bob@example.com"],
        cc="carl@example.com",
        bcc=["dora@example.com", "ANN@example.com"],
    )
    assert (sent.status, sent.body["status"]) == (200, "sent"), sent.body
    assert sent.body["to"] == "ann@example.com, bob@example.com"
    assert mails_to(installation) == Counter({f"{name}@example.com": 1 for name in ("ann", "bob", "carl", "dora")})
    for name in ("ann", "dora"):
        [mail] = installation.simulator.messages(f"{name}@example.com")
        assert "dora@example.com" not in str({**mail, "to": None, "envelope": None, "destination": None}.get("headers"))
    told = await until_status(tenant, sent.body["id"], "delivered")
    assert [(one["email"], one["role"]) for one in told["email"]["recipients"]] == [
        ("ann@example.com", "to"),
        ("bob@example.com", "to"),
        ("carl@example.com", "cc"),
        ("dora@example.com", "bcc"),
    ]

    async def are_paid() -> bool:
        return (await wallet_of(installation, tenant))["revenue"] == 4 * 300

    await until(are_paid, "the captures")


async def test_a_batch_answers_in_its_order(installation: Installation, tenant: Tenant) -> None:
    emails = [{**MAIL, "to": f"p{n}@example.com", "subject": f"Hi {n}"} for n in range(100)]
    sent = await tenant.post("/api/v1/emails/batch", {"emails": emails})
    assert sent.status == 200, sent.body
    assert [item["to"] for item in sent.body["results"]] == [mail["to"] for mail in emails]
    assert (sent.body["total"], sent.body["sent"], sent.body["failed"]) == (100, 100, 0)
    assert len({item["id"] for item in sent.body["results"]}) == 100
    assert mails_to(installation) == Counter({f"p{n}@example.com": 1 for n in range(100)})
    listed = (await tenant.get("/api/v1/emails?limit=30")).body
    assert (listed["total"], listed["pages"]) == (100, 4)
    behind = (await tenant.get(f"/api/v1/emails?limit=100&after={listed['after']}")).body
    assert len({mail["id"] for mail in listed["emails"] + behind["emails"]}) == 100
    one = (await tenant.get("/api/v1/emails?to=P7@example.com")).body
    assert [mail["subject"] for mail in one["emails"]] == ["Hi 7"]


async def test_requests_share_commits(installation: Installation, tenant: Tenant) -> None:
    answers = await asyncio.gather(*(send(tenant, to=f"q{n}@example.com") for n in range(100)))
    assert {answer.status for answer in answers} == {200}
    assert mails_to(installation) == Counter({f"q{n}@example.com": 1 for n in range(100)})
    async with installation.api.operator.acquire() as conn:
        claims = await conn.fetchval("SELECT count(*) FROM claims WHERE account_id = $1", tenant.account_id)
    assert claims < 50


async def test_a_scheduled_mail_waits_and_is_sent_by_a_worker(installation: Installation, tenant: Tenant) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    asked = await send(tenant, scheduledAt=at)
    assert (asked.status, asked.body["status"], asked.body["messageId"]) == (202, "scheduled", None), asked.body
    assert mails_to(installation) == Counter()
    assert (await wallet_of(installation, tenant))["held"] == 300
    await until_status(tenant, asked.body["id"], "delivered")
    assert mails_to(installation) == Counter({"user@example.com": 1})


async def test_a_scheduled_mail_is_cancelled_and_its_money_comes_back(
    installation: Installation, tenant: Tenant
) -> None:
    before = await wallet_of(installation, tenant)
    asked = await send(tenant, scheduledAt=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    for _ in range(2):
        told = await tenant.post(f"/api/v1/emails/{asked.body['id']}/cancel")
        assert (told.status, told.body["email"]["status"]) == (200, "cancelled"), told.body

    async def is_released() -> bool:
        return await wallet_of(installation, tenant) == before

    await until(is_released, "the release")
    sent = await send(tenant)
    refused = await tenant.post(f"/api/v1/emails/{sent.body['id']}/cancel")
    assert (refused.status, refused.code) == (409, "email_not_cancellable")
    assert await installation.audit() == []


async def test_a_suppressed_address_is_not_written_to(installation: Installation, tenant: Tenant) -> None:
    async with installation.api.operator.acquire() as conn:
        await conn.execute(
            "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, 'user@example.com', 'bounce')",
            tenant.account_id,
        )
    refused = await send(tenant, to="User@example.com")
    assert (refused.status, refused.code) == (422, "recipient_suppressed"), refused.body
    told = await shown(tenant, refused.body["error"]["id"])
    assert told["email"]["status"] == "suppressed"
    both = await send(tenant, to=["user@example.com", "other@example.com"])
    assert both.status == 200, both.body
    assert mails_to(installation) == Counter({"other@example.com": 1})

    async def is_settled() -> bool:
        wallet = await wallet_of(installation, tenant)
        return (wallet["held"], wallet["revenue"]) == (0, 300)

    await until(is_settled, "the settlement")
    assert await installation.audit() == []


async def test_without_money_nothing_is_taken(installation: Installation) -> None:
    poor = await installation.api.add_tenant(funds_micros=900)
    await poor.verify_domain()
    answers = await asyncio.gather(*(send(poor, to=f"r{n}@example.com") for n in range(10)))
    assert Counter(answer.status for answer in answers) == Counter({402: 7, 200: 3})
    assert (await poor.get("/api/v1/emails")).body["total"] == 3
    assert mails_to(installation).total() == 3
    assert await installation.audit() == []


async def test_a_foreign_sender_is_refused(installation: Installation, tenant: Tenant) -> None:
    refused = await send(tenant, sender="you@example.org")
    assert (refused.status, refused.code, refused.params) == (403, "sender_not_verified", {"from"})
    assert (await tenant.get("/api/v1/emails")).body["total"] == 0


async def test_a_throttled_mail_is_queued_and_sent_later(installation: Installation, tenant: Tenant) -> None:
    await installation.set_faults(throttle_429=1.0)
    asked = await send(tenant)
    assert (asked.status, asked.body["status"], asked.body["messageId"]) == (202, "queued", None), asked.body
    await installation.set_faults()
    await until_status(tenant, asked.body["id"], "delivered")
    assert mails_to(installation) == Counter({"user@example.com": 1})


@pytest.mark.parametrize("fault", ["server_error_after_accept", "hang_after_accept", "drop_reply_after_accept"])
async def test_a_lost_answer_is_settled_by_its_event(installation: Installation, tenant: Tenant, fault: str) -> None:
    await installation.set_faults(**{fault: 1.0})
    asked = await send(tenant)
    assert (asked.status, asked.body["status"]) == (202, "queued"), asked.body
    await installation.set_faults()
    await until_status(tenant, asked.body["id"], "delivered")
    assert mails_to(installation) == Counter({"user@example.com": 1})


async def test_twins_have_one_effect(installation: Installation, tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "order-17"}
    answers = await asyncio.gather(*(send(tenant, headers) for _ in range(200)))
    assert {answer.status for answer in answers} <= {200, 409}
    taken = [answer for answer in answers if answer.status == 200]
    assert sum("idempotent-replayed" not in answer.headers for answer in taken) == 1
    assert len({answer.body["id"] for answer in taken}) == 1
    again = await send(tenant, headers)
    assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.body == next(answer for answer in taken if "idempotent-replayed" not in answer.headers).body
    other = await send(tenant, headers, subject="Other")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert mails_to(installation) == Counter({"user@example.com": 1})


async def test_a_refused_request_does_not_use_its_key_up(installation: Installation, tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "first-try"}
    refused = await send(tenant, headers, sender="you@example.org")
    assert refused.status == 403
    async with installation.api.operator.acquire() as conn:
        assert (
            await conn.fetchval("SELECT count(*) FROM idempotency_keys WHERE account_id = $1", tenant.account_id) == 0
        )
    assert (await send(tenant, headers)).status == 200


async def test_a_held_installation_takes_no_mail(installation: Installation, tenant: Tenant) -> None:
    async with installation.api.operator.acquire() as conn:
        await conn.execute("UPDATE installation SET held_at = now()")
    refused = await send(tenant)
    async with installation.api.operator.acquire() as conn:
        await conn.execute("UPDATE installation SET held_at = NULL")
    assert (refused.status, refused.code) == (503, "sending_held")
    assert mails_to(installation) == Counter()


async def test_a_click_leads_to_the_address_in_the_mail(installation: Installation, tenant: Tenant) -> None:
    html = '<a href="https://example.com/a">A</a> <a href="https://example.com/b?x=1">B</a>'
    sent = await send(tenant, html=html)
    [mail] = installation.simulator.messages("user@example.com")
    links = [part.split('"')[0] for part in mail["html"].split('href="')[1:]]
    assert len(links) == 2
    path = "/c/" + links[1].split("/c/")[1]
    answer = await tenant.api.call("GET", path)
    assert (answer.status, answer.headers["location"]) == (302, "https://example.com/b?x=1")

    async def is_counted() -> bool:
        return bool((await shown(tenant, sent.body["id"]))["email"]["machineClicks"] == 1)

    # Our client says what it is, and a person would not have been so quick.
    await until(is_counted, "the click")


async def test_another_tenants_mail_is_not_there(installation: Installation, tenant: Tenant) -> None:
    sent = await send(tenant)
    stranger = await installation.api.add_tenant("Stranger")
    for answer in (
        await stranger.get(f"/api/v1/emails/{sent.body['id']}"),
        await stranger.post(f"/api/v1/emails/{sent.body['id']}/cancel"),
    ):
        assert (answer.status, answer.code) == (404, "email_not_found")
    assert (await stranger.get("/api/v1/emails")).body["total"] == 0


async def test_everything_that_is_wrong_is_said_at_once(installation: Installation, tenant: Tenant) -> None:
    answer = await tenant.post(
        "/api/v1/emails",
        {
            "to": ["nobody", "ann@example.com"],
            "from": "you@acme.com",
            "subject": "Hi\r\nBcc: x@example.com",
            "headers": {"Bcc": "x@example.com"},
            "html": "<p>Hi</p>",
            "hmtl": "",
        },
    )
    assert answer.status == 422
    assert {"to[0]", "subject", "hmtl"} <= answer.params, answer.body


async def test_a_campaigns_mail_is_listed_by_its_campaign(installation: Installation) -> None:
    tenant = await installation.add_sender(30)
    campaign_id = await installation.send_campaign(tenant)
    await installation.wait_for(tenant, campaign_id, "completed")
    listed = (await tenant.get(f"/api/v1/emails?campaign={campaign_id}&status=delivered&limit=20")).body
    assert (listed["total"], listed["pages"], len(listed["emails"])) == (30, 2, 20)
    assert listed["emails"][0]["status"] == "delivered"
    one = await shown(tenant, listed["emails"][3]["id"])
    assert one["email"]["campaignId"] == campaign_id
    assert [event["type"] for event in one["events"]] == ["sent", "delivered"]
    assert (await tenant.get("/api/v1/emails")).body["total"] == 0


async def test_a_test_keys_mail_is_kept_and_played(installation: Installation, tenant: Tenant) -> None:
    async with installation.api.operator.acquire() as conn:
        _, key = await accounts.create_key(conn, tenant.account_id, "test", is_test=True)
    before = await wallet_of(installation, tenant)
    api = tenant.api
    mail = {**MAIL, "to": ["ann@example.com"], "cc": ["bounce@simulator.amazonses.com"]}
    sent = await api.call("POST", "/api/v1/emails", key, json=mail)
    assert (sent.status, sent.body["status"]) == (200, "sent"), sent.body
    told = (await api.call("GET", f"/api/v1/emails/{sent.body['id']}", key)).body
    assert told["email"]["test"]
    assert {one["email"]: one["status"] for one in told["email"]["recipients"]} == {
        "ann@example.com": "delivered",
        "bounce@simulator.amazonses.com": "bounced",
    }
    assert "Welcome aboard." in told["email"]["html"]
    assert [mail["id"] for mail in (await api.call("GET", "/api/v1/emails", key)).body["emails"]] == [sent.body["id"]]
    # The live key does not see it in its list, and nothing left this machine or cost anything.
    assert (await tenant.get("/api/v1/emails")).body["total"] == 0
    assert mails_to(installation) == Counter()
    assert await wallet_of(installation, tenant) == before
    later = await api.call(
        "POST",
        "/api/v1/emails",
        key,
        json={**MAIL, "scheduledAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
    )
    assert later.status in (200, 202)
    async with api.operator.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM permits WHERE account_id = $1", tenant.account_id) == 0
    assert await installation.audit() == []
