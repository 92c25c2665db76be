"""The port of a worker for operators: /healthz, /readyz, /metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from mailrail.config import Settings
from mailrail.db.pool import DATABASE_ERRORS, Pool
from mailrail.errors import StartError
from mailrail.ops import store
from mailrail.ops.metrics import CONTENT_TYPE, Metrics, MetricsRefused, check_token

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Health:
    """What the three pages tell about a process."""

    settings: Settings
    pool: Pool
    metrics: Metrics
    draining: bool = False

    async def show_health(self, request: web.Request) -> web.Response:
        """The process lives."""
        return web.json_response({"status": "ok"})

    async def show_readiness(self, request: web.Request) -> web.Response:
        """200 while it works, 503 without the database and while it goes down."""
        if self.draining:
            return web.json_response({"status": "draining"}, status=503)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S), self.pool.acquire() as conn:
                await store.ping(conn)
        except DATABASE_ERRORS:
            return web.json_response({"status": "no database"}, status=503)
        return web.json_response({"status": "ready"})

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Prometheus's text."""
        try:
            check_token(self.settings, request.headers.get("Authorization"))
        except MetricsRefused as refusal:
            return web.json_response({"error": {"code": refusal.code, "message": str(refusal)}}, status=401)
        return web.Response(body=await self.metrics.text(self.pool), headers={"Content-Type": CONTENT_TYPE})


@asynccontextmanager
async def serving(health: Health) -> AsyncIterator[None]:
    """The pages on `worker_port` for the length of the block; none at port 0. Raises StartError for a port in use."""
    settings = health.settings
    if not settings.worker_port:
        yield
        return
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", health.show_health),
            web.get("/readyz", health.show_readiness),
            web.get("/metrics", health.show_metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await listen(runner, settings)
        yield
    finally:
        await runner.cleanup()


async def listen(runner: web.AppRunner, settings: Settings) -> None:
    """Raises StartError."""
    try:
        await web.TCPSite(runner, settings.host, settings.worker_port).start()
    except OSError as error:
        raise StartError(f"cannot listen on {settings.host} port {settings.worker_port}: {error.strerror}") from error
    log.info("worker: health and metrics on %s port %d", settings.host, settings.worker_port)
