"""Facts of a campaign, and what can be wrong with one."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mailrail.errors import MailrailError


class CampaignNotFound(MailrailError):
    """There is no such campaign."""

    code = "campaign_not_found"


class TemplateInvalid(MailrailError):
    """A template of the campaign does not compile."""

    code = "template_invalid"

    def __init__(self, part: str, line: int | None, reason: str) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{reason}")
        self.part = part
        self.line = line
        self.reason = reason


class AlreadySent(MailrailError):
    """This campaign was sent before. Create another to send again."""

    code = "campaign_already_sent"


class EmptyAudience(MailrailError):
    """Nobody can be reached: no subscribed contact matches this campaign's list and tags."""

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


@dataclass(frozen=True, slots=True)
class CampaignDraft:
    """What a user wants sent. Subject, preheader, html and text are templates; `list_id` and `tags` choose whom:
    members of the list, if given, who have every one of the tags.
    """

    name: str
    subject: str
    html: str
    preheader: str | None = None
    text: str | None = None
    from_name: str | None = None
    from_email: str | None = None
    reply_to: list[str] = field(default_factory=list)
    list_id: int | None = None
    tags: list[str] = field(default_factory=list)


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
    list_id: int | None
    tags: list[str]
    warnings: list[str]
    status: Status
    reason: str | None
    stream_id: int | None
    hold_id: int | None
    audience_count: int | None
    created_at: datetime
    sent_at: datetime | None
    submitted_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a send is, in recipients. recipients = delivered + bounced + failed + skipped + open; the rest counts
    across them.
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


@dataclass(frozen=True, slots=True)
class Launch:
    """What starting a campaign did."""

    campaign: Campaign
    hold_id: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Totals:
    """An account's campaigns by state, and its mail since the first of the month (UTC)."""

    total: int
    sending: int
    completed: int
    emails_this_month: int
