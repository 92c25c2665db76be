"""The verbs of imports. Each runs in the caller's transaction, save those of an upload, which outlasts many."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import orjson

from mailrail._core import CoreError, ImportCutter, ImportPiece
from mailrail.contacts import service as contacts
from mailrail.db.pool import DATABASE_ERRORS, Connection
from mailrail.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from mailrail.ids import Kind
from mailrail.imports import store
from mailrail.imports.model import (
    OPEN_MAX,
    Import,
    ImportEnded,
    ImportNotFound,
    ImportOptions,
    ImportStatus,
    ImportUnreadable,
    StoredPiece,
    TooManyImports,
    read_columns,
)

log = logging.getLogger(__name__)

# An upload that goes on says so at least this often, however slowly it comes.
NOTED_EVERY_S = 15.0

Transactions: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]


async def get(conn: Connection, account_id: int, import_id: int) -> Import:
    """Raises ImportNotFound."""
    return await store.read(conn, account_id, import_id)


async def page(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[Import]:
    """Newest first."""
    return await store.read_page(conn, account_id, limit, offset, after_id)


async def count(conn: Connection, account_id: int) -> int:
    """How many imports the account has."""
    return await store.count(conn, account_id)


async def cancel(conn: Connection, account_id: int, import_id: int) -> Import:
    """Ends an import after the piece under way: what was merged stays, the rest is dropped.

    Raises ImportNotFound, and ImportEnded where there is nothing left to cancel.
    """
    ended = await store.end(conn, account_id, import_id, ImportStatus.CANCELLED, None, frees_key=False)
    if ended is None:
        await store.read(conn, account_id, import_id)
        raise ImportEnded
    return ended


class Upload:
    """An upload on its way in: cut into pieces that are stored as they come, so that memory stays constant.

    Whoever runs it calls `begin`, `take` for all bytes and `finish`, and `break_off` if any of them fails.
    """

    def __init__(self, transactions: Transactions, account_id: int, key: str | None) -> None:
        self._transactions = transactions
        self._account_id = account_id
        self._key = key
        self._import_id: int | None = None
        # What was received under this key before; then nothing is stored, only compared.
        self._earlier: Import | None = None
        self._cutter = ImportCutter("csv")
        self._digest = hashlib.sha256()
        self._received = 0
        self._pieces = 0
        self._noted_at = 0.0

    @property
    def envelope(self) -> bytes:
        """The JSON object around the contacts; empty where there is none."""
        return self._cutter.envelope

    async def begin(self, upload_format: str, delimiter: str | None) -> None:
        """Opens an import for `csv`, `json` or `jsonl`. Raises TooManyImports and IdempotencyKeyInUse."""
        self._cutter = ImportCutter(upload_format, delimiter)
        stored_format = "csv" if upload_format == "csv" else "json"
        async with self._transactions() as conn:
            self._earlier = await self._find_earlier(conn)
            if self._earlier is None:
                if await store.count_open(conn, self._account_id) >= OPEN_MAX:
                    raise TooManyImports
                self._import_id = await store.insert(conn, self._account_id, stored_format, self._key)
                if self._import_id is None:
                    # Its twin came between.
                    self._earlier = await self._find_earlier(conn)
        self._noted_at = asyncio.get_running_loop().time()

    async def take(self, data: bytes) -> None:
        """Takes the next bytes. Raises ImportUnreadable, and ImportEnded where it was cancelled meanwhile."""
        self._received += len(data)
        self._digest.update(data)
        if self._import_id is not None:
            await self._store(self._cut(lambda: self._cutter.feed(data)))

    def check_columns(self, options: ImportOptions) -> bool:
        """Whether the header of a CSV upload is in, and then that it names an address. Raises ColumnsInvalid."""
        columns = self._cutter.columns
        if columns is not None:
            read_columns(columns, self._cutter.delimiter or ",", options.mapping)
        return columns is not None

    async def finish(self, options: Callable[[], ImportOptions]) -> tuple[Import, bool]:
        """Hands the import to the workers; whether it is one that was received before, under the same key.

        `options` is asked once all bytes are in. Raises ImportUnreadable, ColumnsInvalid, ListNotFound, IdempotencyKeyReused, and
        ImportEnded where it was cancelled meanwhile.
        """
        pieces = self._cut(self._cutter.finish) if self._earlier is None else []
        chosen = options()
        said = (*((name, getattr(chosen, name)) for name in chosen.__slots__),)
        self._digest.update(orjson.dumps(said, option=orjson.OPT_SORT_KEYS))
        if self._earlier is not None:
            if self._earlier.digest != self._digest.digest():
                raise IdempotencyKeyReused((Kind.IMPORT, self._earlier.id))
            return self._earlier, True
        assert self._import_id is not None, "an upload begins before it ends"
        names = self._cutter.columns
        columns = None if names is None else read_columns(names, self._cutter.delimiter or ",", chosen.mapping)
        await self._store(pieces)
        async with self._transactions() as conn:
            if chosen.list_id is not None:
                await contacts.require_list(conn, self._account_id, chosen.list_id)
            finished = await store.finish_upload(
                conn, self._account_id, self._import_id, chosen, columns, self._digest.digest(), self._received
            )
        if finished is None:
            raise ImportEnded
        return finished, False

    async def break_off(self, reason: str) -> None:
        """Ends the import as failed and drops what was received; does nothing where it never began."""
        if self._import_id is None:
            return
        try:
            async with self._transactions() as conn:
                status = ImportStatus.FAILED
                await store.end(conn, self._account_id, self._import_id, status, reason, frees_key=True)
        except DATABASE_ERRORS as error:
            # The workers end it when nothing was heard of it for a while.
            log.warning("an upload broke off and could not say so (%s)", type(error).__name__)

    async def _find_earlier(self, conn: Connection) -> Import | None:
        if self._key is None:
            return None
        try:
            earlier = await store.read_by_key(conn, self._account_id, self._key)
        except ImportNotFound:
            return None
        if earlier.digest is None:
            raise IdempotencyKeyInUse((Kind.IMPORT, earlier.id))
        return earlier

    def _cut(self, step: Callable[[], list[ImportPiece]]) -> list[ImportPiece]:
        try:
            return step()
        except CoreError as error:
            raise ImportUnreadable(str(error)) from error

    async def _store(self, pieces: list[ImportPiece]) -> None:
        assert self._import_id is not None
        now = asyncio.get_running_loop().time()
        for piece in pieces:
            self._pieces += 1
            stored = StoredPiece(self._pieces, piece.first_row, piece.rows, piece.body)
            async with self._transactions() as conn:
                awaited = await store.insert_piece(conn, self._account_id, self._import_id, stored, self._received)
            if not awaited:
                raise ImportEnded
            self._noted_at = now
        if now - self._noted_at > NOTED_EVERY_S:
            async with self._transactions() as conn:
                awaited = await store.note_received(conn, self._account_id, self._import_id, self._received)
            if not awaited:
                raise ImportEnded
            self._noted_at = now
