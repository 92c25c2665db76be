"""/api/v1/campaigns and /api/v1/stats."""

import re

import pytest

from tests.support.api import Api, Tenant

TEMPLATE = {"name": "March Newsletter", "subject": "News!", "content": "<h1>Hello {{ firstName }}</h1>"}


async def make_readers(tenant: Tenant, count: int) -> str:
    """A list of so many subscribed contacts; its id."""
    list_id: str = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    for number in range(count):
        await tenant.post("/api/v1/contacts", {"email": f"reader{number}@example.com", "listId": list_id})
    return list_id


async def test_the_seed_requests_get_the_seed_answers(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = await make_readers(tenant, 3)
    created = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "listId": list_id})
    assert created.status == 201
    assert re.fullmatch("cmp_[a-z2-7]{26}", created.body["id"])
    assert (created.body["name"], created.body["status"]) == ("March Newsletter", "draft")
    assert (created.body["audienceCount"], created.body["estimatedCostMicros"]) == (3, 900)
    launched = await tenant.post(f"/api/v1/campaigns/{created.body['id']}/launch")
    assert launched.status == 200
    assert (launched.body["success"], launched.body["status"]) == (True, "sending")
    stats = (await tenant.get("/api/v1/stats")).body
    assert stats == {
        "contacts": 3,
        "campaigns": {"total": 1, "sending": 1, "completed": 0},
        "emailsThisMonth": 0,
        "domains": 1,
    }


async def test_a_campaign_shows_how_far_it_is(tenant: Tenant) -> None:
    await tenant.verify_domain()
    await make_readers(tenant, 2)
    created = await tenant.post("/api/v1/campaigns", TEMPLATE)
    path = f"/api/v1/campaigns/{created.body['id']}"
    draft = (await tenant.get(path)).body
    assert set(draft["progress"].values()) == {0, None}
    await tenant.post(f"{path}/launch")
    sent = (await tenant.get(path)).body
    assert (sent["status"], sent["progress"]["recipients"], sent["progress"]["open"]) == ("sending", 2, 2)
    assert list(sent["progress"]) == [
        "recipients",
        "accepted",
        "delivered",
        "bounced",
        "complained",
        "opened",
        "clicked",
        "unsubscribed",
        "failed",
        "skipped",
        "open",
        "machineOpened",
        "machineClicked",
        "openRate",
        "clickRate",
        "bounceRate",
        "complaintRate",
        "unsubscribeRate",
    ]
    assert sent["sentAt"]
    assert sent["completedAt"] is None
    listed = (await tenant.get("/api/v1/campaigns")).body
    assert [(item["id"], item["audienceCount"]) for item in listed["campaigns"]] == [(created.body["id"], 2)]


async def test_a_broken_template_is_told_with_line_and_reason(tenant: Tenant) -> None:
    answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "content": "<p>\n\n{% if %}</p>"})
    assert (answer.status, answer.code, answer.params) == (422, "template_invalid", {"content"})
    assert answer.body["error"]["line"] == 3
    assert answer.body["error"]["reason"]
    subject = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "subject": "{{ open"})
    assert (subject.status, subject.params) == (422, {"subject"})
    mail = await tenant.post("/v1/mail/campaigns", {**TEMPLATE, "content": {"html": "{% for %}"}})
    assert (mail.status, mail.params) == (422, {"content.html"})
    assert (await tenant.get("/api/v1/campaigns")).body["total"] == 0


async def test_an_unknown_variable_is_a_warning(tenant: Tenant) -> None:
    await tenant.post("/api/v1/contacts", {"email": "a@example.com", "customFields": {"company": "Acme"}})
    content = "<p>{{ company }} {{ compnay }} {{ firstName }}</p>"
    answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "content": content})
    assert answer.status == 201
    assert len(answer.body["warnings"]) == 1
    assert "compnay" in answer.body["warnings"][0]


@pytest.mark.parametrize("content", ["<p>\n{{ 1 / 0 }}", "{% for i in range(100000000) %}x{% endfor %}"])
async def test_a_template_that_never_renders_is_told_before_anybody_misses_the_mail(
    tenant: Tenant, content: str
) -> None:
    answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "content": content})
    assert (answer.status, answer.code, answer.params) == (422, "template_invalid", {"content"})
    assert answer.body["error"]["reason"]


async def test_a_template_that_needs_a_field_to_render_is_a_warning(tenant: Tenant) -> None:
    await tenant.post("/api/v1/contacts", {"email": "a@example.com", "customFields": {"visits": 3}})
    answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "content": "<p>{{ 1 + visits }}</p>"})
    assert answer.status == 201
    assert len(answer.body["warnings"]) == 1
    assert "without custom fields does not get this mail: html, line 1" in answer.body["warnings"][0]


async def test_sends_that_may_not_start_start_nothing(api: Api, tenant: Tenant) -> None:
    poor = await api.add_tenant("Poor", funds_micros=300)
    await make_readers(poor, 2)
    path = f"/api/v1/campaigns/{(await poor.post('/api/v1/campaigns', TEMPLATE)).body['id']}"
    no_sender = await poor.post(f"{path}/launch")
    assert (no_sender.status, no_sender.code) == (422, "no_default_sender")
    await poor.verify_domain()
    no_money = await poor.post(f"{path}/launch")
    assert (no_money.status, no_money.code) == (402, "insufficient_funds")
    assert no_money.body["error"]["type"] == "payment_error"
    assert (await poor.get(path)).body["status"] == "draft"
    async with api.operator.acquire() as conn:
        for table in ("audience", "shards", "streams", "holds"):
            assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", poor.account_id) == 0


async def test_an_unverified_sender_is_refused(tenant: Tenant) -> None:
    await tenant.verify_domain("acme.com")
    for sender in ("a@other.com", {"email": "a@other.com"}):
        answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "from": sender})
        assert (answer.status, answer.code) == (403, "sender_not_verified")
    allowed = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "from": {"name": "Sarah", "email": "s@acme.com"}})
    assert (allowed.status, allowed.body["from"]) == (201, {"name": "Sarah", "email": "s@acme.com"})


async def test_an_empty_audience_and_a_second_send_are_refused(tenant: Tenant) -> None:
    await tenant.verify_domain()
    list_id = await make_readers(tenant, 0)
    created = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "listId": list_id})
    launch = f"/api/v1/campaigns/{created.body['id']}/launch"
    empty = await tenant.post(launch)
    assert (empty.status, empty.code) == (422, "audience_empty")
    await tenant.post("/api/v1/contacts", {"email": "a@example.com", "listId": list_id})
    assert (await tenant.post(launch)).status == 200
    twice = await tenant.post(launch)
    assert (twice.status, twice.code) == (409, "campaign_already_sent")


async def test_options_that_nobody_would_obey_are_refused(tenant: Tenant) -> None:
    await tenant.verify_domain()
    await make_readers(tenant, 1)
    created = await tenant.post("/api/v1/campaigns", TEMPLATE)
    launch = f"/api/v1/campaigns/{created.body['id']}/launch"
    answer = await tenant.post(launch, {"schedule": "2030-01-01T00:00:00Z"})
    assert (answer.status, answer.params) == (422, {"schedule"})
    misspelt = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "listid": "lst_x"})
    assert (misspelt.status, misspelt.params) == (422, {"listid"})
    assert (await tenant.post(launch, {})).status == 200


@pytest.mark.parametrize("field", ["name", "subject", "preheader", "from.name", "replyTo"])
@pytest.mark.parametrize("evil", ["\r\nBcc: x@evil.org", "\n", "\r", "\x00", "\x1b", "\x85", "\u2028"])
async def test_no_line_break_gets_into_a_header(tenant: Tenant, field: str, evil: str) -> None:
    body = {**TEMPLATE, "from": {"name": "S", "email": "s@acme.com"}, "replyTo": "r@acme.com", "preheader": "P"}
    match field:
        case "from.name":
            body["from"] = {"name": f"S{evil}", "email": "s@acme.com"}
        case "replyTo":
            body["replyTo"] = f"r@acme.com{evil}"
        case _:
            body[field] = f"x{evil}"
    answer = await tenant.post("/api/v1/campaigns", body)
    assert (answer.status, answer.params) == (422, {field})


@pytest.mark.parametrize("content", ["é" * 140_000, "x" * (256 * 1024 + 1)])
async def test_a_template_beyond_its_limit_is_refused_by_bytes(tenant: Tenant, content: str) -> None:
    answer = await tenant.post("/api/v1/campaigns", {**TEMPLATE, "content": content})
    assert (answer.status, answer.params) == (422, {"content"})


@pytest.mark.parametrize("base", ["/api/v1", "/v1/mail"])
async def test_statistics_count_mail_of_every_kind_since_the_first_of_the_month(tenant: Tenant, base: str) -> None:
    async with tenant.api.operator.acquire() as conn:
        # A campaign's stream, one of transactional mail, and one of another month.
        for kind, accepted, created in ((0, 3, "now()"), (1, 4, "now()"), (1, 50, "now() - interval '32 days'")):
            await conn.execute(
                f"""WITH s AS (
                      INSERT INTO streams (stream_id, account_id, content, identity, shard_size, bounce_grace, created_at)
                      VALUES (new_stream_id({kind}), $1, '', '', 10, '0', {created}) RETURNING stream_id)
                    INSERT INTO shards (stream_id, shard, account_id, state, first_seq, last_seq, next_seq, accepted)
                    SELECT stream_id, n, $1, 'sending', 1, 10, 11, $2 FROM s, generate_series(0, 1) n""",
                tenant.account_id,
                accepted,
            )
    stats = await tenant.get(f"{base}/stats")
    assert stats.body == {
        "contacts": 0,
        "campaigns": {"total": 0, "sending": 0, "completed": 0},
        "emailsThisMonth": 14,
        "domains": 0,
    }
