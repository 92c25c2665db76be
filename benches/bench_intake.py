"""Signed notifications of SNS through the real API over sockets, each posted twice, while the API is killed once.

Method: `mailrail api` is one process (or as many as `--processes` says, each on a port of its own), PostgreSQL and the generator
have the rest of the machine, and with `--apply` a worker applies and folds meanwhile. The envelopes are genuine: RSA signatures of
version 2 over a Delivery event of some 2 KB, made before anything is timed. 64 connections, each posts as soon as it has its
answer. In the middle of the last run an API process is ended by SIGKILL and started again; what got no answer is posted again.
Afterwards every envelope that got a 200 must be stored once and, once the applier is through, its mail must have its event.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import uvloop

from benches.machine import describe_machine
from mailrail._core import Codec
from mailrail.config import SIMULATOR_TOPIC_ARN, Settings
from mailrail.db.pool import Connection, connect
from tests.support import postgres
from tests.support.fleet import Process, starting
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import is_alive
from tests.support.sns import Authority, Posted, certified, post_all, post_request
from tests.support.streams import make_account, make_stream
from tests.support.workers import working

CONNECTIONS = 64
RATE_MIN = 1500
P99_MAX_MS = 200
APPLY_TIMEOUT_S = 300
KEPT_HEADERS = 12


def main() -> int:
    """Status 1 when a mark is missed."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--envelopes", type=int, default=10_000, help="different ones; each is posted twice")
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--connections", type=int, default=CONNECTIONS)
    options.add_argument("--apply", action="store_true", help="apply and fold while they come")
    chosen = options.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as name, certified() as authority:
        folder = Path(name)
        with postgres.cluster_with_template(folder / "cluster") as cluster:
            database = postgres.clone(cluster, "bench")
            return measure(database, folder, authority, chosen)


def measure(database: Database, folder: Path, authority: Authority, chosen: argparse.Namespace) -> int:
    """Two runs: one undisturbed, and one in which the API is killed."""
    settings = database.settings(
        sns_topics=(SIMULATOR_TOPIC_ARN,),
        sns_cert_hosts=(authority.host,),
        sns_ca_file=authority.write(folder / "authority.pem"),
    )
    stream_id = uvloop.run(make_mails(database.worker_url, 2 * chosen.envelopes))
    begun = time.perf_counter()
    requests = [envelope_of(authority, settings, stream_id, seq) for seq in range(1, 2 * chosen.envelopes + 1)]
    print(
        f"{len(requests):,} envelopes of {len(requests[0]):,} bytes signed before, in {time.perf_counter() - begun:.0f} s"
    )
    halves = requests[: chosen.envelopes], requests[chosen.envelopes :]
    missed = 0
    with contextlib.ExitStack() as running:
        if chosen.apply:
            running.enter_context(working(settings, folder / "worker", roles="apply,fold"))
        apis = [
            (port, running.enter_context(starting("api", replace(settings, port=port), folder)))
            for port in [free_port() for _ in range(chosen.processes)]
        ]
        posted = run("undisturbed", apis, halves[0], chosen.connections)
        missed += report_missed(posted)
        with killed_in_the_middle(apis[0], replace(settings, port=apis[0][0]), folder, running, posted.seconds / 2):
            again = run("killed once", apis, halves[1], chosen.connections)
    taken = {seq + 1 for seq in posted.taken} | {chosen.envelopes + seq + 1 for seq in again.taken}
    with working(settings, folder / "after", roles="apply,fold"):
        return missed + uvloop.run(count_lost(database.worker_url, stream_id, taken))


def envelope_of(authority: Authority, settings: Settings, stream_id: int, seq: int) -> bytes:
    """The Delivery of one mail, as SES and SNS write it."""
    address = f"p{stream_id}-{seq}@example.net"
    headers = [{"name": f"X-Header-{n}", "value": "some words of the usual length"} for n in range(KEPT_HEADERS)]
    event = {
        "eventType": "Delivery",
        "mail": {
            "timestamp": "2026-11-23T16:39:28.123Z",
            "source": "Acme <news@acme.com>",
            "messageId": f"0100019abc-{seq:08}-000000",
            "destination": [address],
            "headersTruncated": False,
            "headers": headers,
            "tags": {
                "ses:configuration-set": ["mailrail"],
                "ses:caller-identity": ["mailrail"],
                "mr": [CODEC.tag(stream_id, seq, 1)],
            },
        },
        "delivery": {
            "timestamp": "2026-11-23T16:39:32.000Z",
            "processingTimeMillis": 546,
            "recipients": [address],
            "smtpResponse": "250 2.6.0 Message received",
            "reportingMTA": "a8-70.smtp-out.amazonses.com",
        },
    }
    return post_request(authority.envelope(f"{stream_id}-{seq}", orjson.dumps(event).decode()))


CODEC = Codec(postgres.SECRET.encode())


def run(name: str, apis: list[tuple[int, Process]], requests: list[bytes], connections: int) -> Posted:
    """One run, and its line."""
    before, cpu_before = resource.getrusage(resource.RUSAGE_SELF), sum(cpu_s(process.pid) for _, process in apis)
    posted = uvloop.run(post_all([port for port, _ in apis], requests, connections))
    after = resource.getrusage(resource.RUSAGE_SELF)
    generator_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cpu = sum(cpu_s(process.pid) for _, process in apis) - cpu_before
    api = (
        f"{cpu / len(posted.waits_s) * 1e6:.0f} µs" if all(is_alive(process.pid) for _, process in apis) else "unknown"
    )
    assert posted.taken == set(range(len(requests))), f"{len(requests) - len(posted.taken)} were never taken"
    print(
        f"{name}: {posted.per_second:,.0f} posts/s for {posted.seconds:.1f} s, p50 {posted.wait_ms(0.5):.1f} ms, "
        f"p99 {posted.wait_ms(0.99):.1f} ms, CPU of the API {api} a post, generator "
        f"{generator_s / posted.seconds * 100:.0f} % of a core, answers {dict(posted.statuses)}, {posted.lost} without an answer",
        flush=True,
    )
    return posted


def report_missed(posted: Posted) -> int:
    """1 where a mark is missed."""
    print(f"marks: at least {RATE_MIN:,} posts/s, p99 at most {P99_MAX_MS} ms")
    return int(posted.per_second < RATE_MIN or posted.wait_ms(0.99) > P99_MAX_MS)


@contextlib.contextmanager
def killed_in_the_middle(
    api: tuple[int, Process], settings: Settings, folder: Path, running: contextlib.ExitStack, after_s: float
) -> Iterator[None]:
    """SIGKILL after so many seconds of the block, and another process in its place at once."""

    def kill() -> None:
        time.sleep(after_s)
        api[1].end(signal.SIGKILL)
        running.enter_context(starting("api", settings, folder))

    killer = threading.Thread(target=kill)
    killer.start()
    yield
    killer.join()


def cpu_s(pid: int) -> float:
    """Seconds that a process has spent, in user mode and in the kernel (proc(5), fields 14 and 15); 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def make_mails(url: str, mails: int) -> int:
    """A stream of so many."""
    connection = await connect(url, application_name="bench")
    try:
        stream = await make_stream(
            connection, await make_account(connection, funds_micros=10**12), mails, shard_size=5000
        )
    finally:
        await connection.close()
    return stream.stream_id


async def count_lost(url: str, stream_id: int, taken: set[int]) -> int:
    """1 if something that was taken is not stored, or is not applied in the end."""
    connection: Connection = await connect(url, application_name="bench")
    try:
        stored = await connection.fetchval("SELECT count(*) FROM notifications")
        begun = time.perf_counter()
        while await connection.fetchval("SELECT EXISTS (SELECT FROM notification_queue)"):
            assert time.perf_counter() - begun < APPLY_TIMEOUT_S, "the applier did not come to an end"
            await asyncio.sleep(0.1)
        rows = await connection.fetch(
            "SELECT seq, count(*) AS n FROM events WHERE stream_id = $1 GROUP BY seq", stream_id
        )
    finally:
        await connection.close()
    applied = {row["seq"]: row["n"] for row in rows}
    lost, doubled = taken - applied.keys(), sum(n > 1 for n in applied.values())
    print(
        f"{len(taken):,} taken, {stored:,} stored, {len(applied):,} applied {time.perf_counter() - begun:.1f} s later, "
        f"{len(lost)} lost, {doubled} doubled"
    )
    return int(bool(lost) or doubled > 0 or stored != len(taken))


if __name__ == "__main__":
    sys.exit(main())
