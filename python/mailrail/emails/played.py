"""Mail of a test key is played: same tables, but outcome and events are written by the API and nothing leaves the machine."""

from collections.abc import Mapping

from mailrail.emails.desk_store import Answered
from mailrail.emails.model import EventKind, Outcome
from mailrail.emails.submission import Written

# Amazon's mailbox simulator has an address for each fate; mail of a test key plays them.
FATES = {
    "bounce": (EventKind.SEND, EventKind.BOUNCE_PERMANENT),
    "complaint": (EventKind.SEND, EventKind.DELIVERY, EventKind.COMPLAINT),
    "ooto": (EventKind.SEND, EventKind.DELIVERY),
    "suppressionlist": (EventKind.SEND, EventKind.BOUNCE_PERMANENT),
}
FATE_OTHERWISE = (EventKind.SEND, EventKind.DELIVERY)
SIMULATED_DOMAIN = "simulator.amazonses.com"


def play(written: Written) -> list[Answered]:
    """What SES would have answered."""
    return [
        Answered(seq, Outcome.SKIPPED_SUPPRESSED, None, None)
        if written.is_suppressed(address)
        else Answered(seq, Outcome.ACCEPTED, f"test-{written.stream_id:x}-{seq}", None)
        for seq, address in written.numbered
    ]


def events(written: Written, by_seq: Mapping[int, Answered]) -> list[tuple[int, EventKind]]:
    """What SES would have told of what it accepted: (number, kind)."""
    return [
        (seq, kind)
        for seq, address in written.numbered
        if by_seq[seq].outcome is Outcome.ACCEPTED
        for kind in _fate(address)
    ]


def _fate(address: str) -> tuple[EventKind, ...]:
    local, _, domain = address.lower().partition("@")
    return FATES.get(local.partition("+")[0], FATE_OTHERWISE) if domain == SIMULATED_DOMAIN else FATE_OTHERWISE
