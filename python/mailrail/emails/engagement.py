"""Readers told from machines, once all that was heard of a mail is known; what a single request shows is `tracking/machines.py`.

The rule is `judged`; SQL's function `engagement` computes the same for a range of mails, and a test holds the two together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailrail.emails.model import EventKind

# Filters at the door of a mailbox look before they deliver, or right after; a person needs longer to notice a mail.
SOON = timedelta(seconds=2)
# Whoever follows two links so close to each other follows them all.
NEAR = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """What was heard of an address; `at` is when it happened, as far as was told. `machine` says of an open or a click how it
    shows that no person made it.
    """

    kind: EventKind
    at: datetime
    detail: str | None
    machine: str | None = None


def judged(events: Sequence[Event]) -> list[Event]:
    """The events of one mail to one address, each open and click with what gives a machine away. Their order does not matter."""
    delivered_at = min((event.at for event in events if event.kind is EventKind.DELIVERY), default=None)
    clicks = [event for event in events if event.kind is EventKind.CLICK]
    return [
        replace(event, machine=event.machine or _betrayed(event, delivered_at, clicks))
        if event.kind in (EventKind.OPEN, EventKind.CLICK)
        else event
        for event in events
    ]


def _betrayed(event: Event, delivered_at: datetime | None, clicks: Iterable[Event]) -> str | None:
    if delivered_at is not None and event.at < delivered_at + SOON:
        return "soon"
    links = {click.detail for click in clicks if click.detail is not None and abs(click.at - event.at) <= NEAR}
    return "burst" if event.kind is EventKind.CLICK and len(links) > 1 else None
