"""PATCH and DELETE of contacts, and who may be subscribed again."""

from tests.support.api import Tenant
from tests.support.people import (
    CAME_BACK,
    add_contact,
    add_list,
    contact_of,
    history,
    set_status,
    suppress,
    suppressions,
)


async def test_what_is_given_changes_and_the_rest_stays(tenant: Tenant) -> None:
    made = await add_contact(tenant, name="Ann Lee", tags=["a", "b"], customFields={"x": 1, "y": 2})
    changed = await tenant.patch(
        f"/api/v1/contacts/{made['id']}", {"lastName": "Moe", "tags": ["c"], "customFields": {"y": 3}}
    )
    assert changed.status == 200, changed.body
    assert changed.body == {
        **made,
        "name": "Ann Moe",
        "lastName": "Moe",
        "tags": ["c"],
        "customFields": {"x": 1, "y": 3},
        "updatedAt": changed.body["updatedAt"],
    }
    cleared = await tenant.patch(f"/v1/mail/contacts/{made['id']}", {"firstName": None})
    assert (cleared.status, cleared.body["firstName"], cleared.body["lastName"]) == (200, None, "Moe")
    assert (await contact_of(tenant, made["id"]))["name"] == "Moe"
    shown = await tenant.get(f"/v1/mail/contacts/{made['id']}")
    assert shown.body == cleared.body
    assert "name" not in shown.body


async def test_wrong_changes_are_told_all_at_once(tenant: Tenant) -> None:
    made = await add_contact(tenant)
    answer = await tenant.patch(
        f"/api/v1/contacts/{made['id']}",
        {
            "email": "x",
            "status": "bounced",
            "nmae": "A",
            "consent": {"ip": "999.1.1.1", "at": "2999-01-01T00:00:00Z", "source": " "},
        },
    )
    assert (answer.status, answer.code) == (422, "fields_invalid")
    assert answer.params == {"email", "status", "nmae", "consent.ip", "consent.at", "consent.source"}
    assert await contact_of(tenant, made["id"]) == made


async def test_an_address_belongs_to_one_contact(tenant: Tenant) -> None:
    ann, bob = await add_contact(tenant), await add_contact(tenant, "bob@example.com")
    taken = await tenant.patch(f"/api/v1/contacts/{bob['id']}", {"email": "ANN@example.com"})
    assert (taken.status, taken.code, taken.body["error"]["id"]) == (409, "contact_exists", ann["id"])
    moved = await tenant.patch(f"/api/v1/contacts/{bob['id']}", {"email": "Bob@Example.org"})
    assert moved.body["email"] == "Bob@example.org"
    recased = await tenant.patch(f"/api/v1/contacts/{bob['id']}", {"email": "BOB@example.org"})
    assert (recased.status, recased.body["email"]) == (200, "BOB@example.org")


async def test_a_new_address_gets_what_it_deserves(tenant: Tenant) -> None:
    made = await add_contact(tenant)
    await suppress(tenant, "dead@example.com", "bounce")
    dead = await tenant.patch(f"/api/v1/contacts/{made['id']}", {"email": "dead@example.com"})
    assert dead.body["status"] == "bounced"
    alive = await tenant.patch(f"/api/v1/contacts/{made['id']}", {"email": "alive@example.com"})
    assert alive.body["status"] == "subscribed"


async def test_who_unsubscribed_comes_back_only_by_a_later_consent(tenant: Tenant) -> None:
    made = await add_contact(tenant)
    assert (await set_status(tenant, made["id"], "unsubscribed", at="2026-11-02T00:00:00Z")).status == 200
    for consent in ({}, {"source": "checkout"}, {"at": CAME_BACK["at"]}, {**CAME_BACK, "at": "2026-11-01T00:00:00Z"}):
        refused = await set_status(tenant, made["id"], "subscribed", **consent)
        assert (refused.status, refused.code, refused.params) == (422, "consent_required", {"consent"}), consent
        assert "source" in refused.body["error"]["message"]
    again = await tenant.post("/api/v1/contacts?upsert=true", {"email": made["email"], "status": "subscribed"})
    assert again.code == "consent_required"
    assert (await contact_of(tenant, made["id"]))["status"] == "unsubscribed"
    back = await set_status(tenant, made["id"], "subscribed", **CAME_BACK)
    assert (back.status, back.body["status"]) == (200, "subscribed")
    said = await history(tenant, made["id"])
    assert [(line["status"], line["source"]) for line in said] == [
        ("subscribed", "api"),
        ("unsubscribed", "api"),
        ("subscribed", "checkout"),
    ]
    assert {name: said[2][name] for name in CAME_BACK} == CAME_BACK


async def test_who_bounced_or_complained_is_not_subscribed_by_word_alone(tenant: Tenant) -> None:
    for reason, status in (("bounce", "bounced"), ("complaint", "complained")):
        await suppress(tenant, f"{reason}@example.com", reason)
        made = await add_contact(tenant, f"{reason}@example.com")
        assert made["status"] == status
        refused = await set_status(tenant, made["id"], "subscribed", **CAME_BACK)
        assert (refused.status, refused.code) == (409, "contact_unreachable")
    created = await tenant.post(
        "/api/v1/contacts", {"email": "complaint@example.com", "status": "subscribed", "consent": CAME_BACK}
    )
    assert created.status == 409


async def test_a_deleted_contact_leaves_its_word_behind(tenant: Tenant) -> None:
    list_id = await add_list(tenant)
    made = await add_contact(tenant, listId=list_id)
    await set_status(tenant, made["id"], "unsubscribed")
    gone = await tenant.delete(f"/v1/mail/contacts/{made['id']}")
    assert (gone.status, gone.body) == (200, {"id": made["id"], "deleted": True, "erasureId": None})
    assert (await tenant.delete(f"/api/v1/contacts/{made['id']}")).status == 404
    assert (await tenant.get(f"/api/v1/lists/{list_id}")).body["contacts"] == 0
    assert await suppressions(tenant) == {"ann@example.com": "unsubscribe"}
    again = await add_contact(tenant)
    assert (again["id"] != made["id"], again["status"]) == (True, "unsubscribed")
    assert await history(tenant, again["id"]) == []
    lifted = await tenant.delete("/api/v1/suppressions/ann@example.com")
    assert (lifted.status, lifted.code) == (409, "suppression_stays")
    assert (await set_status(tenant, again["id"], "subscribed", **CAME_BACK)).status == 200
    assert await suppressions(tenant) == {}


async def test_a_deleted_subscriber_leaves_nothing(tenant: Tenant) -> None:
    made = await add_contact(tenant)
    assert (await tenant.delete(f"/api/v1/contacts/{made['id']}")).status == 200
    assert await suppressions(tenant) == {}
    async with tenant.api.operator.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM consents WHERE account_id = $1", tenant.account_id) == 0


async def test_history_is_never_changed(tenant: Tenant) -> None:
    made = await add_contact(tenant, consent=CAME_BACK)
    async with tenant.api.operator.acquire() as conn:
        try:
            await conn.execute("UPDATE consents SET source = 'forged' WHERE account_id = $1", tenant.account_id)
        except Exception as error:  # noqa: BLE001  whatever refuses it
            refusal = type(error).__name__
    assert refusal == "InsufficientPrivilegeError"
    [line] = await history(tenant, made["id"])
    assert (line["source"], line["listId"], line["importId"]) == ("checkout", None, None)
    page = (await tenant.get(f"/v1/mail/contacts/{made['id']}/consents?limit=1")).body
    assert (page["total"], page["after"]) == (1, line["id"])
