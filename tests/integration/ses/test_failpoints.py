"""Processes that die or freeze at each point of a call: what reached SES, and what their history says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.simulator import RunningSimulator, simulating

REPOSITORY = Path(__file__).resolve().parents[3]
ROWS = 50
POINTS = ["call.rendered", "call.signed", "call.checked", "call.written", "call.answered"]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with simulating(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@contextmanager
def sending(
    simulator: RunningSimulator, history: Path, menu: str, scheme: str = "https"
) -> Iterator[subprocess.Popen[str]]:
    """A process that sends one call under a menu of failpoints; gone at the end, however it stands then."""
    command = [
        sys.executable,
        "-m",
        "tests.support.one_round",
        f"{scheme}://127.0.0.1:{simulator.port}",
        str(simulator.directory / "ca.pem"),
        str(ROWS),
    ]
    with subprocess.Popen(
        command,
        env={**os.environ, "MAILRAIL_TEST_HISTORY": str(history), "MAILRAIL_TEST_FAILPOINTS": menu},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def armed(point: str, end: str, chance: float = 1) -> str:
    """A menu with one failpoint."""
    return orjson.dumps({"points": {point: {end: chance}}}).decode()


def records(history: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in history.read_bytes().splitlines()]


def accepted(simulator: RunningSimulator) -> int:
    return int(simulator.get("accepted?limit=0")["total"])


def wait_for_accepted(simulator: RunningSimulator, count: int) -> None:
    """SES reads what the dead have sent in its own time."""
    end = time.monotonic() + 5
    while accepted(simulator) != count and time.monotonic() < end:
        time.sleep(0.01)
    assert accepted(simulator) == count


def wait_until_frozen(process: subprocess.Popen[str]) -> None:
    """Until SIGSTOP has stopped all of it."""
    changed = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert changed is not None
    assert changed.si_status == signal.SIGSTOP


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_point_leaves_what_the_point_says(simulator: RunningSimulator, tmp_path: Path, point: str) -> None:
    history = tmp_path / "history"
    before = accepted(simulator)
    # Without TLS, whose first answer may lie unread in a socket that is then reset, with what it holds.
    with sending(simulator, history, armed(point, "kill"), "http") as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    lines = records(history)
    assert [line["point"] for line in lines if line["point"] in POINTS] == POINTS[: POINTS.index(point) + 1]
    last = lines[-1]
    assert (last["end"], last["pid"], last["rows"], last["seq"], last["attempt"]) == ("kill", process.pid, ROWS, 1, 1)
    assert not any("end" in line for line in lines[:-1])
    assert any(line["point"] == "call.open" for line in lines) == (POINTS.index(point) >= POINTS.index("call.checked"))
    # The whole request had left when it was recorded as written, though no kernel takes it in one piece.
    wait_for_accepted(simulator, before + (ROWS if POINTS.index(point) >= POINTS.index("call.written") else 0))


def test_a_frozen_call_goes_on_and_its_span_is_closed(simulator: RunningSimulator, tmp_path: Path) -> None:
    history = tmp_path / "history"
    before = accepted(simulator)
    with sending(simulator, history, armed("call.checked", "stop")) as process:
        wait_until_frozen(process)
        assert records(history)[-1]["end"] == "stop"
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=30)
    assert orjson.loads(out) == {"1": ROWS}
    assert accepted(simulator) == before + ROWS
    opened, closed = (line for line in records(history) if line.get("span") == "call")
    assert (opened["point"], closed["point"], closed["ending"]) == ("call.open", "call.closed", "answered")
    assert opened["call"] == closed["call"]
    assert opened["ns"] < closed["ns"]


def test_all_of_a_written_call_has_left_under_tls_too(simulator: RunningSimulator, tmp_path: Path) -> None:
    before = accepted(simulator)
    with sending(simulator, tmp_path / "history", armed("call.written", "stop")) as process:
        wait_until_frozen(process)
        wait_for_accepted(simulator, before + ROWS)


def test_a_worker_that_wakes_up_with_an_old_signature_halts_nobody(tmp_path: Path) -> None:
    with (
        simulating(tmp_path / "simulator", signature_max_age_ms=500) as strict,
        sending(strict, tmp_path / "history", armed("call.checked", "stop")) as process,
    ):
        wait_until_frozen(process)
        # Older than the age and the second that a signature is given.
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=30)
        assert strict.get("stats")["refused_for_age"] == 1
        assert accepted(strict) == 0
    assert orjson.loads(out) == {"3": ROWS}


def test_a_bad_menu_is_one_sentence_and_arms_nothing(simulator: RunningSimulator, tmp_path: Path) -> None:
    with sending(simulator, tmp_path / "history", armed("call.signed", "kill", 2)) as process:
        out, err = process.communicate(timeout=30)
    assert orjson.loads(out) == {"1": ROWS}
    assert err.count("\n") == 1
    assert "MAILRAIL_TEST_FAILPOINTS" in err
