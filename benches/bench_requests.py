"""What a request costs before its own work: an authenticated GET of one row, beside a bare Sanic app that echoes.

Method: `mailrail api` and the bare app are processes of their own on one core, PostgreSQL and the load generator on the
others. 32 connections, each sends as soon as it has its answer. Both take turns, in several rounds; only answers 200 count,
and any other fails the bench. `limited` is an account with a limit of requests, set high enough to be never reached;
`unlimited` has none.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import uvloop

from benches.machine import describe_machine, median
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.config import Settings
from mailrail.db.pool import connect
from mailrail.wallet import service as wallet
from tests.support import postgres
from tests.support.fleet import starting
from tests.support.installation import free_port
from tests.support.load import Load, http_request, put_load
from tests.support.processes import wait_until

CONNECTIONS = 32
RATIO_MIN = 0.15
BARE_APP = """
import sys
from sanic import Sanic
from sanic.response import json
app = Sanic("bare", configure_logging=False)
app.config.update(MOTD=False, ACCESS_LOG=False)
@app.get("/echo/<word>")
async def echo(request, word):
    return json({"word": word})
app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False)
"""


def main() -> int:
    """Status 1 when the ratio misses its mark."""
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
            settings = database.settings(port=free_port())
            keys = uvloop.run(make_accounts(database.worker_url))
            with (
                starting("api", settings, Path(folder)) as api,
                bare_app(free_port(), Path(folder)) as (bare, bare_port),
            ):
                for pid in (api.pid, bare):
                    os.sched_setaffinity(pid, cores[:1])
                rates = uvloop.run(measure(settings, keys, bare_port, chosen.seconds, chosen.runs))
    ratio = median(rates["unlimited"]) / median(rates["bare"])
    print(f"an account without limit: {ratio:.2f} of the bare app (at least {RATIO_MIN})")
    return 0 if ratio >= RATIO_MIN else 1


async def measure(
    settings: Settings, keys: dict[str, str], bare_port: int, seconds: float, runs: int
) -> dict[str, list[float]]:
    """Requests per second of each way, in each run."""
    ways = {"bare": (bare_port, http_request("GET", "/echo/word"))}
    for name, key in keys.items():
        list_id = await make_list(settings.port, key)
        ways[name] = (settings.port, http_request("GET", f"/api/v1/lists/{list_id}", key))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, (port, request) in ways.items():
            load = await put_load(port, request, connections=CONNECTIONS, seconds=seconds)
            assert set(load.statuses) == {200}, load.statuses
            rates[name].append(load.per_second)
            print(describe(name, load), flush=True)
    return rates


def describe(name: str, load: Load) -> str:
    """One line of figures."""
    return f"{name:10} {load.per_second:8,.0f} requests/s, p50 {load.wait_ms(0.5):6.2f} ms, p99 {load.wait_ms(0.99):6.2f} ms"


async def make_accounts(url: str) -> dict[str, str]:
    """A key of each kind of account."""
    connection = await connect(url, application_name="bench")
    try:
        keys = {}
        for plan in (Plan.ENTERPRISE, Plan.UNLIMITED):
            account = await accounts.create(connection, plan, plan=plan)
            await wallet.open_wallet(connection, account.id)
            _, keys[plan] = await accounts.create_key(connection, account.id, "bench")
        return keys
    finally:
        await connection.close()


async def make_list(port: int, key: str) -> str:
    """The id of a new list."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(http_request("POST", "/api/v1/lists", key, orjson.dumps({"name": "Bench"})))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    answer = orjson.loads(await reader.readexactly(length))
    writer.close()
    return str(answer["id"])


@contextlib.contextmanager
def bare_app(port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """(process id, port) of the bare app while the block runs."""
    with (folder / "bare.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", BARE_APP, str(port)], stdout=log, stderr=log)

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_up, "the start of the bare app")
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
