"""Times and money as they are printed."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mailrail.web.values import shown_time, shown_time_or_none, shown_usd


def test_times_are_utc_to_the_second() -> None:
    moment = datetime(2026, 4, 8, 12, 15, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert shown_time(moment) == "2026-04-08T10:15:00Z"
    assert shown_time_or_none(None) is None
    assert shown_time_or_none(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("micros", "usd"),
    [(0, 0.0), (3_072_000, 3.07), (5_000, 0.0), (15_000, 0.02), (25_000, 0.02), (35_000, 0.04), (300_000_000, 300.0)],
)
def test_dollars_are_rounded_half_even(micros: int, usd: float) -> None:
    assert shown_usd(micros) == usd
