"""The watch over the way of events: mail that SES accepted, and not one event since, means that nobody would learn of bounces.

A canary to Amazon's mailbox simulator then goes the same way. Where it comes back the way is open, and the silence was that of
the mail; until then the figures, the log and `mailrail doctor` say that the way is broken.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mailrail._core import CoreError
from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.events import store
from mailrail.ses.limiter import NoTokens

log = logging.getLogger(__name__)

INTERVAL_MAX_S = 30.0

SendCanary = Callable[[int], Awaitable[None]]


class PipelineWatch:
    """Looks when a look is due anywhere in the installation. `send_canary` takes the stream whose sender it goes out by."""

    def __init__(self, pool: Pool, settings: Settings, send_canary: SendCanary) -> None:
        self._pool = pool
        self._silence_s = settings.event_silence_s
        self._interval_s = min(INTERVAL_MAX_S, settings.event_silence_s / 4)
        self._send_canary = send_canary

    async def run(self) -> None:
        """Until cancelled."""
        while not is_cancelled():
            try:
                await self.look()
            except DATABASE_ERRORS as error:
                log.warning("events: the database failed (%s)", type(error).__name__)
            except (CoreError, NoTokens) as error:
                log.error("events: no canary could be sent (%s)", error)
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """One look, and a canary where events are missing and none is under way."""
        async with self._pool.acquire() as conn:
            silence = await store.look_for_silence(conn, self._interval_s, self._silence_s)
        if silence is None:
            return
        log.error(
            "events: none has come for mail that SES accepted since %s; `mailrail doctor --aws` says what is missing",
            silence.since.isoformat(timespec="seconds"),
        )
        if silence.wants_canary:
            await self._send_canary(silence.stream_id)
