"""Previews, tests and dry runs, through the API, a worker and the simulator."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Answer, Tenant
from tests.support.campaigns import draft
from tests.support.installation import Installation, installed
from tests.support.postgres import Database

DIALECTS = ("/api/v1", "/v1/mail")
LINK = '<a href="https://example.com/a">{{ firstName }} of {{ company }}</a>'
RATE = 50.0


@pytest.fixture
async def installation(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, tmp_path / "simulator", max_send_rate=RATE) as running:
        # The first look of the API's process at what SES allows.
        await running.api.app.ctx.mailroom.limiter._poll_if_due()
        yield running


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    found = await installation.api.add_tenant(funds_micros=3_000)
    await found.verify_domain()
    return found


async def add_people(tenant: Tenant) -> dict[str, str]:
    """A list of everybody for whom there is a reason to get something or not; returns the list's id and one contact's."""
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    ids = {}
    for name in ("ann", "bob", "carl", "dora", "emil", "fred", "gina"):
        body = {"email": f"{name}@example.com", "firstName": name.title(), "tags": ["vip"] if name == "gina" else []}
        made = await tenant.post("/api/v1/contacts", {**body, "customFields": {"company": "Acme"}, "listId": list_id})
        ids[name] = made.body["id"]
    await tenant.post("/api/v1/contacts", {"email": "nobody@example.com"})
    async with tenant.api.operator.acquire() as conn:
        for sql in (
            "UPDATE contacts SET status = 'unsubscribed' WHERE email = 'bob@example.com' AND account_id = $1",
            "UPDATE contacts SET status = 'complained' WHERE email = 'carl@example.com' AND account_id = $1",
            """UPDATE list_members SET status = 'unsubscribed' WHERE account_id = $1
               AND contact_id = (SELECT id FROM contacts WHERE email = 'dora@example.com' AND account_id = $1)""",
            "INSERT INTO suppressions (account_id, email_folded, reason) VALUES ($1, 'emil@example.com', 'bounce')",
        ):
            await conn.execute(sql, tenant.account_id)
    return {"list": list_id, "contact": ids["ann"]}


async def campaign_to(tenant: Tenant, dialect: str, audience: dict[str, Any], **fields: Any) -> str:
    """The path of a draft."""
    content = {"content": {"html": LINK}} if dialect == "/v1/mail" else {"content": LINK}
    body = {"name": "News", "subject": "Hi {{ firstName }}", "audience": audience, **content, **fields}
    made = await tenant.post(f"{dialect}/campaigns", body)
    assert made.status == 201, made.body
    return f"{dialect}/campaigns/{made.body['id']}"


async def send(tenant: Tenant, path: str, **body: Any) -> Answer:
    """By the dialect's word for it."""
    return await tenant.post(f"{path}/{'send' if path.startswith('/v1/mail') else 'launch'}", body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_preview_shows_the_mail_as_a_contact_sees_it(tenant: Tenant, dialect: str) -> None:
    ids = await add_people(tenant)
    path = await campaign_to(tenant, dialect, {"lists": [ids["list"]]}, replyTo="r@acme.com")
    for shown in (
        await tenant.get(f"{path}/preview?contactId={ids['contact']}"),
        await tenant.post(f"{path}/preview", {"contactId": ids["contact"]}),
    ):
        assert (shown.status, shown.body["subject"], shown.body["unresolved"]) == (200, "Hi Ann", [])
        assert '<a href="https://example.com/a">Ann of Acme</a>' in shown.body["html"], "no link is tracked"
        assert "Ann of Acme" in shown.body["text"]
        assert shown.body["contact"] == {"id": ids["contact"], "email": "ann@example.com"}
        assert (shown.body["from"], shown.body["replyTo"]) == (
            {"name": None, "email": "hello@acme.com"},
            ["r@acme.com"],
        )
    sample = await tenant.get(f"{path}/preview")
    assert (sample.body["subject"], sample.body["unresolved"]) == ("Hi Ada", ["company"])
    described = {"email": "x@example.com", "customFields": {"company": "<Co>"}}
    made_up = await tenant.post(f"{path}/preview", {"contact": described})
    assert "of &lt;Co&gt;</a>" in made_up.body["html"]
    assert (made_up.body["unresolved"], made_up.body["contact"]["id"]) == (["firstName"], None)
    both = await tenant.post(f"{path}/preview", {"contact": described, "contactId": ids["contact"]})
    assert (both.status, both.params) == (422, {"contact"})


async def test_a_previewed_link_unsubscribes_nobody(installation: Installation, tenant: Tenant) -> None:
    ids = await add_people(tenant)
    path = await campaign_to(tenant, "/api/v1", {"lists": [ids["list"]]}, content="<p>{{ unsubscribeUrl }}</p>")
    html = (await tenant.get(f"{path}/preview?contactId={ids['contact']}")).body["html"]
    link = "/u/" + html.partition("/u/")[2].partition("<")[0]
    assert (await installation.api.call("POST", link, data={"List-Unsubscribe": "One-Click"})).status == 200
    assert (await tenant.get(f"/api/v1/contacts/{ids['contact']}")).body["status"] == "subscribed"
    assert (await tenant.post(f"{path}/dry-run")).body["audience"]["recipients"] == 3


async def test_what_renders_for_nobody_is_told_by_the_preview(tenant: Tenant) -> None:
    path = await draft(tenant, content="<p>{{ 1 + visits }}</p>")
    answer = await tenant.get(f"{path}/preview")
    assert (answer.status, answer.code) == (422, "template_invalid")
    seen = await tenant.post(f"{path}/preview", {"contact": {"customFields": {"visits": 41}}})
    assert "<p>42</p>" in seen.body["html"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_test_arrives_as_it_would_look(installation: Installation, tenant: Tenant, dialect: str) -> None:
    ids = await add_people(tenant)
    sender = {"name": "Sarah", "email": "sarah@acme.com"}
    path = await campaign_to(tenant, dialect, {"tags": ["vip"]}, replyTo="r@acme.com", **{"from": sender})
    to = [f"{dialect[-2:]}1@example.org", f"{dialect[-2:]}2@example.org"]
    body = {"to": to, "contactId": ids["contact"], "markSubject": dialect == "/v1/mail"}
    headers = {"Idempotency-Key": "once"}
    first, again = [
        await tenant.api.call("POST", f"{path}/test", tenant.key, json=body, headers=headers) for _ in range(2)
    ]
    assert (first.status, first.body["sent"], again.body) == (200, 2, first.body), first.body
    assert again.headers["idempotent-replayed"] == "true"
    for address in to:
        [mail] = installation.simulator.messages(address)
        assert mail["subject"] == ("[Test] Hi Ann" if dialect == "/v1/mail" else "Hi Ann")
        assert '<a href="https://example.com/a">Ann of Acme</a>' in mail["html"]
        assert "/o/" not in mail["html"], "opens are not tracked"
        assert to[0] in str(mail) or to[1] in str(mail)
        assert not (to[0] in str(mail) and to[1] in str(mail)), "each sees himself alone"
        assert "sarah@acme.com" in str(mail)
        assert "r@acme.com" in str(mail)
    purse = (await tenant.get("/api/v1/wallet")).body
    assert purse["availableMicros"] == 3_000 - 2 * 300
    assert (await tenant.get(path)).body["status"] == "draft"


async def test_a_test_key_captures_its_tests(installation: Installation, tenant: Tenant) -> None:
    key, path = await tenant.new_key(is_test=True), await draft(tenant, **{"from": "sarah@acme.com"})
    answer = await installation.api.call("POST", f"{path}/test", key, json={"to": "captured@example.org"})
    assert answer.status == 200, answer.body
    assert answer.body["sent"] == 1
    assert installation.simulator.messages("captured@example.org") == []
    email_id = answer.body["results"][0]["id"]
    kept = await installation.api.call("GET", f"/api/v1/emails/{email_id}", key)
    assert (kept.body["email"]["subject"], kept.body["email"]["test"]) == ("Hi Ada", True)


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({}, {"to"}),
        ({"to": []}, {"to"}),
        ({"to": [f"p{n}@example.com" for n in range(6)]}, {"to"}),
        ({"to": ["nobody"]}, {"to[0]"}),
        ({"to": "a@example.com", "subject": "x"}, {"subject"}),
    ],
)
async def test_a_test_without_proper_addresses_is_refused(
    tenant: Tenant, body: dict[str, Any], params: set[str]
) -> None:
    answer = await tenant.post(f"{await draft(tenant)}/test", body)
    assert (answer.status, answer.params) == (422, params)


async def test_a_test_that_nobody_pays_for_is_not_sent(installation: Installation, tenant: Tenant) -> None:
    poor = await installation.api.add_tenant("Poor", funds_micros=0)
    path = await draft(poor)
    assert (await poor.post(f"{path}/test", {"to": "p@example.org"})).code == "no_default_sender"
    await poor.verify_domain("poor.com")
    assert (await poor.post(f"{path}/test", {"to": "p@example.org"})).code == "insufficient_funds"
    assert installation.simulator.messages("p@example.org") == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_dry_run_tells_what_the_launch_then_does(
    installation: Installation, tenant: Tenant, dialect: str
) -> None:
    ids = await add_people(tenant)
    audience = {"lists": [ids["list"]], "where": [["email", "contains", "@example."]], "exclude": {"tags": ["vip"]}}
    path = await campaign_to(tenant, dialect, audience)
    told = await tenant.post(f"{path}/dry-run")
    assert told.status == 200, told.body
    run = told.body
    assert run["audience"] == {
        "matched": 6,
        "recipients": 2,
        "skipped": {"complained": 1, "suppressed": 1, "unsubscribed": 2},
    }
    assert run["price"] == {"estimated": 0.0, "estimatedMicros": 600, "perRecipientMicros": 300, "currency": "USD"}
    assert (run["wallet"]["availableMicros"], run["wallet"]["leftMicros"], run["enough"]) == (3_000, 2_400, True)
    assert (run["ready"], run["problems"]) == (True, [])
    assert run["from"] == {"name": None, "email": "hello@acme.com", "verified": True}
    assert run["size"]["totalBytes"] == 2 * run["size"]["mailBytes"] > 0
    assert abs((datetime.fromisoformat(run["finishAt"]) - datetime.now(UTC)).total_seconds()) < 10
    assert installation.simulator.accepted() == []
    assert (await tenant.get("/api/v1/wallet")).body["heldMicros"] == 0
    sent = await send(tenant, path)
    assert (sent.body["audienceCount"], sent.body["cost"]["estimatedMicros"]) == (2, 600)
    await installation.wait_for(tenant, path.rpartition("/")[2], "completed")
    assert Counter(installation.simulator.accepted()) == Counter(["ann@example.com", "fred@example.com"])
    assert (await tenant.get("/api/v1/wallet")).body["availableMicros"] == 2_400


async def test_a_dry_run_finds_all_that_a_launch_would_be_refused_for(installation: Installation) -> None:
    poor = await installation.api.add_tenant("Poor", funds_micros=300)
    for n in range(2):
        await poor.post("/api/v1/contacts", {"email": f"p{n}@example.com"})
    path = await draft(poor, content="<p>{{ fristName }}</p>" + "x" * 110_000)
    run = (await poor.post(f"{path}/dry-run")).body
    assert [one["code"] for one in run["problems"]] == ["no_default_sender", "insufficient_funds"]
    assert (run["ready"], run["enough"], run["from"]["verified"]) == (False, False, False)
    assert ["fristName" in run["warnings"][0], "Gmail" in run["warnings"][1], "postal" in run["warnings"][2]] == [
        True
    ] * 3
    assert (await send(poor, path)).code == "no_default_sender"
    await poor.verify_domain()
    assert (await send(poor, path)).code == "insufficient_funds"
    await poor.patch(path, {"audience": {"where": [["email", "=", "P1@example.com"]]}})
    assert (await poor.post(f"{path}/dry-run")).body["ready"] is True
    await poor.patch(path, {"audience": {"where": [["email", "=", "p9@example.com"]]}})
    assert [one["code"] for one in (await poor.post(f"{path}/dry-run")).body["problems"]] == ["audience_empty"]
    assert (await send(poor, path)).code == "audience_empty"


async def test_a_cap_and_a_quota_are_told(installation: Installation, tenant: Tenant) -> None:
    for n in range(3):
        await tenant.post("/api/v1/contacts", {"email": f"p{n}@example.com"})
    path = await draft(tenant)
    await tenant.patch("/api/v1/wallet", {"monthlyCapMicros": 600})
    run = (await tenant.post(f"{path}/dry-run")).body
    assert ([one["code"] for one in run["problems"]], run["enough"]) == (["spend_cap_reached"], False)
    assert run["wallet"]["monthlyCapLeftMicros"] == 600
    assert (await send(tenant, path)).code == "spend_cap_reached"
    async with installation.api.operator.acquire() as conn:
        await conn.execute("UPDATE send_limits SET sending_enabled = false")
    assert (await tenant.post(f"{path}/dry-run")).body["finishAt"] is None


async def test_a_time_that_has_passed_is_told_and_one_to_come_is_where_the_end_is_reckoned_from(tenant: Tenant) -> None:
    await tenant.post("/api/v1/contacts", {"email": "p@example.com"})
    path = await draft(tenant, scheduledAt="2027-01-01T10:00:00Z")
    assert (await tenant.post(f"{path}/dry-run")).body["finishAt"] == "2027-01-01T10:00:00Z"
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE campaigns SET scheduled_at = '2026-01-01Z' WHERE account_id = $1 AND status = 'draft'",
            tenant.account_id,
        )
    told = (await tenant.post(f"{path}/dry-run")).body
    assert [one["code"] for one in told["problems"]] == ["schedule_invalid"]
    assert (await send(tenant, path)).code == "schedule_invalid"
