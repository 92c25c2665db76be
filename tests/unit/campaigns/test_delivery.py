"""Which way a campaign goes and why: settings, the probe's answers, the canary, and the storm that undoes it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mailrail.campaigns.delivery import (
    REQUIRED,
    STORM_MIN,
    STORM_SPAN,
    Canary,
    Mode,
    calls_needed_per_s,
    choose,
    is_steered,
    is_storm,
    judge,
)
from mailrail.config import Settings
from mailrail.emails.model import Outcome
from mailrail.ses.answers import Answer, Question, Verdict

AWS = Settings()
STAND_IN = Settings(ses_endpoint="https://127.0.0.1:9000")
DELIVERED = Canary(Outcome.ACCEPTED, None, delivered=True, failure=None)
ON_ITS_WAY = replace(DELIVERED, delivered=False)


def answer(question: Question, verdict: Verdict, value: float | None = None) -> dict[Question, Answer]:
    return {question: Answer(question, verdict, "it was seen", value, datetime(2026, 11, 30, tzinfo=UTC))}


@pytest.mark.parametrize(
    ("settings", "mode", "awaits"),
    [
        (AWS, Mode.SIMPLE, True),
        (replace(AWS, slots_canary="always"), Mode.SIMPLE, True),
        (replace(AWS, slots_canary="never"), Mode.SLOTS, False),
        (replace(AWS, wire_mode="simple"), Mode.SIMPLE, False),
        (replace(AWS, ses_endpoint="https://email.eu-west-1.amazonaws.com"), Mode.SIMPLE, True),
        (STAND_IN, Mode.SLOTS, False),
        (replace(STAND_IN, slots_canary="always"), Mode.SIMPLE, True),
        (replace(STAND_IN, wire_mode="simple", slots_canary="always"), Mode.SIMPLE, False),
    ],
)
def test_settings_come_first(settings: Settings, mode: Mode, awaits: bool) -> None:
    delivery = choose(settings, {}, 14.0)
    assert (delivery.mode, delivery.awaits_canary) == (mode, awaits)
    assert delivery.reason.endswith(".")
    assert is_steered(settings) or delivery.awaits_canary is False


@pytest.mark.parametrize("question", REQUIRED)
@pytest.mark.parametrize("policy", ["auto", "never"])
def test_what_slots_rely_on_must_not_be_denied(question: Question, policy: str) -> None:
    settings = replace(AWS, slots_canary=policy)
    delivery = choose(settings, answer(question, Verdict.NO), 14.0)
    assert (delivery.mode, delivery.awaits_canary) == (Mode.SIMPLE, False)
    assert "on 2026-11-30: it was seen" in delivery.reason
    for verdict in (Verdict.YES, Verdict.UNKNOWN):
        assert choose(settings, answer(question, verdict), 14.0) == choose(settings, {}, 14.0)


def test_what_slots_do_not_rely_on_has_no_say() -> None:
    for question in set(Question) - {*REQUIRED, Question.BULK_CALLS}:
        assert choose(AWS, answer(question, Verdict.NO), 14.0).awaits_canary


def test_a_stand_in_is_not_steered_by_answers_about_amazon() -> None:
    assert choose(STAND_IN, answer(Question.SLOT_LETTERS, Verdict.NO), 14.0).mode is Mode.SLOTS


@pytest.mark.parametrize(("rate", "calls"), [(0.0, 4.0), (14.0, 4.0), (200.0, 4.0), (500.0, 10.0), (10_000.0, 200.0)])
def test_a_round_is_a_slice_of_the_rate_and_a_call_at_most_fifty(rate: float, calls: float) -> None:
    assert calls_needed_per_s(rate) == calls


@pytest.mark.parametrize(
    ("rate", "ceiling", "awaits"), [(14.0, 1.0, False), (14.0, 4.0, True), (500.0, 9.0, False), (500.0, 10.0, True)]
)
def test_a_ceiling_of_calls_below_the_need_speaks_for_simple(rate: float, ceiling: float, awaits: bool) -> None:
    delivery = choose(AWS, answer(Question.BULK_CALLS, Verdict.NO, ceiling), rate)
    assert delivery.awaits_canary is awaits
    assert awaits or f"takes {ceiling:g} calls" in delivery.reason
    assert choose(AWS, answer(Question.BULK_CALLS, Verdict.YES, ceiling), rate).awaits_canary


@pytest.mark.parametrize(
    ("canaries", "is_overdue", "mode"),
    [
        ([DELIVERED, DELIVERED], False, Mode.SLOTS),
        ([DELIVERED, DELIVERED], True, Mode.SLOTS),
        ([DELIVERED, ON_ITS_WAY], False, None),
        ([DELIVERED, ON_ITS_WAY], True, Mode.SIMPLE),
        ([replace(ON_ITS_WAY, outcome=None)], False, None),
        ([replace(ON_ITS_WAY, outcome=None)], True, Mode.SIMPLE),
        ([replace(ON_ITS_WAY, outcome=Outcome.UNKNOWN)], False, None),
        # Its answer was lost, its event was not.
        ([replace(DELIVERED, outcome=Outcome.UNKNOWN)], False, Mode.SLOTS),
        ([replace(DELIVERED, outcome=None)], False, Mode.SLOTS),
        ([DELIVERED, replace(ON_ITS_WAY, failure="Attribute 'a' is not present")], False, Mode.SIMPLE),
        ([replace(DELIVERED, failure="it bounced later")], False, Mode.SIMPLE),
        ([replace(ON_ITS_WAY, outcome=Outcome.FAILED, error="400")], False, Mode.SIMPLE),
        ([DELIVERED, replace(ON_ITS_WAY, outcome=Outcome.HALTED, error="paused")], False, Mode.SIMPLE),
        ([], False, None),
        ([], True, Mode.SIMPLE),
    ],
)
def test_only_canaries_that_all_arrived_open_the_slots(
    canaries: list[Canary], is_overdue: bool, mode: Mode | None
) -> None:
    delivery = judge(canaries, 60.0, is_overdue=is_overdue)
    assert (delivery.mode if delivery else None) is mode
    assert delivery is None or not delivery.awaits_canary


@pytest.mark.parametrize(
    ("failures", "accepted", "storm"),
    [
        (STORM_MIN - 1, 10, False),
        (STORM_MIN, 10, True),
        (STORM_MIN, 400, True),
        (STORM_MIN, 401, False),
        (499, STORM_SPAN, False),
        (500, STORM_SPAN, True),
        (500, 1_000_000, True),
        (0, 0, False),
    ],
)
def test_a_storm_is_a_number_and_a_share(failures: int, accepted: int, storm: bool) -> None:
    assert is_storm(failures, accepted) is storm
