"""The proxy before a real PostgreSQL: a commit whose answer is cut off took place."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.chaos.proxy import Proxy
from tests.support.postgres import Database

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(database.superuser_url).port or 0, seed=1).listening() as listening:
        yield listening


def through(proxy: Proxy, database: Database) -> str:
    parts = urlsplit(database.superuser_url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"))


async def count(database: Database, table: str) -> int:
    conn = await asyncpg.connect(database.superuser_url)
    try:
        return int(await conn.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await conn.close()


async def insert(conn: Any, table: str) -> None:
    async with conn.transaction():
        await conn.execute(f"INSERT INTO {table} VALUES (1)")


async def test_rows_pass_both_ways_and_a_cut_commit_took_place(proxy: Proxy, database: Database) -> None:
    conn = await asyncpg.connect(through(proxy, database))
    await conn.execute("CREATE TABLE cut_in_transaction (a integer)")
    assert await conn.fetchval("SELECT sum(n) FROM generate_series(1, 100000) n") == 5000050000
    assert len(await conn.fetchval("SELECT repeat('x', 5000000)")) == 5_000_000
    await insert(conn, "cut_in_transaction")
    proxy.menu.cut_before_reply = 1
    with pytest.raises(LOST):
        await insert(conn, "cut_in_transaction")
    assert await count(database, "cut_in_transaction") == 2
    assert proxy.cuts == {"cut_before_reply": 1}


async def test_a_prepared_statement_outside_a_transaction_is_cut_likewise(proxy: Proxy, database: Database) -> None:
    conn = await asyncpg.connect(through(proxy, database))
    await conn.execute("CREATE TABLE cut_alone (a integer)")
    proxy.menu.cut_before_reply = 1
    with pytest.raises(LOST):
        await conn.fetchval("INSERT INTO cut_alone VALUES ($1) RETURNING a", 1)
    assert await count(database, "cut_alone") == 1
    proxy.menu.cut_before_reply, proxy.menu.cut_after_sent = 0, 1
    conn = await asyncpg.connect(through(proxy, database))
    with pytest.raises(LOST):
        await conn.fetchval("INSERT INTO cut_alone VALUES ($1) RETURNING a", 1)
    assert proxy.cuts == {"cut_before_reply": 1, "cut_after_sent": 1}


async def test_copy_passes(proxy: Proxy, database: Database) -> None:
    conn = await asyncpg.connect(through(proxy, database))
    await conn.execute("CREATE TABLE copied (a integer, b text)")
    await conn.copy_records_to_table("copied", records=[(n, "COMMIT;" * 100) for n in range(5000)])
    assert await count(database, "copied") == 5000
    await conn.close()


async def test_a_dark_connection_is_reset_and_others_go_on(proxy: Proxy, database: Database) -> None:
    conn = await asyncpg.connect(through(proxy, database))
    assert proxy.blackhole_one(0.2)
    other = await asyncpg.connect(through(proxy, database))
    with pytest.raises(LOST):
        await conn.fetchval("SELECT 1")
    assert await other.fetchval("SELECT 1") == 1
    assert proxy.half_close_one()
    with pytest.raises(LOST):
        await asyncio.wait_for(other.fetchval("SELECT 1"), 5)
    proxy.menu.delay_ms = 20
    slow = await asyncpg.connect(through(proxy, database))
    assert await slow.fetchval("SELECT 1") == 1
    await slow.close()


async def test_without_a_server_a_client_is_reset(database: Database) -> None:
    async with Proxy(1, seed=1).listening() as proxy:
        with pytest.raises(LOST):
            await asyncpg.connect(through(proxy, database))
