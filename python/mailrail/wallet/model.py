"""Facts of the ledger."""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from mailrail.errors import MailrailError

MICROS_PER_USD = 1_000_000
# A JSON number is exact up to 2^53 micro-dollars, some nine billion dollars; no single amount comes near.
AMOUNT_MAX_MICROS = 10**15
DOLLARS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
# Transfers that a filter finds are counted up to here.
TOTAL_CAP = 100_000


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


class SpendCapReached(InsufficientFunds):
    """This would cost more than the account lets itself spend in a month."""

    code = "spend_cap_reached"

    def __init__(self, cap_micros: int, spent_micros: int, needed_micros: int) -> None:
        self.amounts = {"capMicros": cap_micros, "spentMicros": spent_micros, "neededMicros": needed_micros}
        super().__init__(
            f"This would pass the month's spending cap of {dollars(cap_micros)}: {dollars(spent_micros)} are spent or "
            f"set aside and this needs {dollars(needed_micros)}. Raise `monthlyCapMicros` of the wallet, or wait for the "
            "next month (UTC)."
        )


class AmountInvalid(MailrailError):
    """This is not an amount of US dollars such as "25" or "12.50", with at most six decimals."""

    code = "amount_invalid"


class TransferKeyUsed(MailrailError):
    """This key names another transfer already. A key moves money once: take a new one for another amount."""

    code = "transfer_key_used"
    param = "key"


class RefundTooLarge(MailrailError):
    """No more than was captured from the hold, less earlier refunds, can be paid back."""

    code = "refund_too_large"
    param = "amountMicros"


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
class Spending:
    """What the account's sends of this month (UTC) cost so far, held or captured, less refunds, and what they may cost."""

    cap_micros: int | None
    spent_micros: int

    @property
    def left_micros(self) -> int | None:
        """What the cap leaves; None without a cap."""
        return None if self.cap_micros is None else max(self.cap_micros - self.spent_micros, 0)


@dataclass(frozen=True, slots=True)
class Wallet:
    """A tenant's wallet at a glance; `is_frozen` while its books do not balance."""

    balance: Balance
    spending: Spending
    is_frozen: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one send, at a price frozen when it was taken; micro-dollars. `campaign_id` is the send's."""

    id: int
    account_id: int
    stream_id: int
    price_micros: int
    recipients: int
    amount_micros: int
    captured_micros: int
    released_micros: int
    refunded_micros: int
    created_at: datetime
    closed_at: datetime | None
    campaign_id: int | None = None

    @property
    def open_micros(self) -> int:
        """What is not settled yet."""
        return self.amount_micros - self.captured_micros - self.released_micros


@dataclass(frozen=True, slots=True)
class Settlement:
    """A batch of settled recipients of one hold. `key` names the batch; no recipient is ever in two of them."""

    hold_id: int
    captured_recipients: int
    released_recipients: int
    key: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that moved; `hold_id` and `campaign_id` say for what send."""

    id: int
    account_id: int
    kind: TransferKind
    amount_micros: int
    hold_id: int | None
    campaign_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers are asked for; None is any. `since` is included, `until` is not."""

    kind: TransferKind | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_free(self) -> bool:
        """Whether it asks for all of them."""
        return self == TransferFilter()


def parse_usd(text: str) -> int:
    """Micro-dollars of an amount such as 12.50, exactly. Raises AmountInvalid."""
    if not DOLLARS.fullmatch(text):
        raise AmountInvalid
    return int(Decimal(text) * MICROS_PER_USD)


def dollars(micros: int) -> str:
    """Micro-dollars as dollars, every digit that counts: $0.0003."""
    sign = "-" if micros < 0 else ""
    whole, rest = divmod(abs(micros), MICROS_PER_USD)
    return f"{sign}${whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"
