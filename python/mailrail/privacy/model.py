"""Facts of erasures."""

from dataclasses import dataclass
from datetime import datetime

from mailrail.contacts.consent import ConsentEntry
from mailrail.contacts.model import Contact, Membership
from mailrail.emails.service import FoundMail
from mailrail.errors import MailrailError
from mailrail.suppressions.model import Suppression

# What an export shows at most; whoever got more mail, got the same campaigns as others.
MAILS_MAX = 1000
CONSENTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Erasure:
    """A person who is being forgotten, or was. The address is blank once that is done; streams up to `stream_id` are."""

    id: int
    account_id: int
    contact_id: int
    email_folded: str
    email_hash: bytes
    stream_id: int
    requested_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Export:
    """All that is held about a person. Each mail comes with the number of its first address, which names it."""

    contact: Contact
    memberships: list[Membership]
    consents: list[ConsentEntry]
    suppression: Suppression | None
    mails: list[tuple[int, FoundMail]]


class ErasureNotFound(MailrailError):
    """There is no such erasure."""

    code = "erasure_not_found"
