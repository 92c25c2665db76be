"""The verbs of money. Each runs in the caller's transaction and locks the wallet last."""

import asyncpg

from mailrail.db.pool import Connection
from mailrail.wallet import store
from mailrail.wallet.model import FLOWS, Balance, Hold, InsufficientFunds, TransferKind, Violation, WalletFrozen


async def open_wallet(conn: Connection, account_id: int) -> None:
    """Gives a new tenant its ledger accounts."""
    await store.insert_ledger_accounts(conn, account_id, ("available", "held", "cash", "revenue"))


async def deposit(conn: Connection, account_id: int, amount_micros: int, key: str) -> bool:
    """Adds money; False where this `key` was deposited before."""
    return await _transfer(conn, account_id, TransferKind.DEPOSIT, amount_micros, None, key)


async def hold(conn: Connection, account_id: int, stream_id: int, price_micros: int, recipients: int) -> Hold:
    """Sets `recipients` × `price_micros` aside for a send. Raises InsufficientFunds, WalletFrozen."""
    await refuse_while_frozen(conn, account_id)
    taken = await store.insert_hold(conn, account_id, stream_id, price_micros, recipients)
    try:
        await _transfer(conn, account_id, TransferKind.HOLD, taken.amount_micros, taken.id, f"hold:{taken.id}")
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "ledger_accounts_funds":
            raise
        raise InsufficientFunds from error
    return taken


async def refuse_while_frozen(conn: Connection, account_id: int) -> None:
    """Raises WalletFrozen, as `hold` does: for whoever has much to do before the hold."""
    if await store.is_frozen(conn, account_id):
        raise WalletFrozen


async def settle(
    conn: Connection, account_id: int, hold_id: int, captured_recipients: int, released_recipients: int, key: str
) -> Hold:
    """Books a batch of settled recipients: one capture and one release at the most, whatever their number.

    `key` names the batch; the caller guarantees that no recipient is in two batches (table settlements).
    """
    booked = await store.add_to_hold(conn, hold_id, captured_recipients, released_recipients)
    for kind, recipients in ((TransferKind.CAPTURE, captured_recipients), (TransferKind.RELEASE, released_recipients)):
        await _transfer(conn, account_id, kind, recipients * booked.price_micros, hold_id, f"{kind}:{key}")
    return booked


async def get_hold(conn: Connection, account_id: int, hold_id: int) -> Hold:
    """Raises HoldNotFound."""
    return await store.read_hold(conn, account_id, hold_id)


async def balance(conn: Connection, account_id: int) -> Balance:
    """What can be spent and what is set aside."""
    return await store.read_balance(conn, account_id)


async def audit(conn: Connection) -> list[str]:
    """Checks every invariant of the ledger over all tenants in one snapshot; a sentence for each violation."""
    return [f"{violation.rule} (id {violation.id})" for violation in await store.find_violations(conn)]


async def audit_and_freeze(conn: Connection) -> list[Violation]:
    """The same, and whoever is concerned starts nothing new until an audit finds nothing any more."""
    found = await store.find_violations(conn)
    await store.freeze_only(conn, sorted({item.account_id for item in found if item.account_id is not None}))
    return found


async def _transfer(
    conn: Connection, account_id: int, kind: TransferKind, amount_micros: int, hold_id: int | None, key: str
) -> bool:
    if amount_micros == 0:
        return False
    transfer_id = await store.insert_transfer(conn, account_id, kind, amount_micros, hold_id, key)
    if transfer_id is None:
        return False
    source, target = FLOWS[kind]
    await store.post(conn, transfer_id, account_id, source, target, amount_micros)
    return True
