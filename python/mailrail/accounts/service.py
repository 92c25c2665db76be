"""The verbs of accounts and keys."""

from collections.abc import Sequence

from mailrail.accounts import auth, store
from mailrail.accounts.auth import ProvenKeys
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
# What cannot be tried without being done: campaigns go to SES, and money is money.
LIVE_ONLY = frozenset((Scope.CAMPAIGNS_SEND, Scope.OPERATOR))
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
    conn: Connection, account_id: int, name: str, scopes: Sequence[Scope] = (Scope.FULL,), *, is_test: bool = False
) -> tuple[ApiKey, str]:
    """The key as stored, and its text, which is shown now and never again. Mail of a test key never reaches SES."""
    key = auth.new_key(is_test=is_test)
    return await store.insert_key(conn, account_id, name, key.prefix, key.hash, scopes), key.text


async def keys(conn: Connection, account_id: int) -> list[ApiKey]:
    """The account's keys, revoked ones included, oldest first."""
    return await store.read_keys(conn, account_id)


async def revoke_key(conn: Connection, key_id: int) -> ApiKey:
    """Effective within `auth.TRUST_S`; at once in a process that forgets it then. Raises KeyNotFound."""
    return await store.revoke_key(conn, key_id)


async def authenticate(pool: Pool, proven: ProvenKeys, text: str) -> Caller:
    """Who has this key: one look-up for a key that is not ours, none for a text that cannot be a key or was proven a moment
    ago. Raises KeyInvalid.
    """
    prefix = auth.prefix_of(text)
    if prefix is None:
        raise KeyInvalid
    key_hash = auth.hash_of(text)
    if (known := proven.find(key_hash)) is not None:
        return known
    looked_up_at = proven.now()
    async with pool.acquire() as conn:
        found = await store.find_key(conn, prefix)
    proves = auth.proves(key_hash, found.hash if found else None)
    if found is None or not proves:
        raise KeyInvalid
    async with transaction(pool, found.account_id) as conn:
        account = await store.read_account(conn, found.account_id)
    caller = Caller(account, found.id, found.scopes, auth.is_test(text))
    proven.keep(key_hash, caller, looked_up_at)
    return caller


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raises ScopeMissing if the caller's key may not do `scope`."""
    if caller.is_test and scope in LIVE_ONLY:
        raise ScopeMissing(f"A test key never has the scope {scope}: what it does would be real.")
    if scope not in caller.scopes and (scope is Scope.OPERATOR or Scope.FULL not in caller.scopes):
        raise ScopeMissing(f"This API key lacks the scope {scope}.")
