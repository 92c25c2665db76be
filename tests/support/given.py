"""What the samples of the seeds take for given, and the ids that it has instead of the printed ones."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from mailrail.tracking import store as tracking
from mailrail.tracking.model import clicked, opened
from tests.support.api import Tenant
from tests.support.campaigns import add_contacts
from tests.support.seeds import samples
from tests.support.waiting import until


async def nothing(tenant: Tenant) -> dict[str, str]:
    return {}


async def list_of_1000(tenant: Tenant) -> dict[str, str]:
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    await add_contacts(tenant, 1000)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            """INSERT INTO list_members (list_id, contact_id, account_id)
               SELECT (SELECT max(id) FROM lists WHERE account_id = $1), id, account_id FROM contacts WHERE account_id = $1""",
            tenant.account_id,
        )
    return {"...": list_id}


async def empty_list(tenant: Tenant) -> dict[str, str]:
    list_id = (await tenant.post("/api/v1/lists", {"name": "Readers"})).body["id"]
    return {"list_id": list_id, "...": list_id}


async def new_domain(tenant: Tenant) -> dict[str, str]:
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("DELETE FROM domains WHERE account_id = $1 AND domain = 'yourdomain.com'", tenant.account_id)
    made = await tenant.post("/api/v1/domains", {"domain": "yourdomain.com"})
    assert made.status == 201, made.body
    return {"dom_id": made.body["id"]}


async def webhook(tenant: Tenant) -> dict[str, str]:
    made = await tenant.post("/api/v1/webhooks", {"url": "https://your-app.com/webhook", "events": ["*"]})
    assert made.status == 201, made.body
    return {}


async def emails(tenant: Tenant, count: int, opens: int, clicks: int = 0) -> str:
    """So many emails of which the newest was opened and clicked as often; its id."""
    mail = {
        "from": "you@yourdomain.com",
        "subject": "Welcome!",
        "html": '<p>Hello</p><a href="https://example.com">x</a>',
    }
    ids: list[str] = []
    for first in range(0, count, 50):
        batch = [{**mail, "to": f"user{n}@example.com"} for n in range(first, min(first + 50, count))]
        made = await tenant.post("/api/v1/emails/batch", {"emails": batch})
        assert (made.status, made.body["sent"]) == (200, len(batch)), made.body
        ids += [one["id"] for one in made.body["results"]]
    numbers = tenant.api.ids.decode_email(ids[-1])
    assert numbers is not None
    # A while after the mail came: what happens at that moment was no person.
    soon_s = time.time() + 10
    engagement = [opened(*numbers, soon_s + n) for n in range(opens)] + [
        clicked(*numbers, 1, soon_s + n) for n in range(clicks)
    ]
    async with tenant.api.app.ctx.pool.acquire() as conn:
        assert await tracking.record(conn, engagement) == opens + clicks

    async def is_folded() -> bool:
        listed: dict[str, Any] = (await tenant.get("/api/v1/emails?status=sent")).body
        return listed["total"] == count and [mail["opens"] for mail in listed["emails"][:1]] == [opens]

    await until(is_folded, "the fold")
    return ids[-1]


async def emails_150(tenant: Tenant) -> dict[str, str]:
    await emails(tenant, 150, opens=3)
    return {}


async def email_read(tenant: Tenant) -> dict[str, str]:
    return {"clx1234": await emails(tenant, 1, opens=5, clicks=2)}


async def newsletter(tenant: Tenant) -> dict[str, str]:
    await add_contacts(tenant, 10_240)
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("UPDATE contacts SET tags = '{newsletter}' WHERE account_id = $1", tenant.account_id)
    return {}


async def newsletter_draft(tenant: Tenant) -> dict[str, str]:
    await newsletter(tenant)
    [create] = [piece for piece in samples("mail-v1") if piece.name == "POST /v1/mail/campaigns"]
    made = await tenant.post("/v1/mail/campaigns", create.said["request"]["body"])
    return {"cmp_xyz789": made.body["id"]}


async def draft(tenant: Tenant) -> dict[str, str]:
    await add_contacts(tenant, 3)
    made = await tenant.post("/api/v1/campaigns", {"name": "N", "subject": "S", "content": "<h1>Hello</h1>"})
    return {"camp_id": made.body["id"]}


async def much_sent(tenant: Tenant) -> dict[str, str]:
    """1500 contacts, 45 campaigns of which one is on its way, two domains; nobody works, so the shard says what it sent."""
    await add_contacts(tenant, 1500)
    made = await tenant.post("/api/v1/campaigns", {"name": "N", "subject": "S", "content": "<h1>Hello</h1>"})
    assert (await tenant.post(f"/api/v1/campaigns/{made.body['id']}/launch")).status == 200
    async with tenant.api.operator.acquire() as conn:
        await conn.execute("DELETE FROM domains WHERE account_id = $1 AND domain = 'acme.com'", tenant.account_id)
        await conn.execute("UPDATE shards SET accepted = 12500 WHERE account_id = $1 AND shard = 0", tenant.account_id)
        await conn.execute(
            """INSERT INTO campaigns (account_id, name, subject, html, status, stream_id)
               SELECT $1, 'N', 'S', 'H', CASE WHEN n <= 40 THEN 'completed' ELSE 'draft' END,
                 CASE WHEN n <= 40 THEN new_stream_id(0) END
               FROM generate_series(1, 44) n""",
            tenant.account_id,
        )
    return {}


# What a sample takes for given → who brings it about, and what it wrote instead of the printed ids.
GIVEN: dict[str, Callable[[Tenant], Awaitable[dict[str, str]]]] = {
    "an account": nothing,
    "a verified domain": nothing,
    "a list": empty_list,
    "1000 contacts on a list": list_of_1000,
    "10240 contacts with the tag": newsletter,
    "150 emails, one opened 3 times": emails_150,
    "an email, opened 5 times and clicked twice": email_read,
    "a domain whose records are published": new_domain,
    "a webhook": webhook,
    "a draft": draft,
    "a draft to 10240": newsletter_draft,
    "an account that has sent much": much_sent,
}
