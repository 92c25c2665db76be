"""The fold over every set of facts within bounds, and over every fact that can be added to each.

Bounds: three attempts, each with no outcome or any one, the last also with any one beside UNRESOLVED (a late truth about who
was given up), and so every one when it is added; the last attempt's lease live or dead; no permit, one for the last attempt
or for the next; cancelled or not. Events: every subset of the eleven kinds, beside every outcome of one attempt, young or
expired.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import combinations, permutations, product

import pytest

from mailrail.emails.model import EXPIRY, OPEN_STATES, Claim, EventKind, Outcome, Result, State, fold

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ATTEMPTS = 3
REFUSED = {Outcome.NOT_WRITTEN, Outcome.DEFERRED, Outcome.HALTED}
PROVEN = {
    State.ACCEPTED,
    State.EXPIRED,
    State.SOFT_BOUNCED,
    State.DELIVERED,
    State.BOUNCED,
    State.REJECTED,
}
UNSENT_OPEN = {State.PENDING, State.SUBMITTING, State.UNKNOWN}
NO_OUTCOME: frozenset[Outcome] = frozenset()
OUTCOMES = sorted(
    {NO_OUTCOME, *(frozenset({one}) for one in Outcome), *(frozenset({one, Outcome.UNRESOLVED}) for one in Outcome)},
    key=sorted,
)
SINGLE = [told for told in OUTCOMES if len(told) < 2]


@dataclass(frozen=True, slots=True)
class Facts:
    """Outcomes by attempt, all of them claimed; `permit` is an attempt that was allowed and not claimed, or 0."""

    outcomes: tuple[frozenset[Outcome], ...] = ()
    live: bool = False
    permit: int = 0
    cancelled: bool = False

    @property
    def attempt(self) -> int:
        """The last one that was claimed."""
        return len(self.outcomes)

    @property
    def is_proven(self) -> bool:
        """Whether SES is known to have accepted."""
        return any(Outcome.ACCEPTED in told for told in self.outcomes)


@cache
def state_of(facts: Facts) -> State:
    """What the product says."""
    claims = [Claim(n, facts.live and n == facts.attempt) for n in range(1, facts.attempt + 1)]
    results = [Result(n, outcome, NOW) for n, told in enumerate(facts.outcomes, 1) for outcome in told]
    permits = [facts.permit] if facts.permit else []
    return fold(claims, results, [], NOW, permits=permits, cancelled=facts.cancelled)


def every_set() -> Iterator[Facts]:
    """All within the bounds."""
    for cancelled in (False, True):
        yield Facts(cancelled=cancelled)
        for attempts in range(1, ATTEMPTS + 1):
            for outcomes in product(*[SINGLE] * (attempts - 1), OUTCOMES):
                for live, permit in product((False, True), (0, attempts, attempts + 1)):
                    yield Facts(outcomes, live, permit, cancelled)


def additions(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """Every single fact that the engine may add, by its kind. A claim needs the state PENDING and a running campaign."""
    for at, told in enumerate(facts.outcomes):
        for outcome in Outcome:
            wider = told | {outcome}
            if wider != told and wider in OUTCOMES:
                outcomes = (*facts.outcomes[:at], wider, *facts.outcomes[at + 1 :])
                kind = "proof" if outcome is Outcome.ACCEPTED else "last" if at == facts.attempt - 1 else "earlier"
                yield kind, replace(facts, outcomes=outcomes)
    if facts.live:
        yield "lease over", replace(facts, live=False)
    if facts.permit <= facts.attempt and facts.attempt:
        yield "permit", replace(facts, permit=facts.attempt + 1)
    if not facts.cancelled:
        # Cancel withdraws permits in its own transaction.
        yield "cancel", replace(facts, cancelled=True, permit=0)
        if state_of(facts) is State.PENDING and facts.attempt < ATTEMPTS:
            yield "claim", replace(facts, outcomes=(*facts.outcomes, NO_OUTCOME), live=True, permit=0)


SETS = list(every_set())

# Kind of fact → state → states after it, reliability §2.2 and nothing else. ACCEPTED stays under everything.
ANYTHING = {State(n) for n in State} - PROVEN | {State.ACCEPTED}
STAYS = {state: {state} for state in ANYTHING}
SETTLED = {State.FAILED, State.UNRESOLVED, State.SKIPPED, State.CANCELLED}
DIAGRAM: dict[str, dict[State, set[State]]] = {
    "claim": {State.PENDING: {State.SUBMITTING}},
    "lease over": STAYS | {State.SUBMITTING: {State.UNKNOWN}},
    "proof": {state: {State.ACCEPTED} for state in ANYTHING},
    "earlier": STAYS,
    "last": STAYS
    | {
        # In a cancelled campaign who was surely not accepted stays unsent.
        State.SUBMITTING: {State.PENDING, State.UNKNOWN} | SETTLED,
        State.UNKNOWN: {State.PENDING, State.UNKNOWN} | SETTLED,
        # Given up beside another outcome, and the other way round.
        State.PENDING: {State.PENDING, State.UNRESOLVED},
        State.FAILED: {State.UNRESOLVED},
        State.UNRESOLVED: {State.UNRESOLVED, State.SKIPPED, State.CANCELLED},
        State.CANCELLED: {State.CANCELLED, State.UNRESOLVED},
    },
    # Retry for who failed or was given up, backoff, and the reconciler.
    "permit": {
        State.PENDING: {State.PENDING},
        State.SUBMITTING: {State.PENDING, State.CANCELLED},
        State.UNKNOWN: {State.PENDING, State.CANCELLED},
        State.FAILED: {State.PENDING, State.CANCELLED},
        State.UNRESOLVED: {State.PENDING, State.CANCELLED},
        State.SKIPPED: {State.PENDING, State.CANCELLED},
        State.CANCELLED: {State.PENDING, State.CANCELLED},
        State.ACCEPTED: {State.ACCEPTED},
    },
    "cancel": STAYS | {State.PENDING: {State.CANCELLED, State.SUBMITTING, State.UNKNOWN} | SETTLED},
}


def test_every_added_fact_moves_along_the_diagram_and_every_edge_is_used() -> None:
    moved: dict[str, dict[State, set[State]]] = {}
    for facts in SETS:
        for kind, wider in additions(facts):
            moved.setdefault(kind, {}).setdefault(state_of(facts), set()).add(state_of(wider))
    assert moved == DIAGRAM


def test_who_is_proven_stays_proven_and_is_never_claimed_again() -> None:
    proven = [facts for facts in SETS if facts.is_proven]
    assert len(proven) > 10_000
    for facts in proven:
        assert state_of(facts) is State.ACCEPTED
        for kind, wider in additions(facts):
            assert kind != "claim"
            assert state_of(wider) is State.ACCEPTED


def test_pending_means_that_another_attempt_is_allowed() -> None:
    for facts in SETS:
        last = facts.outcomes[-1] if facts.outcomes else NO_OUTCOME
        allowed = not facts.attempt or facts.permit > facts.attempt or (last and last <= REFUSED)
        is_pending = state_of(facts) is State.PENDING
        assert is_pending == bool(allowed and not facts.is_proven and not facts.cancelled), facts


def test_without_a_permit_the_unknown_never_becomes_pending() -> None:
    for facts in SETS:
        if state_of(facts) in (State.UNKNOWN, State.SUBMITTING):
            for kind, wider in additions(facts):
                surely_refused = wider.outcomes and wider.outcomes[-1] and wider.outcomes[-1] <= REFUSED
                assert state_of(wider) is not State.PENDING or kind == "permit" or surely_refused, (facts, wider)


def test_only_a_permit_opens_what_is_settled() -> None:
    for facts in SETS:
        if state_of(facts) not in OPEN_STATES:
            for kind, wider in additions(facts):
                assert state_of(wider) not in UNSENT_OPEN or kind == "permit", (facts, kind, wider)


# —— events ————————————————————————————————————————————————————————————————————————————————————————————————————————————

EVENT_SETS = [frozenset(kinds) for size in range(len(EventKind) + 1) for kinds in combinations(EventKind, size)]
HISTORIES = {outcome.name: [Result(1, outcome, NOW)] for outcome in Outcome} | {
    "NONE": [],
    "EXPIRED": [Result(1, Outcome.ACCEPTED, NOW - EXPIRY)],
}


@pytest.mark.parametrize("permits", [(), (2,)], ids=["no_permit", "permit"])
@pytest.mark.parametrize("cancelled", [False, True], ids=["running", "cancelled"])
def test_an_event_proves_and_only_raises_the_rank(permits: tuple[int, ...], cancelled: bool) -> None:
    for name, results in HISTORIES.items():
        states = {
            kinds: fold([Claim(1, True)], results, kinds, NOW, permits=permits, cancelled=cancelled)
            for kinds in EVENT_SETS
        }
        for kinds, state in states.items():
            assert (state in PROVEN) == bool(kinds or name in ("ACCEPTED", "EXPIRED"))
            for more in set(EventKind) - kinds:
                wider = states[kinds | {more}]
                assert wider in PROVEN
                assert state not in PROVEN or wider >= state, (name, kinds, more)


def test_the_rank_of_events_is_that_of_the_diagram() -> None:
    alone = {kind: fold([Claim(1, True)], [], [kind], NOW) for kind in EventKind}
    assert alone == dict.fromkeys(EventKind, State.ACCEPTED) | {
        EventKind.DELIVERY: State.DELIVERED,
        EventKind.BOUNCE_PERMANENT: State.BOUNCED,
        EventKind.BOUNCE_TRANSIENT: State.SOFT_BOUNCED,
        EventKind.REJECT: State.REJECTED,
        EventKind.RENDERING_FAILURE: State.REJECTED,
    }
    for kinds in EVENT_SETS:
        if kinds:
            assert fold([Claim(1, True)], [], kinds, NOW) == max(alone[kind] for kind in kinds)


def test_time_alone_only_expires_what_was_accepted() -> None:
    later = NOW + 2 * EXPIRY
    for results in HISTORIES.values():
        for kinds in EVENT_SETS:
            before = fold([Claim(1, True)], results, kinds, NOW)
            after = fold([Claim(1, True)], results, kinds, later)
            assert after is before or (before, after) == (State.ACCEPTED, State.EXPIRED)


# —— order and doubles —————————————————————————————————————————————————————————————————————————————————————————————————


def test_order_and_doubles_of_facts_do_not_matter() -> None:
    claims = (Claim(1, False), Claim(2, True))
    told = [Result(n, outcome, NOW) for n in (1, 2) for outcome in Outcome]
    for first, second in combinations(told, 2):
        states = {
            fold(some_claims, results, (), NOW, permits=permits)
            for some_claims in (*permutations(claims), (*claims, *claims))
            for results in ((first, second), (second, first), (first, second, first, second))
            for permits in ((1, 2), (2, 1), (1, 1, 2, 2))
        }
        assert len(states) == 1, (first, second)
    for kinds in combinations(EventKind, 3):
        orders = [fold(claims, told[:1], order, NOW) for order in permutations(kinds)]
        assert {*orders, fold(claims, told[:1], kinds * 2, NOW)} == {orders[0]}
