"""The verbs of accounts and keys."""

from collections.abc import Sequence

from mailrail.accounts import auth, store
from mailrail.accounts.auth import ProvenKeys
from mailrail.accounts.model import (
    Account,
    ApiKey,
    Caller,
    KeyDraft,
    KeyInUse,
    KeyInvalid,
    KeyLimitReached,
    Plan,
    Scope,
    ScopeMissing,
    ScopeTooWide,
)
from mailrail.addresses import parse_address
from mailrail.db.pool import Connection, Pool, transaction

PRICE_MICROS_DEFAULT = 300
# What cannot be tried without being done: campaigns go to SES, and money is money.
LIVE_ONLY = frozenset((Scope.CAMPAIGNS_SEND, Scope.OPERATOR))
ACTIVE_KEYS_MAX = 100
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


async def page_keys(
    conn: Connection, account_id: int, limit: int, offset: int = 0, after_id: int | None = None
) -> list[ApiKey]:
    """The account's keys, revoked ones included, newest first."""
    return await store.read_key_page(conn, account_id, limit, offset, after_id)


async def count_keys(conn: Connection, account_id: int) -> int:
    """How many keys the account has, revoked ones included."""
    return await store.count_keys(conn, account_id)


async def make_key(conn: Connection, caller: Caller, draft: KeyDraft) -> tuple[ApiKey, str]:
    """A key that is made by another: as `create_key`, and it may never do more than its maker.

    Raises ScopeTooWide, KeyLimitReached.
    """
    scopes = given_scopes(caller, draft)
    await lock_account(conn, caller.account.id)
    if await store.count_keys(conn, caller.account.id, active=True) >= ACTIVE_KEYS_MAX:
        raise KeyLimitReached(
            f"The account has {ACTIVE_KEYS_MAX} keys, as many as it may. Revoke one that is not needed."
        )
    return await create_key(conn, caller.account.id, draft.name, scopes, is_test=draft.is_test)


def given_scopes(caller: Caller, draft: KeyDraft) -> list[Scope]:
    """What the new key may do. OPERATOR is never passed on. Raises ScopeTooWide."""
    own = {scope for scope in Scope if scope in caller.scopes and scope is not Scope.OPERATOR}
    if caller.is_test and not draft.is_test:
        raise ScopeTooWide("A test key makes test keys only: set `test` to true.")
    if draft.scopes is None:
        return [scope for scope in Scope if scope in own]
    if beyond := [] if Scope.FULL in own else [scope for scope in draft.scopes if scope not in own]:
        raise ScopeTooWide(f"This key may not give away what it may not do itself: {', '.join(beyond)}.")
    return draft.scopes


async def lock_account(conn: Connection, account_id: int) -> None:
    """For limits on how many of something an account has: until the transaction ends, no other counts under this lock."""
    await store.lock_account(conn, account_id)


async def revoke_key(conn: Connection, key_id: int) -> ApiKey:
    """For operators: the key of whichever account. Effective within `auth.TRUST_S`, at once in a process that forgets it then.

    Raises KeyNotFound.
    """
    return await store.revoke_key(conn, key_id, None)


async def revoke_own_key(conn: Connection, caller: Caller, key_id: int, *, even_itself: bool) -> ApiKey:
    """Ends a key of the caller's account. Raises KeyNotFound, and KeyInUse for the key that the caller came with."""
    if key_id == caller.key_id and not even_itself:
        raise KeyInUse
    return await store.revoke_key(conn, key_id, caller.account.id)


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
        await store.note_use(conn, found.account_id, found.id)
    caller = Caller(account, found.id, found.scopes, auth.is_test(text))
    proven.keep(key_hash, caller, looked_up_at)
    return caller


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raises ScopeMissing if the caller's key may not do `scope`."""
    if caller.is_test and scope in LIVE_ONLY:
        raise ScopeMissing(f"A test key never has the scope {scope}: what it does would be real.")
    if scope not in caller.scopes and (scope is Scope.OPERATOR or Scope.FULL not in caller.scopes):
        raise ScopeMissing(f"This API key lacks the scope {scope}.")
