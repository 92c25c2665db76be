"""The supervisor's decisions, with small programs in the place of the production commands."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailrail.config import Settings
from mailrail.errors import StartError
from mailrail.up import supervisor
from mailrail.up.child import Child
from mailrail.up.supervisor import Children, Restart, died, first_status, said_ready, stop_child

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
PATIENT = "import time; print('ready'); time.sleep(60)"


@pytest.fixture
def children(home: Path) -> Iterator[Children]:
    """Children without a simulator; the programs of api and worker are chosen by the test."""
    made = Children(Settings(secret_key="s" * 32), os.environ, home, server=None, simulated=False)
    yield made
    for child in (made.migrate, made.api, made.worker):
        child.send(signal.SIGKILL)
        child.wait(5)


def let(child: Child, code: str) -> Child:
    """Give the child another program."""
    child.command = [sys.executable, "-u", "-c", code]
    return child


async def test_a_start_waits_for_the_ready_line(children: Children) -> None:
    await children.start_until(let(children.worker, f"import time; time.sleep(0.3); {PATIENT}"), said_ready)
    assert children.worker.ready_port() == 0


async def test_a_child_that_ends_in_the_start_says_why_in_its_own_sentence(children: Children) -> None:
    let(children.api, "import sys; print('loading'); sys.exit('mailrail: MAILRAIL_PORT must be a number')")
    with pytest.raises(StartError) as caught:
        await children.start_until(children.api, said_ready)
    assert str(caught.value) == "the api did not start: MAILRAIL_PORT must be a number"


async def test_a_child_that_crashes_in_the_start_shows_its_last_lines(children: Children) -> None:
    let(children.api, "raise RuntimeError('a bug')")
    with pytest.raises(StartError, match=r"(?s)the api ended \(status 1\); its last lines.*RuntimeError: a bug"):
        await children.start_until(children.api, said_ready)


async def test_a_failing_migrate_ends_the_start(children: Children) -> None:
    let(children.migrate, "import sys; sys.exit('mailrail: cannot connect')")
    with pytest.raises(StartError, match="the migrate did not start: cannot connect"):
        await children.run_migrate()


async def test_a_child_that_never_gets_ready_is_given_up(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "READY_TIMEOUT_S", 0.5)
    with pytest.raises(StartError, match=r"the worker was not ready after 0\.5 s"):
        await children.start_until(let(children.worker, "import time; time.sleep(60)"), said_ready)


async def test_an_ended_worker_comes_back(children: Children, capsys: pytest.CaptureFixture[str]) -> None:
    await children.start_until(let(children.api, PATIENT), said_ready)
    await children.start_until(let(children.worker, PATIENT), said_ready)
    children.restarts = {"api": Restart(), "worker": Restart()}
    watch = asyncio.create_task(children.watch())
    first = children.worker.pid
    children.worker.send(signal.SIGKILL)
    async with asyncio.timeout(10):
        while children.worker.pid == first or not children.worker.running():
            await asyncio.sleep(0.05)
    watch.cancel()
    assert "the worker ended (SIGKILL) and starts again in 0.5 s" in capsys.readouterr().out


async def test_the_end_of_an_essential_child_ends_all(children: Children) -> None:
    await children.start_until(let(children.api, PATIENT), said_ready)
    children.essential = [children.api]
    watch = asyncio.create_task(children.watch())
    children.api.send(signal.SIGKILL)
    with pytest.raises(StartError, match=r"the api ended \(SIGKILL\)"):
        await asyncio.wait_for(watch, 5)


async def test_children_stop_in_order(children: Children, tmp_path: Path) -> None:
    note = (
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(0.2); open({file!r}, 'a').write({name!r} + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready'); time.sleep(60)"
    )
    file = str(tmp_path / "order")
    for child in (children.api, children.worker):
        await children.start_until(let(child, note.format(file=file, name=child.name)), said_ready)
    await children.stop(asyncio.Event())
    assert (tmp_path / "order").read_text() == "worker api "


async def test_a_child_that_does_not_stop_is_killed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_S", 0.3)
    await children.start_until(let(children.api, STUBBORN), said_ready)
    await stop_child(children.api, asyncio.Event())
    assert children.api.status() == -signal.SIGKILL


async def test_a_second_interrupt_cuts_the_waiting_short(children: Children) -> None:
    await children.start_until(let(children.api, STUBBORN), said_ready)
    hurry = asyncio.Event()
    hurry.set()
    begun = time.monotonic()
    await stop_child(children.api, hurry)
    assert time.monotonic() - begun < 2
    assert not children.api.running()


async def test_the_first_to_end_decides() -> None:
    async def after(seconds: float, status: int) -> int:
        await asyncio.sleep(seconds)
        return status

    async def fail() -> int:
        raise StartError("no")

    assert await first_status(after(0.01, 3), after(60, 4)) == 3
    with pytest.raises(StartError):
        await first_status(after(60, 1), fail())


def test_pauses_double_and_start_over_after_a_steady_minute() -> None:
    restart = Restart(started_at=0.0)
    pauses = []
    now = 0.0
    for _ in range(8):
        pauses.append(restart.begin_pause(now))
        now += pauses[-1]
        restart.end_pause(now)
        now += 1
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert restart.begin_pause(now + 60) == 0.5


def test_the_childrens_environment_has_no_superuser(home: Path) -> None:
    environment = {"MAILRAIL_DATABASE_URL": "postgresql://root:pw@h/d", "PATH": "/bin"}
    settings = Settings(
        secret_key="s" * 32, api_database_url="postgresql://a@h/d", worker_database_url="postgresql://w@h/d"
    )
    children = Children(settings, environment, home, server=None, simulated=True)
    assert children.migrate.environment["MAILRAIL_DATABASE_URL"] == "postgresql://root:pw@h/d"
    for child in (children.api, children.worker, children.simulator):
        assert child is not None
        assert "MAILRAIL_DATABASE_URL" not in child.environment
        assert child.environment["MAILRAIL_API_DATABASE_URL"] == "postgresql://a@h/d"


def test_a_sentence_in_the_log_is_preferred(children: Children) -> None:
    let(children.api, "import sys; print('x'); print('mailrail: port 1 is in use'); sys.exit(2)").start()
    assert children.api.wait(10)
    assert str(died(children.api)) == "the api did not start: port 1 is in use"
