"""…/suppressions."""

import pytest

from tests.support.api import Answer, Tenant
from tests.support.people import add_contact, contact_of, suppress, suppressions
from tests.support.streams import make_stream


@pytest.fixture(params=["/api/v1", "/v1/mail"])
def path(request: pytest.FixtureRequest) -> str:
    """In both dialects."""
    return f"{request.param}/suppressions"


async def test_addresses_are_entered_together_and_once(tenant: Tenant, path: str) -> None:
    await suppress(tenant, "known@example.com", "bounce")
    added = await tenant.post(path, {"emails": ["A@example.com", "a@example.com", "known@example.com"]})
    assert (added.status, added.body["total"], added.body["added"], added.body["known"]) == (201, 2, 1, 1)
    assert [(one["email"], one["reason"]) for one in added.body["suppressions"]] == [("a@example.com", "manual")]
    again = await tenant.post(path, {"email": "a@example.com"})
    assert (again.status, again.body["added"], again.body["known"]) == (200, 0, 1)
    assert await suppressions(tenant) == {"a@example.com": "manual", "known@example.com": "bounce"}


async def test_a_suppressed_address_is_in_no_audience(tenant: Tenant, path: str) -> None:
    await tenant.verify_domain()
    await add_contact(tenant)
    await tenant.post(path, {"email": "ann@example.com"})
    body = {"name": "N", "subject": "S", "content": "<p>x</p>"}
    campaign = await tenant.post("/api/v1/campaigns", body)
    assert (await tenant.post(f"/api/v1/campaigns/{campaign.body['id']}/launch")).code == "audience_empty"


async def test_lists_are_filtered_and_paged(tenant: Tenant, path: str) -> None:
    await tenant.post(path, {"emails": [f"p{n}@example.com" for n in range(5)]})
    await suppress(tenant, "gone@example.com", "bounce")
    assert (await tenant.get(f"{path}?reason=bounce")).body["total"] == 1
    assert (await tenant.get(f"{path}?email=P3@example.com")).body["suppressions"][0]["email"] == "p3@example.com"
    first = (await tenant.get(f"{path}?limit=4")).body
    assert (first["total"], first["pages"], len(first["suppressions"])) == (6, 2, 4)
    second = (await tenant.get(f"{path}?limit=4&after={first['after']}")).body
    emails = [one["email"] for page in (first, second) for one in page["suppressions"]]
    assert sorted(emails) == sorted(["gone@example.com", *(f"p{n}@example.com" for n in range(5))])
    assert (await tenant.get(f"{path}?reason=boredom")).params == {"reason"}


async def test_wrong_entries_are_told(tenant: Tenant, path: str) -> None:
    for body, params in (
        ({}, {"emails"}),
        ({"emails": ["x", "a@example.com"]}, {"emails[0]"}),
        ({"email": "x"}, {"email"}),
        ({"email": "a@example.com", "emails": ["b@example.com"]}, {"emails"}),
        ({"emails": [f"p{n}@example.com" for n in range(1001)]}, {"emails"}),
        ({"email": "a@example.com", "reason": "bounce"}, {"reason"}),
    ):
        answer = await tenant.post(path, body)
        assert (answer.status, answer.params) == (422, params), body
    assert await suppressions(tenant) == {}


async def test_what_bounced_may_be_tried_again(tenant: Tenant, path: str) -> None:
    await suppress(tenant, "ann@example.com", "bounce")
    ann = await add_contact(tenant)
    [entry] = (await tenant.get(path)).body["suppressions"]
    lifted = await tenant.delete(f"{path}/{entry['id']}")
    assert (lifted.status, lifted.body) == (
        200,
        {"id": entry["id"], "email": "ann@example.com", "deleted": True, "sesAsked": True},
    )
    assert (await contact_of(tenant, ann["id"]))["status"] == "subscribed"
    assert (await tenant.delete(f"{path}/{entry['id']}")).code == "suppression_not_found"


async def test_a_complaint_is_lifted_by_force_and_subscribes_nobody(tenant: Tenant, path: str) -> None:
    await suppress(tenant, "ann+x@example.com", "complaint")
    ann = await add_contact(tenant, "ann+x@example.com")
    refused = await tenant.delete(f"{path}/Ann%2Bx@example.com")
    assert (refused.status, refused.code) == (409, "suppression_stays")
    assert "force=true" in refused.body["error"]["message"]
    assert (await tenant.delete(f"{path}/Ann%2Bx@example.com?force=true")).status == 200
    assert (await contact_of(tenant, ann["id"]))["status"] == "unsubscribed"


async def test_an_entry_tells_where_it_came_from(tenant: Tenant, stranger: Tenant, path: str) -> None:
    async with tenant.api.operator.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 1)
        await conn.execute(
            """INSERT INTO suppressions (account_id, email_folded, reason, stream_id, seq, detail)
               VALUES ($1, 'gone@example.com', 'bounce', $2, 1, 'Permanent/NoEmail 5.1.1')""",
            tenant.account_id,
            stream.stream_id,
        )
    bounced = (await tenant.get(f"{path}/Gone@example.com")).body
    assert (bounced["reason"], bounced["detail"]) == ("bounce", "Permanent/NoEmail 5.1.1")
    assert (bounced["emailId"], bounced["keyId"]) == (tenant.api.ids.encode_email(stream.stream_id, 1), None)
    assert (await tenant.get(f"{path}/{bounced['id']}")).body == bounced
    await tenant.post(path, {"email": "ann@example.com"})
    [key] = (await tenant.get("/api/v1/keys")).body["keys"]
    assert (await tenant.get(f"{path}/ann@example.com")).body["keyId"] == key["id"]
    for named in (bounced["id"], "gone@example.com"):
        assert (await stranger.get(f"{path}/{named}")).code == "suppression_not_found"


async def post_csv(tenant: Tenant, path: str, body: str, content_type: str = "text/csv; charset=utf-8") -> Answer:
    return await tenant.api.call("POST", path, tenant.key, data=body.encode(), headers={"Content-Type": content_type})


async def test_a_list_comes_in_and_goes_out_whole(tenant: Tenant, stranger: Tenant, path: str) -> None:
    await suppress(tenant, "known@example.com", "manual")
    rows = [f"p{n}@example.com,{'Bounce' if n % 2 else 'Spam Complaint'}" for n in range(6000)]
    body = "\n".join(["email,reason", *rows, "known@example.com,bounce", "P1@example.com,bounce", "nobody,bounce"])
    came = await post_csv(tenant, f"{path}/import", body)
    assert came.status == 200, came.body
    told = {name: came.body[name] for name in ("rows", "added", "known", "duplicates", "failed")}
    assert told == {"rows": 6003, "added": 6000, "known": 1, "duplicates": 1, "failed": 1}
    assert [one["row"] for one in came.body["failures"]] == [6004]
    again = await post_csv(tenant, f"{path}/import", body)
    assert (again.body["added"], again.body["known"]) == (0, 6001)
    [key] = (await tenant.get("/api/v1/keys")).body["keys"]
    shown = (await tenant.get(f"{path}/p1@example.com")).body
    assert (shown["reason"], shown["keyId"]) == ("bounce", key["id"])
    out = await tenant.get(f"{path}?format=csv")
    assert out.headers["content-type"] == "text/csv; charset=utf-8"
    lines = out.body.decode().splitlines()
    assert lines[0] == '"email","reason","detail","createdAt"'
    assert len(set(lines)) == 1 + 6001
    # What goes out comes in again, elsewhere.
    taken = await post_csv(stranger, f"{path}/import", out.body.decode())
    assert (taken.body["added"], taken.body["failed"]) == (6001, 0)
    reasons = (await stranger.get(f"{path}?reason=complaint")).body["total"]
    assert reasons == 3000
    only = (await tenant.get(f"{path}?format=csv&reason=manual")).body.decode().splitlines()
    assert len(only) == 2
    assert only[1].startswith('"known@example.com","manual"')


async def test_what_is_no_list_is_refused(tenant: Tenant, path: str) -> None:
    for answer, status, code in (
        (await post_csv(tenant, f"{path}/import", "name\nx"), 422, "list_unreadable"),
        (await post_csv(tenant, f"{path}/import", "x", "text/plain"), 415, "media_type_refused"),
        (await tenant.post(f"{path}/import", {"emails": []}), 415, "media_type_refused"),
        (await post_csv(tenant, f"{path}/import?reason=unsubscribe", "email\na@example.com"), 422, "fields_invalid"),
        (await post_csv(tenant, path, "email\na@example.com"), 415, "media_type_refused"),
    ):
        assert (answer.status, answer.code) == (status, code), answer.body
    assert await suppressions(tenant) == {}
