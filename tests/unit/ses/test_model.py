"""What the limiter's figures mean: who may send, how long to wait, and when a campaign will be out."""

import math
from dataclasses import replace

import pytest

from mailrail.ses.model import CLOSED_PAUSE_S, DAY_S, PAUSE_MAX_S, UNPOLLED, UNPOLLED_PAUSE_S, Limits, seconds_to_send

LIMITS = Limits(polled=True, enabled=True, rate=100.0, tokens=0.0, day_left=50_000.0, day_quota=50_000.0)
UNLIMITED = replace(LIMITS, day_left=math.inf, day_quota=math.inf)


@pytest.mark.parametrize(("day_quota", "reserve"), [(200.0, 100.0), (50_000.0, 500.0), (math.inf, 0.0)])
def test_the_reserve_is_a_hundredth_and_at_least_a_hundred(day_quota: float, reserve: float) -> None:
    assert replace(LIMITS, day_quota=day_quota).reserve == reserve


@pytest.mark.parametrize(
    ("limits", "is_open"),
    [
        (LIMITS, True),
        (UNLIMITED, True),
        (UNPOLLED, False),
        (replace(LIMITS, enabled=False), False),
        (replace(LIMITS, rate=0.0), False),
        (replace(LIMITS, day_left=501.0), True),
        (replace(LIMITS, day_left=500.9), False),
    ],
)
def test_campaigns_send_while_sending_is_enabled_and_the_day_has_more_than_its_reserve(
    limits: Limits, is_open: bool
) -> None:
    assert limits.is_open is is_open


@pytest.mark.parametrize(
    ("limits", "wanted", "pause_s"),
    [
        (LIMITS, 25, 0.25),
        (replace(LIMITS, tokens=15.0), 25, 0.1),
        (replace(LIMITS, tokens=-50.0), 25, 0.75),
        (replace(LIMITS, tokens=-5000.0), 25, PAUSE_MAX_S),
        (replace(LIMITS, day_left=0.0), 25, CLOSED_PAUSE_S),
        (UNPOLLED, 25, UNPOLLED_PAUSE_S),
    ],
)
def test_the_pause_lasts_until_a_whole_slice_is_there(limits: Limits, wanted: int, pause_s: float) -> None:
    assert limits.pause_s(wanted) == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("recipients", "limits", "seconds"),
    [
        (1_000_000, UNLIMITED, 10_000),
        (49_500, LIMITS, 495),
        # The day's campaigns get 49,500: one more waits for the next day.
        (49_501, LIMITS, DAY_S + 0.01),
        (99_000, LIMITS, DAY_S + 495),
        (99_001, LIMITS, 2 * DAY_S + 0.01),
        (1, replace(LIMITS, enabled=False), math.inf),
        (1, replace(LIMITS, day_left=0.0, day_quota=100.0), math.inf),
        (1, UNPOLLED, math.inf),
    ],
)
def test_the_time_to_send_follows_from_rate_and_daily_quota(recipients: int, limits: Limits, seconds: float) -> None:
    assert seconds_to_send(recipients, limits) == pytest.approx(seconds)
