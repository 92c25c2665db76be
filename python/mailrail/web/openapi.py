"""What each route says of itself; `web/document.py` makes the OpenAPI document of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from mailrail.errors import MailrailError

Handler = TypeVar("Handler", bound=Callable[..., Any])

# What an answer holds: a TypedDict for JSON, a media type for anything else, several of them where the request chooses, or nothing.
Answer: TypeAlias = type | str | tuple[type | str, ...] | None

JSON = "application/json"
CSV = "text/csv"
HTML = "text/html"
TEXT = "text/plain"
GIF = "image/gif"
FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"

FREE = "Free"
PER_RECIPIENT = "$0.0003/recipient"


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query; `schema` is JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


# Compared by identity, because Sanic wants to hash what stands on a route.
@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A route beyond its path: `answers` has what comes with each status, `reads` the form that reads the body, `raises` the
    domain errors that it may end in, `example` a body and the answer to it.
    """

    answers: Mapping[int, Answer]
    reads: Callable[..., object] | None = None
    query: tuple[Query, ...] = ()
    raises: tuple[type[MailrailError], ...] = ()
    # Whether it is a change: what `reads` requires may then be left out.
    is_partial: bool = False
    price: str = FREE
    example: tuple[Any, Any] | None = None
    # Whether the handler itself keeps answers under their Idempotency-Key; else all POSTs do by their wrapper.
    is_idempotent: bool = False
    # Media types of bodies beside JSON.
    also_reads: tuple[str, ...] = ()
    # Bytes; None is the limit of the server.
    body_max_bytes: int | None = None


def operation(**facts: Any) -> Callable[[Handler], Handler]:
    """Puts an `Operation` of these facts on the handler; its docstring has the words."""
    said = Operation(**facts)

    def describe(handler: Handler) -> Handler:
        handler.operation = said  # type: ignore[attr-defined]  # functions take attributes, their type does not say so
        return handler

    return describe
