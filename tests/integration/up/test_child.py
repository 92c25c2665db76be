"""Children: how they start, tell that they are ready, and go with their parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mailrail.up.child import Child, launch_command
from tests.support.processes import is_alive, wait_until

PARENT = """
import os, sys, time
from pathlib import Path
from mailrail.up.child import Child
child = Child("sleeper", ["sleep", "600"], os.environ, Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def child(tmp_path: Path, code: str) -> Child:
    """A started child that runs a few lines of Python."""
    made = Child("child", [sys.executable, "-u", "-c", code], os.environ, tmp_path / "logs" / "child.log")
    made.start()
    return made


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not is_alive(pid), "the end of the child") < 1


def test_a_child_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    command = launch_command(["touch", str(tmp_path / "started")], signal.SIGKILL, "plain")
    command[5] = "1"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the parent is gone" in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_child_has_a_session_of_its_own(tmp_path: Path) -> None:
    made = child(tmp_path, "import time; time.sleep(60)")
    wait_until(lambda: os.getsid(made.pid) == made.pid, "the session")
    assert os.getpgid(made.pid) != os.getpgid(0)
    made.send(signal.SIGKILL)
    assert made.wait(5)
    assert made.status() == -signal.SIGKILL


@pytest.mark.parametrize(("line", "port"), [("ready", 0), ("ready 8026", 8026)])
def test_the_ready_line_is_seen_among_others(tmp_path: Path, line: str, port: int) -> None:
    made = child(tmp_path, f"print('not ready 1'); print('{line}'); print('later')")
    assert made.wait(10)
    assert made.ready_port() == port


def test_a_second_start_does_not_see_the_first_ones_output(tmp_path: Path) -> None:
    first = child(tmp_path, "print('ready 1')")
    assert first.wait(10)
    second = child(tmp_path, "print('starting')")
    assert second.wait(10)
    assert second.ready_port() is None
    assert second.output() == "starting\n"
    assert second.log_file.read_text() == "ready 1\nstarting\n"


def test_the_last_lines_are_kept(tmp_path: Path) -> None:
    made = child(tmp_path, "import sys; print('\\n'.join(map(str, range(100)))); sys.exit('why')")
    assert made.wait(10)
    assert made.status() == 1
    assert made.last_lines(2) == "99\nwhy"


def test_a_program_that_does_not_exist_ends_the_child(tmp_path: Path) -> None:
    made = Child("child", ["/no/such/program"], os.environ, tmp_path / "log")
    made.start()
    assert made.wait(10)
    assert made.status() != 0
