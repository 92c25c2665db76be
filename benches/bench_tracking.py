"""What an open and a click cost: /o and /c beside bare Sanic routes that give the same answers, and whether every one is stored.

Method: `mailrail api` and the bare app are processes of their own on one core, PostgreSQL and the load generator on the others.
32 connections, each sends as soon as it has its answer, every request with a token of its own. The ways take turns, in several
rounds, and what counts is the server's CPU per request, which includes writing the events down. An answer of another status
fails the bench, and so does an event that is not in the database two seconds after the load. Meanwhile a probe opens a mail of
its own every 50 ms and waits until the event is committed.
"""

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import uvloop

from benches.bare_app import bare_app
from benches.bench_requests import cpu_s
from benches.machine import describe_machine, median
from mailrail._core import Codec
from mailrail.db.pool import connect
from mailrail.tracking.routes import PIXEL, UNCACHED
from tests.support import postgres
from tests.support.fleet import starting
from tests.support.load import put_load
from tests.support.ports import free_port
from tests.support.streams import TestStream, make_account, make_stream

CONNECTIONS = 32
RATIO_MIN = 0.6
STORED_WITHIN_S = 2.0
# More than a second's requests, or two would be one.
RECIPIENTS = 50_000
# The probes' own, behind the others.
PROBES = 2_000
PROBE_EVERY_S = 0.05
LINKS = 8
URL = "https://example.com/spring/offer?utm_source=newsletter&utm_campaign=march"
AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
BARE_APP = f"""
import sys
from sanic import Sanic
from sanic.response import HTTPResponse, empty
app = Sanic("bare", configure_logging=False)
app.config.update(MOTD=False, ACCESS_LOG=False)
PIXEL, UNCACHED = {PIXEL!r}, {UNCACHED!r}
@app.get("/o/<token>")
async def opened(request, token):
    return HTTPResponse(PIXEL, headers=UNCACHED, content_type="image/gif")
@app.get("/c/<token>/<link>")
async def clicked(request, token, link):
    return empty(302, headers={{**UNCACHED, "Location": {URL!r}}})
app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False)
"""


@dataclass(slots=True)
class Found:
    """What the turns of one way came to: CPU of the server per request in µs; how long probes waited for their events."""

    costs_us: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    answered: int = 0


def main() -> int:
    """Status 1 when a ratio or a probe misses its mark."""
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
            found = uvloop.run(bench(database, Path(folder), cores[0], chosen.seconds, chosen.runs))
    met = True
    for kind in ("open", "click"):
        ratio = median(found[f"bare {kind}"].costs_us) / median(found[kind].costs_us)
        waits = sorted(found[kind].waits_s)
        p99_s = waits[math.ceil(0.99 * len(waits)) - 1]
        print(
            f"{kind}: {1e6 / median(found[kind].costs_us):,.0f} requests per second of CPU, {ratio:.2f} of the bare route's"
            f" (at least {RATIO_MIN}); all {found[kind].answered:,} stored, from request to commit p50"
            f" {median(waits) * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms (at most {STORED_WITHIN_S * 1000:.0f})"
        )
        met = met and ratio >= RATIO_MIN and p99_s <= STORED_WITHIN_S
    return 0 if met else 1


async def bench(database: postgres.Database, folder: Path, core: int, seconds: float, runs: int) -> dict[str, Found]:
    """Every way in each run."""
    settings = database.settings(port=free_port())
    conn = await connect(database.superuser_url, application_name="bench")
    await conn.execute("SET search_path = mailrail")
    stream = await fill(conn)
    ways = requests_of(Codec(settings.secret_key.encode()), stream)
    found = {f"{bare}{kind}": Found() for kind in ways for bare in ("bare ", "")}
    with starting("api", settings, folder) as api, bare_app(BARE_APP, free_port(), folder) as (bare_pid, bare_port):
        for pid in (api.pid, bare_pid):
            os.sched_setaffinity(pid, {core})
        probes = itertools.cycle(range(RECIPIENTS + 1, RECIPIENTS + PROBES + 1))
        codec = Codec(settings.secret_key.encode())
        for _ in range(runs):
            for way, one in found.items():
                is_bare = way.startswith("bare")
                port, pid = (bare_port, bare_pid) if is_bare else (settings.port, api.pid)
                before_s, before = cpu_s({pid}), await count(conn, stream)
                probing = None if is_bare else asyncio.create_task(probe(conn, stream, codec, port, probes, one))
                load = await put_load(port, ways[way.split()[-1]], connections=CONNECTIONS, seconds=seconds)
                probed = 0
                if probing is not None:
                    probing.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await probing
                    probed = len(one.waits_s)
                assert set(load.statuses) == {302 if way.endswith("click") else 200}, load.statuses
                if not is_bare:
                    one.answered += len(load.waits_s)
                    await all_stored(conn, stream, before + len(load.waits_s))
                cost_us = (cpu_s({pid}) - before_s) / (len(load.waits_s) + probed) * 1e6
                one.costs_us.append(cost_us)
                print(
                    f"{way:10} {load.per_second:8,.0f} requests/s, p50 {load.wait_ms(0.5):6.2f} ms,"
                    f" p99 {load.wait_ms(0.99):6.2f} ms, CPU {cost_us:5.0f} µs",
                    flush=True,
                )
    await conn.close()
    return found


async def fill(conn: asyncpg.Connection) -> TestStream:
    """A campaign that was sent, with links."""
    async with conn.transaction():
        stream = await make_stream(conn, await make_account(conn), RECIPIENTS + PROBES)
        await conn.executemany(
            "INSERT INTO links (stream_id, n, account_id, url) VALUES ($1, $2, $3, $4)",
            [(stream.stream_id, n, stream.account_id, URL) for n in range(1, LINKS + 1)],
        )
    return stream


def requests_of(codec: Codec, stream: TestStream) -> dict[str, Iterator[bytes]]:
    """Requests without end, by kind."""
    tokens = [codec.track_token(stream.stream_id, seq) for seq in range(1, RECIPIENTS + 1)]
    return {
        "open": itertools.cycle([request(f"/o/{token}") for token in tokens]),
        "click": itertools.cycle([request(f"/c/{token}/{n % LINKS + 1}") for n, token in enumerate(tokens)]),
    }


def request(path: str) -> bytes:
    """As a browser makes it."""
    return f"GET {path} HTTP/1.1\r\nHost: mailrail\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\n\r\n".encode()


async def count(conn: asyncpg.Connection, stream: TestStream) -> int:
    """Events stored of all but the probes."""
    stored: int = await conn.fetchval(
        "SELECT count(*) FROM events WHERE stream_id = $1 AND seq <= $2", stream.stream_id, RECIPIENTS
    )
    return stored


async def all_stored(conn: asyncpg.Connection, stream: TestStream, expected: int) -> None:
    """Waits until all are there; it may not take longer than a single one."""
    begun = time.perf_counter()
    while (stored := await count(conn, stream)) < expected:
        assert time.perf_counter() - begun < STORED_WITHIN_S, f"{expected - stored} of {expected} events are missing"
        await asyncio.sleep(0.05)
    assert stored == expected, f"{stored} events of {expected} requests"


async def probe(
    conn: asyncpg.Connection, stream: TestStream, codec: Codec, port: int, seqs: Iterator[int], found: Found
) -> None:
    """Opens one mail after the other, and notes how long each took to be committed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for seq in seqs:
            before = await stored_of(conn, stream, seq)
            begun = time.perf_counter()
            writer.write(request(f"/o/{codec.track_token(stream.stream_id, seq)}"))
            while await stored_of(conn, stream, seq) == before:
                await asyncio.sleep(0.005)
            found.waits_s.append(time.perf_counter() - begun)
            await reader.read(65536)
            await asyncio.sleep(PROBE_EVERY_S)
    finally:
        writer.close()


async def stored_of(conn: asyncpg.Connection, stream: TestStream, seq: int) -> int:
    """Events of one mail."""
    stored: int = await conn.fetchval(
        "SELECT count(*) FROM events WHERE stream_id = $1 AND seq = $2", stream.stream_id, seq
    )
    return stored


if __name__ == "__main__":
    sys.exit(main())
