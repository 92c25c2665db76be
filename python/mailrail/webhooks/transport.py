"""The one way by which a webhook leaves: a POST to an address that was looked at, by the guard of `outgoing.py`. No redirect is
followed, and of the answer only a beginning is read.
"""

import contextlib
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp
from aiohttp.abc import AbstractResolver

from mailrail import outgoing
from mailrail.webhooks.destinations import Destinations
from mailrail.webhooks.model import ANSWER_MAX_BYTES, TIMEOUT_S

CONNECTIONS_MAX = 1000
# Node.js closes idle connections after 5 s; ours end before, so that no request meets the end.
IDLE_S = 4.0
REFUSED = "the host's address is not one that webhooks may reach"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a POST: a status and the beginning of the answer, or why there was none."""

    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    answer: str | None = None
    retry_after_s: float | None = None


class Transport:
    """Sends webhooks for a process; one for all endpoints, whose connections it keeps for a while."""

    def __init__(self, destinations: Destinations, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or outgoing.GuardedResolver(destinations)
        self._http = outgoing.open_session(
            destinations, self._resolver, timeout_s=TIMEOUT_S, limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S
        )

    async def __aenter__(self) -> "Transport":
        """Open since it was made."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cuts off what is under way."""
        await self._http.close()
        await self._resolver.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Never raises for what an endpoint does or is."""
        begun_s = time.monotonic()
        try:
            async with self._http.post(
                url, data=body, headers={**headers, "Accept-Encoding": "identity"}, allow_redirects=False
            ) as response:
                return Reply(
                    duration_ms=_since_ms(begun_s),
                    http_status=response.status,
                    answer=await _beginning(response),
                    retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
                )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Reply(duration_ms=_since_ms(begun_s), error=outgoing.words_of(error, TIMEOUT_S, REFUSED))


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """The first bytes of the answer as text that PostgreSQL takes."""
    read = b""
    # The status is the receipt, whatever becomes of the rest; leaving the block cuts a connection that has more to say.
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        while len(read) < ANSWER_MAX_BYTES and (more := await response.content.read(ANSWER_MAX_BYTES - len(read))):
            read += more
    return read.decode(errors="replace").replace("\0", "�")


def _retry_after_s(text: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, section 10.2.3); None for anything else."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _since_ms(begun_s: float) -> int:
    return int((time.monotonic() - begun_s) * 1000)
