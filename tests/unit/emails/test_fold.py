"""A test per transition: what a set of facts amounts to."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from mailrail.emails.model import EXPIRY, Claim, EventKind, Outcome, Result, State, fold

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LIVE, DEAD = Claim(1, True), Claim(1, False)


def result(outcome: Outcome, attempt: int = 1, at: datetime = NOW) -> Result:
    return Result(attempt, outcome, at)


@pytest.mark.parametrize(
    ("claims", "results", "events", "state"),
    [
        ([], [], [], State.PENDING),
        ([LIVE], [], [], State.SUBMITTING),
        ([DEAD], [], [], State.UNKNOWN),
        ([DEAD], [result(Outcome.ACCEPTED)], [], State.ACCEPTED),
        ([LIVE], [result(Outcome.NOT_WRITTEN)], [], State.PENDING),
        ([LIVE], [result(Outcome.DEFERRED)], [], State.PENDING),
        ([LIVE], [result(Outcome.HALTED)], [], State.PENDING),
        ([LIVE], [result(Outcome.FAILED)], [], State.FAILED),
        ([LIVE], [result(Outcome.UNKNOWN)], [], State.UNKNOWN),
        ([LIVE], [result(Outcome.UNKNOWN), result(Outcome.UNRESOLVED)], [], State.UNRESOLVED),
        ([LIVE], [result(Outcome.SKIPPED_SUPPRESSED)], [], State.SKIPPED),
        ([LIVE], [result(Outcome.CANCELLED)], [], State.CANCELLED),
        # A second attempt is out: the first one's failure to be accepted says nothing any more.
        ([DEAD, Claim(2, True)], [result(Outcome.DEFERRED)], [], State.SUBMITTING),
        # A late 200 of an older attempt is proof all the same.
        ([DEAD, Claim(2, True)], [result(Outcome.ACCEPTED)], [], State.ACCEPTED),
        # The event came before our own result, or instead of it.
        ([LIVE], [], [EventKind.SEND], State.ACCEPTED),
        ([DEAD], [result(Outcome.UNKNOWN)], [EventKind.DELIVERY], State.DELIVERED),
        ([DEAD], [result(Outcome.UNRESOLVED)], [EventKind.DELIVERY], State.DELIVERED),
        # The inbox took the mail and gave it back later.
        ([LIVE], [result(Outcome.ACCEPTED)], [EventKind.DELIVERY, EventKind.BOUNCE_PERMANENT], State.BOUNCED),
        # Out of office and the like after a delivery: still delivered.
        ([LIVE], [result(Outcome.ACCEPTED)], [EventKind.DELIVERY, EventKind.BOUNCE_TRANSIENT], State.DELIVERED),
        ([LIVE], [result(Outcome.ACCEPTED)], [EventKind.RENDERING_FAILURE], State.REJECTED),
        ([LIVE], [result(Outcome.ACCEPTED)], [EventKind.COMPLAINT], State.ACCEPTED),
        ([LIVE], [result(Outcome.ACCEPTED, at=NOW - EXPIRY)], [], State.EXPIRED),
        ([LIVE], [result(Outcome.ACCEPTED, at=NOW - EXPIRY + timedelta(seconds=1))], [], State.ACCEPTED),
        # A delivery after the expiry still upgrades.
        ([LIVE], [result(Outcome.ACCEPTED, at=NOW - EXPIRY)], [EventKind.DELIVERY], State.DELIVERED),
    ],
)
def test_facts_amount_to_state(
    claims: list[Claim], results: list[Result], events: list[EventKind], state: State
) -> None:
    assert fold(claims, results, events, NOW) is state


def test_an_event_is_a_proof_that_expires_like_an_answer() -> None:
    def state(heard_at: datetime, *results: Result) -> State:
        return fold([DEAD], results, [EventKind.SEND], NOW, heard_at=heard_at)

    assert state(NOW - EXPIRY) is State.EXPIRED
    assert state(NOW - EXPIRY, result(Outcome.UNKNOWN)) is State.EXPIRED
    assert state(NOW, result(Outcome.UNKNOWN, at=NOW - EXPIRY)) is State.ACCEPTED
    # The first proof counts.
    assert state(NOW, result(Outcome.ACCEPTED, at=NOW - EXPIRY)) is State.EXPIRED


def test_order_and_doubles_of_events_do_not_matter() -> None:
    kinds = [EventKind.SEND, EventKind.DELIVERY, EventKind.BOUNCE_TRANSIENT, EventKind.COMPLAINT]
    states = {fold([LIVE], [result(Outcome.ACCEPTED)], [*order, order[0]], NOW) for order in permutations(kinds)}
    assert states == {State.DELIVERED}
