"""`mailrail migrate`: the three roles, the schema, then every numbered SQL file that this database has not run yet.

Files stand in `migrations/` as `0001_name.sql`. Each runs in one transaction as mailrail_owner with schema mailrail on the
search path, forward only. One advisory lock keeps two migrates apart.
"""

import asyncio
import base64
import hashlib
import hmac
import random
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from mailrail.config import role_password, role_url
from mailrail.db.pool import Connection, connect, first_line
from mailrail.errors import DatabaseError

MIGRATIONS = Path(__file__).with_name("migrations")
OWNER = "mailrail_owner"
API = "mailrail_api"
WORKER = "mailrail_worker"
SERVER_VERSION_MIN = 180000
ADVISORY_LOCK = 7_302_114_855  # any constant that nobody else in this database uses
# Whoever comes after a waiting ALTER TABLE waits behind it, so a file waits briefly and is tried again. At first it also
# waits less than PostgreSQL's deadlock_timeout of 1 s, so that a file which crosses a worker's locks gives way and not the
# worker; a file that never gets through like this becomes more patient, and then the worker repeats its transaction.
LOCK_WAIT_MS = 500
LOCK_WAIT_MAX_MS = 4000
LOCK_TRIES = 12
LOCK_PAUSE_S = 0.5
# A file that locks several tables may also meet a worker that locks them in another order.
LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
STATEMENT_LIMIT = "30min"
OTHER_MIGRATE_WAIT = "120s"

ROLE_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    version: int
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Rights:
    """What the migrating user may do, as far as `migrate` needs to know."""

    user: str
    database: str
    superuser: bool
    create_role: bool
    bypass_rls: bool
    becomes_owner: bool
    creates_schemas: bool

    @property
    def can_make_roles(self) -> bool:
        """PostgreSQL lets only a role with BYPASSRLS hand BYPASSRLS on."""
        return self.superuser or (self.create_role and self.bypass_rls)


async def migrate(
    url: str, secret_key: str, *, report: Callable[[str], None] = print, directory: Path = MIGRATIONS
) -> list[Migration]:
    """Bring the database at `url` up to date and return what was run; raises DatabaseError with one sentence."""
    migrations = read_migrations(directory)
    connection = await connect(url, application_name="mailrail migrate")
    try:
        await check_server_version(connection)
        await take_lock(connection)
        await check_secret(connection, secret_key)
        await prepare_roles(connection, url, secret_key)
        await prepare_schema(connection)
        done = await run_files(connection, migrations, report)
        await finish(connection, secret_key)
        return done
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(
            f"migrate lacks a right ({error.message}); `mailrail doctor` prints the SQL for an administrator"
        ) from error
    except LOCKED as error:
        raise DatabaseError(f"a table that migrate needs was in use {LOCK_TRIES} times; run it again later") from error
    finally:
        await connection.close()


async def check_database(connection: Connection, secret_key: str) -> None:
    """Every process calls this at its start: right server, all files run, same secret. Raises DatabaseError."""
    try:
        await check_server_version(connection)
        await check_current(connection)
        await check_secret(connection, secret_key)
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InterfaceError,
    ) as error:
        raise DatabaseError(f"the database went away ({first_line(error)}); start again once it is back") from error


# —— files ——


def read_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """All files in order; a gap or a double number is a mistake of whoever added the file."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)", path.stem)
        if match is None:
            raise DatabaseError(f"the migration {path.name} is not named like 0001_name.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise DatabaseError(f"the migrations in {directory.name}/ are not numbered 1, 2, 3 …")
    return found


async def applied_versions(connection: Connection) -> list[int]:
    """Numbers of the files that this database has run."""
    if not await connection.fetchval("SELECT to_regclass('mailrail.schema_migrations') IS NOT NULL"):
        return []
    return [
        row["version"]
        for row in await connection.fetch("SELECT version FROM mailrail.schema_migrations ORDER BY version")
    ]


async def check_current(connection: Connection, directory: Path = MIGRATIONS) -> None:
    """The database has run exactly the files of this program."""
    try:
        applied = await applied_versions(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError("this role cannot read the schema mailrail; run `mailrail migrate`") from error
    expected = [migration.version for migration in read_migrations(directory)]
    if len(applied) < len(expected):
        raise DatabaseError(f"the database is at migration {len(applied)} of {len(expected)}; run `mailrail migrate`")
    refuse_newer(applied, expected)


def refuse_newer(applied: Sequence[int], expected: Sequence[int]) -> None:
    """An older program must not touch a newer database."""
    if len(applied) > len(expected):
        raise DatabaseError(
            f"the database is at migration {len(applied)}, newer than this program, which knows {len(expected)}; upgrade mailrail"
        )


async def run_files(
    connection: Connection, migrations: Sequence[Migration], report: Callable[[str], None]
) -> list[Migration]:
    """Run what is missing, each file in its own transaction."""
    async with connection.transaction():
        await become_owner(connection)
        applied = await applied_versions(connection)
    refuse_newer(applied, [migration.version for migration in migrations])
    missing = [migration for migration in migrations if migration.version not in applied]
    for migration in missing:
        await run_file_patiently(connection, migration, report)
        report(f"migration {migration.version:04} {migration.name}: done")
    return missing


async def run_file_patiently(connection: Connection, migration: Migration, report: Callable[[str], None]) -> None:
    """Tries again while a table that the file needs is locked, and lets the traffic through in between."""
    for tries in range(LOCK_TRIES):
        try:
            await run_file(connection, migration, lock_wait_ms(tries))
            return
        except LOCKED:
            if tries == LOCK_TRIES - 1:
                raise
            report(f"migration {migration.version:04} {migration.name}: a table is in use, trying again")
            await asyncio.sleep(LOCK_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311


def lock_wait_ms(tries: int) -> int:
    """How long each statement of a file waits for its locks after so many tries; it doubles with every second one."""
    return int(min(LOCK_WAIT_MS * 2 ** (tries // 2), LOCK_WAIT_MAX_MS))


async def run_file(connection: Connection, migration: Migration, wait_ms: int) -> None:
    """One file as the owner. A lock that is not free within seconds fails it: waiting would queue all traffic behind it."""
    try:
        async with connection.transaction():
            await become_owner(connection)
            await connection.execute(f"SET LOCAL lock_timeout = {wait_ms}")
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO mailrail.schema_migrations (version, name) VALUES ($1, $2)",
                migration.version,
                migration.name,
            )
    except (asyncpg.InsufficientPrivilegeError, *LOCKED):
        raise
    except asyncpg.PostgresError as error:
        raise DatabaseError(
            f"migration {migration.version:04} {migration.name} failed and was rolled back: {error.message}"
        ) from error


async def become_owner(connection: Connection) -> None:
    """For the rest of the transaction: the owner's rights, its schema, and limits on waiting."""
    await connection.execute(
        f"SET LOCAL ROLE {OWNER}; SET LOCAL search_path = mailrail; "
        f"SET LOCAL lock_timeout = {LOCK_WAIT_MAX_MS}; SET LOCAL statement_timeout = '{STATEMENT_LIMIT}'"
    )


# —— server, lock, schema ——


async def check_server_version(connection: Connection) -> None:
    """mailrail needs what PostgreSQL 18 brought."""
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < SERVER_VERSION_MIN:
        raise DatabaseError(f"mailrail needs PostgreSQL 18 or newer; this server is {number // 10000}")


async def take_lock(connection: Connection) -> None:
    """Wait for another migrate to finish. The lock goes with the connection."""
    await connection.execute(f"SET lock_timeout = '{OTHER_MIGRATE_WAIT}'")
    try:
        await connection.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    except asyncpg.LockNotAvailableError as error:
        raise DatabaseError(f"another `mailrail migrate` has been running for {OTHER_MIGRATE_WAIT}") from error
    await connection.execute(f"SET lock_timeout = {LOCK_WAIT_MAX_MS}")


async def prepare_schema(connection: Connection) -> None:
    """The schema mailrail and the list of files that ran."""
    async with connection.transaction():
        await become_owner(connection)
        await connection.execute("CREATE SCHEMA IF NOT EXISTS mailrail")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )


# —— secret ——


def fingerprint(secret_key: str) -> bytes:
    """Tells secrets apart and says nothing about them."""
    return hmac.new(secret_key.encode(), b"mailrail v1 fingerprint", hashlib.sha256).digest()


async def recorded_fingerprint(connection: Connection) -> bytes | None:
    """The fingerprint of the secret that this database was made with, or None before the first migration."""
    if not await connection.fetchval("SELECT to_regclass('mailrail.installation') IS NOT NULL"):
        return None
    found: bytes | None = await connection.fetchval("SELECT secret_fingerprint FROM mailrail.installation")
    return found


async def check_secret(connection: Connection, secret_key: str) -> None:
    """Under another secret every id, token and password of this database would be unreadable."""
    known = await recorded_fingerprint_as_owner(connection)
    if known is not None and not hmac.compare_digest(known, fingerprint(secret_key)):
        raise DatabaseError(
            "MAILRAIL_SECRET_KEY is not the secret that this database was made with; set the original one"
        )


async def recorded_fingerprint_as_owner(connection: Connection) -> bytes | None:
    """A migrating user may hold no right on the table itself, so it reads as the owner; a login role reads directly."""
    try:
        return await recorded_fingerprint(connection)
    except asyncpg.InsufficientPrivilegeError:
        async with connection.transaction():
            await become_owner(connection)
            return await recorded_fingerprint(connection)


async def finish(connection: Connection, secret_key: str) -> None:
    """The first migrate notes whose database this is. What a file grants on all tables must not reach the list of files."""
    async with connection.transaction():
        await become_owner(connection)
        await connection.execute(f"GRANT USAGE ON SCHEMA mailrail TO {API}, {WORKER}")
        await connection.execute(f"REVOKE ALL ON schema_migrations FROM {API}, {WORKER}")
        await connection.execute(f"GRANT SELECT ON schema_migrations TO {API}, {WORKER}")
        await connection.execute(
            "INSERT INTO installation (secret_fingerprint) SELECT $1::bytea WHERE NOT EXISTS (SELECT FROM installation)",
            fingerprint(secret_key),
        )


# —— roles ——


async def read_rights(connection: Connection) -> Rights:
    """What the connected user may do. `becomes_owner` and `creates_schemas` are about the owner role, if there is one."""
    row = await connection.fetchrow(
        """
        SELECT current_user AS user, current_database() AS database, me.rolsuper, me.rolcreaterole, me.rolbypassrls,
               coalesce(pg_has_role(current_user, owner.oid, 'SET'), false) AS becomes_owner,
               coalesce(has_database_privilege(owner.oid, current_database(), 'CREATE'), false) AS creates_schemas
        FROM pg_roles AS me LEFT JOIN pg_roles AS owner ON owner.rolname = $1
        WHERE me.rolname = current_user
        """,
        OWNER,
    )
    assert row is not None
    return Rights(*row)


async def prepare_roles(connection: Connection, url: str, secret_key: str) -> None:
    """Make the roles that are missing and see that the login roles have this secret's passwords."""
    rights = await read_rights(connection)
    statements = await missing_roles(connection, secret_key)
    if statements and not rights.can_make_roles:
        raise DatabaseError(
            f"{rights.user} may not create the roles of mailrail: the first migrate needs a superuser or a role with BYPASSRLS and "
            "CREATEROLE; `mailrail doctor` prints the SQL for an administrator"
        )
    for statement in [*statements, *missing_grants(rights)]:
        await connection.execute(statement)
    await check_grants(connection)
    for role in (API, WORKER):
        await check_login(connection, role, url, secret_key)


async def missing_roles(connection: Connection, secret_key: str) -> list[str]:
    """The statements for those roles that the server does not have."""
    return [
        statement
        for role, statement in role_statements(secret_key).items()
        if not await connection.fetchval(ROLE_EXISTS, role)
    ]


def role_statements(secret_key: str) -> dict[str, str]:
    """How each role is made; the login roles find the tables without naming the schema.

    Passwords go as SCRAM verifiers: a server that logs its DDL must not learn them.
    """
    api, worker = (scram_verifier(role_password(secret_key, role)) for role in (API, WORKER))
    return {
        OWNER: f"CREATE ROLE {OWNER} NOLOGIN BYPASSRLS",
        API: f"CREATE ROLE {API} LOGIN NOBYPASSRLS PASSWORD '{api}'; ALTER ROLE {API} SET search_path = mailrail",
        WORKER: f"CREATE ROLE {WORKER} LOGIN BYPASSRLS PASSWORD '{worker}'; ALTER ROLE {WORKER} SET search_path = mailrail",
    }


def missing_grants(rights: Rights) -> list[str]:
    """What the migrating user and the owner need to work in this database."""
    statements = []
    if not rights.becomes_owner:
        statements.append(f"GRANT {OWNER} TO {quoted(rights.user)} WITH INHERIT FALSE, SET TRUE")
    if not rights.creates_schemas:
        statements.append(f"GRANT CREATE ON DATABASE {quoted(rights.database)} TO {OWNER}")
    return statements


def administrator_sql(rights: Rights, missing: Sequence[str]) -> str:
    """The SQL that lets a plain user migrate: for an administrator to run once, in this database."""
    grants = [
        f"GRANT {OWNER} TO {quoted(rights.user)} WITH INHERIT FALSE, SET TRUE",
        f"GRANT CREATE ON DATABASE {quoted(rights.database)} TO {OWNER}",
    ]
    return "\n".join(f"{statement};" for statement in [*missing, *grants])


async def check_grants(connection: Connection) -> None:
    """GRANT only warns when it could not grant, so look at the result."""
    rights = await read_rights(connection)
    if not rights.becomes_owner:
        raise DatabaseError(
            f"{rights.user} may not become {OWNER}; `mailrail doctor` prints the SQL for an administrator"
        )
    if not rights.creates_schemas:
        raise DatabaseError(
            f"{OWNER} may not create schemas in {rights.database}; `mailrail doctor` prints the SQL for an administrator"
        )


async def check_login(connection: Connection, role: str, url: str, secret_key: str) -> None:
    """Log in as the role. Roles are shared by all databases of a server, so another installation may have made them."""
    try:
        await asyncpg_login(role_url(url, role, secret_key))
    except asyncpg.InvalidPasswordError as error:
        if await recorded_fingerprint_as_owner(connection) is None:
            raise DatabaseError(
                f"this server already has a role {role} with another password, so it carries another installation of mailrail; "
                "use that one's MAILRAIL_SECRET_KEY, or another server"
            ) from error
        await connection.execute(f"ALTER ROLE {role} PASSWORD '{scram_verifier(role_password(secret_key, role))}'")


async def asyncpg_login(url: str) -> None:
    """Connect and leave; only a wrong password is of interest here, other troubles show at the start of the process concerned."""
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except asyncpg.InvalidPasswordError:
        raise
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return
    await connection.close()


def quoted(identifier: str) -> str:
    """An SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def scram_verifier(password: str, iterations: int = 4096) -> str:
    """What PostgreSQL stores for a SCRAM-SHA-256 password (RFC 5803, in the server's own spelling)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"
