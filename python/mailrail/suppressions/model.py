"""Facts of suppressions."""

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mailrail.errors import MailrailError

# Addresses that one request may enter.
ENTRIES_MAX = 1000


class Reason(StrEnum):
    """Why an address gets no mail."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"
    # Of a person whose contact was deleted. Transactional mail still goes: only campaigns were refused.
    UNSUBSCRIBE = "unsubscribe"


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address as suppressed."""

    id: int
    account_id: int
    email: str
    reason: Reason
    created_at: datetime


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
