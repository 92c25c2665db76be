"""listmonk: the checkpoint moves when a batch is fetched, and errors after the accept are retried.

#1801, a server restored from a snapshot sends again, has its tests with the guard (tests/integration/ops).
"""

import signal
from pathlib import Path

from mailrail.emails import fold
from mailrail.emails.model import State
from mailrail.worker import ROLES
from tests.support.incidents import accepted, assert_each_got_it_once, audience, mails, states
from tests.support.installation import Installation, playing
from tests.support.waiting import until
from tests.support.workers import working

RECIPIENTS = 180


async def test_listmonk_2278_reboot_leaves_unsent_as_finished(idle: Installation, tmp_path: Path) -> None:
    """#2278, #2860, #1546, #1762, #2591, #3022, #2168: a reboot loses the batch that was fetched, and "finished" is shown.

    Breaks when a claim without a result is not `unknown` (fold.py), or is never looked at again (reconcile.py).
    """
    await idle.set_faults(latency_ms=150)
    tenant = await idle.add_sender(RECIPIENTS)
    campaign_id = await idle.send_campaign(tenant)
    with working(idle.settings, tmp_path / "first") as (first,):

        async def is_under_way() -> bool:
            return accepted(idle) >= 20

        await until(is_under_way, "the first mails")
        first.send_signal(signal.SIGKILL)
        first.wait()
    reached = len(mails(idle))
    assert 0 < reached < RECIPIENTS, "killed in the middle"
    assert (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["status"] == "sending"
    async with playing(idle.worker):
        shown = await idle.wait_for(tenant, campaign_id, "completed")
    assert (shown["progress"]["delivered"], shown["progress"]["open"]) == (RECIPIENTS, 0)
    await assert_each_got_it_once(idle, tenant)


async def test_listmonk_2070_resume_sends_again(installation: Installation) -> None:
    """#2070, #2313: pause and resume; some got it three to five times, a third not at all.

    Breaks when resume moves `next_seq` or forgets permits (campaigns/store.py, set_shard_states).
    """
    await installation.set_faults(latency_ms=60, throttle_429=0.2, seed=7)
    tenant = await installation.add_sender(RECIPIENTS)
    campaign_id = await installation.send_campaign(tenant)
    for share in (0.2, 0.5):

        async def is_so_far(least: float = share * RECIPIENTS) -> bool:
            return accepted(installation) >= least

        await until(is_so_far, "the next part")
        assert (await tenant.post(f"/api/v1/campaigns/{campaign_id}/pause")).status == 200
        assert accepted(installation) < RECIPIENTS, "paused in the middle"
        assert (await tenant.post(f"/api/v1/campaigns/{campaign_id}/resume")).status == 200
    await installation.wait_for(tenant, campaign_id, "completed")
    await assert_each_got_it_once(installation, tenant)


async def test_listmonk_1109_error_after_accept_is_sent_again(installation: Installation) -> None:
    """#1109: the server took the mail, then failed; retries made three copies of it.

    Breaks when a 5xx counts as not accepted (ses/outcome.rs), or a permit does not wait for the events (reconcile.py).
    """
    await installation.set_faults(server_error_after_accept=1.0)
    tenant = await installation.add_sender(40)
    await installation.wait_for(tenant, await installation.send_campaign(tenant), "completed")
    assert await states(tenant) == {State.DELIVERED: 40}
    await assert_each_got_it_once(installation, tenant)


async def test_listmonk_1433_stays_running_for_ever(idle: Installation) -> None:
    """#1433, #905, #1496: all sent, and the campaign runs on, because whoever should have ended it died.

    Breaks when only the fold that closes the last shard completes a campaign (events/handlers.py, complete_finished).
    """
    tenant = await idle.add_sender(30)
    campaign_id = await idle.send_campaign(tenant)
    async with playing(idle.worker, set(ROLES) - {"fold", "sweep"}):

        async def is_told() -> bool:
            async with idle.api.operator.acquire() as conn:
                events: int = await conn.fetchval(
                    "SELECT count(*) FROM events WHERE account_id = $1", tenant.account_id
                )
            return events == 30

        await until(is_told, "the last event")
    async with idle.worker.pool.acquire() as conn:
        await conn.execute("UPDATE folds SET due_at = now() WHERE account_id = $1", tenant.account_id)
        async with conn.transaction():
            folded = await fold.fold_next(conn)
        assert folded is not None
        assert folded.closed_now, "and here the process dies"
    assert (await tenant.get(f"/api/v1/campaigns/{campaign_id}")).body["status"] == "sending"
    async with playing(idle.worker, ("sweep",)):
        shown = await idle.wait_for(tenant, campaign_id, "completed")
    assert shown["progress"]["delivered"] == 30
    assert mails(idle) == await audience(tenant)
