"""What the API reads of the wallet. Amounts are whole micro-dollars, or US dollars as text; a float is never taken."""

from collections.abc import Mapping
from dataclasses import dataclass

from mailrail.ids import Ids, Kind
from mailrail.wallet.model import AMOUNT_MAX_MICROS, TransferFilter, TransferKind, parse_usd
from mailrail.web.fields import Fields

ID_MAX_CHARS = 100
KEY_MAX_CHARS = 200
AMOUNT_MAX_CHARS = 30


@dataclass(frozen=True, slots=True)
class MoneyDraft:
    """Money that an operator moves; `hold_id` where it is a refund."""

    account_id: int
    amount_micros: int
    key: str
    hold_id: int | None = None


@dataclass(frozen=True, slots=True)
class CapDraft:
    """What a month may cost; `is_given` tells no cap from no change."""

    is_given: bool
    micros: int | None


def read_deposit(fields: Fields, ids: Ids) -> MoneyDraft:
    """`accountId`, an amount, and the `key` by which this money moves only once."""
    account_id = ids.find(Kind.ACCOUNT, fields.required_text("accountId", ID_MAX_CHARS))
    return MoneyDraft(account_id, read_amount(fields), fields.required_text("key", KEY_MAX_CHARS))


def read_refund(fields: Fields, ids: Ids) -> MoneyDraft:
    """As a deposit, and the `holdId` from which it was captured."""
    account_id = ids.find(Kind.ACCOUNT, fields.required_text("accountId", ID_MAX_CHARS))
    hold_id = ids.find(Kind.HOLD, fields.required_text("holdId", ID_MAX_CHARS))
    return MoneyDraft(account_id, read_amount(fields), fields.required_text("key", KEY_MAX_CHARS), hold_id)


def read_amount(fields: Fields) -> int:
    """`amountMicros`, or `amount` as "12.50" with at most six decimals; one of them."""
    micros = fields.integer("amountMicros", 1, AMOUNT_MAX_MICROS)
    text = fields.text("amount", AMOUNT_MAX_CHARS)
    from_text = None if text is None else fields.parsed("amount", parse_usd, text)
    fields.require_any("amountMicros", "amount")
    if fields.has("amountMicros") and fields.has("amount"):
        fields.error("amountMicros", "amount_ambiguous", "Give the amount once: amountMicros, or amount as a string.")
    elif from_text == 0:
        fields.error("amount", "number_invalid", "amount must be more than nothing.")
    return micros or from_text or 0


def read_cap(fields: Fields) -> CapDraft:
    """`monthlyCapMicros`; null is no cap."""
    micros = fields.integer("monthlyCapMicros", 0, AMOUNT_MAX_MICROS)
    return CapDraft(micros is not None or fields.is_null("monthlyCapMicros"), micros)


def read_transfer_filter(query: Mapping[str, str | None]) -> TransferFilter:
    """`kind`, `since` and `until` of a query. Raises FieldsInvalid."""
    fields = Fields(query)
    kind = fields.word("kind", [str(word) for word in TransferKind])
    wanted = TransferFilter(
        None if kind not in list(TransferKind) else TransferKind(kind), fields.moment("since"), fields.moment("until")
    )
    fields.finish()
    return wanted


def read_is_open(query: Mapping[str, str | None]) -> bool | None:
    """`status` of a query, open or closed; None where it is not given. Raises FieldsInvalid."""
    fields = Fields(query)
    status = fields.word("status", ("open", "closed"))
    fields.finish()
    return None if status is None else status == "open"
