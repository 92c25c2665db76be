"""The one word for a mail with several addresses."""

from datetime import UTC, datetime, timedelta

import pytest

from mailrail.emails.mail import STATES_BY_STATUS, STATUS_OF, MailStatus, state_after, status_of
from mailrail.emails.model import Outcome, State

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize("state", list(State))
def test_a_mail_to_one_address_is_what_its_state_says(state: State) -> None:
    assert status_of([state], None, NOW) is STATUS_OF[state]


def test_a_mail_is_scheduled_only_before_its_time() -> None:
    assert status_of([State.PENDING], NOW + timedelta(seconds=1), NOW) is MailStatus.SCHEDULED
    assert status_of([State.PENDING], NOW, NOW) is MailStatus.QUEUED
    assert status_of([State.DELIVERED], NOW + timedelta(seconds=1), NOW) is MailStatus.DELIVERED


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ([State.DELIVERED, State.DELIVERED], MailStatus.DELIVERED),
        ([State.DELIVERED, State.ACCEPTED], MailStatus.SENT),
        ([State.DELIVERED, State.UNKNOWN], MailStatus.QUEUED),
        ([State.DELIVERED, State.BOUNCED], MailStatus.BOUNCED),
        ([State.DELIVERED, State.FAILED], MailStatus.FAILED),
        ([State.DELIVERED, State.SKIPPED], MailStatus.SUPPRESSED),
        ([State.BOUNCED, State.PENDING], MailStatus.QUEUED),
    ],
)
def test_of_several_the_one_that_matters_most_is_shown(states: list[State], shown: MailStatus) -> None:
    assert status_of(states, None, NOW) is shown
    assert status_of(reversed(states), None, NOW) is shown


def test_sent_finds_what_was_delivered_too() -> None:
    assert STATES_BY_STATUS[MailStatus.SENT] == {State.ACCEPTED, State.DELIVERED}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.ACCEPTED, State.ACCEPTED),
        (Outcome.FAILED, State.FAILED),
        (Outcome.SKIPPED_SUPPRESSED, State.SKIPPED),
        (Outcome.UNKNOWN, State.PENDING),
        (Outcome.DEFERRED, State.PENDING),
        (Outcome.NOT_WRITTEN, State.PENDING),
        (Outcome.HALTED, State.PENDING),
    ],
)
def test_what_a_request_is_told_right_after_the_first_attempt(outcome: Outcome, state: State) -> None:
    assert state_after(outcome) is state
