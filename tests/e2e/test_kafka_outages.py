"""Real processes on a real broker that is wiped, away, or stays while a worker dies: every mail goes out, once."""

import asyncio
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from mailrail.db.pool import Pool
from mailrail.worker import ROLES
from tests.support import fleet
from tests.support.kafka import Broker
from tests.support.postgres import Database
from tests.support.processes import wait_until

RECIPIENTS = 3000
SWEPT_WITHIN_S = 120
LEASE_S = 4.0
WORKERS = 3


def on_kafka(broker: Broker, **changes: object) -> dict[str, object]:
    """Settings of an installation of its own on the broker."""
    return {"kafka": (broker.address,), "kafka_prefix": f"test-{uuid.uuid4().hex[:12]}", **changes}


async def is_completed(pool: Pool) -> bool:
    """Whether the newest campaign is."""
    return bool(await pool.fetchval("SELECT status = 'completed' FROM campaigns ORDER BY id DESC LIMIT 1"))


async def until_completed(pool: Pool, timeout_s: float) -> float:
    """Seconds until the newest campaign is completed; fails after `timeout_s`."""
    begun = time.monotonic()
    while not await is_completed(pool):
        assert time.monotonic() - begun < timeout_s, await pool.fetch(
            "SELECT shard, state, wake_at, lease_until, next_seq FROM shards ORDER BY stream_id DESC, shard LIMIT 20"
        )
        await asyncio.sleep(0.2)
    return time.monotonic() - begun


@pytest.mark.long
async def test_a_wipe_in_the_middle_costs_seconds(
    database: Database, worker_pool: Pool, broker: Broker, tmp_path: Path
) -> None:
    with (
        fleet.simulated(database, tmp_path, on_kafka(broker, round_size=50)) as (settings, simulator),
        ExitStack() as running,
    ):
        fleet.set_faults(simulator, latency_ms=300)
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        processes = [running.enter_context(fleet.starting(name, settings, tmp_path)) for name in ("api", "worker")]
        fleet.send_campaign(settings, key)
        wait_until(lambda: fleet.accepted_count(simulator) > RECIPIENTS // 20, "the first mails")
        broker.wipe()
        assert fleet.accepted_count(simulator) < RECIPIENTS, "the wipe came too late to prove anything"
        await until_completed(worker_pool, SWEPT_WITHIN_S)
        fleet.assert_each_got_one(simulator, RECIPIENTS)
        assert all(process.process.poll() is None for process in processes)


@pytest.mark.long
async def test_doorbells_that_nobody_will_ever_hear_are_answered_by_the_sweep(
    database: Database, worker_pool: Pool, broker: Broker, tmp_path: Path
) -> None:
    """An idle worker waits for doorbells that go down with all of Kafka."""
    with fleet.simulated(database, tmp_path, on_kafka(broker)) as (settings, simulator):
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        deaf = ("--roles", ",".join(role for role in ROLES if role != "relay"))
        with fleet.starting("api", settings, tmp_path), fleet.starting("worker", settings, tmp_path, *deaf):
            fleet.send_campaign(settings, key)
            await worker_pool.execute("DELETE FROM outbox")
            broker.wipe()
            await until_completed(worker_pool, SWEPT_WITHIN_S)
            fleet.assert_each_got_one(simulator, RECIPIENTS)


@pytest.mark.long
async def test_a_broker_that_is_away_does_not_concern_the_api_and_the_campaign_runs(
    database: Database, worker_pool: Pool, broker: Broker, tmp_path: Path
) -> None:
    broker.kill()
    with fleet.simulated(database, tmp_path, on_kafka(broker)) as (settings, simulator):
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        with fleet.starting("api", settings, tmp_path), fleet.starting("worker", settings, tmp_path) as worker:
            begun = time.monotonic()
            fleet.send_campaign(settings, key)
            assert time.monotonic() - begun < 5
            await asyncio.sleep(2)
            assert await worker_pool.fetchval("SELECT count(*) FROM outbox") > 0, "a doorbell left without a broker"
            broker.start()
            await until_completed(worker_pool, SWEPT_WITHIN_S)
            while await worker_pool.fetchval("SELECT count(*) FROM outbox"):
                await asyncio.sleep(0.1)
            fleet.assert_each_got_one(simulator, RECIPIENTS)
            assert worker.process.poll() is None
            assert "Traceback" not in worker.text()


def leases_taken(history: Path, since: int = 0) -> dict[int, set[int]]:
    """Which shards a process took, by process id, as the failpoints wrote it down from this byte on."""
    taken: dict[int, set[int]] = {}
    for line in history.read_bytes()[since:].splitlines():
        hit = orjson.loads(line)
        if hit["point"] == "lease.taken":
            taken.setdefault(hit["pid"], set()).add(hit["shard"])
    return taken


async def test_a_killed_workers_shards_move_to_the_others(
    database: Database, worker_pool: Pool, broker: Broker, tmp_path: Path
) -> None:
    patience = {"lease_s": LEASE_S, "call_timeout_ms": 2000, "fence_s": 5.0, "event_lag_max_s": 2.0}
    changes = on_kafka(broker, round_size=20, shard_size=200, **patience)
    history = tmp_path / "history"
    with fleet.simulated(database, tmp_path, changes) as (settings, simulator), ExitStack() as running:
        fleet.set_faults(simulator, latency_ms=300)
        key = await fleet.add_sender(worker_pool, RECIPIENTS)
        running.enter_context(fleet.starting("api", settings, tmp_path))
        # Dead between claim and call: nobody else can know that its mails never went out before fence and canary say so.
        doomed = orjson.dumps({"seed": 1, "points": {"claim.committed": {"kill": 0.2}}}).decode()
        workers = [
            running.enter_context(
                fleet.starting("worker", settings, tmp_path, MAILRAIL_TEST_HISTORY=str(history), **environment)
            ).process
            for environment in [{"MAILRAIL_TEST_FAILPOINTS": doomed}, *[{}] * (WORKERS - 1)]
        ]
        fleet.send_campaign(settings, key)
        wait_until(lambda: workers[0].poll() is not None, "the death of a worker")
        died_at, since = time.monotonic(), history.stat().st_size
        left_behind = leases_taken(history)[workers[0].pid]
        assert fleet.accepted_count(simulator) < RECIPIENTS // 2, "it died too late to prove anything"

        def moved() -> bool:
            return left_behind <= set().union(*leases_taken(history, since).values())

        wait_until(moved, "the move", LEASE_S + 5)
        print(f"moved after {time.monotonic() - died_at:.1f} s")
        fleet.set_faults(simulator)
        await until_completed(worker_pool, SWEPT_WITHIN_S)
        fleet.assert_each_got_one(simulator, RECIPIENTS)
