"""Keys, from the database to a request."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager

import pytest

from mailrail.accounts import auth, service, store
from mailrail.accounts.auth import ProvenKeys
from mailrail.accounts.model import Caller, KeyRecord, Scope
from mailrail.db.pool import Connection, Pool
from mailrail.web.context import Request
from tests.support.api import Api, Tenant


async def test_a_key_is_stored_without_its_text(tenant: Tenant, superuser_pool: Pool) -> None:
    async with superuser_pool.acquire() as conn:
        dump = await conn.fetchval("SELECT string_agg(k::text, ' ') FROM mailrail.api_keys k")
    assert tenant.key not in dump
    assert tenant.key[16:] not in dump
    assert tenant.key[:16] in dump


async def test_requests_need_a_key_that_is_valid(api: Api, tenant: Tenant) -> None:
    flipped = tenant.key[:-1] + ("a" if tenant.key[-1] != "a" else "b")
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {tenant.key}"},
        {"Authorization": f"Bearer {flipped}"},
        {"Authorization": "Bearer sk_live_" + "é" * 46},
        {"Authorization": f"Bearer {await tenant.revoked_key()}"},
    ):
        answer = await api.call("GET", "/api/v1/stats", headers=headers)
        assert answer.status == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.body["error"]["type"] == "authentication_error"
        assert answer.headers["x-request-id"] == answer.body["error"]["request_id"]
    assert (await api.call("GET", "/api/v1/stats", headers={"authorization": f"bearer {tenant.key}"})).status == 200


async def revoke(tenant: Tenant) -> None:
    """The tenant's only key, by an operator."""
    async with tenant.api.operator.acquire() as conn:
        (key,) = await service.keys(conn, tenant.account_id)
        revoked = await service.revoke_key(conn, key.id)
        assert (await service.revoke_key(conn, key.id)).revoked_at == revoked.revoked_at


async def test_revoking_a_key_works_within_the_time_that_it_is_trusted(tenant: Tenant) -> None:
    assert (await tenant.get("/api/v1/stats")).status == 200
    await revoke(tenant)
    begun = time.monotonic()
    while (answer := await tenant.get("/api/v1/stats")).status == 200:
        assert time.monotonic() - begun <= auth.TRUST_S + 0.5
        await asyncio.sleep(0.02)
    assert answer.code == "api_key_invalid"


async def test_revoking_a_key_works_at_once_where_none_is_trusted_or_all_are_forgotten(
    api: Api, tenant: Tenant, stranger: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await stranger.get("/api/v1/stats")).status == 200
    await revoke(stranger)
    api.app.ctx.proven_keys.forget(stranger.account_id)
    assert (await stranger.get("/api/v1/stats")).code == "api_key_invalid"
    monkeypatch.setattr(api.app.ctx, "proven_keys", ProvenKeys(trust_s=0))
    assert (await tenant.get("/api/v1/stats")).status == 200
    await revoke(tenant)
    assert (await tenant.get("/api/v1/stats")).code == "api_key_invalid"


async def test_a_proven_key_costs_no_look_up_and_a_wrong_one_at_most_one(
    api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    find_key = store.find_key

    async def counted(conn: Connection, prefix: str) -> KeyRecord | None:
        looked_up.append(prefix)
        return await find_key(conn, prefix)

    monkeypatch.setattr("mailrail.accounts.store.find_key", counted)
    for _ in range(5):
        assert (await tenant.get("/api/v1/stats")).status == 200
    assert len(looked_up) == 1
    unknown = auth.new_key().text
    forged = tenant.key[: auth.PREFIX_CHARS] + "a" * (auth.RANDOM_CHARS - 8)
    forged += auth.checksum(forged)
    for wrong in (unknown, forged):
        looked_up.clear()
        for method, body in (("GET", b""), ("POST", b"{}")):
            assert (await api.call(method, "/api/v1/contacts", wrong, data=body)).status == 401
        assert len(looked_up) == 2
    looked_up.clear()
    assert (await api.call("GET", "/api/v1/stats", unknown[:-1] + "-")).status == 401
    assert looked_up == []


async def test_a_test_key_is_known_as_one(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    callers: list[Caller | None] = []
    finish = Request.transaction

    def seen(request: Request) -> AbstractAsyncContextManager[Connection]:
        callers.append(request.ctx.caller)
        return finish(request)

    monkeypatch.setattr(Request, "transaction", seen)
    key = await tenant.new_key(is_test=True)
    assert key.startswith("sk_test_")
    for text in (key, tenant.key):
        assert (await api.call("GET", "/api/v1/stats", text)).status == 200
    assert [caller and caller.is_test for caller in callers] == [True, False]
    async with api.operator.acquire() as conn:
        stored = await service.keys(conn, tenant.account_id)
    assert [known.is_test for known in stored] == [False, True]


async def test_a_key_does_only_what_its_scopes_say(api: Api, tenant: Tenant) -> None:
    reader = await tenant.new_key([Scope.CONTACTS_READ])
    assert (await api.call("GET", "/api/v1/contacts", reader)).status == 200
    refused = await api.call("POST", "/api/v1/contacts", reader, json={"email": "a@example.com"})
    assert (refused.status, refused.code) == (403, "scope_missing")
    assert Scope.CONTACTS_WRITE in refused.body["error"]["message"]


async def test_a_test_key_starts_no_campaign(api: Api, tenant: Tenant) -> None:
    for scopes in ([Scope.FULL], [Scope.CAMPAIGNS_SEND]):
        key = await tenant.new_key(scopes, is_test=True)
        for path in ("/api/v1/campaigns/x/launch", "/v1/mail/campaigns/x/send", "/api/v1/campaigns/x/resume"):
            refused = await api.call("POST", path, key)
            assert (refused.status, refused.code) == (403, "scope_missing"), path
    assert (await api.call("POST", "/api/v1/campaigns/x/launch", tenant.key)).status == 404
