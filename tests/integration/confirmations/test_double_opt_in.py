"""Double opt-in from the signup to the campaign: the API, a worker and the simulator."""

import asyncio
import re
import time
from typing import Any

import pytest

from mailrail.confirmations.handlers import Confirmer
from mailrail.ids import Kind
from tests.support.api import Answer, Tenant
from tests.support.installation import Installation
from tests.support.people import CAME_BACK, add_contact, add_list, contact_of, history, set_status
from tests.support.waiting import until

ASKS: dict[str, Any] = {"doubleOptIn": True, "confirmation": {"wording": "I want <Acme> news."}}


@pytest.fixture
async def tenant(installation: Installation) -> Tenant:
    return await installation.add_tenant()


async def letters(installation: Installation, email: str, count: int = 1) -> list[dict[str, Any]]:
    """The mails to an address, once there are so many."""

    async def are_there() -> bool:
        return len(installation.simulator.messages(email)) >= count

    await until(are_there, f"mail {count} to {email}")
    found: list[dict[str, Any]] = installation.simulator.messages(email)
    return found


def path_in(letter: dict[str, Any]) -> str:
    """Where its link leads, less the host."""
    found = re.search(r"/confirm/[\w-]{66}", letter["text"])
    assert found, letter["text"]
    assert found.group() in letter["html"]
    return found.group()


async def press(tenant: Tenant, path: str, **form: str) -> Answer:
    return await tenant.api.call("POST", path, data=form or {"confirm": "yes"})


async def settled(tenant: Tenant) -> None:
    """Waits until nobody is to be asked any more."""

    async def is_quiet() -> bool:
        async with tenant.api.operator.acquire() as conn:
            return not await conn.fetchval(
                "SELECT EXISTS (SELECT FROM list_members WHERE account_id = $1 AND confirm_due_at <= now())",
                tenant.account_id,
            )

    await until(is_quiet, "the end of asking")


async def test_a_signup_is_asked_and_reached_only_after_its_yes(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, "Tips & <Tricks>", **ASKS)
    signup = {"source": "form", "ip": "2001:db8::1", "wording": "Sign me up"}
    ann = await add_contact(tenant, listId=list_id, consent=signup)
    assert ann["status"] == "pending"
    shown = (await tenant.get(f"/api/v1/lists/{list_id}")).body
    assert (shown["contacts"], shown["pending"]) == (0, 1)
    body = {"name": "N", "subject": "S", "content": "<p>x</p>"}
    for audience in ({"listId": list_id}, {}):
        campaign = (await tenant.post("/api/v1/campaigns", {**body, **audience})).body["id"]
        assert (await tenant.post(f"/api/v1/campaigns/{campaign}/launch")).code == "audience_empty"

    [letter] = await letters(installation, "ann@example.com")
    assert letter["subject"] == "Please confirm your subscription to Tips & <Tricks>"
    assert "I want &lt;Acme&gt; news." in letter["html"]
    assert "I want <Acme> news." in letter["text"]
    assert "/o/" not in letter["html"]
    assert "/c/" not in letter["html"]
    path = path_in(letter)
    for _ in range(3):
        page = await tenant.api.call("GET", path)
        assert page.status == 200
        assert "I want &lt;Acme&gt; news." in page.body.decode()
        assert "form-action 'self'" in page.headers["content-security-policy"]
    assert (await press(tenant, path, confirm="no")).status == 400
    assert (await contact_of(tenant, ann["id"]))["status"] == "pending"

    for _ in range(2):
        done = await press(tenant, path)
        assert (done.status, b"You are subscribed" in done.body) == (200, True)
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed"
    said = await history(tenant, ann["id"])
    assert [(line["status"], line["source"], line["list"]) for line in said] == [
        ("pending", "form", None),
        ("pending", "form", "Tips & <Tricks>"),
        ("subscribed", "confirmation", "Tips & <Tricks>"),
        ("subscribed", "confirmation", None),
    ]
    assert (said[2]["ip"], said[2]["wording"]) == ("127.0.0.1", "I want <Acme> news.")
    assert said[1]["ip"] == "2001:db8::1"

    campaign = (await tenant.post("/api/v1/campaigns", {**body, "listId": list_id})).body["id"]
    assert (await tenant.post(f"/api/v1/campaigns/{campaign}/launch")).status == 200
    await installation.wait_for(tenant, campaign, "completed")
    assert installation.simulator.accepted().count("ann@example.com") == 2
    assert await installation.audit() == []


async def test_nobody_is_asked_twice_within_a_day_or_more_than_three_times(
    installation: Installation, tenant: Tenant
) -> None:
    list_id = await add_list(tenant, **ASKS)
    await add_contact(tenant, listId=list_id)
    again = {"emails": ["ann@example.com"]}
    for asked in range(1, 5):
        await letters(installation, "ann@example.com", min(asked, 3))
        assert (await tenant.post(f"/api/v1/lists/{list_id}/contacts", again)).body["unchanged"] == 1
        async with tenant.api.operator.acquire() as conn:
            wait_h = await conn.fetchval(
                """SELECT extract(epoch FROM confirm_due_at - now())::float8 / 3600 FROM list_members WHERE account_id = $1""",
                tenant.account_id,
            )
            assert (wait_h is None) if asked >= 3 else (wait_h is None or 23 < wait_h <= 24)
            await conn.execute(
                """UPDATE list_members SET confirm_sent_at = confirm_sent_at - interval '1 day',
                   confirm_due_at = confirm_due_at - interval '1 day' WHERE account_id = $1""",
                tenant.account_id,
            )
    await settled(tenant)
    assert installation.simulator.accepted().count("ann@example.com") == 3


async def test_two_workers_ask_once(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, **ASKS)
    worker = installation.worker
    confirmers = [Confirmer(worker.pool, worker.codec, worker.settings) for _ in range(3)]
    for number in range(5):
        await add_contact(tenant, f"p{number}@example.com", listId=list_id)
    await asyncio.gather(*(confirmer.ask_due() for confirmer in confirmers))
    await settled(tenant)
    for number in range(5):
        await letters(installation, f"p{number}@example.com")
    await asyncio.sleep(0.5)
    accepted = installation.simulator.accepted()
    assert sorted(accepted) == [f"p{number}@example.com" for number in range(5)]


async def test_a_test_key_asks_nobody(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, **ASKS)
    key = await tenant.new_key(is_test=True)
    body = {"email": "ann@example.com", "listId": list_id}
    made = await tenant.api.call("POST", "/api/v1/contacts", key, json=body)
    assert (made.status, made.body["status"]) == (201, "pending")
    async with tenant.api.operator.acquire() as conn:
        assert (
            await conn.fetchval("SELECT confirm_due_at FROM list_members WHERE account_id = $1", tenant.account_id)
            is None
        )
    assert (await tenant.post(f"/api/v1/lists/{list_id}/contacts", {"contacts": [made.body["id"]]})).status == 200
    await letters(installation, "ann@example.com")


async def test_without_money_or_sender_the_question_waits(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, **ASKS)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE domains SET status = 'failed' WHERE account_id = $1", tenant.account_id)
    ann = await add_contact(tenant, listId=list_id)
    await settled(tenant)
    async with tenant.api.operator.acquire() as conn:
        row = await conn.fetchrow(
            "SELECT confirm_due_at > now() AS waits, confirm_sends FROM list_members WHERE account_id = $1",
            tenant.account_id,
        )
        assert row is not None
        assert (row["waits"], row["confirm_sends"]) == (True, 0)
        await conn.execute("UPDATE domains SET status = 'verified' WHERE account_id = $1", tenant.account_id)
        await conn.execute("UPDATE list_members SET confirm_due_at = now() WHERE account_id = $1", tenant.account_id)
    await letters(installation, "ann@example.com")
    assert (await contact_of(tenant, ann["id"]))["status"] == "pending"


async def test_a_yes_brings_back_who_had_left_everything(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, **ASKS)
    ann = await add_contact(tenant)
    await set_status(tenant, ann["id"], "unsubscribed", at="2026-01-01T00:00:00Z")
    refused = await tenant.post("/api/v1/contacts", {"email": "ann@example.com", "listId": list_id})
    assert refused.status == 409
    signed = await tenant.post(
        "/api/v1/contacts", {"email": "ann@example.com", "listId": list_id, "consent": CAME_BACK}
    )
    assert (signed.status, signed.body["status"]) == (200, "unsubscribed")
    [letter] = await letters(installation, "ann@example.com")
    assert (await press(tenant, path_in(letter))).status == 200
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed"


async def test_links_that_are_old_foreign_or_moot_change_nothing(installation: Installation, tenant: Tenant) -> None:
    list_id = await add_list(tenant, **ASKS)
    ann = await add_contact(tenant, listId=list_id)
    codec, ids = tenant.api.app.ctx.codec, tenant.api.ids
    numbers = (tenant.account_id, ids.find(Kind.CONTACT, ann["id"]), ids.find(Kind.LIST, list_id))
    old = f"/confirm/{codec.confirm_token(*numbers, int(time.time()) - 1)}"
    for answer in (await tenant.api.call("GET", old), await press(tenant, old)):
        assert (answer.status, b"no longer valid" in answer.body) == (410, True)
    good = f"/confirm/{codec.confirm_token(*numbers, int(time.time()) + 60)}"
    forged = good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1]
    unsubscribe = codec.unsubscribe_token(*numbers, 1, 1)
    for bad in (forged, f"/confirm/{unsubscribe}", "/confirm/x", "/confirm/%00"):
        assert (await tenant.api.call("GET", bad)).status == 404
        assert (await press(tenant, bad)).status == 404
    elsewhere = f"/confirm/{codec.confirm_token(numbers[0] + 1, *numbers[1:], int(time.time()) + 60)}"
    assert (await press(tenant, elsewhere)).status == 410
    assert (await contact_of(tenant, ann["id"]))["status"] == "pending"
    token = codec.unsubscribe_token(*numbers, 1, 1)
    assert (await tenant.api.call("POST", f"/u/{token}", data={"unsubscribe": "list"})).status == 200
    assert (await press(tenant, good)).status == 410
    assert (await tenant.delete(f"/api/v1/contacts/{ann['id']}")).status == 200
    assert (await press(tenant, good)).status == 410
