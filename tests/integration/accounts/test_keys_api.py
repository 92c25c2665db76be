"""Keys and the account, over HTTP."""

import asyncpg
import pytest

from mailrail.accounts import service
from mailrail.accounts.auth import ProvenKeys
from mailrail.accounts.model import Scope
from mailrail.db.pool import Pool, transaction
from mailrail.ids import Kind
from tests.support.api import Api, Tenant

BOTH = pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])


@BOTH
async def test_a_key_is_made_used_listed_and_revoked(tenant: Tenant, base: str) -> None:
    made = await tenant.post(f"{base}/keys", {"name": "site", "scopes": ["contacts:read", "keys:read"]})
    assert made.status == 201
    text = made.body.pop("key")
    assert text.startswith(made.body["prefix"])
    assert (made.body["test"], made.body["revokedAt"], made.body["lastUsedAt"]) == (False, None, None)
    assert (await tenant.api.call("GET", "/api/v1/contacts", text)).status == 200
    listed = (await tenant.get(f"{base}/keys?limit=1")).body
    assert (listed["total"], listed["pages"], listed["after"]) == (2, 2, made.body["id"])
    assert listed["keys"][0].pop("lastUsedAt")
    made.body.pop("lastUsedAt")
    assert made.body.items() >= listed["keys"][0].items()
    assert text not in str(listed)
    second = (await tenant.get(f"{base}/keys?limit=1&after={listed['after']}")).body["keys"][0]
    assert second["scopes"] == ["full"]
    revoked = await tenant.delete(f"{base}/keys/{made.body['id']}")
    assert (revoked.status, revoked.body["id"]) == (200, made.body["id"])
    assert revoked.body["revokedAt"]
    assert (await tenant.api.call("GET", "/api/v1/contacts", text)).status == 401


@pytest.mark.parametrize(
    ("own", "asked", "given"),
    [
        (["full"], None, ["full"]),
        (["full", "operator"], None, ["full"]),
        (["full"], ["wallet:read"], ["wallet:read"]),
        (["keys:write", "contacts:read"], None, ["keys:write", "contacts:read"]),
        (["keys:write", "contacts:read"], ["contacts:read"], ["contacts:read"]),
        (["keys:write", "operator"], None, ["keys:write"]),
        (["keys:write"], ["full"], None),
        (["keys:write"], ["keys:write", "contacts:read"], None),
    ],
)
async def test_a_key_makes_no_key_that_may_do_more(
    tenant: Tenant, own: list[str], asked: list[str] | None, given: list[str] | None
) -> None:
    maker = await tenant.new_key([Scope(word) for word in own])
    body = {"name": "k"} if asked is None else {"name": "k", "scopes": asked}
    made = await tenant.api.call("POST", "/api/v1/keys", maker, json=body)
    if given is None:
        assert (made.status, made.code, made.params) == (403, "scope_too_wide", {"scopes"})
    else:
        assert (made.status, sorted(made.body["scopes"])) == (201, sorted(given))


async def test_operators_keys_come_from_the_command_line_alone(tenant: Tenant, api_pool: Pool) -> None:
    maker = await tenant.new_key([Scope.FULL, Scope.OPERATOR])
    refused = await tenant.api.call("POST", "/api/v1/keys", maker, json={"name": "k", "scopes": ["full", "operator"]})
    assert (refused.status, refused.params) == (422, {"scopes[1]"})
    # Neither would the database take one from the API's role, nor a key that gains a scope.
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with transaction(api_pool, tenant.account_id) as conn:
            await service.create_key(conn, tenant.account_id, "k", [Scope.OPERATOR])
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        async with transaction(api_pool, tenant.account_id) as conn:
            await conn.execute("UPDATE api_keys SET scopes = '{operator}'")


async def test_a_test_key_makes_test_keys_only(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/keys", {"name": "t", "test": True})
    assert (made.status, made.body["test"]) == (201, True)
    assert made.body["key"].startswith("sk_test_")
    refused = await tenant.api.call("POST", "/api/v1/keys", made.body["key"], json={"name": "live"})
    assert (refused.status, refused.code) == (403, "scope_too_wide")
    again = await tenant.api.call("POST", "/api/v1/keys", made.body["key"], json={"name": "t", "test": True})
    assert (again.status, again.body["test"]) == (201, True)


async def test_the_key_of_a_request_is_revoked_by_it_only_on_purpose(tenant: Tenant) -> None:
    own = (await tenant.get("/api/v1/keys")).body["keys"][0]["id"]
    assert (await tenant.delete(f"/api/v1/keys/{own}")).code == "key_in_use"
    assert (await tenant.delete(f"/api/v1/keys/{own}?self=true")).status == 200
    assert (await tenant.get("/api/v1/keys")).status == 401


async def test_everything_wrong_with_a_key_is_told_at_once(tenant: Tenant) -> None:
    body = {"name": "", "scopes": ["contacts:read", "root", 5], "test": "yes", "scope": "x"}
    answer = await tenant.post("/api/v1/keys", body)
    assert answer.status == 422
    assert answer.params == {"name", "scopes[1]", "scopes[2]", "test", "scope"}
    assert (await tenant.post("/api/v1/keys", {"name": "k", "scopes": []})).params == {"scopes"}


async def test_an_account_has_so_many_keys(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ACTIVE_KEYS_MAX", 2)
    made = await tenant.post("/api/v1/keys", {"name": "k"})
    assert (await tenant.post("/api/v1/keys", {"name": "k"})).code == "key_limit_reached"
    await tenant.delete(f"/api/v1/keys/{made.body['id']}")
    assert (await tenant.post("/api/v1/keys", {"name": "k"})).status == 201


async def test_the_use_of_a_key_is_noted_once_a_minute(
    tenant: Tenant, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def used() -> str:
        row = await worker_pool.fetchrow(
            "SELECT xmin::text, last_used_at FROM api_keys WHERE account_id = $1", account_id
        )
        assert row is not None
        assert row["last_used_at"] is not None
        return str(row["xmin"])

    account_id = tenant.account_id
    # Each request proves the key anew, as those of different processes do.
    monkeypatch.setattr(tenant.api.app.ctx, "proven_keys", ProvenKeys(trust_s=0))
    await tenant.get("/api/v1/contacts")
    first = await used()
    await tenant.get("/api/v1/contacts")
    assert await used() == first
    await worker_pool.execute(
        "UPDATE api_keys SET last_used_at = now() - interval '61 seconds' WHERE account_id = $1", account_id
    )
    stale = await used()
    await tenant.get("/api/v1/contacts")
    assert await used() != stale


@BOTH
async def test_an_account_shows_itself_and_changes_what_is_its_own(tenant: Tenant, base: str) -> None:
    shown = await tenant.get(f"{base}/account")
    assert shown.status == 200
    assert shown.body["id"] == tenant.api.ids.encode(Kind.ACCOUNT, tenant.account_id)
    assert (shown.body["plan"], shown.body["price"], shown.body["priceMicros"]) == ("unlimited", "$0.0003", 300)
    await tenant.verify_domain("acme.com")
    changes = {
        "name": "Acme Corp",
        "senderName": "Sarah",
        "senderEmail": "sarah@News.acme.com",
        "postalAddress": "1 Road\nTown",
        "trackOpens": False,
        "trackClicks": False,
        "unknownPolicy": "never_resend",
    }
    changed = await tenant.patch(f"{base}/account", changes)
    assert changed.status == 200
    assert changed.body == {**shown.body, **changes, "senderEmail": "sarah@news.acme.com"}
    assert (await tenant.get(f"{base}/account")).body == changed.body
    cleared = await tenant.patch(f"{base}/account", {"senderEmail": None, "postalAddress": None, "name": None})
    assert cleared.body == {**changed.body, "senderEmail": None, "postalAddress": None}
    assert (await tenant.patch(f"{base}/account", {})).body == cleared.body


async def test_an_account_changes_nothing_else(tenant: Tenant, api_pool: Pool) -> None:
    before = (await tenant.get("/api/v1/account")).body
    refused = await tenant.patch(
        "/api/v1/account",
        {
            "plan": "enterprise",
            "priceMicros": 0,
            "name": " ",
            "senderEmail": "x",
            "unknownPolicy": "pray",
            "trackOpens": 1,
        },
    )
    assert refused.status == 422
    assert refused.params == {"plan", "priceMicros", "name", "senderEmail", "unknownPolicy", "trackOpens"}
    unverified = await tenant.patch("/api/v1/account", {"name": "Other", "senderEmail": "a@elsewhere.com"})
    assert (unverified.status, unverified.code) == (403, "sender_not_verified")
    assert (await tenant.get("/api/v1/account")).body == before
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with transaction(api_pool, tenant.account_id) as conn:
            await service.change(conn, tenant.account_id, price_micros=0)


async def test_names_go_into_mail_headers_as_one_line(api: Api, tenant: Tenant) -> None:
    for value in ("a\r\nBcc: x@example.com", "a\x00", "a\u2028b"):
        assert (await tenant.patch("/api/v1/account", {"senderName": value})).params == {"senderName"}
