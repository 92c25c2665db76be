"""Every message on the bus: small, versioned by name, carrying ids and no rows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from mailrail.errors import MailrailError


class UnreadableMessage(MailrailError):
    """A bus message is of a kind or version that this release does not know."""

    code = "unreadable_message"


class Message(Protocol):
    """What travels: a topic, and facts that fit a few hundred bytes."""

    topic: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready, with the version inside."""
        ...


class Bus(Protocol):
    """What carries messages. Nothing depends on their arriving: every receiver sweeps."""

    async def publish(self, topic: str, wire: Any) -> None:
        """Sends one message to whoever listens now."""
        ...

    async def subscribe(self, topic: str, handler: Callable[[Any], None]) -> None:
        """Calls `handler` with each message until cancelled, and with None after each (re)connect."""
        ...

    async def close(self) -> None:
        """Lets its connections go."""
        ...


@dataclass(frozen=True, slots=True)
class ShardsReadyV1:
    """A stream has shards to send. Whoever hears it takes the next open shard by SQL, perhaps another stream's."""

    topic: ClassVar[str] = "shards_ready"
    stream_id: int

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready, with the version inside."""
        return {"v": 1, **asdict(self)}

    @classmethod
    def from_wire(cls, wire: Any) -> "ShardsReadyV1":
        """Raises UnreadableMessage."""
        match wire:
            case {"v": 1, "stream_id": int(stream_id)}:
                return cls(stream_id)
            case _:
                raise UnreadableMessage
