"""Keys, from the database to a request."""

from mailrail.accounts import service
from mailrail.accounts.model import Scope
from mailrail.db.pool import Pool
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


async def test_revoking_a_key_works_with_the_next_request(api: Api, tenant: Tenant, worker_pool: Pool) -> None:
    assert (await tenant.get("/api/v1/stats")).status == 200
    async with worker_pool.acquire() as conn:
        (key,) = await service.keys(conn, tenant.account_id)
        revoked = await service.revoke_key(conn, key.id)
        assert (await service.revoke_key(conn, key.id)).revoked_at == revoked.revoked_at
    assert (await tenant.get("/api/v1/stats")).code == "api_key_invalid"


async def test_a_key_does_only_what_its_scopes_say(api: Api, tenant: Tenant) -> None:
    reader = await tenant.new_key([Scope.CONTACTS_READ])
    assert (await api.call("GET", "/api/v1/contacts", reader)).status == 200
    refused = await api.call("POST", "/api/v1/contacts", reader, json={"email": "a@example.com"})
    assert (refused.status, refused.code) == (403, "scope_missing")
    assert Scope.CONTACTS_WRITE in refused.body["error"]["message"]
