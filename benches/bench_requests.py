"""What a request costs before its own work: an authenticated GET of one row, beside a bare Sanic app that echoes.

Method: `mailrail api` and the bare app are processes of their own on one core, PostgreSQL and the load generator on the
others. 32 connections, each sends as soon as it has its answer. The ways take turns, in several rounds; an answer of another
status fails the bench. `unlimited` is an account without a limit of requests; `counted` has one that is never reached (its
window begins far below zero); `refused` has used its window up.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import orjson
import uvloop

from benches.bare_app import bare_app
from benches.machine import describe_machine, median
from mailrail.accounts import service as accounts
from mailrail.accounts.model import Plan
from mailrail.db.pool import connect
from mailrail.up.postgres import Cluster
from mailrail.wallet import service as wallet
from tests.support import postgres
from tests.support.fleet import starting
from tests.support.load import http_request, put_load
from tests.support.ports import free_port
from tests.support.processes import descendants

CONNECTIONS = 32
RATIO_MIN = 0.12
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
            keys = uvloop.run(make_accounts(database.superuser_url))
            with (
                starting("api", settings, Path(folder)) as api,
                bare_app(BARE_APP, free_port(), Path(folder)) as (bare, bare_port),
            ):
                for pid in (api.pid, bare):
                    os.sched_setaffinity(pid, cores[:1])
                ports = {"bare": (bare_port, bare)} | dict.fromkeys(keys, (settings.port, api.pid))
                costs = uvloop.run(measure(ports, keys, postmaster(cluster), chosen.seconds, chosen.runs))
    ratio = median(costs["bare"]) / median(costs["unlimited"])
    print(f"an account without limit: {ratio:.2f} of the bare app's requests per second of CPU (at least {RATIO_MIN})")
    return 0 if ratio >= RATIO_MIN else 1


async def measure(
    servers: dict[str, tuple[int, int]], keys: dict[str, str], postmaster_pid: int, seconds: float, runs: int
) -> dict[str, list[float]]:
    """CPU of the server per request in µs, of each way in each run. `servers` has port and process id of each way."""
    requests = {"bare": http_request("GET", "/echo/word")}
    for name, key in keys.items():
        requests[name] = http_request("GET", f"/api/v1/lists/{await make_list(servers[name][0], key)}", key)
    costs: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(runs):
        for name, (port, pid) in servers.items():
            before = cpu_s({pid}), cpu_s(descendants(postmaster_pid))
            load = await put_load(port, requests[name], connections=CONNECTIONS, seconds=seconds)
            assert set(load.statuses) == {429 if name == "refused" else 200}, load.statuses
            server_us = (cpu_s({pid}) - before[0]) / len(load.waits_s) * 1e6
            database_us = (cpu_s(descendants(postmaster_pid)) - before[1]) / len(load.waits_s) * 1e6
            costs[name].append(server_us)
            print(
                f"{name:10} {load.per_second:8,.0f} requests/s, p50 {load.wait_ms(0.5):6.2f} ms, p99 {load.wait_ms(0.99):6.2f} ms,"
                f" CPU {server_us:5.0f} µs, of PostgreSQL {database_us:5.0f} µs",
                flush=True,
            )
    return costs


def cpu_s(pids: set[int]) -> float:
    """Seconds that living processes have spent, in user mode and in the kernel (proc(5), fields 14 and 15)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def postmaster(cluster: Cluster) -> int:
    """Its process id."""
    return int((cluster.directory / "postmaster.pid").read_text().split()[0])


async def make_accounts(url: str) -> dict[str, str]:
    """A key of each kind of account."""
    connection = await connect(url, application_name="bench")
    try:
        await connection.execute("SET search_path = mailrail")
        keys = {}
        for name, plan, used in (
            ("unlimited", Plan.UNLIMITED, 0),
            ("counted", Plan.STARTER, -(10**9)),
            ("refused", Plan.STARTER, 99),
        ):
            account = await accounts.create(connection, name, plan=plan)
            await wallet.open_wallet(connection, account.id)
            _, keys[name] = await accounts.create_key(connection, account.id, "bench")
            # Begun in a while, so that it outlasts the bench.
            await connection.execute(
                "INSERT INTO request_windows VALUES ($1, now() + interval '50 s', $2)", account.id, used
            )
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


if __name__ == "__main__":
    sys.exit(main())
