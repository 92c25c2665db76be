"""Retry: who may get the mail once more, under a hold of its own, exactly once however often it is asked for."""

import asyncio

import pytest

from mailrail.db.pool import Connection, Pool
from mailrail.emails import store as emails
from mailrail.emails.model import EventKind, Outcome
from mailrail.events import handlers
from mailrail.ids import Kind
from mailrail.wallet import service as wallet
from tests.support.api import Api, Tenant
from tests.support.campaigns import hold_sending, row_of
from tests.support.streams import TestStream, add_claim, add_event, add_result, make_stream

LEASE_S = 30.0
# What became of the first attempt of each recipient: 1 and 2 failed, 3 is unresolved, 4 rejected, 5 expired, 6 delivered.
RECIPIENTS = 6


async def fold_all(conn: Connection) -> None:
    await conn.execute("UPDATE folds SET due_at = now() WHERE due_at IS NOT NULL")
    while await handlers.fold_once(conn):
        pass


@pytest.fixture
async def path(tenant: Tenant, worker_pool: Pool) -> str:
    """A completed campaign, half of whose mail did not arrive."""
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, tenant.account_id, RECIPIENTS, shard_size=4)
        await conn.execute(
            "UPDATE shards SET next_seq = last_seq + 1, wake_at = NULL, submitted_at = now(), epoch = 1 WHERE stream_id = $1",
            stream.stream_id,
        )
        for shard, seqs in enumerate(([1, 2, 3, 4], [5, 6])):
            await add_claim(conn, stream, shard, 1, seqs, 1)
        for seq, outcome in enumerate((Outcome.FAILED, Outcome.FAILED, Outcome.UNRESOLVED), 1):
            await add_result(conn, stream, seq, 1, outcome)
        for seq in (4, 6):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
        await conn.execute(
            """INSERT INTO results (stream_id, seq, attempt, outcome, account_id, at)
               VALUES ($1, 5, 1, $2, $3, now() - interval '73 hours')""",
            stream.stream_id,
            int(Outcome.ACCEPTED),
            stream.account_id,
        )
        await add_event(conn, stream, 4, EventKind.REJECT)
        await add_event(conn, stream, 6, EventKind.DELIVERY)
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
        await fold_all(conn)
        campaign_id = await conn.fetchval("SELECT id FROM campaigns WHERE stream_id = $1", stream.stream_id)
        assert await conn.fetchval("SELECT status FROM campaigns WHERE id = $1", campaign_id) == "completed"
    return f"/api/v1/campaigns/{tenant.api.ids.encode(Kind.CAMPAIGN, campaign_id)}"


async def stream_of(tenant: Tenant, path: str) -> TestStream:
    async with tenant.api.operator.acquire() as conn:
        row = await conn.fetchrow("SELECT stream_id, hold_id FROM campaigns WHERE id = $1", row_of(tenant, path))
    assert row is not None
    return TestStream(row["stream_id"], tenant.account_id, row["hold_id"], RECIPIENTS, 4)


async def permitted(conn: Connection, stream: TestStream) -> list[tuple[int, int]]:
    """(seq, attempt) of all unclaimed permits."""
    rows = await conn.fetch(
        "SELECT seq, attempt FROM permits WHERE stream_id = $1 AND claim_id IS NULL ORDER BY seq", stream.stream_id
    )
    return [(row["seq"], row["attempt"]) for row in rows]


@pytest.mark.parametrize(
    ("body", "retried", "left_out"),
    [
        (None, [1, 2, 3], {"rejected": 1, "expired": 1}),
        ({"states": ["failed"]}, [1, 2], {"rejected": 1, "expired": 1, "unresolved": 1}),
        ({"states": ["unresolved"]}, [3], {"rejected": 1, "expired": 1, "failed": 2}),
    ],
)
async def test_only_those_asked_for_get_one_more_attempt(
    tenant: Tenant, worker_pool: Pool, path: str, body: dict[str, object] | None, retried: list[int], left_out: object
) -> None:
    stream = await stream_of(tenant, path)
    async with worker_pool.acquire() as conn:
        before = await wallet.balance(conn, tenant.account_id)
        answer = await tenant.post(f"{path}/retry", body)
        assert (answer.status, answer.body["status"], answer.body["retried"]) == (200, "sending", len(retried))
        assert answer.body["cost"]["estimatedMicros"] == 300 * len(retried)
        assert {item["state"]: item["recipients"] for item in answer.body["leftOut"]} == left_out
        assert all(item["why"] for item in answer.body["leftOut"])
        assert await permitted(conn, stream) == [(seq, 2) for seq in retried]
        after = await wallet.balance(conn, tenant.account_id)
        assert after.available_micros == before.available_micros - 300 * len(retried)
        shown = (await tenant.get(path)).body
        assert (shown["status"], shown["completedAt"], shown["submittedAt"]) == ("sending", None, None)
        assert await conn.fetchval("SELECT closed_at FROM streams WHERE stream_id = $1", stream.stream_id) is None
        await fold_all(conn)
        await handlers.complete_finished(conn)
        assert (await tenant.get(path)).body["progress"]["open"] == len(retried)
        assert (await tenant.get(path)).body["status"] == "sending"


async def test_a_retry_ends_with_every_recipient_settled_once_per_hold(
    tenant: Tenant, worker_pool: Pool, path: str
) -> None:
    stream = await stream_of(tenant, path)
    answer = await tenant.post(f"{path}/retry")
    hold_id = tenant.api.ids.find(Kind.HOLD, answer.body["cost"]["holdId"])
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE shards SET wake_at = NULL WHERE stream_id <> $1", stream.stream_id)
        shard = await emails.take_shard(conn, LEASE_S)
        assert shard is not None
        claimed = await emails.claim_round(conn, shard, 10, LEASE_S)
        assert claimed is not None
        assert (claimed.attempt, claimed.seqs) == (2, [1, 2, 3])
        assert await wallet.audit(conn) == []
        for seq in (1, 2, 3):
            await add_result(conn, stream, seq, 2, Outcome.FAILED if seq == 1 else Outcome.ACCEPTED)
        await add_event(conn, stream, 2, EventKind.DELIVERY)
        await add_event(conn, stream, 3, EventKind.BOUNCE_PERMANENT)
        await emails.release_shard(conn, shard)
        await fold_all(conn)
        assert await wallet.audit(conn) == []
        old = await wallet.get_hold(conn, tenant.account_id, stream.hold_id)
        new = await wallet.get_hold(conn, tenant.account_id, hold_id)
        balance = await wallet.balance(conn, tenant.account_id)
    assert (old.captured_micros, old.released_micros, old.closed_at is not None) == (300, 1500, True)
    assert (new.captured_micros, new.released_micros, new.closed_at is not None) == (300, 600, True)
    assert balance.held_micros == 0
    shown = (await tenant.get(path)).body
    assert (shown["status"], shown["progress"]["delivered"], shown["progress"]["failed"]) == ("completed", 2, 3)
    once_more = await tenant.post(f"{path}/retry")
    assert (once_more.status, once_more.body["retried"]) == (200, 1)


async def test_many_at_once_write_one_permit_and_one_hold(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    answers = await asyncio.gather(*(tenant.post(f"{path}/retry") for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert refused.code == "nothing_to_retry"
    assert "1 expired, 1 rejected" in refused.body["error"]["message"]
    async with worker_pool.acquire() as conn:
        assert await permitted(conn, await stream_of(tenant, path)) == [(1, 2), (2, 2), (3, 2)]
        assert await conn.fetchval("SELECT count(*) FROM holds WHERE account_id = $1", tenant.account_id) == 2
        assert await wallet.audit(conn) == []


async def test_a_fold_between_permit_and_claim_settles_nothing(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    answer = await tenant.post(f"{path}/retry")
    async with worker_pool.acquire() as conn:
        await fold_all(conn)
        hold = await wallet.get_hold(
            conn, tenant.account_id, tenant.api.ids.find(Kind.HOLD, answer.body["cost"]["holdId"])
        )
    assert (hold.captured_micros, hold.released_micros) == (0, 0)


async def test_folds_and_retries_at_the_same_time_never_release_what_is_still_to_be_sent(
    tenant: Tenant, worker_pool: Pool, path: str
) -> None:
    stream = await stream_of(tenant, path)

    async def keep_folding() -> None:
        async with worker_pool.acquire() as conn:
            for _ in range(40):
                await conn.execute(
                    "UPDATE folds SET due_at = now() WHERE stream_id = $1 AND shard = 0", stream.stream_id
                )
                await handlers.fold_once(conn)

    answer, *_ = await asyncio.gather(tenant.post(f"{path}/retry"), keep_folding(), keep_folding())
    assert answer.status == 200
    async with worker_pool.acquire() as conn:
        released = await conn.fetchval(
            "SELECT count(*) FROM settlements WHERE stream_id = $1 AND hold_id <> $2", stream.stream_id, stream.hold_id
        )
    assert released == 0


async def test_without_money_nothing_happened(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE accounts SET price_micros = 900000000 WHERE id = $1", tenant.account_id)
        answer = await tenant.post(f"{path}/retry")
        assert (answer.status, answer.code) == (402, "insufficient_funds")
        assert await permitted(conn, await stream_of(tenant, path)) == []
        assert await conn.fetchval("SELECT count(*) FROM holds WHERE account_id = $1", tenant.account_id) == 1
        closed = await conn.fetchval(
            "SELECT bool_and(closed_at IS NOT NULL) FROM folds WHERE account_id = $1", tenant.account_id
        )
        assert closed
    assert (await tenant.get(path)).body["status"] == "completed"


async def test_a_new_price_is_that_of_the_retry(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute("UPDATE accounts SET price_micros = 700 WHERE id = $1", tenant.account_id)
    answer = await tenant.post(f"{path}/retry")
    assert answer.body["cost"]["estimatedMicros"] == 2100


async def test_who_turned_out_to_be_accepted_is_not_retried(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    stream = await stream_of(tenant, path)
    async with worker_pool.acquire() as conn:
        # The event came a moment ago: no fold has seen it.
        await add_event(conn, stream, 3, EventKind.SEND)
        answer = await tenant.post(f"{path}/retry", {"states": ["unresolved"]})
        assert (answer.status, answer.code) == (409, "nothing_to_retry")
        await tenant.post(f"{path}/retry")
        assert await permitted(conn, stream) == [(1, 2), (2, 2)]


async def test_cancel_after_a_retry_gives_the_money_back(tenant: Tenant, worker_pool: Pool, path: str) -> None:
    await tenant.post(f"{path}/retry")
    answer = await tenant.post(f"{path}/cancel")
    assert (answer.status, answer.body["status"]) == (200, "cancelled")
    async with worker_pool.acquire() as conn:
        await fold_all(conn)
        assert await wallet.audit(conn) == []
        assert (await wallet.balance(conn, tenant.account_id)).held_micros == 0
    assert (await tenant.post(f"{path}/retry")).status == 409


@pytest.mark.parametrize("states", [[], ["rejected"], ["failed", "skipped"], "failed", [1]])
async def test_states_that_cannot_be_retried_are_refused(tenant: Tenant, path: str, states: object) -> None:
    answer = await tenant.post(f"{path}/retry", {"states": states})
    assert answer.status == 422
    assert all(param.startswith("states") for param in answer.params)


async def test_nothing_is_retried_while_sending_is_held(tenant: Tenant, path: str) -> None:
    await hold_sending(tenant, "mail accepted by SES is missing from this database")
    try:
        answer = await tenant.post(f"{path}/retry")
        assert (answer.status, answer.code) == (503, "sending_held")
    finally:
        await hold_sending(tenant, None)


async def test_a_stranger_finds_nothing_to_retry(stranger: Tenant, api: Api, path: str) -> None:
    for dialect in ("/api/v1", "/v1/mail"):
        assert (await stranger.post(f"{dialect}{path.removeprefix('/api/v1')}/retry")).status == 404
