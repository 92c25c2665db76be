"""`mailrail backup` and `mailrail restore`: PostgreSQL's own pg_dump and pg_restore, with the checks around them.

A backup is one file in pg_dump's custom format: the schema mailrail and all its rows; the roles are made anew, as on any
server. A restored installation sends nothing until `mailrail release`, unless the log of accepted mail proves that nothing
was accepted after the backup.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from mailrail.config import Settings
from mailrail.db import migrate
from mailrail.db.migrate import OWNER, become_owner
from mailrail.db.pool import Connection, connect, without_password
from mailrail.emails.accepted_log import AcceptedLog, opened_log
from mailrail.errors import DatabaseError, StartError
from mailrail.ops import guard, store
from mailrail.up.postgres import program_directory

PROGRESS_INTERVAL_S = 2.0
LAST_LINES = 5
TABLE_LINE = re.compile(r"(?:dumping contents of|processing data for) table")
# Written by us and not by pg_restore, so that no worker can find the installation before it is held.
LATER = re.compile(r" TABLE DATA mailrail installation ")

Say = Callable[[str], None]
Found = TypeVar("Found")


async def backup(settings: Settings, file: Path, say: Say = print) -> None:
    """Writes the database into `file`, whole or not at all, readable by its owner alone. Raises MailrailError."""
    connection = await connect(settings.database_url, application_name="mailrail backup")
    try:
        async with connection.transaction():
            await become_owner(connection)
            await migrate.check_database(connection, settings.secret_key)
            size = await store.read_size(connection)
        program = find_program("pg_dump", await server_major(connection))
    finally:
        await connection.close()
    say(f"backing up {without_password(settings.database_url)}: {mega(size)} in {program.name} of {program.parent}")
    started = time.monotonic()
    partial = file.with_name(f"{file.name}.part")
    try:
        make_private(partial)
        await run(
            [program, "--format=custom", "--compress=gzip:3", "--schema=mailrail", f"--role={OWNER}", "--lock-wait-timeout=30s",
             "--no-password", "--verbose", f"--file={partial}", f"--dbname={without_secret(settings.database_url)}"],
            settings.database_url,
            lambda tables: say(f"  {tables} tables, {mega(partial.stat().st_size)} written"),
        )  # fmt: skip
        partial.rename(file)
        sync_directory(file.parent)
    except OSError as error:
        raise StartError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"{file}: {mega(file.stat().st_size)} after {time.monotonic() - started:.1f} s")
    say(
        "It holds addresses and what was sent to them: keep it as safe as the database. MAILRAIL_SECRET_KEY is not in it, and"
    )
    say("without that secret it cannot be used: keep a copy of the secret in another place.")


async def restore(settings: Settings, file: Path, replace: bool = False, say: Say = print) -> None:
    """Fills the database from `file` in one transaction; with `replace` in the place of the mailrail that is there.

    Raises MailrailError with one sentence, and then nothing has changed.
    """
    if not file.is_file():
        raise StartError(f"there is no file {file}")
    connection = await connect(settings.database_url, application_name="mailrail restore")
    try:
        await migrate.check_server_version(connection)
        program = find_program("pg_restore", await server_major(connection))
        origin = await read_origin(program, file)
        check_origin(origin, settings.secret_key)
        await migrate.prepare_roles(connection, settings.database_url, settings.secret_key)
        await refuse_sessions(connection)
        async with set_aside(connection, replace):
            say(f"restoring {mega(file.stat().st_size)} into {without_password(settings.database_url)}")
            await run_restore(program, file, settings.database_url, say)
            await migrate.run_files(connection, migrate.read_migrations(), say)
        async with opened_log(settings) as accepted:
            proven = await take_over(connection, origin, accepted, held_reason(settings, file))
        await migrate.finish(connection, settings.secret_key)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(
            f"restore lacks a right ({error.message}); `mailrail doctor` prints the SQL for an administrator"
        ) from error
    finally:
        await connection.close()
    say("restored")
    if proven:
        say(
            "The log of accepted mail holds nothing that this backup does not know: sending goes on when the worker starts."
        )
    else:
        say("Nothing is sent until `mailrail release`; `mailrail doctor` says why.")


def held_reason(settings: Settings, file: Path) -> str:
    """Why a restored installation waits."""
    if not settings.accepted_log:
        return (
            f"It was restored from {file.name}, and there is no log of accepted mail (MAILRAIL_ACCEPTED_LOG), so nobody can say whom "
            "SES accepted after the backup."
        )
    return f"It was restored from {file.name}, and SES may have accepted mail after that backup."


# —— what a backup tells about itself ———————————————————————————————————————————————————————————————————————————————————


@dataclass(frozen=True, slots=True)
class Origin:
    """The installation that a backup was made of: its one row, as PostgreSQL writes it, and its migrations."""

    installation: Mapping[str, str | None]
    versions: Sequence[int]

    @property
    def fingerprint(self) -> bytes:
        """That of the secret."""
        return bytes.fromhex((self.installation["secret_fingerprint"] or "").removeprefix("\\x"))


async def read_origin(program: Path, file: Path) -> Origin:
    """Reads two small tables out of the file. Raises StartError for a file that is no backup."""
    tables = await output(
        [program, "--data-only", "--table=installation", "--table=schema_migrations", "--file=-", file]
    )
    rows = copied_rows(tables)
    if len(rows.get("installation", ())) != 1:
        raise StartError(f"{file} is no backup of mailrail")
    return Origin(rows["installation"][0], [int(row["version"] or 0) for row in rows.get("schema_migrations", ())])


def copied_rows(sql: str) -> dict[str, list[dict[str, str | None]]]:
    """The rows of COPY blocks in pg_restore's output, by table and column."""
    found: dict[str, list[dict[str, str | None]]] = {}
    for table, columns, data in re.findall(
        r"^COPY mailrail\.(\w+) \(([^)]*)\) FROM stdin;\n(.*?)^\\\.$", sql, re.MULTILINE | re.DOTALL
    ):
        names = [name.strip().strip('"') for name in columns.split(",")]
        found[table] = [
            dict(zip(names, map(copied_value, line.split("\t")), strict=True)) for line in data.splitlines()
        ]
    return found


ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def copied_value(text: str) -> str | None:
    """A field of COPY's text form (PostgreSQL documentation, COPY, "Text Format")."""
    if text == "\\N":
        return None
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), text)


def check_origin(origin: Origin, secret_key: str) -> None:
    """Before anything is changed: the backup is of this installation and not of a newer release. Raises DatabaseError."""
    if origin.fingerprint != migrate.fingerprint(secret_key):
        raise DatabaseError(
            "MAILRAIL_SECRET_KEY is not the secret of the installation that this backup was made of; set the original one"
        )
    migrate.refuse_newer(origin.versions, [migration.version for migration in migrate.read_migrations()])


# —— the database that is there ————————————————————————————————————————————————————————————————————————————————————————


async def server_major(connection: Connection) -> int:
    """18, for example."""
    return int(await connection.fetchval("SHOW server_version_num")) // 10000


async def refuse_sessions(connection: Connection) -> None:
    """Raises DatabaseError while processes of mailrail work on the database."""
    if names := await store.read_sessions(connection):
        raise DatabaseError(f"{', '.join(names)} is connected to this database; stop all processes of mailrail first")


@contextlib.asynccontextmanager
async def set_aside(connection: Connection, replace: bool) -> AsyncIterator[None]:
    """The present schema, empty or allowed to go, under another name for the length of the block; back if that fails.

    Raises DatabaseError where the database is in use and may not be replaced.
    """
    await recover_aside(connection)
    there = await store.has_schema(connection, store.SCHEMA)
    if there and not replace and not await as_owner(connection, store.is_unused):
        raise DatabaseError(
            "this database holds an installation already; restore into an empty one, or add --replace to lose what it holds"
        )
    if there:
        await as_owner(connection, store.move_aside)
    try:
        yield
    except BaseException:
        await recover_aside(connection)
        raise
    await as_owner(connection, store.drop_aside)


async def recover_aside(connection: Connection) -> None:
    """A restore that did not come to its end left the schema before it aside."""
    if await store.has_schema(connection, store.ASIDE):
        await as_owner(connection, store.move_back)


async def as_owner(connection: Connection, act: Callable[[Connection], Awaitable[Found]]) -> Found:
    """One act in a transaction of the owner's."""
    async with connection.transaction():
        await become_owner(connection)
        return await act(connection)


async def take_over(connection: Connection, origin: Origin, accepted: AcceptedLog | None, reason: str) -> bool:
    """Gives the restored database its installation, held from the start unless the log proves that it is the latest state;
    whether it does. Until this commits no worker takes a shard.
    """
    async with connection.transaction():
        await become_owner(connection)
        await store.insert_installation(connection, origin.installation)
        await store.skip_numbers(connection)
        proven = accepted is not None and await guard.is_proven_current(connection, accepted)
        if not proven:
            await store.hold_installation(connection, reason)
    return proven


# —— PostgreSQL's programs ——————————————————————————————————————————————————————————————————————————————————————————————


def find_program(name: str, server: int) -> Path:
    """The embedded PostgreSQL's own, else the one on the PATH; not older than the server. Raises StartError."""
    candidates = []
    with contextlib.suppress(StartError):
        candidates.append(program_directory() / name)
    if on_path := shutil.which(name):
        candidates.append(Path(on_path))
    for program in candidates:
        if program.exists() and version_of(program) >= server:
            return program
    raise StartError(
        f"{name} of PostgreSQL {server} or newer is needed and was not found; install PostgreSQL's client programs"
    )


def version_of(program: Path) -> int:
    """Its major version; 0 for a program that does not say."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)(?:\.\d+)*\s*(?:\(|$)", told.strip())
    return int(match[1]) if match else 0


async def run_restore(program: Path, file: Path, url: str, say: Say) -> None:
    """All of the backup but the installation's row, in one transaction."""
    listed = await output([program, "--list", file])
    with tempfile.NamedTemporaryFile("w", suffix=".list") as wanted:
        wanted.write("".join(f"{line}\n" for line in listed.splitlines() if not LATER.search(line)))
        wanted.flush()
        await run(
            [program, "--single-transaction", "--exit-on-error", "--no-owner", f"--role={OWNER}", "--no-password", "--verbose",
             f"--use-list={wanted.name}", f"--dbname={without_secret(url)}", file],
            url,
            lambda tables: say(f"  {tables} tables"),
        )  # fmt: skip


async def run(command: Sequence[str | Path], url: str, progress: Callable[[int], None]) -> None:
    """A program to its end; `progress` hears now and then how many tables it has done. Raises StartError with its last words."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PGPASSWORD": unquote(urlsplit(url).password or "")},
    )
    try:
        last = await follow(process, progress)
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise StartError(f"{Path(command[0]).name} failed: {' '.join(last)}")


async def follow(process: asyncio.subprocess.Process, progress: Callable[[int], None]) -> Sequence[str]:
    """Reads what the program says until it is silent; the last lines that are no progress."""
    assert process.stderr is not None
    tables, shown_at, last = 0, time.monotonic(), deque[str](maxlen=LAST_LINES)
    async for raw in process.stderr:
        line = raw.decode(errors="replace").strip()
        if TABLE_LINE.search(line):
            tables += 1
        elif "error" in line or "fatal" in line.lower():
            last.append(line)
        if time.monotonic() - shown_at > PROGRESS_INTERVAL_S:
            shown_at = time.monotonic()
            progress(tables)
    return last


async def output(command: Sequence[str | Path]) -> str:
    """What a program prints. Raises StartError."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, failed = await process.communicate()
    if process.returncode != 0:
        raise StartError(f"{Path(command[0]).name} failed: {failed.decode(errors='replace').strip()}")
    return told.decode(errors="replace")


# —— small things ——————————————————————————————————————————————————————————————————————————————————————————————————————


def without_secret(url: str) -> str:
    """The URL without its password, which goes by the environment: command lines can be read by everybody."""
    parts = urlsplit(url)
    user, at, server = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + server))


def make_private(file: Path) -> None:
    """An empty file that only we can read."""
    file.unlink(missing_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def sync_directory(directory: Path) -> None:
    """Makes a rename last."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def mega(size: int) -> str:
    """Bytes for the eye."""
    return f"{size / 1e6:,.1f} MB"
