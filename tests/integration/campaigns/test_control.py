"""Pause, resume and cancel, as the API tells it and as the tables have it; no worker runs but the one that a test plays."""

import asyncio

import pytest

from mailrail.accounts.model import Scope
from mailrail.campaigns import store
from mailrail.db.pool import Pool
from mailrail.emails import store as emails
from mailrail.emails.model import LeasedShard
from mailrail.ids import Kind
from tests.support.api import Api, Tenant
from tests.support.campaigns import draft, launched, set_status, stream_of
from tests.support.streams import make_stream

LEASE_S = 30.0


async def lease(pool: Pool, stream_id: int) -> LeasedShard:
    """A worker's lease on the stream's one shard."""
    async with pool.acquire() as conn:
        await conn.execute("UPDATE shards SET wake_at = NULL WHERE stream_id <> $1", stream_id)
        shard = await emails.take_shard(conn, LEASE_S)
    assert shard is not None
    assert shard.stream_id == stream_id
    return shard


async def claims(pool: Pool, shard: LeasedShard) -> int:
    """How many the worker gets to send next."""
    async with pool.acquire() as conn:
        claimed = await emails.claim_round(conn, shard, 1, LEASE_S)
    return 0 if claimed is None else len(claimed)


@pytest.mark.parametrize("dialect", ["/api/v1", "/v1/mail"])
async def test_a_pause_stops_the_next_claim_and_resume_goes_on(tenant: Tenant, worker_pool: Pool, dialect: str) -> None:
    path = await launched(tenant, 4)
    mine = dialect + path.removeprefix("/api/v1")
    shard = await lease(worker_pool, await stream_of(tenant, path))
    assert await claims(worker_pool, shard) == 1
    for _ in range(2):
        paused = await tenant.post(f"{mine}/pause")
        assert (paused.status, paused.body["status"], paused.body["reason"]) == (200, "paused", "by request")
    assert await claims(worker_pool, shard) == 0
    async with worker_pool.acquire() as conn:
        await emails.release_shard(conn, shard)
        assert await emails.take_shard(conn, LEASE_S) is None
        rung = await conn.fetchval("SELECT count(*) FROM outbox")
    for _ in range(2):
        resumed = await tenant.post(f"{mine}/resume")
        assert (resumed.status, resumed.body["status"], resumed.body["reason"]) == (200, "sending", None)
    async with worker_pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM outbox") == rung + 1, "a repeat rings no second time"
    again = await lease(worker_pool, shard.stream_id)
    assert again.epoch > shard.epoch + 1, "pause and resume each made an epoch of their own"
    assert await claims(worker_pool, again) == 1


async def test_a_resumed_campaign_that_has_nothing_left_is_folded_to_its_end(tenant: Tenant, worker_pool: Pool) -> None:
    path = await launched(tenant)
    stream_id = await stream_of(tenant, path)
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE shards SET next_seq = last_seq + 1, wake_at = NULL WHERE stream_id = $1", stream_id)
        await tenant.post(f"{path}/pause")
        # The last outcome came in while it stood still: the fold closed the shard, and nobody completed the campaign.
        await conn.execute(
            "UPDATE folds SET due_at = NULL, closed_at = now(), open = 0 WHERE stream_id = $1", stream_id
        )
        await tenant.post(f"{path}/resume")
        shard = await conn.fetchrow("SELECT state, wake_at FROM shards WHERE stream_id = $1", stream_id)
        fold = await conn.fetchrow(
            "SELECT due_at <= now() AS due, closed_at FROM folds WHERE stream_id = $1", stream_id
        )
    assert tuple(shard or ()) == ("sending", None), "a shard with nothing to send sleeps on"
    assert tuple(fold or ()) == (True, None)


async def test_a_resumed_shard_wakes_for_its_next_permit(tenant: Tenant, worker_pool: Pool) -> None:
    path = await launched(tenant)
    stream_id = await stream_of(tenant, path)
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE shards SET next_seq = last_seq + 1 WHERE stream_id = $1", stream_id)
        await conn.execute(
            """INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at)
               VALUES ($1, 1, 2, $2, 0, '2100-01-01Z')""",
            stream_id,
            tenant.account_id,
        )
        await tenant.post(f"{path}/pause")
        await tenant.post(f"{path}/resume")
        wake_at = await conn.fetchval("SELECT wake_at FROM shards WHERE stream_id = $1", stream_id)
    assert wake_at.year == 2100


@pytest.mark.parametrize("first", [None, "pause"])
async def test_a_cancel_leaves_nothing_to_claim(tenant: Tenant, worker_pool: Pool, first: str | None) -> None:
    path = await launched(tenant, 3)
    stream_id = await stream_of(tenant, path)
    shard = await lease(worker_pool, stream_id)
    assert await claims(worker_pool, shard) == 1
    async with worker_pool.acquire() as conn:
        await conn.execute(
            "INSERT INTO permits (stream_id, seq, attempt, account_id, shard, due_at) VALUES ($1, 1, 2, $2, 0, now())",
            stream_id,
            tenant.account_id,
        )
    if first is not None:
        await tenant.post(f"{path}/{first}")
    for _ in range(2):
        answer = await tenant.post(f"{path}/cancel")
        assert (answer.status, answer.body["status"]) == (200, "cancelled")
    assert await claims(worker_pool, shard) == 0
    async with worker_pool.acquire() as conn:
        assert await conn.fetchval("SELECT claim_id FROM permits WHERE stream_id = $1", stream_id) == 0
        assert await conn.fetchval("SELECT bool_and(due_at <= now()) FROM folds WHERE stream_id = $1", stream_id)
        await emails.release_shard(conn, shard)
        assert await emails.take_shard(conn, LEASE_S) is None
    for verb in ("resume", "pause", "retry", "launch"):
        refused = await tenant.post(f"{path}/{verb}")
        assert (refused.status, refused.code) == (409, "campaign_state_wrong")
        assert "cancelled" in refused.body["error"]["message"]


async def test_a_wrong_transition_says_the_status_and_what_to_do(tenant: Tenant) -> None:
    path = await draft(tenant)
    for verb, remedy in (("pause", "nothing to pause"), ("resume", "Launch it first"), ("retry", "Launch it first")):
        answer = await tenant.post(f"{path}/{verb}")
        assert (answer.status, answer.code) == (409, "campaign_state_wrong")
        assert "This campaign is draft" in answer.body["error"]["message"]
        assert remedy in answer.body["error"]["message"]
    sent = await launched(tenant)
    await set_status(tenant, sent, "completed")
    answer = await tenant.post(f"{sent}/cancel")
    assert (answer.status, "completed" in answer.body["error"]["message"]) == (409, True)


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "retry"])
async def test_control_takes_no_field_it_would_not_obey(tenant: Tenant, verb: str) -> None:
    path = await draft(tenant)
    answer = await tenant.post(f"{path}/{verb}", {"force": True})
    assert (answer.status, answer.params) == (422, {"force"})


async def test_control_asks_for_the_right_to_send(api: Api, tenant: Tenant) -> None:
    path = await launched(tenant)
    reader = await tenant.new_key([Scope.CAMPAIGNS_READ, Scope.CAMPAIGNS_WRITE])
    for verb in ("pause", "resume", "cancel", "retry"):
        assert (await api.call("POST", f"{path}/{verb}", reader)).status == 403
    assert (await api.call("GET", f"{path}/recipients", reader)).status == 200


async def test_a_worker_and_a_user_who_pause_at_once_do_not_lock_each_other_out(
    tenant: Tenant, worker_pool: Pool
) -> None:
    path = await launched(tenant, 30)
    stream_id = await stream_of(tenant, path)

    async def halt() -> None:
        async with worker_pool.acquire() as conn, conn.transaction():
            await store.pause_campaign(conn, stream_id, "Amazon SES refused it")

    for _ in range(20):
        answers = await asyncio.gather(
            tenant.post(f"{path}/pause"), halt(), tenant.post(f"{path}/resume"), halt(), tenant.post(f"{path}/resume")
        )
        assert {answer.status for answer in answers if answer is not None} == {200}


async def test_a_campaign_that_was_cancelled_is_not_paused_by_its_last_round(tenant: Tenant, worker_pool: Pool) -> None:
    path = await launched(tenant)
    await tenant.post(f"{path}/cancel")
    async with worker_pool.acquire() as conn, conn.transaction():
        await store.pause_campaign(conn, await stream_of(tenant, path), "Amazon SES refused it")
    shown = (await tenant.get(path)).body
    assert (shown["status"], shown["reason"]) == ("cancelled", "by request")


async def test_sweeps_and_users_at_once_do_not_lock_each_other_out(tenant: Tenant, worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, 40, shard_size=1)
        campaign_id = await conn.fetchval("SELECT id FROM campaigns WHERE stream_id = $1", stream.stream_id)
    path = f"/api/v1/campaigns/{tenant.api.ids.encode(Kind.CAMPAIGN, campaign_id)}"

    async def sweep() -> None:
        async with worker_pool.acquire() as conn:
            for _ in range(5):
                # Leases fall silent in an order of their own.
                await conn.execute(
                    """UPDATE shards s SET lease_id = 1, lease_until = now() - interval '1 second'
                       FROM (SELECT shard FROM shards WHERE stream_id = $1 AND lease_id IS NULL
                             ORDER BY random() LIMIT 10 FOR UPDATE SKIP LOCKED) r
                       WHERE s.stream_id = $1 AND s.shard = r.shard""",
                    stream.stream_id,
                )
                await emails.expire_leases(conn)

    for _ in range(10):
        verbs = ("pause", "resume", "pause", "resume")
        answers = await asyncio.gather(sweep(), sweep(), *(tenant.post(f"{path}/{verb}") for verb in verbs))
        assert {answer.status for answer in answers if answer is not None} == {200}
