"""A forked process is a whole mailrail process, sooner, and dies with the nursery."""

import asyncio
import re
import signal
import time
from pathlib import Path

from tests.chaos.history import History
from tests.chaos.nursery import Nursery, Process, nursery
from tests.support.postgres import Database
from tests.support.processes import is_alive


async def output_has(path: Path, text: str, timeout_s: float = 20.0) -> float:
    """Seconds until a file holds the text."""
    begun = time.monotonic()
    while not path.exists() or not re.search(text, path.read_text(), re.MULTILINE):
        assert time.monotonic() - begun < timeout_s, path.read_text() if path.exists() else "no output"
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


async def fork_worker(nest: Nursery, database: Database, tmp_path: Path, number: int, **more: str) -> Process:
    environment = {
        "MAILRAIL_DATABASE_URL": database.superuser_url,
        "MAILRAIL_SECRET_KEY": database.secret_key,
        "MAILRAIL_SES_ENDPOINT": "https://127.0.0.1:1",
        **more,
    }
    return await nest.fork("apply", ["worker", "--roles", "apply"], environment, tmp_path / f"worker-{number}.log")


async def test_a_worker_is_up_soon_and_goes_by_sigterm(database: Database, tmp_path: Path) -> None:
    async with nursery(tmp_path / "nursery.log") as nest:
        took_s = []
        for number in range(5):
            begun = time.monotonic()
            worker = await fork_worker(nest, database, tmp_path, number)
            await output_has(tmp_path / f"worker-{number}.log", "^ready")
            took_s.append(time.monotonic() - begun)
            worker.signal(signal.SIGTERM)
            assert await asyncio.wait_for(worker.ended, 10) == 0
        # The median, since the machine has other things to do.
        assert sorted(took_s)[2] < 1.0, took_s


async def test_a_child_arms_the_failpoints_of_its_own_environment(database: Database, tmp_path: Path) -> None:
    history = tmp_path / "history"
    armed = {
        "MAILRAIL_TEST_HISTORY": str(history),
        "MAILRAIL_TEST_FAILPOINTS": '{"points":{"process.started":{"kill":1}}}',
    }
    async with nursery(tmp_path / "nursery.log") as nest:
        worker = await fork_worker(nest, database, tmp_path, 0, **armed)
        assert await asyncio.wait_for(worker.ended, 10) == -signal.SIGKILL
        assert not worker.signal(signal.SIGKILL)
        plain = await fork_worker(nest, database, tmp_path, 1)
        await output_has(tmp_path / "worker-1.log", "^ready")
        assert is_alive(plain.pid)
    read = History(history)
    read.read()
    assert read.open_spans(worker.pid) == set()
    assert not is_alive(plain.pid)


async def test_a_bad_start_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    async with nursery(tmp_path / "nursery.log") as nest:
        environment = {"MAILRAIL_SES_ENDPOINT": "https://127.0.0.1:1"}
        worker = await nest.fork("send", ["worker", "--roles", "send"], environment, tmp_path / "log")
        assert await asyncio.wait_for(worker.ended, 10) == 2
        assert "MAILRAIL_SECRET_KEY is not set" in (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()


async def test_frozen_children_die_with_the_nursery_too(database: Database, tmp_path: Path) -> None:
    async with nursery(tmp_path / "nursery.log") as nest:
        worker = await fork_worker(nest, database, tmp_path, 0)
        await output_has(tmp_path / "worker-0.log", "^ready")
        worker.signal(signal.SIGSTOP)
    assert not is_alive(worker.pid)
