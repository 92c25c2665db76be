"""Plunk: counters that stand at 0 because nobody applies the events."""

import re

from mailrail.worker import ROLES
from tests.support.incidents import accepted, assert_each_got_it_once
from tests.support.installation import Installation, playing
from tests.support.waiting import until


async def test_plunk_460_every_counter_is_zero(idle: Installation) -> None:
    """#460: SES events arrived and were never applied, and every number said 0 as if nothing had been delivered.

    What waits is told by its age, what SES accepted is counted without events, and the campaign does not look finished.
    Breaks when lag is measured by what was applied instead of by what waits (ops/metrics.py).
    """
    tenant = await idle.add_sender(30)
    campaign_id = await idle.send_campaign(tenant)

    async def waiting() -> int:
        async with idle.api.operator.acquire() as conn:
            count: int = await conn.fetchval("SELECT count(*) FROM notification_queue")
        return count

    async def has_piled_up() -> bool:
        return accepted(idle) == 30 and await waiting() == 30

    async with playing(idle.worker, set(ROLES) - {"apply"}):
        await until(has_piled_up, "the pile of events")
        shown = (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body
        assert (shown["status"], shown["progress"]["delivered"]) == ("sending", 0)
        assert (shown["progress"]["accepted"], shown["progress"]["open"]) == (30, 30)

        async def is_told() -> bool:
            text = (await idle.api.call("GET", "/metrics")).body.decode()
            found = re.search(r"^mailrail_notifications_lag_seconds\S* (\S+)$", text, re.MULTILINE)
            assert found is not None, text
            return float(found[1]) > 0.3

        await until(is_told, "a lag that shows")
    async with playing(idle.worker, ("apply", "fold", "sweep")):
        await idle.wait_for(tenant, campaign_id, "completed")
    await assert_each_got_it_once(idle, tenant)
