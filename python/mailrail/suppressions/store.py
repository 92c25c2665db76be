"""Every statement on suppressions and on the hashes of erased ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from mailrail.db.pool import Connection
from mailrail.suppressions.model import Reason, Suppression, SuppressionFilter, SuppressionNotFound

_COLUMNS = "id, account_id, email_folded AS email, reason, created_at, stream_id, seq, key_id, detail"
_WANTED = "account_id = $1 AND ($2::text IS NULL OR reason = $2) AND ($3::text IS NULL OR email_folded = lower($3))"


def _suppression(row: Any) -> Suppression:
    return Suppression(**{**row, "reason": Reason(row["reason"])})


async def insert_each(conn: Connection, account_id: int, entries: Mapping[str, Reason], key_id: int | None) -> int:
    """Addresses in lower case, each with its reason; returns how many are new. In one order, against deadlocks."""
    status = await conn.execute(
        """INSERT INTO suppressions (account_id, email_folded, reason, key_id)
           SELECT $1, e.email, e.reason, $4 FROM unnest($2::text[], $3::text[]) AS e(email, reason) ORDER BY e.email
           ON CONFLICT DO NOTHING""",
        account_id,
        list(entries),
        list(entries.values()),
        key_id,
    )
    return int(status.rpartition(" ")[2])


async def insert(
    conn: Connection, account_id: int, folded: Sequence[str], reason: Reason, key_id: int | None = None
) -> list[Suppression]:
    """Those that are new; an address that is suppressed keeps its reason. In one order, against deadlocks."""
    rows = await conn.fetch(
        f"""INSERT INTO suppressions (account_id, email_folded, reason, key_id)
            SELECT $1, e, $3, $4 FROM unnest($2::text[]) e ORDER BY e
            ON CONFLICT DO NOTHING RETURNING {_COLUMNS}""",
        account_id,
        sorted(set(folded)),
        reason,
        key_id,
    )
    return [_suppression(row) for row in rows]


async def read(
    conn: Connection, account_id: int, row_id: int | None, email: str | None, *, lock: bool = False
) -> Suppression:
    """By number or by address. Raises SuppressionNotFound."""
    row = await conn.fetchrow(
        f"""SELECT {_COLUMNS} FROM suppressions WHERE account_id = $1 AND (id = $2 OR email_folded = lower($3))
            {"FOR UPDATE" if lock else ""}""",
        account_id,
        row_id,
        email,
    )
    if row is None:
        raise SuppressionNotFound
    return _suppression(row)


async def find(conn: Connection, account_id: int, email: str) -> Suppression | None:
    """What suppresses the address."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM suppressions WHERE account_id = $1 AND email_folded = lower($2)", account_id, email
    )
    return None if row is None else _suppression(row)


async def read_page(
    conn: Connection, account_id: int, wanted: SuppressionFilter, limit: int, offset: int, after_id: int | None
) -> list[Suppression]:
    """Newest first; `after_id` goes on behind that row, else `offset` skips."""
    rows = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM suppressions WHERE {_WANTED} AND ($6::bigint IS NULL OR id < $6)
            ORDER BY id DESC LIMIT $4 OFFSET $5""",
        account_id,
        wanted.reason,
        wanted.email,
        limit,
        offset,
        after_id,
    )
    return [_suppression(row) for row in rows]


async def count(conn: Connection, account_id: int, wanted: SuppressionFilter) -> int:
    """How many the filter finds."""
    found: int = await conn.fetchval(
        f"SELECT count(*) FROM suppressions WHERE {_WANTED}", account_id, wanted.reason, wanted.email
    )
    return found


async def delete(conn: Connection, lifted: Suppression) -> None:
    """The address may get mail again, as far as its contact lets it: one that bounced was subscribed before; one that
    complained did not want the mail, and stays unsubscribed.
    """
    await conn.execute(
        """WITH gone AS (DELETE FROM suppressions WHERE account_id = $1 AND email_folded = $2)
           UPDATE contacts SET status = CASE status WHEN 'bounced' THEN 'subscribed' ELSE 'unsubscribed' END, updated_at = now()
           WHERE account_id = $1 AND email_folded = $2 AND status IN ('bounced', 'complained')""",
        lifted.account_id,
        lifted.email,
    )


async def delete_unsubscribe(conn: Connection, account_id: int, email: str) -> None:
    """Forgets that the person who has the address unsubscribed: he subscribed again."""
    await conn.execute(
        "DELETE FROM suppressions WHERE account_id = $1 AND email_folded = lower($2) AND reason = 'unsubscribe'",
        account_id,
        email,
    )


# —— erased persons ——————————————————————————————————————————————————————————————————————————————————————————————————————


async def replace_by_hash(conn: Connection, account_id: int, folded: str, email_hash: bytes) -> None:
    """Keeps a suppression without its address."""
    await conn.execute(
        """WITH gone AS (
             DELETE FROM suppressions WHERE account_id = $1 AND email_folded = $2 RETURNING reason, created_at
           ), counted AS (
             DELETE FROM soft_bounces WHERE account_id = $1 AND email_folded = $2
           )
           INSERT INTO suppression_hashes (account_id, email_hash, reason, created_at)
           SELECT $1, $3, reason, created_at FROM gone ON CONFLICT DO NOTHING""",
        account_id,
        folded,
        email_hash,
    )


async def any_hash(conn: Connection, account_id: int) -> bool:
    """Whether the account has a suppression of an erased person."""
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM suppression_hashes WHERE account_id = $1)", account_id
    )
    return found


async def wake(conn: Connection, account_id: int, by_hash: Mapping[bytes, str]) -> list[Suppression]:
    """Turns hashes whose address is back into ordinary suppressions; those that were woken."""
    rows = await conn.fetch(
        f"""WITH known AS (
              SELECT h.email_hash, b.email_folded, h.reason, h.created_at
              FROM unnest($2::bytea[], $3::text[]) AS b(email_hash, email_folded)
              JOIN suppression_hashes h ON h.account_id = $1 AND h.email_hash = b.email_hash
              ORDER BY h.email_hash FOR UPDATE OF h
            ), gone AS (
              DELETE FROM suppression_hashes h USING known k WHERE h.account_id = $1 AND h.email_hash = k.email_hash
            )
            INSERT INTO suppressions (account_id, email_folded, reason, created_at)
            SELECT $1, email_folded, reason, created_at FROM known ORDER BY email_folded
            ON CONFLICT DO NOTHING RETURNING {_COLUMNS}""",
        account_id,
        list(by_hash),
        list(by_hash.values()),
    )
    return [_suppression(row) for row in rows]
