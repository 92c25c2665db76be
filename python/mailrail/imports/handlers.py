"""What workers do with imports: they merge what was received, a piece at a time, and end uploads that broke off.

Any number may run. Whose turn it is, is decided under a row lock; a piece, its rows and the progress are one transaction.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import asyncpg
import orjson

from mailrail._core import ImportPlan, ImportRows
from mailrail.addresses import AddressInvalid, parse_address
from mailrail.cancellation import is_cancelled
from mailrail.contacts import merge
from mailrail.contacts import service as contacts
from mailrail.contacts.consent import Consent
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool
from mailrail.imports import store
from mailrail.imports.model import Counts, Import, ImportStatus, StoredPiece

log = logging.getLogger(__name__)

IDLE_S = 0.5
TIDY_INTERVAL_S = 30.0
# Pauses between tries while the database is away or in the way.
RETRY_S = 1.0
# Names of custom fields that one piece may add to what templates know.
FIELD_NAMES_MAX = 1000
# International addresses that are judged before others get the processor.
JUDGED_AT_ONCE = 50

# It passes: the database is away or going down, or another transaction was in the way and this one may come again.
PASSES = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)


async def run_importer(pool: Pool, secret_key: str) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_tidy_again_and_again(pool))
        ahead = LookAhead(pool)
        while not is_cancelled():
            try:
                busy = await merge_next(pool, secret_key, ahead)
            except DATABASE_ERRORS as error:
                log.warning("import: the database failed (%s)", type(error).__name__)
                busy = False
            if not busy:
                await asyncio.sleep(IDLE_S)


@dataclass(frozen=True, slots=True)
class Staged:
    """How many rows of a piece the database has, bad ones and doubles beside them."""

    contacts: int
    errors: int
    doubled: int


class LookAhead:
    """Reads an import's next piece while the database merges the one before. Pieces never change, so it cannot be wrong."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._place: tuple[int, int] | None = None
        self._task: asyncio.Task[ImportRows | None] | None = None

    def begin(self, turn: Import, number: int) -> None:
        """Begins to read piece `number`; there may be none."""
        if self._place != (turn.id, number):
            self.drop()
            self._place = (turn.id, number)
            self._task = asyncio.create_task(self._read(turn, number))

    async def take(self, turn: Import, number: int) -> ImportRows | None:
        """The piece's rows, if it was looked ahead for; they can be taken once."""
        task, hit = self._task, self._place == (turn.id, number)
        if task is None or not hit:
            return None
        self._task = self._place = None
        return await task

    def drop(self) -> None:
        """Lets go of what was read."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._place = None

    async def _read(self, turn: Import, number: int) -> ImportRows | None:
        try:
            async with self._pool.acquire() as conn:
                piece = await store.read_piece(conn, turn.id, number)
            return None if piece is None else await read_piece(turn, piece)
        except DATABASE_ERRORS:
            return None  # whoever has the turn reads it again


async def merge_next(pool: Pool, secret_key: str, ahead: LookAhead | None = None) -> bool:
    """Merges one piece of the import whose turn it is; False where there is none. An import that cannot be merged fails."""
    turn: Import | None = None
    try:
        async with pool.acquire() as conn, conn.transaction():
            turn = await store.take_turn(conn)
            if turn is None:
                return False
            number = await store.next_piece(conn, turn.id)
            if number is not None:
                staged = await _stage(conn, turn, await _rows_of(conn, turn, number, ahead))
                if ahead is not None:
                    ahead.begin(turn, number + 1)
                await store.add_counts(conn, turn.id, await _merge(conn, turn, staged, secret_key))
                await store.delete_piece(conn, turn.id, number)
            await store.complete_if_done(conn, turn.id)
    except PASSES as error:
        log.warning("import: a piece comes again (%s)", type(error).__name__)
        await asyncio.sleep(RETRY_S)
    except Exception:
        if turn is None:
            raise
        # It would come up again with each turn, and keep others waiting.
        log.exception("import %d: failed", turn.id)
        await fail(
            pool, turn.account_id, turn.id, "It stopped because of an error on our side; the rows before it stay."
        )
    return True


async def _rows_of(conn: Connection, turn: Import, number: int, ahead: LookAhead | None) -> ImportRows:
    rows = None if ahead is None else await ahead.take(turn, number)
    if rows is None:
        piece = await store.read_piece(conn, turn.id, number)
        assert piece is not None, "the row of the import is locked, so its pieces stay"
        rows = await read_piece(turn, piece)
    return rows


async def _stage(conn: Connection, turn: Import, rows: ImportRows) -> Staged:
    """Hands the rows over to the database, so that their memory is free while it merges."""
    if rows.error_count:
        await store.insert_errors(conn, turn, rows.errors)
    if rows.contact_count:
        await merge.stage(conn, rows.contacts)
        await contacts.add_fields(conn, turn.account_id, rows.field_names[:FIELD_NAMES_MAX])
    return Staged(rows.contact_count, rows.error_count, rows.doubled_count)


async def _merge(conn: Connection, turn: Import, staged: Staged, secret_key: str) -> Counts:
    if not staged.contacts:
        return Counts(failed=staged.errors, doubled=staged.doubled)
    options = turn.options
    merged = await merge.merge(
        conn,
        turn.account_id,
        turn.id,
        staged.contacts,
        secret_key,
        list_id=options.list_id,
        update=options.upsert,
        consent=Consent(options.consent_source, None, options.consent_wording),
    )
    return Counts(
        merged.created,
        merged.updated,
        merged.unchanged,
        merged.skipped,
        merged.doubled + staged.doubled,
        staged.errors,
    )


async def read_piece(turn: Import, piece: StoredPiece) -> ImportRows:
    """The piece's rows. International domains are judged by the library that judges single contacts, all else by the core."""
    plan = ImportPlan(plan_of(turn))
    rows = await asyncio.to_thread(plan.read, piece.body, piece.first_row, {}, {})
    if rows.unknown:
        valid, refused = await judge(rows.unknown)
        rows = await asyncio.to_thread(plan.read, piece.body, piece.first_row, valid, refused)
    return rows


def plan_of(turn: Import) -> bytes:
    """What its columns or keys mean, as the core takes it."""
    options, columns = turn.options, turn.columns
    return orjson.dumps(
        {
            "format": turn.format,
            "delimiter": None if columns is None else columns.delimiter,
            "columns": None if columns is None else [target for _, target in columns.targets],
            "mapping": options.mapping if columns is None else None,
            "tags": options.tags,
            "status": options.contact_status,
        }
    )


async def judge(addresses: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Address → as stored, and address → why mail cannot be sent to it."""
    valid: dict[str, str] = {}
    refused: dict[str, str] = {}
    for number, address in enumerate(addresses):
        if number % JUDGED_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            valid[address] = parse_address(address)
        except AddressInvalid as error:
            refused[address] = str(error)
    return valid, refused


async def fail(pool: Pool, account_id: int, import_id: int, reason: str) -> None:
    """Ends an import as failed and drops what is left of its upload."""
    async with pool.acquire() as conn, conn.transaction():
        await store.end(conn, account_id, import_id, ImportStatus.FAILED, reason, frees_key=True)


async def tidy(pool: Pool) -> None:
    """Ends uploads of which nothing was heard for long, and forgets old errors."""
    async with pool.acquire() as conn:
        silent = await store.read_silent(conn)
        await store.forget_errors(conn)
    for account_id, import_id in silent:
        await fail(pool, account_id, import_id, "The upload broke off. Send it again.")


async def _tidy_again_and_again(pool: Pool) -> None:
    while not is_cancelled():
        with contextlib.suppress(*DATABASE_ERRORS):
            await tidy(pool)
        await asyncio.sleep(TIDY_INTERVAL_S)
