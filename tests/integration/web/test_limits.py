"""Requests a minute: counted over all processes of the API, told in every answer, refused beyond the plan."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan, Scope
from mailrail.db.pool import Connection, Pool
from mailrail.web import store
from mailrail.web.limits import Limits
from tests.support.api import Api, Tenant, assert_error_form, running_api
from tests.support.fleet import starting
from tests.support.ports import free_port
from tests.support.postgres import Database

PATH = "/api/v1/lists"
HEADERS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")


@pytest.fixture
async def starter(api: Api) -> Tenant:
    """An account with 100 requests a minute."""
    return await api.add_tenant("Starter", plan=Plan.STARTER)


async def set_window(pool: Pool, account_id: int, used: int, age_s: float = 0.0) -> None:
    """As if the account had made so many requests, the first so long ago."""
    async with pool.acquire() as conn:
        await conn.execute(
            """INSERT INTO mailrail.request_windows VALUES ($1, clock_timestamp() - make_interval(secs => $3), $2)
               ON CONFLICT (account_id) DO UPDATE SET used = excluded.used, began_at = excluded.began_at""",
            account_id,
            used,
            age_s,
        )


async def test_every_answer_says_where_the_account_stands(api: Api, starter: Tenant) -> None:
    reader = await starter.new_key([Scope.STATS_READ])
    for used, (method, path, key, status) in enumerate(
        [
            ("GET", PATH, starter.key, 200),
            ("GET", f"{PATH}/x", starter.key, 404),
            ("POST", PATH, starter.key, 422),
            ("GET", PATH, reader, 403),
            ("GET", "/api/v1/stats", reader, 200),
        ],
        1,
    ):
        answer = await api.call(method, path, key)
        assert (answer.status, answer.headers["ratelimit-limit"]) == (status, "100")
        assert answer.headers["ratelimit-remaining"] == str(100 - used)
        assert 55 <= int(answer.headers["ratelimit-reset"]) <= 60


async def test_without_an_account_or_a_limit_nothing_is_said(api: Api, tenant: Tenant) -> None:
    for answer in (
        await tenant.get(PATH),
        await api.call("GET", PATH, "sk_live_x"),
        await api.call("GET", PATH),
        await api.call("GET", "/healthz"),
    ):
        assert not set(HEADERS) & set(answer.headers)


async def test_beyond_the_plan_is_refused_until_the_window_ends(
    api: Api, starter: Tenant, superuser_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(api.app.ctx, "limits", Limits(clock=lambda: time.monotonic() + now_s))
    await set_window(superuser_pool, starter.account_id, 98, age_s=30)
    assert [(await starter.get(PATH)).headers["ratelimit-remaining"] for _ in range(2)] == ["1", "0"]
    counted = 0
    count = store.count_request

    async def counting(conn: Connection, account_id: int) -> tuple[int, float]:
        nonlocal counted
        counted += 1
        return await count(conn, account_id)

    monkeypatch.setattr(store, "count_request", counting)
    for _ in range(3):
        refused = await starter.post(PATH, {"name": "Beyond"})
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert refused.body["error"]["type"] == "rate_limit_error"
        assert_error_form(refused)
        assert refused.headers["ratelimit-remaining"] == "0"
        assert 28 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    # The process knew it from the last request that went through.
    assert counted == 0
    now_s = 30.0
    await set_window(superuser_pool, starter.account_id, 1000, age_s=60)
    again = await starter.get(PATH)
    assert (again.status, again.headers["ratelimit-remaining"], counted) == (200, "99", 1)
    assert again.body["total"] == 0


async def test_another_plan_counts_at_once(api: Api, starter: Tenant, superuser_pool: Pool) -> None:
    await set_window(superuser_pool, starter.account_id, 100)
    assert (await starter.get(PATH)).status == 429
    async with api.operator.acquire() as conn:
        await accounts.change(conn, starter.account_id, plan="professional")
    api.app.ctx.proven_keys.forget(starter.account_id)
    answer = await starter.get(PATH)
    assert (answer.status, answer.headers["ratelimit-remaining"]) == (200, str(500 - 102))


async def test_a_window_does_not_outlast_a_clock_that_was_set_back(starter: Tenant, superuser_pool: Pool) -> None:
    await set_window(superuser_pool, starter.account_id, 100, age_s=-3600)
    answer = await starter.get(PATH)
    assert (answer.status, answer.headers["ratelimit-remaining"], answer.headers["ratelimit-reset"]) == (
        200,
        "99",
        "60",
    )


async def wal_syncs(conn: Connection, look: Connection) -> int:
    """How often a session itself waited for the disk to have the log."""
    pid = await conn.fetchval("SELECT pg_backend_pid() FROM pg_stat_force_next_flush()")
    count: int = await look.fetchval(
        "SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_get_backend_io($1) WHERE object = 'wal'", pid
    )
    return count


async def test_counting_waits_for_no_disk(
    superuser_pool: Pool, api_pool: Pool, worker_pool: Pool, starter: Tenant
) -> None:
    async with superuser_pool.acquire() as look, api_pool.acquire() as counter, worker_pool.acquire() as writer:
        for _ in range(100):
            await store.count_request(counter, starter.account_id)
        assert await wal_syncs(counter, look) == 0
        # What does wait is seen.
        await accounts.create(writer, "Logged")
        assert await wal_syncs(writer, look) > 0


async def test_the_windows_are_reached_by_counting_alone(api_pool: Pool, starter: Tenant) -> None:
    async with api_pool.acquire() as conn:
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            assert not await conn.fetchval("SELECT has_table_privilege('mailrail.request_windows', $1)", right)


async def test_two_servers_share_the_limit(database: Database, worker_pool: Pool, api: Api, starter: Tenant) -> None:
    async with running_api(database.settings(), worker_pool) as other:
        both = [api, other]
        answers = await asyncio.gather(*(both[n % 2].call("GET", PATH, starter.key) for n in range(160)))
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {200: 100, 429: 60}
    left = sorted(int(answer.headers["ratelimit-remaining"]) for answer in answers if answer.status == 200)
    assert left == list(range(100))


@pytest.mark.long
async def test_four_processes_admit_what_the_plan_says_under_ten_times_the_load(
    database: Database, api: Api, tmp_path: Path
) -> None:
    tenant = await api.add_tenant("Busy", plan=Plan.PROFESSIONAL)
    settings = database.settings(port=free_port())
    url = f"http://127.0.0.1:{settings.port}{PATH}"
    with (
        starting("api", settings, tmp_path),
        starting("api", settings, tmp_path),
        starting("api", settings, tmp_path),
        starting("api", settings, tmp_path),
    ):
        statuses: Counter[int] = Counter()
        wrong: list[str] = []

        async def ask(requests: int) -> None:
            # A connection of its own: the kernel spreads them over the processes.
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {tenant.key}"}) as session:
                for _ in range(requests):
                    async with session.get(url) as answer:
                        statuses[answer.status] += 1
                        told = {name: answer.headers.get(name) for name in (*HEADERS, "retry-after")}
                        is_right = (
                            told["ratelimit-limit"] == "500"
                            and 1 <= int(told["ratelimit-reset"] or 0) <= 60
                            and (told["retry-after"] is not None) == (answer.status == 429)
                            and (answer.status == 200 or told["ratelimit-remaining"] == "0")
                        )
                        if not is_right:
                            wrong.append(json.dumps(told))

        begun = time.monotonic()
        await asyncio.gather(*(ask(125) for _ in range(40)))
        assert time.monotonic() - begun < 60, "the window ended before the load"
    assert wrong == []
    assert statuses == {200: 500, 429: 4500}
