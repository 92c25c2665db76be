"""Facts of a campaign, and what can be wrong with one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

from mailrail.accounts.model import TRACKED, Tracking
from mailrail.emails.model import OPEN_STATES, State
from mailrail.errors import MailrailError
from mailrail.templates.model import Ref


class CampaignNotFound(MailrailError):
    """There is no such campaign."""

    code = "campaign_not_found"


class CampaignStateWrong(MailrailError):
    """The campaign's status does not allow that; the message says which it is and what to do."""

    code = "campaign_state_wrong"


class AlreadySent(CampaignStateWrong):
    """This campaign was sent before. Create another to send again."""

    code = "campaign_already_sent"


class ScheduleInvalid(MailrailError):
    """A campaign can be scheduled for a time from now to a year ahead."""

    code = "schedule_invalid"
    param = "scheduledAt"


class NothingToRetry(MailrailError):
    """No recipient of this campaign can be tried again."""

    code = "nothing_to_retry"


class EmptyAudience(MailrailError):
    """Nobody can be reached: no subscribed contact matches this campaign's audience."""

    code = "audience_empty"


class Status(StrEnum):
    """Where a campaign stands."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def shown(self) -> str:
        """The word of both dialects: whether a worker has begun yet is none of the user's concern."""
        return self.SENDING if self is self.QUEUED else self


class Verb(StrEnum):
    """What a user may ask of a campaign."""

    LAUNCH = "launch"
    SCHEDULE = "schedule"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    CHANGE = "change"
    DELETE = "delete"


class Step(Enum):
    """What asking comes to where it is allowed."""

    ACT = 1
    KEEP = 2  # what is asked for is so already: the same request twice does no harm


_SENT = "It was sent before. Create another to send again."
_OVER = "Every recipient has a final state. POST …/retry sends to those whose mail failed."
_ENDED = "It was cancelled and stays so. Create another campaign to send again."
_STOPPED = "It stands still. POST …/resume goes on with it, POST …/cancel ends it."
_DRAFT = "It was never sent. Launch it first."
_FROZEN = "What it says is frozen. POST …/duplicate makes a draft of it that can be changed."
_STARTED = "POST …/cancel ends it; what was sent and paid stays on record."

# Verb → status → what comes of it, or what to do instead. A failed campaign is a schedule that could not start: nobody
# got it, so it may be launched like a draft.
TRANSITIONS: dict[Verb, Mapping[Status, Step | str]] = {
    Verb.LAUNCH: {
        Status.DRAFT: Step.ACT,
        Status.SCHEDULED: "It starts by itself. Launch it with another scheduledAt to move it (the present time sends at "
        "once), or POST …/cancel.",
        Status.QUEUED: _SENT,
        Status.SENDING: _SENT,
        Status.PAUSED: _STOPPED,
        Status.COMPLETED: _SENT,
        Status.CANCELLED: _ENDED,
        Status.FAILED: Step.ACT,
    },
    Verb.SCHEDULE: {
        Status.DRAFT: Step.ACT,
        Status.SCHEDULED: Step.ACT,
        Status.QUEUED: _SENT,
        Status.SENDING: _SENT,
        Status.PAUSED: _STOPPED,
        Status.COMPLETED: _SENT,
        Status.CANCELLED: _ENDED,
        Status.FAILED: Step.ACT,
    },
    Verb.PAUSE: {
        Status.DRAFT: "It was never sent: there is nothing to pause.",
        Status.SCHEDULED: Step.ACT,
        Status.QUEUED: Step.ACT,
        Status.SENDING: Step.ACT,
        Status.PAUSED: Step.KEEP,
        Status.COMPLETED: "Every recipient has a final state: there is nothing to pause.",
        Status.CANCELLED: _ENDED,
        Status.FAILED: "It never started: there is nothing to pause.",
    },
    Verb.RESUME: {
        Status.DRAFT: _DRAFT,
        Status.SCHEDULED: Step.KEEP,
        Status.QUEUED: Step.KEEP,
        Status.SENDING: Step.KEEP,
        Status.PAUSED: Step.ACT,
        Status.COMPLETED: _OVER,
        Status.CANCELLED: _ENDED,
        Status.FAILED: "It never started. Mend what the reason says and launch it again.",
    },
    Verb.CANCEL: {
        Status.DRAFT: "It was never sent: there is nothing to cancel.",
        Status.SCHEDULED: Step.ACT,
        Status.QUEUED: Step.ACT,
        Status.SENDING: Step.ACT,
        Status.PAUSED: Step.ACT,
        Status.COMPLETED: "Every recipient has a final state: there is nothing to cancel.",
        Status.CANCELLED: Step.KEEP,
        Status.FAILED: "It never started: there is nothing to cancel.",
    },
    Verb.RETRY: {
        Status.DRAFT: _DRAFT,
        Status.SCHEDULED: "It has not started yet: nobody has missed it.",
        Status.QUEUED: Step.ACT,
        Status.SENDING: Step.ACT,
        Status.PAUSED: "It stands still. POST …/resume first, then retry.",
        Status.COMPLETED: Step.ACT,
        Status.CANCELLED: _ENDED,
        Status.FAILED: "It never started. Mend what the reason says and launch it again.",
    },
    Verb.CHANGE: {
        Status.DRAFT: Step.ACT,
        Status.SCHEDULED: Step.ACT,
        Status.QUEUED: _FROZEN,
        Status.SENDING: _FROZEN,
        Status.PAUSED: _FROZEN,
        Status.COMPLETED: _FROZEN,
        Status.CANCELLED: "It stays as it is. POST …/duplicate makes a draft of it that can be changed.",
        Status.FAILED: Step.ACT,
    },
    # One that was cancelled after it had started is kept, too: `service.delete` looks.
    Verb.DELETE: {
        Status.DRAFT: Step.ACT,
        Status.SCHEDULED: "It starts by itself. POST …/cancel first, then delete it.",
        Status.QUEUED: _STARTED,
        Status.SENDING: _STARTED,
        Status.PAUSED: "POST …/cancel first; if nobody got it, it can be deleted then.",
        Status.COMPLETED: "What was sent and paid stays on record, so it cannot be deleted.",
        Status.CANCELLED: Step.ACT,
        Status.FAILED: Step.ACT,
    },
}


def decide(verb: Verb, status: Status) -> Step:
    """Whether the verb acts on a campaign of this status. Raises CampaignStateWrong with the remedy, or AlreadySent."""
    step = TRANSITIONS[verb][status]
    if isinstance(step, Step):
        return step
    raise (AlreadySent if step is _SENT else CampaignStateWrong)(f"This campaign is {status.shown}. {step}")


# What an audience may ask of a contact; before the name of a field that an account made up stands CUSTOM.
TEXT_FIELDS = ("email", "firstName", "lastName", "name")
TIME_FIELDS = ("createdAt",)
CUSTOM = "customFields."
# A time of day needs a zone only where somebody writes one: what has none is UTC, as a date is.
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"


class Op(StrEnum):
    """How a condition compares a field of a contact."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    CONTAINS = "contains"
    STARTS_WITH = "startsWith"
    IN = "in"
    EXISTS = "exists"
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold of a contact. `value` is the JSON that was given, and its type decides what is compared:
    numbers with numbers, text with text; times are text in RFC 3339.
    """

    field: str
    op: Op
    value: Any

    @property
    def is_custom(self) -> bool:
        """Whether the field is one that the account made up."""
        return self.field.startswith(CUSTOM)


def moment_of(text: str) -> datetime:
    """The time of a text that `TIME` describes; without a zone it is UTC. Raises ValueError, OverflowError."""
    if not re.fullmatch(TIME, text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text.upper())
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a campaign is for: contacts with all the tags, on any of the lists, of whom all conditions hold, less those whom
    `exclude` matches. What is empty asks for nothing. Of them, mail reaches those who are subscribed.
    """

    tags: list[str] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    where: list[Condition] = field(default_factory=list)
    exclude: "Audience | None" = None

    @property
    def is_everybody(self) -> bool:
        """Whether it asks for nothing."""
        return self == Audience()

    @property
    def conditions(self) -> list[Condition]:
        """Its own and those of the audience that is left out."""
        return self.where + (self.exclude.where if self.exclude else [])


@dataclass(frozen=True, slots=True)
class CampaignDraft:
    """What a user wants sent, and to whom. Subject, preheader, html and text are templates. A draft that names a stored
    template has no html and text until they are copied from there; then `copied_from` is (template, version).
    """

    name: str
    subject: str | None
    html: str | None
    preheader: str | None = None
    text: str | None = None
    from_name: str | None = None
    from_email: str | None = None
    reply_to: list[str] = field(default_factory=list)
    audience: Audience = field(default_factory=Audience)
    tracking: Tracking = TRACKED
    scheduled_at: datetime | None = None
    template: Ref | None = None
    copied_from: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as stored."""

    id: int
    account_id: int
    name: str
    subject: str
    preheader: str | None
    from_name: str | None
    from_email: str | None
    reply_to: list[str]
    html: str
    text: str | None
    audience: Audience
    tracking: Tracking
    warnings: list[str]
    status: Status
    reason: str | None
    stream_id: int | None
    hold_id: int | None
    audience_count: int | None
    created_at: datetime
    scheduled_at: datetime | None
    sent_at: datetime | None
    submitted_at: datetime | None
    completed_at: datetime | None
    template_id: int | None
    template_version: int | None
    # How its mail reaches SES, and why: delivery.py.
    wire_mode: str | None
    wire_reason: str | None

    @property
    def copied_from(self) -> tuple[int, int] | None:
        """The template that its content is of, as (template, version)."""
        if self.template_id is None or self.template_version is None:
            return None
        return self.template_id, self.template_version


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail as its reader sees it."""

    subject: str
    html: str
    text: str


# The words of statistics that stand for several states.
GROUPS: dict[str, tuple[State, ...]] = {
    "failed": (State.FAILED, State.UNRESOLVED, State.EXPIRED, State.REJECTED),
    "bounced": (State.BOUNCED, State.SOFT_BOUNCED),
    "skipped": (State.SKIPPED, State.CANCELLED),
    "open": OPEN_STATES,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a send is, in recipients. recipients = delivered + bounced + failed + skipped + open; the rest counts
    across them. Opened and clicked are by people; of the others, `machine_…` counts those of whom only machines were seen.
    """

    recipients: int = 0
    accepted: int = 0
    delivered: int = 0
    bounced: int = 0
    complained: int = 0
    opened: int = 0
    clicked: int = 0
    unsubscribed: int = 0
    failed: int = 0
    skipped: int = 0
    open: int = 0
    machine_opened: int = 0
    machine_clicked: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """What starting a campaign did, or will do at its time: then there is no hold yet, and the rest is today's estimate."""

    campaign: Campaign
    audience_count: int
    hold_id: int | None
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Retry:
    """What a retry did. `left_out` counts the recipients of the failed group who are not tried again, by state."""

    campaign: Campaign
    recipients: int
    hold_id: int
    amount_micros: int
    left_out: dict[State, int]


@dataclass(frozen=True, slots=True)
class Totals:
    """An account's campaigns by state, and its mail of every kind since the first of the month (UTC)."""

    total: int
    sending: int
    completed: int
    emails_this_month: int
