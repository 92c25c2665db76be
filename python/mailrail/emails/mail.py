"""Facts of transactional mail: what was asked, and the one word that says where it stands."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from mailrail.accounts.model import UNTRACKED, Tracking
from mailrail.emails.model import Outcome, State
from mailrail.errors import MailrailError

# SES takes no more in one mail, and the numbers of a mail's addresses are neighbours.
ADDRESSES_MAX = 50
BATCH_MAX = 100
SCHEDULE_MAX = timedelta(days=30)
# A list's total is counted no further.
TOTAL_CAP = 10_000


class Role(StrEnum):
    """Where an address stands in the mail."""

    TO = "to"
    CC = "cc"
    BCC = "bcc"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that may be sent: `content` is what the core made of the request, `addresses` has nobody twice. `tracking` is how it
    was made, and `remade` makes it once more, with less of that.
    """

    sender: str
    subject: str
    addresses: tuple[tuple[Role, str], ...]
    content: bytes
    links: Sequence[str]
    tags: Sequence[str] = ()
    scheduled_at: datetime | None = None
    tracking: Tracking = UNTRACKED
    remade: "Callable[[Tracking], Mail] | None" = field(default=None, repr=False, compare=False)

    def within(self, allowed: Tracking) -> "Mail":
        """The mail with no more tracking than is allowed."""
        kept = self.tracking & allowed
        return self if kept == self.tracking or self.remade is None else self.remade(kept)


class MailStatus(StrEnum):
    """Where a mail stands, in the words of both dialects."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    UNRESOLVED = "unresolved"


STATUS_OF = {
    State.PENDING: MailStatus.QUEUED,
    State.SUBMITTING: MailStatus.QUEUED,
    State.UNKNOWN: MailStatus.QUEUED,
    State.FAILED: MailStatus.FAILED,
    State.UNRESOLVED: MailStatus.UNRESOLVED,
    State.ACCEPTED: MailStatus.SENT,
    State.EXPIRED: MailStatus.FAILED,
    State.SOFT_BOUNCED: MailStatus.BOUNCED,
    State.DELIVERED: MailStatus.DELIVERED,
    State.BOUNCED: MailStatus.BOUNCED,
    State.REJECTED: MailStatus.FAILED,
    State.SKIPPED: MailStatus.SUPPRESSED,
    State.CANCELLED: MailStatus.CANCELLED,
}

# `sent` asks for all that SES took and that did not come back, delivered or not yet.
STATES_BY_STATUS: dict[str, frozenset[State]] = {
    **{word: frozenset(state for state, shown in STATUS_OF.items() if shown is word) for word in MailStatus},
    MailStatus.SENT: frozenset((State.ACCEPTED, State.DELIVERED)),
    MailStatus.SCHEDULED: frozenset((State.PENDING,)),
}

# Of several addresses the mail shows the one that a sender most needs to know of: what is still under way, then what
# went wrong, and delivered only when all are.
PRECEDENCE = (
    State.PENDING,
    State.SUBMITTING,
    State.UNKNOWN,
    State.BOUNCED,
    State.SOFT_BOUNCED,
    State.FAILED,
    State.EXPIRED,
    State.REJECTED,
    State.UNRESOLVED,
    State.SKIPPED,
    State.ACCEPTED,
    State.DELIVERED,
    State.CANCELLED,
)


def status_of(states: Iterable[State], scheduled_at: datetime | None, now: datetime) -> MailStatus:
    """The one word for a mail whose addresses are in these states."""
    shown = STATUS_OF[min(states, key=PRECEDENCE.index)]
    if shown is MailStatus.QUEUED and scheduled_at is not None and scheduled_at > now:
        return MailStatus.SCHEDULED
    return shown


_OUTCOME_STATE = {
    Outcome.ACCEPTED: State.ACCEPTED,
    Outcome.FAILED: State.FAILED,
    Outcome.SKIPPED_SUPPRESSED: State.SKIPPED,
}


def state_after(outcome: Outcome) -> State:
    """Where an address stands right after its first attempt; what is not final is pending, whatever the reason."""
    return _OUTCOME_STATE.get(outcome, State.PENDING)


class MailNotFound(MailrailError):
    """There is no such email."""

    code = "email_not_found"


class MailNotCancellable(MailrailError):
    """This email cannot be cancelled any more: only one that is scheduled and whose time has not come can."""

    code = "email_not_cancellable"


class MailRejected(MailrailError):
    """Amazon SES refused this email; it was not sent and costs nothing. `id` is its public id."""

    code = "email_rejected"
    id: str | None = None


class RecipientSuppressed(MailrailError):
    """This address is suppressed, so nothing was sent. GET /api/v1/suppressions says why; lift it there to try again."""

    code = "recipient_suppressed"
    param = "to"
    # The public id of the mail that was kept all the same, so that lists show it.
    id: str | None = None
