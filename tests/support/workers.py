"""Real `mailrail worker` processes on a database of the tests."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mailrail.config import Settings, variable
from tests.support.processes import wait_until

START_S = 30.0
STOP_S = 30.0


def environment(settings: Settings) -> dict[str, str]:
    """Ours, with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILRAIL_")}
    return clean | {
        variable(field.name): text(value)
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    }


def text(value: object) -> str:
    """A setting as one writes it into the environment."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


@contextlib.contextmanager
def working(
    settings: Settings, folder: Path, count: int = 1, roles: str = ""
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """So many workers, ready; told to end at the end, and killed if they do not."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mailrail", "worker", *(["--roles", roles] if roles else [])]
    workers = []
    try:
        for number in range(count):
            with (folder / f"worker-{number}.log").open("wb") as log:
                workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment(settings)))
        for number, worker in enumerate(workers):
            log_file = folder / f"worker-{number}.log"
            wait_until(lambda: b"ready" in log_file.read_bytes() or worker.poll() is not None, "the start", START_S)  # noqa: B023
            assert worker.poll() is None, log_file.read_text()
        yield workers
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            try:
                worker.wait(STOP_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
