"""The SQL that folds a shard at once computes what the pure rule says, recipient by recipient."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from mailrail.db.pool import Pool
from mailrail.emails import fold
from mailrail.emails.model import EXPIRY, Claim, EventKind, Outcome, Result, State
from mailrail.emails.model import fold as fold_one
from mailrail.emails.store import WITHDRAWN
from mailrail.wallet import service as wallet
from tests.support.streams import add_claim, add_event, add_permit, add_result, make_account, make_stream

RECIPIENTS = 600
CLAIMED = 550
SHARD_EPOCH = 3


@pytest.mark.parametrize("shard_state", ["sending", "cancelled"])
async def test_every_set_of_facts_folds_as_the_model_says(worker_pool: Pool, shard_state: str) -> None:
    chance = random.Random(20261123)
    now = datetime.now(UTC)
    cancelled = shard_state == "cancelled"
    expected: dict[int, State] = {}
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
        stream = await make_stream(conn, account_id, RECIPIENTS)
        await conn.execute(
            """UPDATE shards SET epoch = $2, lease_id = 1, lease_until = now() + interval '1 minute', state = $3, next_seq = $4
               WHERE stream_id = $1""",
            stream.stream_id,
            SHARD_EPOCH,
            shard_state,
            CLAIMED + 1,
        )
        for seq in range(1, CLAIMED + 1):
            claims, results, events = [], [], []
            for attempt in range(1, chance.randint(1, 3) + 1):
                epoch = chance.choice([SHARD_EPOCH, SHARD_EPOCH - 1])
                claims.append(Claim(attempt, epoch == SHARD_EPOCH))
                await add_claim(conn, stream, 0, attempt, [seq], epoch)
                for outcome in chance.sample(list(Outcome), chance.randint(0, 2)):
                    results.append(Result(attempt, outcome, now))
                    await add_result(conn, stream, seq, attempt, outcome)
            if chance.random() < 0.4:
                for kind in chance.sample(list(EventKind), chance.randint(1, 4)):
                    events.append(kind)
                    await add_event(conn, stream, seq, kind)
            permits = []
            for attempt in chance.sample(range(2, len(claims) + 2), chance.randint(0, 1)):
                withdrawn = chance.random() < 0.3
                await add_permit(conn, stream, seq, attempt, claim_id=WITHDRAWN if withdrawn else None)
                permits += [] if withdrawn else [attempt]
            expected[seq] = fold_one(claims, results, events, now, permits=permits, cancelled=cancelled)
        for seq in range(CLAIMED + 1, RECIPIENTS + 1):
            expected[seq] = fold_one([], [], [], now, cancelled=cancelled)
        await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
        async with conn.transaction():
            folded = await fold.fold_next(conn)
        rows = await conn.fetch("SELECT seq, state FROM recipient_state WHERE stream_id = $1", stream.stream_id)
        assert await wallet.audit(conn) == []
    actual = dict.fromkeys(expected, State.PENDING) | {row["seq"]: State(row["state"]) for row in rows}
    assert actual == expected
    assert set(expected.values()) >= {State.PENDING, State.UNKNOWN, State.CANCELLED} - (
        {State.PENDING} if cancelled else set()
    )
    assert folded is not None
    open_states = (State.PENDING, State.SUBMITTING, State.UNKNOWN, State.ACCEPTED)
    assert folded.open == sum(state in open_states for state in expected.values())


async def test_folding_twice_changes_nothing(worker_pool: Pool) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 10)
        await add_claim(conn, stream, 0, 1, range(1, 11), 1)
        for seq in range(1, 11):
            await add_result(conn, stream, seq, 1, Outcome.ACCEPTED)
            await add_event(conn, stream, seq, EventKind.DELIVERY)
        snapshots = []
        for _ in range(2):
            await conn.execute("UPDATE folds SET due_at = now() WHERE stream_id = $1", stream.stream_id)
            async with conn.transaction():
                await fold.fold_next(conn)
            snapshots.append(
                await conn.fetch("SELECT * FROM recipient_state WHERE stream_id = $1 ORDER BY seq", stream.stream_id)
            )
        captured = await conn.fetchval("SELECT captured_micros FROM holds WHERE id = $1", stream.hold_id)
    assert snapshots[0] == snapshots[1]
    assert captured == 10 * 300


@pytest.mark.parametrize("is_told_unknown", [False, True], ids=["no_answer", "an_unclear_answer"])
async def test_who_is_proven_by_an_event_alone_expires_too(worker_pool: Pool, is_told_unknown: bool) -> None:
    """Our own answer is lost, SES told of the acceptance, and the last word on the mail never came."""
    async with worker_pool.acquire() as conn:
        for ago, state, released in (
            (timedelta(0), State.ACCEPTED, 0),
            # The unclear answer is old enough, the proof is not yet.
            (EXPIRY - timedelta(hours=1), State.ACCEPTED, 0),
            (EXPIRY, State.EXPIRED, 300),
        ):
            stream = await make_stream(conn, await make_account(conn), 1)
            await add_claim(conn, stream, 0, 1, [1], 1)
            if is_told_unknown:
                await add_result(conn, stream, 1, 1, Outcome.UNKNOWN, ago + timedelta(hours=2))
            await add_event(conn, stream, 1, EventKind.SEND, ago=ago)
            await conn.execute("UPDATE folds SET due_at = '-infinity' WHERE stream_id = $1", stream.stream_id)
            async with conn.transaction():
                assert await fold.fold_next(conn) is not None
            row = await conn.fetchrow(
                """SELECT r.state, h.released_micros, f.due_at - now() AS due_in
                   FROM recipient_state r JOIN folds f USING (stream_id) JOIN holds h USING (stream_id)
                   WHERE r.stream_id = $1""",
                stream.stream_id,
            )
            assert row is not None
            assert (State(row["state"]), row["released_micros"]) == (state, released)
            if state is State.ACCEPTED:
                assert row["due_in"] is not None, "it would never be looked at again"
                assert timedelta(0) <= EXPIRY - ago - row["due_in"] < timedelta(minutes=1)
            else:
                assert row["due_in"] is None


async def test_a_bounce_of_somebody_never_claimed_does_not_keep_the_folder_busy(worker_pool: Pool) -> None:
    """As in a database restored from a backup: events come for mail that it does not know yet."""
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 1)
        await add_event(conn, stream, 1, EventKind.BOUNCE_PERMANENT, ago=timedelta(hours=2))
        await conn.execute("UPDATE folds SET due_at = '-infinity' WHERE stream_id = $1", stream.stream_id)
        async with conn.transaction():
            assert await fold.fold_next(conn) is not None
        due_in = await conn.fetchval("SELECT due_at - now() FROM folds WHERE stream_id = $1", stream.stream_id)
        assert due_in is None or due_in > timedelta(seconds=1)
