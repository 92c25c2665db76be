"""What silence proves, and what it does not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mailrail.emails.model import Patience, Watermark

LAG_MAX = timedelta(minutes=1)
ALIVE = Watermark(
    neighbours=200, heard=200, within=timedelta(minutes=59), canary_returned=True, lag=timedelta(0), unread=0, parked=0
)


def test_silence_proves_something_while_everything_else_speaks() -> None:
    assert ALIVE.waiting_for(LAG_MAX) is None
    assert replace(ALIVE, heard=198).waiting_for(LAG_MAX) is None
    assert replace(ALIVE, lag=LAG_MAX).waiting_for(LAG_MAX) is None
    assert replace(ALIVE, neighbours=0, heard=0).waiting_for(LAG_MAX) is None, "the canary alone speaks for them"


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        (replace(ALIVE, heard=197), "only 197 of the 200 sends nearest in time had an event within 3540 s"),
        (replace(ALIVE, neighbours=20, heard=19), "only 19 of the 20"),
        (replace(ALIVE, canary_returned=False), "no canary"),
        (replace(ALIVE, lag=LAG_MAX + timedelta(seconds=1)), "events wait 61 s"),
        (replace(ALIVE, unread=3), "3 notifications that came before the fence was over are not applied yet"),
        (replace(ALIVE, parked=1), "1 notifications are parked"),
        (replace(ALIVE, dead=2), "2 notifications lie in the dead-letter queue"),
    ],
)
def test_silence_proves_nothing_while_the_way_back_is_in_doubt(seen: Watermark, missing: str) -> None:
    assert missing in str(seen.waiting_for(LAG_MAX))


def test_what_proved_nothing_is_looked_at_again_soon() -> None:
    hour = timedelta(hours=1)
    assert Patience(hour, 24 * hour, LAG_MAX).recheck == timedelta(seconds=30)
    assert Patience(timedelta(seconds=4), hour, LAG_MAX).recheck == timedelta(seconds=1)
