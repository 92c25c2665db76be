"""Postal: locks of the dead, a queue read twice, and nothing written down before the mail goes out."""

import asyncio
from datetime import timedelta

from mailrail.emails import store
from mailrail.emails.model import Round
from tests.support.incidents import accepted, assert_each_got_it_once
from tests.support.installation import Installation, playing
from tests.support.waiting import until


async def test_postal_645_lock_of_a_dead_worker_stays(idle: Installation) -> None:
    """#645, #1028, #1085, #1394: `locked_by` of a worker that died kept its messages back until somebody wrote SQL.

    Breaks when a lease that is over keeps others away (emails/store.py: both take_shard and expire_leases end it), or when
    its claims are not folded anew.
    """
    tenant = await idle.add_sender(40)
    campaign_id = await idle.send_campaign(tenant)
    async with idle.worker.pool.acquire() as conn:
        dead = await store.take_shard(conn, idle.settings.lease_s)
        assert dead is not None
        assert await store.claim_round(conn, dead, 20, idle.settings.lease_s) is not None
    async with playing(idle.worker):
        shown = await idle.wait_for(tenant, campaign_id, "completed")
    assert shown["progress"]["delivered"] == 40
    await assert_each_got_it_once(idle, tenant)
    async with idle.api.operator.acquire() as conn:
        waited = await conn.fetchval(
            """SELECT min(h.claimed_at) - max(d.lease_until) FROM claims d, claims h
               WHERE d.account_id = $1 AND h.account_id = $1 AND d.lease_id = $2 AND h.lease_id <> $2""",
            tenant.account_id,
            dead.lease_id,
        )
    assert waited < timedelta(seconds=5), "its shard moves within lease + 5 s"


async def test_postal_198_pulled_twice_on_a_cluster(idle: Installation) -> None:
    """#198: on a cluster of databases two workers pulled the same message.

    Even under one lease, which two processes never share, no two claims overlap. Breaks when a claim reads `next_seq` before
    it locks the shard's row (emails/store.py, claim_round).
    """
    tenant = await idle.add_sender(60)
    await idle.send_campaign(tenant)
    async with idle.worker.pool.acquire() as conn:
        leases = [await store.take_shard(conn, 30), await store.take_shard(conn, 30)]
    lease = leases[0]
    assert lease is not None
    assert leases[1] is None, "one shard, one lease"

    async def pull() -> Round | None:
        async with idle.worker.pool.acquire() as conn:
            return await store.claim_round(conn, lease, 7, 30)

    pulled = [found for found in await asyncio.gather(*(pull() for _ in range(12))) if found is not None]
    seqs = [seq for found in pulled for seq in range(found.first_seq or 0, (found.last_seq or 0) + 1)]
    assert sorted(seqs) == list(range(1, 61))


async def test_postal_queue_row_goes_only_after_the_send(idle: Installation) -> None:
    """In Postal's code the queue row is deleted after the SMTP dialogue and nothing is stored before it, so a crash in
    between sends again. Here whoever SES has heard of stands in a claim that was committed before.

    Breaks when the round is submitted inside the transaction of its claim (campaigns/rounds.py).
    """
    await idle.set_faults(latency_ms=250)
    tenant = await idle.add_sender(40)
    campaign_id = await idle.send_campaign(tenant)

    async def is_called() -> bool:
        return accepted(idle) > 0

    async with playing(idle.worker):
        await until(is_called, "the first accept")
        async with idle.api.operator.acquire() as conn:
            claimed = await conn.fetchval(
                "SELECT sum(last_seq - first_seq + 1) FROM claims WHERE account_id = $1 AND attempt = 1",
                tenant.account_id,
            )
        assert claimed >= accepted(idle)
        await idle.wait_for(tenant, campaign_id, "completed")
    await assert_each_got_it_once(idle, tenant)
