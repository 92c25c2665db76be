"""Webhook endpoints over HTTP, and their secrets at rest."""

import asyncio
import re

import asyncpg
import pytest

from mailrail.accounts.model import Scope
from mailrail.db.pool import Pool, transaction
from mailrail.ids import Kind
from mailrail.sealing import SealBroken
from mailrail.webhooks import service
from tests.support.api import Api, Tenant, running_api
from tests.support.postgres import Database

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])
# As the documentation prints it.
BODY = {
    "url": "https://your-app.com/webhook",
    "events": ["email.sent", "email.opened", "email.clicked", "email.bounced"],
}
SECRET = re.compile("whsec_[A-Za-z0-9+/]{43}=")


@BOTH
async def test_an_endpoint_is_made_and_listed_as_printed(tenant: Tenant, base: str) -> None:
    made = await tenant.post(f"{base}/webhooks", BODY)
    assert made.status == 201
    assert re.fullmatch("whk_[a-z2-7]{26}", made.body["id"])
    assert SECRET.fullmatch(made.body["secret"])
    assert made.body.items() >= BODY.items()
    listed = (await tenant.get(f"{base}/webhooks")).body
    assert listed["total"] == 1
    (shown,) = listed["webhooks"]
    assert shown["isActive"] is True
    assert "secret" not in shown
    assert {**shown, "secret": made.body["secret"]} == made.body
    assert (await tenant.get(f"{base}/webhooks/{made.body['id']}")).body == shown


async def test_an_endpoint_is_changed_and_deleted(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/webhooks", {**BODY, "description": "Orders", "isActive": False})
    assert (made.body["description"], made.body["isActive"]) == ("Orders", False)
    path = f"/api/v1/webhooks/{made.body['id']}"
    changed = await tenant.patch(
        path, {"url": "https://OTHER.example/x", "events": ["email.sent", "*"], "isActive": True}
    )
    assert changed.status == 200
    assert (changed.body["url"], changed.body["events"]) == ("https://other.example/x", ["*"])
    assert (changed.body["isActive"], changed.body["description"]) == (True, "Orders")
    assert (await tenant.patch(path, {"description": None})).body["description"] is None
    assert (await tenant.patch(path, {})).status == 200
    assert (await tenant.get(f"{path}/secret")).body["secret"] == made.body["secret"]
    deleted = await tenant.delete(path)
    assert (deleted.status, deleted.body) == (200, {"id": made.body["id"], "deleted": True})
    for answer in (await tenant.get(path), await tenant.delete(path), await tenant.patch(path, {"isActive": True})):
        assert (answer.status, answer.code) == (404, "webhook_not_found")


async def test_everything_wrong_is_told_at_once(tenant: Tenant) -> None:
    answer = await tenant.post(
        "/api/v1/webhooks", {"events": ["email.sent", "email.eaten", 7], "isActive": "no", "secret": "x"}
    )
    assert answer.status == 422
    assert answer.params == {"url", "events[1]", "events[2]", "isActive", "secret"}
    assert (await tenant.post("/api/v1/webhooks", {"url": "https://a.example/"})).params == {"events"}
    assert (await tenant.post("/api/v1/webhooks", {**BODY, "events": []})).params == {"events"}
    made = await tenant.post("/api/v1/webhooks", BODY)
    assert (await tenant.patch(f"/api/v1/webhooks/{made.body['id']}", {"events": []})).params == {"events"}


async def test_urls_of_private_places_are_refused(database: Database, worker_pool: Pool, tenant: Tenant) -> None:
    # This installation is on loopback itself, so it is a developer's.
    local = {**BODY, "url": "http://127.0.0.1:9000/hook"}
    made = await tenant.post("/api/v1/webhooks", local)
    assert made.status == 201
    async with running_api(database.settings(public_url="https://mail.example.com"), worker_pool) as api:
        abroad = Tenant(api, tenant.account_id, tenant.key)
        for url in (local["url"], "https://127.0.0.1/", "https://169.254.169.254/", "http://example.com/"):
            for answer in (
                await abroad.post("/api/v1/webhooks", {**BODY, "url": url}),
                await abroad.patch(f"/api/v1/webhooks/{made.body['id']}", {"url": url}),
            ):
                assert (answer.status, answer.code, answer.params) == (422, "webhook_url_invalid", {"url"})
        assert (await abroad.post("/api/v1/webhooks", BODY)).status == 201


async def test_an_account_has_so_many_endpoints(tenant: Tenant, stranger: Tenant) -> None:
    answers = await asyncio.gather(*(tenant.post("/api/v1/webhooks", BODY) for _ in range(23)))
    assert sorted(answer.status for answer in answers) == [201] * 20 + [409] * 3
    assert {answer.code for answer in answers if answer.status == 409} == {"webhook_limit_reached"}
    assert (await stranger.post("/api/v1/webhooks", BODY)).status == 201


async def test_a_rotated_secret_stays_valid_for_a_day(tenant: Tenant, worker_pool: Pool) -> None:
    made = (await tenant.post("/api/v1/webhooks", BODY)).body
    path = f"/api/v1/webhooks/{made['id']}"
    assert (await tenant.get(f"{path}/secret")).body == {
        "id": made["id"],
        "secret": made["secret"],
        "previousSecret": None,
        "previousSecretUntil": None,
    }
    rotated = (await tenant.post(f"{path}/rotate-secret")).body
    assert SECRET.fullmatch(rotated["secret"])
    assert rotated["secret"] != made["secret"] == rotated["previousSecret"]
    assert (await tenant.get(f"{path}/secret")).body == rotated
    row_id = tenant.api.ids.find(Kind.WEBHOOK, made["id"])
    left = await worker_pool.fetchval("SELECT previous_until - now() FROM webhook_endpoints WHERE id = $1", row_id)
    assert 23.9 * 3600 < left.total_seconds() <= 24 * 3600
    await worker_pool.execute("UPDATE webhook_endpoints SET previous_until = now() WHERE id = $1", row_id)
    assert (await tenant.get(f"{path}/secret")).body["previousSecret"] is None


async def test_a_secret_is_shown_to_who_may_change_it(api: Api, tenant: Tenant) -> None:
    made = (await tenant.post("/api/v1/webhooks", BODY)).body
    reader = await tenant.new_key([Scope.WEBHOOKS_READ])
    assert (await api.call("GET", f"/api/v1/webhooks/{made['id']}", reader)).status == 200
    assert (await api.call("GET", f"/api/v1/webhooks/{made['id']}/secret", reader)).code == "scope_missing"


async def test_no_dump_holds_a_secret(tenant: Tenant, superuser_pool: Pool) -> None:
    made = (await tenant.post("/api/v1/webhooks", BODY)).body
    await tenant.post(f"/api/v1/webhooks/{made['id']}/rotate-secret")
    dump = await superuser_pool.fetchval("SELECT string_agg(w::text, ' ') FROM mailrail.webhook_endpoints w")
    plain = made["secret"].encode()
    assert plain.decode() not in dump
    assert plain.hex() not in dump
    assert plain.removeprefix(b"whsec_").hex() not in dump


async def test_a_secret_moved_to_another_row_does_not_open(
    database: Database, tenant: Tenant, stranger: Tenant, superuser_pool: Pool, worker_pool: Pool
) -> None:
    ids = tenant.api.ids
    made = [await who.post("/api/v1/webhooks", BODY) for who in (tenant, tenant, stranger)]
    mine, second, theirs = (ids.find(Kind.WEBHOOK, answer.body["id"]) for answer in made)
    move = """UPDATE mailrail.webhook_endpoints t SET secret = s.secret FROM mailrail.webhook_endpoints s
              WHERE t.id = $2 AND s.id = $1"""
    for target, owner in ((theirs, stranger), (second, tenant)):
        await superuser_pool.execute(move, mine, target)
        shown = await owner.get(f"/api/v1/webhooks/{ids.encode(Kind.WEBHOOK, target)}/secret")
        assert (shown.status, shown.code) == (500, "internal_error")
        async with worker_pool.acquire() as conn:
            endpoint = await service.get(conn, owner.account_id, target)
            with pytest.raises(SealBroken):
                await service.secrets_of(conn, endpoint, database.settings())
    # Nor does it after the whole row was given to another account.
    await superuser_pool.execute(
        "UPDATE mailrail.webhook_endpoints SET account_id = $2 WHERE id = $1", mine, stranger.account_id
    )
    assert (await stranger.get(f"/api/v1/webhooks/{ids.encode(Kind.WEBHOOK, mine)}/secret")).status == 500


async def test_no_endpoint_is_written_for_another_tenant(api_pool: Pool, tenant: Tenant, stranger: Tenant) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with transaction(api_pool, tenant.account_id) as conn:
            await conn.execute(
                "INSERT INTO webhook_endpoints (account_id, url, events, secret) VALUES ($1, 'https://a.example', '{*}', '')",
                stranger.account_id,
            )
