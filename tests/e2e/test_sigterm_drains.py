"""SIGTERM in the middle of the work: what is under way comes to its end, and nothing is left for others to wonder about."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailrail.db.pool import Pool, connect
from tests.support import fleet
from tests.support.postgres import Database
from tests.support.processes import wait_until

RECIPIENTS = 3000
LATENCY_MS = 400
REQUESTS = 5


async def test_a_worker_ends_after_its_rounds(database: Database, worker_pool: Pool, tmp_path: Path) -> None:
    with fleet.simulated(database, tmp_path, {"lease_s": 60.0}) as (settings, simulator):
        fleet.set_faults(simulator, latency_ms=LATENCY_MS)
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        with fleet.starting("api", settings, tmp_path), fleet.starting("worker", settings, tmp_path) as worker:
            campaign = fleet.send_campaign(settings, key)
            wait_until(lambda: fleet.accepted_count(simulator) > RECIPIENTS // 10, "a tenth")
            begun = time.monotonic()
            assert worker.end(signal.SIGTERM) == 0, worker.text()
            # A round of 100 recipients is two calls, side by side; a lease lasts for 60 s.
            assert time.monotonic() - begun < 20 * LATENCY_MS / 1000
            assert fleet.accepted_count(simulator) < RECIPIENTS
            unanswered = await worker_pool.fetchval(
                """SELECT count(*) FROM claims c WHERE NOT EXISTS (
                     SELECT FROM result_batches b WHERE b.stream_id = c.stream_id AND b.claim_id = c.claim_id)"""
            )
            assert unanswered == 0
            assert await worker_pool.fetchval("SELECT count(*) FROM shards WHERE lease_id IS NOT NULL") == 0
            assert "Traceback" not in worker.text()
            fleet.set_faults(simulator)
            with fleet.starting("worker", settings, tmp_path):
                wait_until(lambda: fleet.accepted_count(simulator) == RECIPIENTS, f"the rest of {campaign}")
        assert simulator.get("duplicates")["count"] == 0


async def test_an_api_answers_what_is_under_way(
    database: Database, worker_pool: Pool, superuser_pool: Pool, tmp_path: Path
) -> None:
    with fleet.simulated(database, tmp_path, {}) as (settings, _):
        key = await fleet.add_sender(worker_pool, 1)
        blocker = await connect(database.superuser_url, application_name="tests")
        with fleet.starting("api", settings, tmp_path) as api, ThreadPoolExecutor(REQUESTS) as clients:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE mailrail.contacts")
                asked = [
                    clients.submit(
                        fleet.post, settings, key, "/api/v1/contacts", {"email": f"late{number}@example.net"}
                    )
                    for number in range(REQUESTS)
                ]
                while (
                    await superuser_pool.fetchval(
                        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    )
                    < REQUESTS
                ):
                    assert not any(request.done() for request in asked)
                api.process.send_signal(signal.SIGTERM)
                wait_until(lambda: is_refused(settings.port), "the end of listening")
                assert api.process.poll() is None
            assert [request.result()[0] for request in asked] == [201] * REQUESTS
            assert api.process.wait(10) == 0
        await blocker.close()
    assert "Traceback" not in api.text()


def is_refused(port: int) -> bool:
    """Whether nobody listens on the port any more."""
    try:
        fleet.fetch(f"http://127.0.0.1:{port}/healthz")
    except OSError:
        return True
    return False
