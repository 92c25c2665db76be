"""Every statement on erasures."""

from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.privacy.model import Erasure, ErasureNotFound

_COLUMNS = "id, account_id, contact_id, email_folded, email_hash, stream_id, requested_at, completed_at"


def _erasure(row: Any) -> Erasure:
    return Erasure(**row)


async def insert(conn: Connection, account_id: int, contact_id: int, folded: str, email_hash: bytes) -> Erasure:
    """Asks the workers to go through the mail."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO erasures (account_id, contact_id, email_folded, email_hash) VALUES ($1, $2, $3, $4)
            RETURNING {_COLUMNS}""",
        account_id,
        contact_id,
        folded,
        email_hash,
    )
    return _erasure(row)


async def read(conn: Connection, account_id: int, erasure_id: int) -> Erasure:
    """Raises ErasureNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM erasures WHERE id = $1 AND account_id = $2", erasure_id, account_id
    )
    if row is None:
        raise ErasureNotFound
    return _erasure(row)


async def lock_next(conn: Connection) -> Erasure | None:
    """The oldest that nobody works on; None while there is none."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM erasures WHERE completed_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    return None if row is None else _erasure(row)


async def note_progress(conn: Connection, erasure: Erasure, stream_id: int) -> None:
    """Streams up to this one are done."""
    await conn.execute("UPDATE erasures SET stream_id = $2 WHERE id = $1", erasure.id, stream_id)


async def complete(conn: Connection, erasure: Erasure) -> None:
    """Forgets the address."""
    await conn.execute(
        "UPDATE erasures SET email_folded = '', completed_at = clock_timestamp() WHERE id = $1", erasure.id
    )
