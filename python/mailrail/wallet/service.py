"""The verbs of money. Each runs in the caller's transaction and locks the wallet last."""

from collections.abc import Sequence

from mailrail.db.pool import Connection
from mailrail.wallet import store
from mailrail.wallet.model import (
    FLOWS,
    Balance,
    Hold,
    RefundTooLarge,
    Settlement,
    Spending,
    Transfer,
    TransferFilter,
    TransferKeyUsed,
    TransferKind,
    Violation,
    Wallet,
    WalletFrozen,
)


async def open_wallet(conn: Connection, account_id: int) -> None:
    """Gives a new tenant its ledger accounts."""
    await store.insert_ledger_accounts(conn, account_id, ("available", "held", "cash", "revenue"))


async def deposit(conn: Connection, account_id: int, amount_micros: int, key: str) -> bool:
    """Adds money; False where this `key` was deposited before. Raises TransferKeyUsed where that was another amount."""
    return await _transfer_named(conn, account_id, TransferKind.DEPOSIT, amount_micros, None, key)


async def refund(conn: Connection, account_id: int, hold_id: int, amount_micros: int, key: str) -> bool:
    """Gives back what was captured from a hold; False where this `key` was refunded before.

    Raises HoldNotFound, RefundTooLarge, TransferKeyUsed.
    """
    await get_hold(conn, account_id, hold_id)
    return await _transfer_named(conn, account_id, TransferKind.REFUND, amount_micros, hold_id, key)


async def hold(conn: Connection, account_id: int, stream_id: int, price_micros: int, recipients: int) -> Hold:
    """Sets `recipients` × `price_micros` aside for a send. Raises InsufficientFunds, SpendCapReached, WalletFrozen."""
    return await store.take_hold(conn, account_id, stream_id, price_micros, recipients)


async def refuse_while_frozen(conn: Connection, account_id: int) -> None:
    """Raises WalletFrozen, as `hold` does: for whoever has much to do before the hold."""
    if await store.is_frozen(conn, account_id):
        raise WalletFrozen


async def set_cap(conn: Connection, account_id: int, cap_micros: int | None) -> None:
    """What this and each further month may cost; None for no cap. What is held already stays."""
    await store.update_cap(conn, account_id, cap_micros)


async def settle(
    conn: Connection, account_id: int, hold_id: int, captured_recipients: int, released_recipients: int, key: str
) -> Hold:
    """Books a batch of settled recipients: one capture and one release at the most, whatever their number.

    `key` names the batch; the caller guarantees that no recipient is in two batches (table settlements).
    """
    batch = Settlement(hold_id, captured_recipients, released_recipients, key)
    return (await settle_all(conn, account_id, [batch]))[0]


async def settle_all(conn: Connection, account_id: int, batches: Sequence[Settlement]) -> list[Hold]:
    """Books batches of several holds of the account, each hold once; returns the holds in the order of their ids.

    Whoever moves money locks holds, then the month's spending, then the wallet's rows, each in the order of their ids:
    so all holds come first, and releases (available, held) before captures (held, revenue).
    """
    booked = await store.add_to_holds(conn, batches)
    prices = {one.id: one.price_micros for one in booked}
    for kind in (TransferKind.RELEASE, TransferKind.CAPTURE):
        for batch in batches:
            recipients = batch.captured_recipients if kind is TransferKind.CAPTURE else batch.released_recipients
            amount_micros = recipients * prices[batch.hold_id]
            await _transfer(conn, account_id, kind, amount_micros, batch.hold_id, f"{kind}:{batch.key}")
    return booked


async def get_hold(conn: Connection, account_id: int, hold_id: int) -> Hold:
    """Raises HoldNotFound."""
    return await store.read_hold(conn, account_id, hold_id)


async def balance(conn: Connection, account_id: int) -> Balance:
    """What can be spent and what is set aside."""
    return await store.read_balance(conn, account_id)


async def get(conn: Connection, account_id: int) -> Wallet:
    """The wallet at a glance."""
    spending = Spending(await store.read_cap(conn, account_id), await store.read_spent(conn, account_id))
    return Wallet(await balance(conn, account_id), spending, await store.is_frozen(conn, account_id))


async def holds(
    conn: Connection,
    account_id: int,
    is_open: bool | None,
    limit: int,
    offset: int = 0,
    after_id: int | None = None,
) -> list[Hold]:
    """Newest first; `is_open` chooses those that are settled or not."""
    return await store.read_holds(conn, account_id, is_open, limit, offset, after_id)


async def count_holds(conn: Connection, account_id: int, is_open: bool | None) -> int:
    """How many there are, counted up to TOTAL_CAP + 1."""
    return await store.count_holds(conn, account_id, is_open)


async def transfers(
    conn: Connection,
    account_id: int,
    wanted: TransferFilter,
    limit: int,
    offset: int = 0,
    after_id: int | None = None,
) -> list[Transfer]:
    """Newest first."""
    return await store.read_transfers(conn, account_id, wanted, limit, offset, after_id)


async def count_transfers(conn: Connection, account_id: int, wanted: TransferFilter) -> int:
    """How many there are, counted up to TOTAL_CAP + 1."""
    return await store.count_transfers(conn, account_id, wanted)


async def find_transfer(conn: Connection, account_id: int, key: str) -> Transfer:
    """The transfer of this key, which there must be."""
    return await store.read_transfer(conn, account_id, key)


async def audit(conn: Connection) -> list[str]:
    """Checks every invariant of the ledger over all tenants in one snapshot; a sentence for each violation."""
    return [f"{violation.rule} (id {violation.id})" for violation in await store.find_violations(conn)]


async def audit_and_freeze(conn: Connection) -> list[Violation]:
    """The same, and whoever is concerned starts nothing new until an audit finds nothing any more."""
    found = await store.find_violations(conn)
    await store.freeze_only(conn, sorted({item.account_id for item in found if item.account_id is not None}))
    return found


async def _transfer_named(
    conn: Connection, account_id: int, kind: TransferKind, amount_micros: int, hold_id: int | None, key: str
) -> bool:
    """A transfer whose key somebody else chose."""
    if await _transfer(conn, account_id, kind, amount_micros, hold_id, key):
        return True
    known = await store.read_transfer(conn, account_id, key)
    if (known.kind, known.amount_micros, known.hold_id) != (kind, amount_micros, hold_id):
        raise TransferKeyUsed
    return False


async def _transfer(
    conn: Connection, account_id: int, kind: TransferKind, amount_micros: int, hold_id: int | None, key: str
) -> bool:
    if amount_micros == 0:
        return False
    transfer_id = await store.insert_transfer(conn, account_id, kind, amount_micros, hold_id, key)
    if transfer_id is None:
        return False
    if kind is TransferKind.REFUND and not await store.add_refund(conn, account_id, hold_id, amount_micros):
        raise RefundTooLarge
    source, target = FLOWS[kind]
    await store.post(conn, transfer_id, account_id, source, target, amount_micros)
    return True
