"""Roles, files, secret: `mailrail migrate` on a real server, by a superuser and by users with fewer rights."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from mailrail.config import role_url
from mailrail.db import migrate
from mailrail.db.migrate import administrator_sql, check_database, missing_roles, read_migrations, read_rights
from mailrail.db.pool import connect
from mailrail.errors import DatabaseError
from mailrail.up.postgres import Cluster, ensure_database
from tests.support.postgres import SECRET, Database

OTHER_SECRET = "another secret, just as long as the first one"


async def run(url: str, secret: str = SECRET, directory: Path = migrate.MIGRATIONS) -> list[str]:
    """Migrate without printing; the names of what ran."""
    done = await migrate.migrate(url, secret, report=lambda line: None, directory=directory)
    return [migration.name for migration in done]


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[str]:
    """The superuser's URL of an empty database."""
    await ensure_database(cluster, "empty")
    yield cluster.url("empty")
    connection = await connect(cluster.url("postgres"), application_name="tests")
    await connection.execute("DROP DATABASE empty WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def plain_user(empty: str) -> AsyncIterator[str]:
    """The URL of a user without any special right, on the empty database."""
    connection = await connect(empty, application_name="tests")
    await connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    parts = urlsplit(empty)
    yield urlunsplit(parts._replace(netloc=f"plain:plain@127.0.0.1:{parts.port}"))
    await connection.execute("DROP OWNED BY plain; DROP ROLE plain")
    await connection.close()


def write(directory: Path, **files: str) -> Path:
    """A folder of migrations: `_0001_first="SQL"`."""
    for name, sql in files.items():
        (directory / f"{name.removeprefix('_')}.sql").write_text(sql)
    return directory


async def test_the_template_is_current_for_every_role(database: Database) -> None:
    for url in (database.superuser_url, database.api_url, database.worker_url):
        connection = await connect(url, application_name="tests")
        await check_database(connection, SECRET)
        await connection.close()


async def test_a_second_migrate_does_nothing(database: Database) -> None:
    assert await run(database.superuser_url) == []


async def test_the_roles_have_exactly_their_rights(database: Database) -> None:
    connection = await connect(database.superuser_url, application_name="tests")
    rows = await connection.fetch(
        "SELECT rolname, rolcanlogin, rolbypassrls, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles "
        "WHERE rolname LIKE 'mailrail%' ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [
        ("mailrail_api", True, False, False, False, False),
        ("mailrail_owner", False, True, False, False, False),
        ("mailrail_worker", True, True, False, False, False),
    ]
    owners = await connection.fetch(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'mailrail'::regnamespace"
    )
    assert [row[0] for row in owners] == ["mailrail_owner"]
    await connection.close()


async def test_the_stored_passwords_are_scram(database: Database) -> None:
    connection = await connect(database.superuser_url, application_name="tests")
    stored = await connection.fetch(
        "SELECT rolpassword FROM pg_authid WHERE rolname IN ('mailrail_api', 'mailrail_worker')"
    )
    assert all(row[0].startswith("SCRAM-SHA-256$4096:") for row in stored)
    await connection.close()


@pytest.mark.parametrize("role", ["mailrail_api", "mailrail_worker"])
async def test_a_login_role_cannot_become_the_owner_or_make_tables(database: Database, role: str) -> None:
    connection = await connect(
        database.api_url if role == "mailrail_api" else database.worker_url, application_name="t"
    )
    for statement in (
        "SET ROLE mailrail_owner",
        "CREATE TABLE mailrail.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "INSERT INTO mailrail.schema_migrations VALUES (9999, 'mine')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_another_secret_is_refused(database: Database) -> None:
    with pytest.raises(DatabaseError, match="MAILRAIL_SECRET_KEY is not the secret"):
        await run(database.superuser_url, OTHER_SECRET)
    connection = await connect(database.worker_url, application_name="tests")
    with pytest.raises(DatabaseError, match="MAILRAIL_SECRET_KEY is not the secret"):
        await check_database(connection, OTHER_SECRET)
    await connection.close()


async def test_roles_of_another_installation_are_left_alone(empty: str) -> None:
    with pytest.raises(DatabaseError, match="carries another installation"):
        await run(empty, OTHER_SECRET)
    # Its own secret still opens the door that the other one tried to change.
    connection = await asyncpg.connect(role_url(empty, "mailrail_api", SECRET))
    await connection.close()


async def test_a_changed_password_is_put_right(database: Database) -> None:
    connection = await connect(database.superuser_url, application_name="tests")
    await connection.execute("ALTER ROLE mailrail_api PASSWORD 'lost'")
    await run(database.superuser_url)
    await connection.close()
    healed = await asyncpg.connect(database.api_url)
    await healed.close()


async def test_an_empty_database_is_not_current(empty: str) -> None:
    connection = await connect(empty, application_name="tests")
    with pytest.raises(DatabaseError, match=r"at migration 0 of \d+; run `mailrail migrate`"):
        await check_database(connection, SECRET)
    await connection.close()


async def test_a_newer_database_is_refused(empty: str, tmp_path: Path) -> None:
    write(tmp_path, _0001_a="CREATE TABLE installation (secret_fingerprint bytea)", _0002_b="SELECT 1")
    assert await run(empty, directory=tmp_path) == ["a", "b"]
    (tmp_path / "0002_b.sql").unlink()
    with pytest.raises(DatabaseError, match="newer than this program"):
        await run(empty, directory=tmp_path)


async def test_a_failing_file_leaves_nothing_behind(empty: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        _0001_a="CREATE TABLE installation (secret_fingerprint bytea)",
        _0002_b="CREATE TABLE half (id int); SELECT 1 / 0",
    )
    with pytest.raises(DatabaseError, match="migration 0002 b failed and was rolled back: division by zero"):
        await run(empty, directory=tmp_path)
    connection = await connect(empty, application_name="tests")
    assert await connection.fetchval("SELECT to_regclass('mailrail.half')") is None
    assert await migrate.applied_versions(connection) == [1]
    await connection.close()


async def test_a_locked_table_fails_the_file_quickly(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, _0001_a="CREATE TABLE installation (secret_fingerprint bytea)")
    await run(empty, directory=tmp_path)
    write(tmp_path, _0002_b="ALTER TABLE installation ADD COLUMN extra int")
    monkeypatch.setattr(migrate, "LOCK_WAIT_MAX_MS", 100)
    monkeypatch.setattr(migrate, "LOCK_PAUSE_S", 0.01)
    holder = await connect(empty, application_name="tests")
    async with holder.transaction():
        await holder.execute("LOCK TABLE mailrail.installation")
        with pytest.raises(DatabaseError, match="a table that migrate needs was in use 12 times"):
            await run(empty, directory=tmp_path)
    await holder.close()
    assert await run(empty, directory=tmp_path) == ["b"]


async def test_a_table_that_is_locked_for_a_moment_is_waited_for(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, _0001_a="CREATE TABLE installation (secret_fingerprint bytea); CREATE TABLE busy (id int)")
    await run(empty, directory=tmp_path)
    write(tmp_path, _0002_b="ALTER TABLE busy ADD COLUMN extra int")
    monkeypatch.setattr(migrate, "LOCK_WAIT_MAX_MS", 100)
    monkeypatch.setattr(migrate, "LOCK_PAUSE_S", 0.1)
    holder = await connect(empty, application_name="tests")
    async with holder.transaction():
        await holder.execute("LOCK TABLE mailrail.busy")
        migrating = asyncio.create_task(run(empty, directory=tmp_path))
        await asyncio.sleep(0.4)
        assert not migrating.done()
    assert await migrating == ["b"]
    await holder.close()


async def test_two_migrates_wait_for_each_other(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "OTHER_MIGRATE_WAIT", "100ms")
    other = await connect(empty, application_name="tests")
    await migrate.take_lock(other)
    with pytest.raises(DatabaseError, match="another `mailrail migrate` has been running"):
        await run(empty)
    await other.close()
    assert await run(empty)


async def test_a_user_without_rights_is_told_what_is_missing(plain_user: str) -> None:
    with pytest.raises(DatabaseError, match="migrate lacks a right.*mailrail doctor"):
        await run(plain_user)


async def test_the_administrators_sql_is_enough_for_a_plain_user(empty: str, plain_user: str) -> None:
    connection = await connect(plain_user, application_name="tests")
    sql = administrator_sql(await read_rights(connection), await missing_roles(connection, SECRET))
    await connection.close()
    administrator = await connect(empty, application_name="tests")
    await administrator.execute(sql)
    assert await run(plain_user)
    assert await run(plain_user) == []
    await administrator.close()


async def test_a_role_maker_without_superuser_can_migrate(cluster: Cluster, home: Path) -> None:
    """A server of its own, since roles belong to the whole server."""
    from mailrail.up.postgres import running

    with running(home) as fresh:
        administrator = await connect(fresh.url("postgres"), application_name="tests")
        await administrator.execute("CREATE ROLE maker LOGIN CREATEROLE BYPASSRLS CREATEDB PASSWORD 'maker'")
        await administrator.execute("CREATE DATABASE mail OWNER maker")
        await administrator.close()
        assert await run(f"postgresql://maker:maker@127.0.0.1:{fresh.port}/mail")
        assert await run(f"postgresql://maker:maker@127.0.0.1:{fresh.port}/mail") == []


def test_files_must_be_numbered_without_gaps(tmp_path: Path) -> None:
    write(tmp_path, _0001_a="", _0003_c="")
    with pytest.raises(DatabaseError, match="not numbered"):
        read_migrations(tmp_path)
    (tmp_path / "oops.sql").write_text("")
    with pytest.raises(DatabaseError, match=r"oops\.sql is not named like"):
        read_migrations(tmp_path)
