"""Audiences through the API: both dialects, several lists, lists that go, and who leaves after the start."""

from typing import Any

import orjson
import pytest

from mailrail.campaigns import store
from mailrail.db.pool import Pool
from mailrail.emails import store as emails
from mailrail.emails.model import Outcome
from mailrail.ids import Kind
from tests.support.api import Tenant
from tests.support.campaigns import BODY, draft, row_of, stream_of
from tests.support.rows import cells_of

LEASE_S = 30.0


async def make_people(tenant: Tenant) -> list[str]:
    """Ids of two lists; ann is on both, bob on the second, carl on none."""
    lists = [(await tenant.post("/api/v1/lists", {"name": name})).body["id"] for name in ("L", "M")]
    for name, on, plan in (("ann", lists, "pro"), ("bob", lists[1:], "free"), ("carl", [], "pro")):
        body = {"email": f"{name}@example.com", "tags": [name], "customFields": {"plan": plan}}
        await tenant.post("/api/v1/contacts", body)
        for list_id in on:
            await tenant.post("/api/v1/contacts", {"email": f"{name}@example.com", "listId": list_id})
    return lists


async def frozen(tenant: Tenant, path: str) -> list[str]:
    """Who is in the audience, in the order of the numbers."""
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT email FROM audience WHERE stream_id = $1 ORDER BY seq", await stream_of(tenant, path)
        )
    return [row["email"].partition("@")[0] for row in rows]


@pytest.mark.parametrize("dialect", ["/api/v1", "/v1/mail"])
@pytest.mark.parametrize(
    ("audience", "reached"),
    [
        ({"lists": ["L", "M"]}, ["ann", "bob"]),
        ({"lists": ["M"], "tags": ["bob"]}, ["bob"]),
        ({"where": [["customFields.plan", "=", "pro"]]}, ["ann", "carl"]),
        ({"where": [["customFields.plan", "in", ["free"]], ["email", "startsWith", "BOB"]]}, ["bob"]),
        ({"exclude": {"lists": ["L"]}}, ["bob", "carl"]),
        ({"where": [["createdAt", "after", "2020-01-01"]], "exclude": {"tags": ["carl"]}}, ["ann", "bob"]),
    ],
)
async def test_an_audience_is_counted_shown_and_frozen(
    tenant: Tenant, dialect: str, audience: dict[str, Any], reached: list[str]
) -> None:
    await tenant.verify_domain()
    ids = dict(zip("LM", await make_people(tenant), strict=True))

    def named(parts: dict[str, Any]) -> dict[str, Any]:
        given = {**parts, **({"exclude": named(parts["exclude"])} if "exclude" in parts else {})}
        return {**given, **({"lists": [ids[name] for name in parts["lists"]]} if "lists" in parts else {})}

    body = {**BODY, "audience": named(audience)}
    if dialect == "/v1/mail":
        body["content"] = {"html": BODY["content"]}
    made = await tenant.post(f"{dialect}/campaigns", body)
    assert (made.status, made.body["audienceCount"]) == (201, len(reached)), made.body
    path = f"{dialect}/campaigns/{made.body['id']}"
    assert (await tenant.get(path)).body["audience"] == named(audience)
    sent = await tenant.post(f"{path}/{'send' if dialect == '/v1/mail' else 'launch'}")
    assert (sent.status, sent.body["audienceCount"]) == (200, len(reached)), sent.body
    assert await frozen(tenant, path) == reached


async def test_who_leaves_every_list_after_the_start_gets_nothing(tenant: Tenant, worker_pool: Pool) -> None:
    await tenant.verify_domain()
    lists = await make_people(tenant)
    path = await draft(tenant, audience={"lists": lists})
    assert (await tenant.post(f"{path}/launch")).status == 200
    stream_id = await stream_of(tenant, path)
    async with worker_pool.acquire() as conn:
        # ann leaves one list of two, bob his only one.
        await conn.execute(
            """UPDATE list_members m SET status = 'unsubscribed' FROM contacts c, lists l
               WHERE c.id = m.contact_id AND l.id = m.list_id AND m.account_id = $1
                 AND (c.email LIKE 'ann%' AND l.name = 'L' OR c.email LIKE 'bob%')""",
            tenant.account_id,
        )
        await conn.execute("UPDATE shards SET wake_at = NULL WHERE stream_id <> $1", stream_id)
        shard = await emails.take_shard(conn, LEASE_S)
        assert shard is not None
        claimed = await emails.claim_round(conn, shard, 10, LEASE_S)
        assert claimed is not None
        _, _, list_ids, _ = await store.read_stream(conn, stream_id)
        rows = await emails.read_round(conn, shard, claimed, list_ids)
    skips = [cells[2] and int.from_bytes(cells[2]) for cells in cells_of(rows)]
    assert skips == [None, Outcome.SKIPPED_UNSUBSCRIBED]


async def test_who_unsubscribes_from_one_of_several_lists_leaves_everything(tenant: Tenant) -> None:
    await tenant.verify_domain()
    lists = await make_people(tenant)
    named = {}
    for count in (1, 2):
        path = await draft(tenant, audience={"lists": lists[:count]})
        await tenant.post(f"{path}/launch")
        async with tenant.api.operator.acquire() as conn:
            identity = await conn.fetchval(
                "SELECT identity FROM streams WHERE stream_id = $1", await stream_of(tenant, path)
            )
        named[count] = orjson.loads(identity)["list_id"]
    assert named == {1: tenant.api.ids.find(Kind.LIST, lists[0]), 2: 0}


async def test_a_list_that_is_gone_stops_the_start_instead_of_widening_it(tenant: Tenant) -> None:
    await tenant.verify_domain()
    lists = await make_people(tenant)
    path = await draft(tenant, audience={"exclude": {"lists": lists[:1]}})
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("DELETE FROM lists WHERE account_id = $1 AND name = 'L'", tenant.account_id)
    answer = await tenant.post(f"{path}/launch")
    assert (answer.status, answer.code) == (404, "list_not_found")
    told = (await tenant.post(f"{path}/dry-run")).body
    assert [(one["code"], one["param"]) for one in told["problems"]] == [("list_not_found", "exclude.lists")]
    assert (await tenant.get(path)).body["status"] == "draft"


async def test_a_field_that_nobody_has_is_a_warning(tenant: Tenant) -> None:
    await make_people(tenant)
    where = [["customFields.plan", "=", "pro"], ["customFields.paln", "=", "pro"]]
    made = await tenant.post("/api/v1/campaigns", {**BODY, "audience": {"where": where}})
    assert [("'paln'" in one) for one in made.body["warnings"]] == [True]
    assert made.body["audienceCount"] == 0


async def test_anothers_lists_and_contacts_are_out_of_reach(tenant: Tenant, stranger: Tenant) -> None:
    theirs = await make_people(stranger)
    for audience in ({"lists": theirs}, {"exclude": {"lists": theirs}}):
        assert (await tenant.post("/api/v1/campaigns", {**BODY, "audience": audience})).code == "list_not_found"
    everybody = {"where": [["email", "exists", True]]}
    assert (await tenant.post("/api/v1/campaigns", {**BODY, "audience": everybody})).body["audienceCount"] == 0


async def test_the_version_before_reaches_nobody_where_it_does_not_know_the_audience(tenant: Tenant) -> None:
    await make_people(tenant)
    path = await draft(tenant, audience={"where": [["customFields.plan", "=", "pro"]]})
    async with tenant.api.operator.acquire() as conn, conn.transaction():
        await conn.execute("SELECT set_config('mailrail.account_id', $1, true)", str(tenant.account_id))
        row = await conn.fetchrow("SELECT list_id, tags FROM campaigns WHERE id = $1", row_of(tenant, path))
        assert row is not None
        reached = await conn.fetchval(
            "SELECT count_audience($1, $2, $3)", tenant.account_id, row["list_id"], row["tags"]
        )
    assert reached == 0


@pytest.mark.parametrize(
    "evil",
    ["' OR 1=1 --", "\\'; DROP TABLE contacts; --", "$1", "{}", "%s", "\u0000x", "a\x00b", "'||(SELECT 1)||'", "\\"],
)
async def test_no_value_or_name_is_ever_sql(tenant: Tenant, evil: str) -> None:
    await make_people(tenant)
    for where in (["email", "=", evil], ["customFields.plan", "contains", evil], ["customFields.plan", "in", [evil]]):
        made = await tenant.post("/api/v1/campaigns", {**BODY, "audience": {"where": [where]}})
        if "\x00" in evil:
            assert (made.status, made.params) == (422, {"audience.where[0]"})
        else:
            assert (made.status, made.body["audienceCount"]) == (201, 0)
    for where in ([evil, "=", "x"], [f"customFields.{evil}", "=", "x"], ["email", evil, "x"]):
        refused = await tenant.post("/api/v1/campaigns", {**BODY, "audience": {"where": [where]}})
        assert (refused.status, refused.params) == (422, {"audience.where[0]"})
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 3
