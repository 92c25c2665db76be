"""Facts of a rehearsal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailrail.campaigns.audience import Reach
from mailrail.campaigns.content import SAMPLE_ADDRESS
from mailrail.campaigns.model import Campaign, Rendered
from mailrail.contacts.model import Contact
from mailrail.errors import MailrailError

# Gmail cuts what comes behind, the footer with its link among it.
HTML_SHOWN_MAX_BYTES = 102 * 1024


@dataclass(frozen=True, slots=True)
class Reader:
    """For whom a mail is rendered. Without a word about it, somebody made up, of whom no custom field is known."""

    email: str = SAMPLE_ADDRESS
    name: str | None = "Ada Lovelace"
    first_name: str | None = "Ada"
    last_name: str | None = "Lovelace"
    custom_fields: Mapping[str, Any] = field(default_factory=dict)
    contact_id: int | None = None

    @property
    def values(self) -> dict[str, Any]:
        """As the core takes them."""
        return {
            "email": self.email,
            "name": self.name,
            "first_name": self.first_name,
            "last_name": self.last_name,
            "custom_fields": dict(self.custom_fields),
        }


def reader_of(contact: Contact) -> Reader:
    """The contact as a reader."""
    return Reader(contact.email, contact.name, contact.first_name, contact.last_name, contact.custom_fields, contact.id)


@dataclass(frozen=True, slots=True)
class Preview:
    """A campaign as its reader sees it. `sender` is None while there is none; `unresolved` are the variables for which the
    reader has no value.
    """

    campaign: Campaign
    reader: Reader
    rendered: Rendered
    sender: tuple[str | None, str] | None
    unresolved: list[str]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a launch would do now. `problems` is empty exactly where it would start; amounts are micro-dollars, `finish_at`
    is None where nothing may be sent. Sizes are those of the mail to the made-up reader.
    """

    campaign: Campaign
    reach: Reach
    price_micros: int
    available_micros: int
    cap_left_micros: int | None
    finish_at: datetime | None
    sender: tuple[str | None, str] | None
    mail_bytes: int | None
    warnings: list[str]
    problems: list[MailrailError]

    @property
    def cost_micros(self) -> int:
        """What the launch would set aside."""
        return self.reach.recipients * self.price_micros

    @property
    def is_affordable(self) -> bool:
        """Whether wallet and monthly cap have that much."""
        is_within_cap = self.cap_left_micros is None or self.cost_micros <= self.cap_left_micros
        return self.cost_micros <= self.available_micros and is_within_cap
