"""However `up` or one of its processes ends, nothing is left behind and the next start recovers."""

import os
import re
import signal
import subprocess
from pathlib import Path

import orjson
import pytest

from mailrail.up.postgres import running
from tests.support.processes import is_alive, wait_until
from tests.support.up import START_S, started, starting


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


@pytest.mark.long
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
