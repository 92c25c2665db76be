"""What a webhook costs: leased, signed twice, sent and written down, beside a bare aiohttp client that only posts.

Method: `mailrail worker --roles webhooks` and the bare client are processes of their own, PostgreSQL is a third, and the
receiver, which answers as cheaply as it can, is this one. The events of eight accounts come at once; one request in a hundred must
have its signature, and a round counts only if every event arrived once and is settled. The ways take turns.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar, cast

import uvloop

from benches.bench_requests import cpu_s, postmaster
from benches.machine import describe_machine, median
from mailrail.config import Settings
from mailrail.db.pool import Pool, open_pool
from mailrail.sealing import Seal
from mailrail.webhooks import service
from mailrail.webhooks.model import new_secret
from tests.support import postgres
from tests.support.processes import descendants
from tests.support.streams import make_account, make_stream
from tests.support.webhooks import Received, is_signed
from tests.support.workers import working

ACCOUNTS = 8
RATIO_MIN = 0.25
BARE_CLIENT = """
import asyncio, sys, time, aiohttp, uvloop
url, count, body = sys.argv[1], int(sys.argv[2]), b"x" * 350
async def post(http, count):
    for _ in range(count):
        async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
async def main():
    async with aiohttp.ClientSession() as http:
        begun = time.process_time()
        await asyncio.gather(*(post(http, count // 100) for _ in range(100)))
        print((time.process_time() - begun) / count * 1e6)
uvloop.run(main())
"""


class Endpoint(asyncio.Protocol):
    """Answers each request with 200, counts the webhooks, and looks at the signature of one in a hundred."""

    secret = ""
    ids: ClassVar[set[str]] = set()
    signed: ClassVar[list[bool]] = []
    requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's are no subclass of asyncio's.
        self.transport, self.data = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.data += data
        head, _, body = self.data.partition(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.decode().splitlines()[1:])
        }
        if len(body) < int(headers.get("content-length", 1 << 30)):
            return
        if "webhook-id" in headers:
            Endpoint.requests += 1
            Endpoint.ids.add(headers["webhook-id"])
            if Endpoint.requests % 100 == 1:
                Endpoint.signed.append(is_signed(Received("/", headers, body, 0.0), Endpoint.secret))
        self.data = b""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")


def main() -> int:
    """Status 1 when the ratio misses its mark."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--events", type=int, default=8000)
    options.add_argument("--runs", type=int, default=3)
    chosen = options.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="mailrail-bench-") as folder:
        with postgres.cluster_with_template(Path(folder) / "cluster") as cluster:
            database = postgres.clone(cluster, "bench")
            ratio = uvloop.run(
                measure(database.settings(), Path(folder), postmaster(cluster), chosen.events, chosen.runs)
            )
    print(f"{ratio:.2f} of the bare client's requests per second of CPU (at least {RATIO_MIN})")
    return 0 if ratio >= RATIO_MIN else 1


async def measure(settings: Settings, folder: Path, postmaster_pid: int, events: int, runs: int) -> float:
    """The bare client's CPU per request in parts of the dispatcher's."""
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    costs: dict[str, list[float]] = {"bare": [], "dispatcher": []}
    async with await open_pool(settings.worker_database_url, application_name="bench") as pool:
        accounts = await make_endpoints(pool, settings, url)
        with working(settings, folder, roles="webhooks") as (worker,):
            for _ in range(runs):
                costs["bare"].append(await run_bare(url, events))
                streams = await make_streams(pool, accounts, events // ACCOUNTS)
                Endpoint.ids.clear()
                Endpoint.requests = 0
                before, begun_s = (cpu_s({worker.pid}), cpu_s(descendants(postmaster_pid))), time.monotonic()
                await pool.execute(
                    """INSERT INTO events (stream_id, seq, kind, account_id, attempt, at)
                       SELECT stream_id, seq, 2, account_id, 1, now() FROM audience WHERE stream_id = ANY($1::bigint[])""",
                    streams,
                )
                while await pool.fetchval("SELECT EXISTS (SELECT FROM webhook_deliveries WHERE status = 'pending')"):
                    await asyncio.sleep(0.1)
                passed_s = time.monotonic() - begun_s
                assert len(Endpoint.ids) == Endpoint.requests == events, (len(Endpoint.ids), Endpoint.requests)
                assert all(Endpoint.signed)
                costs["dispatcher"].append((cpu_s({worker.pid}) - before[0]) / events * 1e6)
                database_us = (cpu_s(descendants(postmaster_pid)) - before[1]) / events * 1e6
                print(
                    f"{events / passed_s:7,.0f} deliveries/s, CPU {costs['dispatcher'][-1]:4.0f} µs, of PostgreSQL"
                    f" {database_us:4.0f} µs; bare client {costs['bare'][-1]:4.0f} µs",
                    flush=True,
                )
    server.close()
    return median(costs["bare"]) / median(costs["dispatcher"])


async def run_bare(url: str, events: int) -> float:
    """CPU per request in µs."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE_CLIENT, url, str(events), stdout=subprocess.PIPE
    )
    said, _ = await client.communicate()
    return float(said)


async def make_endpoints(pool: Pool, settings: Settings, url: str) -> list[int]:
    """Accounts with one endpoint each, all with one secret."""
    Endpoint.secret, seal = new_secret(), Seal(settings.secret_key, service.PURPOSE)
    accounts = []
    async with pool.acquire() as conn:
        for _ in range(ACCOUNTS):
            account_id = await make_account(conn)
            endpoint_id = await conn.fetchval("SELECT nextval('webhook_endpoint_ids')")
            await conn.execute(
                "INSERT INTO webhook_endpoints (id, account_id, url, events, secret) VALUES ($1, $2, $3, '{*}', $4)",
                endpoint_id,
                account_id,
                url,
                seal.close(Endpoint.secret.encode(), f"{account_id} {endpoint_id}"),
            )
            accounts.append(account_id)
    return accounts


async def make_streams(pool: Pool, accounts: list[int], recipients: int) -> list[int]:
    """A campaign of each account."""
    async with pool.acquire() as conn:
        return [(await make_stream(conn, account_id, recipients)).stream_id for account_id in accounts]


if __name__ == "__main__":
    sys.exit(main())
