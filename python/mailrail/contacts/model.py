"""Facts of contacts and lists."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

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
    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


# What a customer may say of a contact; the other two only SES can tell.
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


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact as stored."""

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
class ContactList:
    """A list as stored, with how many are subscribed to it."""

    id: int
    account_id: int
    name: str
    created_at: datetime
    contacts: int


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
