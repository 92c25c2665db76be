"""The shared limiter on the real database: never more than the rate and its burst, whoever asks, and debt for mail that
may not wait.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool, open_pool
from mailrail.ses import control, limiter, store
from mailrail.ses.control import SesAccount
from mailrail.ses.limiter import Limiter, NoTokens, name_of
from mailrail.ses.model import BURST_S, DEBT_MAX_S, SLICE_S
from tests.support.postgres import Database
from tests.support.simulator import simulating

RATE = 200.0
SLICE = int(RATE * SLICE_S)
BURST = int(RATE * BURST_S)


@pytest.fixture
async def settings(database: Database, superuser_pool: Pool) -> Settings:
    async with superuser_pool.acquire() as conn:
        await conn.execute("DELETE FROM mailrail.send_limits")
    return database.settings()


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    opened = await open_pool(database.worker_url, application_name="tests limiter", hot=True)
    yield opened
    await opened.close()


def granted_by_ses(
    rate: float = RATE, day_quota: float = -1.0, sent: float = 0.0, sending_enabled: bool = True
) -> SesAccount:
    return SesAccount(rate, day_quota, sent, sending_enabled, production_access=True)


async def polled(pool: Pool, settings: Settings, account: SesAccount | None = None, tokens: float = 0.0) -> Limiter:
    """A limiter whose figures are there, with so many tokens."""
    name = name_of(settings)
    async with pool.acquire() as conn:
        await store.add(conn, name)
        granted = await conn.fetchval("SELECT granted FROM send_limits WHERE name = $1", name)
        await store.end_poll(conn, name, account or granted_by_ses(), granted, interval_s=0.0)
        await conn.execute("UPDATE send_limits SET tokens = $1, refilled_at = clock_timestamp()", tokens)
    return Limiter(pool, settings)


async def row(pool: Pool) -> dict[str, Any]:
    async with pool.acquire() as conn:
        found = await conn.fetchrow("SELECT * FROM send_limits")
    assert found is not None
    return dict(found)


async def test_nothing_is_granted_before_ses_told_its_figures(pool: Pool, settings: Settings) -> None:
    limiter = Limiter(pool, settings)
    assert await limiter.grant(10) == 0
    with pytest.raises(NoTokens):
        await limiter.take(1)
    async with pool.acquire() as conn:
        await store.add(conn, name_of(settings))
    assert await limiter.grant(10) == 0
    with pytest.raises(NoTokens):
        await limiter.take(1)


async def test_a_grant_is_a_slice_or_what_was_asked_for(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, tokens=BURST)
    assert await limiter.grant(7) == 7
    assert await limiter.grant(1000) == SLICE


async def test_a_low_rate_is_granted_one_at_a_time(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, granted_by_ses(rate=2.0), tokens=5.0)
    assert await limiter.grant(1000) == 1
    assert await limiter.grant(1000) == 0, "the burst is never above one either"
    asked_at = time.monotonic()
    assert await limiter.grant(1000, patience_s=3) == 1
    assert 0.3 < time.monotonic() - asked_at < 2


async def test_the_setting_overrides_the_rate(database: Database, pool: Pool, settings: Settings) -> None:
    await polled(pool, settings, tokens=BURST)
    assert await Limiter(pool, database.settings(max_send_rate=40.0)).grant(1000) == 10


async def test_all_processes_together_get_the_rate_and_no_window_more_than_its_burst(
    pool: Pool, settings: Settings
) -> None:
    await polled(pool, settings)
    grants: list[tuple[float, int]] = []
    ends_at = time.monotonic() + 3

    async def send() -> None:
        limiter = Limiter(pool, settings)  # as another process has it
        while time.monotonic() < ends_at:
            tokens = await limiter.grant(1000, patience_s=0.5)
            grants.append((time.monotonic(), tokens))
            if tokens > 10:
                await limiter.give_back(10)
                grants.append((time.monotonic(), -10))

    begun = time.monotonic()
    async with asyncio.TaskGroup() as processes:
        for _ in range(8):
            processes.create_task(send())
    took = time.monotonic() - begun
    total = sum(tokens for _, tokens in grants)
    assert total <= RATE * took + 1
    assert total >= 0.9 * RATE * took
    assert total == (await row(pool))["granted"]
    for start, _ in grants:
        for window_s in (0.0, 0.25, 1.0):
            # A statement may answer a little after it took its tokens.
            sent = sum(tokens for at, tokens in grants if start <= at <= start + window_s and tokens > 0)
            returned = 10 * sum(start - 0.3 <= at <= start + window_s for at, tokens in grants if tokens < 0)
            assert sent <= RATE * (window_s + 0.1) + BURST + returned, (sent, returned, window_s)


async def test_a_slot_waits_without_a_connection_and_no_longer_than_its_patience(
    pool: Pool, settings: Settings
) -> None:
    limiter = await polled(pool, settings, tokens=-RATE)
    asked = asyncio.create_task(limiter.grant(10, patience_s=0.3))
    await asyncio.sleep(0.1)
    assert pool.get_idle_size() == pool.get_size()
    begun = time.monotonic()
    assert await asked == 0
    assert time.monotonic() - begun < 0.5


async def test_slots_of_a_process_are_served_in_turn(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings)
    served: list[int] = []

    async def slot(number: int) -> None:
        for _ in range(3):
            assert await limiter.grant(20, patience_s=5)
            served.append(number)

    await asyncio.gather(*(slot(number) for number in range(3)))
    assert served == [0, 1, 2] * 3


async def test_stopping_ends_the_wait(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, granted_by_ses(rate=0.1))
    asked = [asyncio.create_task(limiter.grant(1, patience_s=60)) for _ in range(3)]
    await asyncio.sleep(0.1)
    limiter.stop()
    async with asyncio.timeout(1):
        assert await asyncio.gather(*asked) == [0, 0, 0]


async def test_tokens_given_back_can_be_taken_again_and_count_for_no_day(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, granted_by_ses(rate=4.0), tokens=1.0)
    assert await limiter.grant(1) == 1
    assert await limiter.grant(1) == 0
    await limiter.give_back(1)
    assert (await row(pool))["granted"] == 0
    assert await limiter.grant(1) == 1
    await limiter.give_back(1000)
    assert (await row(pool))["tokens"] <= 2.0, "more than the bucket holds is gone"


async def test_mail_that_may_not_wait_goes_into_debt_and_campaigns_get_what_it_leaves(
    pool: Pool, settings: Settings
) -> None:
    limiter = await polled(pool, settings, tokens=10.0)
    assert await limiter.take(5) == 0
    wait_s = await limiter.take(int(RATE))
    assert 0.8 < wait_s <= 1
    assert await limiter.take(20) > wait_s
    assert await limiter.grant(10) == 0
    asked_at = time.monotonic()
    assert await limiter.grant(10, patience_s=5) == 10
    assert time.monotonic() - asked_at > 0.8


async def test_debt_is_bounded(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings)
    assert await limiter.take(int(RATE * DEBT_MAX_S) + 50) > DEBT_MAX_S
    with pytest.raises(NoTokens):
        await limiter.take(1)
    assert (await row(pool))["granted"] == RATE * DEBT_MAX_S + 50


async def test_the_api_takes_tokens_under_its_own_role(pool: Pool, api_pool: Pool, settings: Settings) -> None:
    await polled(pool, settings, tokens=10.0)
    assert await Limiter(api_pool, settings).take(1) == 0


async def test_throttling_lowers_the_rate_once_a_second_and_it_comes_back(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, tokens=BURST)
    await asyncio.gather(*(limiter.throttled(50) for _ in range(4)))
    lowered = await row(pool)
    assert (lowered["factor"], lowered["throttles"]) == (0.7, 200)
    assert lowered["tokens"] < 20, "what SES does not have is not granted"
    async with pool.acquire() as conn:
        present = await store.grant(conn, name_of(settings), None, 0, 0)
        assert present.limits.rate == pytest.approx(0.7 * RATE, rel=0.02)
        for seconds, part in ((2, 0.8), (60, 1.0)):
            await conn.execute(
                "UPDATE send_limits SET throttled_at = clock_timestamp() - make_interval(secs => $1)", float(seconds)
            )
            present = await store.grant(conn, name_of(settings), None, 0, 0)
            assert present.limits.rate == pytest.approx(part * RATE, rel=0.02)
        await conn.execute("UPDATE send_limits SET throttled_at = clock_timestamp() - interval '2 s'")
    await limiter.throttled(1)
    assert (await row(pool))["factor"] == pytest.approx(0.8 * 0.7, rel=0.02)


async def test_campaigns_leave_the_reserve_of_the_daily_quota_and_resume_alone(
    pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = await polled(pool, settings, granted_by_ses(day_quota=1000.0, sent=870.0), tokens=BURST)
    assert await limiter.grant(20) == 20
    assert await limiter.grant(20) == 10, "what is left of the day, the reserve of 100 aside"
    begun = time.monotonic()
    assert await limiter.grant(20, patience_s=10) == 0
    assert time.monotonic() - begun < 1, "a long wait is not one of a slot that holds a shard"
    assert await limiter.take(60) == 0
    with pytest.raises(NoTokens):
        await limiter.take(41)
    assert await limiter.take(40) > 0
    monkeypatch.setattr("mailrail.ses.model.CLOSED_PAUSE_S", 0.1)
    waiting = asyncio.create_task(limiter.until_open())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await polled(pool, settings, granted_by_ses(day_quota=1000.0, sent=600.0), tokens=BURST)
    async with asyncio.timeout(2):
        await waiting
    assert await limiter.grant(20) == 20


async def test_a_day_that_ses_calls_used_up_is_so_until_the_next_poll(pool: Pool, settings: Settings) -> None:
    account = granted_by_ses(day_quota=1000.0)
    limiter = await polled(pool, settings, account, tokens=BURST)
    assert await limiter.grant(20) == 20
    await limiter.day_used_up()
    assert await limiter.grant(20) == 0
    with pytest.raises(NoTokens):
        await limiter.take(1)
    await polled(pool, settings, account, tokens=BURST)
    assert await limiter.grant(20) == 20
    unlimited = await polled(pool, settings, tokens=BURST)
    await unlimited.day_used_up()
    assert await unlimited.grant(20) == 20, "there is no daily quota to use up"


async def test_nothing_is_granted_while_sending_is_disabled(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, granted_by_ses(sending_enabled=False), tokens=BURST)
    assert await limiter.grant(20) == 0
    with pytest.raises(NoTokens):
        await limiter.take(1)


async def test_one_of_many_processes_polls(pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = 0

    async def get_account(settings: Settings) -> SesAccount:
        nonlocal polls
        polls += 1
        await asyncio.sleep(0.05)
        return granted_by_ses(rate=77.0)

    monkeypatch.setattr(control, "get_account", get_account)
    monkeypatch.setattr(limiter, "POLL_RETRY_S", 0.1)
    processes = [asyncio.create_task(Limiter(pool, settings).follow()) for _ in range(6)]
    await asyncio.sleep(0.6)
    assert polls == 1
    assert (await row(pool))["max_send_rate"] == 77.0
    async with pool.acquire() as conn:
        await conn.execute("UPDATE send_limits SET poll_at = clock_timestamp()")
    await asyncio.sleep(0.4)
    assert polls == 2
    for process in processes:
        process.cancel()
    await asyncio.gather(*processes, return_exceptions=True)


async def test_a_poll_whose_process_ended_is_soon_made_by_another(
    pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never_answered(settings: Settings) -> SesAccount:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def answered(settings: Settings) -> SesAccount:
        return granted_by_ses(rate=77.0)

    monkeypatch.setattr(limiter, "POLL_RETRY_S", 0.2)
    monkeypatch.setattr(control, "get_account", never_answered)
    first = asyncio.create_task(Limiter(pool, settings).follow())
    await asyncio.wait_for(asked.wait(), 5)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    monkeypatch.setattr(control, "get_account", answered)
    second = asyncio.create_task(Limiter(pool, settings).follow())
    async with asyncio.timeout(5):
        while (await row(pool))["polled_at"] is None:
            await asyncio.sleep(0.05)
    polled_at = (await row(pool))["polled_at"]
    await asyncio.sleep(0.6)
    assert (await row(pool))["polled_at"] == polled_at, "and then it is not due again for half a minute"
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_failed_poll_keeps_the_figures_and_is_tried_again(
    pool: Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = 0

    async def get_account(settings: Settings) -> SesAccount:
        nonlocal polls
        polls += 1
        raise control.ControlError

    monkeypatch.setattr(control, "get_account", get_account)
    monkeypatch.setattr(limiter, "POLL_RETRY_S", 0.1)
    asked = await polled(pool, settings, tokens=BURST)
    process = asyncio.create_task(asked.follow())
    await asyncio.sleep(0.6)
    assert polls > 1
    assert await asked.grant(10) == 10
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)


async def test_what_was_granted_while_ses_was_asked_counts_for_the_day(pool: Pool, settings: Settings) -> None:
    limiter = await polled(pool, settings, granted_by_ses(day_quota=1000.0), tokens=BURST)
    name = name_of(settings)
    assert await limiter.grant(30) == 30
    async with pool.acquire() as conn:
        granted = await store.begin_poll(conn, name, 30.0)
        assert granted == 30
        assert await store.begin_poll(conn, name, 30.0) is None
    assert await limiter.grant(20) == 20
    async with pool.acquire() as conn:
        await store.end_poll(conn, name, granted_by_ses(day_quota=1000.0, sent=30.0), granted, 30.0)
        present = await store.grant(conn, name, None, 0, 0)
    assert present.limits.day_left == 1000 - 30 - 20


async def test_the_figures_are_those_that_ses_tells(database: Database, pool: Pool, tmp_path: Path) -> None:
    with simulating(tmp_path / "simulator", max_send_rate=123, max_24_hour_send=5000) as simulator:
        settings = database.settings(ses_endpoint=simulator.endpoint, ses_ca_file=str(simulator.directory / "ca.pem"))
        limiter = Limiter(pool, settings)
        following = asyncio.create_task(limiter.follow())
        async with asyncio.timeout(10):
            assert await limiter.grant(1) == 0
            await limiter.until_open()
        async with pool.acquire() as conn:
            limits = (await store.grant(conn, name_of(settings), None, 0, 0)).limits
        assert (limits.rate, limits.day_quota, limits.day_left) == (123.0, 5000.0, 5000.0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
