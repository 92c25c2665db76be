"""Composition root of the workers: the roles, what each runs, and how a worker comes up and goes down."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mailrail._core import Codec, Sender
from mailrail.bus import outbox
from mailrail.bus.kafka import KafkaBus
from mailrail.bus.messages import Bus, ShardsReadyV1
from mailrail.bus.parking import Parking
from mailrail.bus.postgres import PostgresBus
from mailrail.campaigns.canary import Canaries
from mailrail.campaigns.handlers import SendLoop
from mailrail.campaigns.reputation import judge_and_pause
from mailrail.campaigns.schedule import run_scheduler
from mailrail.cancellation import cancel_all, is_cancelled
from mailrail.config import Settings
from mailrail.confirmations.handlers import Confirmer
from mailrail.db import partitions
from mailrail.db.pool import DATABASE_ERRORS, Connection, Pool, close_pool, open_pool
from mailrail.domains import handlers as domains
from mailrail.emails import store as emails
from mailrail.emails.accepted_log import AcceptedLog, open_log
from mailrail.emails.handlers import Reconciler
from mailrail.events import handlers as events
from mailrail.events import soft_bounces
from mailrail.events import store as notifications
from mailrail.events.queue import Puller
from mailrail.ids import Ids
from mailrail.imports import handlers as imports
from mailrail.ops import guard
from mailrail.ops.health import Health, serving
from mailrail.ops.ledger import LedgerWatch
from mailrail.ops.metrics import Metrics
from mailrail.ops.pipeline import PipelineWatch
from mailrail.privacy import handlers as privacy
from mailrail.reputation import service as reputation
from mailrail.ses.limiter import Limiter
from mailrail.ses.sender import follow_keys, make_sender, take_keys
from mailrail.suppressions.handlers import SesList
from mailrail.web import store as requests
from mailrail.webhooks.handlers import run_dispatcher

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 2.0
PARTITIONS_INTERVAL_S = 3600.0
# The applier judges whom trouble befalls at once; this is for whom time heals.
JUDGEMENT_INTERVAL_S = 60.0
BLOCKING_THREADS = 2
POOL_CLOSE_TIMEOUT_S = 5.0
DRAIN_TOLD_S = 5.0
# For watches, health, metrics, and what a dispatcher does side by side.
SPARE_CONNECTIONS = 6


@dataclass(frozen=True, slots=True)
class Worker:
    """What the roles share."""

    settings: Settings
    pool: Pool
    bus: Bus
    codec: Codec
    sender: Sender
    limiter: Limiter
    send_loop: SendLoop
    accepted_log: AcceptedLog | None
    metrics: Metrics


async def send(worker: Worker) -> None:
    """Role `send`: shards to SES, at the pace that SES grants to all workers together."""
    async with asyncio.TaskGroup() as tasks:
        helpers = [
            tasks.create_task(worker.bus.subscribe(ShardsReadyV1.topic, worker.send_loop.ring), name="doorbells"),
            tasks.create_task(worker.limiter.follow(), name="limiter"),
        ]
        await worker.send_loop.run()
        await cancel_all(helpers)


async def relay(worker: Worker) -> None:
    """Role `relay`: committed messages onto the bus."""
    await outbox.relay(worker.pool, worker.bus)


async def pull(worker: Worker) -> None:
    """Role `pull`: notifications out of the queue that EVENT_QUEUE names; idle without one."""
    await Puller(worker.pool, worker.settings).run()


async def apply(worker: Worker) -> None:
    """Role `apply`: notifications into events."""
    await events.run_applier(worker.pool, worker.codec, worker.settings, worker.metrics.count_lag)


async def fold(worker: Worker) -> None:
    """Role `fold`: events and results into states, settlements and completed campaigns."""
    await events.run_folder(worker.pool)


async def reconcile(worker: Worker) -> None:
    """Role `reconcile`: sends without an answer, sent again or given up; the canaries of campaigns, sent and judged; and the watch
    over the events that all of them need.
    """
    shared = (worker.pool, worker.sender, worker.limiter, worker.codec, worker.settings)
    reconciler = Reconciler(*shared)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reconciler.run())
        tasks.create_task(Canaries(*shared).run())
        tasks.create_task(PipelineWatch(worker.pool, worker.settings, reconciler.send_canary).run())


async def sweep(worker: Worker) -> None:
    """Role `sweep`: what time alone brings about, and what must be watched. Any number may run; each step is safe to repeat."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sweep_time(worker))
        tasks.create_task(LedgerWatch(worker.pool).run())
        tasks.create_task(SesList(worker.pool, worker.settings).run())
        if worker.accepted_log is not None:
            tasks.create_task(guard.watch(worker.pool, worker.accepted_log))


async def sweep_time(worker: Worker) -> None:
    """Leases that ran out, reputations that time mends, partitions that are needed or not needed any more."""
    since_partitions_s, since_judgement_s = PARTITIONS_INTERVAL_S, JUDGEMENT_INTERVAL_S
    while not is_cancelled():
        try:
            async with worker.pool.acquire() as conn:
                await emails.expire_leases(conn)
                await events.complete_finished(conn)
                await sweep_answers(conn)
                if since_judgement_s >= JUDGEMENT_INTERVAL_S:
                    await judge_and_pause(conn, await reputation.doubtful_accounts(conn), worker.settings)
                    since_judgement_s = 0.0
                if since_partitions_s >= PARTITIONS_INTERVAL_S:
                    await partitions.make_partitions(conn)
                    await partitions.drop_old_notifications(conn)
                    await notifications.drop_old_parked(conn)
                    await soft_bounces.forget_old(conn)
                    await reputation.forget_old(conn)
                    since_partitions_s = 0.0
        except DATABASE_ERRORS as error:
            log.warning("sweep: the database failed (%s)", type(error).__name__)
        await asyncio.sleep(SWEEP_INTERVAL_S)
        since_partitions_s += SWEEP_INTERVAL_S
        since_judgement_s += SWEEP_INTERVAL_S


async def sweep_answers(conn: Connection) -> None:
    """Kept answers that are older than a day, some at a time, so that no lock and no snapshot lasts."""
    while await requests.delete_old_answers(conn) == requests.SWEEP_ROWS:
        pass


async def schedule(worker: Worker) -> None:
    """Role `schedule`: campaigns whose time has come."""
    await run_scheduler(worker.pool, worker.settings)


async def merge_imports(worker: Worker) -> None:
    """Role `import`: uploads of contacts into contacts."""
    await imports.run_importer(worker.pool, worker.settings.secret_key)


async def confirm(worker: Worker) -> None:
    """Role `confirm`: asks whoever signed up for a list with double opt-in."""
    await Confirmer(worker.pool, worker.codec, worker.settings).run()


async def erase(worker: Worker) -> None:
    """Role `erase`: takes erased persons out of all mail that was ever sent to them."""
    await privacy.run_eraser(worker.pool, worker.settings.secret_key)


async def watch_domains(worker: Worker) -> None:
    """Role `domains`: whether sending domains are verified, and still are."""
    await domains.run_watcher(worker.pool, worker.settings)


async def send_webhooks(worker: Worker) -> None:
    """Role `webhooks`: what happened, to whom customers named."""
    await run_dispatcher(worker.pool, Ids(worker.codec), worker.settings, worker.metrics.count_webhooks)


ROLES: dict[str, Callable[[Worker], Coroutine[None, None, None]]] = {
    "send": send,
    "relay": relay,
    "pull": pull,
    "apply": apply,
    "fold": fold,
    "reconcile": reconcile,
    "sweep": sweep,
    "schedule": schedule,
    "import": merge_imports,
    "confirm": confirm,
    "erase": erase,
    "domains": watch_domains,
    "webhooks": send_webhooks,
}


async def serve(settings: Settings, roles: list[str], ready: Callable[[], None]) -> None:
    """Runs the roles until SIGTERM or SIGINT; the send loop then ends after the rounds under way. Raises StartError."""
    pool = await open_pool(
        settings.worker_database_url,
        application_name="mailrail worker",
        max_size=2 * settings.shards_at_once + len(roles) + SPARE_CONNECTIONS,
        hot=True,
    )
    worker = assemble(settings, pool)
    health = Health(settings, pool, worker.metrics)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(close_pool, pool, POOL_CLOSE_TIMEOUT_S)
        opened.push_async_callback(worker.bus.close)
        await opened.enter_async_context(serving(health))
        await take_keys(worker.sender, settings)
        if worker.accepted_log is not None:
            await guard.wait_until_checked(pool, worker.accepted_log)
        await run_roles(worker, roles, health, ready)


async def run_roles(worker: Worker, roles: list[str], health: Health, ready: Callable[[], None]) -> None:
    """The roles side by side, until a signal or until one of them fails, which is raised."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Blocking work here is rare and short; more threads would only hold memory.
    loop.set_default_executor(ThreadPoolExecutor(BLOCKING_THREADS, "blocking"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = {role: asyncio.create_task(ROLES[role](worker), name=role) for role in roles}
    tasks["keys"] = asyncio.create_task(follow_keys(worker.sender, worker.settings), name="keys")
    ready()
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([stopped, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
        health.draining = True
        worker.send_loop.stop()
        if "send" in tasks:
            await drain(tasks["send"])
    finally:
        await cancel_all([stopped, *tasks.values()], also=lambda: asyncio.all_tasks() - {asyncio.current_task()})
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def drain(sending: asyncio.Task[None]) -> None:
    """Until the rounds under way have ended; says so where that takes long. Raises what sending raised."""
    while not (await asyncio.wait([sending], timeout=DRAIN_TOLD_S))[0]:
        log.info("worker: waits for the rounds under way")
    await sending


def assemble(settings: Settings, pool: Pool) -> Worker:
    """What the roles share, from the settings."""
    codec = Codec(settings.secret_key.encode())
    sender = make_sender(settings)
    bus = choose_bus(settings, pool)
    accepted_log = open_log(settings.accepted_log, bus if isinstance(bus, KafkaBus) else None)
    limiter, metrics = Limiter(pool, settings), Metrics()
    send_loop = SendLoop(
        pool,
        sender,
        limiter,
        codec,
        settings,
        bus.sweep_interval_s,
        accepted_log,
        metrics.count_emails,
    )
    return Worker(settings, pool, bus, codec, sender, limiter, send_loop, accepted_log, metrics)


def choose_bus(settings: Settings, pool: Pool) -> Bus:
    """Kafka where there is one, else PostgreSQL itself."""
    if settings.kafka:
        return KafkaBus(settings.kafka, settings.kafka_prefix, Parking(pool))
    return PostgresBus(settings.worker_database_url, Parking(pool))
