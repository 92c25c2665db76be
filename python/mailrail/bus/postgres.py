"""The bus without a broker: NOTIFY and LISTEN on connections of its own."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
import orjson

from mailrail.db.pool import DATABASE_ERRORS
from mailrail.errors import MailrailError

log = logging.getLogger(__name__)

RECONNECT_S = 1.0

Handler = Callable[[Any], None]


class PostgresBus:
    """Publishes by NOTIFY, hears by LISTEN. A lost connection is made anew; what was missed meanwhile is what the
    receivers' sweeps are for.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._publisher: asyncpg.Connection | None = None

    async def publish(self, topic: str, wire: Any) -> None:
        """Sends one message to whoever listens now. Raises OSError or asyncpg errors."""
        if self._publisher is None or self._publisher.is_closed():
            self._publisher = await asyncpg.connect(self._database_url)
        await self._publisher.execute("SELECT pg_notify($1, $2)", _channel(topic), orjson.dumps(wire).decode())

    async def subscribe(self, topic: str, handler: Handler) -> None:
        """Calls `handler` with each message until cancelled; also once, with None, after each (re)connect."""
        while True:
            try:
                conn = await asyncpg.connect(self._database_url)
            except (OSError, asyncpg.PostgresError) as error:
                log.warning("bus: cannot listen (%s), trying again", type(error).__name__)
                await asyncio.sleep(RECONNECT_S)
                continue
            closed = asyncio.Event()
            conn.add_termination_listener(lambda *_, closed=closed: closed.set())
            try:
                await conn.add_listener(_channel(topic), lambda *call: _deliver(handler, call[3]))
                handler(None)
                await closed.wait()
            except DATABASE_ERRORS as error:
                log.warning("bus: listening broke (%s)", type(error).__name__)
            finally:
                conn.terminate()

    async def close(self) -> None:
        """Lets the publishing connection go."""
        if self._publisher is not None:
            await self._publisher.close()


def _channel(topic: str) -> str:
    return f"mailrail_{topic}"


def _deliver(handler: Handler, payload: str) -> None:
    try:
        handler(orjson.loads(payload))
    except (ValueError, MailrailError) as error:  # a bad message must not end the listener
        log.warning("bus: message dropped (%s)", type(error).__name__)
