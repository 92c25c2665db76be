"""Codes, states and the rule that turns facts into a state."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum


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


def fold(claims: Iterable[Claim], results: Iterable[Result], events: Iterable[EventKind], now: datetime) -> State:
    """The state that a set of facts amounts to; the SQL of fold.py computes the same for a shard at once.

    Proof of acceptance from any attempt wins, by rank. Without one the highest attempt that was claimed decides: its
    result, else whether its worker still lives.
    """
    claims, results, events = list(claims), list(results), set(events)
    accepted = [result.at for result in results if result.outcome is Outcome.ACCEPTED]
    if accepted or events:
        proven = [_PROVEN_BY_EVENT.get(event, State.ACCEPTED) for event in events]
        if accepted and min(accepted) + EXPIRY <= now:
            proven.append(State.EXPIRED)
        return max(proven, default=State.ACCEPTED)
    if not claims:
        return State.PENDING
    last_attempt = max(claim.attempt for claim in claims)
    outcomes = [result.outcome for result in results if result.attempt == last_attempt]
    if outcomes:
        return _DECIDED_BY_OUTCOME[max(outcomes)]
    return State.SUBMITTING if any(claim.live for claim in claims) else State.UNKNOWN


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


@dataclass(frozen=True, slots=True)
class ShardFold:
    """What folding a shard found."""

    stream_id: int
    shard: int
    account_id: int
    open: int
    closed_now: bool
