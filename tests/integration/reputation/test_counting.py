"""What counts for a tenant's reputation, over which time, and how a verdict comes and goes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Connection, Pool
from mailrail.emails.model import EventKind
from mailrail.events import store as events
from mailrail.reputation import service, store
from mailrail.reputation.model import REPRESENTATIVE_MAILS, Figures, Level, Tally
from tests.support.streams import TestStream, make_account, make_stream

SETTINGS = Settings()


@pytest.fixture
async def conn(worker_pool: Pool) -> AsyncIterator[Connection]:
    async with worker_pool.acquire() as acquired:
        yield acquired


async def tell(
    conn: Connection, stream: TestStream, seq: int, kind: EventKind, detail: str | None = None, dedupe: int = 0
) -> list[Tally]:
    """An event, as the applier takes it."""
    async with conn.transaction():
        await events.prepare_staging(conn)
        await conn.execute(
            "INSERT INTO incoming (stream_id, seq, attempt, kind, dedupe, detail) VALUES ($1, $2, 1, $3, $4, $5)",
            stream.stream_id,
            seq,
            int(kind),
            dedupe,
            detail,
        )
        return await events.insert_events(conn)


@pytest.mark.parametrize(
    ("kind", "detail", "counts"),
    [
        (EventKind.DELIVERY, None, (1, 0, 0, 0)),
        (EventKind.BOUNCE_PERMANENT, "Permanent/General: 550 5.1.1", (0, 1, 0, 0)),
        (EventKind.BOUNCE_PERMANENT, None, (0, 1, 0, 0)),
        # Amazon's own list of addresses that bounced with anybody counts, says AWS; ours and the tenant's do not.
        (EventKind.BOUNCE_PERMANENT, "Permanent/Suppressed", (0, 1, 0, 0)),
        (EventKind.BOUNCE_PERMANENT, "Permanent/OnAccountSuppressionList", (0, 0, 0, 0)),
        (EventKind.BOUNCE_PERMANENT, "Permanent/OnTenantSuppressionList: x", (0, 0, 0, 0)),
        (EventKind.BOUNCE_TRANSIENT, "Transient/MailboxFull", (0, 0, 1, 0)),
        (EventKind.COMPLAINT, "abuse", (0, 0, 0, 1)),
        (EventKind.COMPLAINT, "not-spam", (0, 0, 0, 0)),
    ],
)
async def test_what_an_event_counts_for(
    conn: Connection, kind: EventKind, detail: str | None, counts: tuple[int, int, int, int]
) -> None:
    stream = await make_stream(conn, await make_account(conn), 1)
    assert await tell(conn, stream, 1, kind, detail) == [Tally(stream.account_id, *counts)]
    assert await tell(conn, stream, 1, kind, detail) == [], "a repeat counts nothing"


async def test_other_events_count_for_nothing(conn: Connection) -> None:
    stream = await make_stream(conn, await make_account(conn), 1)
    for kind in (EventKind.SEND, EventKind.DELIVERY_DELAY, EventKind.REJECT):
        assert await tell(conn, stream, 1, kind) == []


async def add_hour(conn: Connection, account_id: int, ago: timedelta, delivered: int, bounced: int = 0) -> None:
    await conn.execute(
        """INSERT INTO reputation_hours (account_id, hour, delivered, bounced)
           VALUES ($1, date_trunc('hour', now() - $2::interval), $3, $4)""",
        account_id,
        ago,
        delivered,
        bounced,
    )


async def figures_of(conn: Connection, account_id: int) -> Figures:
    return (await store.read_figures(conn, [account_id])).get(account_id, Figures())


async def test_a_busy_day_is_judged_alone(conn: Connection) -> None:
    account_id = await make_account(conn)
    await add_hour(conn, account_id, timedelta(hours=20), REPRESENTATIVE_MAILS)
    await add_hour(conn, account_id, timedelta(hours=2), 10, 5)
    await add_hour(conn, account_id, timedelta(days=2), 10, 1000)
    found = await figures_of(conn, account_id)
    assert (found.mails, found.bounced) == (REPRESENTATIVE_MAILS + 15, 5)


async def test_few_mails_reach_back_until_they_are_enough_and_no_further_than_a_month(conn: Connection) -> None:
    account_id = await make_account(conn)
    await add_hour(conn, account_id, timedelta(hours=1), 100)
    await add_hour(conn, account_id, timedelta(days=3), REPRESENTATIVE_MAILS, 7)
    await add_hour(conn, account_id, timedelta(days=4), 50, 1000)
    assert (await figures_of(conn, account_id)).bounced == 7
    lonely = await make_account(conn)
    await add_hour(conn, lonely, timedelta(days=29), 600, 100)
    await add_hour(conn, lonely, timedelta(days=31), 600, 600)
    found = await figures_of(conn, lonely)
    assert (found.mails, found.bounced) == (700, 100)


async def test_a_verdict_comes_and_goes_with_the_figures(conn: Connection) -> None:
    account_id, other = await make_account(conn), await make_account(conn)
    await service.count(conn, [Tally(account_id, 960, 40, 0, 0), Tally(other, 1000, 0, 0, 0)])
    verdicts = await service.judge_accounts(conn, [account_id, other], SETTINGS)
    assert {key: one.level for key, one in verdicts.items()} == {
        account_id: Level.CAMPAIGNS_STOPPED,
        other: Level.GOOD,
    }
    assert account_id in await service.doubtful_accounts(conn)
    assert other not in await service.doubtful_accounts(conn)
    await service.count(conn, [Tally(account_id, 5000, 0, 0, 0)])
    assert (await service.judge_accounts(conn, [account_id], SETTINGS))[account_id].level is Level.GOOD
    assert (await service.get(conn, account_id)).verdict.level is Level.GOOD


async def test_old_hours_are_dropped(conn: Connection) -> None:
    account_id = await make_account(conn)
    await add_hour(conn, account_id, timedelta(days=33), 1)
    await add_hour(conn, account_id, timedelta(days=29), 1)
    await service.forget_old(conn)
    hours = await conn.fetchval("SELECT count(*) FROM reputation_hours WHERE account_id = $1", account_id)
    assert hours == 1
