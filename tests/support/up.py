"""`mailrail up` as a user runs it: all processes, real signals, and the data directory across runs."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.ports import free_port
from tests.support.processes import descendants, wait_until

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
