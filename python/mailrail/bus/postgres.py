"""The bus without a broker: NOTIFY and LISTEN on connections of its own."""

import asyncio
import logging
from collections.abc import Sequence

import asyncpg
import orjson

from mailrail.bus.messages import BadLetter, BusDown, Handler, Letter, NotNow, Outage, Park, UnreadableMessage
from mailrail.cancellation import is_cancelled
from mailrail.db.pool import DATABASE_ERRORS

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 5.0
RECONNECT_S = 1.0
# Messages that wait for one receiver; what comes on top is left to its sweep.
WAITING_MAX = 1000


class PostgresBus:
    """Publishes by NOTIFY, hears by LISTEN; every listener hears everything.

    A lost connection is made anew; what was missed meanwhile is what the receivers' sweeps are for.
    """

    sweep_interval_s = 2.0

    def __init__(self, database_url: str, park: Park) -> None:
        self._database_url = database_url
        self._park = park
        self._publisher: asyncpg.Connection[asyncpg.Record] | None = None

    async def publish(self, letters: Sequence[Letter]) -> None:
        """Tells whoever listens now; of several shards of a stream, one is enough to wake all. Raises BusDown."""
        loudest = {(letter.topic, letter.key.partition(":")[0]): letter for letter in letters}
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                if self._publisher is None or self._publisher.is_closed():
                    self._publisher = await self._connect()
                await self._publisher.executemany(
                    "SELECT pg_notify($1, $2)",
                    [(_channel(letter.topic), letter.payload.decode()) for letter in loudest.values()],
                )
        except DATABASE_ERRORS as error:  # TimeoutError is an OSError
            # A connection that fell silent looks open for a quarter of an hour.
            await self.close()
            raise BusDown(f"NOTIFY failed ({type(error).__name__})") from error

    async def subscribe(self, topic: str, handler: Handler) -> None:
        """Calls `handler` with each message until cancelled; also once, with None, after each (re)connect."""
        outage = Outage(log, "bus: listening")
        while not is_cancelled():
            try:
                await self._listen(topic, handler, outage)
            except DATABASE_ERRORS as error:
                outage.goes_on(error)
            await asyncio.sleep(RECONNECT_S)

    async def close(self) -> None:
        """Lets the publishing connection go."""
        if self._publisher is not None:
            self._publisher.terminate()
            self._publisher = None

    async def _listen(self, topic: str, handler: Handler, outage: Outage) -> None:
        """Until the connection ends."""
        waiting: asyncio.Queue[str | None] = asyncio.Queue()
        conn = await self._connect()
        try:
            conn.add_termination_listener(lambda _: waiting.put_nowait(None))
            await conn.add_listener(_channel(topic), lambda *call: _queue(waiting, str(call[3])))
            outage.is_over()
            await handler(None)
            while (payload := await waiting.get()) is not None:
                await self._hand_over(topic, payload, handler)
            outage.goes_on("the connection ended")
        finally:
            conn.terminate()

    async def _hand_over(self, topic: str, payload: str, handler: Handler) -> None:
        try:
            await handler(orjson.loads(payload))
        except NotNow:
            pass  # nobody keeps it; the sweep comes soon
        except (orjson.JSONDecodeError, UnreadableMessage) as error:
            await self._park(BadLetter(topic, payload.encode(), f"{type(error).__name__}: {error}"))
            await handler(None)

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self._database_url, timeout=CONNECT_TIMEOUT_S)


def _queue(waiting: asyncio.Queue[str | None], payload: str) -> None:
    if waiting.qsize() < WAITING_MAX:
        waiting.put_nowait(payload)


def _channel(topic: str) -> str:
    return f"mailrail_{topic}"
