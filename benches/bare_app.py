"""An app of bare Sanic, in a process of its own, to compare with."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import wait_until


@contextlib.contextmanager
def bare_app(source: str, port: int, folder: Path) -> Iterator[tuple[int, int]]:
    """(process id, port) of the program `source`, which is told its port, while the block runs."""
    with (folder / "bare.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", source, str(port)], stdout=log, stderr=log)

    def is_up() -> bool:
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_up, "the start of the bare app")
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
