"""Every statement on the ledger's tables. Invariants are constraints of the schema; these statements keep them cheap."""

from collections.abc import Sequence
from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.wallet.model import Balance, Hold, HoldNotFound, Violation

_HOLD_COLUMNS = """id, account_id, stream_id, price_micros, recipients, amount_micros, captured_micros, released_micros,
created_at, closed_at"""


async def insert_ledger_accounts(conn: Connection, account_id: int, kinds: Sequence[str]) -> None:
    """Opens the tenant's ledger accounts; those it has stay."""
    await conn.execute(
        "INSERT INTO ledger_accounts (account_id, kind) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
        account_id,
        list(kinds),
    )


async def insert_transfer(
    conn: Connection, account_id: int, kind: str, amount_micros: int, hold_id: int | None, key: str
) -> int | None:
    """The new transfer's id, or None where this key has moved its money before."""
    transfer_id: int | None = await conn.fetchval(
        """INSERT INTO transfers (account_id, kind, amount_micros, hold_id, key) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (account_id, key) DO NOTHING RETURNING id""",
        account_id,
        kind,
        amount_micros,
        hold_id,
        key,
    )
    return transfer_id


async def post(
    conn: Connection, transfer_id: int, account_id: int, source: str, target: str, amount_micros: int
) -> None:
    """Moves the amount between two ledger accounts of the tenant, locking them in the order of their ids.

    Raises asyncpg.CheckViolationError (ledger_accounts_funds) if `source` would fall below zero.
    """
    await conn.execute(
        """WITH moves AS (
             SELECT l.id, CASE l.kind WHEN $3 THEN -$5::bigint ELSE $5::bigint END AS amount_micros
             FROM ledger_accounts l WHERE l.account_id = $2 AND l.kind IN ($3, $4)
             ORDER BY l.id FOR UPDATE
           ), posted AS (
             INSERT INTO postings (transfer_id, ledger_account_id, account_id, amount_micros)
             SELECT $1, id, $2, amount_micros FROM moves
           )
           UPDATE ledger_accounts l SET balance_micros = l.balance_micros + m.amount_micros
           FROM moves m WHERE l.id = m.id""",
        transfer_id,
        account_id,
        source,
        target,
        amount_micros,
    )


async def read_balance(conn: Connection, account_id: int) -> Balance:
    """Zero for a tenant without a wallet."""
    rows = await conn.fetch("SELECT kind, balance_micros FROM ledger_accounts WHERE account_id = $1", account_id)
    balances = {row["kind"]: row["balance_micros"] for row in rows}
    return Balance(balances.get("available", 0), balances.get("held", 0))


async def insert_hold(conn: Connection, account_id: int, stream_id: int, price_micros: int, recipients: int) -> Hold:
    """A hold of price 0 has nothing to settle and is born closed."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO holds (account_id, stream_id, price_micros, recipients, amount_micros, closed_at)
            VALUES ($1, $2, $3, $4, $3::bigint * $4::integer, CASE WHEN $3 = 0 THEN now() END) RETURNING {_HOLD_COLUMNS}""",
        account_id,
        stream_id,
        price_micros,
        recipients,
    )
    return Hold(**row)


async def read_hold(conn: Connection, account_id: int, hold_id: int) -> Hold:
    """Raises HoldNotFound."""
    row = await conn.fetchrow(
        f"SELECT {_HOLD_COLUMNS} FROM holds WHERE id = $1 AND account_id = $2", hold_id, account_id
    )
    if row is None:
        raise HoldNotFound
    return Hold(**row)


async def add_to_hold(conn: Connection, hold_id: int, captured_recipients: int, released_recipients: int) -> Hold:
    """Books settled recipients into the hold and closes it with the last one."""
    row = await fetch_one(
        conn,
        f"""UPDATE holds SET captured_micros = captured_micros + $2 * price_micros,
              released_micros = released_micros + $3 * price_micros,
              closed_at = CASE WHEN captured_micros + released_micros + ($2 + $3) * price_micros = amount_micros
                          THEN coalesce(closed_at, now()) END
            WHERE id = $1 RETURNING {_HOLD_COLUMNS}""",
        hold_id,
        captured_recipients,
        released_recipients,
    )
    return Hold(**row)


# A ledger of many million settlements takes minutes to read, longer than statements of a pool usually may.
AUDIT_TIMEOUT_S = 1800.0

# One snapshot, so that whatever it finds is real: each row names a broken rule, its offender and whose it is.
_AUDIT = """
SELECT 'postings do not sum to zero' AS rule, NULL::bigint AS id, NULL::bigint AS account_id
WHERE (SELECT sum(amount_micros) FROM postings) <> 0
UNION ALL
SELECT 'transfer is not zero-sum', transfer_id, min(account_id) FROM postings
GROUP BY transfer_id HAVING sum(amount_micros) <> 0
UNION ALL
SELECT 'transfer without postings', t.id, t.account_id FROM transfers t
WHERE NOT EXISTS (SELECT FROM postings p WHERE p.transfer_id = t.id)
UNION ALL
SELECT 'balance differs from its postings', l.id, l.account_id FROM ledger_accounts l
WHERE l.balance_micros <> (SELECT coalesce(sum(p.amount_micros), 0) FROM postings p WHERE p.ledger_account_id = l.id)
UNION ALL
SELECT 'held differs from the open holds', l.id, l.account_id FROM ledger_accounts l
WHERE l.kind = 'held' AND l.balance_micros <> (
  SELECT coalesce(sum(h.amount_micros - h.captured_micros - h.released_micros), 0)
  FROM holds h WHERE h.account_id = l.account_id)
UNION ALL
SELECT 'hold differs from its settlements', h.id, h.account_id FROM holds h LEFT JOIN (
  SELECT stream_id, hold_id, count(*) FILTER (WHERE kind = 'captured') AS captured,
    count(*) FILTER (WHERE kind = 'released') AS released
  FROM settlements GROUP BY stream_id, hold_id) settled ON settled.stream_id = h.stream_id AND settled.hold_id = h.id
WHERE (h.captured_micros, h.released_micros) IS DISTINCT FROM
  (coalesce(settled.captured, 0) * h.price_micros, coalesce(settled.released, 0) * h.price_micros)
"""


async def find_violations(conn: Connection) -> list[Violation]:
    """Each broken invariant of all tenants; empty when the books balance."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        rows: list[Any] = await conn.fetch(_AUDIT, timeout=AUDIT_TIMEOUT_S)
    return [Violation(**row) for row in rows]


async def is_frozen(conn: Connection, account_id: int) -> bool:
    """Whether the tenant may start nothing new."""
    frozen: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM ledger_accounts WHERE account_id = $1 AND frozen_at IS NOT NULL)", account_id
    )
    return frozen


async def freeze_only(conn: Connection, account_ids: Sequence[int]) -> None:
    """Freezes the wallets of these tenants, and no others."""
    await conn.execute(
        """UPDATE ledger_accounts SET frozen_at = CASE WHEN account_id = ANY($1::bigint[]) THEN clock_timestamp() END
           WHERE kind = 'available' AND (frozen_at IS NOT NULL) <> (account_id = ANY($1::bigint[]))""",
        list(account_ids),
    )
