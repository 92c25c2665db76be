"""Tracking switched off: by domain, campaign, mail and contact. Off is a mail without picture, with its links as written."""

from typing import Any

from mailrail.db.pool import Pool
from mailrail.emails.model import EventKind
from mailrail.ids import Kind
from mailrail.tracking import store
from mailrail.tracking.model import clicked, opened, unsubscribed
from tests.support.api import Tenant
from tests.support.installation import Installation
from tests.support.streams import make_stream

LINK = "https://example.com/a?b=1"
HTML = f'<p>Hi {{{{ firstName }}}}</p><a href="{LINK.replace("&", "&amp;")}">A</a>'
OFF, ON = {"opens": False, "clicks": False}, {"opens": True, "clicks": True}


def tracks(mail: dict[str, Any]) -> dict[str, bool]:
    """What the mail, as it arrived, tells of its reader; of its text part the links alone."""
    found = {"opens": "/o/" in mail["html"], "clicks": "/c/" in mail["html"]}
    assert (LINK in mail["html"]) is not found["clicks"]
    assert ("/c/" in mail["text"]) is found["clicks"]
    assert (LINK in mail["text"]) is not found["clicks"]
    return found


async def contact(tenant: Tenant, email: str, **facts: Any) -> str:
    made = await tenant.post("/api/v1/contacts", {"email": email, "firstName": "Ann", **facts})
    assert made.status == 201, made.body
    return str(made.body["id"])


async def send_campaign(installation: Installation, tenant: Tenant, **facts: Any) -> None:
    draft = {"name": "N", "subject": "S", "content": HTML, **facts}
    made = await tenant.post("/api/v1/campaigns", draft)
    assert made.status == 201, made.body
    assert (await tenant.post(f"/api/v1/campaigns/{made.body['id']}/launch")).status == 200
    await installation.wait_for(tenant, made.body["id"], "completed")


async def test_who_is_not_to_be_tracked_gets_a_campaign_as_it_was_written(installation: Installation) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    # Enough of each for calls of many: both ways of writing must not mix in one.
    for n in range(12):
        await contact(tenant, f"yes{n}@example.net")
        await contact(tenant, f"no{n}@example.net", tracking=False)
    await send_campaign(installation, tenant)
    for n in range(12):
        [tracked] = installation.simulator.messages(f"yes{n}@example.net")
        [untracked] = installation.simulator.messages(f"no{n}@example.net")
        assert (tracks(tracked), tracks(untracked)) == (ON, OFF)
        for mail in (tracked, untracked):
            assert "/u/" in mail["html"]
            assert "/u/" in mail["text"]
            assert "Hi Ann" in mail["html"]


async def test_domain_and_campaign_switch_off_what_they_send(installation: Installation) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    await contact(tenant, "a@example.net")
    (domain,) = (await tenant.get("/api/v1/domains")).body["domains"]
    assert (domain["openTracking"], domain["clickTracking"]) == (True, True)
    await send_campaign(installation, tenant, tracking={"clicks": False})
    changed = await tenant.patch(f"/api/v1/domains/{domain['id']}", {"openTracking": False})
    assert (changed.status, changed.body["openTracking"], changed.body["clickTracking"]) == (200, False, True)
    await send_campaign(installation, tenant)
    await send_campaign(installation, tenant, tracking={"clicks": False})
    mails = installation.simulator.messages("a@example.net")
    assert [tracks(mail) for mail in mails] == [
        {"opens": True, "clicks": False},
        {"opens": False, "clicks": True},
        OFF,
    ]
    assert all("/u/" in mail["html"] for mail in mails)


async def test_a_mail_follows_itself_its_domain_and_its_readers(installation: Installation) -> None:
    tenant = await installation.api.add_tenant()
    await tenant.verify_domain()
    await contact(tenant, "No@example.net", tracking=False)
    (domain,) = (await tenant.get("/api/v1/domains")).body["domains"]
    mail = {"from": "you@acme.com", "subject": "Hi", "html": HTML.replace("{{ firstName }}", "Ann")}
    expected = []
    for to, facts, tracked in (
        (["yes@example.net"], {}, ON),
        (["yes@example.net"], {"tracking": {"opens": False}}, {"opens": False, "clicks": True}),
        (["no@example.net"], {}, OFF),
        # One who does not want it decides for all who get the same mail.
        (["yes@example.net", "NO@example.net"], {}, OFF),
    ):
        sent = await tenant.post("/api/v1/emails", {**mail, **facts, "to": to})
        assert sent.status == 200, sent.body
        expected += [tracked] * len(to)
    await tenant.patch(f"/api/v1/domains/{domain['id']}", {"clickTracking": False})
    below = await tenant.post("/api/v1/emails", {**mail, "from": "you@mail.acme.com", "to": "yes@example.net"})
    assert below.status == 200, below.body
    found = [tracks(one) for to in ("yes@example.net", "no@example.net") for one in installation.simulator.messages(to)]
    assert sorted(map(str, found)) == sorted(map(str, [*expected, {"opens": True, "clicks": False}]))


async def test_a_contacts_no_ends_what_is_recorded_of_mail_that_is_out(
    tenant: Tenant, worker_pool: Pool, api_pool: Pool
) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 2)
        ids = await conn.fetch("SELECT contact_id FROM audience WHERE stream_id = $1 ORDER BY seq", stream.stream_id)
    contacts = [row["contact_id"] for row in ids]

    async def record(at_s: int) -> int:
        acts = [
            opened(stream.stream_id, 1, at_s),
            clicked(stream.stream_id, 1, 1, at_s),
            opened(stream.stream_id, 2, at_s),
        ]
        async with api_pool.acquire() as conn:
            return await store.record(conn, acts)

    assert await record(1) == 3
    no = tenant.api.ids.encode(Kind.CONTACT, contacts[0])
    changed = await tenant.patch(f"/v1/mail/contacts/{no}", {"tracking": False})
    assert (changed.status, changed.body["tracking"]) == (200, False)
    assert await record(2) == 1
    async with api_pool.acquire() as conn:
        assert await store.record(conn, [unsubscribed(stream.stream_id, 1)]) == 1
    await tenant.patch(f"/api/v1/contacts/{no}", {"tracking": True})
    assert await record(3) == 3
    async with worker_pool.acquire() as conn:
        rows = await conn.fetch(
            "SELECT kind, count(*) FROM events WHERE stream_id = $1 AND seq = 1 GROUP BY kind ORDER BY kind",
            stream.stream_id,
        )
    assert [tuple(row) for row in rows] == [(EventKind.OPEN, 2), (EventKind.CLICK, 2), (EventKind.UNSUBSCRIBE, 1)]


async def test_switches_are_kept_and_changed_part_by_part(tenant: Tenant) -> None:
    draft = {"name": "N", "subject": "S", "content": HTML, "tracking": {"opens": False}}
    path = f"/api/v1/campaigns/{(await tenant.post('/api/v1/campaigns', draft)).body['id']}"
    assert (await tenant.get(path)).body["tracking"] == {"opens": False, "clicks": True}
    assert (await tenant.patch(path, {"tracking": {"clicks": False}})).body["tracking"] == OFF
    assert (await tenant.patch(path, {"name": "M"})).body["tracking"] == OFF
    mail_path = path.replace("/api/v1", "/v1/mail")
    assert (await tenant.patch(mail_path, {"tracking": {"opens": True}})).body["tracking"] == {
        "opens": True,
        "clicks": False,
    }
    copied = await tenant.post(f"{path}/duplicate")
    assert copied.body["tracking"] == {"opens": True, "clicks": False}
    assert (await tenant.patch(path, {"tracking": None})).body["tracking"] == ON
    wrong = await tenant.patch(path, {"tracking": {"opens": "no", "links": True}})
    assert (wrong.status, wrong.params) == (422, {"tracking.opens", "tracking.links"})
    known = await tenant.post("/api/v1/contacts", {"email": "a@example.net"})
    assert known.body["tracking"] is True
    again = await tenant.post("/api/v1/contacts?upsert=true", {"email": "a@example.net", "tracking": False})
    assert again.body["tracking"] is False
    kept = await tenant.post("/api/v1/contacts?upsert=true", {"email": "a@example.net", "name": "Ann"})
    assert kept.body["tracking"] is False
