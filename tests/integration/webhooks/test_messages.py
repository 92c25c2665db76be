"""What happens becomes messages, and only what somebody asks for."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mailrail.contacts import members
from mailrail.contacts import service as contacts
from mailrail.contacts.model import ContactStatus
from mailrail.db.pool import Connection, Pool, transaction
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome
from mailrail.tracking import store as tracking
from mailrail.tracking.model import clicked, opened
from tests.support.api import Tenant
from tests.support.campaigns import launched, set_status
from tests.support.streams import TestStream, add_claim, add_event, add_result, make_stream
from tests.support.webhooks import add_endpoint

URL = "https://your-app.com/webhook"
KINDS = {
    EventKind.SEND: "email.sent",
    EventKind.DELIVERY: "email.delivered",
    EventKind.BOUNCE_PERMANENT: "email.bounced",
    EventKind.BOUNCE_TRANSIENT: "email.bounced",
    EventKind.COMPLAINT: "email.complained",
    EventKind.DELIVERY_DELAY: "email.delayed",
    EventKind.OPEN: "email.opened",
    # Told by a fold as failures, and by the contact's own word.
    EventKind.REJECT: None,
    EventKind.RENDERING_FAILURE: None,
    EventKind.UNSUBSCRIBE: None,
}


async def told(conn: Connection, tenant: Tenant) -> list[dict[str, Any]]:
    """The tenant's messages, oldest first."""
    rows = await conn.fetch("SELECT * FROM webhook_messages WHERE account_id = $1 ORDER BY id", tenant.account_id)
    return [dict(row) for row in rows]


@pytest.mark.parametrize(("kind", "type_"), KINDS.items())
async def test_an_event_is_told_once(tenant: Tenant, worker_pool: Pool, kind: EventKind, type_: str | None) -> None:
    await add_endpoint(tenant, URL)
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 2)
        for _ in range(2):
            await add_event(conn, stream, 1, kind)
        found = await told(conn, tenant)
    assert [message["type"] for message in found] == ([type_] if type_ else [])
    for message in found:
        assert (message["stream_id"], message["seq"]) == (stream.stream_id, 1)
        assert message["campaign_id"] is not None
        assert message["contact_id"] is not None
        assert message["facts"]["to"] == f"p{stream.stream_id}-1@example.net"


async def test_nothing_is_told_that_nobody_asks_for(tenant: Tenant, stranger: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL, ["email.delivered"])
    paused = await add_endpoint(tenant, URL)
    await tenant.patch(f"/api/v1/webhooks/{paused['id']}", {"isActive": False})
    async with worker_pool.acquire() as conn:
        for who in (tenant, stranger):
            stream = await make_stream(conn, who.account_id, 1)
            await add_event(conn, stream, 1, EventKind.SEND)
            await add_event(conn, stream, 1, EventKind.DELIVERY)
        assert [message["type"] for message in await told(conn, tenant)] == ["email.delivered"]
        assert await told(conn, stranger) == []
        # One delivery, for the endpoint that is on.
        assert (
            await conn.fetchval("SELECT count(*) FROM webhook_deliveries WHERE account_id = $1", tenant.account_id) == 1
        )


async def test_readers_are_told_of_with_their_links(tenant: Tenant, worker_pool: Pool, api_pool: Pool) -> None:
    await add_endpoint(tenant, URL)
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 1)
        await conn.execute(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, 1, $2, 'https://example.com/a?b=1')",
            stream.stream_id,
            tenant.account_id,
        )
    async with api_pool.acquire() as conn:
        await tracking.record(conn, [opened(stream.stream_id, 1, 7), clicked(stream.stream_id, 1, 1, 8)])
    async with worker_pool.acquire() as conn:
        messages = await told(conn, tenant)
    assert sorted(message["type"] for message in messages) == ["email.clicked", "email.opened"]
    assert {message["facts"].get("link") for message in messages} == {None, "https://example.com/a?b=1"}


async def fold_all(conn: Connection) -> None:
    """Folds what is due."""
    await conn.execute("UPDATE folds SET due_at = now()")
    while True:
        async with conn.transaction():
            if await fold.fold_next(conn) is None:
                return


async def test_who_was_accepted_is_told_of_once_whoever_tells_it_first(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL, ["email.sent"])
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 4)
        await add_claim(conn, stream, 0, 1, [1, 2, 3, 4], epoch=0)
        await fold_all(conn)
        assert await told(conn, tenant) == [], "claimed is not sent"
        # 1 by SES's answer, 2 by its event before the fold, 3 by an event that proves it, 4 not at all.
        await add_result(conn, stream, 1, 1, Outcome.ACCEPTED)
        await add_event(conn, stream, 2, EventKind.SEND)
        await add_event(conn, stream, 3, EventKind.DELIVERY)
        await add_result(conn, stream, 4, 1, Outcome.FAILED)
        for _ in range(2):
            await fold_all(conn)
        # Its event comes after the fold.
        await add_event(conn, stream, 1, EventKind.SEND)
        await add_event(conn, stream, 1, EventKind.DELIVERY)
        await fold_all(conn)
        messages = await told(conn, tenant)
        accepted_at = await conn.fetchval("SELECT at FROM results WHERE stream_id = $1 AND seq = 1", stream.stream_id)
    assert sorted((message["type"], message["seq"], message["attempt"]) for message in messages) == [
        ("email.sent", 1, 1),
        ("email.sent", 2, 1),
        ("email.sent", 3, 1),
    ]
    assert next(message["at"] for message in messages if message["seq"] == 1) == accepted_at


async def fails_by_result(conn: Connection, stream: TestStream) -> None:
    await add_result(conn, stream, 1, 1, Outcome.FAILED)


async def fails_by_silence(conn: Connection, stream: TestStream) -> None:
    await add_result(conn, stream, 1, 1, Outcome.UNRESOLVED)


async def fails_by_event(conn: Connection, stream: TestStream) -> None:
    await add_event(conn, stream, 1, EventKind.REJECT)


@pytest.mark.parametrize("fails", [fails_by_result, fails_by_silence, fails_by_event])
async def test_who_failed_is_told_of_once(
    tenant: Tenant, worker_pool: Pool, fails: Callable[[Connection, TestStream], Coroutine[None, None, None]]
) -> None:
    await add_endpoint(tenant, URL, ["email.failed"])
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 2)
        await add_claim(conn, stream, 0, 1, [1, 2], epoch=0)
        await add_result(conn, stream, 2, 1, Outcome.ACCEPTED)
        await fails(conn, stream)
        for _ in range(2):
            await fold_all(conn)
        (message,) = await told(conn, tenant)
    assert (message["type"], message["seq"], message["attempt"]) == ("email.failed", 1, 1)


async def test_what_failed_long_ago_is_not_told_again(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL, ["email.failed"])
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 1)
        await add_claim(conn, stream, 0, 1, [1], epoch=0)
        await conn.execute(
            """INSERT INTO results (stream_id, seq, attempt, outcome, account_id, at)
               VALUES ($1, 1, 1, $3, $2, now() - interval '8 days')""",
            stream.stream_id,
            tenant.account_id,
            int(Outcome.FAILED),
        )
        await fold_all(conn)
        assert await told(conn, tenant) == []


async def test_a_campaign_is_told_of_when_it_starts_and_when_it_is_over(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL, ["campaign.sent", "campaign.completed"])
    path = await launched(tenant)
    for status in ("paused", "queued", "sending", "completed"):
        await set_status(tenant, path, status)
    async with worker_pool.acquire() as conn:
        messages = await told(conn, tenant)
    assert [message["type"] for message in messages] == ["campaign.sent", "campaign.completed"]
    assert {message["facts"]["audienceCount"] for message in messages} == {2}


async def test_who_unsubscribes_is_told_of(tenant: Tenant, worker_pool: Pool, api_pool: Pool) -> None:
    await add_endpoint(tenant, URL, ["contact.unsubscribed"])
    listed = (await tenant.post("/api/v1/lists", {"name": "News"})).body["id"]
    for email, where in (("a", {"listId": listed}), ("b", {"listId": listed}), ("c", {}), ("d", {})):
        await tenant.post("/api/v1/contacts", {"email": f"{email}@example.com", **where})
    async with worker_pool.acquire() as conn:
        rows = await conn.fetch("SELECT id FROM contacts WHERE account_id = $1 ORDER BY email", tenant.account_id)
        list_id = await conn.fetchval("SELECT id FROM lists WHERE account_id = $1", tenant.account_id)
    a, b, c, d = (row["id"] for row in rows)
    for _ in range(2):
        async with transaction(api_pool, tenant.account_id) as conn:
            await contacts.unsubscribe(conn, tenant.account_id, a, list_id)
            await contacts.unsubscribe(conn, tenant.account_id, b, None)
            # Not on the list, and never to be; and one who had left everything before.
            await members.set_membership(conn, tenant.account_id, list_id, c, ContactStatus.UNSUBSCRIBED)
            await contacts.unsubscribe(conn, tenant.account_id, d, None)
            await members.set_membership(conn, tenant.account_id, list_id, d, ContactStatus.UNSUBSCRIBED)
    async with worker_pool.acquire() as conn:
        messages = await told(conn, tenant)
    assert [(message["contact_id"], message["list_id"], message["facts"]["email"]) for message in messages] == [
        (a, list_id, "a@example.com"),
        (b, None, "b@example.com"),
        (c, list_id, "c@example.com"),
        (d, None, "d@example.com"),
    ]


async def test_an_undone_transaction_tells_nothing(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL)
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 1)
        undone = conn.transaction()
        await undone.start()
        await add_event(conn, stream, 1, EventKind.DELIVERY)
        await undone.rollback()
        assert await told(conn, tenant) == []


async def test_mail_of_a_test_key_is_told_with_what_its_sender_said_of_it(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, URL)
    await tenant.verify_domain()
    mail = {
        "to": ["a@example.com", "b@example.com"],
        "from": "you@acme.com",
        "subject": "Welcome",
        "text": "Hello",
        "tags": {"type": "welcome", "plan": "a=b"},
    }
    sent = await tenant.api.call("POST", "/api/v1/emails", await tenant.new_key(is_test=True), json=mail)
    assert sent.status == 200, sent.body
    async with worker_pool.acquire() as conn:
        messages = await told(conn, tenant)
    assert {(message["type"], message["facts"]["to"]) for message in messages} == {
        (type_, to) for type_ in ("email.sent", "email.delivered") for to in mail["to"]
    }
    for message in messages:
        assert message["campaign_id"] is None
        assert {name: message["facts"][name] for name in ("subject", "test", "tags")} == {
            "subject": "Welcome",
            "test": True,
            "tags": ["type=welcome", "plan=a=b"],
        }
