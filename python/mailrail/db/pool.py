"""Connections to PostgreSQL: pools per role, the JSON codec, and the transaction that names its tenant."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction, TransactionState

from mailrail.errors import DatabaseError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
# Begins a transaction of a tenant who is known to it.
Begin: TypeAlias = "Callable[[], AbstractAsyncContextManager[Connection]]"

CONNECT_TIMEOUT_S = 10
IDLE_IN_TRANSACTION_MAX = "2min"
JSONB_VERSION = b"\x01"
# What a statement raises when the database is at fault, or away. asyncpg's own errors are none of its PostgresErrors.
DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def open_pool(
    url: str,
    *,
    application_name: str,
    max_size: int = 10,
    min_size: int = 1,
    hot: bool = False,
    command_timeout_s: float | None = 60,
    resets: bool = True,
) -> Pool:
    """A pool of connections to `url`; raises DatabaseError with one sentence when the first one fails.

    `hot` is for the send path: its statements touch partitioned tables, where a generic plan would visit every partition.
    Without `resets` a connection comes back as it was left, a round trip cheaper: for users who leave nothing in a session.
    """
    try:
        return await asyncpg.create_pool(
            url,
            min_size=min_size,
            max_size=max_size,
            init=set_codecs,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=command_timeout_s,
            server_settings=server_settings(application_name, hot),
            reset=None if resets else leave,
        )
    except DATABASE_ERRORS as error:
        raise unreachable(url, error) from error


async def leave(connection: Connection) -> None:
    """Instead of asyncpg's four statements that clear a session; it still rolls back what was left open."""


async def close_pool(pool: Pool, timeout_s: float) -> None:
    """Waits for connections in use, but not for ever."""
    with suppress(TimeoutError):
        await asyncio.wait_for(pool.close(), timeout_s)


async def connect(url: str, *, application_name: str, hot: bool = False) -> "asyncpg.Connection[asyncpg.Record]":
    """One connection of its own, for a command, a listener or a migration; errors as in `open_pool`."""
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, server_settings=server_settings(application_name, hot)
        )
    except DATABASE_ERRORS as error:
        raise unreachable(url, error) from error
    await set_codecs(connection)
    return connection


@asynccontextmanager
async def transaction(pool: Pool, account_id: int) -> AsyncIterator[Connection]:
    """A transaction of one tenant: row level security shows and takes only rows of `account_id` until it ends."""
    async with pool.acquire() as connection, TenantTransaction(connection, account_id):
        yield connection


class TenantTransaction(Transaction):
    """asyncpg's outermost transaction, begun in one round trip with the naming of its tenant: a quarter of what a request with
    one query costs. `start` is as in asyncpg 0.32, to which this project is pinned, but for the query.
    """

    def __init__(self, connection: Connection, account_id: int) -> None:
        # Of a pool's connection, the one behind it.
        real: Any = getattr(connection, "_con", connection)
        super().__init__(real, None, False, False)
        self._account_id = int(account_id)

    async def start(self) -> None:
        """BEGIN, as the tenant."""
        connection: Any = self._connection  # type: ignore[attr-defined]  # a slot that the stub does not declare
        connection._top_xact = self  # noqa: SLF001
        try:
            await connection.execute(f"BEGIN; SELECT set_config('mailrail.account_id', '{self._account_id}', true)")
        except BaseException:
            self._state = TransactionState.FAILED
            raise
        self._state = TransactionState.STARTED


@asynccontextmanager
async def in_the_name_of(connection: Connection, account_id: int) -> AsyncIterator[None]:
    """A part of a tenant's transaction that acts for another tenant: an operator's. Row level security then shows and takes
    only the other's rows; what raises undoes the change with the transaction.
    """
    before = await connection.fetchval("SELECT current_setting('mailrail.account_id')")
    await connection.execute("SELECT set_config('mailrail.account_id', $1, true)", str(account_id))
    yield
    # What is checked at the end of the transaction looks at rows that are not to be seen by then.
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    await connection.execute("SELECT set_config('mailrail.account_id', $1, true)", before)


async def only_read(connection: Connection) -> None:
    """From here on the transaction writes nothing: PostgreSQL refuses whatever would."""
    await connection.execute("SET TRANSACTION READ ONLY")


@asynccontextmanager
async def at_most(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """A part of a transaction each statement of which may take so long. Raises TimeoutError where one was cut off; the
    transaction goes on.
    """
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
            yield
            await connection.execute("SET LOCAL statement_timeout TO DEFAULT")
    except asyncpg.QueryCanceledError as error:
        raise TimeoutError from error


def server_settings(application_name: str, hot: bool) -> dict[str, str]:
    """What every connection asks of its session. UTC, so that a timestamp never depends on the server's zone. A transaction
    whose client fell silent, as behind a cut cable, gives its locks back.
    """
    settings = {
        "application_name": application_name,
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MAX,
    }
    if hot:
        settings["plan_cache_mode"] = "force_custom_plan"
    return settings


async def set_codecs(connection: Connection) -> None:
    """json and jsonb as Python values by orjson; in binary form, so that COPY works with them too."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=encode_jsonb, decoder=decode_jsonb
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=orjson.dumps, decoder=orjson.loads
    )


def encode_jsonb(value: Any) -> bytes:
    """jsonb's binary form: a version byte, then the text."""
    return JSONB_VERSION + orjson.dumps(value)


def decode_jsonb(data: bytes) -> Any:
    """The inverse of `encode_jsonb`."""
    return orjson.loads(data[1:])


def unreachable(url: str, error: BaseException) -> DatabaseError:
    """One sentence for a failed connection, with the server's name and without the password."""
    shown = without_password(url)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return DatabaseError(f"the database of {shown} does not exist; create it with createdb")
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return DatabaseError(f"PostgreSQL refused the user or password of {shown}: {first_line(error)}")
    if isinstance(error, TimeoutError):
        return DatabaseError(f"PostgreSQL at {shown} did not answer within {CONNECT_TIMEOUT_S} s")
    return DatabaseError(f"cannot connect to PostgreSQL at {shown}: {first_line(error)}")


def without_password(url: str) -> str:
    """A database URL that may be shown and logged."""
    parts = urlsplit(url)
    user, at, server = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + server, query=""))


async def fetch_one(connection: Connection, statement: str, *arguments: Any) -> asyncpg.Record:
    """The row of a statement that always yields one, such as an aggregate or an INSERT … RETURNING."""
    row = await connection.fetchrow(statement, *arguments)
    if row is None:
        raise LookupError("a statement that always yields a row yielded none")
    return row


def first_line(error: BaseException) -> str:
    """An error's own words without the DETAIL and HINT that PostgreSQL's carry on further lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]
