"""A backup is taken while a campaign runs, the campaign goes on, the backup is restored: nobody is mailed twice or forgotten."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mailrail.config import Settings, with_role_urls
from mailrail.db.pool import Pool, connect, open_pool
from mailrail.up.postgres import Cluster, ensure_database
from tests.support import fleet
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import wait_until

RECIPIENTS = 3000
# Longer than a doorbell, a sweep and a lease would need.
STILL_S = 4.0


def on_database(settings: Settings, url: str) -> Settings:
    """The same processes on another database."""
    return with_role_urls(replace(settings, database_url=url, api_database_url="", worker_database_url=""))


async def states(pool: Pool) -> dict[int, int]:
    """How many recipients are in each state."""
    rows = await pool.fetch("SELECT state, sum(recipients)::integer FROM state_counts GROUP BY state")
    return dict(tuple(row) for row in rows)


@pytest.mark.long
async def test_half_a_campaign_is_restored(
    cluster: Cluster, database: Database, worker_pool: Pool, tmp_path: Path
) -> None:
    await ensure_database(cluster, "restored")
    file = tmp_path / "mail.backup"
    changes = {
        "accepted_log": str(tmp_path / "accepted" / "log"),
        "worker_port": free_port(),
        # Slow enough that a backup on a busy machine is over long before the campaign is.
        "max_send_rate": 150.0,
    }
    with fleet.simulated(database, tmp_path, changes) as (settings, simulator):
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        with fleet.starting("api", settings, tmp_path):
            with fleet.starting("worker", settings, tmp_path) as worker:
                fleet.send_campaign(settings, key)
                wait_until(lambda: fleet.accepted_count(simulator) > RECIPIENTS // 10, "a tenth")
                done = fleet.command(settings, "backup", str(file))
                assert done.returncode == 0, done.stderr
                assert file.stat().st_mode & 0o777 == 0o600
                at_backup = fleet.accepted_count(simulator)
                wait_until(lambda: fleet.accepted_count(simulator) > at_backup + RECIPIENTS // 10, "a tenth more")
                assert worker.end() == 0, worker.text()
            sent = fleet.accepted_count(simulator)
            assert at_backup < sent < RECIPIENTS

        restored = on_database(settings, cluster.url("restored"))
        done = fleet.command(restored, "restore", str(file))
        assert done.returncode == 0, done.stderr
        assert "Nothing is sent until `mailrail release`" in done.stdout

        with fleet.starting("api", restored, tmp_path), fleet.starting("worker", restored, tmp_path) as worker:
            await asyncio.sleep(STILL_S)
            assert fleet.accepted_count(simulator) == sent
            doctor = fleet.command(restored, "doctor")
            assert doctor.returncode == 1
            assert "FAIL  sending, held since" in doctor.stdout
            assert "mailrail release" in doctor.stdout
            _, metrics = fleet.fetch(f"http://127.0.0.1:{settings.worker_port}/metrics")
            assert "\nmailrail_installation_held 1.0\n" in metrics

            done = fleet.command(restored, "release")
            assert done.returncode == 0, done.stderr
            assert "sending goes on" in done.stdout
            wait_until(lambda: fleet.accepted_count(simulator) >= RECIPIENTS, "the rest")
            await asyncio.sleep(STILL_S)
            # SES's events on what was sent after the backup went to the lost database: 72 hours without a word decide.
            pool = await open_pool(restored.worker_database_url, application_name="tests")
            operator = await connect(restored.database_url, application_name="tests")
            try:
                await operator.execute("UPDATE mailrail.results SET at = at - interval '73 hours'")
                await operator.execute("UPDATE mailrail.folds SET due_at = now()")
                deadline = time.monotonic() + 30
                while await pool.fetchval("SELECT status FROM campaigns") != "completed":
                    assert time.monotonic() < deadline, (await states(pool), worker.text())
                    await asyncio.sleep(0.1)
            finally:
                await operator.close()
                await pool.close()
            assert worker.end() == 0
        fleet.assert_each_got_one(simulator, RECIPIENTS)
