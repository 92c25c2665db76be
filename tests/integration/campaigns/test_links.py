"""Who followed which link, in both dialects, and what the statistics make of machines."""

import time

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.model import EventKind, Outcome
from mailrail.ids import Kind
from mailrail.tracking import store as tracking
from mailrail.tracking.model import clicked, opened
from tests.support.api import Tenant
from tests.support.streams import TestStream, add_claim, add_event, add_result, make_stream

URLS = ["https://example.com/a", "https://example.com/b", "https://example.com/c"]


async def sent_campaign(tenant: Tenant, pool: Pool) -> tuple[str, TestStream]:
    """A campaign to four people in two shards, with three links, delivered to all but one; its id."""
    async with pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 4, shard_size=2)
        await conn.executemany(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, $2, $3, $4)",
            [(stream.stream_id, n, tenant.account_id, url) for n, url in enumerate(URLS, 1)],
        )
        for shard in range(2):
            await add_claim(conn, stream, shard, 1, [2 * shard + 1, 2 * shard + 2], 0)
        for seq in range(1, 5):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
            await add_event(conn, stream, seq, EventKind.BOUNCE_PERMANENT if seq == 4 else EventKind.DELIVERY)
        number = await conn.fetchval("SELECT id FROM campaigns WHERE stream_id = $1", stream.stream_id)
    return tenant.api.ids.encode(Kind.CAMPAIGN, number), stream


async def fold_all(pool: Pool, stream: TestStream) -> None:
    """Counts."""
    async with pool.acquire() as conn:
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
        for _ in range(2):
            async with conn.transaction():
                assert await fold.fold_next(conn) is not None


async def test_links_and_statistics_count_people_and_machines_apart(
    tenant: Tenant, worker_pool: Pool, api_pool: Pool
) -> None:
    campaign, stream = await sent_campaign(tenant, worker_pool)
    later_s = time.time() + 60
    acts = [
        opened(stream.stream_id, 1, later_s, "privacy"),
        opened(stream.stream_id, 1, later_s + 5),
        opened(stream.stream_id, 2, later_s, "privacy"),
        clicked(stream.stream_id, 1, 1, later_s + 10),
        clicked(stream.stream_id, 1, 1, later_s + 20),
        clicked(stream.stream_id, 3, 1, later_s + 30),
        # A burst, and what says itself that it is a scanner.
        clicked(stream.stream_id, 2, 1, later_s),
        clicked(stream.stream_id, 2, 2, later_s),
        clicked(stream.stream_id, 3, 2, later_s + 50, "scanner"),
    ]
    async with api_pool.acquire() as conn:
        assert await tracking.record(conn, acts) == len(acts)
        assert await tracking.record(conn, acts) == 0
    await fold_all(worker_pool, stream)
    answers = [await tenant.get(f"{base}/campaigns/{campaign}/links") for base in ("/api/v1", "/v1/mail")]
    assert answers[0].status == 200
    assert answers[0].body == answers[1].body
    links = answers[0].body["links"]
    assert [(one["id"], one["url"], one["clicked"], one["clicks"], one["machineClicks"]) for one in links] == [
        ("1", URLS[0], 2, 3, 1),
        ("2", URLS[1], 0, 0, 2),
        ("3", URLS[2], 0, 0, 0),
    ]
    assert links[0]["firstClickAt"] < links[0]["lastClickAt"]
    assert (links[1]["firstClickAt"], links[1]["lastClickAt"]) == (None, None)
    stats = (await tenant.get(f"/v1/mail/campaigns/{campaign}/stats")).body
    assert {name: stats[name] for name in ("opened", "machineOpened", "clicked", "machineClicked")} == {
        "opened": 1,
        "machineOpened": 1,
        "clicked": 2,
        "machineClicked": 1,
    }
    assert (stats["openRate"], stats["clickRate"], stats["bounceRate"]) == (0.3333, 0.6667, 0.25)
    recipients = (await tenant.get(f"/api/v1/campaigns/{campaign}/recipients")).body["recipients"]
    assert [(one["opens"], one["machineOpens"], one["clicks"], one["machineClicks"]) for one in recipients] == [
        (1, 1, 2, 0),
        (0, 1, 0, 2),
        (0, 0, 1, 1),
        (0, 0, 0, 0),
    ]


async def test_links_come_in_pages(tenant: Tenant, worker_pool: Pool) -> None:
    campaign, _ = await sent_campaign(tenant, worker_pool)
    path = f"/api/v1/campaigns/{campaign}/links?limit=2"
    first = (await tenant.get(path)).body
    assert ([one["id"] for one in first["links"]], first["total"], first["pages"]) == (["1", "2"], 3, 2)
    for query in (f"&after={first['after']}", "&page=2"):
        rest = (await tenant.get(path + query)).body
        assert ([one["id"] for one in rest["links"]], rest["after"]) == (["3"], None)
    wrong = await tenant.get(path + "&after=x")
    assert (wrong.status, wrong.body["errors"][0]["code"]) == (422, "cursor_invalid")


async def test_a_draft_has_no_links_yet_and_anothers_campaign_is_not_there(tenant: Tenant, stranger: Tenant) -> None:
    body = {"name": "N", "subject": "S", "content": f'<a href="{URLS[0]}">x</a>'}
    draft = (await tenant.post("/api/v1/campaigns", body)).body["id"]
    assert (await tenant.get(f"/api/v1/campaigns/{draft}/links")).body["links"] == []
    assert (await stranger.get(f"/api/v1/campaigns/{draft}/links")).status == 404
