"""Codes, states and the rule that turns facts into a state."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from mailrail.errors import MailrailError


def is_transactional(stream_id: int) -> bool:
    """Whether the stream is a day of transactional mail and not a campaign; the id says so."""
    return stream_id >> 32 & 7 == 1


class Outcome(IntEnum):
    """What one attempt came to (results.outcome). The core writes 1 to 6; the rest never reached it."""

    ACCEPTED = 1
    NOT_WRITTEN = 2  # no byte of the call left this machine: pending again at once
    DEFERRED = 3  # surely not accepted, worth another try later (throttled, unreachable)
    FAILED = 4  # surely not accepted, and never will be
    HALTED = 5  # surely not accepted, for a reason that concerns the whole campaign
    UNKNOWN = 6  # may have been accepted: not sent again before it settles
    UNRESOLVED = 7  # given up as unknown
    SKIPPED_SUPPRESSED = 10
    SKIPPED_UNSUBSCRIBED = 11
    SKIPPED_ERASED = 12
    SKIPPED_ADDRESS_CHANGED = 13
    CANCELLED = 20


RETRYABLE = (Outcome.NOT_WRITTEN, Outcome.DEFERRED, Outcome.HALTED)
# Nothing of these reached SES, so they cost none of its quota.
UNSENT = (
    Outcome.NOT_WRITTEN,
    Outcome.SKIPPED_SUPPRESSED,
    Outcome.SKIPPED_UNSUBSCRIBED,
    Outcome.SKIPPED_ERASED,
    Outcome.SKIPPED_ADDRESS_CHANGED,
)


# Why a recipient was not written to, where nothing more is known.
SKIP_WORDS = {
    Outcome.SKIPPED_SUPPRESSED: "suppressed",
    Outcome.SKIPPED_UNSUBSCRIBED: "unsubscribed",
    Outcome.SKIPPED_ERASED: "erased",
    Outcome.SKIPPED_ADDRESS_CHANGED: "address_changed",
}


class EventKind(IntEnum):
    """What SES or a reader of the mail told (events.kind)."""

    SEND = 1
    DELIVERY = 2
    BOUNCE_PERMANENT = 3
    BOUNCE_TRANSIENT = 4
    REJECT = 5
    RENDERING_FAILURE = 6
    COMPLAINT = 7
    DELIVERY_DELAY = 8
    OPEN = 9
    CLICK = 10
    UNSUBSCRIBE = 11


class State(IntEnum):
    """Where a recipient stands (recipient_state.state). Up to REJECTED the number is the rank: only a proof of a
    higher rank changes the state of an accepted mail.
    """

    PENDING = 0
    SUBMITTING = 1
    UNKNOWN = 2
    FAILED = 3
    UNRESOLVED = 4
    ACCEPTED = 5
    EXPIRED = 6
    SOFT_BOUNCED = 7
    DELIVERED = 8
    BOUNCED = 9
    REJECTED = 10
    SKIPPED = 20
    CANCELLED = 21


OPEN_STATES = (State.PENDING, State.SUBMITTING, State.UNKNOWN, State.ACCEPTED)

# SES reports the last word on a mail well within this time; after it an accepted mail counts as failed.
EXPIRY = timedelta(hours=72)

_PROVEN_BY_EVENT = {
    EventKind.DELIVERY: State.DELIVERED,
    EventKind.BOUNCE_PERMANENT: State.BOUNCED,
    EventKind.BOUNCE_TRANSIENT: State.SOFT_BOUNCED,
    EventKind.REJECT: State.REJECTED,
    # SES accepted the call, then could not fill the template: nothing was sent.
    EventKind.RENDERING_FAILURE: State.REJECTED,
}

_DECIDED_BY_OUTCOME = {
    Outcome.NOT_WRITTEN: State.PENDING,
    Outcome.DEFERRED: State.PENDING,
    Outcome.HALTED: State.PENDING,
    Outcome.FAILED: State.FAILED,
    Outcome.UNKNOWN: State.UNKNOWN,
    Outcome.UNRESOLVED: State.UNRESOLVED,
    Outcome.SKIPPED_SUPPRESSED: State.SKIPPED,
    Outcome.SKIPPED_UNSUBSCRIBED: State.SKIPPED,
    Outcome.SKIPPED_ERASED: State.SKIPPED,
    Outcome.SKIPPED_ADDRESS_CHANGED: State.SKIPPED,
    Outcome.CANCELLED: State.CANCELLED,
}


RETRY_PAUSE_S = 0.5
RETRY_PAUSE_MAX_S = 30.0
# Six doublings reach the longest pause; an attempt's number may be in the thousands.
RETRY_DOUBLINGS_MAX = 6


# A recipient whom SES refuses for days is not worth another try: half a minute each, this is more than three days.
ATTEMPTS_MAX = 10_000


def retry_pause_s(attempt: int) -> float:
    """How long after this attempt, counted from 1, the next one waits at most; seconds."""
    return min(RETRY_PAUSE_MAX_S, RETRY_PAUSE_S * 2.0 ** min(attempt - 1, RETRY_DOUBLINGS_MAX))


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that was made durable before its call; `live` while its lease and epoch hold."""

    attempt: int
    live: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt came to."""

    attempt: int
    outcome: Outcome
    at: datetime


def fold(
    claims: Iterable[Claim],
    results: Iterable[Result],
    events: Iterable[EventKind],
    now: datetime,
    *,
    heard_at: datetime | None = None,
    permits: Iterable[int] = (),
    cancelled: bool = False,
) -> State:
    """The state that a set of facts amounts to; the SQL of fold.py computes the same for a shard at once.

    `heard_at` is when the first of the events came, `permits` are the attempts that were allowed and neither claimed nor
    withdrawn, `cancelled` says that the campaign was.
    Proof of acceptance from any attempt wins, by rank. Without one the highest attempt decides: a permit makes the
    recipient pending again, a claim is as good as its result, else as its worker, who may still live. What is pending
    when its campaign is cancelled stays unsent.
    """
    claims, results, events = list(claims), list(results), set(events)
    accepted = [result.at for result in results if result.outcome is Outcome.ACCEPTED]
    if accepted or events:
        proven = [_PROVEN_BY_EVENT.get(event, State.ACCEPTED) for event in events]
        # An event is a proof like an answer: without one of them, a mail whose last word is lost would stay open for ever.
        since = accepted if heard_at is None else [*accepted, heard_at]
        if since and min(since) + EXPIRY <= now:
            proven.append(State.EXPIRED)
        return max(proven, default=State.ACCEPTED)
    state = _undelivered(claims, results, max(permits, default=0))
    return State.CANCELLED if cancelled and state is State.PENDING else state


def _undelivered(claims: list[Claim], results: list[Result], permitted_attempt: int) -> State:
    last_attempt = max((claim.attempt for claim in claims), default=0)
    if permitted_attempt > last_attempt or not claims:
        return State.PENDING
    outcomes = [result.outcome for result in results if result.attempt == last_attempt]
    if outcomes:
        return _DECIDED_BY_OUTCOME[max(outcomes)]
    return State.SUBMITTING if any(claim.live for claim in claims) else State.UNKNOWN


# —— unknown outcomes ———————————————————————————————————————————————————————————————————————————————————————————————————

# Sends so near to an unknown one that they tell whether its events would have come; their number and share.
NEIGHBOUR_SPAN = timedelta(minutes=5)
NEIGHBOURS_MAX = 200
NEIGHBOURS_HEARD_MIN = 0.99


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence has to last before something follows from it, by the database's clock. Transactional mail is of no
    use when it comes a day late: `mail_max_age` is its `unknown_max_age`.
    """

    fence: timedelta
    unknown_max_age: timedelta
    event_lag_max: timedelta
    mail_max_age: timedelta = timedelta(hours=2)

    @property
    def recheck(self) -> timedelta:
        """When to look again after silence proved nothing yet."""
        return min(timedelta(seconds=30), self.fence / 4)


@dataclass(frozen=True, slots=True)
class Watermark:
    """How alive the way back of events was and is, seen from some sends without an answer.

    `neighbours` are accepted sends nearest in time, `heard` those of them whose first event came `within` a time of their
    claim, which is how long the unknown ones have been silent, less the lag that is allowed: how long events take is seen,
    not supposed. `canary_returned` says whether a mail to SES's mailbox simulator, sent after the unknown ones could last
    have been accepted, has come back; `lag` is the age of the oldest notification that waits to be applied, `unread` counts
    those that came before the fence was over and wait still, `parked` those since then that could not be applied, and `dead`
    what lies in the dead-letter queue of the events' queue.
    """

    neighbours: int
    heard: int
    within: timedelta
    canary_returned: bool
    lag: timedelta
    unread: int
    parked: int
    dead: int = 0

    def waiting_for(self, lag_max: timedelta) -> str | None:
        """None where silence proves that the sends were not accepted, else what is missing for that."""
        if self.lag > lag_max:
            return f"events wait {self.lag.total_seconds():.0f} s to be applied"
        if self.unread:
            return f"{self.unread} notifications that came before the fence was over are not applied yet"
        if self.parked:
            return f"{self.parked} notifications are parked unread"
        if self.dead:
            return f"{self.dead} notifications lie in the dead-letter queue"
        if self.heard < NEIGHBOURS_HEARD_MIN * self.neighbours:
            within_s = self.within.total_seconds()
            return (
                f"only {self.heard} of the {self.neighbours} sends nearest in time had an event within {within_s:.0f} s"
            )
        if not self.canary_returned:
            return "no canary has come back yet"
        return None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of a shard's ripe unknowns; `canary_for` names the stream whose sender a canary should have."""

    stream_id: int
    shard: int
    permitted: int = 0
    given_up: int = 0
    waiting_for: str | None = None
    canary_for: int | None = None


@dataclass(frozen=True, slots=True)
class LeasedShard:
    """A shard that this worker may send, until the lease ends by the database's clock."""

    stream_id: int
    shard: int
    account_id: int
    lease_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Round:
    """One claim: recipients first_seq..last_seq, or those of `seqs`, all at one attempt."""

    claim_id: int
    attempt: int
    first_seq: int | None
    last_seq: int | None
    seqs: list[int] | None

    def __len__(self) -> int:
        if self.seqs is not None:
            return len(self.seqs)
        assert self.first_seq is not None
        assert self.last_seq is not None
        return self.last_seq - self.first_seq + 1


class SendingHeld(MailrailError):
    """Nothing is sent at the moment, because the database may not know all that was sent; the operator has to look."""

    code = "sending_held"


class ShardUnfoldable(MailrailError):
    """The facts of a shard break a rule of the database, which a person has to look into."""

    code = "shard_unfoldable"

    def __init__(self, stream_id: int, shard: int) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.shard = shard


@dataclass(frozen=True, slots=True)
class ShardFold:
    """What folding a shard found."""

    stream_id: int
    shard: int
    account_id: int
    open: int
    closed_now: bool
