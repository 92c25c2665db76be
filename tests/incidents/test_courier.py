"""Courier: time-outs, and a mark that comes too late."""

from pathlib import Path

from mailrail.emails.model import State
from tests.support.incidents import QUICK, assert_each_got_it_once, states
from tests.support.installation import installed
from tests.support.postgres import Database


async def test_courier_2023_08_timeouts_and_a_late_delivered_mark(database: Database, tmp_path: Path) -> None:
    """August 2023: calls to the provider timed out after it had accepted, "delivered" was marked late, and the same mail
    went out over and over.

    Breaks when a time-out permits another attempt by itself (emails/model.py, RETRYABLE; ses/mod.rs, NoAnswer).
    """
    # Events come up to 3 s late, so what silence means is asked after that.
    async with installed(database, tmp_path / "simulator", QUICK | {"fence_s": 8.0}) as installation:
        await installation.set_faults(hang_after_accept=1.0, reorder_events=1.0, seed=3)
        tenant = await installation.add_sender(40)
        await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
        assert await states(tenant) == {State.DELIVERED: 40}
        await assert_each_got_it_once(installation, tenant)
        async with installation.api.operator.acquire() as conn:
            assert await conn.fetchval("SELECT sum(unknown) FROM shards WHERE account_id = $1", tenant.account_id) == 40
