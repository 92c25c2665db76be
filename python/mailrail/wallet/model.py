"""Facts of the ledger."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrail.errors import MailrailError

MICROS_PER_USD = 1_000_000


class TransferKind(StrEnum):
    """Why money moved."""

    DEPOSIT = "deposit"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"


# From which ledger account to which. `cash` is what the tenant paid in so far, negated; it and `revenue` are the
# tenant's own, summed for reports, so that no row is hot for the whole installation.
FLOWS: dict[TransferKind, tuple[str, str]] = {
    TransferKind.DEPOSIT: ("cash", "available"),
    TransferKind.HOLD: ("available", "held"),
    TransferKind.CAPTURE: ("held", "revenue"),
    TransferKind.RELEASE: ("held", "available"),
    TransferKind.REFUND: ("revenue", "available"),
}


class InsufficientFunds(MailrailError):
    """The wallet holds less than this send costs. Deposit the difference and send again."""

    code = "insufficient_funds"


class HoldNotFound(MailrailError):
    """There is no such hold."""

    code = "hold_not_found"


class WalletFrozen(MailrailError):
    """The books of this account do not balance, so nothing new is started until an operator has looked. Running sends go on."""

    code = "wallet_frozen"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of the ledger that does not hold: `id` is the offender's, `account_id` None where it is everybody's."""

    rule: str
    id: int | None
    account_id: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What a tenant can spend, and what its running sends have set aside; micro-dollars."""

    available_micros: int
    held_micros: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one send, at a price frozen when it was taken; micro-dollars."""

    id: int
    account_id: int
    stream_id: int
    price_micros: int
    recipients: int
    amount_micros: int
    captured_micros: int
    released_micros: int
    created_at: datetime
    closed_at: datetime | None
