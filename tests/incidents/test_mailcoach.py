"""Mailcoach: one event of SES comes up to eight times."""

from mailrail.emails.model import State
from tests.support.incidents import assert_each_got_it_once, states
from tests.support.installation import Installation


async def test_mailcoach_75_one_event_in_eight_copies(installation: Installation) -> None:
    """mailcoach-support #75: the same event arrived one to eight times and was counted each time.

    Copies come as the same notification and as new ones. Breaks when `events` has no unique key per mail and kind, or a
    capture none per recipient (migration 0001).
    """
    await installation.set_faults(duplicate_events=1.0, reorder_events=0.3, seed=5)
    tenant = await installation.add_sender(60)
    shown = await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert shown["progress"]["delivered"] == 60
    assert await states(tenant) == {State.DELIVERED: 60}
    async with installation.api.operator.acquire() as conn:
        events = await conn.fetchval("SELECT count(*) FROM events WHERE account_id = $1", tenant.account_id)
        told = await conn.fetchval("SELECT count(*) FROM notifications")
        hold = await conn.fetchrow("SELECT * FROM holds WHERE account_id = $1", tenant.account_id)
    assert events == 60
    assert told > 60, "copies did come"
    assert hold is not None
    assert (hold["captured_micros"], hold["released_micros"]) == (60 * 300, 0)
    await assert_each_got_it_once(installation, tenant)
