"""Idempotency-Key: one effect and one answer, whatever comes twice, at once or after a failure."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from mailrail import worker
from mailrail.accounts.model import Scope
from mailrail.contacts import store as contacts
from mailrail.db.pool import Pool
from mailrail.web import store
from mailrail.web.context import Request
from tests.support.api import Answer, Api, Tenant, assert_error_form
from tests.support.fleet import starting
from tests.support.ports import free_port
from tests.support.postgres import Database

TWINS = 200


async def post(
    tenant: Tenant, path: str, body: Any, key: str | list[str], api_key: str | None = None, **options: Any
) -> Answer:
    """A POST under an Idempotency-Key, or under several."""
    keys = [key] if isinstance(key, str) else key
    headers = [("Authorization", f"Bearer {api_key or tenant.key}"), *(("Idempotency-Key", one) for one in keys)]
    async with tenant.api.session.post(tenant.api.base_url + path, json=body, headers=headers, **options) as response:
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, await response.json(), names)


async def kept(pool: Pool) -> int:
    """How many answers are kept."""
    async with pool.acquire() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM idempotency_keys")
        return count


async def test_a_repeated_request_is_answered_as_the_first_was(tenant: Tenant) -> None:
    body = {"email": "new@example.com", "customFields": {"a": 1}}
    first = await post(tenant, "/api/v1/contacts", body, "order-1")
    again = await post(tenant, "/api/v1/contacts", body, "order-1")
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/json"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/contacts", {"email": "other@example.com"}),
        ("/api/v1/contacts?upsert=true", {"email": "new@example.com"}),
        ("/v1/mail/contacts", {"email": "new@example.com"}),
        ("/api/v1/lists", {"name": "new@example.com"}),
    ],
)
async def test_another_request_under_the_same_key_is_refused(tenant: Tenant, path: str, body: Any) -> None:
    assert (await post(tenant, "/api/v1/contacts", {"email": "new@example.com"}, "k")).status == 201
    refused = await post(tenant, path, body, "k")
    assert (refused.status, refused.code) == (422, "idempotency_key_reused")
    assert refused.params == {"Idempotency-Key"}
    assert_error_form(refused)


async def test_twins_have_one_effect_and_one_answer(tenant: Tenant, worker_pool: Pool) -> None:
    body = {"email": "twin@example.com", "tags": ["once"]}
    answers = await asyncio.gather(*(post(tenant, "/api/v1/contacts", body, "twins") for _ in range(TWINS)))
    first = [answer for answer in answers if answer.status == 201 and "idempotent-replayed" not in answer.headers]
    replays = [answer for answer in answers if answer.headers.get("idempotent-replayed") == "true"]
    busy = [answer for answer in answers if answer.status == 409]
    assert len(first) == 1
    assert len(first) + len(replays) + len(busy) == TWINS, Counter(answer.status for answer in answers)
    for answer in replays:
        assert (answer.status, answer.body) == (201, first[0].body)
    for answer in busy:
        assert answer.code == "idempotency_key_in_use"
        assert int(answer.headers["retry-after"]) >= 1
        assert_error_form(answer)
    async with worker_pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM contacts WHERE account_id = $1", tenant.account_id) == 1
        rows = await conn.fetch(
            "SELECT key, state, status FROM idempotency_keys WHERE account_id = $1", tenant.account_id
        )
    assert [tuple(row) for row in rows] == [("twins", "done", 201)]


async def test_a_failure_in_between_undoes_the_effect_and_keeps_nothing(
    tenant: Tenant, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"email": "broken@example.com"}
    before = await kept(worker_pool)

    # The contact is written, then the process fails before, or the database at, the keeping of the answer.
    for broken in (RuntimeError, ConnectionResetError):

        async def fail(*arguments: Any, error: type[Exception] = broken) -> None:
            async with worker_pool.acquire() as conn:
                assert await conn.fetchval("SELECT count(*) FROM contacts WHERE email = 'broken@example.com'") == 0
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(store, "insert_answer", fail)
            assert (await post(tenant, "/api/v1/contacts", body, "kill")).status in (500, 503)
        assert (await tenant.get("/api/v1/contacts")).body["total"] == 0
        assert await kept(worker_pool) == before
    answer = await post(tenant, "/api/v1/contacts", body, "kill")
    assert (answer.status, "idempotent-replayed" in answer.headers) == (201, False)


@pytest.mark.parametrize(("point", "replayed"), [("answer.kept", None), ("answer.committed", "true")])
async def test_a_killed_server_has_done_all_or_nothing(
    database: Database, tenant: Tenant, tmp_path: Path, point: str, replayed: str | None
) -> None:
    settings = database.settings(port=free_port())
    url = f"http://127.0.0.1:{settings.port}/api/v1/contacts"
    headers = {"Authorization": f"Bearer {tenant.key}", "Idempotency-Key": "kill"}
    body = {"email": "killed@example.com"}
    armed = orjson.dumps({"seed": 1, "points": {point: {"kill": 1.0}}}).decode()
    session = tenant.api.session
    with starting("api", settings, tmp_path, MAILRAIL_TEST_FAILPOINTS=armed) as server:
        with pytest.raises(aiohttp.ClientError):
            await session.post(url, json=body, headers=headers)
        assert server.process.wait(10) == -signal.SIGKILL
    assert (await tenant.get("/api/v1/contacts")).body["total"] == (1 if replayed else 0)
    with starting("api", settings, tmp_path):
        for expected in (replayed, "true"):
            async with session.post(url, json=body, headers=headers) as answer:
                assert (answer.status, answer.headers.get("Idempotent-Replayed")) == (201, expected)
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 1


async def test_a_client_that_hangs_up_may_come_again(
    tenant: Tenant, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"email": "gone@example.com"}
    entered = asyncio.Event()
    insert = contacts.insert_contact

    async def slow(*arguments: Any) -> Any:
        made = await insert(*arguments)
        entered.set()
        await asyncio.sleep(30)
        return made

    with monkeypatch.context() as patched:
        patched.setattr(contacts, "insert_contact", slow)
        request = asyncio.create_task(post(tenant, "/api/v1/contacts", body, "gone"))
        await entered.wait()
        busy = await post(tenant, "/api/v1/contacts", body, "gone")
        assert (busy.status, busy.code) == (409, "idempotency_key_in_use")
        request.cancel()
    async with asyncio.timeout(5):
        while (again := await post(tenant, "/api/v1/contacts", body, "gone")).status == 409:
            await asyncio.sleep(0.05)
    assert (again.status, "idempotent-replayed" in again.headers) == (201, False)
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 1


async def test_an_error_is_not_kept(tenant: Tenant, worker_pool: Pool) -> None:
    before = await kept(worker_pool)
    assert (await post(tenant, "/api/v1/contacts", {"email": "x"}, "errors")).status == 422
    assert (await post(tenant, "/api/v1/contacts", {"email": "a@example.com"}, "errors")).status == 201
    assert (await post(tenant, "/api/v1/contacts", {"email": "a@example.com"}, "conflict")).status == 409
    assert await kept(worker_pool) == before + 1


async def test_keys_belong_to_an_account_and_to_test_or_live(tenant: Tenant, stranger: Tenant) -> None:
    body = {"name": "List"}
    assert (await post(tenant, "/api/v1/lists", body, "same")).status == 201
    others = await post(stranger, "/api/v1/lists", body, "same")
    assert (others.status, "idempotent-replayed" in others.headers) == (201, False)
    test_key = await tenant.new_key(is_test=True)
    test = await post(tenant, "/api/v1/lists", {"name": "Other"}, "same", test_key)
    assert (test.status, "idempotent-replayed" in test.headers) == (201, False)
    second_key = await tenant.new_key()
    assert (await post(tenant, "/api/v1/lists", body, "same", second_key)).headers["idempotent-replayed"] == "true"
    # A key that may not do it is not told what was answered.
    reader = await tenant.new_key([Scope.CONTACTS_READ])
    assert (await post(tenant, "/api/v1/lists", body, "same", reader)).status == 403


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "ü", "a\tb", ["a", "b"], ["a", "a"]])
async def test_a_key_that_is_none_is_refused(tenant: Tenant, key: str | list[str]) -> None:
    refused = await post(tenant, "/api/v1/lists", {"name": "List"}, key)
    assert (refused.status, refused.code, refused.params) == (422, "fields_invalid", {"Idempotency-Key"})
    assert (await tenant.get("/api/v1/lists")).body["total"] == 0


@pytest.mark.parametrize("key", ["x", "x" * 255, "!~", "4f1c0c0e-0d6d-4b8e-9d46-2c1a5a4f0b0e", "  padded  "])
async def test_any_visible_text_is_a_key(tenant: Tenant, key: str) -> None:
    for replayed in (None, "true"):
        answer = await post(tenant, "/api/v1/lists", {"name": "List"}, key)
        assert (answer.status, answer.headers.get("idempotent-replayed")) == (201, replayed)


async def test_a_kept_answer_cannot_be_read_in_the_database(tenant: Tenant, superuser_pool: Pool) -> None:
    await post(tenant, "/api/v1/contacts", {"email": "secret@example.com"}, "sealed")
    async with superuser_pool.acquire() as conn:
        body = await conn.fetchval("SELECT body FROM mailrail.idempotency_keys WHERE key = 'sealed'")
        assert b"secret" not in body
        # Moved to another key it opens nothing.
        await conn.execute(
            """UPDATE mailrail.idempotency_keys k SET key = 'moved' WHERE key = 'sealed' AND account_id = $1""",
            tenant.account_id,
        )
    moved = await post(tenant, "/api/v1/contacts", {"email": "secret@example.com"}, "moved")
    assert moved.code == "idempotency_key_in_use"


async def test_every_post_with_a_scope_keeps_answers(api: Api) -> None:
    for route in api.app.router.routes:
        if "POST" in route.methods:
            keeps = hasattr(route.handler, "__wrapped__")
            itself = route.ctx.operation is not None and route.ctx.operation.is_idempotent
            assert keeps != (itself or route.ctx.access == "public"), route.path


async def test_adding_a_domain_is_one_effect_too(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler has several transactions of its own; under a key they are parts of one, on one connection."""
    seen = set()
    transaction = Request.transaction

    def counted(request: Request) -> Any:
        seen.add(id(request.ctx.connection))
        return transaction(request)

    monkeypatch.setattr(Request, "transaction", counted)
    first = await post(tenant, "/api/v1/domains", {"domain": "acme.com"}, "domain")
    assert (first.status, len(seen)) == (201, 1)
    assert id(None) not in seen
    again = await post(tenant, "/api/v1/domains", {"domain": "acme.com"}, "domain")
    assert again.body == first.body


async def test_old_answers_are_swept(tenant: Tenant, worker_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SWEEP_ROWS", 2)
    for number in range(6):
        await post(tenant, "/api/v1/lists", {"name": f"List {number}"}, f"old-{number}")
    async with worker_pool.acquire() as conn:
        await conn.execute(
            """UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'
               WHERE account_id = $1 AND key <> 'old-5'""",
            tenant.account_id,
        )
        await worker.sweep_answers(conn)
        keys = await conn.fetch("SELECT key FROM idempotency_keys WHERE account_id = $1", tenant.account_id)
    assert [row["key"] for row in keys] == ["old-5"]
    # A key is free again after its time.
    again = await post(tenant, "/api/v1/lists", {"name": "Another"}, "old-0")
    assert (again.status, "idempotent-replayed" in again.headers) == (201, False)
