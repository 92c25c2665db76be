"""Pools, the JSON codec and the tenant transaction on a real server."""

import asyncio
from contextlib import suppress

import pytest
from asyncpg import PostgresError, ReadOnlySQLTransactionError

from mailrail.db.pool import Pool, at_most, only_read, open_pool, transaction, without_password
from mailrail.errors import DatabaseError
from tests.support.postgres import Database


async def test_json_values_cross_in_both_directions(worker_pool: Pool) -> None:
    value = {"name": 'Zoë "Z" O\'Hara', "list": [1, None, True], "emoji": "💌"}
    assert await worker_pool.fetchval("SELECT $1::jsonb", value) == value
    assert await worker_pool.fetchval("SELECT $1::json", value) == value


async def test_json_values_can_be_copied(superuser_pool: Pool) -> None:
    async with superuser_pool.acquire() as connection:
        await connection.execute("CREATE TEMP TABLE copied (value jsonb)")
        await connection.copy_records_to_table("copied", records=[({"a": "ü"},)], columns=["value"])
        assert await connection.fetchval("SELECT value FROM copied") == {"a": "ü"}


async def test_a_transaction_names_its_tenant_and_forgets_it(api_pool: Pool) -> None:
    async with transaction(api_pool, 42) as connection:
        assert await connection.fetchval("SELECT current_setting('mailrail.account_id')") == "42"
    assert await api_pool.fetchval("SELECT nullif(current_setting('mailrail.account_id', true), '')") is None


async def test_a_transaction_in_it_is_a_part_of_it(api_pool: Pool) -> None:
    async with transaction(api_pool, 42) as connection:
        await connection.execute("CREATE TEMP TABLE kept (n integer) ON COMMIT DROP")
        for number, fails in ((1, False), (2, True), (3, False)):
            with suppress(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO kept VALUES ($1)", number)
                    if fails:
                        raise ZeroDivisionError
        assert [row["n"] for row in await connection.fetch("SELECT n FROM kept")] == [1, 3]
        assert connection.is_in_transaction()
    async with api_pool.acquire() as connection, connection.transaction():
        assert await connection.fetchval("SELECT nullif(current_setting('mailrail.account_id', true), '')") is None


async def test_a_pool_that_does_not_reset_still_leaves_no_transaction_and_no_tenant(database: Database) -> None:
    pool = await open_pool(database.api_url, application_name="tests", max_size=1, resets=False)
    for _ in range(3):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2), transaction(pool, 42) as connection:
                await connection.execute("SELECT pg_sleep(5)")
        with suppress(PostgresError):
            async with transaction(pool, 42) as connection:
                await connection.execute("SELECT 1 / 0")
        async with pool.acquire() as connection:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT nullif(current_setting('mailrail.account_id', true), '')") is None
    await pool.close()


async def test_a_failed_transaction_leaves_nothing(worker_pool: Pool) -> None:
    async def insert_and_fail() -> None:
        async with transaction(worker_pool, 1) as connection:
            await connection.execute("INSERT INTO accounts (name) VALUES ('half done')")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await insert_and_fail()
    assert await worker_pool.fetchval("SELECT count(*) FROM accounts WHERE name = 'half done'") == 0


async def test_a_transaction_that_only_reads_is_held_to_it(api_pool: Pool) -> None:
    async with transaction(api_pool, 42) as connection:
        await only_read(connection)
        with pytest.raises(ReadOnlySQLTransactionError):
            await connection.execute("INSERT INTO contacts (account_id, email) VALUES (42, 'a@example.com')")


async def test_a_part_that_takes_too_long_is_cut_off_and_the_transaction_goes_on(api_pool: Pool) -> None:
    async with transaction(api_pool, 42) as connection:
        with pytest.raises(TimeoutError):
            async with at_most(connection, 0.05):
                await connection.execute("SELECT pg_sleep(10)")
        async with at_most(connection, 5):
            assert await connection.fetchval("SELECT 1") == 1
        assert await connection.fetchval("SHOW statement_timeout") == "0"
        assert await connection.fetchval("SELECT current_setting('mailrail.account_id')") == "42"


async def test_hot_sessions_plan_each_statement(worker_pool: Pool, api_pool: Pool) -> None:
    assert await worker_pool.fetchval("SHOW plan_cache_mode") == "force_custom_plan"
    assert await api_pool.fetchval("SHOW plan_cache_mode") == "auto"
    assert await api_pool.fetchval("SHOW timezone") == "UTC"


async def test_every_failed_connection_is_one_sentence_without_password(database: Database) -> None:
    unreachable = {
        database.api_url.replace("mailrail_api", "nobody_known"): "refused the user or password",
        database.superuser_url.replace("/t_", "/not_there_"): "does not exist",
        "postgresql://me:hidden@127.0.0.1:1/mailrail": "cannot connect",
    }
    for url, words in unreachable.items():
        with pytest.raises(DatabaseError, match=words) as caught:
            await open_pool(url, application_name="tests")
        assert "\n" not in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_the_shown_url_has_no_password() -> None:
    assert without_password("postgresql://me:pw@h:1/db?password=pw2") == "postgresql://me@h:1/db"
    assert without_password("postgresql://h/db") == "postgresql://h/db"
