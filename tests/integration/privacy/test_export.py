"""GET …/contacts/:id/export: all that is held about one person, and nothing about another."""

import asyncio

from tests.support.api import Tenant
from tests.support.campaigns import draft
from tests.support.people import CAME_BACK, add_contact, add_list, suppress

MAIL = {"from": "you@acme.com", "subject": "Hi", "text": "x"}


async def test_everything_about_the_person_is_there(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = await add_list(tenant)
    person = await add_contact(tenant, "Ann@example.com", listId=list_id, consent=CAME_BACK)
    await add_contact(tenant, "bob@example.com", listId=list_id)
    campaign = await draft(tenant, listId=list_id, subject="News")
    assert (await tenant.post(f"{campaign}/launch")).status == 200
    key = await tenant.new_key(is_test=True)
    alone = await tenant.api.call("POST", "/api/v1/emails", key, json={**MAIL, "to": "ann@example.com"})
    to = {"to": "bob@example.com", "cc": ["ANN@example.com"], "subject": "Both"}
    both = await tenant.api.call("POST", "/api/v1/emails", key, json={**MAIL, **to})
    await tenant.api.call("POST", "/api/v1/emails", key, json={**MAIL, "to": "bob@example.com", "subject": "Bob's"})
    await suppress(tenant, "ann@example.com", "manual")
    await asyncio.sleep(0)

    answer = await tenant.get(f"/v1/mail/contacts/{person['id']}/export")
    assert answer.status == 200, answer.body
    found = answer.body
    assert found["contact"] == person
    assert [(one["listId"], one["status"]) for one in found["lists"]] == [(list_id, "subscribed")]
    assert [line["source"] for line in found["consents"]] == ["checkout", "checkout"]
    assert found["suppression"]["reason"] == "manual"
    mails = {one["subject"]: one for one in found["emails"]}
    assert set(mails) == {"News", "Hi", "Both"}
    assert found["emailsCapped"] is False
    assert mails["Hi"]["id"] == alone.body["id"]
    assert mails["Both"]["id"] == both.body["id"]
    assert mails["Both"]["to"] == "ANN@example.com"
    assert [event["type"] for event in mails["Hi"]["events"]] == ["sent", "delivered"]
    assert "bob@example.com" not in str(found)


async def test_nobody_else_may_see_it(tenant: Tenant, stranger: Tenant) -> None:
    person = await add_contact(stranger)
    assert (await tenant.get(f"/api/v1/contacts/{person['id']}/export")).status == 404
    assert (await tenant.delete(f"/api/v1/contacts/{person['id']}?erase=true")).status == 404
    assert (await stranger.get(f"/api/v1/contacts/{person['id']}")).status == 200
