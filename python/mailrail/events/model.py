"""Facts of the intake, and what it can answer."""

from dataclasses import dataclass
from datetime import datetime

from mailrail.errors import MailrailError

# How long what could not be read waits for a version that can.
PARKED_KEEP_DAYS = 30


@dataclass(frozen=True, slots=True)
class Notification:
    """What came from SES, as it is stored. Two with the same `message_id` are one."""

    message_id: str
    topic_arn: str
    body: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Notifications that could not be read for the same reason; the sample is one of them, None where no body is kept."""

    reason: str
    count: int
    oldest_at: datetime
    sample: str | None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What SQS says of a queue; `dead` is None where it has no dead-letter queue."""

    waiting: int
    in_flight: int
    dead: int | None


@dataclass(frozen=True, slots=True)
class Silence:
    """Mail was accepted at `since`, of that stream, and no event has come since; `wants_canary` where none is under way."""

    since: datetime
    stream_id: int
    wants_canary: bool


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the watch and the applier know of the way of events; `dead` are messages in its dead-letter queue."""

    heard_at: datetime | None
    silent_since: datetime | None
    canary_at: datetime | None
    parked: int
    dead: int


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it: without NUL, for which JSON has no use, and without halves of characters."""
    return text.encode(errors="replace").decode().replace("\0", "")


class NotificationRefused(MailrailError):
    """This is not a notification of a topic that mailrail listens to."""

    code = "notification_refused"


class IntakeUnavailable(MailrailError):
    """The notification could not be stored now. Send it again later."""

    code = "intake_unavailable"
