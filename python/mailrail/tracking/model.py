"""Facts of tracking."""

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from mailrail.emails.model import EventKind
from mailrail.errors import MailrailError

# A link's number is PostgreSQL's integer.
LINK_MAX = 2**31 - 1
# Everything that RFC 3986 gives a meaning in an address, the percent sign of what is escaped already included.
URL_CHARS = "!#$%&'()*+,/:;=?@[]~"


# A tuple, since thousands are made a second.
class Engagement(NamedTuple):
    """What a reader did with a mail, or a machine in its place. Two of a kind with the same `dedupe` are one. `at_s` counts
    seconds since 1970; None is now.
    """

    stream_id: int
    seq: int
    kind: EventKind
    dedupe: int
    detail: str | None
    machine: str | None = None
    at_s: float | None = None


class LinkNotFound(MailrailError):
    """This link leads nowhere."""

    code = "link_not_found"


def opened(stream_id: int, seq: int, at_s: float, machine: str | None = None) -> Engagement:
    """An open. Several within a second are one: a client fetches the picture as often as it likes."""
    dedupe = int(at_s)
    return Engagement(stream_id, seq, EventKind.OPEN, dedupe if machine is None else ~dedupe, None, machine, at_s)


def clicked(stream_id: int, seq: int, link: int, at_s: float, machine: str | None = None) -> Engagement:
    """A click on link `link`. Several on the same link within a second are one; a machine's never stands for a person's."""
    dedupe = int(at_s) << 31 | link
    return Engagement(stream_id, seq, EventKind.CLICK, dedupe if machine is None else ~dedupe, str(link), machine, at_s)


def unsubscribed(stream_id: int, seq: int) -> Engagement:
    """An unsubscription; a mail has one at the most."""
    return Engagement(stream_id, seq, EventKind.UNSUBSCRIBE, 0, None)


def safe_location(url: str) -> str | None:
    """A stored address as a header may carry it, or None if it is not one to send a reader to.

    It was written by a customer: controls, blanks and everything outside ASCII are escaped, so no line can be broken.
    """
    location = quote(url.strip(), safe=URL_CHARS)
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    return location if parts.scheme in ("http", "https") and parts.netloc else None
