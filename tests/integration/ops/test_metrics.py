"""/metrics, /healthz and /readyz: who may see them, what they say, and that they say it of the whole installation."""

import signal
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailrail.app import create_app, listen, running
from mailrail.config import Settings
from mailrail.db.pool import Pool, open_pool
from mailrail.errors import StartError
from mailrail.ops import metrics as page
from mailrail.ops import store
from mailrail.ops.health import Health, serving
from mailrail.ops.metrics import FIGURES, Metrics
from tests.support import fleet
from tests.support.api import Api, Tenant
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import wait_until
from tests.support.streams import add_claim, make_account, make_stream

TOKEN = "a token of the tests"[:16].replace(" ", "-") + "0123456789"


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values) → value."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_api_counts_its_requests_by_route(api: Api, tenant: Tenant) -> None:
    await tenant.get("/api/v1/contacts/con_x")
    await api.call("GET", "/nowhere")
    await api.call("BREW", "/nowhere")
    shown = await api.call("GET", "/metrics")
    assert shown.headers["content-type"].startswith("text/plain")
    found = samples(shown.body.decode())
    assert found["mailrail_http_requests_total", ("GET", "api/v1/contacts/<contact_id:str>", "404")] == 1
    assert found["mailrail_http_requests_total", ("any", "no route", "404")] >= 1
    assert found["mailrail_database_up", ()] == 1
    assert not any("BREW" in labels for _, labels in found)


async def show(settings: Settings, authorization: str | None = None) -> tuple[int, str]:
    """/metrics of an API with these settings."""
    listener = listen("127.0.0.1", 0)
    headers = {} if authorization is None else {"Authorization": authorization}
    async with running(create_app(settings), listener), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        async with session.get(url, headers=headers) as answer:
            return answer.status, await answer.text()


async def test_the_world_does_not_see_the_figures(database: Database) -> None:
    public = database.settings(public_url="https://mail.example.com")
    status, body = await show(public)
    assert status == 401
    assert "metrics_refused" in body
    guarded = replace(public, metrics_token=TOKEN)
    assert (await show(guarded))[0] == 401
    assert (await show(guarded, f"Bearer {TOKEN}x"))[0] == 401
    assert (await show(guarded, f"Bearer {TOKEN}"))[0] == 200
    # A token counts on an installation of one machine, too.
    assert (await show(database.settings(metrics_token=TOKEN)))[0] == 401


async def test_figures_are_those_of_all_tenants_for_both_roles(
    database: Database, api_pool: Pool, worker_pool: Pool, superuser_pool: Pool
) -> None:
    async with worker_pool.acquire() as conn:
        stream = await make_stream(conn, await make_account(conn), 30, shard_size=10)
        await make_stream(conn, await make_account(conn, "Other"), 10)
        await conn.execute(
            "UPDATE shards SET lease_until = now() + interval '1 minute' WHERE stream_id = $1 AND shard = 0",
            stream.stream_id,
        )
        await conn.execute(
            "UPDATE folds SET unknown_since = now() - interval '1 hour', duplicates = 2 WHERE stream_id = $1 AND shard = 1",
            stream.stream_id,
        )
        await conn.execute(
            "INSERT INTO state_counts (stream_id, shard, state, account_id, recipients) VALUES ($1, 0, 2, $2, 7), ($1, 0, 4, $2, 5), ($1, 1, 2, $2, 1)",
            stream.stream_id,
            stream.account_id,
        )
        await conn.execute(
            "INSERT INTO outbox (topic, message, created_at) VALUES ('x', '{}', now() - interval '10 seconds')"
        )
        await conn.execute(
            "INSERT INTO notification_queue (day, message_id, queued_at) VALUES (current_date, 'm', now() - interval '20 seconds')"
        )
        await conn.execute(
            "INSERT INTO parked_notifications (notification_id, day, message_id, reason) VALUES (1, current_date, 'p', 'odd')"
        )
        await conn.execute("INSERT INTO event_queues (name, waiting, in_flight, dead) VALUES ('events', 4, 2, 1)")
        await conn.execute("UPDATE event_pipeline SET heard_at = now(), silent_since = now() - interval '5 minutes'")
        await conn.execute("INSERT INTO parked_messages (topic, payload, reason) VALUES ('x', 'y', 'z')")
        await conn.execute(
            "UPDATE holds SET created_at = now() - interval '73 hours' WHERE stream_id = $1", stream.stream_id
        )
        await conn.execute(
            "INSERT INTO send_limits (name, max_send_rate, max_24_hour_send, sent_last_24_hours, polled_at, granted_at_poll, throttles, granted) "
            "VALUES ('1234/us-east-1', 14, 50000, 100, now(), 100, 3, 107)"
        )
        await add_claim(conn, stream, 0, 1, [1], 1)
    for pool in (api_pool, worker_pool):
        async with pool.acquire() as conn:
            figures = {(figure.name, figure.label): figure.value for figure in await store.read_figures(conn)}
        assert {name for name, _ in figures} <= set(FIGURES)
        assert set(FIGURES) - {name for name, _ in figures} == {"ledger_audit_age_seconds"}
        for name, value in {
            "outbox_messages": 1, "notifications_waiting": 1, "shards_waiting": 3, "shards_leased": 1, "recipients_unknown": 8,
            "recipients_unresolved": 5, "duplicates_detected": 2, "messages_parked": 1, "notifications_parked": 1, "holds_overdue": 1,
            "holds_overdue_micros": 9000, "installation_held": 0, "ledger_violations": 0, "wallets_frozen": 0,
        }.items():  # fmt: skip
            assert figures[name, None] == value, name
        assert figures["notifications_parked_by_reason", "odd"] == 1
        assert [figures[f"event_queue_{what}", "events"] for what in ("waiting", "in_flight", "dead")] == [4, 2, 1]
        assert 300 <= figures["events_silent_seconds", None] < 360
        assert figures["events_heard_age_seconds", None] < 60
        assert 10 <= figures["outbox_oldest_seconds", None] < 60
        assert 20 <= figures["notifications_lag_seconds", None] < 60
        assert 3600 <= figures["unknown_oldest_seconds", None] < 3660
        assert figures["campaigns", "queued"] == 2
        assert figures["send_quota_used", "1234/us-east-1"] == 107
    metrics = Metrics()
    text = (await metrics.text(worker_pool)).decode()
    found = samples(text)
    assert found["mailrail_send_throttles_total", ("1234/us-east-1",)] == 3
    assert "Acme" not in text


async def test_scrapes_share_a_reading(worker_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = 0
    read = store.read_figures

    async def count(conn: object) -> list[store.Figure]:
        nonlocal readings
        readings += 1
        return await read(conn)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "read_figures", count)
    metrics = Metrics()
    for _ in range(5):
        await metrics.text(worker_pool)
    assert readings == 1
    monkeypatch.setattr(page, "FIGURES_MAX_AGE_S", 0.0)
    await metrics.text(worker_pool)
    assert readings == 2


async def test_without_a_database_the_page_says_so(database: Database) -> None:
    settings = database.settings(worker_port=free_port())
    pool = await open_pool(database.worker_url, application_name="tests worker")
    health = Health(settings, pool, Metrics())
    base = f"http://127.0.0.1:{settings.worker_port}"
    async with serving(health), aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(base + path) as answer:
                return answer.status, await answer.text()

        assert await ask("/healthz") == (200, '{"status": "ok"}')
        assert await ask("/readyz") == (200, '{"status": "ready"}')
        health.draining = True
        assert await ask("/readyz") == (503, '{"status": "draining"}')
        health.draining = False
        await pool.close()
        assert await ask("/readyz") == (503, '{"status": "no database"}')
        status, text = await ask("/metrics")
        assert status == 200
        assert samples(text)["mailrail_database_up", ()] == 0


async def test_a_worker_port_in_use_stops_the_start(database: Database, worker_pool: Pool) -> None:
    settings = database.settings(worker_port=free_port())
    async with serving(Health(settings, worker_pool, Metrics())):
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1 port {settings.worker_port}"):
            async with serving(Health(settings, worker_pool, Metrics())):
                pass


async def test_a_worker_counts_its_outcomes(database: Database, worker_pool: Pool, tmp_path: Path) -> None:
    with fleet.simulated(database, tmp_path, {"worker_port": free_port(), "metrics_token": TOKEN}) as (
        settings,
        _,
    ):
        key = await fleet.add_sender(worker_pool, 50)
        base = f"http://127.0.0.1:{settings.worker_port}"
        with fleet.starting("api", settings, tmp_path), fleet.starting("worker", settings, tmp_path) as worker:
            fleet.send_campaign(settings, key)
            assert fleet.fetch(f"{base}/readyz")[0] == 200
            assert fleet.fetch(f"{base}/metrics")[0] == 401
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            wait_until(
                lambda: (
                    samples(fleet.fetch(f"{base}/metrics", bearer)[1]).get(("mailrail_emails_total", ("accepted",)))
                    == 50
                ),
                "fifty accepted",
            )
            assert worker.end(signal.SIGTERM) == 0
