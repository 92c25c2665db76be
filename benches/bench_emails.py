"""Transactional mail: accepted emails a second through the API with durable claims, beside a bare Sanic app and a boto3 loop.

Method: `mailrail api` and the bare app are processes of their own on one core; PostgreSQL (fsync and synchronous_commit on), the SES
stand-in (TLS, no latency) and the load generator share the others. 64 connections, each sends as soon as it has its answer;
then the same with a request due at half of that rate, for the
time that an answer takes. Only answers 200 with status `sent` count. At the
end the stand-in must have accepted exactly as many mails as were answered, and the ledger must balance. The boto3 loop is one
thread that calls `send_email`, as a program without mailrail would; what it sends is in no database.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import boto3
import orjson
import uvloop
from botocore.config import Config

from benches.bare_app import bare_app
from benches.bench_requests import BARE_APP, cpu_s, postmaster
from benches.machine import describe_machine, median
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.config import Settings
from mailrail.db.pool import connect
from mailrail.wallet import service as wallet
from tests.support import fleet, postgres
from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY
from tests.support.load import Load, http_request, put_load
from tests.support.ports import free_port
from tests.support.processes import descendants, wait_until
from tests.support.simulator import RunningSimulator

CONNECTIONS = 64
EMAILS_PER_SECOND_MIN = 1500
P99_MS_MAX = 50.0
BOTO3_MAILS = 300
MAIL = {
    "to": "user@example.com",
    "from": "you@acme.com",
    "subject": "Your order 4711",
    "html": "<h1>Thank you!</h1><p>Your order is on its way.</p>"
    + "<p>One line of the order, with its price.</p>" * 40,
    "tags": {"type": "order"},
}


def main() -> int:
    """Status 1 when a figure misses its mark."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print(describe_machine())
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as folder:
        os.sched_setaffinity(0, cores[1:] or cores)
        with postgres.cluster_with_template(Path(folder) / "cluster") as cluster:
            database = postgres.clone(cluster, "bench")
            with (
                fleet.simulated(database, Path(folder), {}, event_types=[]) as (settings, simulator),
                fleet.starting("api", settings, Path(folder)) as api,
                bare_app(BARE_APP, free_port(), Path(folder)) as (bare, bare_port),
            ):
                for pid in (api.pid, bare):
                    os.sched_setaffinity(pid, cores[:1])
                key = uvloop.run(make_account(database.worker_url))
                wait_until(lambda: uvloop.run(is_polled(database.worker_url)), "the limiter's figures")
                return uvloop.run(
                    measure(
                        settings,
                        simulator,
                        key,
                        bare_port,
                        (api.pid, postmaster(cluster)),
                        database.worker_url,
                        chosen.seconds,
                        chosen.runs,
                    )
                )


async def measure(
    settings: Settings,
    simulator: RunningSimulator,
    key: str,
    bare_port: int,
    pids: tuple[int, int],
    database_url: str,
    seconds: float,
    runs: int,
) -> int:
    """All ways by turns; the status of the bench."""
    request = http_request("POST", "/api/v1/emails", key, orjson.dumps(MAIL))
    echo = http_request("GET", "/echo/word")
    sent, rates, bare_rates, rival_rates, slow = 0, [], [], [], []
    for _ in range(runs):
        load = await put_load(bare_port, echo, connections=CONNECTIONS, seconds=seconds)
        bare_rates.append(load.per_second)
        print(describe("bare Sanic echo", load), flush=True)
        before = cpu_s({pids[0]}), cpu_s(descendants(pids[1]))
        load = await put_load(settings.port, request, connections=CONNECTIONS, seconds=seconds)
        spent = cpu_s({pids[0]}) - before[0], cpu_s(descendants(pids[1])) - before[1]
        sent += check(load)
        rates.append(load.per_second)
        api_us, database_us = (seconds_spent / len(load.waits_s) * 1e6 for seconds_spent in spent)
        print(f"{describe('POST /emails', load)}, CPU {api_us:.0f} µs, of PostgreSQL {database_us:.0f} µs", flush=True)
        every_s = CONNECTIONS / (load.per_second / 2)
        load = await put_load(settings.port, request, connections=CONNECTIONS, seconds=seconds, every_s=every_s)
        sent += check(load)
        slow.append(load.wait_ms(0.99))
        print(describe("  at half of it", load), flush=True)
        rival_rates.append(await asyncio.to_thread(loop_boto3, settings))
        print(f"{'boto3 loop':18} {rival_rates[-1]:8,.0f} mails/s", flush=True)
    accepted = fleet.accepted_count(simulator)
    assert accepted == sent + runs * BOTO3_MAILS, (accepted, sent)
    connection = await connect(database_url, application_name="bench")
    try:
        assert await wallet.audit(connection) == []
        claims = await connection.fetchval("SELECT count(*) FROM mailrail.claims")
    finally:
        await connection.close()
    rate, p99_ms = median(rates), median(slow)
    print(f"median {rate:,.0f} emails/s (at least {EMAILS_PER_SECOND_MIN:,}); {sent / claims:.1f} mails a commit")
    print(f"at half of the rate p99 {p99_ms:.1f} ms (at most {P99_MS_MAX:.0f})")
    print(f"{rate / median(bare_rates):.2f} of the bare app, {rate / median(rival_rates):.1f} times the boto3 loop")
    return 0 if rate >= EMAILS_PER_SECOND_MIN and p99_ms <= P99_MS_MAX else 1


def check(load: Load) -> int:
    """How many were sent; nothing else may have been answered."""
    assert set(load.statuses) == {200}, load.statuses
    return load.statuses[200]


def describe(name: str, load: Load) -> str:
    """One line of figures."""
    return f"{name:18} {load.per_second:8,.0f} answers/s, p50 {load.wait_ms(0.5):6.1f} ms, p99 {load.wait_ms(0.99):6.1f} ms"


def loop_boto3(settings: Settings) -> float:
    """Mails a second of one thread that uses boto3."""
    ses = boto3.client(
        "sesv2",
        region_name=REGION,
        endpoint_url=settings.ses_endpoint,
        verify=settings.ses_ca_file,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    content = {"Subject": {"Data": MAIL["subject"]}, "Body": {"Html": {"Data": MAIL["html"]}}}
    begun = time.perf_counter()
    for _ in range(BOTO3_MAILS):
        ses.send_email(
            FromEmailAddress=MAIL["from"],
            Destination={"ToAddresses": [MAIL["to"]]},
            Content={"Simple": content},
        )
    return BOTO3_MAILS / (time.perf_counter() - begun)


async def make_account(url: str) -> str:
    """The key of a funded account without a limit of requests."""
    connection = await connect(url, application_name="bench")
    try:
        account = await accounts.create(connection, "Bench", plan=Plan.UNLIMITED)
        await wallet.open_wallet(connection, account.id)
        await wallet.deposit(connection, account.id, 1_000_000_000_000, "bench")
        await connection.execute(
            "INSERT INTO mailrail.domains (account_id, domain, status, verified_at) VALUES ($1, 'acme.com', 'verified', now())",
            account.id,
        )
        _, key = await accounts.create_key(connection, account.id, "bench")
        return key
    finally:
        await connection.close()


async def is_polled(url: str) -> bool:
    """Whether SES has told what it grants."""
    connection = await connect(url, application_name="bench")
    try:
        found: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM mailrail.send_limits WHERE polled_at IS NOT NULL)"
        )
        return found
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
