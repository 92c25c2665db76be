"""A desk's statements, as the API's role: what its lease is worth, and outcomes that are written once."""

from collections import Counter
from datetime import timedelta

import pytest

from mailrail.db.pool import Connection, Pool, transaction
from mailrail.emails import desk_store
from mailrail.emails.desk_store import Answered, Placed
from mailrail.emails.mail import Mail, Role
from mailrail.emails.model import LeasedShard, Outcome, Round
from tests.support.streams import make_account

LEASE_S = 60.0
ADDRESS = "user@example.com"


@pytest.fixture
async def shard(api_pool: Pool, worker_pool: Pool) -> LeasedShard:
    """A desk's first of the day."""
    async with worker_pool.acquire() as conn:
        account_id = await make_account(conn)
    async with transaction(api_pool, account_id) as conn:
        stream_id, _ = await desk_store.open_stream(conn, account_id, False, "{}", timedelta(0))
        return (await desk_store.open_shard(conn, account_id, stream_id, LEASE_S))[0]


async def renew(api_pool: Pool, shard: LeasedShard | None, account_id: int) -> LeasedShard | None:
    async with transaction(api_pool, account_id) as conn:
        return (await desk_store.look(conn, account_id, [], [], shard, LEASE_S)).renewed


async def end_lease(conn: Connection, shard: LeasedShard, lease_id: int | None) -> None:
    """The lease ran out; somebody else may have one since."""
    await conn.execute(
        "UPDATE shards SET lease_until = clock_timestamp() - interval '1 s', lease_id = $3 WHERE stream_id = $1 AND shard = $2",
        shard.stream_id,
        shard.shard,
        lease_id,
    )


async def test_a_live_lease_is_prolonged_and_stays_the_same(
    api_pool: Pool, worker_pool: Pool, shard: LeasedShard
) -> None:
    until = "SELECT lease_until FROM shards WHERE stream_id = $1 AND shard = $2"
    before = await worker_pool.fetchval(until, shard.stream_id, shard.shard)
    assert await renew(api_pool, shard, shard.account_id) == shard
    assert await worker_pool.fetchval(until, shard.stream_id, shard.shard) > before


async def test_a_lease_that_ran_out_is_followed_by_another_and_a_fold(
    api_pool: Pool, worker_pool: Pool, shard: LeasedShard
) -> None:
    fold = "SELECT due_at <= now() FROM folds WHERE stream_id = $1 AND shard = $2"
    await worker_pool.execute("UPDATE folds SET due_at = NULL WHERE stream_id = $1", shard.stream_id)
    await end_lease(worker_pool, shard, shard.lease_id)  # type: ignore[arg-type]  # a pool executes like a connection
    renewed = await renew(api_pool, shard, shard.account_id)
    assert renewed is not None
    assert (renewed.shard, renewed.epoch) == (shard.shard, shard.epoch + 1)
    assert renewed.lease_id != shard.lease_id
    assert await worker_pool.fetchval(fold, shard.stream_id, shard.shard)


async def test_a_shard_that_somebody_else_has_is_not_renewed(
    api_pool: Pool, worker_pool: Pool, shard: LeasedShard
) -> None:
    await end_lease(worker_pool, shard, shard.lease_id + 1_000_000)  # type: ignore[arg-type]  # as above
    assert await renew(api_pool, shard, shard.account_id) is None
    assert await renew(api_pool, None, shard.account_id) is None


async def claim(api_pool: Pool, shard: LeasedShard) -> Round:
    """One mail, claimed."""
    mail = Mail("you@acme.com", "Hi", ((Role.TO, ADDRESS), (Role.BCC, "b@example.com")), b"{}", ["https://acme.com/"])
    placed = [Placed(mail, 1, None, frozenset())]
    async with transaction(api_pool, shard.account_id) as conn:
        claimed = await desk_store.write_mails(conn, shard.account_id, shard.stream_id, placed, placed, shard)
    assert claimed is not None
    assert (claimed.first_seq, claimed.last_seq, claimed.attempt) == (1, 2, 1)
    return claimed


async def test_a_mail_without_claim_is_nobodys_yet(api_pool: Pool, worker_pool: Pool, shard: LeasedShard) -> None:
    mail = Mail("you@acme.com", "Hi", ((Role.TO, ADDRESS),), b"{}", [], ["a=b", "c=d"])
    async with transaction(api_pool, shard.account_id) as conn:
        placed = [Placed(mail, 1, None, frozenset())]
        assert await desk_store.write_mails(conn, shard.account_id, shard.stream_id, placed, [], None) is None
    assert await worker_pool.fetchval("SELECT tags FROM mails WHERE stream_id = $1", shard.stream_id) == ["a=b", "c=d"]
    assert await worker_pool.fetchval("SELECT count(*) FROM claims WHERE stream_id = $1", shard.stream_id) == 0


async def test_outcomes_are_written_once_however_often_they_are_told(
    api_pool: Pool, worker_pool: Pool, shard: LeasedShard
) -> None:
    claimed = await claim(api_pool, shard)
    links = "SELECT first_seq, last_seq, urls FROM mail_links WHERE stream_id = $1"
    assert tuple(await worker_pool.fetchrow(links, shard.stream_id) or ()) == (1, 2, ["https://acme.com/"])
    answers = [Answered(1, Outcome.ACCEPTED, "id-1", None), Answered(2, Outcome.FAILED, None, "no")]
    counts = Counter(answer.outcome for answer in answers)
    for is_first in (True, False):
        async with transaction(api_pool, shard.account_id) as conn:
            assert await desk_store.write_answers(conn, shard, claimed, answers, counts, 2.0) is is_first
    shown = "SELECT accepted, failed, skipped, unknown FROM shards WHERE stream_id = $1"
    assert tuple(await worker_pool.fetchrow(shown, shard.stream_id) or ()) == (1, 1, 0, 0)
    told = await worker_pool.fetch(
        "SELECT seq, outcome, ses_message_id, error FROM results WHERE stream_id = $1 ORDER BY seq", shard.stream_id
    )
    assert [tuple(row) for row in told] == [(1, Outcome.ACCEPTED, "id-1", None), (2, Outcome.FAILED, None, "no")]


@pytest.mark.parametrize("is_late", [False, True])
async def test_late_outcomes_are_folded_at_once_others_within_the_interval(
    api_pool: Pool, worker_pool: Pool, shard: LeasedShard, is_late: bool
) -> None:
    claimed = await claim(api_pool, shard)
    await worker_pool.execute(
        "UPDATE folds SET due_at = NULL, folded_at = clock_timestamp() WHERE stream_id = $1", shard.stream_id
    )
    if is_late:
        await end_lease(worker_pool, shard, shard.lease_id + 1_000_000)  # type: ignore[arg-type]  # as above
    async with transaction(api_pool, shard.account_id) as conn:
        answers = [Answered(1, Outcome.ACCEPTED, "id", None)]
        assert await desk_store.write_answers(conn, shard, claimed, answers, {Outcome.ACCEPTED: 1}, 3600.0)
    due = "SELECT due_at <= clock_timestamp() FROM folds WHERE stream_id = $1"
    assert await worker_pool.fetchval(due, shard.stream_id) is is_late
