"""Sends without an answer: who waits, who is sent again, who is given up, and what a late truth does."""

from datetime import timedelta

import pytest

from mailrail.db.pool import Connection, Pool
from mailrail.emails import fold, reconcile, store
from mailrail.emails.model import EventKind, Outcome, Patience, Reconciled, State
from mailrail.wallet import service as wallet
from tests.support.streams import (
    TestStream,
    add_claim,
    add_event,
    add_permit,
    add_result,
    make_account,
    make_stream,
)

HOUR = timedelta(hours=1)
PATIENCE = Patience(fence=HOUR, unknown_max_age=24 * HOUR, event_lag_max=timedelta(minutes=1))
RIPE = HOUR + timedelta(minutes=1)
RECIPIENTS = 40


@pytest.fixture
async def stream(worker_pool: Pool) -> TestStream:
    """Recipients 1..30 were accepted and heard of more than an hour ago, 31..34 have no answer, the others nobody has claimed."""
    async with worker_pool.acquire() as conn:
        for table in ("canaries", "notification_queue", "parked_notifications"):
            await conn.execute(f"DELETE FROM {table}")
        await conn.execute("UPDATE folds SET unknown_since = NULL, due_at = NULL")
        await conn.execute("UPDATE claims SET claimed_at = claimed_at - interval '1 day'")
        await conn.execute("UPDATE shards SET wake_at = NULL, lease_id = NULL, lease_until = NULL")
        stream = await make_stream(conn, await make_account(conn), RECIPIENTS)
        await add_claim(conn, stream, 0, 1, range(1, 31), 1, lease_over=RIPE)
        for seq in range(1, 31):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED, ago=RIPE)
            await add_event(conn, stream, seq, EventKind.DELIVERY, ago=RIPE)
        await add_claim(conn, stream, 0, 1, [31, 32, 33, 34], 1, lease_over=RIPE)
        await conn.execute("UPDATE shards SET next_seq = 35, epoch = 2 WHERE stream_id = $1", stream.stream_id)
        await fold_all(conn, stream)
    return stream


async def fold_all(conn: Connection, stream: TestStream) -> None:
    await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
    while True:
        async with conn.transaction():
            if await fold.fold_next(conn) is None:
                return


async def states(conn: Connection, stream: TestStream) -> dict[int, State]:
    rows = await conn.fetch("SELECT seq, state FROM recipient_state WHERE stream_id = $1", stream.stream_id)
    return {row["seq"]: State(row["state"]) for row in rows}


async def canary_returns(conn: Connection) -> None:
    await conn.execute("INSERT INTO canaries (configuration_set, seen_at) VALUES ('', now())")


async def reconcile_once(conn: Connection, patience: Patience = PATIENCE) -> Reconciled | None:
    await conn.execute("UPDATE folds SET reconcile_at = NULL")
    async with conn.transaction():
        return await reconcile.reconcile_next(conn, patience)


async def test_before_the_fence_nothing_follows_from_silence(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        longer = Patience(2 * HOUR, 24 * HOUR, PATIENCE.event_lag_max)
        assert await reconcile_once(conn, longer) is None
        assert (await states(conn, stream))[31] is State.UNKNOWN


async def test_silence_without_a_canary_asks_for_one(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        first = await reconcile_once(conn)
        assert first is not None
        assert (first.permitted, first.canary_for) == (0, stream.stream_id)
        assert await reconcile.insert_canary(conn, None) > 0
        second = await reconcile_once(conn)
        assert second is not None
        assert second.canary_for is None, "one on its way is enough"
        assert (
            await conn.fetchval("SELECT waiting_for FROM folds WHERE stream_id = $1", stream.stream_id)
            == "no canary has come back yet"
        )


@pytest.mark.parametrize(
    ("sent_after_lease", "permitted"), [(-timedelta(seconds=1), 0), (HOUR * 0.6, 0), (HOUR * 0.7, 4)]
)
async def test_a_canary_proves_nothing_while_ses_might_still_have_accepted(
    worker_pool: Pool, stream: TestStream, sent_after_lease: timedelta, permitted: int
) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute(
            "INSERT INTO canaries (configuration_set, sent_at, seen_at) VALUES ('', now() - $1::interval, now())",
            RIPE - sent_after_lease,
        )
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == permitted


async def test_silence_while_everybody_else_speaks_permits_another_attempt(
    worker_pool: Pool, stream: TestStream
) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == 4
        await fold_all(conn, stream)
        found = await states(conn, stream)
        assert [found[seq] for seq in range(31, 35)] == [State.PENDING] * 4
        assert await reconcile_once(conn) is None
        shard = await store.take_shard(conn, 30)
        assert shard is not None
        await store.claim_round(conn, shard, 100, 30)  # those whom nobody had claimed
        again = await store.claim_round(conn, shard, 100, 30)
        assert again is not None
        assert (again.attempt, again.seqs) == (2, [31, 32, 33, 34])


async def test_a_truth_between_permit_and_claim_withdraws_the_permit(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        await reconcile_once(conn)
        await add_event(conn, stream, 31, EventKind.DELIVERY)
        await add_result(conn, stream, 32, 1, Outcome.ACCEPTED)
        shard = await store.take_shard(conn, 30)
        assert shard is not None
        await store.claim_round(conn, shard, 100, 30)
        again = await store.claim_round(conn, shard, 100, 30)
        assert again is not None
        assert again.seqs == [33, 34]
        withdrawn = await conn.fetch(
            "SELECT seq FROM permits WHERE claim_id = $1 AND stream_id = $2 ORDER BY seq",
            store.WITHDRAWN,
            stream.stream_id,
        )
        assert [row["seq"] for row in withdrawn] == [31, 32]
        await fold_all(conn, stream)
        assert (await states(conn, stream))[31] is State.DELIVERED


async def test_when_all_permits_are_withdrawn_the_shard_goes_back_to_sleep(
    worker_pool: Pool, stream: TestStream
) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        await reconcile_once(conn)
        for seq in range(31, 35):
            await add_event(conn, stream, seq, EventKind.BOUNCE_PERMANENT)
        shard = await store.take_shard(conn, 30)
        assert shard is not None
        await store.claim_round(conn, shard, 100, 30)
        assert await store.claim_round(conn, shard, 100, 30) is None
        assert await store.release_shard(conn, shard)
        assert await store.take_shard(conn, 30) is None


async def test_unheard_neighbours_keep_everybody_waiting(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await conn.execute("DELETE FROM canaries")
        await canary_returns(conn)
        lost = await make_stream(conn, stream.account_id, 10)
        await add_claim(conn, lost, 0, 1, range(1, 11), 1, lease_over=RIPE)
        for seq in range(1, 11):
            await add_result(conn, lost, seq, 1, Outcome.ACCEPTED, ago=RIPE)
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == 0
        assert done.waiting_for == "only 30 of the 40 sends nearest in time had an event within 3600 s"


@pytest.mark.parametrize(("heard_ago_min", "permitted"), [(1, 0), (2, 4)])
async def test_silence_must_last_longer_than_the_events_of_neighbours_took(
    worker_pool: Pool, stream: TestStream, heard_ago_min: int, permitted: int
) -> None:
    """Where events take an hour, an hour of silence proves nothing."""
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        slow = await make_stream(conn, stream.account_id, 10)
        await add_claim(conn, slow, 0, 1, range(1, 11), 1, lease_over=RIPE)
        for seq in range(1, 11):
            await add_result(conn, slow, seq, 1, Outcome.ACCEPTED, ago=RIPE)
            await add_event(conn, slow, seq, EventKind.SEND, ago=timedelta(minutes=heard_ago_min))
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == permitted
        if not permitted:
            assert done.waiting_for == "only 30 of the 40 sends nearest in time had an event within 3600 s"


async def test_neighbours_too_young_to_be_heard_of_do_not_count(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        young = await make_stream(conn, stream.account_id, 10)
        await add_claim(conn, young, 0, 1, range(1, 11), 1, lease_over=RIPE)
        for seq in range(1, 11):
            await add_result(conn, young, seq, 1, Outcome.ACCEPTED)
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == 4


async def test_a_backlog_or_parked_events_keep_everybody_waiting(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        await conn.execute(
            "INSERT INTO notification_queue (day, message_id, queued_at) VALUES (current_date, 'x', now() - interval '2 minutes')"
        )
        done = await reconcile_once(conn)
        assert done is not None
        assert done.waiting_for == "events wait 120 s to be applied"
        await conn.execute("DELETE FROM notification_queue")
        await conn.execute(
            "INSERT INTO parked_notifications (notification_id, day, message_id, reason) VALUES (1, current_date, 'x', 'why')"
        )
        done = await reconcile_once(conn)
        assert done is not None
        assert done.waiting_for == "1 notifications are parked unread"


async def test_what_came_while_the_fence_lasted_is_applied_first(worker_pool: Pool, stream: TestStream) -> None:
    """However little the applier is behind: the event may be among what it has not read."""
    insert = (
        "INSERT INTO notification_queue (day, message_id, queued_at) VALUES (current_date, 'x', now() - $1::interval)"
    )
    patient = Patience(HOUR, 24 * HOUR, timedelta(minutes=10))
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        await conn.execute(insert, timedelta(seconds=61))
        done = await reconcile_once(conn, patient)
        assert done is not None
        assert done.waiting_for == "1 notifications that came before the fence was over are not applied yet"
        await conn.execute("DELETE FROM notification_queue")
        await conn.execute(insert, timedelta(seconds=50))
        done = await reconcile_once(conn, patient)
        assert done is not None
        assert done.permitted == 4


async def test_after_a_day_without_proof_they_are_given_up(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        done = await reconcile_once(conn, Patience(HOUR, HOUR, PATIENCE.event_lag_max))
        assert done is not None
        assert done.given_up == 4
        await fold_all(conn, stream)
        found = await states(conn, stream)
        assert [found[seq] for seq in range(31, 35)] == [State.UNRESOLVED] * 4


@pytest.mark.parametrize("because", ["policy", "cancelled"])
async def test_who_never_resends_gives_up_at_the_fence_and_is_not_charged(
    worker_pool: Pool, stream: TestStream, because: str
) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        if because == "policy":
            await conn.execute("UPDATE accounts SET unknown_policy = 'never_resend' WHERE id = $1", stream.account_id)
        else:
            await conn.execute("UPDATE shards SET state = 'cancelled' WHERE stream_id = $1", stream.stream_id)
        done = await reconcile_once(conn)
        assert done is not None
        assert (done.given_up, done.permitted) == (4, 0)
        await fold_all(conn, stream)
        found = await states(conn, stream)
        assert [found[seq] for seq in range(31, 35)] == [State.UNRESOLVED] * 4
        hold = await wallet.get_hold(conn, stream.account_id, stream.hold_id)
        released = 4 if because == "policy" else 10
        assert (hold.captured_micros, hold.released_micros) == (30 * 300, released * 300)
        reasons = await conn.fetch(
            "SELECT reason FROM recipient_state WHERE stream_id = $1 AND seq = 31", stream.stream_id
        )
        assert "did not say" in reasons[0]["reason"]
        await add_event(conn, stream, 31, EventKind.DELIVERY)
        await fold_all(conn, stream)
        assert (await states(conn, stream))[31] is State.DELIVERED
        assert await wallet.audit(conn) == []


async def test_two_accepted_attempts_are_counted_as_a_duplicate(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await add_permit(conn, stream, 31, 2, claim_id=7)
        await add_claim(conn, stream, 0, 2, [31], 1)
        await add_result(conn, stream, 31, 2, Outcome.ACCEPTED)
        await fold_all(conn, stream)
        assert await conn.fetchval("SELECT duplicates FROM folds WHERE stream_id = $1", stream.stream_id) == 0
        await add_result(conn, stream, 31, 1, Outcome.ACCEPTED)
        await fold_all(conn, stream)
        assert await conn.fetchval("SELECT duplicates FROM folds WHERE stream_id = $1", stream.stream_id) == 1


async def test_a_shard_that_somebody_works_on_is_passed_over(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as busy, worker_pool.acquire() as conn, busy.transaction():
        await canary_returns(conn)
        await busy.execute("SELECT FROM shards WHERE stream_id = $1 FOR UPDATE", stream.stream_id)
        assert await reconcile_once(conn) is None


async def test_a_held_installation_draws_no_conclusions(worker_pool: Pool, stream: TestStream) -> None:
    async with worker_pool.acquire() as conn:
        await canary_returns(conn)
        await conn.execute("UPDATE installation SET held_at = now(), held_reason = 'a test'")
        try:
            assert await reconcile_once(conn) is None
        finally:
            await conn.execute("UPDATE installation SET held_at = NULL, held_reason = NULL")
        done = await reconcile_once(conn)
        assert done is not None
        assert done.permitted == 4
