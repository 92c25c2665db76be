"""Facts of a rehearsal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from mailrail.campaigns.audience import Reach
from mailrail.campaigns.content import SAMPLE_ADDRESS
from mailrail.campaigns.model import Campaign, Rendered
from mailrail.contacts.model import Contact
from mailrail.errors import MailrailError
from mailrail.ses.model import Limits

# Gmail cuts what comes behind, the footer with its link among it. Google tells no figure; senders agree on 102 KB, which is
# read as bytes in three ways. This is the middle one.
HTML_SHOWN_MAX_BYTES = 102_400


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


class Standing(StrEnum):
    """How a check came out: `fail` is what a launch would be refused for, `warn` what would go out as it is."""

    PASS = "pass"  # noqa: S105  # a word of the answer
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that a check found, and what it is about: a link, a variable, so many contacts and a few of them."""

    code: str
    message: str
    url: str | None = None
    variable: str | None = None
    contacts: int | None = None
    contact_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One question of a pre-flight and its answer. What did not pass has a remedy."""

    code: str
    standing: Standing
    message: str
    remedy: str | None = None
    details: Sequence[Detail] = ()


@dataclass(frozen=True, slots=True)
class Size:
    """How large the mail is for those for whom it was rendered, in bytes: in the middle, and at most."""

    html_bytes: int
    text_bytes: int
    total_bytes: int
    largest_html_bytes: int


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


@dataclass(frozen=True, slots=True)
class Preflight:
    """All that can be known of a launch before it: what it would do, and every check. `seconds` is how long the sending takes,
    infinity where nothing may be sent; `size` is None while the template does not compile.
    """

    run: DryRun
    checks: list[Check]
    limits: Limits
    seconds: float
    size: Size | None

    @property
    def is_ready(self) -> bool:
        """Whether a launch would start."""
        return all(check.standing is not Standing.FAIL for check in self.checks)
