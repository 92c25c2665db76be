"""Facts of suppressions."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from mailrail.errors import MailrailError

# Addresses that one request may enter.
ENTRIES_MAX = 1000
# Soft bounces further apart have nothing to do with each other.
SOFT_BOUNCE_DAYS = 30


class Reason(StrEnum):
    """Why an address gets no mail."""

    BOUNCE = "bounce"
    # Mail to it came back again and again, though never for good.
    SOFT_BOUNCES = "soft_bounces"
    COMPLAINT = "complaint"
    MANUAL = "manual"
    # A list that was brought along, and that did not say why.
    IMPORTED = "imported"
    # Of a person whose contact was deleted. Transactional mail still goes: only campaigns were refused.
    UNSUBSCRIBE = "unsubscribe"


def is_worn_out(bounces: Mapping[date, int], bounces_min: int, days_min: int) -> bool:
    """Whether an address gets no more mail: within some SOFT_BOUNCE_DAYS, `bounces_min` mails came back from it on
    `days_min` different days, and none arrived since. `bounces` are those since the last delivery, by day.
    """
    for last in bounces:
        recent = [count for day, count in bounces.items() if 0 <= (last - day).days < SOFT_BOUNCE_DAYS]
        if sum(recent) >= bounces_min and len(recent) >= days_min:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address as suppressed."""

    id: int
    account_id: int
    email: str
    reason: Reason
    created_at: datetime
    # Where it came from, as far as it is known: a mail, a key; and the class of what a server said.
    stream_id: int | None = None
    seq: int | None = None
    key_id: int | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Lifted:
    """An address that may get mail again; without a number where nothing of the tenant's own suppressed it. `asked_ses` says
    that SES is to lift it, too.
    """

    id: int | None
    email: str
    asked_ses: bool


@dataclass(frozen=True, slots=True)
class SuppressionFilter:
    """Which suppressions are listed; None takes all."""

    reason: Reason | None = None
    email: str | None = None


def hash_of(secret_key: str, account_id: int, folded: str) -> bytes:
    """What is kept of an erased person's address: nobody without the key can try addresses, and tenants share no hash."""
    key = hmac.digest(secret_key.encode(), b"mailrail v1 erased addresses", "sha256")
    return hmac.digest(key, b"%d %b" % (account_id, folded.encode()), "sha256")


class SuppressionNotFound(MailrailError):
    """There is no such suppression."""

    code = "suppression_not_found"


class SuppressionStays(MailrailError):
    """This suppression stands for a person's own word, which a customer does not take back."""

    code = "suppression_stays"
