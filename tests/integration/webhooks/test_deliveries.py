"""Webhooks on their way: signed, tried again, given up, logged, replayed; real requests to a customer's server."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from aiohttp import web

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.ids import Kind
from mailrail.webhooks import deliveries, handlers
from mailrail.webhooks.handlers import Dispatcher
from mailrail.webhooks.model import ReplayRange
from tests.support.api import Tenant
from tests.support.campaigns import hold_sending
from tests.support.postgres import Database
from tests.support.streams import add_event, make_stream
from tests.support.webhooks import Receiver, add_endpoint, delivery_when, dispatching, is_signed, until

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])


async def deliver_mail(pool: Pool, tenant: Tenant, recipients: int = 1) -> int:
    """So many mails of the tenant are delivered; the stream."""
    async with pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, recipients)
        for seq in range(1, recipients + 1):
            await add_event(conn, stream, seq, EventKind.DELIVERY)
    return stream.stream_id


async def only_delivery(tenant: Tenant, endpoint: str) -> str:
    """The id of an endpoint's one delivery."""
    listed = (await tenant.get(f"/api/v1/webhooks/{endpoint}/deliveries")).body
    assert listed["total"] == 1, listed
    return str(listed["deliveries"][0]["id"])


async def hurry(pool: Pool) -> None:
    """Lets time pass until the next tries."""
    await pool.execute("UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL")


async def test_a_delivered_mail_is_told_and_signed(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url("/hook?x=1"), ["email.delivered"])
    stream_id = await deliver_mail(worker_pool, tenant)
    (got,) = await receiver.wait_for(1)
    assert got.path == "/hook?x=1"
    assert is_signed(got, made["secret"])
    assert set(orjson.loads(got.body)) == {"type", "data"}
    assert got.data | {"eventId": "", "contactId": "", "campaignId": "", "createdAt": ""} == {
        "eventId": "",
        "emailId": tenant.api.ids.encode_email(stream_id, 1),
        "to": f"p{stream_id}-1@example.net",
        "subject": None,
        "campaignId": "",
        "contactId": "",
        "tags": [],
        "test": False,
        "createdAt": "",
    }
    assert got.headers["webhook-id"] == got.data["eventId"]
    assert re.fullmatch("evt_[a-z2-7]{26}", got.data["eventId"])
    shown = await delivery_when(
        tenant, await only_delivery(tenant, made["id"]), lambda found: found["status"] == "delivered"
    )
    assert shown["request"]["body"].encode() == got.body
    assert shown["request"]["url"] == receiver.url("/hook?x=1")
    assert shown["request"]["headers"]["webhook-id"] == got.headers["webhook-id"]
    assert shown["request"]["headers"]["webhook-timestamp"] == got.headers["webhook-timestamp"]
    assert not any("signature" in name for name in shown["request"]["headers"])
    (attempt,) = shown["log"]
    assert (attempt["attempt"], attempt["httpStatus"], attempt["error"], attempt["answer"]) == (1, 200, None, "OK")
    assert 0 <= attempt["durationMs"] < 15_000


async def test_a_failed_try_is_made_again_with_the_same_id_and_body(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    receiver.statuses(500, 302, 200)
    await deliver_mail(worker_pool, tenant)
    delivery_id = await only_delivery(tenant, made["id"])
    for tries in (1, 2):
        waiting = await delivery_when(tenant, delivery_id, lambda found: len(found["log"]) == tries)  # noqa: B023
        assert (waiting["status"], waiting["attempts"]) == ("pending", tries)
        if tries == 1:
            pause = datetime.fromisoformat(waiting["nextAttemptAt"]) - datetime.fromisoformat(waiting["log"][0]["at"])
            assert timedelta(seconds=4) <= pause <= timedelta(seconds=30)
        await hurry(worker_pool)
    ended = await delivery_when(tenant, delivery_id, lambda found: found["status"] == "delivered")
    assert [attempt["httpStatus"] for attempt in ended["log"]] == [500, 302, 200]
    assert ended["nextAttemptAt"] is None
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.received}) == 1
    assert len(receiver.received) == 3


async def test_what_never_succeeds_has_failed_and_is_listed(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    receiver.statuses(500)
    await deliver_mail(worker_pool, tenant)
    delivery_id = await only_delivery(tenant, made["id"])
    for tries in range(1, 11):
        await delivery_when(tenant, delivery_id, lambda found: len(found["log"]) == tries)  # noqa: B023
        await hurry(worker_pool)
    shown = await delivery_when(tenant, delivery_id, lambda found: found["status"] == "failed")
    assert shown["attempts"] == 10
    path = f"/api/v1/webhooks/{made['id']}"
    assert (await tenant.get(f"{path}/deliveries?status=failed&type=email.delivered")).body["total"] == 1
    assert (await tenant.get(f"{path}/deliveries?status=delivered")).body["total"] == 0
    assert (await tenant.get(f"{path}/deliveries?type=email.sent")).body["total"] == 0
    assert (await tenant.get(f"{path}/deliveries?status=lost&type=x")).params == {"status", "type"}
    assert (await tenant.get(path)).body["failingSince"] is not None
    # Once more: a whole new schedule.
    receiver.statuses(500, 204)
    assert (await tenant.post(f"/api/v1/webhooks/deliveries/{delivery_id}/replay")).status == 202
    await delivery_when(tenant, delivery_id, lambda found: (found["status"], len(found["log"])) == ("pending", 11))
    await hurry(worker_pool)
    shown = await delivery_when(tenant, delivery_id, lambda found: found["status"] == "delivered")
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert (await tenant.get(path)).body["failingSince"] is None


async def test_an_endpoint_that_is_gone_is_switched_off(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    path = f"/api/v1/webhooks/{made['id']}"
    receiver.statuses(410)
    await deliver_mail(worker_pool, tenant)
    delivery_id = await only_delivery(tenant, made["id"])
    await delivery_when(tenant, delivery_id, lambda found: found["status"] == "failed")
    shown = (await tenant.get(path)).body
    assert (shown["isActive"], shown["disabledReason"]) == (False, "It answered 410 Gone.")
    assert shown["disabledAt"] is not None
    for answer in (
        await tenant.post(f"{path}/test"),
        await tenant.post(f"{path}/replay", {"from": "2026-01-01T00:00:00Z"}),
        await tenant.post(f"/api/v1/webhooks/deliveries/{delivery_id}/replay"),
    ):
        assert (answer.status, answer.code) == (409, "webhook_inactive")
    receiver.statuses(200)
    shown = (await tenant.patch(path, {"isActive": True})).body
    assert (shown["isActive"], shown["disabledAt"], shown["disabledReason"]) == (True, None, None)
    await tenant.post(f"/api/v1/webhooks/deliveries/{delivery_id}/replay")
    await delivery_when(tenant, delivery_id, lambda found: found["status"] == "delivered")


async def test_an_endpoint_that_fails_for_five_days_is_switched_off(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    path = f"/api/v1/webhooks/{made['id']}"
    receiver.statuses(500)
    await deliver_mail(worker_pool, tenant, 2)
    await receiver.wait_for(2)
    for days, is_active in (("4.9 days", True), ("5.1 days", False)):
        await worker_pool.execute("UPDATE webhook_endpoints SET failing_since = now() - $1::text::interval", days)
        tried = len(receiver.received)
        await hurry(worker_pool)
        await receiver.wait_for(tried + 2)
        await asyncio.sleep(0.3)
        assert (await tenant.get(path)).body["isActive"] is is_active
    shown = (await tenant.get(path)).body
    assert re.fullmatch(r"Every attempt failed since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.", shown["disabledReason"])
    # Nothing waits for it any more, and nothing is lost.
    assert (await tenant.get(f"{path}/deliveries?status=failed")).body["total"] == 2


@BOTH
async def test_a_test_event_goes_to_one_endpoint(
    tenant: Tenant, receiver: Receiver, dispatcher: Dispatcher, base: str
) -> None:
    made = await add_endpoint(tenant, receiver.url("/one"), ["email.bounced"])
    await add_endpoint(tenant, receiver.url("/two"))
    answer = await tenant.post(f"{base}/webhooks/{made['id']}/test")
    assert answer.status == 202
    assert (answer.body["type"], answer.body["webhookId"]) == ("webhook.test", made["id"])
    await delivery_when(tenant, answer.body["id"], lambda found: found["status"] == "delivered")
    (got,) = receiver.received
    assert (got.path, got.type) == ("/one", "webhook.test")
    assert is_signed(got, made["secret"])


@BOTH
async def test_a_range_is_replayed(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher, base: str
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    path = f"{base}/webhooks/{made['id']}"
    await deliver_mail(worker_pool, tenant, 3)
    test = (await tenant.post(f"{path}/test")).body["id"]
    await receiver.wait_for(4)
    await delivery_when(tenant, test, lambda found: found["status"] == "delivered")
    await until_all_are_delivered(tenant, path)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    body = {"from": (now - hour).isoformat(), "to": (now + hour).isoformat(), "types": ["email.delivered"]}
    answer = await tenant.post(f"{path}/replay", body)
    assert (answer.status, answer.body) == (202, {"replayed": 3, "moreFrom": None})
    await receiver.wait_for(7)
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 4
    await until_all_are_delivered(tenant, path)
    for changes, count in (
        ({"types": None}, 4),
        ({"status": "failed"}, 0),
        ({"from": (now + hour / 2).isoformat()}, 0),
        ({"to": (now - hour / 2).isoformat()}, 0),
    ):
        await until_all_are_delivered(tenant, path)
        assert (await tenant.post(f"{path}/replay", {**body, **changes})).body["replayed"] == count
    wrong = await tenant.post(f"{path}/replay", {"to": body["from"], "types": ["email.eaten"], "status": "pending"})
    assert (wrong.status, wrong.params) == (422, {"from", "types[0]", "status"})
    assert (await tenant.post(f"{path}/replay", {**body, "to": body["from"]})).params == {"to"}


async def until_all_are_delivered(tenant: Tenant, path: str) -> None:
    """Polls until nothing waits."""
    while (await tenant.get(f"{path}/deliveries?status=pending")).body["total"]:
        await asyncio.sleep(0.05)


async def test_a_large_range_is_replayed_in_pieces(tenant: Tenant, worker_pool: Pool) -> None:
    made = await add_endpoint(tenant, "https://your-app.com/webhook")
    endpoint_id = tenant.api.ids.find(Kind.WEBHOOK, made["id"])
    await deliver_mail(worker_pool, tenant, 5)
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE webhook_deliveries SET status = 'delivered', due_at = NULL")
        wanted = ReplayRange(datetime.now(UTC) - timedelta(hours=1), None, None, None)
        counts = []
        more_from: datetime | None = wanted.since
        while more_from is not None:
            piece = ReplayRange(more_from, None, None, None)
            count, more_from = await deliveries.replay_range(conn, tenant.account_id, endpoint_id, piece, 2)
            counts.append(count)
    assert counts == [2, 2, 1]


async def test_a_long_answer_is_kept_in_part(tenant: Tenant, receiver: Receiver, dispatcher: Dispatcher) -> None:
    made = await add_endpoint(tenant, receiver.url())
    receiver.answer = lambda got: web.Response(body=b"\xff\0" + b"x" * 1_000_000, status=200)
    test = (await tenant.post(f"/api/v1/webhooks/{made['id']}/test")).body["id"]
    shown = await delivery_when(tenant, test, lambda found: found["status"] == "delivered")
    assert shown["log"][0]["answer"] == "\ufffd\ufffd" + "x" * 4094


async def test_a_redirect_is_not_followed_and_a_cookie_not_kept(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url("/first"))
    receiver.answer = lambda got: web.Response(
        status=307, headers={"Location": receiver.url("/second"), "Set-Cookie": "a=b; Path=/"}
    )
    test = (await tenant.post(f"/api/v1/webhooks/{made['id']}/test")).body["id"]
    await delivery_when(tenant, test, lambda found: len(found["log"]) == 1)
    await hurry(worker_pool)
    await delivery_when(tenant, test, lambda found: len(found["log"]) == 2)
    assert [got.path for got in receiver.received] == ["/first", "/first"]
    assert not any("cookie" in got.headers for got in receiver.received)


async def test_both_secrets_sign_while_one_goes(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    path = f"/api/v1/webhooks/{made['id']}"
    rotated = (await tenant.post(f"{path}/rotate-secret")).body
    await tenant.post(f"{path}/test")
    (got,) = await receiver.wait_for(1)
    assert is_signed(got, rotated["secret"])
    assert len(got.headers["webhook-signature"].split()) == 2
    await worker_pool.execute("UPDATE webhook_endpoints SET previous_until = now() WHERE previous_until IS NOT NULL")
    await tenant.post(f"{path}/test")
    assert len((await receiver.wait_for(2))[1].headers["webhook-signature"].split()) == 1


async def test_retry_after_is_heard(tenant: Tenant, receiver: Receiver, dispatcher: Dispatcher) -> None:
    made = await add_endpoint(tenant, receiver.url())
    receiver.answer = lambda got: web.Response(status=429, headers={"Retry-After": "120"})
    test = (await tenant.post(f"/api/v1/webhooks/{made['id']}/test")).body["id"]
    shown = await delivery_when(tenant, test, lambda found: len(found["log"]) == 1)
    pause = datetime.fromisoformat(shown["nextAttemptAt"]) - datetime.fromisoformat(shown["log"][0]["at"])
    assert timedelta(seconds=118) <= pause <= timedelta(seconds=150)


async def test_a_paused_endpoint_gets_nothing_until_it_goes_on(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    path = f"/api/v1/webhooks/{made['id']}"
    receiver.statuses(500, 200)
    await deliver_mail(worker_pool, tenant)
    await delivery_when(tenant, await only_delivery(tenant, made["id"]), lambda found: len(found["log"]) == 1)
    await tenant.patch(path, {"isActive": False})
    await deliver_mail(worker_pool, tenant)
    await hurry(worker_pool)
    await asyncio.sleep(0.5)
    assert len(receiver.received) == 1
    await tenant.patch(path, {"isActive": True})
    await receiver.wait_for(2)
    assert (await tenant.get(f"{path}/deliveries")).body["total"] == 1


async def test_two_dispatchers_share_the_work(
    database: Database, tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    await add_endpoint(tenant, receiver.url())
    async with dispatching(worker_pool, database.settings()):
        await deliver_mail(worker_pool, tenant, 200)
        await receiver.wait_for(200)
        await asyncio.sleep(0.3)
    assert len(receiver.received) == len({got.headers["webhook-id"] for got in receiver.received}) == 200


async def test_what_a_dead_dispatcher_had_is_sent_by_another(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver
) -> None:
    await add_endpoint(tenant, receiver.url())
    await deliver_mail(worker_pool, tenant)
    async with worker_pool.acquire() as conn:
        # What other tests left behind.
        await conn.execute("UPDATE webhook_endpoints SET is_active = false WHERE account_id <> $1", tenant.account_id)
        (leased,) = await deliveries.take_due(conn, {}, 4, 10)
        assert await deliveries.take_due(conn, {}, 4, 10) == []
        await conn.execute("UPDATE webhook_deliveries SET due_at = now() WHERE id = $1", leased.delivery_id)
        (again,) = await deliveries.take_due(conn, {}, 4, 10)
    assert (leased.attempt, again.attempt) == (1, 2)
    assert leased.message == again.message


async def test_a_restored_backup_tells_nothing_until_it_is_released(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    await hold_sending(tenant, "restored")
    try:
        await add_endpoint(tenant, receiver.url())
        await deliver_mail(worker_pool, tenant)
        await asyncio.sleep(0.6)
        assert receiver.received == []
    finally:
        await hold_sending(tenant, None)
    await receiver.wait_for(1)


async def test_old_deliveries_go(tenant: Tenant, worker_pool: Pool) -> None:
    await add_endpoint(tenant, "https://your-app.com/webhook")
    await deliver_mail(worker_pool, tenant, 3)
    async with worker_pool.acquire() as conn:
        await conn.execute("DELETE FROM webhook_messages WHERE account_id <> $1", tenant.account_id)
        await conn.execute(
            """UPDATE webhook_messages SET created_at = now() - interval '31 days'
               WHERE id IN (SELECT id FROM webhook_messages WHERE account_id = $1 ORDER BY id LIMIT 2)""",
            tenant.account_id,
        )
        assert await deliveries.delete_old(conn) == 2
        assert await deliveries.delete_old(conn) == 0
        left = "SELECT count(*) FROM webhook_deliveries WHERE account_id = $1"
        assert await conn.fetchval(left, tenant.account_id) == 1


async def test_others_deliveries_are_not_seen(tenant: Tenant, stranger: Tenant, worker_pool: Pool) -> None:
    made = await add_endpoint(tenant, "https://your-app.com/webhook")
    await deliver_mail(worker_pool, tenant)
    delivery_id = await only_delivery(tenant, made["id"])
    assert (await stranger.get(f"/api/v1/webhooks/deliveries/{delivery_id}")).code == "delivery_not_found"
    assert (await stranger.post(f"/api/v1/webhooks/deliveries/{delivery_id}/replay")).code == "delivery_not_found"
    assert (await stranger.get(f"/api/v1/webhooks/{made['id']}/deliveries")).code == "webhook_not_found"


async def test_many_deliveries_are_paged(tenant: Tenant, worker_pool: Pool) -> None:
    made = await add_endpoint(tenant, "https://your-app.com/webhook")
    await deliver_mail(worker_pool, tenant, 25)
    path = f"/api/v1/webhooks/{made['id']}/deliveries"
    first = (await tenant.get(f"{path}?limit=20")).body
    rest = (await tenant.get(f"{path}?limit=20&after={first['after']}")).body
    assert (first["total"], first["totalCapped"], len(first["deliveries"]), len(rest["deliveries"])) == (
        25,
        False,
        20,
        5,
    )
    assert len({one["id"] for one in first["deliveries"] + rest["deliveries"]}) == 25


async def test_a_slow_endpoint_does_not_hold_up_another(
    tenant: Tenant, stranger: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    receiver.delay_s = 12.0
    await add_endpoint(tenant, receiver.url("/slow"))
    await deliver_mail(worker_pool, tenant, 50)
    await receiver.wait_for(4)
    receiver.delay_s = 0.0
    await add_endpoint(stranger, receiver.url("/quick"))
    await deliver_mail(worker_pool, stranger, 20)
    await until(lambda: sum(got.path == "/quick" for got in receiver.received) == 20, "20 quick ones", 10.0)


async def test_an_answer_that_came_before_the_end_is_written_down(
    database: Database, tenant: Tenant, worker_pool: Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "SETTLE_INTERVAL_S", 60)
    made = await add_endpoint(tenant, receiver.url())
    async with dispatching(worker_pool, database.settings()):
        await deliver_mail(worker_pool, tenant)
        await receiver.wait_for(1)
        await asyncio.sleep(0.3)
        delivery_id = await only_delivery(tenant, made["id"])
        assert (await tenant.get(f"/api/v1/webhooks/deliveries/{delivery_id}")).body["log"] == []
    shown = (await tenant.get(f"/api/v1/webhooks/deliveries/{delivery_id}")).body
    assert (shown["status"], len(shown["log"])) == ("delivered", 1)


async def test_a_person_is_forgotten(
    tenant: Tenant, worker_pool: Pool, receiver: Receiver, dispatcher: Dispatcher
) -> None:
    made = await add_endpoint(tenant, receiver.url())
    receiver.answer = lambda got: web.Response(text=got.data["to"])
    stream_id = await deliver_mail(worker_pool, tenant, 2)
    await receiver.wait_for(2)
    await until_all_are_delivered(tenant, f"/api/v1/webhooks/{made['id']}")
    gone, stays = (f"p{stream_id}-{seq}@example.net" for seq in (1, 2))
    async with worker_pool.acquire() as conn:
        contact_id = await conn.fetchval("SELECT id FROM contacts WHERE email = $1", gone)
        await deliveries.forget(conn, tenant.account_id, contact_id, gone)
    shown = [
        str((await tenant.get(f"/api/v1/webhooks/deliveries/{one['id']}")).body)
        for one in (await tenant.get(f"/api/v1/webhooks/{made['id']}/deliveries")).body["deliveries"]
    ]
    assert not any(gone in text for text in shown)
    assert [text.count(stays) for text in shown] == [2, 0]
