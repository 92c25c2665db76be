"""…/lists: changes, members, and what becomes of campaigns."""

from mailrail.ids import Kind
from tests.support.api import Tenant
from tests.support.campaigns import draft, set_status
from tests.support.people import CAME_BACK, add_contact, add_list, contact_of, history
from tests.support.webhooks import add_endpoint


async def test_a_list_says_how_it_asks(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = await add_list(tenant)
    shown = (await tenant.get(f"/api/v1/lists/{list_id}")).body
    assert (shown["doubleOptIn"], shown["confirmation"]) == (False, {"subject": None, "wording": None, "from": None})
    asks = {"subject": "Really?", "wording": "Yes, mail me.", "from": {"name": "Acme", "email": "ask@acme.com"}}
    changed = await tenant.patch(
        f"/v1/mail/lists/{list_id}", {"name": "Friends", "doubleOptIn": True, "confirmation": asks}
    )
    assert changed.status == 200, changed.body
    assert changed.body == {**shown, "name": "Friends", "doubleOptIn": True, "confirmation": asks}
    assert (await tenant.get(f"/v1/mail/lists/{list_id}")).body == changed.body
    kept = await tenant.patch(f"/api/v1/lists/{list_id}", {"confirmation": {"subject": None}})
    assert kept.body["confirmation"] == {**asks, "subject": None}
    assert (await tenant.patch(f"/api/v1/lists/{list_id}", {})).body == kept.body
    cleared = await tenant.patch(f"/api/v1/lists/{list_id}", {"confirmation": None})
    assert cleared.body["confirmation"] == shown["confirmation"]


async def test_wrong_lists_are_told(tenant: Tenant) -> None:
    await tenant.verify_domain()
    await add_list(tenant)
    list_id = await add_list(tenant, "Others")
    taken = await tenant.patch(f"/api/v1/lists/{list_id}", {"name": "Readers"})
    assert (taken.status, taken.code) == (409, "list_exists")
    foreign = {"confirmation": {"from": "ask@elsewhere.com"}}
    for answer in (
        await tenant.post("/api/v1/lists", {"name": "New", **foreign}),
        await tenant.patch(f"/api/v1/lists/{list_id}", foreign),
    ):
        assert (answer.status, answer.code) == (403, "sender_not_verified")
    wrong = await tenant.patch(f"/api/v1/lists/{list_id}", {"doubleOptIn": "yes", "confirmation": {"body": "x"}})
    assert (wrong.status, wrong.params) == (422, {"doubleOptIn", "confirmation.body"})


async def test_members_come_together_and_each_is_told_of(tenant: Tenant) -> None:
    list_id = await add_list(tenant)
    path = f"/api/v1/lists/{list_id}/contacts"
    ann, bob = await add_contact(tenant), await add_contact(tenant, "bob@example.com")
    await add_contact(tenant, "carl@example.com", status="unsubscribed")
    added = await tenant.post(
        path,
        {
            "contacts": [ann["id"], "con_x"],
            "emails": ["ANN@example.com", "bob@example.com", "carl@example.com"],
            "consent": {"source": "fair"},
        },
    )
    assert added.status == 200, added.body
    assert added.body == {"total": 5 - 1, "added": 2, "unchanged": 0, "refused": 1, "notFound": 1}
    again = await tenant.post(path, {"contacts": [bob["id"]]})
    assert again.body == {"total": 1, "added": 0, "unchanged": 1, "refused": 0, "notFound": 0}
    assert (await tenant.get(f"/api/v1/contacts?listId={list_id}")).body["total"] == 2
    assert [(line["source"], line["list"]) for line in await history(tenant, ann["id"])] == [
        ("api", None),
        ("fair", "Readers"),
    ]
    off = await tenant.delete(f"/v1/mail/lists/{list_id}/contacts/{ann['id']}")
    assert (off.status, off.body) == (200, {"id": ann["id"], "deleted": True})
    assert (await tenant.delete(f"{path}/{ann['id']}")).code == "member_not_found"
    assert (await tenant.get(f"/api/v1/lists/{list_id}")).body["contacts"] == 1


async def test_who_left_all_mail_joins_by_consent_and_gets_mail_again(tenant: Tenant) -> None:
    list_id = await add_list(tenant)
    carl = await add_contact(tenant, status="unsubscribed", consent={"at": "2026-01-01T00:00:00Z"})
    added = await tenant.post(f"/api/v1/lists/{list_id}/contacts", {"contacts": [carl["id"]], "consent": CAME_BACK})
    assert (added.body["added"], added.body["refused"]) == (1, 0)
    assert (await contact_of(tenant, carl["id"]))["status"] == "subscribed"


async def test_who_left_one_list_is_told_of_once_and_gets_other_mail(tenant: Tenant) -> None:
    list_id, other = await add_list(tenant), await add_list(tenant, "Others")
    ann = await add_contact(tenant, listId=list_id)
    await tenant.post(f"/api/v1/lists/{other}/contacts", {"contacts": [ann["id"]]})
    await add_endpoint(tenant, "https://your-app.com/webhook", ["contact.unsubscribed", "contact.subscribed"])
    path = f"/lists/{list_id}/contacts/{ann['id']}/unsubscribe"
    said = {"source": "hotline", "wording": "No more of this.", "at": "2026-10-01T03:04:05Z"}
    left = await tenant.post(f"/api/v1{path}", {"consent": said})
    shown = {"contactId": ann["id"], "listId": list_id, "status": "unsubscribed"}
    assert (left.status, left.body) == (200, {**shown, "changed": True})
    again = await tenant.post(f"/v1/mail{path}", {"consent": said})
    assert (again.status, again.body) == (200, {**shown, "changed": False})
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed"
    [*_, line] = lines = await history(tenant, ann["id"])
    assert {name: line[name] for name in ("status", "listId", *said)} == {
        "status": "unsubscribed",
        "listId": list_id,
        **said,
    }
    assert [one["status"] for one in lines] == ["subscribed", "subscribed", "subscribed", "unsubscribed"]
    counted = (await tenant.get(f"/api/v1/lists/{list_id}")).body
    assert (counted["contacts"], counted["unsubscribed"]) == (0, 1)
    assert (await tenant.get(f"/api/v1/lists/{other}")).body["contacts"] == 1
    assert await told(tenant) == [("contact.unsubscribed", list_id)]


async def test_who_left_a_list_comes_back_by_a_later_consent_alone(tenant: Tenant) -> None:
    list_id = await add_list(tenant)
    ann = await add_contact(tenant, listId=list_id)
    path = f"/api/v1/lists/{list_id}/contacts"
    await tenant.post(f"{path}/{ann['id']}/unsubscribe", {"consent": {"at": "2026-11-01T00:00:00Z"}})
    early = {**CAME_BACK, "at": "2026-10-31T00:00:00Z"}
    for consent in ({}, {"source": "fair"}, early):
        refused = await tenant.post(path, {"contacts": [ann["id"]], "consent": consent})
        assert (refused.body["added"], refused.body["refused"]) == (0, 1), consent
    subscribed = {"email": "ann@example.com", "status": "subscribed", "listId": list_id}
    assert (await tenant.post("/api/v1/contacts", subscribed)).code == "consent_required"
    assert (await tenant.delete(f"{path}/{ann['id']}")).code == "member_not_found", "and nothing takes the word away"
    back = await tenant.post(path, {"contacts": [ann["id"]], "consent": CAME_BACK})
    assert (back.body["added"], back.body["refused"]) == (1, 0)
    assert (await tenant.post(f"{path}/{ann['id']}/unsubscribe")).body["changed"], "and may leave once more"
    assert (await history(tenant, ann["id"]))[-1]["source"] == "api"


async def test_who_was_not_on_the_list_is_not_put_on_it_any_more(tenant: Tenant) -> None:
    list_id, asking = await add_list(tenant), await add_list(tenant, "Asking", doubleOptIn=True)
    bob = await add_contact(tenant, "bob@example.com", listId=asking)
    for one in (list_id, asking):
        path = f"/api/v1/lists/{one}/contacts"
        assert (await tenant.post(f"{path}/{bob['id']}/unsubscribe")).body["changed"]
        assert (await tenant.post(path, {"contacts": [bob["id"]]})).body["refused"] == 1
    async with tenant.api.operator.acquire() as conn:
        due = "SELECT count(*) FROM list_members WHERE account_id = $1 AND confirm_due_at IS NOT NULL"
        assert await conn.fetchval(due, tenant.account_id) == 0, "nobody is asked who said no"


async def test_nobody_leaves_what_is_not_there(tenant: Tenant, stranger: Tenant) -> None:
    list_id, foreign = await add_list(tenant), await add_list(stranger)
    ann, other = await add_contact(tenant, listId=list_id), await add_contact(stranger, "bob@example.com")
    for named, contact, code in (
        (foreign, ann["id"], "list_not_found"),
        ("lst_x", ann["id"], "list_not_found"),
        (list_id, other["id"], "contact_not_found"),
        (list_id, "con_x", "contact_not_found"),
    ):
        refused = await tenant.post(f"/api/v1/lists/{named}/contacts/{contact}/unsubscribe")
        assert (refused.status, refused.code) == (404, code)
    path = f"/api/v1/lists/{list_id}/contacts/{ann['id']}/unsubscribe"
    wrong = await tenant.post(path, {"consent": {"ip": "x"}, "status": "unsubscribed"})
    assert (wrong.status, wrong.params) == (422, {"consent.ip", "status"})
    assert (await tenant.get(f"/api/v1/lists/{list_id}")).body["contacts"] == 1
    assert (await tenant.delete(f"/api/v1/lists/{list_id}")).status == 200
    gone = await tenant.post(path)
    assert (gone.status, gone.code) == (404, "list_not_found")
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed", "a list that is gone is not all mail"


async def told(tenant: Tenant) -> list[tuple[str, str | None]]:
    """(type, list) of the messages for webhooks, in their order."""
    async with tenant.api.operator.acquire() as conn:
        rows = await conn.fetch(
            "SELECT type, list_id FROM webhook_messages WHERE account_id = $1 ORDER BY id", tenant.account_id
        )
    return [(row["type"], tenant.api.ids.encode_optional(Kind.LIST, row["list_id"])) for row in rows]


async def test_members_are_told_what_is_wrong_with_them(tenant: Tenant) -> None:
    list_id = await add_list(tenant)
    path = f"/api/v1/lists/{list_id}/contacts"
    assert (await tenant.post(path, {})).params == {"contacts"}
    assert (await tenant.post(path, {"emails": ["x"]})).params == {"emails[0]"}
    many = [f"p{n}@example.com" for n in range(501)]
    too_many = await tenant.post(path, {"emails": many, "contacts": [f"con_{n}" for n in range(500)]})
    assert (too_many.status, too_many.params) == (422, {"contacts"})


async def test_a_deleted_list_frees_its_name_and_reaches_nobody(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = await add_list(tenant)
    ann = await add_contact(tenant, listId=list_id)
    path = await draft(tenant, listId=list_id)
    await tenant.post(f"{path}/launch")
    refused = await tenant.delete(f"/api/v1/lists/{list_id}")
    assert (refused.status, refused.code) == (409, "list_in_use")
    await set_status(tenant, path, "completed")
    waiting = await draft(tenant, listId=list_id)
    assert (await tenant.delete(f"/v1/mail/lists/{list_id}")).body == {"id": list_id, "deleted": True}
    for answer in (
        await tenant.get(f"/api/v1/lists/{list_id}"),
        await tenant.delete(f"/api/v1/lists/{list_id}"),
        await tenant.post("/api/v1/contacts", {"email": "b@example.com", "listId": list_id}),
    ):
        assert (answer.status, answer.code) == (404, "list_not_found")
    assert (await tenant.get("/api/v1/lists")).body["total"] == 0
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed"
    assert (await tenant.post(f"{waiting}/launch")).code == "list_not_found"
    assert await add_list(tenant) != list_id


async def test_a_list_that_a_draft_leaves_out_stays(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id, other = await add_list(tenant), await add_list(tenant, "Others")
    path = await draft(tenant, audience={"exclude": {"lists": [list_id]}})
    assert (await tenant.delete(f"/api/v1/lists/{list_id}")).code == "list_in_use"
    assert (await tenant.delete(f"/api/v1/lists/{other}")).status == 200
    await set_status(tenant, path, "cancelled")
    assert (await tenant.delete(f"/api/v1/lists/{list_id}")).status == 200
