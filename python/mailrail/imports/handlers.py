"""What workers do with imports: they merge what was received, a piece at a time, and end uploads that broke off.

Any number may run. Whose turn it is, is decided under a row lock; a piece, its rows and the progress are one transaction.
"""

import asyncio
import contextlib
import logging

import asyncpg
import orjson

from mailrail._core import ImportPlan, ImportRows
from mailrail.addresses import AddressInvalid, parse_address
from mailrail.contacts import merge
from mailrail.contacts import service as contacts
from mailrail.db.pool import DATABASE_ERRORS, Pool
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


async def run_importer(pool: Pool) -> None:
    """Until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_tidy_again_and_again(pool))
        while True:
            try:
                busy = await merge_next(pool)
            except DATABASE_ERRORS as error:
                log.warning("import: the database failed (%s)", type(error).__name__)
                busy = False
            if not busy:
                await asyncio.sleep(IDLE_S)


async def merge_next(pool: Pool) -> bool:
    """Merges one piece of the import whose turn it is; False where there is none. An import that cannot be merged fails."""
    turn: Import | None = None
    try:
        async with pool.acquire() as conn, conn.transaction():
            turn = await store.take_turn(conn)
            if turn is None:
                return False
            piece = await store.take_piece(conn, turn.id)
            if piece is not None:
                rows = await read_piece(turn, piece)
                counts = Counts(failed=rows.error_count, doubled=rows.doubled_count)
                if rows.error_count:
                    await store.insert_errors(conn, turn, rows.errors)
                if rows.contact_count:
                    await merge.stage(conn, rows.contacts)
                    await contacts.add_fields(conn, turn.account_id, rows.field_names[:FIELD_NAMES_MAX])
                    merged = await merge.merge(
                        conn,
                        turn.account_id,
                        turn.id,
                        rows.contact_count,
                        list_id=turn.options.list_id,
                        update=turn.options.upsert,
                    )
                    counts = Counts(
                        merged.created,
                        merged.updated,
                        merged.unchanged,
                        merged.skipped,
                        merged.doubled + rows.doubled_count,
                        rows.error_count,
                    )
                await store.add_counts(conn, turn.id, counts)
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
    while True:
        with contextlib.suppress(*DATABASE_ERRORS):
            await tidy(pool)
        await asyncio.sleep(TIDY_INTERVAL_S)
