"""Every statement on the ledger's tables. Invariants are constraints of the schema; these statements keep them cheap."""

from collections.abc import Sequence
from typing import Any

from mailrail.db.pool import Connection, fetch_one
from mailrail.wallet.model import (
    TOTAL_CAP,
    Balance,
    Hold,
    HoldNotFound,
    InsufficientFunds,
    Settlement,
    SpendCapReached,
    Transfer,
    TransferFilter,
    TransferKind,
    Violation,
    WalletFrozen,
)

_HOLD_COLUMNS = """id, account_id, stream_id, price_micros, recipients, amount_micros, captured_micros, released_micros,
refunded_micros, created_at, closed_at"""
# Of a hold with its campaign. Transactional mail has none.
_HOLDS = """
SELECT h.id, h.account_id, h.stream_id, h.price_micros, h.recipients, h.amount_micros, h.captured_micros,
  h.released_micros, h.refunded_micros, h.created_at, h.closed_at, s.campaign_id
FROM holds h LEFT JOIN streams s ON s.stream_id = h.stream_id
"""
_TRANSFERS = """
SELECT t.id, t.account_id, t.kind, t.amount_micros, t.hold_id, t.created_at, s.campaign_id
FROM transfers t LEFT JOIN holds h ON h.id = t.hold_id LEFT JOIN streams s ON s.stream_id = h.stream_id
"""
_TRANSFER_FILTER = """t.account_id = $1 AND ($2::text IS NULL OR t.kind = $2)
AND ($3::timestamptz IS NULL OR t.created_at >= $3) AND ($4::timestamptz IS NULL OR t.created_at < $4)"""


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


# Whoever moves money locks the month's spending, then the wallet's rows by id; each step here waits for the one before.
# The trigger on holds adds to the month.
_TAKE_HOLD = f"""
WITH month AS (
  -- A first hold of the month must find a row to lock, too.
  INSERT INTO spending AS s (account_id, month) VALUES ($1, month_of(now()))
  ON CONFLICT (account_id, month) DO UPDATE SET spent_micros = s.spent_micros RETURNING spent_micros
), wallet AS (
  SELECT l.*, m.spent_micros FROM month m, ledger_accounts l
  WHERE l.account_id = $1 AND l.kind IN ('available', 'held') ORDER BY l.id FOR UPDATE OF l
), asked AS (
  SELECT $3::bigint * $4::integer AS needed_micros, count(frozen_at) > 0 AS is_frozen, max(spent_micros) AS spent_micros,
    max(monthly_cap_micros) AS cap_micros,
    coalesce(max(balance_micros) FILTER (WHERE kind = 'available'), 0) AS available_micros
  FROM wallet
), judged AS (
  SELECT a.*, CASE
    WHEN is_frozen THEN '{WalletFrozen.code}'
    WHEN needed_micros > 0 AND spent_micros + needed_micros > cap_micros THEN '{SpendCapReached.code}'
    WHEN needed_micros > available_micros THEN '{InsufficientFunds.code}' END AS refusal
  FROM asked a
), hold AS (
  -- A hold of price 0 has nothing to settle and is born closed.
  INSERT INTO holds (account_id, stream_id, price_micros, recipients, amount_micros, closed_at)
  SELECT $1, $2, $3, $4, needed_micros, CASE WHEN $3 = 0 THEN now() END FROM judged WHERE refusal IS NULL
  RETURNING {_HOLD_COLUMNS}
), transfer AS (
  INSERT INTO transfers (account_id, kind, amount_micros, hold_id, key)
  SELECT $1, '{TransferKind.HOLD}', amount_micros, id, 'hold:' || id FROM hold WHERE amount_micros > 0 RETURNING id
), moves AS (
  SELECT w.id, t.id AS transfer_id, CASE w.kind WHEN 'available' THEN -j.needed_micros ELSE j.needed_micros END AS amount_micros
  FROM transfer t, wallet w, judged j
), posted AS (
  INSERT INTO postings (transfer_id, ledger_account_id, account_id, amount_micros)
  SELECT transfer_id, id, $1, amount_micros FROM moves
), moved AS (
  UPDATE ledger_accounts l SET balance_micros = l.balance_micros + m.amount_micros FROM moves m WHERE l.id = m.id
)
SELECT j.refusal, j.cap_micros, j.spent_micros, j.needed_micros, h.* FROM judged j LEFT JOIN hold h ON true
"""


async def take_hold(conn: Connection, account_id: int, stream_id: int, price_micros: int, recipients: int) -> Hold:
    """Moves the money aside in one statement. Raises InsufficientFunds, SpendCapReached, WalletFrozen; then nothing moved."""
    found = dict(await fetch_one(conn, _TAKE_HOLD, account_id, stream_id, price_micros, recipients))
    refusal = found.pop("refusal")
    amounts = [found.pop(name) for name in ("cap_micros", "spent_micros", "needed_micros")]
    if refusal is None:
        return Hold(**found)
    if refusal == SpendCapReached.code:
        raise SpendCapReached(*amounts)
    raise WalletFrozen if refusal == WalletFrozen.code else InsufficientFunds


async def read_hold(conn: Connection, account_id: int, hold_id: int) -> Hold:
    """Raises HoldNotFound."""
    row = await conn.fetchrow(f"{_HOLDS} WHERE h.id = $1 AND h.account_id = $2", hold_id, account_id)
    if row is None:
        raise HoldNotFound
    return Hold(**row)


async def read_holds(
    conn: Connection, account_id: int, is_open: bool | None, limit: int, offset: int, after_id: int | None
) -> list[Hold]:
    """Newest first."""
    rows = await conn.fetch(
        f"""{_HOLDS} WHERE h.account_id = $1 AND ($2::boolean IS NULL OR (h.closed_at IS NULL) = $2)
            AND ($3::bigint IS NULL OR h.id < $3) ORDER BY h.id DESC LIMIT $4 OFFSET $5""",
        account_id,
        is_open,
        after_id,
        limit,
        offset,
    )
    return [Hold(**row) for row in rows]


async def count_holds(conn: Connection, account_id: int, is_open: bool | None) -> int:
    """Counted up to TOTAL_CAP + 1: an account may have as many as single mails."""
    total: int = await conn.fetchval(
        """SELECT count(*) FROM (SELECT FROM holds WHERE account_id = $1
             AND ($2::boolean IS NULL OR (closed_at IS NULL) = $2) LIMIT $3) AS found""",
        account_id,
        is_open,
        TOTAL_CAP + 1,
    )
    return total


async def add_to_holds(conn: Connection, batches: Sequence[Settlement]) -> list[Hold]:
    """Books settled recipients into their holds and closes each with its last one; in the order of their ids."""
    hold_ids = [batch.hold_id for batch in batches]
    # All of them before anything else is locked, and in their order: an UPDATE takes them as it finds them.
    await conn.execute("SELECT FROM holds WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE", hold_ids)
    rows = await conn.fetch(
        f"""UPDATE holds h SET captured_micros = captured_micros + b.captured * price_micros,
              released_micros = released_micros + b.released * price_micros,
              closed_at = CASE WHEN captured_micros + released_micros + (b.captured + b.released) * price_micros = amount_micros
                          THEN coalesce(closed_at, now()) END
            FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS b(hold_id, captured, released)
            WHERE h.id = b.hold_id RETURNING {_HOLD_COLUMNS}""",
        hold_ids,
        [batch.captured_recipients for batch in batches],
        [batch.released_recipients for batch in batches],
    )
    return sorted((Hold(**row) for row in rows), key=lambda hold: hold.id)


async def add_refund(conn: Connection, account_id: int, hold_id: int | None, amount_micros: int) -> bool:
    """False where less was captured than would be refunded."""
    row = await conn.fetchrow(
        """UPDATE holds SET refunded_micros = refunded_micros + $3
           WHERE id = $1 AND account_id = $2 AND refunded_micros + $3 <= captured_micros RETURNING id""",
        hold_id,
        account_id,
        amount_micros,
    )
    return row is not None


# —— transfers as their owner sees them ————————————————————————————————————————————————————————————————————————————————


def _transfer(row: Any) -> Transfer:
    return Transfer(**{**row, "kind": TransferKind(row["kind"])})


async def read_transfer(conn: Connection, account_id: int, key: str) -> Transfer:
    """The transfer of this key, which there must be."""
    return _transfer(await fetch_one(conn, f"{_TRANSFERS} WHERE t.account_id = $1 AND t.key = $2", account_id, key))


async def read_transfers(
    conn: Connection, account_id: int, wanted: TransferFilter, limit: int, offset: int, after_id: int | None
) -> list[Transfer]:
    """Newest first."""
    rows = await conn.fetch(
        f"""{_TRANSFERS} WHERE {_TRANSFER_FILTER} AND ($5::bigint IS NULL OR t.id < $5)
            ORDER BY t.id DESC LIMIT $6 OFFSET $7""",
        account_id,
        wanted.kind,
        wanted.since,
        wanted.until,
        after_id,
        limit,
        offset,
    )
    return [_transfer(row) for row in rows]


async def count_transfers(conn: Connection, account_id: int, wanted: TransferFilter) -> int:
    """Counted up to TOTAL_CAP + 1: each settled batch is one."""
    total: int = await conn.fetchval(
        f"SELECT count(*) FROM (SELECT FROM transfers t WHERE {_TRANSFER_FILTER} LIMIT $5) AS found",
        account_id,
        wanted.kind,
        wanted.since,
        wanted.until,
        TOTAL_CAP + 1,
    )
    return total


# —— what a month may cost —————————————————————————————————————————————————————————————————————————————————————————————


async def read_cap(conn: Connection, account_id: int) -> int | None:
    """Micro-dollars a month; None without a cap."""
    cap_micros: int | None = await conn.fetchval(
        "SELECT monthly_cap_micros FROM ledger_accounts WHERE account_id = $1 AND kind = 'available'", account_id
    )
    return cap_micros


async def update_cap(conn: Connection, account_id: int, cap_micros: int | None) -> None:
    """None for no cap."""
    await conn.execute(
        "UPDATE ledger_accounts SET monthly_cap_micros = $2 WHERE account_id = $1 AND kind = 'available'",
        account_id,
        cap_micros,
    )


async def read_spent(conn: Connection, account_id: int) -> int:
    """What the holds of this month cost so far; the triggers on holds keep it."""
    spent_micros: int | None = await conn.fetchval(
        "SELECT spent_micros FROM spending WHERE account_id = $1 AND month = month_of(now())", account_id
    )
    return spent_micros or 0


# —— the audit —————————————————————————————————————————————————————————————————————————————————————————————————————————

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
UNION ALL
SELECT 'refunds differ from their transfers', h.id, h.account_id FROM holds h
LEFT JOIN (SELECT hold_id, sum(amount_micros) AS micros FROM transfers WHERE kind = 'refund' GROUP BY hold_id) t
  ON t.hold_id = h.id
WHERE h.refunded_micros <> coalesce(t.micros, 0)
UNION ALL
SELECT 'spending of a month differs from its holds', NULL, account_id FROM spending s FULL JOIN (
  SELECT account_id, month_of(created_at) AS month, sum(amount_micros - released_micros - refunded_micros) AS micros
  FROM holds GROUP BY 1, 2) h USING (account_id, month)
WHERE coalesce(s.spent_micros, 0) <> coalesce(h.micros, 0)
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
