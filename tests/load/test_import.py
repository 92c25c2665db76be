"""Imports with real processes: killed at half and taken up again, and flat in memory however large the file.

Judged by the table of contacts and the error file: nothing lost, nothing doubled, every bad row told.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mailrail.config import Settings
from mailrail.db.pool import Pool
from tests.support.api import Tenant
from tests.support.full import FULL
from tests.support.imports import PATH, counts, errors, upload
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.processes import peak_memory_bytes, wait_until
from tests.support.workers import environment, working

pytestmark = [pytest.mark.load, pytest.mark.timeout(280)]

ROWS = 40_000
BAD_ONE_IN = 100
KILLS = 4
PEAK_MAX_BYTES = 150 * 1000 * 1000
# In the whole run nearly the largest upload there may be.
UPLOAD_BYTES = 490_000_000 if FULL else 40_000_000


@contextlib.contextmanager
def api_process(settings: Settings, log_file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A real `mailrail api`, killed at the end if it still runs."""
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "mailrail", "api"], stdout=log, stderr=log, env=environment(settings)
        )
    try:
        wait_until(lambda: b"listening" in log_file.read_bytes() or child.poll() is not None, "the start")
        assert child.poll() is None, log_file.read_text()
        yield child
    finally:
        child.kill()
        child.wait()


def line(number: int) -> str:
    """A row of the file; one in a hundred is bad."""
    at = " at " if number % BAD_ONE_IN == 0 else "@"
    return f"person{number * 7919 % 1_000_003}{at}example.com,Name {number},{'x' * 150}\n"


def whole(rows: int) -> bytes:
    """The file."""
    return b"".join([b"email,name,note\n", *(line(number).encode() for number in range(rows))])


async def check_whole(tenant: Tenant, pool: Pool, import_id: str) -> None:
    """Every good row is a contact once, every bad one stands in the error file."""
    done = (await tenant.get(f"{PATH}/{import_id}")).body
    bad = [number + 2 for number in range(ROWS) if number % BAD_ONE_IN == 0]
    assert counts(done) == {"created": ROWS - len(bad), "failed": len(bad)}
    assert [row for row, _, _ in await errors(tenant, import_id)] == bad
    stored = await pool.fetchrow(
        "SELECT count(*), count(DISTINCT email_folded) FROM contacts WHERE account_id = $1", tenant.account_id
    )
    assert tuple(stored or ()) == (ROWS - len(bad),) * 2
    assert await pool.fetchval("SELECT count(*) FROM import_pieces") == 0


async def rows_done(tenant: Tenant, import_id: str) -> tuple[int, str]:
    """How far it is."""
    one = (await tenant.get(f"{PATH}/{import_id}")).body
    return one["rowsDone"], one["status"]


async def test_workers_killed_again_and_again_lose_and_double_nothing(
    tenant: Tenant, worker_pool: Pool, database: Database, tmp_path: Path
) -> None:
    answer = await upload(tenant, whole(ROWS))
    import_id = answer.body["id"]
    settings = tenant.api.app.ctx.settings
    kills, before = 0, 0
    while kills < KILLS:
        with working(settings, tmp_path / str(kills), roles="import") as [worker]:
            done = before
            while done == before:
                await asyncio.sleep(0.005)
                done, status = await rows_done(tenant, import_id)
            # In the middle of the next piece: some get as far as its COPY, some as far as its merge.
            await asyncio.sleep(0.03 * (kills + 1))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        before, status = await rows_done(tenant, import_id)
        kills += 1
        if status == "completed":
            break
    assert kills > 1
    with working(settings, tmp_path / "last", roles="import"):
        while (await rows_done(tenant, import_id))[1] != "completed":
            await asyncio.sleep(0.05)
    await check_whole(tenant, worker_pool, import_id)


async def test_two_workers_share_imports_and_do_each_piece_once(
    tenant: Tenant, stranger: Tenant, worker_pool: Pool, tmp_path: Path
) -> None:
    sent = await asyncio.gather(upload(tenant, whole(ROWS)), upload(stranger, whole(ROWS)))
    with working(tenant.api.app.ctx.settings, tmp_path, count=2, roles="import"):
        for one, answer in zip((tenant, stranger), sent, strict=True):
            while (await rows_done(one, answer.body["id"]))[1] != "completed":
                await asyncio.sleep(0.05)
    for one, answer in zip((tenant, stranger), sent, strict=True):
        await check_whole(one, worker_pool, answer.body["id"])


async def test_an_api_killed_at_half_leaves_nothing_and_the_upload_comes_again(
    tenant: Tenant, worker_pool: Pool, database: Database, tmp_path: Path
) -> None:
    settings = database.settings(port=free_port())
    url, headers = (
        f"http://127.0.0.1:{settings.port}{PATH}",
        {
            "Authorization": f"Bearer {tenant.key}",
            "Content-Type": "text/csv",
            "Idempotency-Key": "once",
        },
    )

    async def slowly() -> AsyncIterator[bytes]:
        yield b"email,name,note\n"
        for number in range(ROWS):
            yield line(number).encode()
            if number == ROWS // 2:
                await asyncio.sleep(60)

    async with aiohttp.ClientSession() as session:
        with api_process(settings, tmp_path / "killed.log") as child:
            sending = asyncio.create_task(session.post(url, data=slowly(), headers=headers))
            while not await worker_pool.fetchval("SELECT count(*) > 1 FROM import_pieces"):
                await asyncio.sleep(0.02)
            child.kill()
            child.wait()
            with pytest.raises(aiohttp.ClientError):
                await sending
        again = await upload(tenant, whole(ROWS), Idempotency_Key="once")
        assert (again.status, again.code) == (409, "idempotency_key_in_use")
        # Instead of waiting until the upload has been silent for long.
        await worker_pool.execute("UPDATE imports SET heard_at = now() - interval '1 hour'")
        with working(tenant.api.app.ctx.settings, tmp_path / "workers", roles="import"):
            while await worker_pool.fetchval("SELECT count(*) FROM import_pieces"):
                await asyncio.sleep(0.05)
            again = await upload(tenant, whole(ROWS), Idempotency_Key="once")
            assert again.status == 202
            while (await rows_done(tenant, again.body["id"]))[1] != "completed":
                await asyncio.sleep(0.05)
    listed: list[dict[str, Any]] = (await tenant.get(PATH)).body["imports"]
    assert [one["status"] for one in listed] == ["completed", "failed"]
    await check_whole(tenant, worker_pool, again.body["id"])


async def test_memory_of_the_api_is_flat_while_large_files_come_in(
    tenant: Tenant, worker_pool: Pool, database: Database, tmp_path: Path
) -> None:
    settings = database.settings(port=free_port(), import_max_bytes=500_000_000)
    url, headers = f"http://127.0.0.1:{settings.port}{PATH}", {"Authorization": f"Bearer {tenant.key}"}
    block = b"".join(line(number).encode() for number in range(5000))
    blocks = UPLOAD_BYTES // len(block)

    async def many(blocks: int) -> AsyncIterator[bytes]:
        yield b"email,name,note\n"
        for _ in range(blocks):
            yield block

    async with aiohttp.ClientSession(headers=headers | {"Content-Type": "text/csv"}) as session:
        with api_process(settings, tmp_path / "api.log") as child:
            for answer in await asyncio.gather(
                session.post(url, data=many(blocks)), session.post(url, data=many(20)), session.post(url, data=many(20))
            ):
                assert answer.status == 202, await answer.text()
                import_id = (await answer.json())["id"]
                assert (await tenant.post(f"{PATH}/{import_id}/cancel")).status == 200
            refused = await session.post(url, data=many(500_000_000 // len(block) + 1))
            assert refused.status == 413
            assert peak_memory_bytes(child.pid) <= PEAK_MAX_BYTES
    assert await worker_pool.fetchval("SELECT count(*) FROM import_pieces") == 0
