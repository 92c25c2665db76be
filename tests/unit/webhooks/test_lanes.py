"""Lanes: how many requests an endpoint may have under way, and when none."""

from mailrail.webhooks import lanes
from mailrail.webhooks.lanes import CLOSED_MAX_S, WIDTH_MAX, WIDTH_START, Lane, Lanes


def test_a_lane_grows_with_answers() -> None:
    lane = Lane()
    assert lane.room(0) == WIDTH_START
    for _ in range(100):
        lane.answered()
    assert lane.room(0) == WIDTH_MAX
    lane.under_way = WIDTH_MAX + 1
    assert lane.room(0) == 0


def test_a_lane_shrinks_and_closes_with_silence_and_opens_for_one() -> None:
    lane = Lane(width=16)
    widths = []
    for _ in range(4):
        lane.silent(100.0)
        widths.append(lane.room(100.0))
    assert widths == [8, 4, 2, 1]
    for silences in range(1, 10):
        lane.silent(100.0)
        closed_s = min(CLOSED_MAX_S, 2.0**silences)
        assert (lane.room(100.0 + closed_s - 0.01), lane.room(100.0 + closed_s)) == (0, 1)
    lane.answered()
    assert lane.room(100.0) == 2


def test_idle_lanes_are_forgotten() -> None:
    known = Lanes()
    for number in range(lanes.LANES_MAX + 5):
        known[number].answered()
    known[3].under_way = 1
    known[4].silences = 1
    assert set(known.rooms(0)) == {3, 4}
