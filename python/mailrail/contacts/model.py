"""Facts of contacts and lists."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from mailrail.contacts.consent import NOTHING_SAID, Consent
from mailrail.errors import MailrailError
from mailrail.ids import Kind

FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# The renderer keeps this name for itself; the other built-in variables win over a custom field of their name.
RESERVED_FIELDS = frozenset(("mailrail",))
# What a list with a free filter counts up to; behind it the total is marked as capped.
TOTAL_CAP = 100_000


class ContactStatus(StrEnum):
    """Whether the person may be written to."""

    SUBSCRIBED = "subscribed"
    # Signed up for a list with double opt-in, and not confirmed yet.
    PENDING = "pending"
    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


# What a customer may say of a contact; the others only the person and SES can tell.
CONSENT = (ContactStatus.SUBSCRIBED, ContactStatus.UNSUBSCRIBED)


@dataclass(frozen=True, slots=True)
class Names:
    """A person's name, whole and in parts."""

    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None

    def completed(self) -> "Names":
        """With the missing parts taken from the whole name, or the missing whole from the parts.

        The first word is the first name and the rest the last name, less whichever part was given.
        """
        if self.name is None:
            parts = [part for part in (self.first_name, self.last_name) if part]
            return Names(" ".join(parts) or None, self.first_name, self.last_name)
        words = self.name.split()
        first = self.first_name if self.first_name is not None else (words[0] if words else None)
        last = self.last_name if self.last_name is not None else (" ".join(words[1:]) or None)
        return Names(self.name, first, last)

    def without(self, cleared: Collection[str]) -> "Names":
        """Less some of them: a whole name that was not given follows its parts."""
        if not cleared:
            return self
        kept = replace(self, **dict.fromkeys(cleared))
        return kept if "name" in cleared else Names(None, kept.first_name, kept.last_name).completed()

    def changed(self, given: "Names") -> "Names":
        """After a customer gave some of them: a part that was given stays as given, the others follow it."""
        if given.name is not None:
            return given.completed()
        if given == Names():
            return self
        first = given.first_name if given.first_name is not None else self.first_name
        last = given.last_name if given.last_name is not None else self.last_name
        return Names(None, first, last).completed()


@dataclass(frozen=True, slots=True)
class ContactDraft:
    """What a customer says of a person; None means nothing was said."""

    email: str
    names: Names = field(default_factory=Names)
    status: ContactStatus | None = None
    tags: list[str] | None = None
    custom_fields: dict[str, Any] | None = None
    consent: Consent = NOTHING_SAID
    tracking: bool | None = None


@dataclass(frozen=True, slots=True)
class ContactChanges:
    """What a customer changes of a contact. None leaves as it is; `cleared` are parts of the name that are taken away."""

    email: str | None = None
    names: Names = field(default_factory=Names)
    cleared: frozenset[str] = frozenset()
    status: ContactStatus | None = None
    tags: list[str] | None = None
    custom_fields: dict[str, Any] | None = None
    consent: Consent = NOTHING_SAID
    tracking: bool | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact as stored. `tracking` is whether it may be known what the person opens and follows."""

    id: int
    account_id: int
    email: str
    name: str | None
    first_name: str | None
    last_name: str | None
    status: ContactStatus
    tags: list[str]
    custom_fields: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    tracking: bool = True

    @property
    def names(self) -> Names:
        """All of the name."""
        return Names(self.name, self.first_name, self.last_name)


@dataclass(frozen=True, slots=True)
class Saved:
    """A contact after a POST."""

    contact: Contact
    created: bool


@dataclass(frozen=True, slots=True)
class ContactFilter:
    """Which contacts are listed; None takes all."""

    list_id: int | None = None
    tags: list[str] = field(default_factory=list)
    status: ContactStatus | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How a list with double opt-in asks; None takes what mailrail or the account has. `wording` is what people agree to."""

    subject: str | None = None
    wording: str | None = None
    sender_name: str | None = None
    sender_email: str | None = None


@dataclass(frozen=True, slots=True)
class ListDraft:
    """A list to be made."""

    name: str
    double_opt_in: bool = False
    confirmation: Confirmation = Confirmation()
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class ListRule:
    """How one joins a list."""

    id: int
    name: str
    double_opt_in: bool

    @property
    def joins_as(self) -> ContactStatus:
        """What a new member is."""
        return ContactStatus.PENDING if self.double_opt_in else ContactStatus.SUBSCRIBED


@dataclass(frozen=True, slots=True)
class ContactList:
    """A list as stored, with how many are subscribed to it, were asked and have not answered, and left it."""

    id: int
    account_id: int
    name: str
    double_opt_in: bool
    # Whether readers of any of the account's mail may join it.
    is_public: bool
    confirmation: Confirmation
    created_at: datetime
    contacts: int
    pending: int
    unsubscribed: int


@dataclass(frozen=True, slots=True)
class Members:
    """Whom to put on a list: contacts by number and by address."""

    contact_ids: list[int]
    emails: list[str]
    consent: Consent = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of them; all together they are as many as were named."""

    added: int
    unchanged: int
    # Left the list, or all lists: only consent brings them back.
    refused: int
    not_found: int


@dataclass(frozen=True, slots=True)
class Membership:
    """A contact's place on a list."""

    list_id: int
    list_name: str
    status: ContactStatus
    subscribed_at: datetime


@dataclass(frozen=True, slots=True)
class Offer:
    """A list that is a contact's to choose; `status` is his place on it, None if he was never there."""

    list_id: int
    name: str
    status: ContactStatus | None


class ContactNotFound(MailrailError):
    """There is no such contact."""

    code = "contact_not_found"


class ContactExists(MailrailError):
    """The account has a contact with this address and there is nothing to add. Use ?upsert=true to change it."""

    code = "contact_exists"

    def __init__(self, contact_id: int) -> None:
        super().__init__()
        self.existing = (Kind.CONTACT, contact_id)


class ListNotFound(MailrailError):
    """There is no such list."""

    code = "list_not_found"
    param = "listId"


class ListExists(MailrailError):
    """The account has a list of this name."""

    code = "list_exists"
    param = "name"

    def __init__(self, list_id: int) -> None:
        super().__init__()
        self.existing = (Kind.LIST, list_id)


class ListInUse(MailrailError):
    """A campaign that is not over names this list. Change or cancel it, or wait for its end; then delete the list."""

    code = "list_in_use"


class MemberNotFound(MailrailError):
    """This contact is not on the list."""

    code = "member_not_found"


class ContactUnreachable(MailrailError):
    """Mail to this address bounced or was marked as spam. Remove its suppression first."""

    code = "contact_unreachable"
    param = "status"


class ConsentRequired(MailrailError):
    """This person unsubscribed or has not confirmed. Say in `consent` by `source` and `at` where and when he agreed since."""

    code = "consent_required"
    param = "consent"
