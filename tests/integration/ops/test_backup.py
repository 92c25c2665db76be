"""Backup and restore on real databases, as typed; what must not happen is refused before anything has changed."""

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mailrail.config import Settings, with_role_urls
from mailrail.db import migrate
from mailrail.db.pool import Pool, connect
from mailrail.emails.accepted_log import FileLog
from mailrail.errors import DatabaseError, StartError
from mailrail.ops import backup as work
from mailrail.ops import store
from mailrail.up.postgres import Cluster, ensure_database
from tests.integration.ops.test_guard import accepted_round
from tests.support.postgres import SECRET, Database
from tests.support.streams import make_account, make_stream

TARGET = "restore_target"


@pytest.fixture(scope="module")
def filled(database: Database) -> Settings:
    """An installation with a stream of ten recipients."""

    async def fill() -> None:
        connection = await connect(database.worker_url, application_name="tests")
        await make_stream(connection, await make_account(connection), 10)
        await connection.close()

    asyncio.run(fill())
    return database.settings()


@pytest.fixture
async def target(cluster: Cluster) -> AsyncIterator[str]:
    """An empty database's URL."""
    await ensure_database(cluster, TARGET)
    yield cluster.url(TARGET)
    connection = await connect(cluster.url("postgres"), application_name="tests")
    await connection.execute(f"DROP DATABASE {TARGET} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def file(filled: Settings, tmp_path: Path) -> Path:
    """A backup."""
    file = tmp_path / "mail.backup"
    await work.backup(filled, file, say=lambda line: None)
    return file


def on(settings: Settings, url: str, **changes: Any) -> Settings:
    """The same installation on another database."""
    return with_role_urls(replace(settings, database_url=url, api_database_url="", worker_database_url="", **changes))


async def restored(settings: Settings, file: Path, replaced: bool = False) -> store.Hold:
    """Restores and tells how the installation stands."""
    await work.restore(settings, file, replaced, say=lambda line: None)
    connection = await connect(settings.worker_database_url, application_name="tests")
    try:
        await migrate.check_database(connection, settings.secret_key)
        assert await connection.fetchval("SELECT count(*) FROM audience") == 10
        return await store.read_hold(connection)
    finally:
        await connection.close()


async def test_a_backup_is_private_and_whole(filled: Settings, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.with_name("mail.backup.part").exists()
    before = file.stat().st_ino
    await work.backup(filled, file, say=lambda line: None)
    assert file.stat().st_ino != before


async def test_a_backup_that_fails_leaves_the_one_before(
    filled: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(work, "OWNER", "nobody_there")
    with pytest.raises(StartError, match="pg_dump failed: .*nobody_there"):
        await work.backup(filled, file, say=lambda line: None)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


async def test_rows_roles_and_rights_come_back(filled: Settings, file: Path, target: str) -> None:
    settings = on(filled, target)
    hold = await restored(settings, file)
    assert hold.held_reason is not None
    assert "there is no log of accepted mail" in hold.held_reason
    api = await connect(settings.api_database_url, application_name="tests")
    assert await api.fetchval("SELECT count(*) FROM audience") == 0  # row level security is on
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await api.execute("DELETE FROM transfers")
    await api.close()


async def test_new_numbers_are_none_that_were_given_away_after_the_backup(
    filled: Settings, file: Path, target: str
) -> None:
    await restored(on(filled, target), file)
    numbers = []
    for url in (filled.worker_database_url, on(filled, target).worker_database_url):
        connection = await connect(url, application_name="tests")
        numbers.append(await connection.fetchval("SELECT nextval('claim_ids')"))
        await connection.close()
    assert numbers[1] >= numbers[0] + 900_000


async def test_a_restored_installation_takes_no_shard(filled: Settings, file: Path, target: str) -> None:
    from mailrail.emails.store import take_shard

    settings = on(filled, target)
    await restored(settings, file)
    connection = await connect(settings.worker_database_url, application_name="tests")
    assert await take_shard(connection, 30.0) is None
    await connection.execute("UPDATE installation SET held_at = NULL")
    assert await take_shard(connection, 30.0) is not None
    await connection.close()


async def test_a_log_without_news_proves_that_nothing_is_missing(
    filled: Settings, file: Path, target: str, tmp_path: Path, worker_pool: Pool
) -> None:
    log = FileLog(tmp_path / "accepted")
    async with worker_pool.acquire() as conn:
        known = await accepted_round(conn, [1, 5], commit=True)
    await log.append(known)
    await work.backup(filled, file, say=lambda line: None)
    settings = on(filled, target, accepted_log=str(tmp_path / "accepted"))
    assert (await restored(settings, file)).held_at is None
    async with worker_pool.acquire() as conn:
        await log.append(await accepted_round(conn, [6, 10], commit=False))
    hold = await restored(settings, file, replaced=True)
    assert hold.held_reason is not None
    assert "SES may have accepted mail after that backup" in hold.held_reason


async def test_an_empty_log_proves_nothing(filled: Settings, file: Path, target: str, tmp_path: Path) -> None:
    assert (await restored(on(filled, target, accepted_log=str(tmp_path / "none")), file)).held_at is not None


async def test_a_used_database_is_replaced_only_on_demand(filled: Settings, file: Path, target: str) -> None:
    settings = on(filled, target)
    await restored(settings, file)
    with pytest.raises(DatabaseError, match="holds an installation already.*--replace"):
        await restored(settings, file)
    await restored(settings, file, replaced=True)


async def test_a_migrated_and_unused_database_is_empty(filled: Settings, file: Path, target: str) -> None:
    await migrate.migrate(target, SECRET, report=lambda line: None)
    await restored(on(filled, target), file)


async def test_another_secret_is_refused(filled: Settings, file: Path, target: str) -> None:
    with pytest.raises(DatabaseError, match="is not the secret of the installation that this backup was made of"):
        await restored(on(filled, target, secret_key="another secret, just as long as the first one"), file)
    connection = await connect(target, application_name="tests")
    assert not await store.has_schema(connection, "mailrail")
    await connection.close()


async def test_running_processes_are_refused(filled: Settings, file: Path, target: str) -> None:
    settings = on(filled, target)
    await migrate.migrate(target, SECRET, report=lambda line: None)
    process = await connect(settings.worker_database_url, application_name="mailrail worker")
    with pytest.raises(DatabaseError, match="mailrail worker is connected to this database; stop all processes"):
        await restored(settings, file)
    await process.close()


async def test_a_restore_that_fails_leaves_what_was_there(
    filled: Settings, file: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on(filled, target)
    await restored(settings, file)
    torn = file.with_name("torn.backup")
    torn.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    with pytest.raises(StartError, match=r"pg_restore failed|is no backup"):
        await restored(settings, torn, replaced=True)
    known = migrate.read_migrations()
    broken = migrate.Migration(len(known) + 1, "x", "SELECT 1 / 0")
    monkeypatch.setattr(migrate, "read_migrations", lambda: [*known, broken])
    with pytest.raises(DatabaseError, match=f"migration {broken.version:04} x failed"):
        await restored(settings, file, replaced=True)
    monkeypatch.undo()
    connection = await connect(target, application_name="tests")
    assert await connection.fetchval("SELECT count(*) FROM mailrail.audience") == 10
    assert not await store.has_schema(connection, store.ASIDE)
    await connection.close()


async def test_a_restore_that_was_killed_is_undone_by_the_next(filled: Settings, file: Path, target: str) -> None:
    settings = on(filled, target)
    await restored(settings, file)
    connection = await connect(target, application_name="tests")
    await work.as_owner(connection, store.move_aside)
    with pytest.raises(DatabaseError, match="holds an installation already"):
        await restored(settings, file)
    assert await connection.fetchval("SELECT count(*) FROM mailrail.audience") == 10
    await connection.close()


async def test_what_is_no_backup_is_said(filled: Settings, target: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="there is no file"):
        await restored(on(filled, target), tmp_path / "none")
    (tmp_path / "other").write_text("no backup")
    with pytest.raises(StartError, match="pg_restore failed"):
        await restored(on(filled, target), tmp_path / "other")


@pytest.fixture
def old_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose pg_dump is older than the server."""

    def missing() -> Path:
        raise StartError("not installed")

    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)'\n")
    program.chmod(0o755)
    monkeypatch.setattr(work, "program_directory", missing)
    monkeypatch.setenv("PATH", str(program.parent))


async def test_old_programs_are_not_used(old_programs: None, filled: Settings, tmp_path: Path) -> None:
    assert work.version_of(tmp_path / "bin" / "pg_dump") == 15
    with pytest.raises(StartError, match="pg_dump of PostgreSQL 18 or newer is needed"):
        await work.backup(filled, tmp_path / "x", say=lambda line: None)


def test_copied_values_are_read_as_postgresql_writes_them() -> None:
    sql = 'COPY mailrail.t (a, "order") FROM stdin;\n\\N\tx\\ty\\\\z\n\\\\x00ff\t\n\\.\n\nCOPY mailrail.u (v) FROM stdin;\n\\.\n'
    assert work.copied_rows(sql) == {
        "t": [{"a": None, "order": "x\ty\\z"}, {"a": "\\x00ff", "order": ""}],
        "u": [],
    }
