"""Every statement on accounts and api_keys."""

from collections.abc import Sequence
from typing import Any

from mailrail.accounts.model import Account, AccountNotFound, ApiKey, KeyNotFound, KeyRecord, Plan, UnknownPolicy
from mailrail.db.pool import Connection, fetch_one

_ACCOUNT_COLUMNS = """id, name, plan, price_micros, sender_name, sender_email, postal_address, track_opens, track_clicks,
unknown_policy, created_at"""
_KEY_COLUMNS = "id, account_id, name, prefix, scopes, created_at, revoked_at, last_used_at"


def _account(row: Any) -> Account:
    words = {"plan": Plan(row["plan"]), "unknown_policy": UnknownPolicy(row["unknown_policy"])}
    return Account(**{**row, **words})


async def insert_account(
    conn: Connection, name: str, plan: str, price_micros: int, sender_name: str | None, sender_email: str | None
) -> Account:
    """A new tenant. The API's role may not do this."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO accounts (name, plan, price_micros, sender_name, sender_email) VALUES ($1, $2, $3, $4, $5)
            RETURNING {_ACCOUNT_COLUMNS}""",
        name,
        plan,
        price_micros,
        sender_name,
        sender_email,
    )
    return _account(row)


async def read_account(conn: Connection, account_id: int) -> Account:
    """Raises AccountNotFound."""
    row = await conn.fetchrow(f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE id = $1", account_id)
    if row is None:
        raise AccountNotFound
    return _account(row)


async def read_accounts(conn: Connection, name: str | None) -> list[Account]:
    """All accounts, oldest first, or those of one name."""
    rows = await conn.fetch(
        f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE $1::text IS NULL OR name = $1 ORDER BY id", name
    )
    return [_account(row) for row in rows]


async def update_account(conn: Connection, account_id: int, changes: dict[str, Any]) -> Account:
    """Sets the named columns. `changes` has names from the service, never from a user. Raises AccountNotFound."""
    columns = ", ".join(f"{name} = ${position}" for position, name in enumerate(changes, 2))
    row = await conn.fetchrow(
        f"UPDATE accounts SET {columns} WHERE id = $1 RETURNING {_ACCOUNT_COLUMNS}", account_id, *changes.values()
    )
    if row is None:
        raise AccountNotFound
    return _account(row)


async def insert_key(
    conn: Connection, account_id: int, name: str, prefix: str, key_hash: bytes, scopes: Sequence[str]
) -> ApiKey:
    """A new key of the account."""
    row = await fetch_one(
        conn,
        f"""INSERT INTO api_keys (account_id, name, prefix, hash, scopes) VALUES ($1, $2, $3, $4, $5)
            RETURNING {_KEY_COLUMNS}""",
        account_id,
        name,
        prefix,
        key_hash,
        list(scopes),
    )
    return ApiKey(**row)


async def find_key(conn: Connection, prefix: str) -> KeyRecord | None:
    """The unrevoked key of this prefix, before any tenant is known."""
    row = await conn.fetchrow("SELECT id, account_id, hash, scopes FROM find_api_key($1)", prefix)
    return None if row is None else KeyRecord(row["id"], row["account_id"], row["hash"], frozenset(row["scopes"]))


async def read_keys(conn: Connection, account_id: int) -> list[ApiKey]:
    """The account's keys, revoked ones included, oldest first."""
    rows = await conn.fetch(f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE account_id = $1 ORDER BY id", account_id)
    return [ApiKey(**row) for row in rows]


async def read_key_page(
    conn: Connection, account_id: int, limit: int, offset: int, after_id: int | None
) -> list[ApiKey]:
    """The account's keys, revoked ones included, newest first."""
    rows = await conn.fetch(
        f"""SELECT {_KEY_COLUMNS} FROM api_keys WHERE account_id = $1 AND ($2::bigint IS NULL OR id < $2)
            ORDER BY id DESC LIMIT $3 OFFSET $4""",
        account_id,
        after_id,
        limit,
        offset,
    )
    return [ApiKey(**row) for row in rows]


async def count_keys(conn: Connection, account_id: int, *, active: bool = False) -> int:
    """How many keys the account has; with `active` those that are not revoked."""
    total: int = await conn.fetchval(
        "SELECT count(*) FROM api_keys WHERE account_id = $1 AND (NOT $2 OR revoked_at IS NULL)", account_id, active
    )
    return total


async def lock_account(conn: Connection, account_id: int) -> None:
    """Until the transaction ends, nobody else adds what is counted under this lock."""
    await conn.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id)


async def revoke_key(conn: Connection, key_id: int, account_id: int | None) -> ApiKey:
    """From now on the key opens nothing; a key revoked before keeps its time. None is any account. Raises KeyNotFound."""
    row = await conn.fetchrow(
        f"""UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
            WHERE id = $1 AND ($2::bigint IS NULL OR account_id = $2) RETURNING {_KEY_COLUMNS}""",
        key_id,
        account_id,
    )
    if row is None:
        raise KeyNotFound
    return ApiKey(**row)


async def note_use(conn: Connection, account_id: int, key_id: int) -> None:
    """Notes that the key was used, at most once a minute; who finds another noting it does not wait."""
    await conn.execute(
        """UPDATE api_keys k SET last_used_at = now() FROM (
             SELECT id FROM api_keys WHERE id = $1 AND account_id = $2
               AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
             FOR NO KEY UPDATE SKIP LOCKED) stale
           WHERE k.id = stale.id""",
        key_id,
        account_id,
    )
