"""Schedules: set by the API, started by whichever worker comes first, never by two, and not long after their time."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mailrail.campaigns import service
from mailrail.campaigns.schedule import start_due
from mailrail.db.pool import Pool
from tests.support.api import Tenant
from tests.support.campaigns import add_contacts, draft, hold_sending, row_of
from tests.support.postgres import Database


def at(**ahead: float) -> str:
    """RFC 3339, so far from now."""
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def scheduled(tenant: Tenant, recipients: int = 2) -> str:
    """The path of a campaign that starts in an hour."""
    await tenant.verify_domain()
    await add_contacts(tenant, recipients)
    path = await draft(tenant)
    answer = await tenant.post(f"{path}/launch", {"scheduledAt": at(hours=1)})
    assert (answer.status, answer.body["status"]) == (200, "scheduled"), answer.body
    return path


async def make_due(tenant: Tenant, path: str, late: timedelta = timedelta(seconds=1)) -> None:
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "UPDATE campaigns SET scheduled_at = now() - $2::interval WHERE id = $1", row_of(tenant, path), late
        )


async def holds_of(tenant: Tenant) -> int:
    async with tenant.api.operator.acquire() as conn:
        count: int = await conn.fetchval("SELECT count(*) FROM holds WHERE account_id = $1", tenant.account_id)
    return count


async def test_a_schedule_is_shown_costs_nothing_yet_and_starts_at_its_time(
    tenant: Tenant, worker_pool: Pool, database: Database
) -> None:
    await tenant.verify_domain()
    await add_contacts(tenant, 2)
    path = await draft(tenant)
    answer = await tenant.post(f"{path}/launch", {"scheduledAt": "2099-01-01T00:00:00Z"})
    assert (answer.status, answer.code, answer.params) == (422, "schedule_invalid", {"scheduledAt"})
    answer = await tenant.post(f"{path}/launch", {"scheduledAt": at(hours=1)})
    assert (answer.body["status"], answer.body["audienceCount"], answer.body["sentAt"]) == ("scheduled", 2, None)
    assert (answer.body["cost"]["estimatedMicros"], answer.body["cost"]["holdId"]) == (600, None)
    for dialect in ("/api/v1", "/v1/mail"):
        shown = (await tenant.get(dialect + path.removeprefix("/api/v1"))).body
        assert (shown["status"], shown["scheduledAt"]) == ("scheduled", answer.body["scheduledAt"])
    assert await holds_of(tenant) == 0
    await start_due(worker_pool, database.settings())
    assert (await tenant.get(path)).body["status"] == "scheduled"
    await make_due(tenant, path)
    await add_contacts_of_today(tenant)
    await start_due(worker_pool, database.settings())
    shown = (await tenant.get(path)).body
    assert (shown["status"], shown["audienceCount"]) == ("sending", 3), "the audience is that of the start"
    assert await holds_of(tenant) == 1


async def add_contacts_of_today(tenant: Tenant) -> None:
    async with tenant.api.operator.acquire() as conn:
        await conn.execute(
            "INSERT INTO contacts (account_id, email) VALUES ($1, 'late@example.net')", tenant.account_id
        )


@pytest.mark.parametrize("dialect", ["/api/v1", "/v1/mail"])
async def test_a_draft_may_bring_its_time_and_launch_schedules_it(tenant: Tenant, dialect: str) -> None:
    await tenant.verify_domain()
    content = "<p>x</p>" if dialect == "/api/v1" else {"html": "<p>x</p>"}
    body = {"name": "N", "subject": "S", "content": content}
    made = await tenant.post(f"{dialect}/campaigns", {**body, "scheduledAt": at(days=1)})
    assert (made.status, made.body["status"]) == (201, "draft")
    verb = "launch" if dialect == "/api/v1" else "send"
    answer = await tenant.post(f"{dialect}/campaigns/{made.body['id']}/{verb}")
    assert (answer.status, answer.body["status"]) == (200, "scheduled")
    assert answer.body["scheduledAt"] == made.body["scheduledAt"]
    past = await tenant.post(f"{dialect}/campaigns", {**body, "scheduledAt": at(minutes=-5)})
    assert (past.status, past.params) == (422, {"scheduledAt"})


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "2027-04-08",
        "2027-04-08T10:15:00",
        "2027-02-30T10:15:00Z",
        "2027-04-08T25:00:00Z",
        5,
        "٢027-04-08T10:15:00Z",
    ],
)
async def test_a_time_without_zone_or_sense_is_refused(tenant: Tenant, text: object) -> None:
    path = await draft(tenant)
    answer = await tenant.post(f"{path}/launch", {"scheduledAt": text})
    assert (answer.status, answer.params) == (422, {"scheduledAt"})


@pytest.mark.parametrize("ahead_s", [-30, 0, 2])
async def test_the_present_moment_sends_at_once(tenant: Tenant, ahead_s: int) -> None:
    await tenant.verify_domain()
    await add_contacts(tenant, 1)
    answer = await tenant.post(f"{await draft(tenant)}/launch", {"scheduledAt": at(seconds=ahead_s)})
    assert (answer.status, answer.body["status"]) == (200, "sending")


@pytest.mark.parametrize("away", [{"minutes": -2}, {"days": 400}])
async def test_the_past_and_the_far_future_are_refused(tenant: Tenant, away: dict[str, float]) -> None:
    answer = await tenant.post(f"{await draft(tenant)}/launch", {"scheduledAt": at(**away)})
    assert (answer.status, answer.code, answer.params) == (422, "schedule_invalid", {"scheduledAt"})


async def test_a_schedule_moves_by_a_new_time_and_not_by_a_repeated_launch(tenant: Tenant) -> None:
    path = await scheduled(tenant)
    again = await tenant.post(f"{path}/launch")
    assert (again.status, again.code) == (409, "campaign_state_wrong")
    assert "scheduledAt" in again.body["error"]["message"]
    tomorrow = datetime.now(timezone(timedelta(hours=1))).replace(microsecond=0) + timedelta(days=1)
    moved = await tenant.post(f"{path}/launch", {"scheduledAt": tomorrow.isoformat()})
    assert moved.body["scheduledAt"] == tomorrow.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    now = await tenant.post(f"{path}/launch", {"scheduledAt": at()})
    assert (now.status, now.body["status"]) == (200, "sending")


async def test_a_schedule_can_be_paused_resumed_and_cancelled(
    tenant: Tenant, worker_pool: Pool, database: Database
) -> None:
    path = await scheduled(tenant)
    assert (await tenant.post(f"{path}/pause")).body["status"] == "paused"
    assert (await tenant.post(f"{path}/resume")).body["status"] == "scheduled"
    assert (await tenant.post(f"{path}/resume")).body["status"] == "scheduled"
    await tenant.post(f"{path}/pause")
    await make_due(tenant, path)
    await start_due(worker_pool, database.settings())
    assert (await tenant.get(path)).body["status"] == "paused"
    assert (await tenant.post(f"{path}/resume")).body["status"] == "sending", "its time has passed"
    other = await draft(tenant)
    await tenant.post(f"{other}/launch", {"scheduledAt": at(hours=1)})
    assert (await tenant.post(f"{other}/cancel")).body["status"] == "cancelled"
    await make_due(tenant, other)
    await start_due(worker_pool, database.settings())
    assert (await tenant.get(other)).body["status"] == "cancelled"


async def test_two_schedulers_start_it_once(tenant: Tenant, worker_pool: Pool, database: Database) -> None:
    paths = [await scheduled(tenant, 1)]
    for _ in range(5):
        path = await draft(tenant)
        await tenant.post(f"{path}/launch", {"scheduledAt": at(hours=1)})
        paths.append(path)
    for path in paths:
        await make_due(tenant, path)
    await asyncio.gather(*(start_due(worker_pool, database.settings()) for _ in range(4)))
    await start_due(worker_pool, database.settings())
    assert [(await tenant.get(path)).body["status"] for path in paths] == ["sending"] * 6
    assert await holds_of(tenant) == 6
    async with worker_pool.acquire() as conn:
        streams = await conn.fetchval("SELECT count(*) FROM streams WHERE account_id = $1", tenant.account_id)
    assert streams == 6


async def test_what_cannot_start_fails_with_a_reason_and_can_be_launched_again(
    tenant: Tenant, worker_pool: Pool, database: Database
) -> None:
    settings = database.settings()
    path = await scheduled(tenant)
    async with worker_pool.acquire() as conn:
        price = "UPDATE accounts SET price_micros = $2 WHERE id = $1"
        await conn.execute(price, tenant.account_id, 900_000_000)
        await make_due(tenant, path)
        await start_due(worker_pool, settings)
        shown = (await tenant.get(path)).body
        assert (shown["status"], "Deposit the difference" in shown["reason"]) == ("failed", True)
        await conn.execute(price, tenant.account_id, 300)
    assert await holds_of(tenant) == 0
    again = await tenant.post(f"{path}/launch")
    assert (again.status, again.body["status"]) == (200, "sending")
    assert (await tenant.get(path)).body["reason"] is None


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("UPDATE contacts SET status = 'unsubscribed' WHERE account_id = $1", "Nobody can be reached"),
        ("UPDATE domains SET status = 'failed' WHERE account_id = $1", "domain"),
        ("UPDATE campaigns SET html = '{% if %}' WHERE account_id = $1", "line 1"),
    ],
)
async def test_each_obstacle_is_told_in_plain_words_and_leaves_nothing(
    tenant: Tenant, worker_pool: Pool, database: Database, spoil: str, told: str
) -> None:
    path = await scheduled(tenant)
    async with worker_pool.acquire() as conn:
        await conn.execute(spoil, tenant.account_id)
        await make_due(tenant, path)
        await start_due(worker_pool, database.settings())
        shown = (await tenant.get(path)).body
        assert (shown["status"], told in shown["reason"]) == ("failed", True), shown["reason"]
        for table in ("audience", "shards", "streams", "holds"):
            assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", tenant.account_id) == 0


async def test_long_after_its_time_it_asks_before_it_sends(
    tenant: Tenant, worker_pool: Pool, database: Database
) -> None:
    path = await scheduled(tenant)
    await make_due(tenant, path, timedelta(hours=7))
    await start_due(worker_pool, database.settings())
    shown = (await tenant.get(path)).body
    assert (shown["status"], "Resume it to send it now" in shown["reason"]) == ("paused", True)
    assert await holds_of(tenant) == 0
    assert (await tenant.post(f"{path}/resume")).body["status"] == "sending"


async def test_nothing_starts_while_sending_is_held(tenant: Tenant, worker_pool: Pool, database: Database) -> None:
    path = await scheduled(tenant)
    await make_due(tenant, path)
    await hold_sending(tenant, "mail accepted by SES is missing from this database")
    try:
        await start_due(worker_pool, database.settings())
        assert (await tenant.get(path)).body["status"] == "scheduled"
        other = await draft(tenant)
        for verb, at_path in (("launch", other), ("pause", path), ("resume", path)):
            answer = await tenant.post(f"{at_path}/{verb}")
            if verb != "pause":
                assert (answer.status, answer.code) == (503, "sending_held")
                assert "missing from this database" in answer.body["error"]["message"]
                assert "mailrail doctor" in answer.body["error"]["message"]
        assert (await tenant.get(path)).body["status"] == "paused"
        assert (await tenant.get(other)).body["status"] == "draft"
    finally:
        await hold_sending(tenant, None)
    assert (await tenant.post(f"{path}/resume")).body["status"] == "sending"


async def test_a_frozen_wallet_makes_it_wait_and_not_fail(
    tenant: Tenant, worker_pool: Pool, database: Database
) -> None:
    path = await scheduled(tenant)
    await make_due(tenant, path)
    freeze = "UPDATE ledger_accounts SET frozen_at = CASE WHEN $2 THEN now() END WHERE account_id = $1"
    async with worker_pool.acquire() as conn:
        await conn.execute(freeze, tenant.account_id, True)
        before = await conn.fetchval("SELECT nextval('stream_numbers')")
        await start_due(worker_pool, database.settings())
        assert (await tenant.get(path)).body["status"] == "scheduled"
        after = await conn.fetchval("SELECT nextval('stream_numbers')")
        assert after == before + 1, "no audience is copied in vain, second by second"
        await conn.execute(freeze, tenant.account_id, False)
    await start_due(worker_pool, database.settings())
    assert (await tenant.get(path)).body["status"] == "sending"


async def test_one_that_breaks_is_paused_and_the_next_one_starts(
    tenant: Tenant, worker_pool: Pool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = await scheduled(tenant), await draft(tenant)
    await tenant.post(f"{sound}/launch", {"scheduledAt": at(hours=1)})
    await make_due(tenant, broken, timedelta(seconds=9))
    await make_due(tenant, sound)
    genuine = service.start

    async def start(conn, account, campaign, settings):  # type: ignore[no-untyped-def]
        if campaign.id == row_of(tenant, broken):
            raise RuntimeError
        return await genuine(conn, account, campaign, settings)

    monkeypatch.setattr(service, "start", start)
    await start_due(worker_pool, database.settings())
    shown = (await tenant.get(broken)).body
    assert (shown["status"], "on our side" in shown["reason"]) == ("paused", True)
    assert (await tenant.get(sound)).body["status"] == "sending"
