"""The verbs of tracking."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Sequence

import asyncpg

from mailrail.db.pool import Connection, Pool
from mailrail.emails.model import is_transactional
from mailrail.tracking import store
from mailrail.tracking.model import (
    LINK_MAX,
    Engagement,
    LinkNotFound,
    safe_location,
    unsubscribed,
)

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 0.2
BATCH_MAX = 500
# Beyond this the database has been away for long: a lost open is better than a full memory.
WAITING_MAX = 100_000
LINKS_CACHED_MAX = 10_000


class Recorder:
    """Gathers opens and clicks and writes them together: a mail to a million is opened by thousands a second."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[Engagement] = []
        self._full = asyncio.Event()
        self._stopping = False
        self._task = asyncio.create_task(self._run())
        self.dropped = 0

    def add(self, engagement: Engagement) -> None:
        """Takes one in; it is written within FLUSH_INTERVAL_S."""
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        self._waiting.append(engagement)
        if len(self._waiting) >= BATCH_MAX:
            self._full.set()

    async def stop(self) -> None:
        """Writes what waits, then ends."""
        self._stopping = True
        self._full.set()
        await self._task

    async def _run(self) -> None:
        last = False
        while not last:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), FLUSH_INTERVAL_S)
            self._full.clear()
            # Read before the flush, so that what came in before the stop is in it.
            last = self._stopping
            await self._flush()
        if self._waiting:
            log.error("tracking: %d opens and clicks are lost, the database is away", len(self._waiting))

    async def _flush(self) -> None:
        """In batches, oldest first; what could not be written for want of a database waits for the next time."""
        while self._waiting:
            batch = self._waiting[:BATCH_MAX]
            try:
                await self._write(batch)
            except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
                log.warning("tracking: %d opens and clicks wait (%s)", len(self._waiting), type(error).__name__)
                return
            del self._waiting[: len(batch)]

    async def _write(self, batch: Sequence[Engagement]) -> None:
        """All in one statement. If it fails for one stream, whose partition may be going, the others are written alone."""
        try:
            async with self._pool.acquire() as conn:
                await store.record(conn, batch)
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as error:
            streams = sorted({item.stream_id for item in batch})
            if len(streams) == 1:
                log.warning("tracking: %d opens and clicks dropped (%s)", len(batch), type(error).__name__)
                self.dropped += len(batch)
                return
            for stream_id in streams:
                await self._write([item for item in batch if item.stream_id == stream_id])


class Links:
    """Targets of links; those clicked lately are remembered, for a target never changes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: OrderedDict[tuple[int, int, int], str] = OrderedDict()

    async def target(self, stream_id: int, seq: int, link: int) -> str:
        """The stored address, fit for a header. Raises LinkNotFound."""
        # A campaign's links are the same in all its mails.
        key = (stream_id, seq if is_transactional(stream_id) else 0, link)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        location = await self._read(*key) if 0 < link <= LINK_MAX else None
        if location is None:
            raise LinkNotFound
        self._known[key] = location
        if len(self._known) > LINKS_CACHED_MAX:
            self._known.popitem(last=False)
        return location

    async def _read(self, stream_id: int, seq: int, link: int) -> str | None:
        async with self._pool.acquire() as conn:
            if is_transactional(stream_id):
                url = await store.read_mail_link(conn, stream_id, seq, link)
            else:
                url = await store.read_link(conn, stream_id, link)
        return None if url is None else safe_location(url)


async def record_unsubscribed(conn: Connection, stream_id: int, seq: int) -> None:
    """Counts a mail by which its reader unsubscribed, once, in the caller's transaction."""
    await store.record(conn, [unsubscribed(stream_id, seq)])
