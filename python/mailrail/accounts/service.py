"""The verbs of accounts and keys."""

from collections.abc import Sequence

from mailrail.accounts import auth, store
from mailrail.accounts.model import (
    Account,
    ApiKey,
    Caller,
    KeyInvalid,
    Plan,
    Scope,
    ScopeMissing,
)
from mailrail.addresses import parse_address
from mailrail.db.pool import Connection, Pool, transaction

PRICE_MICROS_DEFAULT = 300
SETTINGS = frozenset(
    (
        "name",
        "plan",
        "price_micros",
        "sender_name",
        "sender_email",
        "postal_address",
        "track_opens",
        "track_clicks",
        "unknown_policy",
    )
)


async def create(
    conn: Connection,
    name: str,
    *,
    plan: Plan = Plan.STARTER,
    price_micros: int = PRICE_MICROS_DEFAULT,
    sender_name: str | None = None,
    sender_email: str | None = None,
) -> Account:
    """A new tenant, on a connection of the worker's role; its wallet is opened by the caller. Raises AddressInvalid."""
    address = None if sender_email is None else parse_address(sender_email)
    return await store.insert_account(conn, name, plan, price_micros, sender_name, address)


async def get(conn: Connection, account_id: int) -> Account:
    """Raises AccountNotFound."""
    return await store.read_account(conn, account_id)


async def accounts(conn: Connection, name: str | None = None) -> list[Account]:
    """All accounts, oldest first, or those of one name."""
    return await store.read_accounts(conn, name)


async def change(conn: Connection, account_id: int, **changes: str | int | bool | None) -> Account:
    """Changes some of SETTINGS. Raises AccountNotFound, AddressInvalid."""
    if unknown := changes.keys() - SETTINGS:
        raise ValueError(f"accounts have no {', '.join(sorted(unknown))}")
    if isinstance(address := changes.get("sender_email"), str):
        changes["sender_email"] = parse_address(address)
    return await store.update_account(conn, account_id, changes) if changes else await get(conn, account_id)


async def create_key(
    conn: Connection, account_id: int, name: str, scopes: Sequence[Scope] = (Scope.FULL,)
) -> tuple[ApiKey, str]:
    """The key as stored, and its text, which is shown now and never again."""
    key = auth.new_key()
    return await store.insert_key(conn, account_id, name, key.prefix, key.hash, scopes), key.text


async def keys(conn: Connection, account_id: int) -> list[ApiKey]:
    """The account's keys, revoked ones included, oldest first."""
    return await store.read_keys(conn, account_id)


async def revoke_key(conn: Connection, key_id: int) -> ApiKey:
    """Effective with the next request. Raises KeyNotFound."""
    return await store.revoke_key(conn, key_id)


async def authenticate(pool: Pool, text: str, scope: Scope) -> Caller:
    """Who has this key. Raises KeyInvalid, and ScopeMissing if the key may not do `scope`."""
    prefix = auth.prefix_of(text)
    if prefix is None:
        raise KeyInvalid
    async with pool.acquire() as conn:
        found = await store.find_key(conn, prefix)
    proven = auth.proves(text, found.hash if found else None)
    if found is None or not proven:
        raise KeyInvalid
    if scope not in found.scopes and (scope is Scope.OPERATOR or Scope.FULL not in found.scopes):
        raise ScopeMissing(f"This API key lacks the scope {scope}.")
    async with transaction(pool, found.account_id) as conn:
        account = await store.read_account(conn, found.account_id)
    return Caller(account, found.id, found.scopes, is_test=False)
