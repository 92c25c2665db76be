"""The pause between attempts grows, stops growing, and never fails."""

from mailrail.emails.model import RETRY_PAUSE_MAX_S, retry_pause_s

SMALLINT_MAX = 32_767


def test_the_pause_doubles_up_to_its_limit_for_every_attempt_that_a_row_can_hold() -> None:
    assert [retry_pause_s(attempt) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert retry_pause_s(7) == RETRY_PAUSE_MAX_S
    assert retry_pause_s(SMALLINT_MAX) == RETRY_PAUSE_MAX_S
