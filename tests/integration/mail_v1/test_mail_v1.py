"""/v1/mail, as its documentation prints it."""

import re
from typing import Any

from tests.support.api import Tenant

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CONTACT = {
    "email": "sarah@example.com",
    "firstName": "Sarah",
    "lastName": "Chen",
    "tags": ["newsletter", "product-updates"],
    "customFields": {"company": "Acme Corp", "plan": "enterprise"},
}
STATS = {
    "recipients",
    "accepted",
    "delivered",
    "bounced",
    "complained",
    "opened",
    "clicked",
    "unsubscribed",
    "failed",
    "skipped",
    "open",
    "machineOpened",
    "machineClicked",
    "openRate",
    "clickRate",
    "bounceRate",
    "complaintRate",
    "unsubscribeRate",
}
CAMPAIGN = {
    "name": "March Newsletter",
    "subject": "What's new this month",
    "preheader": "Product updates, tips, and a surprise",
    "from": {"name": "Sarah at Acme", "email": "sarah@acme.com"},
    "audience": {"tags": ["newsletter"]},
    "content": {"html": "<html>...</html>"},
}


async def test_a_contact_is_created_as_printed(tenant: Tenant) -> None:
    answer = await tenant.post("/v1/mail/contacts", CONTACT)
    assert answer.status == 201
    assert re.fullmatch("con_[a-z2-7]{26}", answer.body.pop("id"))
    assert TIME.fullmatch(answer.body.pop("createdAt"))
    assert answer.body == {**CONTACT, "status": "subscribed", "tracking": True}
    page = (await tenant.get("/v1/mail/contacts?tag=newsletter")).body
    assert (page["contacts"][0]["email"], page["total"], page["page"]) == ("sarah@example.com", 1, 1)


async def test_both_dialects_show_the_same_contact_under_the_same_id(tenant: Tenant) -> None:
    answer = await tenant.post("/v1/mail/contacts", CONTACT)
    other = await tenant.get(f"/api/v1/contacts/{answer.body['id']}")
    assert other.body["name"] == "Sarah Chen"
    assert {name: other.body[name] for name in answer.body} == answer.body
    again = await tenant.post("/api/v1/contacts", {"email": "SARAH@example.com"})
    assert (again.status, again.body["error"]["id"]) == (409, answer.body["id"])


async def test_a_campaign_goes_from_draft_to_sending_as_printed(tenant: Tenant) -> None:
    await tenant.verify_domain("acme.com")
    await tenant.post("/v1/mail/contacts", CONTACT)
    await tenant.post("/v1/mail/contacts", {"email": "untagged@example.com"})
    created = await tenant.post("/v1/mail/campaigns", CAMPAIGN)
    assert created.status == 201
    assert re.fullmatch("cmp_[a-z2-7]{26}", created.body["id"])
    assert (created.body["name"], created.body["status"]) == ("March Newsletter", "draft")
    assert (created.body["audienceCount"], created.body["estimatedCost"]) == (1, 0.0)
    assert created.body["estimatedCostMicros"] == 300
    assert TIME.fullmatch(created.body["createdAt"])
    path = f"/v1/mail/campaigns/{created.body['id']}"
    sent = await tenant.post(f"{path}/send")
    assert sent.status == 200
    assert_seed_send(sent.body, created.body["id"])
    shown = (await tenant.get(path)).body
    assert (shown["status"], shown["sentAt"], shown["audienceCount"]) == ("sending", sent.body["sentAt"], 1)
    stats = (await tenant.get(f"{path}/stats")).body
    assert (stats.pop("id"), stats["recipients"], stats["open"]) == (created.body["id"], 1, 1)
    assert set(stats) == STATS
    assert (await tenant.get(f"/api/v1/campaigns/{created.body['id']}")).body["from"] == CAMPAIGN["from"]


def assert_seed_send(body: dict[str, Any], campaign_id: str) -> None:
    """The printed answer of a send."""
    assert set(body) == {"id", "status", "audienceCount", "cost", "scheduledAt", "sentAt"}
    assert (body["id"], body["status"], body["audienceCount"]) == (campaign_id, "sending", 1)
    assert TIME.fullmatch(body["sentAt"])
    assert isinstance(body["cost"]["estimated"], float)
    assert body["cost"]["currency"] == "USD"
    assert re.fullmatch("hold_[a-z2-7]{26}", body["cost"]["holdId"])


async def test_nested_fields_are_named_by_their_path(tenant: Tenant) -> None:
    body = {"name": "N", "subject": "S", "from": {"email": "nobody"}, "audience": {"tag": "x"}, "content": "<p>"}
    answer = await tenant.post("/v1/mail/campaigns", body)
    assert answer.status == 422
    assert answer.params == {"from.email", "audience.tag", "content", "content.html"}


async def test_an_unknown_list_is_named_by_its_path(tenant: Tenant) -> None:
    body = {"name": "N", "subject": "S", "audience": {"listId": "lst_unknown"}, "content": {"html": "<p>"}}
    answer = await tenant.post("/v1/mail/campaigns", body)
    assert (answer.status, answer.body["error"]["code"]) == (404, "list_not_found")
    assert answer.body["error"]["param"] == "audience.listId"
    assert answer.params == {"audience.listId"}
