"""Every message on the bus: small, versioned by name, carrying ids and no rows."""

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from mailrail.errors import MailrailError

OUTAGE_REPEAT_S = 60.0


class UnreadableMessage(MailrailError):
    """A bus message is of a kind or version that this release does not know."""

    code = "unreadable_message"


class BusDown(MailrailError):
    """The bus did not take the messages. Some may have gone out nevertheless."""

    code = "bus_down"


class NotNow(MailrailError):
    """Nobody here could act on a bus message; it shall come again."""

    code = "not_now"


class Message(Protocol):
    """What travels: a topic, and facts that fit a few hundred bytes."""

    topic: ClassVar[str]

    @property
    def key(self) -> str:
        """`group:member`. Different keys spread over the receivers; a bus may ring once for all messages of a group."""
        ...

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready, with the version inside."""
        ...


@dataclass(frozen=True, slots=True)
class ShardsReadyV1:
    """A shard of a stream is to be sent. Whoever hears it takes the next open shard by SQL, perhaps another one."""

    topic: ClassVar[str] = "shards_ready"
    stream_id: int
    shard: int

    @property
    def key(self) -> str:
        """`stream:shard`, as `campaigns/store.py` writes it too."""
        return f"{self.stream_id}:{self.shard}"

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready, with the version inside."""
        return {"v": 1, **asdict(self)}

    @classmethod
    def from_wire(cls, wire: Any) -> "ShardsReadyV1":
        """Raises UnreadableMessage."""
        match wire:
            case {"v": 1, "stream_id": int(stream_id), "shard": int(shard)}:
                return cls(stream_id, shard)
            case _:
                raise UnreadableMessage


# Every topic there is; the outbox leaves rows of others to the newer release that wrote them.
TOPICS = (ShardsReadyV1.topic,)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way: `payload` is its wire form as JSON."""

    topic: str
    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class BadLetter:
    """Something that came in and cannot be read. Where a broker has it; `partition` and `offset` are None without one."""

    topic: str
    payload: bytes
    reason: str
    partition: int | None = None
    offset: int | None = None


# Gets a message's wire form, or None: something may have been missed, look for work. When it returns, the message has had
# its effect and does not come again. Raises UnreadableMessage, which parks the message, or NotNow, which repeats it.
Handler: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]
# Keeps a bad letter; raises DATABASE_ERRORS.
Park: TypeAlias = Callable[[BadLetter], Coroutine[Any, Any, None]]


class Bus(Protocol):
    """What carries messages. Nothing depends on their arriving: every receiver sweeps."""

    # How often receivers look for work without being told; what the loss of all messages costs at most.
    sweep_interval_s: float

    async def publish(self, letters: Sequence[Letter]) -> None:
        """Returns when the bus has them all for certain; raises BusDown."""
        ...

    async def subscribe(self, topic: str, handler: Handler) -> None:
        """Calls `handler`, one message at a time, until cancelled, and with None after each (re)connect."""
        ...

    async def close(self) -> None:
        """Lets its connections go."""
        ...


class Outage:
    """Tells the log that something is away: at first, then once a minute, and when it is over."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._began: float | None = None
        self._told = 0.0

    def goes_on(self, error: BaseException | str) -> None:
        """It failed (again)."""
        now = time.monotonic()
        if self._began is None or now - self._told >= OUTAGE_REPEAT_S:
            self._told = now
            self._log.warning("%s: trying again (%s)", self._what, describe(error))
        self._began = self._began or now

    def is_over(self) -> None:
        """It works."""
        if self._began is not None:
            self._log.info("%s: works again after %.0f s", self._what, time.monotonic() - self._began)
            self._began = None


def describe(error: BaseException | str) -> str:
    """An error in a log line: its type, and its first words where it has some."""
    if isinstance(error, str):
        return error
    words = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
