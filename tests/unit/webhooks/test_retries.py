"""When a failed webhook is tried again."""

import pytest

from mailrail.webhooks.model import is_overloaded, is_success, retry_pause_s

HOUR = 3600


def test_the_schedule_takes_three_days() -> None:
    pauses = [retry_pause_s(step, 0.0, None) for step in range(9)]
    assert pauses == [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
    assert retry_pause_s(9, 0.0, None) is None


def test_chance_only_lengthens() -> None:
    assert [retry_pause_s(1, chance, None) for chance in (0.0, 0.5, 1.0)] == [300, 330, 360]


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 300), (10.0, 300), (900.0, 900), (-5.0, 300), (1e12, 24 * HOUR)]
)
def test_an_endpoint_may_ask_for_more_time(asked_s: float | None, pause_s: float) -> None:
    assert retry_pause_s(1, 0.0, asked_s) == pause_s


def test_only_2xx_is_a_receipt() -> None:
    assert [status for status in range(100, 600) if is_success(status)] == list(range(200, 300))
    assert not is_success(None)


def test_silence_and_pleas_narrow_the_lane() -> None:
    assert [status for status in range(100, 600) if is_overloaded(status)] == [429, 502, 503, 504]
    assert is_overloaded(None)
