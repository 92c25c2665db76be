"""`mailrail up` as a user runs it: all processes, real signals, and the data directory across runs."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from mailrail.up.installation import attach
from mailrail.up.postgres import Cluster, running
from tests.support.postgres import SECRET
from tests.support.processes import descendants, is_alive, wait_until

START_S = 60
RUNNING = "Press Ctrl-C to stop."


@dataclass(frozen=True, slots=True)
class Up:
    """A running `mailrail up`."""

    process: "subprocess.Popen[bytes]"
    home: Path
    output: Path
    port: int

    def text(self) -> str:
        """All that it printed."""
        return self.output.read_text()

    def family(self) -> set[int]:
        """The processes that it started."""
        return descendants(self.process.pid)

    def end(self, which: signal.Signals) -> int:
        """Signal it and wait for its status."""
        self.process.send_signal(which)
        return self.process.wait(60)


def free_port() -> int:
    """A port for the API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def environment(home: Path, variables: dict[str, str]) -> dict[str, str]:
    """Ours without any setting that the tester happens to have."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILRAIL_")}
    return clean | {"MAILRAIL_UP_DATA": str(home)} | variables


@contextlib.contextmanager
def starting(home: Path, *arguments: str, **variables: str) -> Iterator[Up]:
    """`mailrail up`, not yet ready; killed at the end if it still runs."""
    home.parent.mkdir(parents=True, exist_ok=True)
    output = home.parent / f"output-{time.monotonic_ns()}"
    port = free_port()
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailrail", "up", "--port", str(port), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(home, variables),
        )
    up = Up(process, home, output, port)
    try:
        yield up
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def started(home: Path, *arguments: str, **variables: str) -> Iterator[Up]:
    """`mailrail up`, running."""
    with starting(home, *arguments, **variables) as up:
        wait_until(lambda: RUNNING in up.text() or up.process.poll() is not None, "the start", START_S)
        assert RUNNING in up.text(), up.text()
        yield up


def finish(home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`mailrail up` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mailrail", "up", "--port", str(free_port()), *arguments],
        capture_output=True,
        text=True,
        env=environment(home, variables),
        timeout=120,
    )


def mailrail(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Another command beside a running `up`."""
    command = [sys.executable, "-m", "mailrail", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(home, {}), timeout=60)


async def fetch(url: str, statement: str) -> Sequence[Any]:
    """Rows as the superuser."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def test_the_demo_settles_and_a_second_run_reuses_it(home: Path, tmp_path: Path) -> None:
    summaries = []
    printed = ""
    for recipients in (100, 150):
        file = tmp_path / f"{recipients}.json"
        done = finish(home, "--demo", "--recipients", str(recipients), "--exit", "--summary", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        figures = orjson.loads(file.read_bytes())
        assert figures["recipients"] == recipients
        assert figures["delivered"] == recipients * 98 // 100
        assert figures["bounced"] == recipients * 2 // 100
        assert figures["open"] == figures["failed"] == figures["skipped"] == 0
        assert figures["held_micros"] == recipients * 300
        assert figures["captured_micros"] == figures["delivered"] * 300
        assert figures["released_micros"] == figures["held_micros"] - figures["captured_micros"]
        assert 0 < figures["seconds"] <= figures["settle_seconds"]
        summaries.append(figures)
        printed = done.stdout
    assert "using the demo account of last time" in printed
    with running(home) as cluster:
        url = cluster.url("mailrail")
        assert len(await fetch(url, "SELECT FROM mailrail.accounts")) == 1
        keys = await fetch(url, "SELECT prefix, revoked_at IS NULL AS active FROM mailrail.api_keys ORDER BY id")
        assert [row["active"] for row in keys] == [False, True]
        assert [summary["api_key"].startswith(row["prefix"]) for summary, row in zip(summaries, keys, strict=True)]
        addresses = await fetch(url, "SELECT count(*) FROM mailrail.contacts WHERE email LIKE 'bounce%'")
        assert addresses[0][0] == 5
        assert (await fetch(url, "SELECT sum(amount_micros) FROM mailrail.postings"))[0][0] == 0


def test_the_printed_curl_works_and_an_interrupt_leaves_nothing(home: Path) -> None:
    with started(home, "--demo", "--recipients", "20") as up:
        curl = re.search(r"^ +(curl .*?\}')$", up.text(), re.MULTILINE | re.DOTALL)
        assert curl is not None, up.text()
        answered = subprocess.run(["bash", "-c", f"{curl[1]} -s -f"], capture_output=True, text=True)
        assert answered.returncode == 0, answered.stderr
        assert orjson.loads(answered.stdout)["status"] == "subscribed"
        family = up.family()
        assert len(family) > 4
        assert up.end(signal.SIGINT) == 0
        assert not [pid for pid in family if is_alive(pid)]
        assert "killed" not in up.text()
    with running(home):
        pass


def test_a_kill_leaves_no_process_and_the_next_run_recovers(home: Path) -> None:
    with starting(home, "--demo", "--recipients", "2000") as up:
        wait_until(lambda: "sending" in up.text() or up.process.poll() is not None, "the campaign", START_S)
        family = up.family()
        assert len(family) > 4, up.text()
        up.process.kill()
        up.process.wait()
        assert wait_until(lambda: not any(map(is_alive, family)), "the end of all processes", 10) < 2
    with started(home, "--demo", "--recipients", "20") as up:
        assert up.end(signal.SIGTERM) == 0


def test_a_killed_worker_comes_back_and_a_dead_server_ends_all(home: Path) -> None:
    with started(home) as up:
        worker = next(pid for pid in up.family() if b"\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "the worker ended (SIGKILL) and starts again" in up.text(), "the notice")
        log = home / "logs" / "worker.log"
        wait_until(lambda: log.read_text().count("ready\n") == 2, "the second start")
        server = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGKILL)
        assert up.process.wait(30) == 2
        assert "mailrail: the postgres ended (SIGKILL)" in up.text()
        assert "Traceback" not in up.text()


def test_the_operators_commands_find_a_running_up(home: Path) -> None:
    with started(home):
        assert mailrail(home, "doctor").returncode == 0, mailrail(home, "doctor").stdout
        made = mailrail(home, "account", "create", "Acme")
        assert made.stdout.startswith("acc_")
        assert mailrail(home, "key", "create", "Acme").stdout.startswith("sk_live_")
        assert "$12.50" in mailrail(home, "wallet", "deposit", made.stdout.strip(), "12.50").stdout
        again = finish(home)
        assert again.returncode == 2
        assert re.fullmatch(r"mailrail: another `mailrail up` \(process \d+\) runs on .*\n", again.stderr)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (
            ["--database", "postgresql://me@127.0.0.1:1/mail"],
            {},
            "cannot connect to PostgreSQL at postgresql://me@127.0.0.1:1/mail",
        ),
        (["--database", "mysql://h/d"], {}, "MAILRAIL_DATABASE_URL must look like"),
        (["--ses", "https://email.us-east-1.amazonaws.com"], {}, "sending to AWS needs the send engine's fence"),
        ([], {"MAILRAIL_LEASE_S": "never"}, "MAILRAIL_LEASE_S must be a number"),
        ([], {"MAILRAIL_LEASES": "1"}, "MAILRAIL_LEASES is not a setting"),
        (["--recipients", "none"], {}, "--recipients must be a whole number"),
    ],
)
def test_a_wrong_start_is_one_sentence(home: Path, arguments: list[str], variables: dict[str, str], words: str) -> None:
    done = finish(home, *arguments, **variables)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout


def test_a_port_in_use_is_one_sentence(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = finish(home, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"mailrail: port {port} on 127.0.0.1 is in use or not ours to use; choose another one with --port\n"
    )


def test_time_that_runs_out_is_status_1_with_what_is_open(home: Path) -> None:
    done = finish(home, "--demo", "--recipients", "100", "--timeout", "0.5")
    assert done.returncode == 1
    assert "The demo did not finish within 0.5 s. It was at" in done.stdout


async def test_an_outside_database_and_endpoint(home: Path, cluster: Cluster) -> None:
    from mailrail.up.postgres import ensure_database

    await ensure_database(cluster, "outside")
    done = finish(
        home, "--demo", "--recipients", "50", "--exit", "--database", cluster.url("outside"), MAILRAIL_SECRET_KEY=SECRET
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (home / "postgres").exists()
    assert attach({"MAILRAIL_UP_DATA": str(home)}) == {}
