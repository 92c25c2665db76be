"""/api/v1/contacts and /api/v1/lists."""

import re

from tests.support.api import Tenant

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


async def test_the_seed_request_gets_the_seed_answer(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    answer = await tenant.post(
        "/api/v1/contacts", {"email": "new@example.com", "name": "John Doe", "listId": made.body["id"]}
    )
    assert answer.status == 201
    assert re.fullmatch("con_[a-z2-7]{26}", answer.body["id"])
    assert answer.body["email"] == "new@example.com"
    assert answer.body["name"] == "John Doe"
    assert answer.body["status"] == "subscribed"
    assert (answer.body["firstName"], answer.body["lastName"]) == ("John", "Doe")
    assert TIME.fullmatch(answer.body["createdAt"])
    page = await tenant.get(f"/api/v1/contacts?limit=50&listId={made.body['id']}")
    assert page.status == 200
    assert [item["id"] for item in page.body["contacts"]] == [answer.body["id"]]
    assert (page.body["total"], page.body["page"], page.body["pages"]) == (1, 1, 1)


async def test_a_known_contact_is_put_on_a_list_once_and_then_conflicts(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    first = await tenant.post("/api/v1/contacts", {"email": "a@example.com"})
    body = {"email": "A@Example.com", "listId": made.body["id"]}
    added = await tenant.post("/api/v1/contacts", body)
    assert (added.status, added.body["id"]) == (200, first.body["id"])
    again = await tenant.post("/api/v1/contacts", body)
    assert (again.status, again.code, again.body["error"]["id"]) == (409, "contact_exists", first.body["id"])


async def test_upsert_changes_what_is_given_and_keeps_the_rest(tenant: Tenant) -> None:
    await tenant.post(
        "/api/v1/contacts",
        {"email": "a@example.com", "firstName": "Ann", "tags": ["x"], "customFields": {"a": 1, "b": "two"}},
    )
    changed = await tenant.post(
        "/api/v1/contacts?upsert=true",
        {"email": "a@example.com", "lastName": "Lee", "customFields": {"b": None, "c": {"deep": [1.5]}}},
    )
    assert changed.status == 200
    assert changed.body["name"] == "Ann Lee"
    assert changed.body["tags"] == ["x"]
    assert changed.body["customFields"] == {"a": 1, "b": None, "c": {"deep": [1.5]}}
    assert (await tenant.get(f"/api/v1/contacts/{changed.body['id']}")).body == changed.body


async def test_all_field_errors_come_at_once(tenant: Tenant) -> None:
    answer = await tenant.post(
        "/api/v1/contacts",
        {
            "email": "no address",
            "name": "two\nlines",
            "tags": ["fine", 7],
            "customFields": {"0x": 1, "fine": "\x00"},
            "listID": "lst_x",
        },
    )
    assert (answer.status, answer.code) == (422, "fields_invalid")
    assert answer.params == {"email", "name", "tags[1]", "customFields.0x", "customFields.fine", "listID"}
    assert "listId" in str(answer.body["errors"])
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 0


async def test_addresses_are_stored_so_that_ses_takes_them(tenant: Tenant) -> None:
    answer = await tenant.post("/api/v1/contacts", {"email": "Jane.Doe@Bücher.example"})
    assert answer.body["email"] == "Jane.Doe@xn--bcher-kva.example"
    refused = await tenant.post("/api/v1/contacts", {"email": "jäne@example.com"})
    assert (refused.status, refused.params) == (422, {"email"})


async def test_pages_by_number_and_by_cursor_agree(tenant: Tenant) -> None:
    for number in range(5):
        await tenant.post(
            "/api/v1/contacts", {"email": f"p{number}@example.com", "tags": ["odd"] if number % 2 else []}
        )
    everyone = [item["id"] for item in (await tenant.get("/api/v1/contacts")).body["contacts"]]
    by_number = [(await tenant.get(f"/api/v1/contacts?limit=2&page={page}")).body for page in (1, 2, 3)]
    assert [item["id"] for page in by_number for item in page["contacts"]] == everyone
    assert by_number[0]["pages"] == 3
    assert by_number[2]["after"] is None
    second = (await tenant.get(f"/api/v1/contacts?limit=2&after={by_number[0]['after']}")).body
    assert second["contacts"] == by_number[1]["contacts"]
    tagged = (await tenant.get("/api/v1/contacts?tag=odd")).body
    assert ([item["email"] for item in tagged["contacts"]], tagged["total"]) == (
        ["p3@example.com", "p1@example.com"],
        2,
    )
    assert (await tenant.get("/api/v1/contacts?tag=odd&status=unsubscribed")).body["total"] == 0
    assert (await tenant.get("/api/v1/contacts?email=P3@example.com")).body["total"] == 1


async def test_bad_queries_are_told(tenant: Tenant) -> None:
    for query in ("limit=0", "limit=101", "page=0", "page=x", "limit=²", "after=con_x", "status=gone"):
        answer = await tenant.get(f"/api/v1/contacts?{query}")
        assert (answer.status, answer.params) == (422, {query.partition("=")[0]})


async def test_lists_have_one_name_each(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    assert (made.status, made.body["contacts"]) == (201, 0)
    assert re.fullmatch("lst_[a-z2-7]{26}", made.body["id"])
    again = await tenant.post("/api/v1/lists", {"name": "Readers"})
    assert (again.status, again.body["error"]["id"]) == (409, made.body["id"])
    assert (await tenant.get("/api/v1/lists")).body["lists"] == [made.body]
    assert (await tenant.get(f"/api/v1/lists/{made.body['id']}")).body == made.body


async def test_an_unknown_list_is_not_found(tenant: Tenant) -> None:
    unknown = tenant.api.ids.encode("lst", 999_999)  # type: ignore[arg-type]
    for list_id in (unknown, "lst_x", "", "\x7f"):
        answer = await tenant.post("/api/v1/contacts", {"email": "a@example.com", "listId": list_id})
        assert answer.status in (404, 422)
    assert (await tenant.get("/api/v1/contacts")).body["total"] == 0


async def test_who_left_a_list_comes_back_only_by_his_own_word(tenant: Tenant) -> None:
    made = await tenant.post("/api/v1/lists", {"name": "Readers"})
    body = {"email": "a@example.com", "listId": made.body["id"]}
    await tenant.post("/api/v1/contacts", body)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE list_members SET status = 'unsubscribed' WHERE account_id = $1", tenant.account_id)
    listed = f"/api/v1/contacts?listId={made.body['id']}"
    assert (await tenant.post("/api/v1/contacts", body)).status == 409
    assert (await tenant.post("/api/v1/contacts?upsert=true", body)).status == 200
    assert (await tenant.get(listed)).body["total"] == 0
    claimed = await tenant.post("/api/v1/contacts?upsert=true", {**body, "status": "subscribed"})
    assert (claimed.status, claimed.code, claimed.params) == (422, "consent_required", {"consent"})
    consent = {"source": "checkout", "at": "2026-01-02T03:04:05Z"}
    assert (await tenant.post("/api/v1/contacts", {**body, "consent": consent})).status == 200
    assert (await tenant.get(listed)).body["total"] == 1
