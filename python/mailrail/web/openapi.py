"""What each route says of itself, and the OpenAPI document that all of them make together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mailrail.errors import MailrailError

Handler = TypeVar("Handler", bound=Callable[..., Any])

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
    """A route beyond its path: `answers` has the TypedDict of each status's JSON (or `bytes` for anything else), `reads` the
    form that reads the body, `raises` the domain errors that it may end in, `example` the body and the answer of the seeds.
    """

    answers: Mapping[int, Any]
    reads: Callable[..., object] | None = None
    query: tuple[Query, ...] = ()
    raises: tuple[type[MailrailError], ...] = ()
    price: str = FREE
    example: tuple[Any, Any] | None = None
    # Whether the handler itself keeps answers under their Idempotency-Key; else all POSTs do by their wrapper.
    is_idempotent: bool = False
    # Bytes; None is the limit of the server.
    body_max_bytes: int | None = None


def operation(**facts: Any) -> Callable[[Handler], Handler]:
    """Puts an `Operation` of these facts on the handler; its docstring has the words."""
    said = Operation(**facts)

    def describe(handler: Handler) -> Handler:
        handler.operation = said  # type: ignore[attr-defined]  # functions take attributes, their type does not say so
        return handler

    return describe
