"""COPY out of the database."""

from typing import Any

from mailrail.db.pool import Connection


async def copy_out(conn: Connection, query: str, *arguments: object, **options: Any) -> bytes:
    """What COPY gives for a query; `options` are those of asyncpg's `copy_from_query`.

    Into memory, by a sink that never waits: asyncpg 0.32 goes through a thread for each piece of a file, and whoever is cancelled
    there, while the last piece is written, waits for ever to give the connection back, for it asks to cancel what has ended.
    """
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:
        pieces.append(piece)

    await conn.copy_from_query(query, *arguments, output=keep, **options)
    return b"".join(pieces)
