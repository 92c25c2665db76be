"""Pre-flights through the API, with real people in PostgreSQL and real links on sockets of this machine."""

from typing import Any

import pytest

from mailrail.campaigns import audience
from mailrail.db.pool import Connection
from mailrail.rehearsals import preflight
from mailrail.ses.limiter import name_of
from tests.support.api import Answer, Api, Tenant
from tests.support.campaigns import draft, hold_sending

DIALECTS = ("/api/v1", "/v1/mail")
CODES = [
    "sender",
    "alignment",
    "reputation",
    "audience",
    "content",
    "subject",
    "variables",
    "text",
    "images",
    "links",
    "size",
    "unsubscribe",
    "postal_address",
    "wallet",
    "schedule",
    "sending",
]


@pytest.fixture
async def tenant(api: Api) -> Tenant:
    """A funded account with a domain, in an installation to which SES told its figures."""
    async with api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO send_limits (name, sending_enabled, max_send_rate, max_24_hour_send, polled_at)
               VALUES ($1, true, 50, 1000, now())
               ON CONFLICT (name) DO UPDATE SET sending_enabled = true, max_send_rate = 50, max_24_hour_send = 1000,
                 polled_at = now()""",
            name_of(api.app.ctx.settings),
        )
    found = await api.add_tenant(funds_micros=30_000)
    await found.verify_domain()
    return found


async def add_person(tenant: Tenant, name: str, **fields: Any) -> str:
    """A subscribed contact; its id."""
    made = await tenant.post("/api/v1/contacts", {"email": f"{name}@example.com", **fields})
    assert made.status == 201, made.body
    return str(made.body["id"])


async def look(tenant: Tenant, path: str, query: str = "") -> Answer:
    answer = await tenant.get(f"{path}/preflight{query}")
    assert answer.status == 200, answer.body
    return answer


def checks(answer: Answer) -> dict[str, dict[str, Any]]:
    return {check["code"]: check for check in answer.body["checks"]}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_campaign_without_a_fault_passes(api: Api, tenant: Tenant, dialect: str) -> None:
    await add_person(tenant, "ann", firstName="Ann")
    await tenant.patch("/api/v1/account", {"postalAddress": "1 Main St"})
    path = (await draft(tenant)).replace("/api/v1", dialect)
    seen = await look(tenant, path)
    found = checks(seen)
    assert [check["code"] for check in seen.body["checks"]] == CODES
    troubled = {code: check["status"] for code, check in found.items() if check["status"] != "pass"}
    assert troubled == {"unsubscribe": "warn"}, "the public URL of this machine is http"
    assert all(check["remedy"] for check in found.values() if check["status"] != "pass")
    assert seen.body["ready"] is True
    assert seen.body["audience"] == {"matched": 1, "recipients": 1, "skipped": {}}
    assert seen.body["finishes"]["seconds"] == 1
    assert seen.body["finishes"]["ratePerSecond"] == 50.0
    assert seen.body["size"]["clippedAtBytes"] == 102_400 > seen.body["size"]["htmlBytes"] > 100
    rehearsed = (await tenant.post(f"{path}/dry-run")).body
    for figures in ("price", "wallet", "audience", "enough"):
        assert seen.body[figures] == rehearsed[figures]


async def test_what_a_launch_would_refuse_fails_in_its_words(api: Api) -> None:
    poor = await api.add_tenant("Poor", funds_micros=300)
    path = await draft(poor)
    seen = await look(poor, path)
    found = checks(seen)
    assert {code for code, check in found.items() if check["status"] == "fail"} == {"sender", "audience"}
    for n in range(2):
        await add_person(poor, f"p{n}")
    await hold_sending(poor, "the backup is older than the log")
    found = checks(await look(poor, path))
    assert {code for code, check in found.items() if check["status"] == "fail"} == {"sender", "wallet", "sending"}
    refused = await poor.post(f"{path}/launch")
    assert found["sending"]["message"] == refused.body["error"]["message"]
    await hold_sending(poor, None)
    refused = await poor.post(f"{path}/launch")
    assert refused.code == "no_default_sender"
    assert found["sender"]["message"] == refused.body["error"]["message"]
    await poor.verify_domain()
    refused = await poor.post(f"{path}/launch")
    seen = await look(poor, path)
    assert seen.body["ready"] is False
    assert checks(seen)["wallet"]["message"] == refused.body["error"]["message"]
    assert [one["code"] for one in checks(seen)["wallet"]["details"]] == ["insufficient_funds"]


async def test_gaps_are_counted_and_named(tenant: Tenant) -> None:
    ids = [
        await add_person(
            tenant, f"p{n}", firstName="Ann" if n == 0 else None, customFields={} if city is None else {"city": city}
        )
        for n, city in enumerate(["Rome", "", None, "  ", "Oslo"])
    ]
    await add_person(tenant, "gone", status="unsubscribed")
    content = """<p>{{ firstName }} of {{ city }}, {{ lastName or "you" }} {{ fristName }}</p>
        {% if company %}{{ company }}{% endif %}"""
    path = await draft(tenant, content=content, subject="{{ city }}")
    found = checks(await look(tenant, path))["variables"]
    told = {(one["code"], one["variable"]): one for one in found["details"]}
    assert set(told) == {
        ("unknown", "company"),
        ("unknown", "fristName"),
        ("missing", "city"),
        ("missing", "firstName"),
    }
    assert told["missing", "city"]["contacts"] == 3
    assert told["missing", "city"]["contactIds"] == ids[1:4]
    assert told["missing", "firstName"]["contacts"] == 4
    assert len(told["missing", "firstName"]["contactIds"]) == 3
    assert "'firstName'" in told["unknown", "fristName"]["message"]
    assert checks(await look(tenant, path))["subject"]["details"][0]["contacts"] == 3


async def test_a_mail_that_some_do_not_get_is_told_with_whom(tenant: Tenant) -> None:
    well = await add_person(tenant, "well", customFields={"visits": 41})
    ill = await add_person(tenant, "ill")
    found = checks(await look(tenant, await draft(tenant, content="<p>{{ 1 + visits }}</p>")))
    assert found["content"]["status"] == "warn"
    assert [one["contactIds"] for one in found["content"]["details"]] == [[ill]]
    assert well not in str(found["content"])


async def test_the_largest_recipient_decides_what_gmail_shows(tenant: Tenant) -> None:
    for n in range(3):
        await add_person(tenant, f"p{n}")
    await add_person(tenant, "long", customFields={"letter": "word " * 1_200})
    path = await draft(tenant, content="<p>" + "x" * 98_000 + "</p>{{ letter }}")
    seen = await look(tenant, path)
    assert checks(seen)["size"]["status"] == "warn"
    assert "some recipients" in checks(seen)["size"]["message"]
    assert seen.body["size"]["htmlBytes"] < 102_400 < seen.body["size"]["largestHtmlBytes"]
    frame = (await tenant.post(f"{path}/preview", {"contact": {"email": "p1@example.com"}})).body["html"]
    assert seen.body["size"]["htmlBytes"] > len(frame), "with the open pixel"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"content": "<img src='https://example.com/a.png'>"}, "text", "says nothing"),
        ({"content": "<img src=x alt=a><img src=y> a"}, "images", "1 of 2"),
        ({"content": "<p>{% if firstName == 'x' %}{{ unsubscribeUrl }}{% endif %}</p>"}, "unsubscribe", "show no link"),
        ({"subject": "Hello {firstName}"}, "variables", "{firstName}"),
        ({"subject": "x" * 200}, "subject", "200 characters"),
        ({"audience": {"where": [["customFields.plam", "!=", "pro"]]}}, "audience", "perhaps 'plan'"),
    ],
)
async def test_what_would_go_out_as_it_is_warns(tenant: Tenant, fields: dict[str, Any], code: str, words: str) -> None:
    await add_person(tenant, "ann", firstName="Ann", customFields={"plan": "pro"})
    seen = await look(tenant, await draft(tenant, **fields), "?links=false")
    assert checks(seen)[code]["status"] == "warn", seen.body
    assert words in str(checks(seen)[code]), checks(seen)[code]
    assert seen.body["ready"] is True


async def test_a_template_that_breaks_later_fails_its_content(tenant: Tenant) -> None:
    await add_person(tenant, "ann")
    path = await draft(tenant)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE campaigns SET html = '{{ a' WHERE account_id = $1", tenant.account_id)
    seen = await look(tenant, path)
    assert seen.body["ready"] is False
    assert seen.body["size"] is None
    assert checks(seen)["content"]["status"] == "fail"
    assert "links" not in checks(seen)


async def test_only_what_has_not_started_is_asked(api: Api, tenant: Tenant) -> None:
    await add_person(tenant, "ann")
    path = await draft(tenant)
    await tenant.post(f"{path}/launch")
    answer = await tenant.get(f"{path}/preflight")
    assert (answer.status, answer.code) == (409, "campaign_already_sent")
    soon = await draft(tenant)
    await tenant.post(f"{soon}/launch", {"scheduledAt": "2027-01-01T10:00:00Z"})
    assert "2027-01-01" in checks(await look(tenant, soon))["schedule"]["message"]
    await tenant.post(f"{soon}/pause")
    assert (await look(tenant, soon)).body["status"] == "paused"
    await tenant.post(f"{soon}/resume")
    await tenant.post(f"{soon}/cancel")
    assert (await tenant.get(f"{soon}/preflight")).code == "campaign_state_wrong"
    other = await api.add_tenant("Other")
    assert (await other.get(f"{path}/preflight")).code == "campaign_not_found"
    assert (await tenant.get(f"{await draft(tenant)}/preflight?links=perhaps")).params == {"links"}


async def test_a_send_that_takes_days_or_cannot_be_is_told(api: Api, tenant: Tenant) -> None:
    await add_person(tenant, "ann")
    path = await draft(tenant)
    async with api.operator.acquire() as conn:
        await conn.execute("UPDATE send_limits SET sending_enabled = false")
    seen = await look(tenant, path)
    assert seen.body["finishes"]["seconds"] is None
    assert checks(seen)["sending"]["status"] == "warn"
    assert "does not let" in checks(seen)["sending"]["message"]
    async with api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE send_limits SET sending_enabled = true, max_24_hour_send = 101, sent_last_24_hours = 1"
        )
    assert "2 days" in checks(await look(tenant, path))["sending"]["message"]
    assert (await look(tenant, path)).body["finishes"]["quotaLeft"] == 0


async def test_links_are_visited_unless_nobody_wants_that(api: Api, tenant: Tenant) -> None:
    await add_person(tenant, "ann")
    links = [
        f"{api.base_url}/healthz",
        f"{api.base_url}/nothing",
        "{{ unsubscribeUrl }}",
        "{{ city }}",
        "#",
        "mailto:x",
    ]
    content = "<p>" + "".join(f"<a href='{link}'>{link}</a>" for link in links) + "</p>"
    path = await draft(tenant, content=content)
    found = checks(await look(tenant, path))["links"]
    told = {one["url"]: one["code"] for one in found["details"]}
    assert told == {links[1]: "dead", links[3]: "dynamic", "#": "empty", "mailto:x": "address_invalid"}
    assert (found["status"], found["message"]) == ("warn", "Dead links: 1 of 6.")
    unseen = checks(await look(tenant, path, "?links=false"))["links"]
    assert {one["url"]: one["code"] for one in unseen["details"]} == {
        links[3]: "dynamic",
        "#": "empty",
        "mailto:x": "address_invalid",
    }


async def test_what_takes_too_long_is_cut_and_told(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lacking(conn: Connection, *others: object) -> None:
        await conn.execute("SELECT pg_sleep(30)")

    await add_person(tenant, "ann")
    path = await draft(tenant)
    monkeypatch.setattr(audience, "lacking", lacking)
    monkeypatch.setattr(preflight, "GAPS_MAX_S", 0.1)
    seen = await look(tenant, path)
    assert "no time to count" in checks(seen)["variables"]["message"]
    assert checks(seen)["content"]["status"] == "pass", "the rest was asked all the same"
    monkeypatch.setattr(preflight, "GAPS_MAX_S", 20)
    monkeypatch.setattr(preflight, "DATABASE_MAX_S", 0.3)
    assert (await tenant.get(f"{path}/preflight")).status == 503


async def test_a_reputation_warns_and_then_stops(api: Api, tenant: Tenant) -> None:
    await add_person(tenant, "ann")
    path = await draft(tenant)
    for level, standing in (("warning", "warn"), ("campaigns_stopped", "fail")):
        async with api.operator.acquire() as conn:
            await conn.execute(
                """INSERT INTO reputations (account_id, level, reason) VALUES ($1, $2, 'Too many bounce.')
                   ON CONFLICT (account_id) DO UPDATE SET level = excluded.level""",
                tenant.account_id,
                level,
            )
        seen = await look(tenant, path)
        assert checks(seen)["reputation"]["status"] == standing
        assert checks(seen)["reputation"]["message"] == "Too many bounce."
        assert seen.body["ready"] is (standing == "warn")
    assert (await tenant.post(f"{path}/launch")).code == "reputation_stopped"
