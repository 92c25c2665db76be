"""Composition root of the API: settings in, a Sanic app out. Its doors are in `routes.py`."""

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.http.constants import HTTP
from sanic.response import BaseHTTPResponse

from mailrail._core import Codec
from mailrail.bus.kafka import KafkaBus
from mailrail.bus.parking import Parking
from mailrail.config import Settings
from mailrail.db.migrate import check_database
from mailrail.db.pool import close_pool, open_pool
from mailrail.emails.accepted_log import open_log
from mailrail.emails.mailroom import Mailroom
from mailrail.errors import StartError
from mailrail.events.service import Intake
from mailrail.ids import Ids
from mailrail.ops import guard
from mailrail.outgoing import public_addresses
from mailrail.rehearsals.link_checker import LinkChecker
from mailrail.routes import routes
from mailrail.ses.control import ControlError
from mailrail.ses.limiter import Limiter
from mailrail.ses.sender import follow_keys, make_sender, take_keys
from mailrail.tracking.routes import Tracking
from mailrail.web import routes as reference
from mailrail.web.admission import BODY_MAX_BYTES, AdmittedRequest, admit, is_free
from mailrail.web.auth import PUBLIC, check_declared
from mailrail.web.context import App, Context, Request
from mailrail.web.document import make_document
from mailrail.web.errors import answer_error, route_of
from mailrail.web.idempotency import keeping_answers
from mailrail.web.protocol import Protocol
from mailrail.web.route import Route

log = logging.getLogger(__name__)

POOL_MAX = 20
BACKLOG = 1024
DRAIN_TIMEOUT_S = 10.0
DRAIN_STEP_S = 0.02


def create_app(settings: Settings) -> App:
    """The app of one process; what needs a loop is opened and closed with the server."""
    codec = Codec(settings.secret_key.encode())
    app: App = Sanic(
        f"mailrail-{secrets.token_hex(4)}",
        config=server_config(settings),
        ctx=Context(settings, codec, Ids(codec)),
        request_class=AdmittedRequest,  # type: ignore[arg-type]  # Sanic declares this argument without its own type variables
        configure_logging=False,
    )
    tracking = Tracking(codec)
    table = routes(tracking)
    for route in table:
        add_route(app, route)
    app.ctx.reference = reference.Reference(make_document(table, app.ctx.ids, settings.public_url))
    check_declared(app)
    app.register_middleware(begin_request, "request")
    app.register_middleware(finish_request, "response")
    app.error_handler.add(Exception, answer_error)
    register_resources(app, tracking)
    return app


def add_route(app: App, route: Route) -> None:
    """One door; a POST that needs a key keeps its answers, unless its operation does so itself."""
    keeps = route.methods == "POST" and route.access != PUBLIC and not route.operation.is_idempotent
    app.add_route(
        keeping_answers(route.handler) if keeps else route.handler,
        route.path,
        methods=route.methods.split(),
        name=f"{route.methods} {route.path}".translate(NAME_CHARS),
        stream=route.streams,
        # Else Sanic would read the source of each handler to guess it.
        error_format="json",
        ctx_access=route.access,
        ctx_operation=route.operation,
    )


# Sanic's names of routes have no blanks, slashes or angles.
NAME_CHARS = str.maketrans(" /<>.", "_____")


def server_config(settings: Settings) -> Config:
    """Limits of the HTTP server; times in seconds, sizes in bytes."""
    config = Config(env_prefix="")
    config.update(
        REQUEST_MAX_SIZE=BODY_MAX_BYTES,
        REQUEST_TIMEOUT=10,
        RESPONSE_TIMEOUT=30,
        KEEP_ALIVE_TIMEOUT=15,
        ACCESS_LOG=False,
        MOTD=False,
        FALLBACK_ERROR_FORMAT="json",
        OAS=False,
        PROXIES_COUNT=settings.proxies or None,
    )
    return config


def register_resources(app: App, tracking: Tracking) -> None:
    """Opens the pool and what stands on it before the first request, and closes as much as was opened after the last."""
    opened = contextlib.AsyncExitStack()

    async def open_all(app: App) -> None:
        ctx = app.ctx
        # Requests set what they set for their transaction alone, and take no lock beyond it.
        ctx.pool = await open_pool(
            ctx.settings.api_database_url, application_name="mailrail api", max_size=POOL_MAX, resets=False
        )
        opened.push_async_callback(close_pool, ctx.pool, DRAIN_TIMEOUT_S)
        async with ctx.pool.acquire() as conn:
            await check_database(conn, ctx.settings.secret_key)
        await open_mailroom(ctx, opened)
        tracking.start(ctx.pool)
        opened.push_async_callback(tracking.stop)
        ctx.intake = Intake(ctx.pool, ctx.settings)
        ctx.intake.start()
        opened.push_async_callback(ctx.intake.stop)
        ctx.link_checker = LinkChecker(public_addresses(ctx.settings), f"{ctx.settings.public_url}/docs")
        opened.push_async_callback(ctx.link_checker.close)

    async def close_all(app: App) -> None:
        await opened.aclose()

    app.register_listener(open_all, "before_server_start")
    app.register_listener(close_all, "after_server_stop")


async def open_mailroom(ctx: Context, opened: contextlib.AsyncExitStack) -> None:
    """What the process needs to send transactional mail itself."""
    settings = ctx.settings
    bus = KafkaBus(settings.kafka, settings.kafka_prefix, Parking(ctx.pool)) if settings.kafka else None
    if bus is not None:
        opened.push_async_callback(bus.close)
    accepted_log = open_log(settings.accepted_log, bus)
    if accepted_log is not None:
        # Looks beyond one tenant, and may hold the installation: the workers' role does.
        pool = await open_pool(settings.worker_database_url, application_name="mailrail api start", max_size=2)
        async with pool:
            await guard.wait_until_checked(pool, accepted_log)
    sender, limiter = make_sender(settings), Limiter(ctx.pool, settings)
    ctx.mailroom = Mailroom(ctx.pool, sender, limiter, ctx.codec, settings, accepted_log, ctx.metrics.count_emails)
    opened.push_async_callback(ctx.mailroom.stop)
    try:
        await take_keys(sender, settings)
    except ControlError as error:
        # Everything else works without; mail waits for the workers, or for the keys.
        log.error("api: no keys for Amazon SES yet (%s)", error)
    for work in (follow_keys(sender, settings), limiter.follow()):
        task = asyncio.create_task(work)
        opened.callback(task.cancel)


def begin_request(request: Request) -> Coroutine[Any, Any, None] | None:
    """Gives the request its id before anything about it is logged, which making the context does, and has it admitted where
    there is anything to judge: readers of mail come by the thousands, and a coroutine less is felt.
    """
    return None if request.ctx.is_judged or is_free(request) else admit(request)


def finish_request(request: Request, response: BaseHTTPResponse) -> None:
    """Every answer carries the id under which our log has the request, and is counted."""
    response.headers["X-Request-Id"] = request.ctx.request_id
    if (allowance := request.ctx.allowance) is not None:
        response.headers["RateLimit-Limit"] = str(allowance.limit)
        response.headers["RateLimit-Remaining"] = str(allowance.remaining)
        response.headers["RateLimit-Reset"] = str(allowance.reset_s)
    # What reached no route came with whatever method a stranger made up.
    method = request.method if request.route else "any"
    request.app.ctx.metrics.count_request(method, route_of(request), response.status)


# —— the process ————————————————————————————————————————————————————————————————————————————————————————————————————————


async def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """`mailrail api`: answers until SIGTERM or SIGINT, then finishes what is under way. Calls `ready` once it listens."""
    listener = listen(settings.host, settings.port)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running(create_app(settings), listener):
        log.info("api: listening on %s port %d", settings.host, settings.port)
        # What is there by now stays: looking through it again would hold all requests up for 60 ms.
        gc.collect()
        gc.freeze()
        ready()
        await stopping.wait()


@contextlib.asynccontextmanager
async def running(app: App, listener: socket.socket) -> AsyncIterator[None]:
    """The app as a server in this loop, for the time of the block."""
    # Sanic leaves the methods of its server untyped.
    server: Any = await app.create_server(
        sock=listener, backlog=BACKLOG, protocol=Protocol, asyncio_server_kwargs={"start_serving": False}
    )
    # Tells Sanic that there is HTTP/1 and nothing else, or every answer would carry an empty Alt-Svc.
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
    await server.startup()
    try:
        await server.before_start()
        await server.start_serving()
        await server.after_start()
        yield
    finally:
        await drain(app, server)
        await server.after_stop()
        Sanic.unregister_app(app)


async def drain(app: App, server: Any) -> None:
    """No new connections, idle ones closed, requests under way finished; what takes too long is cut off."""
    app.ctx.draining = True
    await server.before_stop()
    closed = server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while server.connections:
                for connection in list(server.connections):
                    connection.close_if_idle()
                await asyncio.sleep(DRAIN_STEP_S)
    for connection in list(server.connections):
        connection.abort()
    await closed


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; several processes of one installation may share the port. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener
