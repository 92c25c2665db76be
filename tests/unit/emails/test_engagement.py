"""What gives a machine away beside the other events of its mail."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from mailrail.emails.engagement import NEAR, SOON, Event, judged
from mailrail.emails.model import EventKind

DELIVERED = datetime(2026, 11, 30, 12, tzinfo=UTC)
LATER = DELIVERED + timedelta(minutes=5)


def event(kind: EventKind, at: datetime, detail: str | None = None, machine: str | None = None) -> Event:
    return Event(kind, at, detail, machine)


def machines(*events: Event) -> list[str | None]:
    return [one.machine for one in judged(events)]


@pytest.mark.parametrize("kind", [EventKind.OPEN, EventKind.CLICK])
@pytest.mark.parametrize(
    ("after", "machine"),
    [
        (timedelta(seconds=-30), "soon"),
        (timedelta(0), "soon"),
        (SOON - timedelta(milliseconds=1), "soon"),
        (SOON, None),
        (timedelta(days=3), None),
    ],
)
def test_nobody_reads_a_mail_before_it_is_there(kind: EventKind, after: timedelta, machine: str | None) -> None:
    delivery = event(EventKind.DELIVERY, DELIVERED)
    assert machines(delivery, event(kind, DELIVERED + after, "1")) == [None, machine]


def test_without_a_delivery_nothing_is_too_soon() -> None:
    assert machines(event(EventKind.SEND, DELIVERED), event(EventKind.OPEN, DELIVERED)) == [None, None]


@pytest.mark.parametrize(
    ("links", "gap", "machine"),
    [
        ("12", NEAR, "burst"),
        ("12", NEAR + timedelta(milliseconds=1), None),
        ("11", timedelta(0), None),
        ("123", timedelta(milliseconds=300), "burst"),
    ],
)
def test_who_follows_two_links_at_once_follows_them_all(links: str, gap: timedelta, machine: str | None) -> None:
    clicks = [event(EventKind.CLICK, LATER + n * gap, link) for n, link in enumerate(links)]
    assert machines(*clicks) == [machine] * len(links)


def test_a_burst_leaves_the_reader_alone_who_comes_later() -> None:
    burst = [event(EventKind.CLICK, LATER, link) for link in "123"]
    reader = event(EventKind.CLICK, LATER + timedelta(minutes=1), "2")
    opened = event(EventKind.OPEN, LATER)
    assert machines(*burst, reader, opened) == ["burst", "burst", "burst", None, None]


def test_what_a_request_showed_by_itself_stands() -> None:
    assert machines(event(EventKind.OPEN, LATER, None, "privacy")) == ["privacy"]
    delivery = event(EventKind.DELIVERY, DELIVERED)
    assert machines(delivery, event(EventKind.OPEN, DELIVERED, None, "scanner")) == [None, "scanner"]


def test_order_and_doubles_do_not_matter() -> None:
    events = (
        event(EventKind.DELIVERY, DELIVERED),
        event(EventKind.CLICK, DELIVERED, "1"),
        event(EventKind.CLICK, LATER, "1"),
        event(EventKind.CLICK, LATER + NEAR / 2, "2"),
        event(EventKind.OPEN, LATER),
    )
    expected = set(judged(events))
    for order in permutations(events):
        assert set(judged(order)) == expected
        assert set(judged((*order, order[0]))) == expected
