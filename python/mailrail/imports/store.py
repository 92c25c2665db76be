"""Every statement on imports, their pieces and their errors."""

import dataclasses
import io
from typing import Any

from mailrail.contacts.model import ContactStatus
from mailrail.db.copy import copy_out
from mailrail.db.pool import Connection
from mailrail.imports.model import (
    ERRORS_KEPT_DAYS,
    ERRORS_MAX,
    OPEN,
    SILENCE_MAX_S,
    Columns,
    Counts,
    Import,
    ImportNotFound,
    ImportOptions,
    ImportStatus,
    StoredPiece,
)

# Rows of the error file that one statement makes.
ERRORS_SLICE = 10_000
ERROR_COLUMNS = ("row", "email", "code", "reason")
_COUNTS = tuple(field.name for field in dataclasses.fields(Counts))
_COLUMNS = f"""id, account_id, status, reason, format, list_id, tags, contact_status, upsert, consent_source, consent_wording,
mapping, columns, delimiter, digest, bytes_received, rows_received, {", ".join(_COUNTS)}, created_at, started_at, completed_at,
coalesce(extract(epoch FROM coalesce(completed_at, clock_timestamp()) - started_at), 0)::float8 AS seconds"""
_OPEN = f"status IN ({', '.join(repr(str(status)) for status in OPEN)})"


def _import(row: Any) -> Import:
    status = row["contact_status"]
    options = ImportOptions(
        row["list_id"],
        row["tags"],
        None if status is None else ContactStatus(status),
        row["upsert"],
        row["consent_source"],
        row["consent_wording"],
        row["mapping"],
    )
    columns = row["columns"]
    return Import(
        id=row["id"],
        account_id=row["account_id"],
        status=ImportStatus(row["status"]),
        reason=row["reason"],
        format=row["format"],
        options=options,
        columns=None if columns is None else Columns(row["delimiter"], [(name, target) for name, target in columns]),
        digest=row["digest"],
        bytes_received=row["bytes_received"],
        rows_received=row["rows_received"],
        counts=Counts(*(row[name] for name in _COUNTS)),
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        seconds=row["seconds"],
    )


# —— what customers do ——————————————————————————————————————————————————————————————————————————————————————————————————


async def insert(conn: Connection, account_id: int, upload_format: str, key: str | None) -> int | None:
    """A new import that receives its upload; None where the account has one under this key."""
    import_id: int | None = await conn.fetchval(
        """INSERT INTO imports (account_id, format, idempotency_key) VALUES ($1, $2, $3)
           ON CONFLICT (account_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING id""",
        account_id,
        upload_format,
        key,
    )
    return import_id


async def count_open(conn: Connection, account_id: int) -> int:
    """Imports of the account that are under way; counted by one request at a time, so that the limit holds."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('mailrail.imports'), hashint8($1))", account_id)
    count: int = await conn.fetchval(f"SELECT count(*) FROM imports WHERE account_id = $1 AND {_OPEN}", account_id)
    return count


async def read(conn: Connection, account_id: int, import_id: int) -> Import:
    """Raises ImportNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM imports WHERE id = $1 AND account_id = $2", import_id, account_id
    )
    if row is None:
        raise ImportNotFound
    return _import(row)


async def read_by_key(conn: Connection, account_id: int, key: str) -> Import:
    """Raises ImportNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM imports WHERE account_id = $1 AND idempotency_key = $2", account_id, key
    )
    if row is None:
        raise ImportNotFound
    return _import(row)


async def read_page(conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None) -> list[Import]:
    """Newest first; `after_id` goes on behind that import, else `offset` skips."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM imports WHERE account_id = $1 AND ($4::bigint IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
        after_id,
    )
    return [_import(row) for row in rows]


async def count(conn: Connection, account_id: int) -> int:
    """All of the account's."""
    found: int = await conn.fetchval("SELECT count(*) FROM imports WHERE account_id = $1", account_id)
    return found


async def insert_piece(conn: Connection, account_id: int, import_id: int, piece: StoredPiece, received: int) -> bool:
    """Adds a piece and notes how many bytes have come; False where the upload is not awaited any more."""
    awaited = await note_received(conn, account_id, import_id, received, piece.rows)
    if awaited:
        await conn.execute(
            """INSERT INTO import_pieces (import_id, number, account_id, first_row, rows, body)
               VALUES ($1, $2, $3, $4, $5, $6)""",
            import_id,
            piece.number,
            account_id,
            piece.first_row,
            piece.rows,
            piece.body,
        )
    return awaited


async def note_received(conn: Connection, account_id: int, import_id: int, received: int, rows: int = 0) -> bool:
    """Notes that the upload goes on; False where it is not awaited any more.

    What is received is durable with the commit that ends the upload: until then a crash ends it anyway.
    """
    await conn.execute("SET LOCAL synchronous_commit = off")
    awaited = await conn.fetchval(
        """UPDATE imports SET bytes_received = $3, rows_received = rows_received + $4, heard_at = now()
           WHERE id = $1 AND account_id = $2 AND status = 'receiving' RETURNING true""",
        import_id,
        account_id,
        received,
        rows,
    )
    return awaited is not None


async def finish_upload(
    conn: Connection,
    account_id: int,
    import_id: int,
    options: ImportOptions,
    columns: Columns | None,
    digest: bytes,
    received: int,
) -> Import | None:
    """Hands the import to the workers; None where its upload is not awaited any more."""
    row = await conn.fetchrow(
        f"""UPDATE imports SET status = 'processing', list_id = $3, tags = $4, contact_status = $5, upsert = $6,
              consent_source = $7, consent_wording = $8, mapping = $9, columns = $10, delimiter = $11, digest = $12,
              bytes_received = $13, heard_at = now()
            WHERE id = $1 AND account_id = $2 AND status = 'receiving' RETURNING {_COLUMNS}""",
        import_id,
        account_id,
        options.list_id,
        options.tags,
        options.contact_status,
        options.upsert,
        options.consent_source,
        options.consent_wording,
        options.mapping,
        None if columns is None else columns.targets,
        None if columns is None else columns.delimiter,
        digest,
        received,
    )
    return None if row is None else _import(row)


async def end(
    conn: Connection, account_id: int, import_id: int, status: ImportStatus, reason: str | None, *, frees_key: bool
) -> Import | None:
    """Ends an import that is under way, and drops what is left of its upload; None where it is over.

    `frees_key` lets its Idempotency-Key be used again: what was not received may be sent again.
    """
    row = await conn.fetchrow(
        f"""UPDATE imports SET status = $3, reason = $4, completed_at = now(),
              idempotency_key = CASE WHEN $5 THEN NULL ELSE idempotency_key END
            WHERE id = $1 AND account_id = $2 AND {_OPEN} RETURNING {_COLUMNS}""",
        import_id,
        account_id,
        status,
        reason,
        frees_key,
    )
    if row is None:
        return None
    await conn.execute("DELETE FROM import_pieces WHERE import_id = $1 AND account_id = $2", import_id, account_id)
    return _import(row)


async def read_errors_csv(
    conn: Connection, account_id: int, import_id: int, after_row: int
) -> tuple[bytes, int | None]:
    """Up to ERRORS_SLICE lines of ERROR_COLUMNS behind a row, made by PostgreSQL, and the last row in them; None where
    there are no more. A text that a spreadsheet would take for a formula has `'` before it (OWASP, CSV Injection).
    """
    last: int | None = await conn.fetchval(
        """SELECT max(row) FROM (SELECT row FROM import_errors WHERE import_id = $1 AND account_id = $2 AND row > $3
                                 ORDER BY row LIMIT $4) AS slice""",
        import_id,
        account_id,
        after_row,
        ERRORS_SLICE,
    )
    if last is None:
        return b"", None
    lines = await copy_out(
        conn,
        """SELECT row, CASE WHEN email ~ '^[-=+@\\t\\r]' THEN '''' ELSE '' END || coalesce(email, ''), code, reason
           FROM import_errors WHERE import_id = $1 AND account_id = $2 AND row > $3 AND row <= $4 ORDER BY row""",
        import_id,
        account_id,
        after_row,
        last,
        format="csv",
        force_quote=True,
    )
    return lines, last


# —— what workers do ————————————————————————————————————————————————————————————————————————————————————————————————————


async def take_turn(conn: Connection) -> Import | None:
    """Locks the import whose piece is merged next: of the tenant who waited longest, its oldest. None while there is nothing.

    Others pass over a locked one, and the lock goes with its holder.
    """
    row = await conn.fetchrow(
        f"""WITH waiting AS (
              SELECT id, max(turn_at) OVER (PARTITION BY account_id) AS last_turn FROM imports WHERE status = 'processing'
            ), next AS (
              SELECT i.id FROM imports i JOIN waiting w USING (id) WHERE i.status = 'processing'
              ORDER BY w.last_turn NULLS FIRST, i.id LIMIT 1 FOR UPDATE OF i SKIP LOCKED
            )
            UPDATE imports i SET turn_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp())
            FROM next WHERE i.id = next.id RETURNING {_COLUMNS.replace("id,", "i.id,", 1)}"""
    )
    return None if row is None else _import(row)


async def next_piece(conn: Connection, import_id: int) -> int | None:
    """The number of the import's next piece; None where all are done."""
    number: int | None = await conn.fetchval("SELECT min(number) FROM import_pieces WHERE import_id = $1", import_id)
    return number


async def read_piece(conn: Connection, import_id: int, number: int) -> StoredPiece | None:
    """None where there is no such piece."""
    row = await conn.fetchrow(
        "SELECT number, first_row, rows, body FROM import_pieces WHERE import_id = $1 AND number = $2",
        import_id,
        number,
    )
    return None if row is None else StoredPiece(**row)


async def delete_piece(conn: Connection, import_id: int, number: int) -> None:
    """The piece goes with the transaction that merges it."""
    await conn.execute("DELETE FROM import_pieces WHERE import_id = $1 AND number = $2", import_id, number)


_STAGED_ERRORS = """CREATE TEMP TABLE IF NOT EXISTS staged_import_errors (row bigint, code text, reason text, email text)
ON COMMIT DELETE ROWS"""


async def insert_errors(conn: Connection, one: Import, errors: bytes) -> None:
    """Keeps failed rows, given as binary COPY rows (row, code, reason, email), up to ERRORS_MAX of an import."""
    if one.counts.failed >= ERRORS_MAX:
        return
    await conn.execute(_STAGED_ERRORS)
    await conn.copy_to_table("staged_import_errors", source=io.BytesIO(errors), format="binary")
    await conn.execute(
        """INSERT INTO import_errors (import_id, account_id, row, code, reason, email)
           SELECT $1, $2, row, code, reason, email FROM staged_import_errors ORDER BY row LIMIT $3""",
        one.id,
        one.account_id,
        ERRORS_MAX - one.counts.failed,
    )


async def add_counts(conn: Connection, import_id: int, counts: Counts) -> None:
    """Notes what became of a piece's rows."""
    added = ", ".join(f"{name} = {name} + ${number}" for number, name in enumerate(_COUNTS, 3))
    await conn.execute(
        f"UPDATE imports SET rows_done = rows_done + $2, {added} WHERE id = $1",
        import_id,
        counts.rows,
        *(getattr(counts, name) for name in _COUNTS),
    )


async def complete_if_done(conn: Connection, import_id: int) -> None:
    """Completes an import of which no piece is left. Only that commit is waited for, and all before it are durable then:
    a crash of the database gives the last pieces back together with what they had changed.
    """
    completed = await conn.fetchval(
        """UPDATE imports SET status = 'completed', completed_at = clock_timestamp() WHERE id = $1
             AND NOT EXISTS (SELECT FROM import_pieces WHERE import_id = $1) RETURNING true""",
        import_id,
    )
    if not completed:
        await conn.execute("SET LOCAL synchronous_commit = off")


async def read_silent(conn: Connection) -> list[tuple[int, int]]:
    """(account, import) of uploads whose process is gone."""
    rows = await conn.fetch(
        "SELECT account_id, id FROM imports WHERE status = 'receiving' AND heard_at < now() - make_interval(secs => $1)",
        SILENCE_MAX_S,
    )
    return [(row["account_id"], row["id"]) for row in rows]


async def forget_errors(conn: Connection) -> None:
    """Drops the failed rows of imports that ended long ago: they hold addresses that nobody needs any more."""
    await conn.execute(
        """DELETE FROM import_errors e USING imports i
           WHERE e.import_id = i.id AND i.completed_at < now() - make_interval(days => $1)""",
        ERRORS_KEPT_DAYS,
    )


async def erase_errors(conn: Connection, account_id: int, folded: str) -> None:
    """Drops failed rows that name an erased person's address, also as a part of what was wrong."""
    await conn.execute(
        """DELETE FROM import_errors
           WHERE account_id = $1 AND position($2 IN lower(concat_ws(' ', email, reason))) > 0""",
        account_id,
        folded,
    )
