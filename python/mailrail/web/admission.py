"""What is judged before a byte of the body is read, so that no stranger makes us buffer: who asks, and what is to come."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sanic.exceptions import PayloadTooLarge, RequestTimeout

from mailrail.errors import MailrailError
from mailrail.web.auth import PUBLIC, authenticate
from mailrail.web.context import Request
from mailrail.web.openapi import Operation

BODY_MAX_BYTES = 1024 * 1024
# How long a body may take, and what is added for its size: nobody holds a place by sending a byte now and then.
BODY_TIMEOUT_S = 15.0
BODY_BYTES_PER_SECOND_MIN = 128 * 1024


class MediaTypeRefused(MailrailError):
    """The body is of a type that this route does not read."""

    code = "media_type_refused"


class ContentEncodingRefused(MailrailError):
    """The body is compressed, and this server takes bodies only as they are."""

    code = "content_encoding_refused"


class AdmittedRequest(Request):
    """A request whose body is read once its head was admitted."""

    async def receive_body(self) -> None:
        """Sanic calls this before request middleware, for all handlers that do not stream."""
        await admit(self)
        timeout_s = BODY_TIMEOUT_S + stream_of(self).request_max_size / BODY_BYTES_PER_SECOND_MIN
        try:
            async with asyncio.timeout(timeout_s):
                await super().receive_body()  # type: ignore[no-untyped-call]  # Sanic's own is untyped
        except TimeoutError as error:
            abandon_body(self)
            raise RequestTimeout from error


def stream_of(request: Request) -> Any:
    """What Sanic reads the request from; it declares only the base class, which lacks most of this."""
    return request.stream


def is_free(request: Request) -> bool:
    """Whether nothing about the request is to be judged: it reached no route, or a public one without a body."""
    route = request.route
    return route is None or (route.ctx.access == PUBLIC and not stream_of(request).request_body)


async def admit(request: Request) -> None:
    """Request middleware, for requests without body and handlers that stream theirs. Judges once; what reached no route goes
    on to its 404.
    """
    if request.ctx.is_judged or request.route is None:
        return
    request.ctx.is_judged = True
    try:
        await authenticate(request)
        if stream_of(request).request_body:
            check_body_head(request)
    except Exception:
        # Who asked before sending gets the refusal instead of "100 Continue", and its body never comes.
        if stream_of(request).expecting_continue:
            abandon_body(request)
        raise


def check_body_head(request: Request) -> None:
    """Size, coding and type as the head announces them. Raises PayloadTooLarge, ContentEncodingRefused, MediaTypeRefused."""
    route, stream = request.route, stream_of(request)
    assert route is not None
    operation: Operation | None = route.ctx.operation
    max_bytes = operation.body_max_bytes if operation is not None else None
    streams = hasattr(route.handler, "is_stream")
    # Sanic counts against this while it reads. A handler that streams holds nothing, and counts itself unless it says how much.
    if not streams or max_bytes is not None:
        stream.request_max_size = BODY_MAX_BYTES if max_bytes is None else max_bytes
    if stream.request_bytes_left > stream.request_max_size:
        stream.keep_alive = False
        raise PayloadTooLarge
    if route.ctx.access == PUBLIC:
        return
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ContentEncodingRefused(f"Send the body as it is: the content encoding {encoding[:40]!r} is not accepted.")
    is_announced = stream.request_body == "chunked" or stream.request_bytes_left > 0
    if is_announced and not streams:
        check_media_type(request.headers.get("content-type", ""), () if operation is None else operation.also_reads)


def check_media_type(content_type: str, others: Sequence[str]) -> None:
    """Raises MediaTypeRefused for what is neither JSON (RFC 6839, 3.1: `+json` is) nor one of the others."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in others and media_type != "application/json" and not media_type.endswith("+json"):
        was = f"it came as {content_type[:80]!r}" if content_type else "it came without one"
        raise MediaTypeRefused(f"Send the body as JSON with `Content-Type: application/json`; {was}.")


def abandon_body(request: Request) -> None:
    """The connection ends after the answer, and what is left of the body is not waited for."""
    stream = stream_of(request)
    stream.expecting_continue = False
    stream.keep_alive = False
    stream.request_body = None
