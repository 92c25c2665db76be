"""Every operation of the document against every caller who has no business there: refused, and nothing is written anywhere.

Then once more without the first wall: the API's statements lose their `account_id = …`, and row level security alone has to do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg.connection
import pytest

from mailrail.accounts.model import Scope
from mailrail.db.pool import Pool
from mailrail.ids import Kind
from mailrail.web.docs_page import example_of
from mailrail.web.openapi import JSON
from tests.support.api import Answer, Api, Tenant, running_api
from tests.support.identities import Identities
from tests.support.postgres import Database

# Nothing that the stranger owns may come back to anybody else; all of it has this word.
SECRET = "secret"
DOMAIN = "acme.com"
# How the stranger comes by one object of each kind, by the name of its parameter.
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "list_id": ("/api/v1/lists", {"name": SECRET}),
    "contact_id": ("/api/v1/contacts", {"email": f"{SECRET}@example.com"}),
    "import_id": ("/api/v1/contacts/import", {"contacts": [{"email": f"{SECRET}2@example.com"}]}),
    "domain_id": ("/api/v1/domains", {"domain": f"{SECRET}.com"}),
    "campaign_id": ("/api/v1/campaigns", {"name": SECRET, "subject": SECRET, "content": f"<p>{SECRET}</p>"}),
    "email_id": (
        "/api/v1/emails",
        {
            "to": f"{SECRET}@example.com",
            "from": f"you@{DOMAIN}",
            "subject": SECRET,
            "text": SECRET,
            "scheduledAt": "2026-12-24T10:15:00Z",
        },
    ),
    "template_id": ("/api/v1/templates", {"name": SECRET, "text": SECRET}),
    "key_id": ("/api/v1/keys", {"name": SECRET}),
    "webhook_id": ("/api/v1/webhooks", {"url": f"https://{SECRET}.example.com/", "events": ["*"]}),
    "delivery_id": ("/api/v1/webhooks/{webhook_id}/test", {}),
}
# What changes without anybody's doing, or by the mere use of a key.
BESIDES = {"send_limits": "*", "api_keys": "last_used_at"}


@dataclass(frozen=True, slots=True)
class Door:
    """One operation of the document that asks for a key."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def scope(self) -> str:
        """What a key needs here."""
        scope: str = self.described["security"][0]["apiKey"][0]
        return scope

    @property
    def names_ids(self) -> bool:
        """Whether its path names an object."""
        return "{" in self.path

    @property
    def schema(self) -> dict[str, Any]:
        """Of its JSON body."""
        schema: dict[str, Any] = self._json.get("schema", {})
        return schema

    @property
    def body(self) -> Any:
        """A body that it would take."""
        return self._json.get("example") or example_of(self.schema)

    @property
    def _json(self) -> dict[str, Any]:
        content: dict[str, Any] = self.described.get("requestBody", {}).get("content", {}).get(JSON, {})
        return content


@pytest.fixture
async def tenant(api: Api) -> Tenant:
    """Who asks."""
    found = await api.add_tenant()
    await found.verify_domain(DOMAIN)
    return found


@pytest.fixture
async def stranger(api: Api) -> Tenant:
    """Whose objects are asked for."""
    found = await api.add_tenant(SECRET)
    await found.verify_domain(DOMAIN)
    return found


async def doors(api: Api) -> list[Door]:
    """All that the document has."""
    document = (await api.call("GET", "/openapi.json")).body
    return [
        Door(method.upper(), path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if "security" in described
    ]


async def objects_of(tenant: Tenant) -> dict[str, str]:
    """One object of each kind: parameter → public id."""
    found: dict[str, str] = {}
    for name, (path, body) in MADE.items():
        made = await tenant.post(filled(path, found), body)
        assert made.status in (201, 202), made
        found[name] = made.body["id"]
    (hold,) = (await tenant.get("/api/v1/wallet/holds")).body["holds"]
    found["hold_id"] = hold["id"]
    (entry,) = (await tenant.post("/api/v1/suppressions", {"email": f"{SECRET}3@example.com"})).body["suppressions"]
    found["suppression"] = entry["id"]
    person = (await tenant.post("/api/v1/contacts", {"email": f"{SECRET}4@example.com"})).body["id"]
    found["erasure_id"] = (await tenant.delete(f"/api/v1/contacts/{person}?erase=true")).body["erasureId"]
    found["account_id"] = (await tenant.get("/api/v1/account")).body["id"]
    return found


def kind_of(public_id: str) -> Kind:
    """Its prefix."""
    return Kind(public_id.partition("_")[0])


def parameter_of(field: str) -> str:
    """`listId` → `list_id`."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", field)


def filled(path: str, ids: dict[str, str]) -> str:
    """The path with ids for its parameters; the number of a version is none."""
    return re.sub(r"{(\w+)}", lambda found: "1" if found[1] == "version" else ids[found[1]], path)


def naming(body: Any, schema: dict[str, Any], ids: dict[str, str]) -> Iterator[Any]:
    """The body, once with each field that takes an id set to one of `ids`."""
    for name, inner in schema.get("properties", {}).items():
        if re.fullmatch(r"\w+Id", name) and name != "contentId":
            yield {**body, name: ids[parameter_of(name)]}
        elif name == "lists":
            yield {**body, name: [ids["list_id"]]}
        elif inner.get("type") == "object":
            for value in naming(body.get(name, {}), inner, ids):
                yield {**body, name: value}


async def attempts(tenant: Tenant, asked: list[Door], ids: dict[str, str]) -> list[tuple[str, Answer]]:
    """Everything in which the tenant could name these ids, in paths and in bodies."""
    tried = []
    for door in asked:
        path = filled(door.path, ids)
        bodies = [door.body] if door.names_ids else naming(door.body, door.schema, ids)
        for body in bodies:
            options = {} if body is None or door.method in ("GET", "DELETE") else {"json": body}
            answer = await tenant.api.call(door.method, path, tenant.key, **options)
            tried.append((f"{door.method} {door.path} {body}", answer))
    return tried


async def everything(pool: Pool, asker: Tenant | None = None) -> dict[str, str]:
    """A digest of each table, versions of rows included, as the superuser sees it; without the rows of who asks, since an
    upload that is refused at its end is kept as failed.
    """
    async with pool.acquire() as conn:
        tables = await conn.fetch(
            """SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'mailrail'::regnamespace AND c.relkind IN ('r', 'p')
                 AND NOT c.relispartition"""
        )
        digests = {}
        for (name,) in tables:
            besides = BESIDES.get(name)
            version = "" if besides else "xmin::text ||"
            if besides != "*":
                digests[name] = await conn.fetchval(
                    f"""SELECT count(*) || ' ' || coalesce(sum(hashtextextended({version} (to_jsonb(t) - $1)::text, 0)), 0)
                        FROM mailrail.{name} t WHERE to_jsonb(t)->>'account_id' IS DISTINCT FROM $2""",
                    besides or "",
                    str(asker.account_id) if asker else "",
                )
    return digests


def drop_account_filters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the first wall down in this process; the list gets each statement that lost a filter."""
    changed = []
    connection: Any = asyncpg.connection.Connection
    execute = connection._execute

    async def execute_unfiltered(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        bare = re.sub(r"\b(?:\w+\.)?account_id = (\$\d+)", r"(\1::bigint IS NOT NULL)", query)
        if bare != query:
            changed.append(query)
        return await execute(self, bare, *arguments, **options)

    monkeypatch.setattr(connection, "_execute", execute_unfiltered)
    return changed


async def test_callers_without_the_right_are_refused_and_nothing_is_written(
    api: Api, stranger: Tenant, superuser_pool: Pool
) -> None:
    ids = await objects_of(stranger)
    asked = await doors(api)
    wrong = {
        scope: await stranger.new_key([other for other in Scope if other not in (Scope.FULL, scope)])
        for scope in {door.scope for door in asked}
    }
    revoked = await stranger.revoked_key()
    before = await everything(superuser_pool)
    for door in asked:
        path = filled(door.path, ids)
        for key, status in ((None, 401), ("sk_live_x", 401), (revoked, 401), (wrong[door.scope], 403)):
            answer = await api.call(door.method, path, key, json=door.body)
            assert answer.status == status, (door.method, path, answer)
    assert await everything(superuser_pool) == before


async def test_anothers_objects_cannot_be_told_from_absent_ones_and_stay_as_they_are(
    api: Api, tenant: Tenant, stranger: Tenant, superuser_pool: Pool
) -> None:
    theirs = await objects_of(stranger)
    absent = {name: api.ids.encode(kind_of(given), 2**62) for name, given in theirs.items()}
    asked = await doors(api)
    before = await everything(superuser_pool, tenant)
    answers = [await attempts(tenant, asked, ids) for ids in (theirs, absent, dict.fromkeys(theirs, "x"))]
    assert await everything(superuser_pool, tenant) == before
    assert len(answers[0]) > len([door for door in asked if door.names_ids])
    for (attempt, one), (_, other), (_, malformed) in zip(*answers, strict=True):
        assert one.status in (403, 404), (attempt, one)
        for answer in (one, other, malformed):
            answer.body["error"].pop("request_id")
        assert one.body == other.body == malformed.body, attempt
        assert SECRET not in str(one.body), attempt


async def test_anothers_ids_in_a_query_bring_nothing(api: Api, tenant: Tenant, stranger: Tenant) -> None:
    ids = await objects_of(stranger)
    named = 0
    for door in await doors(api):
        for parameter in door.described["parameters"]:
            name = parameter.get("name", "")
            if re.fullmatch(r"\w+Id|campaign|after", name) and not door.names_ids:
                for value in ids.values():
                    answer = await tenant.api.call(door.method, f"{door.path}?{name}={value}", tenant.key)
                    assert answer.status in (200, 404, 415, 422), (door, answer)
                    assert SECRET not in str(answer.body), (door, answer)
                    named += 1
    assert named > len(ids)


async def test_row_level_security_alone_holds(
    api: Api, tenant: Tenant, stranger: Tenant, superuser_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = await objects_of(stranger)
    asked = await doors(api)
    before = await everything(superuser_pool, tenant)
    changed = drop_account_filters(monkeypatch)
    tried = await attempts(tenant, asked, theirs)
    monkeypatch.undo()
    assert [attempt for attempt, answer in tried if answer.status not in (403, 404)] == []
    assert await everything(superuser_pool, tenant) == before
    assert len(set(changed)) > 10


async def test_without_both_walls_the_matrix_finds_holes(
    database: Database, worker_pool: Pool, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: as a superuser, whom row level security lets through, the same attempts get somewhere."""
    url = f"{database.superuser_url}?search_path=mailrail"
    settings = database.settings(ses_endpoint=identities.endpoint, api_database_url=url)
    async with running_api(settings, worker_pool) as api:
        tenant, stranger = await api.add_tenant(), await api.add_tenant(SECRET)
        await stranger.verify_domain(DOMAIN)
        theirs = await objects_of(stranger)
        asked = await doors(api)
        drop_account_filters(monkeypatch)
        tried = await attempts(tenant, asked, theirs)
        monkeypatch.undo()
    open_doors = {attempt for attempt, answer in tried if answer.status < 300}
    assert len(open_doors) > 10, open_doors
