"""Customers' ends of webhooks: receivers on loopback that do as they are told, and a dispatcher that sends to them."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from mailrail._core import Codec
from mailrail.config import Settings
from mailrail.db.pool import Pool
from mailrail.ids import Ids
from mailrail.webhooks.destinations import destinations
from mailrail.webhooks.handlers import Dispatcher
from mailrail.webhooks.transport import Transport
from tests.support.api import Tenant

WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def type(self) -> str:
        """Of the event."""
        return str(orjson.loads(self.body)["type"])

    @property
    def data(self) -> dict[str, Any]:
        """Of the event."""
        data: dict[str, Any] = orjson.loads(self.body)["data"]
        return data


@dataclass
class Receiver:
    """Answers every POST by `answer`, and remembers what came."""

    port: int = 0
    answer: Callable[[Received], web.Response] = field(default=lambda got: web.Response(text="OK"))
    delay_s: float = 0.0
    received: list[Received] = field(default_factory=list)

    def url(self, path: str = "/hook") -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}{path}"

    def statuses(self, *statuses: int) -> None:
        """Answers with these one after the other; the last one stays."""
        left = list(statuses)
        self.answer = lambda got: web.Response(status=left.pop(0) if len(left) > 1 else left[0], text="as told")

    async def take(self, request: web.Request) -> web.Response:
        """One request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        got = Received(request.path_qs, headers, await request.read(), time.monotonic())
        self.received.append(got)
        await asyncio.sleep(self.delay_s)
        return self.answer(got)

    async def wait_for(self, count: int) -> Sequence[Received]:
        """Returns once so many have come."""
        await until(lambda: len(self.received) >= count, f"{count} webhooks (got {len(self.received)})")
        return self.received


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver, listening."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def dispatching(pool: Pool, settings: Settings) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work."""
    ids = Ids(Codec(settings.secret_key.encode()))
    async with Transport(destinations(settings)) as transport:
        dispatcher = Dispatcher(pool, transport, ids, settings)
        task = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Polls until it holds, or fails with what was waited for."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, f"{what} did not come about"
        await asyncio.sleep(0.02)


async def add_endpoint(tenant: Tenant, url: str, events: Sequence[str] = ("*",)) -> dict[str, Any]:
    """An endpoint of the tenant, with its secret."""
    made = await tenant.post("/api/v1/webhooks", {"url": url, "events": list(events)})
    assert made.status == 201, made.body
    body: dict[str, Any] = made.body
    return body


async def delivery_when(tenant: Tenant, delivery_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The delivery as the API shows it, once that holds."""
    begun = time.monotonic()
    while True:
        found: dict[str, Any] = (await tenant.get(f"/api/v1/webhooks/deliveries/{delivery_id}")).body
        if holds(found):
            return found
        assert time.monotonic() - begun < WAIT_S, found
        await asyncio.sleep(0.05)


def is_signed(got: Received, secret: str) -> bool:
    """The seeds' check, without JavaScript."""
    return got.headers["x-webhook-signature"] == hmac.new(secret.encode(), got.body, hashlib.sha256).hexdigest()
