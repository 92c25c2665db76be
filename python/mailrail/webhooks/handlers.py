"""The dispatcher: what is due goes out, role `webhooks`. Any number may run, each delivery is leased by one of them.

A try that was answered, and whose dispatcher died before it wrote that down, is made again: receivers know it by its id.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import TypeAlias

from mailrail.cancellation import is_cancelled
from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.ids import Ids, Kind
from mailrail.sealing import Seal, SealBroken
from mailrail.webhooks import deliveries, service
from mailrail.webhooks.deliveries import Leased, Tried
from mailrail.webhooks.destinations import destinations
from mailrail.webhooks.lanes import WIDTH_START, Lanes
from mailrail.webhooks.model import DeliveryStatus, is_overloaded, is_success, retry_pause_s
from mailrail.webhooks.payload import body_of, headers_of, signatures_of
from mailrail.webhooks.transport import Reply, Transport

log = logging.getLogger(__name__)

UNDER_WAY_MAX = 500
IDLE_S = 0.2
BUSY_S = 0.02
SETTLE_INTERVAL_S = 0.05
SWEEP_INTERVAL_S = 60.0
GONE = 410

CountDeliveries: TypeAlias = Callable[[str], None]


class Dispatcher:
    """Sends what is due, and writes down what came of it."""

    def __init__(
        self,
        pool: Pool,
        transport: Transport,
        ids: Ids,
        settings: Settings,
        count: CountDeliveries = lambda outcome: None,
    ) -> None:
        self._pool = pool
        self._transport = transport
        self._ids = ids
        self._seal = Seal(settings.secret_key, service.PURPOSE)
        self._count = count
        self._lanes = Lanes()
        self._under_way: set[asyncio.Task[None]] = set()
        self._tried: list[Tried] = []

    async def run(self) -> None:
        """Until cancelled; then writes down what is known, and leaves the rest to the ends of its leases."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._dispatch_for_ever, self._settle_for_ever, self._sweep):
                    tasks.create_task(work())
        finally:
            for task in self._under_way:
                task.cancel()
            with contextlib.suppress(*DATABASE_ERRORS):
                await self.settle()

    async def _dispatch_for_ever(self) -> None:
        while not is_cancelled():
            try:
                begun = await self.dispatch()
            except DATABASE_ERRORS as error:
                log.warning("webhooks: the database failed (%s)", type(error).__name__)
                begun = 0
            await asyncio.sleep(BUSY_S if begun else IDLE_S)

    async def dispatch(self) -> int:
        """Begins as many tries as are due and have room; returns how many."""
        free = UNDER_WAY_MAX - len(self._under_way)
        if free <= 0:
            return 0
        rooms = self._lanes.rooms(time.monotonic())
        async with self._pool.acquire() as conn:
            leased = await deliveries.take_due(conn, rooms, WIDTH_START, free)
        for one in leased:
            self._lanes[one.endpoint_id].under_way += 1
            task = asyncio.create_task(self._deliver(one))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(leased)

    async def _deliver(self, one: Leased) -> None:
        lane = self._lanes[one.endpoint_id]
        try:
            reply = await self._post(one)
        finally:
            lane.under_way -= 1
        if is_overloaded(reply.http_status):
            lane.silent(time.monotonic())
        else:
            lane.answered()
        tried = judged(one, reply, random.random())  # noqa: S311  spreads retries, guards nothing
        self._tried.append(tried)
        self._count(
            "delivered" if tried.status == DeliveryStatus.DELIVERED else "refused" if reply.http_status else "silent"
        )

    async def _post(self, one: Leased) -> Reply:
        try:
            secrets = service.open_secrets(
                self._seal,
                f"{one.account_id} {one.endpoint_id}",
                one.secret,
                one.previous_secret,
                one.previous_until,
                one.leased_at,
            )
        except SealBroken:
            log.error("webhooks: the secret of endpoint %d does not open", one.endpoint_id)
            return Reply(duration_ms=0, error="the secret of this endpoint cannot be read; rotate it")
        body = body_of(one.message, self._ids)
        headers = headers_of(self._ids.encode(Kind.WEBHOOK_MESSAGE, one.message.id), one.leased_at)
        return await self._transport.post(one.url, body, headers | signatures_of(body, headers, secrets))

    async def _settle_for_ever(self) -> None:
        while not is_cancelled():
            try:
                await self.settle()
            except DATABASE_ERRORS as error:
                log.warning("webhooks: the database failed (%s)", type(error).__name__)
            await asyncio.sleep(SETTLE_INTERVAL_S)

    async def settle(self) -> None:
        """Writes down what has come back so far; what could not be written waits for the next time."""
        tried, self._tried = self._tried, []
        if not tried:
            return
        failed = [one.endpoint_id for one in tried if one.status != DeliveryStatus.DELIVERED]
        gone = [one.endpoint_id for one in tried if one.is_gone]
        try:
            async with self._pool.acquire() as conn, conn.transaction():
                await deliveries.settle(conn, tried)
                disabled = await deliveries.disable(conn, failed, gone) if failed else []
        except BaseException:
            self._tried = tried + self._tried
            raise
        for endpoint_id in disabled:
            log.warning("webhooks: endpoint %d is switched off", endpoint_id)

    async def _sweep(self) -> None:
        while not is_cancelled():
            try:
                async with self._pool.acquire() as conn:
                    while await deliveries.delete_old(conn) == deliveries.SWEEP_ROWS:
                        pass
            except DATABASE_ERRORS as error:
                log.warning("webhooks: the database failed (%s)", type(error).__name__)
            await asyncio.sleep(SWEEP_INTERVAL_S)


def judged(one: Leased, reply: Reply, chance: float) -> Tried:
    """What a reply means for its delivery."""
    is_gone = reply.http_status == GONE
    pause_s = None
    if is_success(reply.http_status):
        status = DeliveryStatus.DELIVERED
    else:
        pause_s = None if is_gone else retry_pause_s(one.step, chance, reply.retry_after_s)
        status = DeliveryStatus.FAILED if pause_s is None else DeliveryStatus.PENDING
    return Tried(
        delivery_id=one.delivery_id,
        endpoint_id=one.endpoint_id,
        attempt=one.attempt,
        at=one.leased_at,
        duration_ms=reply.duration_ms,
        http_status=reply.http_status,
        error=reply.error,
        answer=reply.answer,
        status=status,
        pause_s=pause_s,
        is_gone=is_gone,
    )


async def run_dispatcher(pool: Pool, ids: Ids, settings: Settings, count: CountDeliveries) -> None:
    """Until cancelled."""
    async with Transport(destinations(settings)) as transport:
        await Dispatcher(pool, transport, ids, settings, count).run()
