"""Mautic: overlapping crons, and a map keyed by address."""

import asyncio
from pathlib import Path

import pytest

from mailrail.campaigns.schedule import start_due
from mailrail.emails.model import State
from tests.support.campaigns import add_contacts, draft, row_of
from tests.support.incidents import assert_each_got_it_once, mails, states
from tests.support.installation import Installation, playing
from tests.support.workers import working


async def test_mautic_2215_overlapping_crons_send_twice(idle: Installation, tmp_path: Path) -> None:
    """#2215, #3669, #9880, #11763: two runs of the same cron job at once take the same contacts.

    There are two walls: breaks when leases do not exclude each other and whoever takes a shard starts it over, as a rescue
    by the clock does (emails/store.py, take_shard).
    """
    await idle.set_faults(latency_ms=30)
    tenant = await idle.add_sender(180)
    campaign_id = await idle.send_campaign(tenant)
    with working(idle.settings, tmp_path / "crons", count=2):
        await idle.wait_for(tenant, campaign_id, "completed")
    assert await states(tenant) == {State.DELIVERED: 180}
    await assert_each_got_it_once(idle, tenant)


async def test_mautic_2215_overlapping_schedulers_start_twice(
    idle: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """The same, a step earlier: many schedulers see that the campaign is due.

    Breaks when a due schedule is read without its lock (campaigns/store.py, lock_due_schedule).
    """
    tenant = await idle.api.add_tenant()
    await tenant.verify_domain()
    await add_contacts(tenant, 10)
    path = await draft(tenant)
    async with idle.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE campaigns SET status = 'scheduled', scheduled_at = now() - interval '1 second' WHERE id = $1",
            row_of(tenant, path),
        )
    pool = idle.worker.pool
    await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.1)") for _ in range(8)))  # so many connections are ready
    await asyncio.gather(*(start_due(pool, idle.settings) for _ in range(8)))
    assert "waits" not in caplog.text, "without the lock they stop each other by deadlocks, and only by luck"
    async with idle.api.operator.acquire() as conn:
        for table in ("streams", "holds"):
            count = await conn.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", tenant.account_id)
            assert count == 1, table
    async with playing(idle.worker):
        await idle.wait_for(tenant, path.rpartition("/")[2], "completed")
    await assert_each_got_it_once(idle, tenant)


async def test_mautic_14381_two_contacts_with_one_address_vanish(installation: Installation) -> None:
    """#14381: recipients are kept in a map by address, so of two with the same one only one is written to.

    Within an account the second contact is refused by name; across accounts each gets its mail and pays for its own.
    Breaks when anything between round and result is keyed by address (batch.rs matches by place).
    """
    first = await installation.add_sender(30)
    second = await installation.add_sender(30)
    again = await first.post("/api/v1/contacts", {"email": "P7@EXAMPLE.net"})
    assert (again.status, again.code) == (409, "contact_exists")
    started = [(tenant, await installation.send_campaign(tenant)) for tenant in (first, second)]
    for tenant, campaign_id in started:
        await installation.wait_for(tenant, campaign_id, "completed")
        assert await states(tenant) == {State.DELIVERED: 30}
    assert mails(installation) == sorted(2 * [f"p{n}@example.net" for n in range(1, 31)])
    assert await installation.audit() == []
