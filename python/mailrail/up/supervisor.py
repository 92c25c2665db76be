"""`mailrail up`: start the production commands in order, keep them running, stop them in order.

It does nothing itself: PostgreSQL, simulator, api and worker are children with a parent-death signal, so a SIGKILL of this process
takes them all along.
"""

import asyncio
import contextlib
import dataclasses
import re
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from mailrail import config
from mailrail.config import Settings
from mailrail.errors import StartError
from mailrail.up import demo, installation, postgres
from mailrail.up.child import Child
from mailrail.up.options import UpOptions
from mailrail.up.progress import say

TICK_S = 0.05
READY_TIMEOUT_S = 60.0
MIGRATE_TIMEOUT_S = 3600.0
STOP_TIMEOUT_S = 10.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
# A child that stayed this long has recovered: its next end is a new story.
STEADY_S = 60.0


def up(options: UpOptions, environment: Mapping[str, str]) -> int:
    """The whole command; returns the exit status. Raises MailrailError with one sentence when the start fails."""
    options = dataclasses.replace(options, data=options.data.resolve())
    with signals_as_interrupt(), installation.locked(options.data):
        variables = installation.complete_environment(options, environment)
        settings = config.load(variables)
        config.require_sending(settings)
        installation.check_port(settings)
        simulated = installation.is_simulated(options, environment)
        if not simulated:
            asyncio.run(installation.check_ses(settings))
        with database_server(settings, options) as (url, server):
            variables |= {"MAILRAIL_DATABASE_URL": url}
            children = Children(config.load(variables), variables, options.data, server, simulated)
            return asyncio.run(run(children, options))


@contextlib.contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Until the event loop takes over, SIGTERM and a closed terminal end the start as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def database_server(settings: Settings, options: UpOptions) -> Iterator[tuple[str, Child | None]]:
    """The embedded server around a block, unless there is an outside one; its URL for `migrate`. It is the last to go."""
    if settings.database_url:
        yield settings.database_url, None
        return
    say("starting PostgreSQL")
    cluster, child = postgres.start(postgres.prepare(options.data))
    try:
        asyncio.run(postgres.ensure_database(cluster, installation.DATABASE))
        yield cluster.url(installation.DATABASE), child
    finally:
        if not postgres.stop(child):
            say("PostgreSQL did not stop in time and was killed; the next start recovers")


async def run(children: "Children", options: UpOptions) -> int:
    """Start, show the demo, wait for the end, stop."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        return await first_status(
            start_and_show(children, options), children.watch(), stopped(stopping, status=1 if options.exit else 0)
        )
    finally:
        stopping.clear()
        await children.stop(stopping)


async def start_and_show(children: "Children", options: UpOptions) -> int:
    """The start and the demo. It returns when there is nothing to stay for, and else waits for ever."""
    await children.start()
    shown = await demo.show(children.settings, children.address, options) if options.demo else None
    if shown is None:
        say(f"mailrail runs at {children.address}; its logs are in {children.logs}")
    elif shown.timed_out or options.exit:
        return shown.status
    if options.exit:
        return 0
    say("Press Ctrl-C to stop.")
    await asyncio.Event().wait()
    return 0


async def stopped(stopping: asyncio.Event, status: int) -> int:
    """The status for an end that was asked for: an interrupted `--exit` run has not done its work."""
    await stopping.wait()
    return status


async def first_status(*works: Coroutine[Any, Any, int]) -> int:
    """Run them side by side; the first to end decides the exit status or raises."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Children:
    """The production commands as children, and what to do when one ends."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], home: Path, server: Child | None, simulated: bool
    ) -> None:
        self.settings = settings
        self.logs = home / "logs"
        unprivileged = installation.without_superuser(environment, settings)
        self.migrate = self.command("migrate", environment)
        self.simulator = (
            self.command("simulator", unprivileged, *simulator_arguments(settings, home)) if simulated else None
        )
        self.api = self.command("api", unprivileged)
        self.worker = self.command("worker", unprivileged)
        # The end of one of these ends everything; the others come back.
        self.essential = [server] if server else []
        self.restarts: dict[str, Restart] = {}

    @property
    def address(self) -> str:
        """Where this machine reaches the API."""
        return f"http://{installation.reachable(self.settings.host)}:{self.settings.port}"

    def command(self, name: str, environment: Mapping[str, str], *arguments: str) -> Child:
        """The child that runs `mailrail NAME`."""
        return Child(name, [sys.executable, "-m", "mailrail", name, *arguments], environment, self.logs / f"{name}.log")

    async def start(self) -> None:
        """Migrate, then simulator, api and worker, each once the one before is ready."""
        await self.run_migrate()
        if self.simulator:
            await self.start_until(self.simulator, said_ready)
            self.essential.append(self.simulator)
        async with aiohttp.ClientSession() as session:
            await self.start_until(self.api, answers(session, f"{self.address}/readyz"))
        await self.start_until(self.worker, said_ready)
        self.restarts = {child.name: Restart() for child in (self.api, self.worker)}

    async def run_migrate(self) -> None:
        """`mailrail migrate` to its end."""
        say("preparing the database")
        self.migrate.start()
        deadline = time.monotonic() + MIGRATE_TIMEOUT_S
        while self.migrate.running():
            if time.monotonic() > deadline:
                raise StartError(
                    f"mailrail migrate took more than {MIGRATE_TIMEOUT_S:g} s; see {self.migrate.log_file}"
                )
            await asyncio.sleep(TICK_S)
        if self.migrate.status() != 0:
            raise died(self.migrate)

    async def start_until(self, child: Child, ready: "Readiness") -> None:
        """Start a child and wait until it is ready; an end before that is an end of the start."""
        say(f"starting the {child.name}")
        child.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not await ready(child):
            if not child.running():
                raise died(child)
            if time.monotonic() > deadline:
                raise StartError(f"the {child.name} was not ready after {READY_TIMEOUT_S:g} s; see {child.log_file}")
            await asyncio.sleep(TICK_S)

    async def watch(self) -> int:
        """Until something that cannot be restarted ends; api and worker come back after a pause that doubles."""
        while True:
            await asyncio.sleep(TICK_S)
            for child in self.essential:
                if not child.running():
                    raise died(child)
            for child in (self.api, self.worker):
                if child.name in self.restarts and not child.running():
                    self.revive(child, self.restarts[child.name], time.monotonic())

    def revive(self, child: Child, restart: "Restart", now: float) -> None:
        """Start an ended child again once its pause is over."""
        if restart.due_at is None:
            pause_s = restart.begin_pause(now)
            say(f"the {child.name} ended ({ending(child)}) and starts again in {pause_s:g} s; see {child.log_file}")
        elif now >= restart.due_at:
            restart.end_pause(now)
            child.start()

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM to worker, api and simulator in that order, each given time to finish; `hurry` cuts that short."""
        say("stopping")
        self.restarts = {}
        for child in (self.migrate, self.worker, self.api, self.simulator):
            if child is not None and child.running():
                await stop_child(child, hurry)


Readiness = Callable[[Child], Coroutine[Any, Any, bool]]


async def said_ready(child: Child) -> bool:
    """It printed its line `ready`."""
    return child.ready_port() is not None


def answers(session: aiohttp.ClientSession, url: str) -> Readiness:
    """It answers 200 at the URL."""

    async def check(child: Child) -> bool:
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                # A server of somebody else on our port must not count for a child that is gone.
                return response.status == 200 and child.running()
        except (aiohttp.ClientError, TimeoutError):
            return False

    return check


async def stop_child(child: Child, hurry: asyncio.Event) -> None:
    """Ask, wait, and only then kill."""
    child.send(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while child.running() and time.monotonic() < deadline and not hurry.is_set():
        await asyncio.sleep(0.01)
    if child.running():
        say(f"the {child.name} did not stop in time and is killed")
        child.send(signal.SIGKILL)
        child.wait(5)


@dataclasses.dataclass(slots=True)
class Restart:
    """The pauses of one child between its end and its next start."""

    started_at: float = dataclasses.field(default_factory=time.monotonic)
    due_at: float | None = None
    pause_s: float = 0.0

    def begin_pause(self, now: float) -> float:
        """Seconds until the next start: half a second, doubling up to half a minute, and anew after a steady minute."""
        anew = not self.pause_s or now - self.started_at >= STEADY_S
        self.pause_s = BACKOFF_FIRST_S if anew else min(self.pause_s * 2, BACKOFF_MAX_S)
        self.due_at = now + self.pause_s
        return self.pause_s

    def end_pause(self, now: float) -> None:
        """It starts now."""
        self.due_at, self.started_at = None, now


def died(child: Child) -> StartError:
    """A child that must not end has ended: its own last words tell most."""
    sentence = re.search(r"^mailrail: (.+)$", child.output(), re.MULTILINE)
    if sentence:
        return StartError(f"the {child.name} did not start: {sentence[1]}")
    return StartError(
        f"the {child.name} ended ({ending(child)}); its last lines in {child.log_file}:\n{child.last_lines()}"
    )


def ending(child: Child) -> str:
    """How a child ended, in words."""
    status = child.status()
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"


def simulator_arguments(settings: Settings, home: Path) -> tuple[str, ...]:
    """The simulator's own command line: where it listens, keeps its keys, and posts its notifications."""
    port = settings.ses_endpoint.rpartition(":")[2]
    events_url = f"http://{installation.reachable(settings.host)}:{settings.port}/events/sns"
    return ("--port", port, "--directory", str(installation.simulator_directory(home)), "--events-url", events_url)
