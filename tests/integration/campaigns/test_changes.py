"""PATCH, DELETE and duplicate, in both dialects and for every status."""

from typing import Any

import pytest

from mailrail.accounts.model import Scope
from mailrail.campaigns.model import Status
from tests.support.api import Answer, Tenant
from tests.support.campaigns import add_contacts, draft, launched, row_of, set_status

LATER, MUCH_LATER = "2027-01-01T10:00:00Z", "2027-02-01T10:00:00Z"
DIALECTS = ("/api/v1", "/v1/mail")
OPEN_FOR_CHANGE = {Status.DRAFT, Status.SCHEDULED, Status.FAILED}
DELETABLE = {Status.DRAFT, Status.FAILED, Status.CANCELLED}


def said_in(dialect: str, **content: Any) -> dict[str, Any]:
    """html and text as the dialect writes them."""
    if dialect == "/v1/mail":
        return {"content": content}
    return {{"html": "content"}.get(name, name): value for name, value in content.items()}


def html_of(shown: dict[str, Any]) -> str:
    """What either dialect shows of it."""
    content = shown["content"]
    return str(content["html"] if isinstance(content, dict) else content)


async def in_status(tenant: Tenant, status: Status) -> str:
    """The path of a campaign of this status, under way where it has to be."""
    if status in (Status.DRAFT, Status.SCHEDULED, Status.FAILED):
        await tenant.verify_domain()
        await add_contacts(tenant, 1)
        path = await draft(tenant)
        if status is not Status.DRAFT:
            assert (await tenant.post(f"{path}/launch", {"scheduledAt": LATER})).status == 200
    else:
        path = await launched(tenant, 1)
    await set_status(tenant, path, status)
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_change_replaces_what_is_given_and_keeps_the_rest(tenant: Tenant, dialect: str) -> None:
    await tenant.verify_domain()
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    path = await draft(
        tenant,
        preheader="P",
        text="plain",
        replyTo=["r@acme.com"],
        listId=list_id,
        tags=["a"],
        **{"from": "x@acme.com"},
    )
    mine = dialect + path.removeprefix("/api/v1")
    before = (await tenant.get(path)).body
    changed = await tenant.patch(mine, {"subject": "New", **said_in(dialect, html="<p>New {{ firstName }}</p>")})
    assert changed.status == 200, changed.body
    after = (await tenant.get(path)).body
    expected = {**before, "subject": "New", "content": "<p>New {{ firstName }}</p>"}
    assert after == expected
    shown = (await tenant.get(mine)).body
    assert (html_of(shown), shown["replyTo"]) == ("<p>New {{ firstName }}</p>", ["r@acme.com"])
    cleared = {"preheader": None, "from": None, "replyTo": None, **said_in(dialect, text=None)}
    assert (await tenant.patch(mine, cleared)).status == 200
    assert (await tenant.get(path)).body == {**expected, "preheader": None, "from": None, "replyTo": [], "text": None}


async def test_parts_of_the_seeds_audience_are_changed_alone(tenant: Tenant) -> None:
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    path = await draft(tenant, listId=list_id, tags=["a"])
    narrower = (await tenant.patch(path, {"tags": ["b"]})).body
    assert narrower["audience"] == {"tags": ["b"], "lists": [list_id]}, "it still goes to the list"
    other = (await tenant.patch(path, {"audience": {"where": [["email", "exists", True]]}})).body
    assert other["audience"] == {"where": [["email", "exists", True]]}
    mixed = await tenant.patch(path, {"tags": ["b"]})
    assert (mixed.status, mixed.params) == (422, {"audience"})
    assert (await tenant.patch(path, {"audience": None})).body["audience"] == {}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"name": None}, 422, "fields_invalid", "name"),
        ({"subject": "{{ open"}, 422, "template_invalid", "subject"),
        ({"from": "a@other.com"}, 403, "sender_not_verified", "from"),
        ({"scheduledAt": "2020-01-01T00:00:00Z"}, 422, "schedule_invalid", "scheduledAt"),
        ({"nmae": "x"}, 422, "fields_invalid", "nmae"),
        ({"audience": {"lists": ["lst_x", "lst_y"]}}, 404, "list_not_found", "audience.lists"),
        ({"audience": {"exclude": {"lists": ["l"]}}}, 404, "list_not_found", "audience.exclude.lists"),
    ],
)
async def test_a_change_is_judged_like_a_draft_and_a_refused_one_changes_nothing(
    tenant: Tenant, dialect: str, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    path = await draft(tenant)
    before = (await tenant.get(path)).body
    answer = await tenant.patch(dialect + path.removeprefix("/api/v1"), change)
    assert (answer.status, answer.code, answer.body["error"]["param"]) == (status, code, param)
    assert (await tenant.get(path)).body == before


async def test_a_schedule_is_moved_but_not_taken_away(tenant: Tenant) -> None:
    path = await in_status(tenant, Status.SCHEDULED)
    moved = await tenant.patch(path, {"scheduledAt": MUCH_LATER, "name": "Later"})
    assert (moved.body["status"], moved.body["scheduledAt"], moved.body["name"]) == ("scheduled", MUCH_LATER, "Later")
    refused = await tenant.patch(path, {"scheduledAt": None})
    assert (refused.status, refused.code) == (422, "schedule_invalid")
    assert (await tenant.get(path)).body["scheduledAt"] == MUCH_LATER


async def test_a_failed_schedule_may_be_mended_and_launched(tenant: Tenant) -> None:
    path = await in_status(tenant, Status.FAILED)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE campaigns SET scheduled_at = now() - interval '1 day' WHERE id = $1", row_of(tenant, path)
        )
    assert (await tenant.patch(path, {"subject": "Mended"})).status == 200, "a time that has passed is no hindrance"
    assert (await tenant.post(f"{path}/launch")).body["status"] == "sending"


def refused(answer: Answer, status: Status) -> bool:
    """Whether it was told by a 409 that says how the campaign stands and what to do."""
    assert (answer.status, answer.code) == (409, "campaign_state_wrong"), (status, answer.body)
    said = answer.body["error"]["message"]
    return bool(said.startswith(f"This campaign is {status.shown}. ")) and len(said) > 50


@pytest.mark.parametrize("status", Status)
async def test_every_status_against_every_verb(tenant: Tenant, status: Status) -> None:
    path = await in_status(tenant, status)
    before = (await tenant.get(path)).body
    changed = await tenant.patch(path, {"name": "Changed"})
    assert changed.status == 200 if status in OPEN_FOR_CHANGE else refused(changed, status)
    for dialect in DIALECTS:
        mine = dialect + path.removeprefix("/api/v1")
        shown = await tenant.post(f"{mine}/preview")
        assert (shown.status, shown.body["subject"]) == (200, "Hi Ada")
        copy = await tenant.post(f"{mine}/duplicate", {"name": "Copy"})
        assert (copy.status, copy.body["status"], copy.body["name"]) == (201, "draft", "Copy")
        rehearsed = await tenant.post(f"{mine}/dry-run")
        starts = status in (Status.DRAFT, Status.SCHEDULED, Status.FAILED)
        assert (rehearsed.status, rehearsed.body["ready"]) == (200, starts), rehearsed.body
        if not starts:
            assert rehearsed.body["problems"][0]["code"].startswith("campaign_")
    gone = await tenant.delete(path)
    # One that was cancelled on its way has been paid for.
    if status in DELETABLE and status is not Status.CANCELLED:
        assert (gone.status, gone.body) == (200, {"id": before["id"], "deleted": True})
        assert (await tenant.get(path)).status == 404
    else:
        assert refused(gone, status)
        assert (await tenant.get(path)).body["id"] == before["id"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_cancelled_schedule_is_deleted(tenant: Tenant, dialect: str) -> None:
    path = dialect + (await in_status(tenant, Status.SCHEDULED)).removeprefix("/api/v1")
    assert (await tenant.delete(path)).status == 409
    assert (await tenant.post(f"{path}/cancel")).status == 200
    assert (await tenant.delete(path)).status == 200
    for call in (tenant.get, tenant.delete):
        assert (await call(path)).code == "campaign_not_found"


async def test_a_duplicate_says_the_same_without_a_time(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    audience = {"tags": ["a"], "lists": [list_id], "where": [["customFields.n", ">", 1.5]], "exclude": {"tags": ["b"]}}
    path = await draft(
        tenant, audience=audience, scheduledAt=LATER, replyTo="r@acme.com", text="t", **{"from": "x@acme.com"}
    )
    original = (await tenant.get(path)).body
    copy = await tenant.post(f"{path}/duplicate")
    shown = (await tenant.get(f"/api/v1/campaigns/{copy.body['id']}")).body
    assert shown["id"] != original["id"]
    assert {**shown, "id": 0, "createdAt": 0} == {**original, "id": 0, "createdAt": 0, "scheduledAt": None}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_verbs_ask_for_their_scopes(tenant: Tenant, dialect: str) -> None:
    path = dialect + (await draft(tenant)).removeprefix("/api/v1")
    reader, writer = await tenant.new_key([Scope.CAMPAIGNS_READ]), await tenant.new_key([Scope.CAMPAIGNS_WRITE])
    for method, verb in (("PATCH", ""), ("DELETE", ""), ("POST", "/duplicate"), ("POST", "/test")):
        assert (await tenant.api.call(method, path + verb, reader)).status == 403
    assert (await tenant.api.call("POST", f"{path}/test", writer, json={"to": "a@b.com"})).status == 403
    assert (await tenant.api.call("POST", f"{path}/dry-run", reader)).status == 200
    assert (await tenant.api.call("GET", f"{path}/preview", reader)).status == 200


async def test_strangers_find_nothing(tenant: Tenant, stranger: Tenant) -> None:
    path = await draft(tenant)
    contact = (await stranger.post("/api/v1/contacts", {"email": "theirs@example.com"})).body["id"]
    for dialect in DIALECTS:
        theirs = dialect + path.removeprefix("/api/v1")
        for answer in (
            await stranger.patch(theirs, {"name": "Mine"}),
            await stranger.delete(theirs),
            *[await stranger.post(f"{theirs}/{verb}") for verb in ("duplicate", "preview", "dry-run")],
            await stranger.post(f"{theirs}/test", {"to": "me@example.com"}),
        ):
            assert (answer.status, answer.code) == (404, "campaign_not_found")
    assert (await tenant.post(f"{path}/preview", {"contactId": contact})).code == "contact_not_found"
    assert (await tenant.get(path)).body["name"] == "News"
