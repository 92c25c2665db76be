"""…/suppressions."""

import pytest

from tests.support.api import Tenant
from tests.support.people import add_contact, contact_of, suppress, suppressions


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
    assert (lifted.status, lifted.body) == (200, {"id": entry["id"], "email": "ann@example.com", "deleted": True})
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
