"""Domains looked at again and again, and what comes of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.domains import handlers
from mailrail.domains.handlers import watch_due
from mailrail.webhooks import deliveries
from mailrail.webhooks.payload import body_of
from tests.support.api import Tenant
from tests.support.dns import Zone
from tests.support.identities import Identities
from tests.support.webhooks import add_endpoint


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause for the sake of SES."""
    monkeypatch.setattr(handlers, "PAUSE_S", 0.0)


async def make_due(pool: Pool, domain: str, watched: timedelta = timedelta()) -> None:
    """Its time has come, after it was watched for so long."""
    async with pool.acquire() as conn:
        await conn.execute(
            "UPDATE domains SET next_check_at = now(), watched_since = now() - $2::interval WHERE domain = $1",
            domain,
            watched,
        )


async def row(pool: Pool, domain: str) -> Any:
    """The domain as stored."""
    async with pool.acquire() as conn:
        return await conn.fetchrow("SELECT *, next_check_at - now() AS pause FROM domains WHERE domain = $1", domain)


async def test_a_pending_domain_becomes_verified_without_anybodys_asking(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings
) -> None:
    await add_endpoint(owner, "https://your-app.com/webhook")
    added = await owner.post("/api/v1/domains", {"domain": "timer.com"})
    assert await watch_due(worker_pool, settings) == 0  # a minute has not passed
    identities.known["timer.com"] = (True, "SUCCESS")
    await make_due(worker_pool, "timer.com")
    assert await watch_due(worker_pool, settings) == 1
    shown = (await owner.get(f"/api/v1/domains/{added.body['id']}")).body
    assert shown["status"] == "verified"
    assert shown["checkedAt"] >= added.body["checkedAt"]
    async with worker_pool.acquire() as conn:
        delivery_id = await conn.fetchval("SELECT id FROM webhook_deliveries WHERE account_id = $1", owner.account_id)
        _, message, _ = await deliveries.read_delivery(conn, owner.account_id, delivery_id)
    body = orjson.loads(body_of(message, owner.api.ids))
    assert body["type"] == "domain.verified"
    assert (body["data"]["domainId"], body["data"]["domain"]) == (added.body["id"], "timer.com")


@pytest.mark.parametrize(
    ("watched", "state", "pause"),
    [
        (timedelta(), (False, "PENDING"), timedelta(minutes=1)),
        (timedelta(hours=1), (False, "PENDING"), timedelta(minutes=20)),
        (timedelta(hours=30), (False, "PENDING"), timedelta(hours=1)),
        (timedelta(hours=80), (False, "PENDING"), timedelta(days=1)),
        (timedelta(hours=1), (False, "FAILED"), timedelta(days=1)),
        (timedelta(hours=1), (True, "SUCCESS"), timedelta(days=1)),
    ],
)
async def test_the_pauses_grow(
    owner: Tenant,
    identities: Identities,
    worker_pool: Pool,
    settings: Settings,
    watched: timedelta,
    state: tuple[bool, str],
    pause: timedelta,
) -> None:
    name = f"w{watched.total_seconds():.0f}{state[1].lower()}.com"
    await owner.post("/api/v1/domains", {"domain": name})
    identities.known[name] = state
    await make_due(worker_pool, name, watched)
    assert await watch_due(worker_pool, settings) == 1
    assert abs((await row(worker_pool, name))["pause"] - pause) < timedelta(seconds=10)


async def test_who_adds_a_domain_during_a_look_is_not_overlooked(
    owner: Tenant, rival: Tenant, identities: Identities, worker_pool: Pool, settings: Settings, zone: Zone
) -> None:
    await owner.post("/api/v1/domains", {"domain": "meanwhile.com"})
    identities.known["meanwhile.com"] = (True, "SUCCESS")
    await make_due(worker_pool, "meanwhile.com")
    zone.silent.add("aaa._domainkey.meanwhile.com")
    looking = asyncio.create_task(watch_due(worker_pool, settings))
    while ("aaa._domainkey.meanwhile.com", "CNAME") not in zone.asked:
        await asyncio.sleep(0.01)
    async with worker_pool.acquire() as conn:
        await conn.execute(
            "INSERT INTO domains (account_id, domain, next_check_at) VALUES ($1, 'meanwhile.com', 'infinity')",
            rival.account_id,
        )
    assert not looking.done()
    await looking
    assert {one["status"] for one in (await owner.get("/api/v1/domains")).body["domains"]} == {"pending"}


async def test_workers_side_by_side_ask_once_each(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings
) -> None:
    names = [f"many{number}.com" for number in range(12)]
    for name in names:
        await owner.post("/api/v1/domains", {"domain": name})
        await make_due(worker_pool, name)
    identities.asked.clear()
    assert sum(await asyncio.gather(*(watch_due(worker_pool, settings) for _ in range(4)))) == 12
    assert sorted(identities.asked) == sorted(names)
    assert await watch_due(worker_pool, settings) == 0


async def test_a_failure_says_why_and_ses_looks_again_once_the_records_are_there(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings, zone: Zone
) -> None:
    await add_endpoint(owner, "https://your-app.com/webhook", ["domain.failed"])
    added = await owner.post("/api/v1/domains", {"domain": "gaveup.com"})
    identities.known["gaveup.com"] = (False, "FAILED")
    identities.errors["gaveup.com"] = "TYPE_NOT_FOUND"
    await make_due(worker_pool, "gaveup.com")
    await watch_due(worker_pool, settings)
    one = f"/api/v1/domains/{added.body['id']}"
    shown = (await owner.get(one)).body
    assert shown["status"] == "failed"
    assert "there are no CNAME records" in shown["statusReason"]
    assert len(shown["missing"]) == 5
    async with worker_pool.acquire() as conn:
        told = await conn.fetchval("SELECT type FROM webhook_messages WHERE account_id = $1", owner.account_id)
    assert told == "domain.failed"
    assert identities.looked_again == []
    for record in added.body["dnsRecords"][:2]:
        zone.publish(record["name"], "CNAME", record["value"] + ".")
    await owner.post(f"{one}/verify")
    assert identities.looked_again == ["gaveup.com"]
    assert (await owner.post(f"{one}/verify")).body["status"] == "pending"


async def test_a_verified_domain_that_loses_its_records_is_warned_and_sends_on(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings
) -> None:
    added = await owner.post("/api/v1/domains", {"domain": "lost.com"})
    identities.known["lost.com"] = (True, "SUCCESS")
    await make_due(worker_pool, "lost.com")
    await watch_due(worker_pool, settings)
    shown = (await owner.get(f"/api/v1/domains/{added.body['id']}")).body
    assert (shown["status"], shown["statusReason"]) == ("verified", None)
    assert {one["status"] for one in shown["dnsRecords"]} == {"missing"}
    assert any("aaa._domainkey.lost.com" in sentence for sentence in shown["missing"])
    assert shown["alignment"]["verdict"] == "none"


async def test_while_ses_is_away_nothing_changes_and_it_is_asked_later(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings
) -> None:
    await owner.post("/api/v1/domains", {"domain": "away.com"})
    before = await row(worker_pool, "away.com")
    identities.away = True
    await make_due(worker_pool, "away.com")
    assert await watch_due(worker_pool, settings) == 1
    after = await row(worker_pool, "away.com")
    assert (after["status"], after["report"]) == (before["status"], before["report"])
    assert timedelta(seconds=200) < after["pause"] <= timedelta(seconds=handlers.LEASE_S)


async def test_a_deleted_domain_is_looked_at_no_more(
    owner: Tenant, identities: Identities, worker_pool: Pool, settings: Settings
) -> None:
    added = await owner.post("/api/v1/domains", {"domain": "gone.com"})
    await make_due(worker_pool, "gone.com")
    await owner.delete(f"/api/v1/domains/{added.body['id']}")
    assert await watch_due(worker_pool, settings) == 0
    assert identities.known["gone.com"] == (False, "PENDING")  # SES keeps what another account may send from


async def test_a_look_says_when_it_was(owner: Tenant, identities: Identities) -> None:
    added = await owner.post("/api/v1/domains", {"domain": "when.com"})
    verified = await owner.post(f"/api/v1/domains/{added.body['id']}/verify")
    seen = datetime.fromisoformat(verified.body["checkedAt"])
    assert abs(datetime.now(UTC) - seen) < timedelta(minutes=1)
